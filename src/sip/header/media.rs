//! Content-Type, Event and Subscription-State (RFC 3261, 20.15; RFC 6665, 8.2.1, 8.4).
//!
//! Malformed ones read as absent: 415, 489 or the default is what a caller would say anyway.

use super::Params;
use crate::sip::chars;

/// The type of a body; parameters come on top of it and never change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// `text`, in the case in which it came.
    pub type_: &'a [u8],
    /// `plain`.
    pub subtype: &'a [u8],
    /// `charset`, `boundary`, `call-type` and so on.
    pub params: Params<'a>,
}

impl<'a> MediaType<'a> {
    /// Reads a value of Content-Type, or one of Accept.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (kind, params) = parts(value)?;
        let (type_, subtype) = chars::split_once(kind, b'/')?;
        let (type_, subtype) = (chars::trim(type_), chars::trim(subtype));
        (chars::token(type_) && chars::token(subtype)).then_some(Self { type_, subtype, params })
    }

    /// Compares type and subtype, without case.
    pub fn is(&self, type_: &str, subtype: &str) -> bool {
        self.type_.eq_ignore_ascii_case(type_.as_bytes())
            && self.subtype.eq_ignore_ascii_case(subtype.as_bytes())
    }

    /// Whether this range of Accept takes a type: `*/*`, `text/*`, or the type itself.
    pub fn accepts(&self, type_: &str, subtype: &str) -> bool {
        self.is(type_, subtype)
            || self.is("*", "*")
            || (self.subtype == b"*" && self.type_.eq_ignore_ascii_case(type_.as_bytes()))
    }

    /// The value of a parameter, without quotes.
    pub fn param(&self, name: &str) -> Option<&'a [u8]> {
        self.params.get(name).flatten()
    }
}

/// An event package (RFC 6665, 8.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// `presence`; compared with `is`.
    pub package: &'a [u8],
    /// The `id` that tells subscriptions of one dialog apart.
    pub id: Option<&'a [u8]>,
}

impl<'a> Event<'a> {
    /// Reads the value of Event.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (package, params) = parts(value)?;
        chars::token(package).then(|| Self { package, id: params.get("id").flatten() })
    }

    /// Whether it is this package (templates such as `presence.winfo` are others).
    pub fn is(&self, package: &str) -> bool {
        self.package.eq_ignore_ascii_case(package.as_bytes())
    }
}

/// What a notifier says about a subscription (RFC 6665, 8.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionState<'a> {
    /// Where it stands.
    pub state: State<'a>,
    /// Why it ended: `deactivated`, `rejected`, `noresource` and so on, in the case in which it came.
    pub reason: Option<&'a [u8]>,
    /// Seconds that are left.
    pub expires: Option<u32>,
    /// Seconds before another try.
    pub retry_after: Option<u32>,
}

/// The word of Subscription-State.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State<'a> {
    /// `active`.
    Active,
    /// `pending`.
    Pending,
    /// `terminated`.
    Terminated,
    /// An extension.
    Other(&'a [u8]),
}

impl<'a> SubscriptionState<'a> {
    /// Reads the value of Subscription-State.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (word, params) = parts(value)?;
        let is = |it: &str| word.eq_ignore_ascii_case(it.as_bytes());
        let state = match () {
            () if is("active") => State::Active,
            () if is("pending") => State::Pending,
            () if is("terminated") => State::Terminated,
            () if chars::token(word) => State::Other(word),
            () => return None,
        };
        let seconds = |name| {
            let seconds = chars::number(params.get(name).flatten()?)?;
            Some(u32::try_from(seconds).unwrap_or(u32::MAX))
        };
        Some(Self {
            state,
            reason: params.get("reason").flatten(),
            expires: seconds("expires"),
            retry_after: seconds("retry-after"),
        })
    }

    /// Whether the reason is this one, in any case.
    pub fn is_because(&self, reason: &str) -> bool {
        self.reason.is_some_and(|it| it.eq_ignore_ascii_case(reason.as_bytes()))
    }
}

/// What stands before the parameters, and these.
fn parts(value: &[u8]) -> Option<(&[u8], Params<'_>)> {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    let params = Params::parse(chars::skip(value, end)).ok()?;
    Some((chars::trim(value.get(..end)?), params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_compared_without_their_parameters() {
        let it = MediaType::parse(b"Multipart/Alternative ; boundary=\"----=_a;b\";call-type=im");
        let it = it.expect("a type");
        assert!(it.is("multipart", "alternative") && it.accepts("multipart", "alternative"));
        assert_eq!(it.param("Boundary"), Some(&b"----=_a;b"[..]));
        let any = MediaType::parse(b"text/*").expect("a range");
        assert!(any.accepts("text", "plain") && !any.accepts("image", "gif"));
        assert_eq!(MediaType::parse(b"text"), None);
        assert_eq!(MediaType::parse(b"text/"), None);
    }

    #[test]
    fn states_and_events_are_read_in_any_case() {
        let it = SubscriptionState::parse(b"Terminated; Reason=noResource;retry-after=5");
        let it = it.expect("a state");
        assert_eq!((it.state, it.retry_after, it.expires), (State::Terminated, Some(5), None));
        assert!(it.is_because("noresource"));
        let it = SubscriptionState::parse(b"active;expires=29087").expect("a state");
        assert_eq!((it.state, it.expires), (State::Active, Some(29_087)));
        assert_eq!(SubscriptionState::parse(b""), None);
        let it = Event::parse(b"presence ;id=7").expect("a package");
        assert!(it.is("Presence") && !it.is("presence.winfo"));
        assert_eq!(it.id, Some(&b"7"[..]));
        assert_eq!(Event::parse(b"presence;;"), None);
    }
}
