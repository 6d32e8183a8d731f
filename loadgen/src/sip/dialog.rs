//! A dialog of an edge (RFC 3261, 12): what its requests are written from.
//!
//! CSeq begins at a number of ten digits, so that templates keep their length.

use std::net::SocketAddr;

use super::text::{Frame, request, uri_in};

/// The domain whose edge is played.
pub const DOMAIN: &str = "edge.example";
/// The first CSeq of a dialog.
pub const FIRST: u32 = 1_000_000_001;

/// One dialog, begun by the edge.
#[derive(Clone, Debug, Default)]
pub struct Dialog {
    /// `tl` and the number of the dialog, then the generation.
    pub call: String,
    /// Name-addr of the edge's user, without tag.
    pub local: String,
    /// Name-addr of the other, without tag.
    pub remote: String,
    /// The edge's tag.
    pub local_tag: String,
    /// The other's, once known.
    pub remote_tag: String,
    /// Where requests go, from the other's Contact.
    pub target: String,
    /// The other's Record-Route, for a side that begins the dialog: reversed.
    pub route: Vec<String>,
    /// The last one used.
    pub cseq: u32,
    /// The last that the other used.
    pub heard: u32,
    /// The edge's Contact, `<...>`.
    pub contact: String,
    /// The top Via, up to the middle of its branch.
    pub via: String,
}

impl Dialog {
    /// A dialog that will begin with a request to a user.
    pub fn begin(number: usize, generation: u32, from: &str, to: &str, edge: SocketAddr) -> Self {
        let name = from.split('@').next().unwrap_or_default();
        Self {
            call: format!("tl{number:08x}g{generation:04x}@r{}.{DOMAIN}", std::process::id()),
            local: format!("\"{name}\"<sip:{from}>"),
            remote: format!("<sip:{to}>"),
            local_tag: format!("e{number:08x}"),
            target: format!("sip:{to}"),
            cseq: FIRST - 1,
            contact: format!("<sip:{name}@{edge};transport=tcp>"),
            // Of this process: another one's may still be known to the server.
            via: format!("SIP/2.0/TCP {edge};branch=z9hG4bK{:x}", std::process::id()),
            ..Self::default()
        }
    }

    /// The number and the generation in a Call-ID of an edge's.
    pub fn number(call: &[u8]) -> Option<(usize, u32)> {
        let hex = |at: std::ops::Range<usize>| {
            let digits = std::str::from_utf8(call.get(at)?).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        call.starts_with(b"tl").then_some(())?;
        Some((hex(2..10)? as usize, hex(11..15)?))
    }

    /// The answer that makes it: tag, target and routes are from there.
    pub fn made(&mut self, answer: &Frame<'_>) {
        self.remote_tag = answer.tag("To").to_owned();
        self.target = uri_in(answer.header("Contact")).to_owned();
        let routes = answer.headers("Record-Route").map(String::from_utf8_lossy);
        // The other's own route is the only one that is not this edge's (RFC 3261, 12.1.2).
        self.route = routes.filter(|it| !it.contains(DOMAIN)).map(|it| it.into_owned()).collect();
        self.route.reverse();
    }

    /// Its next request.
    pub fn request(&mut self, method: &str, more: &str, body: &str) -> String {
        self.cseq += 1;
        self.text(method, self.cseq, more, body)
    }

    /// A request with that number.
    pub fn text(&self, method: &str, cseq: u32, more: &str, body: &str) -> String {
        let tag = if self.remote_tag.is_empty() { "" } else { ";tag=" };
        let routes: String = self.route.iter().map(|it| format!("Route: {it}\r\n")).collect();
        let head = format!(
            "{routes}Via: {}.{}.{cseq:010}{}\r\nMax-Forwards: 70\r\nFrom: {};tag={}\r\n\
             To: {}{tag}{}\r\nCall-ID: {}\r\nCSeq: {cseq:010} {method}\r\n{more}",
            self.via,
            self.call.split('@').next().unwrap_or_default(),
            method.get(..1).unwrap_or_default(),
            self.local,
            self.local_tag,
            self.remote,
            self.remote_tag,
            self.call,
        );
        request(method, &self.target, &head, body)
    }

    /// Whether a request of the other is in this dialog and newer than the last.
    pub fn hears(&mut self, frame: &Frame<'_>, cseq: u32) -> bool {
        let tags = frame.tag("To") == self.local_tag
            && (self.remote_tag.is_empty() || frame.tag("From") == self.remote_tag);
        let newer = cseq > self.heard;
        self.heard = self.heard.max(cseq);
        tags && newer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::text::Reader;

    #[test]
    fn a_dialog_is_found_by_its_call_and_takes_what_the_answer_says() {
        let at = "127.0.0.5:5066".parse().unwrap();
        let mut it = Dialog::begin(300, 2, "w1@edge.example", "u3@load.example", at);
        assert_eq!(Dialog::number(it.call.as_bytes()), Some((300, 2)));
        assert_eq!(Dialog::number(b"other@load.example"), None);
        let first = it.request("SUBSCRIBE", "Contact: x\r\n", "");
        assert!(first.starts_with("SUBSCRIBE sip:u3@load.example SIP/2.0\r\nVia: "), "{first}");
        let answer = "SIP/2.0 200 OK\r\nRecord-Route: <sip:load.example:5061;lr>\r\nRecord-Route: \
            <sip:edge.example;lr>\r\nTo: <sip:u3@load.example>;tag=t9\r\nContact: <sip:load.example\
            :5061;transport=tcp>\r\nContent-Length: 0\r\n\r\n";
        let reader = Reader::default();
        it.made(&reader.cut(answer.as_bytes()).unwrap().unwrap().0);
        let next = it.request("SUBSCRIBE", "", "");
        let begin = "SUBSCRIBE sip:load.example:5061;transport=tcp SIP/2.0\r\nRoute: \
            <sip:load.example:5061;lr>\r\nVia: ";
        assert!(next.starts_with(begin), "{next}");
        assert!(next.contains("To: <sip:u3@load.example>;tag=t9\r\n"), "{next}");
        assert_eq!(reader.cseq(&reader.cut(next.as_bytes()).unwrap().unwrap().0).0, FIRST + 1);
        let notify = "NOTIFY sip:w SIP/2.0\r\nFrom: <sip:u3@load.example>;tag=t9\r\nTo: \
            \"w1\"<sip:w1@edge.example>;tag=e0000012c\r\nContent-Length: 0\r\n\r\n";
        let frame = reader.cut(notify.as_bytes()).unwrap().unwrap().0;
        assert!(it.hears(&frame, 1) && !it.hears(&frame, 1) && it.hears(&frame, 2));
    }
}
