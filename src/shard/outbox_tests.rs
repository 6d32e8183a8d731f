//! The outbox: what is kept, and until when.

use super::*;
use crate::envelope::Kind;

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
    let bytes = outbox.take_plain();
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
    let bytes = outbox.take_plain();
    assert_eq!(outbox.sent(bytes), b"<stream>", "back to the pool");
    assert!(outbox.lost().is_empty());
}
