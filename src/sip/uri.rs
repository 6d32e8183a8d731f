//! URIs (RFC 3261, 19.1, 25.1; RFC 5954 for IPv6).
//!
//! `sip:` and `sips:` are taken apart; of other schemes only the name is known. Octets stay as they
//! came: escapes are **not** undone, parameters are **not** understood, and nothing here is resolved.

use std::net::IpAddr;

use crate::sip::{chars, fault::Fault, span::Span};

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// `sip`, `sips` or another, in the case in which it came.
    pub scheme: &'a [u8],
    /// The user, escapes and `;` of its own included; its password is cut off.
    pub user: Option<&'a [u8]>,
    /// A name, an IPv4 address, or an IPv6 address in brackets. Empty for other schemes.
    pub host: &'a [u8],
    /// The port, if one is told.
    pub port: Option<u16>,
    params: &'a [u8],
    headers: Option<&'a [u8]>,
    opaque: &'a [u8],
}

impl<'a> Uri<'a> {
    /// Reads a URI without its brackets.
    pub fn parse(text: &'a [u8]) -> Result<Self, Fault> {
        if !is_possible(text) {
            return Err(BAD);
        }
        Self::of_possible(text)
    }

    /// The same of what `is_possible`.
    pub(super) fn of_possible(text: &'a [u8]) -> Result<Self, Fault> {
        let (scheme, opaque) = chars::split_once(text, b':').ok_or(BAD)?;
        let other =
            Self { scheme, user: None, host: b"", port: None, params: b"", headers: None, opaque };
        if !other.is_sip() {
            return Ok(other);
        }
        let (user, rest) = match chars::split_once(opaque, b'@') {
            Some((info, rest)) => {
                let user = chars::split_once(info, b':').map_or(info, |it| it.0);
                (Some(user).filter(|it| !it.is_empty()).ok_or(BAD).map(Some)?, rest)
            }
            None => (None, opaque),
        };
        let (rest, headers) = match chars::split_once(rest, b'?') {
            Some((rest, headers)) => (rest, Some(headers)),
            None => (rest, None),
        };
        let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
        let (host, port) = host_port(rest.get(..end).unwrap_or_default()).ok_or(BAD)?;
        Ok(Self { user, host, port, params: chars::skip(rest, end), headers, ..other })
    }

    /// Whether the scheme is `sip` or `sips`.
    pub fn is_sip(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(b"sip") || self.is_sips()
    }

    /// Whether the scheme is `sips`.
    pub fn is_sips(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(b"sips")
    }

    /// A parameter of the URI: none if it is absent, perhaps without a value. Colons, brackets and
    /// what else Microsoft writes are part of a value.
    pub fn param(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.params().find(|it| it.0.eq_ignore_ascii_case(name.as_bytes())).map(|it| it.1)
    }

    /// All parameters in their order.
    pub fn params(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let params = self.params.split(|it| *it == b';').filter(|it| !it.is_empty());
        params.map(|it| match chars::split_once(it, b'=') {
            Some((name, value)) => (name, Some(value)),
            None => (it, None),
        })
    }

    /// What stands behind `?`: never acted on (RFC 3261, 19.1.5).
    pub const fn headers(&self) -> Option<&'a [u8]> {
        self.headers
    }

    /// What stands behind the scheme.
    pub const fn opaque(&self) -> &'a [u8] {
        self.opaque
    }

    /// The host as an address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        ip(self.host)
    }

    /// Where its parts lie in the text.
    pub(super) fn keep(&self, text: &[u8]) -> Option<KeptUri> {
        Some(KeptUri {
            scheme: Span::of(self.scheme, text)?,
            user: Span::of_some(self.user, text)?,
            host: Span::of(self.host, text)?,
            port: self.port,
            params: Span::of(self.params, text)?,
            headers: Span::of_some(self.headers, text)?,
            opaque: Span::of(self.opaque, text)?,
        })
    }
}

/// Where the parts of an address lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptUri {
    scheme: Span,
    user: Option<Span>,
    host: Span,
    port: Option<u16>,
    params: Span,
    headers: Option<Span>,
    opaque: Span,
}

impl KeptUri {
    /// The address in another text, where its octets are the same.
    pub(super) fn cut<'a>(&self, text: &'a [u8]) -> Uri<'a> {
        Uri {
            scheme: self.scheme.cut(text),
            user: self.user.map(|it| it.cut(text)),
            host: self.host.cut(text),
            port: self.port,
            params: self.params.cut(text),
            headers: self.headers.map(|it| it.cut(text)),
            opaque: self.opaque.cut(text),
        }
    }
}

/// Octets without their percent escapes (RFC 3261, 19.1.2); none where an escape is malformed. Done
/// once: what comes of it is never unescaped again.
pub fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            plain.push(*first);
            continue;
        }
        let [high, low, behind @ ..] = rest else { return None };
        let digit = |it: &u8| char::from(*it).to_digit(16);
        plain.push((digit(high)? * 16 + digit(low)?) as u8);
        rest = behind;
    }
    Some(plain)
}

/// A host as an address, with or without brackets.
pub fn ip(host: &[u8]) -> Option<IpAddr> {
    let host = match host {
        [b'[', inner @ .., b']'] => inner,
        _ => host,
    };
    let host = std::str::from_utf8(host).ok()?;
    // RFC 5118, 4.10: three colons came out of a fault in an old grammar, and mean two.
    host.parse().ok().or_else(|| host.replacen(":::", "::", 1).parse().ok())
}

/// A scheme, a colon, and nothing that can't be in a URI.
pub(super) fn is_possible(text: &[u8]) -> bool {
    let Some((scheme, rest)) = chars::split_once(text, b':') else { return false };
    // Without a branch for each octet: nearly always all are good.
    let bad = |it: u8| (it <= b' ') | (it == b'"') | (it == b'<') | (it == b'>') | (it == 0x7F);
    let letter = |it: &u8| it.is_ascii_alphanumeric() || matches!(it, b'+' | b'-' | b'.');
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(letter)
        && !rest.is_empty()
        && !rest.iter().fold(false, |found, it| found | bad(*it))
}

/// `host [":" port]`, blanks between them allowed (they are in Via).
pub(super) fn host_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let end = text.iter().position(|it| !chars::is_host(*it)).unwrap_or(text.len());
    match text.split_at_checked(end)? {
        // Nothing but a name or an IPv4 address.
        (host @ [_, ..], []) => return Some((host, None)),
        (host @ [_, ..], [b':', port @ ..]) if port.iter().all(u8::is_ascii_digit) => {
            let port = u16::try_from(chars::number(port)?).ok().filter(|it| *it > 0)?;
            return Some((host, Some(port)));
        }
        _ => {}
    }
    let text = chars::trim(text);
    let end = match text.first()? {
        b'[' => memchr::memchr(b']', text)? + 1,
        _ => memchr::memchr(b':', text).unwrap_or(text.len()),
    };
    let host = chars::trim(text.get(..end)?);
    let sound = match host {
        [b'[', inner @ .., b']'] => {
            !inner.is_empty()
                && inner.iter().all(|it| it.is_ascii_hexdigit() || matches!(it, b':' | b'.'))
        }
        _ => {
            !host.is_empty()
                && host
                    .iter()
                    .all(|it| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'-' | b'_'))
        }
    };
    let port = match chars::trim(chars::skip(text, end)) {
        [] => None,
        [b':', port @ ..] => {
            let port = u16::try_from(chars::number(chars::trim(port))?).ok()?;
            Some(Some(port).filter(|it| *it > 0)?)
        }
        _ => return None,
    };
    sound.then_some((host, port))
}

const BAD: Fault = Fault::bad("Malformed URI");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn parts_are_found_where_they_stand() {
        let it = read("sip:alice@contoso.example;opaque=user:epid:AbC;gruu;LR");
        assert_eq!((it.user, it.host), (Some(&b"alice"[..]), &b"contoso.example"[..]));
        assert_eq!(it.param("opaque"), Some(Some(&b"user:epid:AbC"[..])));
        assert_eq!(
            (it.param("gruu"), it.param("lr"), it.param("maddr")),
            (Some(None), Some(None), None)
        );
        let it = read(
            "SIPS:user;par=u%40example.net@[2001:db8::10]:5070;transport=tls?Route=%3Csip:x%3E",
        );
        assert_eq!((it.user, it.port), (Some(&b"user;par=u%40example.net"[..]), Some(5070)));
        assert_eq!(it.ip(), "2001:db8::10".parse().ok());
        assert_eq!(it.headers(), Some(&b"Route=%3Csip:x%3E"[..]));
        assert!(it.is_sips());
        let it = read("sip:null-%00-null:secret?@example.com");
        assert_eq!((it.user, it.headers()), (Some(&b"null-%00-null"[..]), None));
        assert_eq!(
            read("sip:user@[2001:db8:::192.0.2.1]").ip(),
            "2001:db8::192.0.2.1".parse().ok()
        );
        let it = read("soap.beep://192.0.2.103:3002");
        assert_eq!((it.is_sip(), it.opaque()), (false, &b"//192.0.2.103:3002"[..]));
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        for bad in [
            "",
            "sip:",
            "sip",
            ":a",
            "<sip:a@b>",
            "sip:a@",
            "sip:@b",
            "sip:a b@c",
            "sip:2001:db8::10",
            "sip:a@b:0",
            "sip:a@b:x",
            "sip:a@b:99999",
            "sip:a@[::1",
            "sip:a@[]",
            "sip:a@b@c",
            "1x:a",
        ] {
            assert!(Uri::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn escapes_are_undone_once() {
        assert_eq!(unescape(b"a%2541%00").as_deref(), Some(&b"a%41\0"[..]));
        assert_eq!((unescape(b"%"), unescape(b"%4"), unescape(b"%Z%45")), (None, None, None));
    }
}
