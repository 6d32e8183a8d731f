//! Shapes of headers that other products send, and what is odd but allowed.

use super::*;
use crate::sip::header::State;

fn with<T>(headers: &str, look: impl FnOnce(&Message<'_>) -> T) -> T {
    let text = format!("NOTIFY sip:bob@b.example SIP/2.0\r\n{headers}\r\nbody");
    let mut index = Index::default();
    look(&index.read(text.as_bytes()).expect("a start line"))
}

#[test]
fn headers_are_found_in_any_order_case_and_form() {
    let headers = "Record-Route: <sip:r1;lr>;tag=1\r\nv: SIP/2.0/TLS a;branch=z9hG4bK1\r\nL: 4\r\n\
        RECORD-ROUTE: <sip:r2;lr;opaque=state:T:F>, \"x,y\" <sip:r3,z;lr>\r\n\
        vIA : SIP/2.0/TLS b;ms-internal-info=\"1;2,3\",\r\n SIP/2.0/UDP c\r\nX-Mine: 1\r\nx-MINE: 2\r\n";
    with(headers, |it| {
        let vias: Vec<&[u8]> = it.list(Name::Via).collect();
        assert_eq!(vias.len(), 3);
        assert_eq!(vias[1], b"SIP/2.0/TLS b;ms-internal-info=\"1;2,3\"");
        let routes: Vec<&[u8]> = it.list(Name::RecordRoute).collect();
        let expected: [&[u8]; 3] =
            [b"<sip:r1;lr>;tag=1", b"<sip:r2;lr;opaque=state:T:F>", b"\"x,y\" <sip:r3,z;lr>"];
        assert_eq!(routes, expected);
        assert_eq!(it.headers(Name::RecordRoute).count(), 2);
        assert_eq!(it.other("X-Mine").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!((it.body(), it.header(Name::ContentLength)), (&b"body"[..], Some(&b"4"[..])));
        assert_eq!(it.all().nth(3).map(|it| it.0), Some(&b"RECORD-ROUTE"[..]));
        assert_eq!(it.header(Name::Subject), None);
    });
}

#[test]
fn many_lines_of_tokens_are_one_list() {
    let lines: String = (0..20).map(|it| format!("Supported: t{it}, ,Both\r\n")).collect();
    with(&lines, |it| {
        assert_eq!(it.list(Name::Supported).count(), 40);
        assert!(it.has_token(Name::Supported, "T19") && it.has_token(Name::Supported, "both"));
        assert!(!it.has_token(Name::Supported, "t20") && !it.has_token(Name::Require, "t1"));
    });
}

#[test]
fn values_need_not_be_utf_8_nor_understood() {
    let mut text = b"NOTIFY sip:b SIP/2.0\r\nSubject: \xFF\xFE\r\nCall-ID: \xFF\r\nFrom: ".to_vec();
    text.extend_from_slice(b"\"\xC3(\" <sip:a@a>;tag=1\r\n\r\n");
    let mut index = Index::default();
    let it = index.read(&text).expect("a start line");
    assert_eq!(it.header(Name::Subject), Some(&b"\xFF\xFE"[..]));
    assert_eq!(it.from().map(|it| it.display), Ok(&b"\xC3("[..]));
    assert!(it.call_id().is_err());
    let asserted = "P-Asserted-Identity: \"x\"<sip:a@b>,<tel:+1;ext=2>\r\n";
    with(asserted, |it| assert_eq!(it.list(Name::PAssertedIdentity).count(), 2));
}

#[test]
fn typed_values_are_read_on_demand() {
    let headers = "Event: presence;id=4\r\nSubscription-State: active ;expires=7200\r\n\
        c: application/sdp;call-type=im\r\nMin-Expires: 99999999999\r\nRetry-After: 50 (busy);x=1\r\n\
        CSeq: 0012  \r\n BENOTIFY\r\nContact: *\r\nExpires: -1\r\n";
    with(headers, |it| {
        assert!(it.event().is_some_and(|it| it.is("presence") && it.id == Some(b"4")));
        let state = it.subscription_state().expect("a state");
        assert_eq!((state.state, state.expires), (State::Active, Some(7_200)));
        assert!(it.content_type().is_some_and(|it| it.is("application", "sdp")));
        assert_eq!((it.min_expires(), it.retry_after()), (Ok(Some(u32::MAX)), Some(50)));
        assert_eq!((it.cseq(), it.max_forwards()), (Ok((12, Method::Benotify)), Ok(None)));
        assert_eq!(it.contact(), Ok(None));
        assert!(it.expires().is_err());
        assert_eq!((it.method(), it.uri()), (Method::Notify, &b"sip:bob@b.example"[..]));
    });
}

#[test]
fn responses_keep_their_phrase() {
    let mut index = Index::default();
    let text = b"sip/2.0 101 Progress  Report \r\nCSeq: 1 INVITE\r\n\r\n";
    let it = index.read(text).expect("a status line");
    assert_eq!((it.is_request(), it.status(), it.method()), (false, 101, Method::Invite));
    assert_eq!((it.reason(), it.uri()), (&b"Progress  Report "[..], &b""[..]));
}

#[test]
fn an_index_is_used_again() {
    let mut index = Index::default();
    let first = index.read(b"A sip:a SIP/2.0\r\nX: 1\r\nSubject: 2\r\n\r\n").expect("a start line");
    assert_eq!(first.all().count(), 2);
    let second = index.read(b"B sip:a SIP/2.0\r\n\r\n").expect("a start line");
    assert_eq!(second.all().count(), 0);
    assert!(index.read(b"").is_err() && index.read(b"\r\n\r\n").is_err());
}

#[test]
fn further_headers_than_the_bound_are_refused_and_the_first_are_there() {
    let text =
        format!("A sip:a SIP/2.0\r\nVia: x\r\n{}\r\n", "X: 1\r\n".repeat(limits::SIP_HEADERS_MAX));
    let mut index = Index::default();
    let it = index.read(text.as_bytes()).expect("a start line");
    assert_eq!(it.all().count(), limits::SIP_HEADERS_MAX);
    assert_eq!(it.check().map_err(|it| it.status), Err(513));
    assert_eq!(it.header(Name::Via), Some(&b"x"[..]));
}
