//! What operators read: one line per event and peer, then one a minute with how many were left out.
//!
//! Pure: `now` comes in, lines go out. Values may come from peers, so each is escaped and cut.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits::{NOTICE_KINDS_MAX, NOTICE_VALUE_CHARS_MAX};
use crate::shard::Notice;

/// Between two lines of one event and peer.
const FOLD: Duration = Duration::from_secs(60);

/// Remembers what was said.
#[derive(Default)]
pub struct Fold {
    kinds: BTreeMap<(&'static str, String), Kind>,
}

struct Kind {
    since: Instant,
    suppressed: u64,
    /// The last one left out, for the line at the end of the minute.
    last: Option<Notice>,
}

impl Fold {
    /// The line to print for `notice`, if it is time for one.
    pub fn push(&mut self, now: Instant, notice: Notice) -> Option<String> {
        let mut key = (notice.event, peer(&notice).to_owned());
        if !self.kinds.contains_key(&key) && self.kinds.len() >= NOTICE_KINDS_MAX {
            // No room for one more peer: the rest of this event share one fold, whose number is
            // bounded by the closed set of events.
            key.1 = "*".into();
        }
        match self.kinds.get_mut(&key) {
            Some(kind) if now.duration_since(kind.since) < FOLD => {
                kind.suppressed += 1;
                kind.last = Some(notice);
                None
            }
            Some(kind) => {
                let suppressed = kind.suppressed;
                *kind = Kind { since: now, suppressed: 0, last: None };
                Some(line(&notice, suppressed))
            }
            None => {
                let text = line(&notice, 0);
                self.kinds.insert(key, Kind { since: now, suppressed: 0, last: None });
                Some(text)
            }
        }
    }

    /// The lines of minutes that ended with something left out. Forgets what has been quiet.
    pub fn fire(&mut self, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        self.kinds.retain(|_, kind| {
            if now.duration_since(kind.since) < FOLD {
                return true;
            }
            let Some(last) = kind.last.take() else { return false };
            // The one that is printed was one of those left out.
            lines.push(line(&last, kind.suppressed - 1));
            *kind = Kind { since: now, suppressed: 0, last: None };
            true
        });
        lines
    }
}

/// Whom a notice is about.
fn peer(notice: &Notice) -> &str {
    let of = |name: &str| notice.fields.iter().find(|(key, _)| *key == name);
    of("peer").or_else(|| of("domain")).or_else(|| of("user")).map_or("", |(_, value)| value)
}

/// `event=… key=value …`, in logfmt.
fn line(notice: &Notice, suppressed: u64) -> String {
    let mut text = format!("event={}", notice.event);
    for (key, value) in &notice.fields {
        text.push(' ');
        text.push_str(key);
        text.push('=');
        push_value(&mut text, value);
    }
    if suppressed > 0 {
        text.push_str(" suppressed=");
        text.push_str(&suppressed.to_string());
    }
    text
}

/// A value as logfmt has it: plain if it is plain, else quoted with everything odd escaped, so
/// that nothing a peer wrote can end a line or steer a terminal.
pub(crate) fn push_value(text: &mut String, value: &str) {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_.:/@+,[]".contains(it);
    let cut: String = value.chars().take(NOTICE_VALUE_CHARS_MAX).collect();
    if !cut.is_empty() && cut.len() == value.len() && cut.chars().all(plain) {
        text.push_str(&cut);
        return;
    }
    text.push('"');
    for it in cut.chars() {
        match it {
            '"' | '\\' => {
                text.push('\\');
                text.push(it);
            }
            ' '..='~' => text.push(it),
            // Letters of any script are what people read; the rest (controls, direction marks,
            // separators) is not.
            it if it.is_alphanumeric() => text.push(it),
            it => text.extend(it.escape_unicode()),
        }
    }
    if cut.len() < value.len() {
        text.push_str("...");
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(peer: &str, text: &str) -> Notice {
        Notice {
            event: "peer_setup_failed",
            fields: vec![("peer", peer.into()), ("text", text.into())],
        }
    }

    #[test]
    fn repeats_fold_to_one_line_a_minute() {
        let mut fold = Fold::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = fold.push(at(0), notice("a.example", "x"));
        assert_eq!(first.as_deref(), Some("event=peer_setup_failed peer=a.example text=x"));
        assert!(fold.push(at(0), notice("b.example", "x")).is_some());
        for second in 1..60 {
            assert_eq!(fold.push(at(second), notice("a.example", "x")), None);
        }
        let next = fold.push(at(60), notice("a.example", "y")).unwrap();
        assert!(next.ends_with("text=y suppressed=59"), "{next}");
        assert_eq!(fold.push(at(61), notice("a.example", "z")), None);
        assert_eq!(fold.push(at(62), notice("a.example", "z")), None);
        let lines = fold.fire(at(121));
        assert_eq!(lines, ["event=peer_setup_failed peer=a.example text=z suppressed=1"]);
        assert!(fold.fire(at(121)).is_empty());
        assert!(fold.fire(at(300)).is_empty());
        assert!(fold.kinds.is_empty());
    }

    #[test]
    fn many_peers_share_a_fold() {
        let mut fold = Fold::default();
        let now = Instant::now();
        let lines = (0..5_000).filter_map(|n| fold.push(now, notice(&format!("p{n}"), ""))).count();
        assert_eq!(lines, NOTICE_KINDS_MAX + 1);
        assert!(fold.kinds.len() <= NOTICE_KINDS_MAX + 1);
    }

    #[test]
    fn what_peers_write_cannot_leave_its_value() {
        let mut text = String::new();
        push_value(&mut text, "a\n\u{1b}[31m\"b\\ \u{202e}ü");
        assert_eq!(text, r#""a\u{a}\u{1b}[31m\"b\\ \u{202e}ü""#);
        text.clear();
        push_value(&mut text, &"x".repeat(10_000));
        assert!(text.len() < NOTICE_VALUE_CHARS_MAX + 10 && text.ends_with("...\""));
        text.clear();
        push_value(&mut text, "");
        assert_eq!(text, "\"\"");
    }
}
