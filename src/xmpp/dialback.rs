//! Dialback: keys, and the four elements that carry them.
//!
//! A key is made from a secret that all our nodes share, so any of them can answer for any other,
//! and nothing is remembered between making a key and being asked about it.
//!
//! XEP-0220; XEP-0185 for the key. Does **not** take the shortcut of XEP-0220, 2.6.

use std::fmt::Write;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The namespace behind the prefix `db`.
pub const NAMESPACE: &str = "jabber:server:dialback";
/// XEP-0220, 2.4: what goes into our stream features.
pub const FEATURE: &str = "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>";

/// The secrets of this installation: one makes keys, two are recognised while they are exchanged.
#[derive(Clone)]
pub struct Secrets {
    /// Hexadecimal SHA-256, which is the key of the HMAC as it stands.
    current: String,
    previous: Option<String>,
}

/// A key that none of our secrets made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWrong;

impl Secrets {
    /// `previous` is the secret before the last change, as long as its keys may be about.
    pub fn new(current: &[u8], previous: Option<&[u8]>) -> Self {
        let hash = |secret| hex(&Sha256::digest(secret));
        Self { current: hash(current), previous: previous.map(hash) }
    }

    /// XEP-0185, 2: the key with which `originating` (ours) shows `receiving` who it is, on the
    /// stream that `receiving` named `stream_id`.
    pub fn key(&self, receiving: &str, originating: &str, stream_id: &str) -> String {
        key(&self.current, receiving, originating, stream_id)
    }

    /// Whether we made `shown`. Takes as long for a wrong key as for the right one.
    pub fn check(
        &self,
        shown: &str,
        receiving: &str,
        originating: &str,
        stream_id: &str,
    ) -> Result<(), KeyWrong> {
        let made = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .map(|secret| key(secret, receiving, originating, stream_id))
            .fold(false, |made, it| made | bool::from(it.as_bytes().ct_eq(shown.as_bytes())));
        if made { Ok(()) } else { Err(KeyWrong) }
    }
}

fn key(secret: &str, receiving: &str, originating: &str, stream_id: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    let mut mac = mac.expect("HMAC takes keys of any length");
    for part in [receiving, " ", originating, " ", stream_id] {
        mac.update(part.as_bytes());
    }
    hex(&mac.finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// XEP-0220, 2.5: why dialback could not be done. Says nothing about the key but by `Forbidden`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The key was called invalid, and other pairs on the stream are valid.
    Forbidden,
    /// The domain is not served here.
    ItemNotFound,
    /// A certificate is demanded.
    NotAuthorized,
    /// TLS is missing.
    PolicyViolation,
    /// The authoritative server can't be reached.
    RemoteConnectionFailed,
    /// The authoritative server is unknown.
    RemoteServerNotFound,
    /// The authoritative server is silent.
    RemoteServerTimeout,
    /// Too many pairs on this stream.
    ResourceConstraint,
    /// A condition that XEP-0220 does not list. Never written.
    Other,
}

impl Condition {
    /// All of them, in the order of [`Condition::index`].
    pub const ALL: [Self; 9] = [
        Self::Forbidden,
        Self::ItemNotFound,
        Self::NotAuthorized,
        Self::PolicyViolation,
        Self::RemoteConnectionFailed,
        Self::RemoteServerNotFound,
        Self::RemoteServerTimeout,
        Self::ResourceConstraint,
        Self::Other,
    ];

    /// Place in [`Condition::ALL`], for counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The element inside `<error/>`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::ItemNotFound => "item-not-found",
            Self::NotAuthorized => "not-authorized",
            Self::PolicyViolation => "policy-violation",
            Self::RemoteConnectionFailed => "remote-connection-failed",
            Self::RemoteServerNotFound => "remote-server-not-found",
            Self::RemoteServerTimeout => "remote-server-timeout",
            Self::ResourceConstraint => "resource-constraint",
            Self::Other => "undefined-condition",
        }
    }

    /// The condition with this name, or [`Condition::Other`].
    pub fn parse(name: &str) -> Self {
        Self::ALL.into_iter().find(|it| it.name() == name).unwrap_or(Self::Other)
    }

    /// RFC 6120, 8.3.3: what the other side may do about it.
    fn kind(self) -> &'static str {
        match self {
            Self::Forbidden | Self::NotAuthorized => "auth",
            Self::RemoteServerTimeout | Self::ResourceConstraint => "wait",
            _ => "cancel",
        }
    }
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The key is right: the domain is who it says.
    Valid,
    /// The key is wrong.
    Invalid,
    /// It could not be found out.
    Error(Condition),
}

/// One element of dialback. `from` and `to` are as written: prepare them before comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialback<'a> {
    /// `from` wants to send to `to` on this stream.
    ResultRequest { from: &'a str, to: &'a str, key: &'a str },
    /// May it?
    ResultAnswer { from: &'a str, to: &'a str, outcome: Outcome },
    /// Did `to` make this key for the stream `id` of `from`?
    VerifyRequest { from: &'a str, to: &'a str, id: &'a str, key: &'a str },
    /// Did it?
    VerifyAnswer { from: &'a str, to: &'a str, id: &'a str, outcome: Outcome },
}

/// An element in the namespace of dialback that is none of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a reader of XML found in a child of the stream in [`NAMESPACE`], entities resolved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Element<'a> {
    /// Without the prefix.
    pub name: &'a str,
    /// The attribute `from`.
    pub from: Option<&'a str>,
    /// The attribute `to`.
    pub to: Option<&'a str>,
    /// The attribute `id`.
    pub id: Option<&'a str>,
    /// The attribute `type`; absent in requests.
    pub kind: Option<&'a str>,
    /// The text inside.
    pub text: &'a str,
    /// The name of the first child of `<error/>`.
    pub condition: Option<&'a str>,
}

/// Octets of a key: a hash in hex needs 64 (XEP-0185), and nothing says that it must be one.
// RFC 6120, 4.7.3 and XEP-0220, 2.1 name no bound; these are what a stranger may make us keep.
pub const KEY_BYTES_MAX: usize = 512;
/// Octets of a stream's id.
// RFC 6120, 4.7.3: see above.
pub const ID_BYTES_MAX: usize = 1_023;

impl<'a> Dialback<'a> {
    /// XEP-0220, 2.1-2.4: which of the four it is.
    pub fn parse(element: &Element<'a>) -> Result<Self, Malformed> {
        let (Some(from), Some(to)) = (element.from, element.to) else { return Err(Malformed) };
        let outcome = match element.kind {
            None => None,
            Some("valid") => Some(Outcome::Valid),
            Some("invalid") => Some(Outcome::Invalid),
            Some("error") => {
                Some(Outcome::Error(element.condition.map_or(Condition::Other, Condition::parse)))
            }
            Some(_) => return Err(Malformed),
        };
        // Line breaks around the key are layout.
        let key = element.text.trim_ascii();
        if key.len() > KEY_BYTES_MAX || element.id.is_some_and(|id| id.len() > ID_BYTES_MAX) {
            return Err(Malformed);
        }
        match (element.name, element.id, outcome) {
            ("result", _, Some(outcome)) => Ok(Self::ResultAnswer { from, to, outcome }),
            ("verify", Some(id), Some(outcome)) => Ok(Self::VerifyAnswer { from, to, id, outcome }),
            (_, _, None) if key.is_empty() => Err(Malformed),
            ("result", _, None) => Ok(Self::ResultRequest { from, to, key }),
            ("verify", Some(id), None) => Ok(Self::VerifyRequest { from, to, id, key }),
            _ => Err(Malformed),
        }
    }

    /// The element as it goes on the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::ResultRequest { from, to, key } => request(out, "result", from, to, None, key),
            Self::VerifyRequest { from, to, id, key } => {
                request(out, "verify", from, to, Some(id), key);
            }
            Self::ResultAnswer { from, to, outcome } => {
                answer(out, "result", from, to, None, outcome);
            }
            Self::VerifyAnswer { from, to, id, outcome } => {
                answer(out, "verify", from, to, Some(id), outcome);
            }
        }
    }
}

/// XEP-0220, 2.1.1: `from` (ours) asks to send to `to`.
pub fn result_request(out: &mut Vec<u8>, from: &str, to: &str, key: &str) {
    Dialback::ResultRequest { from, to, key }.write(out);
}

/// XEP-0220, 2.2.1: `from` (ours) lets `to` send.
pub fn result_valid(out: &mut Vec<u8>, from: &str, to: &str) {
    Dialback::ResultAnswer { from, to, outcome: Outcome::Valid }.write(out);
}

/// XEP-0220, 2.2.1: the key was wrong; the stream is closed behind it.
pub fn result_invalid(out: &mut Vec<u8>, from: &str, to: &str) {
    Dialback::ResultAnswer { from, to, outcome: Outcome::Invalid }.write(out);
}

/// XEP-0220, 2.5: it could not be found out; the stream stays open.
pub fn result_error(out: &mut Vec<u8>, from: &str, to: &str, condition: Condition) {
    Dialback::ResultAnswer { from, to, outcome: Outcome::Error(condition) }.write(out);
}

/// XEP-0220, 2.2.2: `from` (ours) asks whether `to` made this key for our stream `id`.
pub fn verify_request(out: &mut Vec<u8>, from: &str, to: &str, id: &str, key: &str) {
    Dialback::VerifyRequest { from, to, id, key }.write(out);
}

/// XEP-0220, 2.3: we made it.
pub fn verify_valid(out: &mut Vec<u8>, from: &str, to: &str, id: &str) {
    Dialback::VerifyAnswer { from, to, id, outcome: Outcome::Valid }.write(out);
}

/// XEP-0220, 2.3: we did not.
pub fn verify_invalid(out: &mut Vec<u8>, from: &str, to: &str, id: &str) {
    Dialback::VerifyAnswer { from, to, id, outcome: Outcome::Invalid }.write(out);
}

/// XEP-0220, 2.5: we can't say, as for a domain that is not ours.
pub fn verify_error(out: &mut Vec<u8>, from: &str, to: &str, id: &str, condition: Condition) {
    Dialback::VerifyAnswer { from, to, id, outcome: Outcome::Error(condition) }.write(out);
}

fn open(out: &mut Vec<u8>, name: &str, from: &str, to: &str, id: Option<&str>) {
    let attributes = [("from", Some(from)), ("to", Some(to)), ("id", id)];
    out.extend_from_slice(b"<db:");
    out.extend_from_slice(name.as_bytes());
    for (name, value) in attributes {
        let Some(value) = value else { continue };
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"='");
        escaped(out, value);
        out.push(b'\'');
    }
}

fn request(out: &mut Vec<u8>, name: &str, from: &str, to: &str, id: Option<&str>, key: &str) {
    open(out, name, from, to, id);
    out.push(b'>');
    escaped(out, key);
    close(out, name);
}

fn answer(out: &mut Vec<u8>, name: &str, from: &str, to: &str, id: Option<&str>, it: Outcome) {
    open(out, name, from, to, id);
    match it {
        Outcome::Valid => out.extend_from_slice(b" type='valid'/>"),
        Outcome::Invalid => out.extend_from_slice(b" type='invalid'/>"),
        Outcome::Error(condition) => {
            let (kind, condition) = (condition.kind(), condition.name());
            let error = format!(
                " type='error'><error type='{kind}'>\
                 <{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
            );
            out.extend_from_slice(error.as_bytes());
            close(out, name);
        }
    }
}

fn close(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b"</db:");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

/// The stream id is the peer's text, so it may hold anything that XML allows.
fn escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'\'' => out.extend_from_slice(b"&apos;"),
            b'"' => out.extend_from_slice(b"&quot;"),
            b'\t' => out.extend_from_slice(b"&#9;"),
            b'\n' => out.extend_from_slice(b"&#10;"),
            b'\r' => out.extend_from_slice(b"&#13;"),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"s3cr3tf0rd14lb4ck";

    #[test]
    fn keys_of_the_specifications() {
        let secrets = Secrets::new(SECRET, None);
        assert_eq!(
            secrets.key("xmpp.example.com", "example.org", "D60000229F"),
            "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643"
        );
        assert_eq!(
            secrets.key("montague.example", "capulet.example", "D60000229F"),
            "b4835385f37fe2895af6c196b59097b16862406db80559900d96bf6fa7d23df3"
        );
    }

    #[test]
    fn two_secrets_are_recognised_during_a_change() {
        let old = Secrets::new(SECRET, None);
        let both = Secrets::new(b"new", Some(SECRET));
        let new = Secrets::new(b"new", None);
        let check = |by: &Secrets, key: &str| by.check(key, "a.example", "b.example", "1");
        let (old_key, new_key) =
            (old.key("a.example", "b.example", "1"), both.key("a.example", "b.example", "1"));
        assert_eq!((check(&both, &old_key), check(&both, &new_key)), (Ok(()), Ok(())));
        assert_eq!((check(&new, &old_key), check(&old, &new_key)), (Err(KeyWrong), Err(KeyWrong)));
        assert_eq!(check(&both, ""), Err(KeyWrong));
        assert_eq!(check(&old, &old_key.to_uppercase()), Err(KeyWrong));
        assert_eq!(old.check(&old_key, "b.example", "a.example", "1"), Err(KeyWrong));
        assert_eq!(old.check(&old_key, "a.example", "b.example", "2"), Err(KeyWrong));
    }

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn elements_as_written() {
        assert_eq!(
            text(|out| result_request(out, "a.example", "b.example", "00ff")),
            "<db:result from='a.example' to='b.example'>00ff</db:result>"
        );
        assert_eq!(
            text(|out| result_valid(out, "b.example", "a.example")),
            "<db:result from='b.example' to='a.example' type='valid'/>"
        );
        assert_eq!(
            text(|out| result_invalid(out, "b.example", "a.example")),
            "<db:result from='b.example' to='a.example' type='invalid'/>"
        );
        assert_eq!(
            text(|out| result_error(out, "b.example", "a.example", Condition::ItemNotFound)),
            "<db:result from='b.example' to='a.example' type='error'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>"
        );
        assert_eq!(
            text(|out| verify_request(out, "b.example", "a.example", "<'&", "00ff")),
            "<db:verify from='b.example' to='a.example' id='&lt;&apos;&amp;'>00ff</db:verify>"
        );
        assert_eq!(
            text(|out| verify_valid(out, "a.example", "b.example", "7")),
            "<db:verify from='a.example' to='b.example' id='7' type='valid'/>"
        );
        assert!(text(|out| verify_invalid(out, "a", "b", "7")).ends_with(" type='invalid'/>"));
        let error = text(|out| verify_error(out, "a", "b", "7", Condition::Forbidden));
        assert!(
            error.contains("<error type='auth'><forbidden ") && error.ends_with("</db:verify>")
        );
    }

    #[test]
    fn elements_as_read() {
        let request = Element {
            name: "result",
            from: Some("a"),
            to: Some("b"),
            text: "\n00ff\n",
            ..Element::default()
        };
        let (from, to) = ("a", "b");
        let read = |it: Element<'static>| Dialback::parse(&it);
        assert_eq!(read(request), Ok(Dialback::ResultRequest { from, to, key: "00ff" }));
        let verify = Element { name: "verify", id: Some("7"), ..request };
        assert_eq!(read(verify), Ok(Dialback::VerifyRequest { from, to, id: "7", key: "00ff" }));
        let valid = Element { kind: Some("valid"), text: "", ..verify };
        let outcome = Outcome::Valid;
        assert_eq!(read(valid), Ok(Dialback::VerifyAnswer { from, to, id: "7", outcome }));
        for (condition, found) in [
            (Some("item-not-found"), Condition::ItemNotFound),
            (Some("gone"), Condition::Other),
            (None, Condition::Other),
        ] {
            let error = Element { kind: Some("error"), condition, text: "", ..request };
            let outcome = Outcome::Error(found);
            assert_eq!(read(error), Ok(Dialback::ResultAnswer { from, to, outcome }));
        }
        for bad in [
            Element { from: None, ..request },
            Element { to: None, ..request },
            Element { text: " ", ..request },
            Element { kind: Some("maybe"), ..request },
            Element { id: None, ..verify },
            Element { id: None, ..valid },
            Element { name: "other", ..request },
        ] {
            assert_eq!(read(bad), Err(Malformed));
        }
    }

    #[test]
    fn conditions_are_found_again() {
        for (i, it) in Condition::ALL.into_iter().enumerate() {
            assert_eq!((Condition::parse(it.name()), it.index()), (it, i));
        }
    }
}
