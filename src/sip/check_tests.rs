//! Which error for which input, and in which order.

use super::*;
use crate::sip::message::Index;

const SOUND: &str = "INVITE sip:bob@b.example SIP/2.0\r\nVia: SIP/2.0/TLS a;branch=z9hG4bK1\r\n\
    Max-Forwards: 70\r\nFrom: <sip:a@a.example>;tag=1\r\nTo: <sip:bob@b.example>\r\nCall-ID: c\r\n\
    CSeq: 1 INVITE\r\nContact: <sip:a@x>\r\n\r\n";

/// What becomes of the sound request with one text put in another's place.
fn changed(from: &str, to: &str) -> Result<(), (u16, &'static str)> {
    assert!(SOUND.contains(from), "{from}");
    check(&SOUND.replacen(from, to, 1))
}

fn check(text: &str) -> Result<(), (u16, &'static str)> {
    let mut index = Index::default();
    let message = index.read(text.as_bytes()).expect("a start line");
    message.check().map_err(|it| (it.status, it.reason))
}

#[test]
fn each_fault_has_its_answer() {
    assert_eq!(check(SOUND), Ok(()));
    for (from, to, status) in [
        // A start line that can't be read.
        ("INVITE sip", "INVITE  sip", 400),
        ("SIP/2.0\r\n", "SIP/2.0 \r\n", 400),
        ("bob@b.example SIP", "bob@b.example; lr SIP", 400),
        (" SIP/2.0\r\n", " HTTP/1.1\r\n", 400),
        (" SIP/2.0\r\n", "\r\n", 400),
        ("INVITE sip", "INV(TE sip", 400),
        ("sip:bob@b.example SIP", "<sip:bob@b.example> SIP", 400),
        ("sip:bob@b.example SIP", "sip:bob@b.example?Subject=x SIP", 400),
        ("sip:bob@b.example SIP", "sip:2001:db8::1 SIP", 400),
        // What must be there, is, once, and can be read.
        ("Via", "X", 400),
        ("From", "X", 400),
        ("To", "X", 400),
        ("Call-ID", "X", 400),
        ("CSeq", "X", 400),
        ("SIP/2.0/TLS a;", "SIP/2.0/TLS a;;", 400),
        ("<sip:a@a.example>", "\"a <sip:a@a.example>", 400),
        ("<sip:a@a.example>", "A, B <sip:a@a.example>", 400),
        ("<sip:bob@b.example>", "< sip:bob@b.example >", 400),
        ("<sip:bob@b.example>", "<sip:bob@>", 400),
        ("tag=1", "tag=", 400),
        ("tag=1", "tag", 400),
        ("Call-ID: c", "Call-ID:", 400),
        ("Call-ID: c", "Call-ID: c d", 400),
        ("CSeq: 1", "CSeq: 36893488147419103232", 400),
        ("CSeq: 1", "CSeq: 2147483648", 400),
        ("CSeq: 1", "CSeq: -1", 400),
        ("From", "f: <sip:a@a>;tag=2\r\nFrom", 400),
        ("From", "To: <sip:a@a>;tag=2\r\nFrom", 400),
        ("From", "i: x\r\nFrom", 400),
        ("From", "CSeq: 1 INVITE\r\nFrom", 400),
        ("From", "Max-Forwards: 70\r\nFrom", 400),
        ("From", "Event: a\r\nEvent: b\r\nFrom", 400),
        ("From", "No colon\r\nFrom", 400),
        ("From", "Bad name: x\r\nFrom", 400),
        ("From", "X: a\rb\r\nFrom", 400),
        ("From", "X: a\nFrom", 400),
        ("<sip:a@x>", "sip:a@x?Route=y", 400),
        ("1 INVITE", "1 BYE", 400),
        ("70", "256", 400),
        ("70", "many", 400),
        // And then the others, in their order.
        (" SIP/2.0\r\n", " SIP/7.0\r\n", 505),
        ("INVITE sip", "INVENT sip", 501),
        ("INVITE sip", "invite sip", 501),
        ("INVITE sip", "SERVICE sip", 501),
        ("INVITE sip", "REGISTER sip", 405),
        ("sip:bob@b.example SIP", "nobody:knows SIP", 416),
        ("sip:bob@b.example SIP", "tel:+1 SIP", 416),
        ("70", "0", 483),
    ] {
        let outcome = changed(from, to).map_err(|it| it.0);
        assert_eq!(outcome, Err(status), "{to:?} for {from:?}");
    }
}

#[test]
fn what_is_only_odd_passes() {
    for (from, to) in [
        (";branch=z9hG4bK1", ""),
        (";branch=z9hG4bK1", ";branch=z9hG4bK"),
        ("Max-Forwards: 70\r\n", ""),
        ("Contact: <sip:a@x>\r\n", ""),
        (";tag=1", ""),
        ("SIP/2.0\r\n", "sip/2.0\r\n"),
        ("<sip:bob@b.example>", "isbn:2983792873"),
        ("<sip:a@x>", "<sip:a@x>, <name:John>;q=1"),
        ("From", "Via: nonsense below the top\r\nFrom"),
        ("From", "Date: never\r\nFrom"),
        ("Call-ID: c", "Call-ID: 6e2aad4ebbd0c6d548d393c5f96e75c4"),
        ("70", "0070"),
        ("CSeq: 1 ", "CSeq:\r\n 0001\r\n  "),
    ] {
        assert_eq!(changed(from, to), Ok(()), "{to:?} for {from:?}");
    }
    let options = SOUND.replace("INVITE", "OPTIONS").replace("70", "0");
    assert_eq!(check(&options), Ok(()));
}

#[test]
fn keys_and_hops_are_bounded() {
    let long = "k".repeat(limits::SIP_KEY_BYTES_MAX + 1);
    for (from, to) in [
        ("branch=z9hG4bK1", format!("branch={long}")),
        ("tag=1", format!("tag={long}")),
        ("Call-ID: c", format!("Call-ID: {long}")),
        ("From", format!("{}From", "Via: SIP/2.0/TLS b\r\n".repeat(limits::SIP_VIAS_MAX))),
    ] {
        assert_eq!(changed(from, &to).map_err(|it| it.0), Err(400));
    }
}

#[test]
fn methods_that_are_refused_name_those_that_are_not() {
    let text = SOUND.replace("INVITE", "REFER");
    let mut index = Index::default();
    let fault = index.read(text.as_bytes()).expect("a start line").check().expect_err("a fault");
    assert_eq!(fault.extra, [("Allow", ALLOW.into())]);
    for method in ["ACK", "BENOTIFY"] {
        assert_eq!(check(&SOUND.replace("INVITE", method)), Ok(()));
        assert!(!Method::new(method.as_bytes()).is_answered());
    }
}

#[test]
fn responses_are_judged_too() {
    let response = SOUND.replace("INVITE sip:bob@b.example SIP/2.0", "SIP/2.0 200 ");
    assert_eq!(check(&response), Ok(()));
    for (from, to) in [
        ("200 ", "99 "),
        ("200 ", "4294967301 "),
        ("200 ", "0200 "),
        ("200 ", "700 "),
        ("SIP/2.0 200", "SIP/3.0 200"),
        ("SIP/2.0 200", "SIP/2.0  200"),
        ("CSeq: 1", "CSeq: 9292394834772304023312"),
        ("Call-ID", "X"),
    ] {
        assert!(check(&response.replacen(from, to, 1)).is_err(), "{to}");
    }
}
