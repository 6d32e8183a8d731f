//! What counts as the same head as before, and what does not.

use super::*;
use crate::sip::frame::{Framer, Limits, Next};

const TEXT: &str = "MESSAGE sip:imp1.load.example:5061;transport=tcp SIP/2.0\r\n\
    Via: SIP/2.0/TLS 198.51.100.7:5061;branch=z9hG4bKAA.01;branched=FALSE;x=\"15;k=1,2\"\r\n\
    Via: SIP/2.0/TLS 10.0.0.4:51233;branch=z9hG4bKBB02;ms-received-port=51233, SIP/2.0/UDP [2001:db8::9] ;\r\n branch = Q7\r\n\
    Max-Forwards: 69\r\nRecord-Route: <sip:edge.p.example:5061;transport=tls;lr>;tag=1\r\n\
    From: \"Ann \\\" B\"<sip:ann@p.example>;tag=f00;epid=12\r\nTo: <sip:bob@load.example>;epid=;tag=t1.q\r\n\
    Call-ID: c77@p.example\r\nCSeq: 0041  MESSAGE\r\nContact: <sip:ann@p.example;gruu>\r\n\
    Subject: a\r\n\tb\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: 0011\r\n\r\nHello\r\n\r\n12";

fn judged(head: &str) -> Alike {
    let mut index = Index::default();
    let request = index.read(head.as_bytes()).unwrap().checked().unwrap();
    Alike::of(&request).expect(head)
}

/// Whether it is alike; then it must be what reading it in full shows.
fn alike(kept: &Alike, octets: &[u8]) -> bool {
    let Some(found) = kept.read(octets, 2_000) else { return false };
    let mut framer = Framer::default();
    let next = framer.next(octets, &Limits::PEER).unwrap();
    let Next::Message { head, length } = next else { panic!("{next:?}") };
    let frame = octets.get(..length).unwrap();
    assert_eq!((found.frame(), found.head), (frame, head));
    let mut index = Index::default();
    let read = index.read(frame).unwrap().checked().unwrap();
    assert_eq!(found.known, read.known);
    assert_eq!((found.uri(), found.version()), (read.uri(), read.version()));
    assert_eq!((found.method(), found.body()), (read.method(), read.body()));
    assert_eq!((found.status(), found.reason()), (read.status(), read.reason()));
    assert_eq!(found.count, read.count);
    assert!(found.all().eq(read.all()));
    for name in [Name::Via, Name::Contact, Name::RecordRoute, Name::ContentType, Name::CSeq] {
        assert!(found.list(name).eq(read.list(name)));
    }
    let (found, read) = (found.via().unwrap(), read.via().unwrap());
    assert_eq!((found.key(), found.param("branched")), (read.key(), read.param("branched")));
    true
}

#[test]
fn what_a_request_has_of_its_own_may_differ() {
    let kept = judged(TEXT);
    assert!(alike(&kept, TEXT.as_bytes()));
    let other = TEXT.replace("AA.01", "ZZ~99").replace("BB02", "CC17").replace("0041", "0042");
    assert!(alike(&kept, other.as_bytes()));
    // The body is nobody's but its reader's, and what stands behind it is the next.
    let other = other.replace("0011", "0013") + "\r\nVia: x\r\n\r\n";
    assert!(alike(&kept, other.as_bytes()));
    // Not whole, or too much.
    assert!(kept.read(&TEXT.as_bytes()[..TEXT.len() - 1], 2_000).is_none());
    assert!(kept.read(TEXT.as_bytes(), TEXT.len() as u32 - 1).is_none());
    assert!(kept.read(TEXT.as_bytes(), TEXT.len() as u32).is_some());
    let long = TEXT.replace("0011", "9999") + &"x".repeat(9_988);
    assert!(kept.read(long.as_bytes(), 2_000).is_none());
    assert!(kept.read(long.as_bytes(), 20_000).is_some());
}

#[test]
fn nothing_else_may() {
    let kept = judged(TEXT);
    for (old, new) in [
        ("0041", "041"),
        ("0041", "00041"),
        ("0041", "4294967296"),
        ("0041", "+041"),
        ("AA.01", "AA.012"),
        ("AA.01", "AA;01"),
        ("AA.01", "AA,01"),
        ("AA.01", "AA=01"),
        ("AA.01", "AA\r\n1"),
        ("AA.01", "AA\"01"),
        ("z9hG4bKAA.01", "z9hG4bKt1.01"),
        ("z9hG4bKBB02", "z9hG4bKt102"),
        ("branch = Q7", "branch = Q8"),
        ("f00", "f01"),
        ("t1.q", "t1.r"),
        ("ann@", "eve@"),
        ("c77@", "c78@"),
        ("MESSAGE sip", "OPTIONS sip"),
        ("69\r\n", "00\r\n"),
        ("Max-Forwards", "max-forwards"),
        ("text/plain", "text/html "),
        ("0011\r\n\r\n", "0011\r\nX: y\r\n\r\n"),
        ("0011\r\n\r\n", "0011\r\n "),
        ("0011", "00 1"),
    ] {
        let other = TEXT.replacen(old, new, 1);
        assert_ne!(other, TEXT);
        assert!(kept.read(other.as_bytes(), 2_000).is_none(), "{old} {new}");
    }
}

#[test]
fn answers_are_alike_too() {
    let text = TEXT
        .replace("MESSAGE sip:imp1.load.example:5061;transport=tcp SIP/2.0", "SIP/2.0 200 Very OK");
    let text = text.replace("z9hG4bKAA.01", "z9hG4bKt1.01");
    let kept = judged(&text);
    assert!(alike(&kept, text.as_bytes()));
    let other = text.replace("t1.01", "t1.02").replace("0041", "0099");
    assert!(alike(&kept, other.as_bytes()));
    for (old, new) in [("200", "202"), ("Very", "very"), ("t1.01", "t1;01"), ("MESSAGE", "OPTIONS")]
    {
        let other = text.replacen(old, new, 1);
        assert!(kept.read(other.as_bytes(), 2_000).is_none(), "{new}");
    }
}

/// A CSeq of 2^31 and more is refused, so it is not alike.
#[test]
fn a_number_is_judged_anew() {
    let long = TEXT.replace("0041", "2147483647");
    let kept = judged(&long);
    assert!(alike(&kept, long.as_bytes()));
    assert!(kept.read(long.replace("2147483647", "2147483648").as_bytes(), 2_000).is_none());
}

#[test]
fn one_octet_more_less_or_other_is_read_as_reading_it_in_full_does() {
    let kept = judged(TEXT);
    let octets = b"\0\t\n\r \"%,-.0:;<=>?@A\\_`a\x7F\xC3";
    let mut found = 0;
    for at in 0..TEXT.len() {
        for octet in octets {
            let mut other = TEXT.as_bytes().to_vec();
            other[at] = *octet;
            found += usize::from(alike(&kept, &other));
            other.insert(at, TEXT.as_bytes()[at]);
            found += usize::from(alike(&kept, &other));
        }
        let mut other = TEXT.as_bytes().to_vec();
        other.remove(at);
        found += usize::from(alike(&kept, &other));
    }
    assert!(found > 100, "{found}");
}

/// A branch in another form is as it is, or the request is read in full.
#[test]
fn odd_branches_are_no_ones_own() {
    for (old, new) in [
        ("branch=z9hG4bKAA.01", "branch=\"z9hG4bKAA.01\""),
        ("z9hG4bKAA.01", "z9hG4bKt1.01"),
        ("z9hG4bKAA.01", "z9hG4bK/01"),
        ("branch=z9hG4bKBB02", "branch= z9hG4bKBB02"),
    ] {
        let odd = TEXT.replacen(old, new, 1);
        let kept = judged(&odd);
        assert!(alike(&kept, odd.as_bytes()));
        for (old, new) in [("01", "02"), ("BB02", "BB03")] {
            let other = odd.replacen(old, new, 1);
            assert_ne!(other, odd);
            alike(&kept, other.as_bytes());
        }
        let other = odd
            .replace(".01", ".02")
            .replace("/01", "/02")
            .replace("= z9hG4bKBB02", "= z9hG4bKBB03");
        assert!(kept.read(other.as_bytes(), 2_000).is_none(), "{new}");
    }
}

#[test]
fn what_can_not_come_again_is_not_kept() {
    for (old, new) in [
        // Which counts would be another question.
        ("Content-Length: 0011\r\n", "Content-Length: 0011\r\nl: 11\r\n"),
        ("Content-Length: 0011\r\n", ""),
        ("Content-Length: 0011\r\n", "Content-Length: 0011;x\r\n"),
    ] {
        let other = TEXT.replacen(old, new, 1);
        assert_ne!(other, TEXT);
        let mut index = Index::default();
        let request = index.read(other.as_bytes()).unwrap().checked().unwrap();
        assert!(Alike::of(&request).is_none(), "{new}");
    }
    let mut index = Index::default();
    let unjudged = index.read(TEXT.as_bytes()).unwrap();
    assert!(Alike::of(&unjudged).is_none());
}
