//! What may follow what on a stream that a far end opened to us: a client's, or a peer's.
//!
//! ```text
//!  Opening(Clear) --open--> Negotiating(Clear) --starttls--> Securing --secured--> Opening(Secured)
//!  Opening(Secured) --open--> Negotiating(Secured) --auth--> Authenticating --proved--> Opening(Proved)
//!  Opening(Proved) --open--> Negotiating(Proved) --bind--> Bound          (a client)
//!                                                --stanza--> (stays)      (a peer)
//! ```
//!
//! RFC 6120, 4.3, 5, 6 and 7. The state is small and `Copy`; everything with bytes in it is in the
//! connection. Which pairs of domains dialback has proven is **not** known here: the engine asks
//! its list for each stanza of a peer.

use crate::xmpp::fault::StreamFault;

/// Who is at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// XMPP clients of local users (RFC 6120, c2s).
    Client,
    /// XMPP servers of other domains (RFC 6120, s2s).
    Peer,
}

/// What the far end has shown so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing, and the octets are in clear text.
    Clear,
    /// Nothing, but TLS is up.
    Secured,
    /// Who it is, by SASL.
    Proved,
}

/// The state of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Waits for the far end's stream header.
    Opening(Trust),
    /// Features are told; it is the far end's turn.
    Negotiating(Trust),
    /// `<proceed/>` is sent: the next octets are TLS.
    Securing,
    /// A SASL exchange is under way.
    Authenticating(Trust),
    /// A client has a resource.
    Bound,
    /// The closing tag came, or we sent one.
    Closed,
}

/// What happens to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// The stream header.
    Open,
    /// `<starttls/>`.
    StartTls,
    /// The TLS handshake is complete.
    Secured,
    /// `<auth/>`.
    Auth,
    /// `<response/>` or `<abort/>`.
    Response,
    /// SASL ended well.
    Proved,
    /// SASL ended badly; another try is allowed.
    Failed,
    /// A resource is bound.
    Bind,
    /// Message, presence or IQ.
    Stanza,
    /// `<db:result/>` or `<db:verify/>`.
    Dialback,
    /// Another first-level element.
    Other,
    /// `</stream:stream>`.
    Close,
}

impl Stream {
    /// Advances by one input; the fault is the stream error that ends the stream.
    pub fn handle(self, party: Party, input: Input) -> Result<Self, StreamFault> {
        use Stream::{Authenticating, Bound, Closed, Negotiating, Opening, Securing};
        Ok(match (self, input) {
            // RFC 6120, 4.4: after the closing tag there is nothing left to answer.
            (Closed, _) | (_, Input::Close) => Closed,
            (Opening(trust), Input::Open) => Negotiating(trust),
            (Negotiating(Trust::Clear), Input::StartTls) => Securing,
            // RFC 6120, 5.4.3.3 and 6.4.6: after TLS and after SASL the stream starts anew.
            (Securing, Input::Secured) => Opening(Trust::Secured),
            (Negotiating(trust @ (Trust::Clear | Trust::Secured)), Input::Auth) => {
                Authenticating(trust)
            }
            (Authenticating(trust), Input::Response) => Authenticating(trust),
            (Authenticating(_), Input::Proved) => Opening(Trust::Proved),
            (Authenticating(trust), Input::Failed) => Negotiating(trust),
            (Negotiating(Trust::Proved), Input::Bind) if party == Party::Client => Bound,
            (Bound, Input::Stanza) => Bound,
            (Negotiating(trust), Input::Stanza) if party == Party::Peer => Negotiating(trust),
            // XEP-0220, 2.1: keys are shown and verified on an open stream.
            (Negotiating(trust), Input::Dialback) if party == Party::Peer => Negotiating(trust),
            // RFC 6120, 7.1 and 4.9.3.12: nothing is carried for who has not shown who he is.
            (_, Input::Stanza | Input::Bind | Input::Dialback) => {
                return Err(StreamFault::NotAuthorized);
            }
            // RFC 6120, 4.9.3.24: a first-level element that we know no use for here.
            (Negotiating(_) | Bound, Input::Other) => {
                return Err(StreamFault::UnsupportedStanzaType);
            }
            (_, _) => return Err(StreamFault::PolicyViolation),
        })
    }

    /// Stanzas of this far end may pass: what it may send is checked elsewhere.
    pub fn is_proved(self) -> bool {
        matches!(
            self,
            Self::Opening(Trust::Proved) | Self::Negotiating(Trust::Proved) | Self::Bound
        )
    }

    /// A word for lists of streams.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opening(_) => "opening",
            Self::Negotiating(Trust::Proved) => "proved",
            Self::Negotiating(_) => "negotiating",
            Self::Securing => "securing",
            Self::Authenticating(_) => "authenticating",
            Self::Bound => "bound",
            Self::Closed => "closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table: `stream.table`.
    #[test]
    fn every_state_meets_every_input() {
        use Trust::{Clear, Proved, Secured};
        let states = [
            Stream::Opening(Clear),
            Stream::Opening(Secured),
            Stream::Opening(Proved),
            Stream::Negotiating(Clear),
            Stream::Negotiating(Secured),
            Stream::Negotiating(Proved),
            Stream::Securing,
            Stream::Authenticating(Clear),
            Stream::Authenticating(Secured),
            Stream::Bound,
            Stream::Closed,
        ];
        let inputs = [
            Input::Open,
            Input::StartTls,
            Input::Secured,
            Input::Auth,
            Input::Response,
            Input::Proved,
            Input::Failed,
            Input::Bind,
            Input::Stanza,
            Input::Dialback,
            Input::Other,
            Input::Close,
        ];
        let mut table = String::new();
        for party in [Party::Client, Party::Peer] {
            for state in states {
                for input in inputs {
                    let next = match state.handle(party, input) {
                        Ok(next) => format!("{next:?}"),
                        Err(fault) => fault.name().to_owned(),
                    };
                    table += &format!("{party:?}: {state:?} + {input:?} -> {next}\n");
                }
            }
        }
        crate::stdx::table::check("src/xmpp/stream.table", &table, include_str!("stream.table"));
    }
}
