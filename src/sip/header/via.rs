//! One hop of Via (RFC 3261, 20.42; RFC 3581; RFC 5923).
//!
//! Only the top one is ever read: those below go back as they came. An unknown transport or version is
//! **no** fault here.

use std::net::IpAddr;

use super::Params;
use crate::sip::{chars, fault::Fault, span::Span, uri};

/// The hop a response goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// `TLS`, `TCP`, `UDP` or any other token, in the case in which it came.
    pub transport: &'a [u8],
    /// The host of sent-by; an IPv6 address has its brackets.
    pub host: &'a [u8],
    /// The port of sent-by.
    pub port: Option<u16>,
    /// What stands behind it.
    pub params: Params<'a>,
    value: &'a [u8],
    branch: Option<&'a [u8]>,
}

impl<'a> Via<'a> {
    /// Reads one value, which may be folded.
    pub fn parse(value: &'a [u8]) -> Result<Self, Fault> {
        let value = chars::trim(value);
        let (protocol, rest) = chars::split_once(value, b'/').ok_or(BAD)?;
        let (version, rest) = chars::split_once(rest, b'/').ok_or(BAD)?;
        let rest = chars::trim_start(rest);
        let end = rest.iter().position(|it| chars::is_blank(*it)).ok_or(BAD)?;
        let transport = rest.get(..end).unwrap_or_default();
        if ![chars::trim(protocol), chars::trim(version), transport].into_iter().all(chars::token) {
            return Err(BAD);
        }
        let rest = chars::trim_start(chars::skip(rest, end));
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        let (host, port) = uri::host_port(rest.get(..end).unwrap_or_default()).ok_or(BAD)?;
        let (params, branch) = Params::finding(chars::skip(rest, end), "branch")?;
        let branch = branch.flatten();
        Ok(Self { transport, host, port, params, value, branch })
    }

    /// The branch, if there is one at all.
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.branch.filter(|it| !it.is_empty())
    }

    /// The branch if it names one transaction and no other (RFC 3261, 8.1.1.7). A bare cookie names
    /// nothing (RFC 4475, 3.2.1), and without one RFC 3261, 17.2.3 has rules of old.
    pub fn key(&self) -> Option<&'a [u8]> {
        let cookie = |it: &&[u8]| {
            it.len() > COOKIE.len()
                && it.get(..COOKIE.len()).is_some_and(|it| it.eq_ignore_ascii_case(COOKIE))
        };
        self.branch().filter(cookie)
    }

    /// The address from which it came, as the next hop saw it.
    pub fn received(&self) -> Option<IpAddr> {
        uri::ip(self.params.get("received").flatten()?)
    }

    /// `rport`: asked for (no value), or told.
    pub fn rport(&self) -> Option<Option<u16>> {
        let port = |it: &[u8]| u16::try_from(chars::number(it)?).ok();
        self.params.get("rport").map(|it| it.and_then(port))
    }

    /// A parameter: none if it is absent, perhaps without a value.
    pub fn param(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.params.get(name)
    }

    /// Whether sent-by names this transport, in any case.
    pub fn is_over(&self, transport: &str) -> bool {
        self.transport.eq_ignore_ascii_case(transport.as_bytes())
    }

    /// The whole value as it came.
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// Where its parts lie in the text.
    pub(in crate::sip) fn keep(&self, text: &[u8]) -> Option<KeptVia> {
        Some(KeptVia {
            transport: Span::of(self.transport, text)?,
            host: Span::of(self.host, text)?,
            port: self.port,
            params: Span::of(self.params.0, text)?,
            value: Span::of(self.value, text)?,
            branch: Span::of_some(self.branch, text)?,
        })
    }
}

/// Where the parts of a hop lie.
#[derive(Clone, Copy, Debug)]
pub(in crate::sip) struct KeptVia {
    transport: Span,
    host: Span,
    port: Option<u16>,
    params: Span,
    value: Span,
    branch: Option<Span>,
}

impl KeptVia {
    /// The hop in another text, where its octets are the same but for its branch.
    pub(in crate::sip) fn cut<'a>(&self, text: &'a [u8]) -> Via<'a> {
        Via {
            transport: self.transport.cut(text),
            host: self.host.cut(text),
            port: self.port,
            params: Params(self.params.cut(text)),
            value: self.value.cut(text),
            branch: self.branch.map(|it| it.cut(text)),
        }
    }
}

/// RFC 3261, 8.1.1.7.
const COOKIE: &[u8] = b"z9hG4bK";

const BAD: Fault = Fault::bad("Malformed Via");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Via<'_> {
        Via::parse(value.as_bytes()).expect(value)
    }

    #[test]
    fn hops_of_all_shapes_are_read() {
        let it = read(
            "SIP/2.0/TLS 192.0.2.18:5061;branch=z9hG4bK6E.78;branched=FALSE;ms-internal-info=\"15;k=1,2\"",
        );
        assert_eq!((it.transport, it.host, it.port), (&b"TLS"[..], &b"192.0.2.18"[..], Some(5061)));
        assert_eq!(it.key(), Some(&b"z9hG4bK6E.78"[..]));
        assert_eq!(it.param("MS-internal-info"), Some(Some(&b"15;k=1,2"[..])));
        let it =
            read("SIP  / 2.0\r\n /UDP\r\n    [2001:db8::9] : 5060 ;\r\n branch = 390skdjuw; rport");
        assert_eq!((it.host, it.port, it.key()), (&b"[2001:db8::9]"[..], Some(5060), None));
        assert_eq!((it.branch(), it.rport()), (Some(&b"390skdjuw"[..]), Some(None)));
        let it =
            read("SIP/2.0/TLS 192.0.2.40:51233;ms-received-port=51233;ms-received-cid=81C4000");
        assert_eq!((it.branch(), it.received()), (None, None));
        let it = read("SIP/2.0/UDP a;branch=z9hG4bK;received=[2001:db8::9:255];rport=99");
        assert_eq!((it.key(), it.rport()), (None, Some(Some(99))));
        assert_eq!(it.received(), "2001:db8::9:255".parse().ok());
    }

    #[test]
    fn what_is_no_hop_is_refused() {
        for bad in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0 a",
            "SIP/2.0/UDP 192.0.2.15;;",
            "SIP/2.0/UDP :5060",
            "SIP/2.0/UDP a:99999",
            "SIP/2.0/UDP 2001:db8::1;branch=z9hG4bKx",
            "SIP/2.0/UDP a b;branch=z9hG4bKx",
        ] {
            assert!(Via::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
