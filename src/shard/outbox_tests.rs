//! The outbox: what is kept, and until when.

use super::*;
use crate::envelope::Kind;
use crate::limits::{ASK_AGAIN_AFTER, ASK_EVERY, ASK_EVERY_STANZAS};

const ORIGIN: Origin = Origin { shard: 0, kind: Kind::Message, stream: 0, number: 0 };

fn add(outbox: &mut Outbox, text: &str) {
    outbox.buffer().extend_from_slice(text.as_bytes());
    assert!(outbox.stanza(text.len(), Some(ORIGIN), Moment(1)));
}

fn acknowledged(outbox: &mut Outbox, unacknowledged: u64) -> usize {
    let mut count = 0;
    outbox.acknowledge(unacknowledged, |_| count += 1, drop);
    count
}

#[test]
fn a_stanza_is_delivered_when_its_last_octet_is_acknowledged() {
    let mut outbox = Outbox::default();
    outbox.buffer().extend_from_slice(b"<header>");
    add(&mut outbox, "<one/>");
    let bytes = outbox.take_plain(&mut Buffers::default());
    assert_eq!(bytes, b"<header><one/>");
    assert_eq!(acknowledged(&mut outbox, 0), 0, "the send is still out");
    add(&mut outbox, "<two/>");
    assert!(outbox.sent(bytes).is_empty(), "kept until acknowledged");
    assert_eq!(acknowledged(&mut outbox, 1), 0);
    assert_eq!(acknowledged(&mut outbox, 0), 1);
    assert!(outbox.is_owing());
}

#[test]
fn what_did_not_arrive_is_given_back_in_order() {
    let mut outbox = Outbox::default();
    add(&mut outbox, "<one/>");
    let mut wire = Vec::new();
    let plain = outbox.take_sealed(&mut wire, |p, w| {
        w.extend_from_slice(&[b"##", p, b"##"].concat());
    });
    assert_eq!((wire.as_slice(), plain.len()), (&b"##<one/>##"[..], 0));
    add(&mut outbox, "<two/>");
    outbox.buffer().extend_from_slice(b" ");
    add(&mut outbox, "<three/>");
    outbox.sent(wire);
    let lost: Vec<_> =
        outbox.lost().into_iter().map(|(_, b)| String::from_utf8(b).unwrap()).collect();
    assert_eq!(lost, ["<one/>", "<two/>", "<three/>"]);
}

#[test]
fn octets_on_nobodys_account_are_not_kept() {
    let mut outbox = Outbox::default();
    outbox.buffer().extend_from_slice(b"<stream>");
    let bytes = outbox.take_plain(&mut Buffers::default());
    assert_eq!(outbox.sent(bytes), b"<stream>", "back to the pool");
    assert!(outbox.lost().is_empty());
}

fn managed() -> Outbox {
    let mut outbox = Outbox::default();
    outbox.manage(0, Moment(1));
    outbox
}

fn handled(outbox: &mut Outbox, count: u32) -> Result<usize, u32> {
    let mut closed = 0;
    outbox.handled(count, Moment(2), |_| closed += 1, drop)?;
    Ok(closed)
}

fn flush(outbox: &mut Outbox) {
    let bytes = outbox.take_plain(&mut Buffers::default());
    outbox.sent(bytes);
}

#[test]
fn a_client_that_counts_closes_accounts_itself() {
    let mut outbox = Outbox::default();
    add(&mut outbox, "<before/>");
    outbox.manage(0, Moment(1));
    add(&mut outbox, "<one/>");
    outbox.buffer().extend_from_slice(b"<ours/>");
    assert!(outbox.stanza(7, None, Moment(1)), "it counts all");
    flush(&mut outbox);
    assert!(outbox.asks_kernel(), "what came before it counted");
    assert_eq!(acknowledged(&mut outbox, 0), 1);
    assert!(!outbox.asks_kernel());
    assert_eq!(acknowledged(&mut outbox, 0), 0, "the rest is the client's to say");
    assert_eq!(handled(&mut outbox, 1), Ok(1));
    assert_eq!(handled(&mut outbox, 1), Ok(0));
    assert_eq!(handled(&mut outbox, 3), Err(2));
    assert_eq!(handled(&mut outbox, 2), Ok(1));
    assert!(!outbox.is_owing());
}

#[test]
fn what_was_not_sent_can_not_be_handled() {
    let mut outbox = managed();
    add(&mut outbox, "<one/>");
    flush(&mut outbox);
    add(&mut outbox, "<two/>");
    assert_eq!(handled(&mut outbox, 2), Err(1));
}

#[test]
fn the_count_of_a_client_wraps() {
    let mut outbox = Outbox::default();
    outbox.manage(u32::MAX, Moment(1));
    add(&mut outbox, "<one/>");
    add(&mut outbox, "<two/>");
    flush(&mut outbox);
    assert_eq!(handled(&mut outbox, 1), Ok(2));
    assert_eq!(handled(&mut outbox, 0), Err(1), "it never goes back");
}

#[test]
fn it_is_asked_when_somebody_waits_and_else_now_and_then() {
    let mut outbox = managed();
    let later = Moment(1) + ASK_EVERY;
    assert!(!outbox.asks(later), "nothing is out");
    outbox.buffer().extend_from_slice(b"<ours/>");
    outbox.stanza(7, None, Moment(1));
    assert!(!outbox.asks(Moment(2)));
    assert!(outbox.asks(later), "a while has passed");
    add(&mut outbox, "<one/>");
    assert!(outbox.asks(Moment(2)), "a sender waits");
    outbox.asked(Moment(2));
    flush(&mut outbox);
    add(&mut outbox, "<two/>");
    assert!(!outbox.asks(later), "one question at a time");
    for _ in 1..ASK_EVERY_STANZAS {
        add(&mut outbox, "<more/>");
    }
    assert!(outbox.asks(Moment(2)), "so many are not covered by it");
    assert_eq!(handled(&mut outbox, 1), Ok(1));
    assert!(outbox.asks(Moment(2)), "the sender of the second waits");
}

#[test]
fn one_question_serves_what_is_said_in_quick_succession() {
    let mut outbox = managed();
    add(&mut outbox, "<one/>");
    assert!(outbox.asks(Moment(2)));
    outbox.asked(Moment(2));
    flush(&mut outbox);
    assert_eq!(handled(&mut outbox, 1), Ok(1));
    add(&mut outbox, "<two/>");
    assert!(!outbox.asks(Moment(3)));
    assert!(outbox.asks(Moment(2) + ASK_AGAIN_AFTER), "a sender waits");
}

#[test]
fn what_is_unacknowledged_has_a_bound() {
    let mut outbox = managed();
    for _ in 0..UNACKED_STANZAS_MAX {
        assert!(outbox.has_room());
        add(&mut outbox, "<one/>");
        flush(&mut outbox);
    }
    assert!(!outbox.has_room());
    assert!(!outbox.is_high(), "its own stanzas are read, or the answer would be missed");
    assert_eq!(handled(&mut outbox, 1), Ok(1));
    assert!(outbox.has_room());
    let mut outbox = managed();
    add(&mut outbox, &"x".repeat(UNACKED_HIGH_BYTES));
    flush(&mut outbox);
    assert!(!outbox.has_room());
}

#[test]
fn another_connection_takes_over_what_was_counted() {
    let mut outbox = Outbox::default();
    add(&mut outbox, "<before/>");
    outbox.manage(5, Moment(1));
    for text in ["<one/>", "<two/>"] {
        add(&mut outbox, text);
    }
    let bytes = outbox.take_plain(&mut Buffers::default());
    add(&mut outbox, "<three/>");
    assert_eq!(handled(&mut outbox, 6), Ok(1));
    let Unacked { acked, sent, stanzas } = outbox.take_managed().unwrap();
    let texts: Vec<_> =
        stanzas.into_iter().map(|(_, text)| String::from_utf8(text).unwrap()).collect();
    assert_eq!((acked, sent), (6, 1), "also while the send is out");
    assert_eq!(texts, ["<two/>", "<three/>"]);
    outbox.sent(bytes);
    assert!(outbox.take_managed().is_none());
    assert_eq!(outbox.lost().len(), 1, "what it did not count goes the old way");
}
