//! What may follow what on a stream that we open to a peer, and how we show who we are.
//!
//! ```text
//!  Opening(Clear) --header--> Announcing(Clear) --features--> Ready(Clear), or --we ask--> AskingTls
//!  AskingTls --proceed--> Securing --secured--> Opening(Secured) --> ... --> Ready(Secured)
//!  Ready --we show a key--> Dialback --valid--> Open
//!  Ready --we ask--> External --success--> Opening(Proved) --> ... --> Ready(Proved) --> Open
//! ```
//!
//! RFC 6120, 4.3, 5, 6; XEP-0178; XEP-0220, 2.1. The other direction is `xmpp::stream`.

use crate::policy::PeerAuth;
use crate::xmpp::fault::StreamFault;
use crate::xmpp::stream::Trust;

/// The state of a stream that we opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// The TLS handshake is under way.
    Securing,
    /// Our header is sent.
    Opening(Trust),
    /// Theirs came: features come next.
    Announcing(Trust),
    /// `<starttls/>` is sent.
    AskingTls,
    /// Verifications may pass; it is our turn.
    Ready(Trust),
    /// `<auth/>` is sent.
    External,
    /// A key is shown.
    Dialback(Trust),
    /// Stanzas may pass.
    Open,
}

/// What is heard or done on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The TLS handshake is complete.
    Secured,
    /// Their stream header.
    Header,
    /// `<stream:features/>`.
    Features,
    /// We ask for TLS.
    AskTls,
    /// `<proceed/>`.
    Proceed,
    /// We ask for EXTERNAL.
    AskExternal,
    /// `<success/>`.
    Success,
    /// `<failure/>` of SASL.
    Refused,
    /// We show a key.
    ShowKey,
    /// The key is good, or SASL has shown who we are.
    Valid,
    /// The key could not be judged (XEP-0220, 2.4.2).
    Unjudged,
}

impl Talk {
    /// Advances by one thing heard or done; the fault is the far end's and ends the stream.
    pub fn handle(self, heard: Heard) -> Result<Self, StreamFault> {
        Ok(match (self, heard) {
            (Self::Securing, Heard::Secured) => Self::Opening(Trust::Secured),
            (Self::Opening(trust), Heard::Header) => Self::Announcing(trust),
            (Self::Announcing(Trust::Clear), Heard::AskTls) => Self::AskingTls,
            (Self::Announcing(trust), Heard::Features) => Self::Ready(trust),
            (Self::AskingTls, Heard::Proceed) => Self::Securing,
            (Self::Ready(Trust::Secured), Heard::AskExternal) => Self::External,
            // RFC 6120, 6.4.6: the stream starts anew.
            (Self::External, Heard::Success) => Self::Opening(Trust::Proved),
            // XEP-0178, 3: dialback may follow on the same stream.
            (Self::External, Heard::Refused) => Self::Ready(Trust::Secured),
            (Self::Ready(trust @ (Trust::Clear | Trust::Secured)), Heard::ShowKey) => {
                Self::Dialback(trust)
            }
            (Self::Dialback(_) | Self::Ready(Trust::Proved), Heard::Valid) => Self::Open,
            (Self::Dialback(trust), Heard::Unjudged) => Self::Ready(trust),
            (_, _) => return Err(StreamFault::PolicyViolation),
        })
    }

    /// A word for lists of streams.
    pub fn name(self) -> &'static str {
        match self {
            Self::Securing | Self::AskingTls => "securing",
            Self::Opening(_) | Self::Announcing(_) => "opening",
            Self::Ready(_) => "usable",
            Self::External => "authenticating",
            Self::Dialback(_) => "dialback",
            Self::Open => "open",
        }
    }

    /// The step of the set-up that fails if it fails now.
    pub fn step(self) -> &'static str {
        match self {
            Self::Securing | Self::AskingTls => "tls",
            Self::Opening(_) | Self::Announcing(_) | Self::Ready(_) | Self::Open => "stream",
            Self::External => "auth",
            Self::Dialback(_) => "dialback",
        }
    }
}

/// How we show who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// SASL EXTERNAL with our certificate (XEP-0178).
    External,
    /// A key that they verify with us (XEP-0220).
    Dialback,
}

/// What the stream has to offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// There is TLS.
    pub secured: bool,
    /// Their certificate is good and theirs.
    pub good: bool,
    /// They offer EXTERNAL, we have a certificate, and they did not refuse it before.
    pub external: bool,
    /// They speak dialback.
    pub dialback: bool,
}

/// How to show who we are under a rule; the reason says why it can't be done.
pub fn method(rule: PeerAuth, offer: Offer) -> Result<Method, &'static str> {
    let by_key = if offer.dialback {
        Ok(Method::Dialback)
    } else {
        Err("the peer offers neither EXTERNAL, or refuses it, nor dialback")
    };
    match rule {
        PeerAuth::External if !offer.secured => {
            Err("the rule demands certificates; there is no TLS")
        }
        PeerAuth::External if !offer.good => Err("the peer's certificate is not good"),
        PeerAuth::External if offer.external => Ok(Method::External),
        PeerAuth::External => Err("the rule demands EXTERNAL; it is not offered or was refused"),
        PeerAuth::Both if offer.secured && !offer.good => Err("the peer's certificate is not good"),
        PeerAuth::Both if offer.secured && offer.external => Ok(Method::External),
        PeerAuth::Both | PeerAuth::Dialback => by_key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table: `talk.table`.
    #[test]
    fn every_state_meets_everything_heard() {
        use Trust::{Clear, Proved, Secured};
        let states = [
            Talk::Securing,
            Talk::Opening(Clear),
            Talk::Opening(Secured),
            Talk::Opening(Proved),
            Talk::Announcing(Clear),
            Talk::Announcing(Secured),
            Talk::Announcing(Proved),
            Talk::AskingTls,
            Talk::Ready(Clear),
            Talk::Ready(Secured),
            Talk::Ready(Proved),
            Talk::External,
            Talk::Dialback(Clear),
            Talk::Dialback(Secured),
            Talk::Open,
        ];
        let all = [
            Heard::Secured,
            Heard::Header,
            Heard::Features,
            Heard::AskTls,
            Heard::Proceed,
            Heard::AskExternal,
            Heard::Success,
            Heard::Refused,
            Heard::ShowKey,
            Heard::Valid,
            Heard::Unjudged,
        ];
        let mut table = String::new();
        for state in states {
            for heard in all {
                let next = match state.handle(heard) {
                    Ok(next) => format!("{next:?}"),
                    Err(fault) => fault.name().to_owned(),
                };
                table += &format!("{state:?} + {heard:?} -> {next}\n");
            }
        }
        crate::stdx::table::check("src/peer/talk.table", &table, include_str!("talk.table"));
    }

    #[test]
    fn the_rule_says_how_we_show_who_we_are() {
        let offer = |bits: u8| Offer {
            secured: bits & 1 != 0,
            good: bits & 2 != 0,
            external: bits & 4 != 0,
            dialback: bits & 8 != 0,
        };
        for bits in 0..16 {
            let it = offer(bits);
            let external = method(PeerAuth::External, it);
            assert_eq!(external.is_ok(), it.secured && it.good && it.external);
            assert_ne!(external, Ok(Method::Dialback));
            let key = method(PeerAuth::Dialback, it);
            assert_eq!(key.ok(), it.dialback.then_some(Method::Dialback));
            let both = method(PeerAuth::Both, it);
            if it.secured && !it.good {
                assert!(both.is_err(), "dialback to a server with a bad certificate");
            } else if it.secured && it.external {
                assert_eq!(both, Ok(Method::External));
            } else {
                assert_eq!(both.ok(), it.dialback.then_some(Method::Dialback));
            }
        }
    }
}
