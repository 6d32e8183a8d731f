//! A SIP URI as an XMPP address, and back (RFC 7247, 6; XEP-0106; RFC 5627).
//!
//! The user part is decoded, folded as addresses are, then escaped, so that two users of SIP never
//! share one address. An address keeps its domain in A-labels, as SIP does. Inside a dialog the
//! peer's own URIs are used and nothing is made anew here. `tel:` is **not** mapped; `sips:` is
//! refused, for XMPP can't promise what it asks for (RFC 7247, 8).

use std::borrow::Cow;

use crate::address::{Address, AddressRef, Malformed, escape_mapped, unescape_local};

/// Why a URI is no address, as the answer that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// Not a URI, or an octet is encoded wrongly: 400.
    Broken,
    /// Nobody can be called so: 404.
    Nobody,
    /// A scheme that is not mapped: 416.
    Scheme,
    /// `sips:`: 480 with a warning (RFC 5630, 5).
    Sips,
}

impl Unmapped {
    /// The status to answer with.
    pub fn status(self) -> u16 {
        match self {
            Self::Broken => 400,
            Self::Nobody => 404,
            Self::Scheme => 416,
            Self::Sips => 480,
        }
    }

    /// A reason phrase.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Broken => "Bad URI",
            Self::Nobody => "Not Found",
            Self::Scheme => "Unsupported URI Scheme",
            Self::Sips => "Temporarily Unavailable",
        }
    }

    /// The value of `Warning` that goes along; `host` is ours.
    pub fn warning(self, host: &str) -> Option<String> {
        (self == Self::Sips).then(|| format!("380 {host} \"SIPS Not Allowed\""))
    }
}

/// The scheme of a URI that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    #[default]
    Sip,
    /// RFC 3860; only where a rule asks for it.
    Im,
    /// RFC 3859; only where a rule asks for it.
    Pres,
}

impl Scheme {
    fn word(self) -> &'static str {
        match self {
            Self::Sip => "sip:",
            Self::Im => "im:",
            Self::Pres => "pres:",
        }
    }
}

/// The address of a user by his URI, which is without angle brackets.
pub fn to_address(uri: &[u8]) -> Result<Address, Unmapped> {
    // Octets of no character may only stand there encoded.
    let uri = std::str::from_utf8(uri).map_err(|_| Unmapped::Broken)?;
    let (scheme, rest) = uri.split_once(':').ok_or(Unmapped::Broken)?;
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    if is("sips") {
        return Err(Unmapped::Sips);
    }
    if !is("sip") && !is("im") && !is("pres") {
        return Err(Unmapped::Scheme);
    }
    if rest.bytes().any(|b| b <= b' ' || b == 0x7F) {
        return Err(Unmapped::Broken);
    }
    let (user, rest) = rest.split_once('@').ok_or(Unmapped::Nobody)?;
    let user = user.split_once(':').map_or(user, |(user, _password)| user);
    let (rest, _headers) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, params) = rest.split_once(';').unwrap_or((rest, ""));
    let local = match is_plain(user) {
        true => Cow::Borrowed(user),
        false => Cow::Owned(escape_mapped(&decoded(user)?).ok_or(Unmapped::Nobody)?),
    };
    let resource = if is("sip") { gruu(params)? } else { None };
    let address = Address::of(Some(&local), host_of(host)?, resource.as_deref());
    let address = address.map_err(|it| match it {
        Malformed::DomainEmpty | Malformed::DomainInvalid | Malformed::DomainTooLong => {
            Unmapped::Broken
        }
        _ => Unmapped::Nobody,
    })?;
    // Escaping may not join what follows into another character.
    if address.local() == Some(&local) { Ok(address) } else { Err(Unmapped::Nobody) }
}

/// It is its own escaped and mapped form.
fn is_plain(user: &str) -> bool {
    let is_it =
        |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, b'.' | b'-' | b'_');
    (1..=255).contains(&user.len()) && user.bytes().all(is_it)
}

/// Without the port.
fn host_of(host: &str) -> Result<&str, Unmapped> {
    if host.starts_with('[') {
        // An IPv6 address is the domain of nobody.
        return Err(Unmapped::Nobody);
    }
    match host.split_once(':') {
        None => Ok(host),
        Some((host, port)) if port.parse::<u16>().is_ok() => Ok(host),
        Some(_) => Err(Unmapped::Broken),
    }
}

/// RFC 5627, 5.1: `gr=value` names an instance for good; `gr` alone is temporary and says nothing.
/// A GRUU of Microsoft's (`opaque=...;gruu`) is no name for an instance.
fn gruu(params: &str) -> Result<Option<Cow<'_, str>>, Unmapped> {
    let mut params = params.split(';').map(|it| it.split_once('=').unwrap_or((it, "")));
    match params.find(|(name, _)| name.eq_ignore_ascii_case("gr")) {
        Some((_, value)) if !value.is_empty() => decoded(value).map(Some),
        _ => Ok(None),
    }
}

/// RFC 3986, 2.1. A triplet that is none: the URI is broken; octets of no character: nobody.
fn decoded(text: &str) -> Result<Cow<'_, str>, Unmapped> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let digit = |at: usize| behind.get(at).and_then(|it| char::from(*it).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(Unmapped::Broken) };
        // Two hexadecimal digits are an octet.
        octets.push((high * 16 + low) as u8);
        rest = behind.get(2..).unwrap_or_default();
    }
    String::from_utf8(octets).map(Cow::Owned).map_err(|_| Unmapped::Nobody)
}

// RFC 3261, 25.1: `unreserved` and `user-unreserved` beside letters and digits.
const SIP_KEPT: &[u8] = b"!$&'()*+,-./;=?_~";
// RFC 3860, 3, RFC 3986: what both allow.
const IM_KEPT: &[u8] = b"!$&'*+-/=_~.";
// RFC 3261, 25.1: `paramchar` beside letters and digits.
const PARAM_KEPT: &[u8] = b"-_.!~*'()[]/:&+$";

/// Appends the URI of an address; its resource becomes a GRUU (RFC 7247, 6.5).
pub fn write_uri(scheme: Scheme, address: AddressRef<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(scheme.word().as_bytes());
    if let Some(local) = address.local() {
        let kept = if scheme == Scheme::Sip { SIP_KEPT } else { IM_KEPT };
        encode(&unescape_local(local), kept, out);
        out.push(b'@');
    }
    out.extend_from_slice(address.domain().as_bytes());
    if let (Scheme::Sip, Some(resource)) = (scheme, address.resource()) {
        out.extend_from_slice(b";gr=");
        encode(resource, PARAM_KEPT, out);
    }
}

/// The `sip:` URI of an address, as [`write_uri`] writes it.
pub fn to_uri(address: AddressRef<'_>) -> String {
    let mut out = Vec::with_capacity(address.full().len() + 8);
    write_uri(Scheme::Sip, address, &mut out);
    // Everything but ASCII was encoded.
    String::from_utf8(out).unwrap_or_default()
}

fn encode(text: &str, kept: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || kept.contains(&octet) {
            out.push(octet);
        } else {
            let digit = |it: u8| DIGITS[usize::from(it & 15)];
            out.extend_from_slice(&[b'%', digit(octet >> 4), digit(octet)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(uri: &str) -> Result<Address, Unmapped> {
        to_address(uri.as_bytes())
    }

    /// SIP, the address, and SIP again if it is another.
    const EXAMPLES: &[(&str, &str, &str)] = &[
        ("sip:f%C3%BC@sip.example", "fü@sip.example", ""),
        ("sip:o'malley@sip.example", r"o\27malley@sip.example", ""),
        ("sip:foo@sip.example;gr=bar", "foo@sip.example/bar", ""),
        ("sip:m&m@xmpp.example", r"m\26m@xmpp.example", ""),
        ("sip:tsch%C3%BCss@xmpp.example", "tschüss@xmpp.example", ""),
        ("sip:foo@sip.example;gr", "foo@sip.example", "sip:foo@sip.example"),
        ("sip:at%26t%20guy@sip.example", r"at\26t\20guy@sip.example", "sip:at&t%20guy@sip.example"),
        ("sip:user%40host@sip.example", r"user\40host@sip.example", ""),
        ("sip:c%3A%5C5commas@sip.example", r"c\3a\5c5commas@sip.example", ""),
        ("sip:%5C27x@sip.example", r"\5c27x@sip.example", ""),
        ("sip:x%5C3Ay@sip.example", r"x\5c3ay@sip.example", "sip:x%5C3ay@sip.example"),
        ("sip:Bob@SIP.example:5061;transport=tls", "bob@sip.example", "sip:bob@sip.example"),
        (
            "sip:+15551234@sip.example;user=phone",
            "+15551234@sip.example",
            "sip:+15551234@sip.example",
        ),
        (
            "sip:here%27s_a_%26_%2Fcr%25zy@sip.example",
            r"here\27s_a_\26_\2fcr%zy@sip.example",
            "sip:here's_a_&_/cr%25zy@sip.example",
        ),
        ("sip:a%23b%25c@xmpp.example", "a#b%c@xmpp.example", ""),
        ("sip:d'artagnan@xmpp.example;gr=B%C3%BCro%202", r"d\27artagnan@xmpp.example/Büro 2", ""),
        ("sip:bob@xmpp.example;gr=a%3Bb%3Dc", "bob@xmpp.example/a;b=c", ""),
        ("sip:bob@xn--bcher-kva.example", "bob@bücher.example", ""),
    ];

    #[test]
    fn examples_both_ways() {
        for &(uri, jid, back) in EXAMPLES {
            let found = address(uri).unwrap_or_else(|it| panic!("{uri}: {it:?}"));
            assert_eq!(found, Address::parse(jid).unwrap(), "{uri}");
            let back = if back.is_empty() { uri } else { back };
            assert_eq!(to_uri(found.view()), back, "{uri}");
            assert_eq!(address(back).unwrap(), found, "{uri}: once more");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (uri, status) in [
            ("sip:%20x@sip.example", 404),
            ("sip:x%20@sip.example", 404),
            ("sip:a%FFb@sip.example", 404),
            ("sip:a%00b@sip.example", 404),
            ("sip:@sip.example", 404),
            ("sip:sip.example", 404),
            ("sip:bob@192.0.2.1", 404),
            ("sip:bob@[2001:db8::1]:5060", 404),
            ("sip:bob@sip.example;gr=%FF", 404),
            ("sip:a%zz@sip.example", 400),
            ("sip:a%2@sip.example", 400),
            ("sip:a%@sip.example", 400),
            ("sip:bob@sip.example;gr=%", 400),
            ("sip:bob@", 400),
            ("sip:bob@-.example", 400),
            ("sip:bob@a_b@c", 400),
            ("sip:bob@sip.example:x", 400),
            ("sip:b ob@sip.example", 400),
            ("bob", 400),
            ("tel:+15551234", 416),
            ("http://sip.example/", 416),
            ("sips:bob@sip.example", 480),
        ] {
            assert_eq!(address(uri).map_err(Unmapped::status), Err(status), "{uri}");
        }
        assert_eq!(to_address(b"sip:a\xFF@b").map_err(Unmapped::status), Err(400));
        let long = format!("sip:{}@sip.example", "a".repeat(1024));
        assert_eq!(address(&long), Err(Unmapped::Nobody));
        assert!(address(&long.replacen('a', "", 1)).is_ok());
        assert_eq!(Unmapped::Sips.warning("h").unwrap(), "380 h \"SIPS Not Allowed\"");
        assert_eq!(Unmapped::Nobody.warning("h"), None);
    }

    #[test]
    fn what_is_not_part_of_the_name_is_dropped() {
        for uri in [
            "sip:bob:secret@sip.example",
            "SIP:bob@sip.example;user=phone;lr?Subject=x&gr=y",
            "im:bob@sip.example",
            "pres:bob@sip.example;gr=x",
            "sip:bob@sip.example.;gr=",
            "sip:bob@sip.example;opaque=user:epid:Zm9v;gruu",
            "sip:%62o%42@sip.example",
        ] {
            assert_eq!(address(uri).unwrap().full(), "bob@sip.example", "{uri}");
        }
        assert_eq!(address("sip:a;b?c=d@sip.example").unwrap().full(), "a;b?c=d@sip.example");
    }

    #[test]
    fn two_users_never_share_an_address() {
        // Characters that become a backslash, a digit or an at sign by normalisation (trap a, b).
        let users = [
            "'",
            "%5C27",
            "%EF%BC%BC27",
            "%5C%EF%BC%92%EF%BC%97",
            "@",
            "%5C40",
            "%EF%BC%A0",
            "%5C5C27",
            "%5c5c27",
            "/%CC%87",
            "%5C2%E1%B8%9F",
            "%5C5c5c27",
        ];
        let mut seen: Vec<(String, Address)> = Vec::new();
        for user in users {
            let uri = format!("sip:{}@sip.example", user.replace('@', "%40"));
            let Ok(found) = address(&uri) else { continue };
            // What folds to the same name is the same user, and only that.
            let name = unescape_local(found.local().unwrap()).into_owned();
            for (other, address) in &seen {
                assert_eq!(*other == name, *address == found, "{uri}");
            }
            assert_eq!(to_address(to_uri(found.view()).as_bytes()), Ok(found.clone()), "{uri}");
            seen.push((name, found));
        }
        assert!(seen.len() > 9);
    }

    #[test]
    fn other_schemes_encode_more() {
        let whole = Address::parse("a(b)#c.d,e@xmpp.example/x").unwrap();
        let mut out = Vec::new();
        write_uri(Scheme::Im, whole.view(), &mut out);
        assert_eq!(out, b"im:a%28b%29%23c.d%2Ce@xmpp.example");
        out.clear();
        write_uri(Scheme::Pres, whole.view(), &mut out);
        assert_eq!(out, b"pres:a%28b%29%23c.d%2Ce@xmpp.example");
        let domain = Address::parse("xmpp.example").unwrap();
        assert_eq!(to_uri(domain.view()), "sip:xmpp.example");
    }
}
