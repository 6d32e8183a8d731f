//! Values of headers, read when somebody asks (RFC 3261, 20, 25.1).
//!
//! Each view borrows the frame and keeps the whole value beside its parts, so that it can be echoed as
//! it came. Names of parameters are compared without case and found wherever they stand; escapes in
//! quoted strings are **not** undone, except by `Params::text`.

mod media;
mod via;

use std::borrow::Cow;

pub use media::{Event, MediaType, State, SubscriptionState};
pub(super) use via::KeptVia;
pub use via::Via;

use crate::sip::{
    chars,
    fault::Fault,
    span::Span,
    uri::{self, Uri},
};

/// A name and an address: From, To, Contact, Route and their like (RFC 3261, 20.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The name to show, without its quotes; perhaps empty, perhaps not UTF-8.
    pub display: &'a [u8],
    /// The address, without its brackets.
    pub uri: &'a [u8],
    /// What stands behind the address: these are of the header, never of the URI.
    pub params: Params<'a>,
    value: &'a [u8],
    /// The parameter `tag`, which is asked for most.
    tag: Option<Option<&'a [u8]>>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value, which may be folded.
    pub fn parse(value: &'a [u8]) -> Result<Self, Fault> {
        let value = chars::trim(value);
        let (display, rest) = match value.first() {
            Some(b'"') => {
                let end = chars::quoted_end(value).ok_or(OPEN_QUOTE)?;
                let name = value.get(1..end - 1).unwrap_or_default();
                // RFC 4475, 3.1.1.6: no blank is needed before the bracket.
                let rest = chars::trim_start(chars::skip(value, end));
                (name, rest.strip_prefix(b"<").ok_or(BAD_ADDRESS)?)
            }
            _ => match chars::split_once(value, b'<') {
                Some((name, rest)) => (unquoted(name)?, rest),
                None => return Self::bare(value),
            },
        };
        let (uri, rest) = chars::split_once(rest, b'>').ok_or(BAD_ADDRESS)?;
        if !uri::is_possible(uri) {
            return Err(BAD_ADDRESS);
        }
        let (params, tag) = Params::finding(rest, "tag")?;
        Ok(Self { display, uri, params, value, tag })
    }

    /// Without brackets all parameters are the header's (RFC 3261, 20).
    fn bare(value: &'a [u8]) -> Result<Self, Fault> {
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        let uri = chars::trim(value.get(..end).unwrap_or_default());
        // RFC 3261, 20: a URI with a comma or a question mark needs them.
        if !uri::is_possible(uri) || memchr::memchr2(b',', b'?', uri).is_some() {
            return Err(BAD_ADDRESS);
        }
        let (params, tag) = Params::finding(chars::skip(value, end), "tag")?;
        Ok(Self { display: b"", uri, params, value, tag })
    }

    /// The address, read.
    pub fn uri(&self) -> Result<Uri<'a>, Fault> {
        Uri::of_possible(self.uri)
    }

    /// The name as it is shown: folds are one space, what was escaped is itself.
    pub fn name(&self) -> Cow<'a, [u8]> {
        unescape(self.display)
    }

    /// The tag of From and To.
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.tag.flatten().filter(|it| !it.is_empty())
    }

    /// The parameter `tag` as it is: perhaps without a value, perhaps with an empty one.
    pub(in crate::sip) fn raw_tag(&self) -> Option<Option<&'a [u8]>> {
        self.tag
    }

    /// A parameter of the header: none if it is absent, perhaps without a value.
    pub fn param(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.params.get(name)
    }

    /// The whole value as it came, parameters behind the bracket included.
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// Where its parts lie in the text.
    pub(super) fn keep(&self, text: &[u8]) -> Option<KeptAddr> {
        Some(KeptAddr {
            display: Span::of(self.display, text)?,
            uri: Span::of(self.uri, text)?,
            params: Span::of(self.params.0, text)?,
            value: Span::of(self.value, text)?,
            tag: match self.tag {
                Some(tag) => Some(Span::of_some(tag, text)?),
                None => None,
            },
        })
    }
}

/// Where the parts of a name and an address lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeptAddr {
    display: Span,
    uri: Span,
    params: Span,
    value: Span,
    tag: Option<Option<Span>>,
}

impl KeptAddr {
    /// The same in another text, where its octets are the same.
    pub(super) fn cut<'a>(&self, text: &'a [u8]) -> NameAddr<'a> {
        NameAddr {
            display: self.display.cut(text),
            uri: self.uri.cut(text),
            params: Params(self.params.cut(text)),
            value: self.value.cut(text),
            tag: self.tag.map(|it| it.map(|it| it.cut(text))),
        }
    }
}

/// A name without quotes is tokens; Microsoft and others write more, and what separates is refused.
fn unquoted(name: &[u8]) -> Result<&[u8], Fault> {
    let name = chars::trim(name);
    let bad = |it: &u8| {
        matches!(it, b',' | b';' | b':' | b'"' | b'>' | 0x7F)
            || (*it < b' ' && !chars::is_blank(*it))
    };
    if name.iter().any(bad) { Err(BAD_ADDRESS) } else { Ok(name) }
}

fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    let line = chars::unfold(text);
    if memchr::memchr(b'\\', &line).is_none() {
        return line;
    }
    let mut plain = Vec::with_capacity(line.len());
    let mut octets = line.iter();
    while let Some(octet) = octets.next() {
        plain.push(if *octet == b'\\' { *octets.next().unwrap_or(&b'\\') } else { *octet });
    }
    Cow::Owned(plain)
}

/// Parameters behind a value, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a>(&'a [u8]);

impl<'a> Params<'a> {
    /// Reads what stands behind a value: nothing, or `;` and a parameter, again and again.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, Fault> {
        Self::finding(text, "").map(|it| it.0)
    }

    /// The same, and the parameter of a name that is asked for soon, as `get` gives it.
    pub(super) fn finding(text: &'a [u8], wanted: &str) -> Result<Found<'a>, Fault> {
        let text = chars::trim(text);
        let params = Self(text);
        if text.is_empty() {
            return Ok((params, None));
        }
        if text.first() != Some(&b';') {
            return Err(BAD_PARAMETER);
        }
        if let Some(found) = plain(text, wanted.as_bytes()) {
            return Ok((params, found));
        }
        for (name, value) in params.iter() {
            if !chars::token(name) || !value.is_none_or(is_value) {
                return Err(BAD_PARAMETER);
            }
        }
        Ok((params, params.get(wanted)))
    }

    /// Names and values; quotes are part of a value.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut rest = self.0.strip_prefix(b";");
        std::iter::from_fn(move || {
            let (one, behind) = chars::cut(rest?, b';');
            rest = behind;
            Some(match chars::split_once(one, b'=') {
                Some((name, value)) => (chars::trim(name), Some(chars::trim(value))),
                None => (chars::trim(one), None),
            })
        })
    }

    /// A parameter: none if it is absent, perhaps without a value. Quotes of the value are cut off.
    pub fn get(self, name: &str) -> Option<Option<&'a [u8]>> {
        let (_, value) = self.iter().find(|it| it.0.eq_ignore_ascii_case(name.as_bytes()))?;
        Some(value.map(unquote))
    }

    /// A parameter's value without quotes and escapes.
    pub fn text(self, name: &str) -> Option<Cow<'a, [u8]>> {
        self.get(name).flatten().map(unescape)
    }

    /// As they came, the first `;` included.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Parameters, and the one that was looked for.
pub(super) type Found<'a> = (Params<'a>, Option<Option<&'a [u8]>>);

/// Parameters without blanks and quotes, in one pass; `None`: they are others, or malformed.
fn plain<'a>(text: &'a [u8], wanted: &[u8]) -> Option<Option<Option<&'a [u8]>>> {
    let (mut rest, mut found) = (text, None);
    while let [b';', behind @ ..] = rest {
        let end = behind.iter().position(|it| !chars::is_token(*it)).unwrap_or(behind.len());
        let (name, behind) = behind.split_at_checked(end)?;
        if name.is_empty() {
            return None;
        }
        let value = match behind {
            [b'=', behind @ ..] => {
                let end = behind.iter().position(|it| !chars::is_plain(*it));
                let (value, behind) = behind.split_at_checked(end.unwrap_or(behind.len()))?;
                rest = behind;
                Some(value)
            }
            _ => {
                rest = behind;
                None
            }
        };
        if found.is_none() && name.eq_ignore_ascii_case(wanted) {
            found = Some(value);
        }
    }
    rest.is_empty().then_some(found)
}

/// A value is a token, a host or a quoted string (RFC 3261, 25.1); base64 and colons pass too.
fn is_value(value: &[u8]) -> bool {
    match value.first() {
        Some(b'"') => chars::quoted_end(value) == Some(value.len()),
        _ => !value.iter().any(|it| *it <= b' ' || matches!(it, b'"' | b'<' | b'>' | b',' | 0x7F)),
    }
}

fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

const OPEN_QUOTE: Fault = Fault::bad("Quote Never Closed");
const BAD_ADDRESS: Fault = Fault::bad("Malformed Address");
const BAD_PARAMETER: Fault = Fault::bad("Malformed Parameter");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> NameAddr<'_> {
        NameAddr::parse(value.as_bytes()).expect(value)
    }

    #[test]
    fn names_addresses_and_parameters_are_kept_apart() {
        let it = read("\"J, \\\"R\\\" <x>\"<sip:a@b;opaque=user:epid:Q;gruu>;epid=78;TAG=a1");
        assert_eq!(it.display, br#"J, \"R\" <x>"#);
        assert_eq!(&*it.name(), br#"J, "R" <x>"#);
        assert_eq!(it.uri, b"sip:a@b;opaque=user:epid:Q;gruu");
        assert_eq!((it.tag(), it.param("epid")), (Some(&b"a1"[..]), Some(Some(&b"78"[..]))));
        assert_eq!(it.param("gruu"), None, "of the URI");
        let it = read("sip:a@b ;\r\n  tag = x9;lr");
        assert_eq!(
            (it.uri, it.tag(), it.param("lr")),
            (&b"sip:a@b"[..], Some(&b"x9"[..]), Some(None))
        );
        let it = read("caller one<sip:a@b>");
        assert_eq!((it.display, it.tag()), (&b"caller one"[..], None));
        assert_eq!(read("<http://x/?a,b>;tag=").tag(), None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "\"never closed <sip:a@b>",
            "\"name\" sip:a@b",
            "Bell, Alexander <sip:a@b>",
            "< sip:a@b >",
            "<sip:a@b",
            "<sip:a@b>>",
            "<sip:a@b>;;",
            "<sip:a@b>;tag=\"open",
            "<sip:a@b> x",
            "<sip:a@b>,<sip:c@d>",
            "sip:a@b?Route=x",
            "sip:a@b,sip:c@d",
            "a@b",
            "<>",
        ] {
            assert!(NameAddr::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
