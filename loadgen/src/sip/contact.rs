//! A user of the edge's who is watched: the notifier's end of a dialog that the server began (RFC 6665).

use std::net::SocketAddr;

use super::text::{Frame, request, uri_in};

/// A user of the edge's whom one of the server's watches.
#[derive(Debug)]
pub(super) struct Contact {
    from: String,
    to: String,
    target: String,
    route: Vec<String>,
    cseq: u32,
    call: String,
}

/// Its Record-Routes, for the answer.
pub(super) fn routes(frame: &Frame<'_>) -> String {
    let routes = frame.headers("Record-Route").map(String::from_utf8_lossy);
    routes.map(|it| format!("Record-Route: {it}\r\n")).collect()
}

/// A document of an edge's: there, and busy or not.
pub(super) fn document(entity: &str, busy: bool) -> String {
    let activity = "<ep:activities><ep:activity>busy</ep:activity></ep:activities>";
    format!(
        "<?xml version=\"1.0\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
         xmlns:ep=\"urn:ietf:params:xml:ns:pidf:status:rpid-status\" entity=\"sip:{entity}\">\
         <tuple id=\"0\"><status><basic>open</basic>{}</status></tuple></presence>",
        if busy { activity } else { "" }
    )
}

impl Contact {
    /// The dialog that a SUBSCRIBE makes.
    pub(super) fn of(frame: &Frame<'_>, call: &str) -> Self {
        let route = frame.headers("Record-Route").map(String::from_utf8_lossy);
        Self {
            from: format!("{};tag=edge", frame.header("To")),
            to: frame.header("From").to_owned(),
            target: uri_in(frame.header("Contact")).to_owned(),
            route: route.map(|it| it.into_owned()).collect(),
            cseq: 0,
            call: call.to_owned(),
        }
    }

    /// Its next NOTIFY: there, and busy or not; or the last.
    pub(super) fn notify(&mut self, name: &str, at: SocketAddr, busy: bool, ends: bool) -> String {
        self.cseq += 1;
        let (state, body) = if ends {
            ("terminated;reason=timeout", String::new())
        } else {
            ("active;expires=3600", document(name, busy))
        };
        let route: String = self.route.iter().map(|it| format!("Route: {it}\r\n")).collect();
        let typed = if ends { "" } else { "Content-Type: application/pidf+xml\r\n" };
        let user = name.split('@').next().unwrap_or_default();
        let head = format!(
            "{route}Via: SIP/2.0/TCP {at};branch=z9hG4bKn{:x}.{}\r\nMax-Forwards: 70\r\n\
             From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} NOTIFY\r\n\
             Contact: <sip:{user}@{at};transport=tcp>\r\nEvent: presence\r\n\
             Subscription-State: {state}\r\n{typed}",
            crc(&self.call),
            self.cseq,
            self.from,
            self.to,
            self.call,
            self.cseq,
        );
        request("NOTIFY", &self.target, &head, &body)
    }
}

/// Makes a branch of a Call-ID.
fn crc(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
