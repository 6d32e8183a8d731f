//! What every message must hold, in the order in which it is judged.
//!
//! RFC 3261, 8.2, 16.3: syntax and mandatory headers, version, method, scheme and hops. Who asks, whom,
//! and what for is **not** judged here, nor are a dialog and its order.

use crate::{
    limits,
    sip::{
        fault::Fault,
        header::NameAddr,
        message::{Known, Message},
        method::Method,
        name::Name,
        uri::Uri,
    },
};

/// The methods a user agent of ours takes: the value of Allow.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, MESSAGE, INFO, OPTIONS, NOTIFY, SUBSCRIBE";

impl<'a> Message<'a> {
    /// Judges what does not depend on who asks whom. Of a response any fault means: drop it.
    ///
    /// ACK and BENOTIFY are judged too, but never answered (`Method::is_answered`).
    pub fn check(&self) -> Result<(), Fault> {
        self.checked().map(|_| ())
    }

    /// The same, and the message with what was read of it on the way, which is not read again then.
    pub fn checked(&self) -> Result<Self, Fault> {
        if let Some(fault) = self.broken() {
            return Err(fault);
        }
        let mut known = self.mandatory()?;
        if self.is_request() {
            known.uri = Some(self.asks(known.cseq.1)?);
        } else if !is_ours(self.version()) {
            return Err(Fault::new(505));
        }
        Ok(self.knowing(known))
    }

    /// What a request must hold besides; its URI.
    fn asks(&self, named: Method<'_>) -> Result<Uri<'a>, Fault> {
        // RFC 3261, 20.10: an address that is there can be read.
        for contact in self.list(Name::Contact).filter(|it| *it != b"*") {
            NameAddr::parse(contact)?.uri()?;
        }
        let uri = Uri::parse(self.uri()).map_err(|_| Fault::bad("Malformed Request-URI"))?;
        // RFC 3261, 19.1.1: no headers in a Request-URI.
        if uri.headers().is_some() {
            return Err(Fault::bad("Headers in the Request-URI"));
        }
        let hops = self.max_forwards()?;
        if hops.is_some_and(|it| it > 255) {
            return Err(Fault::bad("Malformed Max-Forwards"));
        }
        if !is_ours(self.version()) {
            return Err(Fault::new(505));
        }
        taken(self.method())?;
        if named != self.method() {
            return Err(Fault::bad("CSeq Names Another Method"));
        }
        if !uri.is_sip() {
            return Err(Fault::new(416));
        }
        // RFC 3261, 11: an OPTIONS may ask just this far.
        if hops == Some(0) && self.method() != Method::Options {
            return Err(Fault::new(483));
        }
        Ok(uri)
    }

    fn mandatory(&self) -> Result<Known<'a>, Fault> {
        let via = self.via()?;
        if self.list(Name::Via).count() > limits::SIP_VIAS_MAX {
            return Err(Fault::bad("Too Many Vias"));
        }
        let (from, to) = (self.from()?, self.to()?);
        let (from_uri, to_uri) = (from.uri()?, to.uri()?);
        // RFC 3261, 19.3: a tag is a token; one that is empty would hide the one we add.
        let tags = [from.raw_tag(), to.raw_tag()];
        if tags.iter().flatten().any(|it| it.is_none_or(<[u8]>::is_empty)) {
            return Err(Fault::bad("Malformed Tag"));
        }
        let [from_tag, to_tag] = tags.map(Option::flatten);
        let call_id = self.call_id()?;
        let keys = [via.branch(), from_tag, to_tag, Some(call_id.as_bytes())];
        if keys.into_iter().flatten().any(|it| it.len() > limits::SIP_KEY_BYTES_MAX) {
            return Err(Fault::bad("Call-ID, Tag or Branch Too Long"));
        }
        self.single()?;
        let cseq = self.cseq()?;
        Ok(Known { via, from, to, from_uri, to_uri, uri: None, call_id, cseq })
    }

    /// RFC 3261, 7.3.1: only lists may be repeated.
    fn single(&self) -> Result<(), Fault> {
        const SINGLE: [(Name, &str); 8] = [
            (Name::From, "Several From"),
            (Name::To, "Several To"),
            (Name::CallId, "Several Call-ID"),
            (Name::CSeq, "Several CSeq"),
            (Name::MaxForwards, "Several Max-Forwards"),
            (Name::Event, "Several Event"),
            (Name::Expires, "Several Expires"),
            (Name::ContentType, "Several Content-Type"),
        ];
        for (name, reason) in SINGLE {
            if self.headers(name).nth(1).is_some() {
                return Err(Fault::bad(reason));
            }
        }
        Ok(())
    }
}

/// RFC 3261, 7.1: compared without case.
fn is_ours(version: &[u8]) -> bool {
    version.eq_ignore_ascii_case(b"SIP/2.0")
}

/// RFC 3261, 8.2.1: a method that is not known is 501, one that is but not here is 405.
fn taken(method: Method<'_>) -> Result<(), Fault> {
    match method {
        Method::Invite
        | Method::Ack
        | Method::Bye
        | Method::Cancel
        | Method::Options
        | Method::Message
        | Method::Subscribe
        | Method::Notify
        | Method::Benotify
        | Method::Info => Ok(()),
        Method::Register | Method::Refer | Method::Update | Method::Prack | Method::Publish => {
            Err(Fault::new(405).with("Allow", ALLOW))
        }
        Method::Service | Method::Other(_) => Err(Fault::new(501).with("Allow", ALLOW)),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
