//! What names a transaction: RFC 3261, 8.1.1.7, 17.1.3, 17.2.3 and 8.2.2.2.
//!
//! A request of ours carries a branch from which its answer finds the transaction without a table. A
//! request of theirs is known by branch, sent-by and method; without the cookie (RFC 2543, and a
//! cookie with nothing behind it) by the values that it shares with its repetition.

/// RFC 3261, 8.1.1.7: how a branch begins that is unique by itself.
pub const COOKIE: &[u8] = b"z9hG4bK";
/// Behind the cookie: a branch of ours, in the first form.
const OURS: &str = "t1";

/// What of a request names its server transaction.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Of the top Via.
    pub branch: Option<&'a [u8]>,
    /// Host and port of the top Via.
    pub host: &'a [u8],
    pub port: Option<u16>,
    /// Of the request.
    pub method: &'a [u8],
    pub uri: &'a [u8],
    pub from_tag: &'a [u8],
    pub to_tag: &'a [u8],
    pub call_id: &'a [u8],
    pub cseq: u32,
    /// The whole value of the top Via.
    pub via: &'a [u8],
}

/// Names a server transaction of one transport.
pub type ServerKey = Arc<[u8]>;

use std::sync::Arc;

/// The key of a request's transaction. An ACK and a CANCEL have that of the INVITE they are about.
pub fn server_key(parts: &Parts<'_>) -> ServerKey {
    let mut key = Vec::new();
    write_server_key(parts, &mut key);
    key.into()
}

/// Appends it.
pub fn write_server_key(parts: &Parts<'_>, key: &mut Vec<u8>) {
    let method: &[u8] = match parts.method {
        b"ACK" | b"CANCEL" => b"INVITE",
        other => other,
    };
    let mut put = |part: &[u8]| {
        key.extend_from_slice(part);
        // No header value and no token holds a line's end.
        key.push(b'\n');
    };
    if let Some(branch) = parts.branch.filter(|it| has_cookie(it)) {
        put(branch);
        put(&parts.port.unwrap_or_default().to_be_bytes());
        put(method);
        // The last, since its case does not count.
        let at = key.len();
        key.extend_from_slice(parts.host);
        key.get_mut(at..).unwrap_or_default().make_ascii_lowercase();
    } else {
        put(parts.uri);
        put(parts.from_tag);
        put(parts.call_id);
        put(parts.cseq.to_string().as_bytes());
        put(parts.via);
        put(method);
        if method != b"INVITE" {
            // An ACK has the tag of the answer.
            put(parts.to_tag);
        }
    }
}

/// RFC 3261, 8.2.2.2: what a merged request shares with the one that came first.
pub fn merge_key(parts: &Parts<'_>) -> ServerKey {
    let mut key = Vec::new();
    write_merge_key(parts, &mut key);
    key.into()
}

/// Appends it.
pub fn write_merge_key(parts: &Parts<'_>, key: &mut Vec<u8>) {
    for part in [parts.call_id, parts.from_tag, &parts.cseq.to_be_bytes(), parts.method] {
        key.extend_from_slice(part);
        key.push(b'\n');
    }
}

fn has_cookie(branch: &[u8]) -> bool {
    branch.len() > COOKIE.len()
        && branch.get(..COOKIE.len()).is_some_and(|it| it.eq_ignore_ascii_case(COOKIE))
}

/// A branch of ours: the shard and the key of its transaction, and a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    pub shard: u16,
    pub key: u64,
    pub secret: u64,
}

/// Writes a branch of ours.
pub fn branch(it: Branch) -> String {
    let mut text = String::with_capacity(45);
    text.push_str("z9hG4bK");
    text.push_str(OURS);
    let mut hex = |value: u64, digits: u32| {
        for digit in (0..digits).rev() {
            let digit = (value >> (4 * digit)) as u32 & 15;
            text.push(char::from_digit(digit, 16).unwrap_or('0'));
        }
    };
    hex(it.shard.into(), 4);
    hex(it.key, 16);
    hex(it.secret, 16);
    text
}

impl Branch {
    /// How each begins.
    pub const BEGIN: &[u8] = b"z9hG4bKt1";

    /// Reads a branch, if it may be one of ours.
    pub fn read(branch: &[u8]) -> Option<Self> {
        let hex = branch.strip_prefix(Self::BEGIN).filter(|it| it.len() == 4 + 16 + 16)?;
        let (shard, hex) = hex.split_at_checked(4)?;
        let (key, secret) = hex.split_at_checked(16)?;
        let shard = u16::try_from(number(shard)?).ok()?;
        Some(Self { shard, key: number(key)?, secret: number(secret)? })
    }
}

/// At most 16 hexadecimal digits, and nothing else.
fn number(hex: &[u8]) -> Option<u64> {
    hex.iter().try_fold(0, |sum, it| Some(sum << 4 | u64::from(char::from(*it).to_digit(16)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: Parts<'_> = Parts {
        branch: Some(b"z9hG4bK77"),
        host: b"Edge.example",
        port: Some(5061),

        method: b"INVITE",
        uri: b"sip:bob@b.example",
        from_tag: b"f1",
        to_tag: b"",
        call_id: b"c1",
        cseq: 7,
        via: b"SIP/2.0/TLS Edge.example:5061;branch=z9hG4bK77",
    };

    #[test]
    fn a_branch_of_ours_is_read_back_and_no_other() {
        let it = Branch { shard: 3, key: 0x1_0000_0002, secret: u64::MAX };
        let text = branch(it);
        assert_eq!(text, "z9hG4bKt100030000000100000002ffffffffffffffff");
        assert_eq!(Branch::read(text.as_bytes()), Some(it));
        for bad in ["", "z9hG4bK", "z9hG4bKt1", "z9hG4bKt10003+000000100000002ffffffffffffffff"] {
            assert_eq!(Branch::read(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Branch::read(format!("{text}0").as_bytes()), None);
    }

    #[test]
    fn branch_sent_by_and_method_name_a_transaction() {
        let key = server_key(&INVITE);
        assert_eq!(server_key(&Parts { method: b"ACK", to_tag: b"x", ..INVITE }), key);
        assert_eq!(server_key(&Parts { method: b"CANCEL", ..INVITE }), key);
        assert_eq!(server_key(&Parts { host: b"edge.EXAMPLE", ..INVITE }), key);
        // The branch alone counts, whatever else there is.
        assert_eq!(server_key(&Parts { cseq: 8, uri: b"sip:x", ..INVITE }), key);
        assert_ne!(server_key(&Parts { method: b"BYE", ..INVITE }), key);
        assert_ne!(server_key(&Parts { port: Some(5062), ..INVITE }), key);
        assert_ne!(server_key(&Parts { branch: Some(b"z9hG4bK78"), ..INVITE }), key);
    }

    #[test]
    fn without_the_cookie_the_values_count() {
        for branch in [None, Some(&b"1"[..]), Some(b"z9hG4bK")] {
            let old = Parts { branch, ..INVITE };
            let key = server_key(&old);
            assert_eq!(server_key(&Parts { method: b"ACK", to_tag: b"ours", ..old }), key);
            assert_ne!(server_key(&Parts { cseq: 8, ..old }), key);
            assert_ne!(server_key(&Parts { call_id: b"c2", ..old }), key);
            assert_ne!(server_key(&Parts { via: b"SIP/2.0/TLS other.example", ..old }), key);
            let bye = Parts { method: b"BYE", to_tag: b"a", ..old };
            assert_ne!(server_key(&Parts { to_tag: b"b", ..bye }), server_key(&bye));
        }
    }

    #[test]
    fn a_merged_request_is_known_by_what_the_fork_left_alone() {
        let fork = Parts { branch: Some(b"z9hG4bK78"), via: b"other", ..INVITE };
        assert_ne!(server_key(&fork), server_key(&INVITE));
        assert_eq!(merge_key(&fork), merge_key(&INVITE));
        assert_ne!(merge_key(&Parts { cseq: 8, ..INVITE }), merge_key(&INVITE));
    }
}
