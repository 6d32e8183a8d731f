//! Edges of framing: keep-alives, lengths, bounds.

use super::*;

const HEAD: &str = "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TLS x\r\n";

fn message(headers: &str, body: &str) -> Vec<u8> {
    format!("{HEAD}{headers}\r\n{body}").into_bytes()
}

fn first(text: &[u8]) -> Result<Next, FrameFault> {
    Framer::default().next(text, &Limits::PEER)
}

fn status(text: &[u8]) -> (u16, bool) {
    first(text).map_err(|it| (it.fault.status, it.head.is_some())).expect_err("a fault")
}

#[test]
fn keep_alives_are_swallowed_and_double_ones_are_pings() {
    assert_eq!(first(b""), Ok(Next::Incomplete));
    assert_eq!(first(b"\r"), Ok(Next::Incomplete));
    assert_eq!(first(b"\r\nOPTIONS"), Ok(Next::Blank(2)));
    assert_eq!(first(b"\r\n\r\nOPTIONS"), Ok(Next::Ping(4)));
    assert_eq!(first(b"\r\n\r\n\r\n\r"), Ok(Next::Ping(6)));
    assert_eq!(status(b"\n"), (400, false));
    assert_eq!(status(b"\r\r"), (400, false));
    assert_eq!(status(b" OPTIONS"), (400, false));
    // Split across reads.
    let mut framer = Framer::default();
    assert_eq!(framer.next(b"\r\n", &Limits::PEER), Ok(Next::Blank(2)));
    assert_eq!(framer.next(b"\r", &Limits::PEER), Ok(Next::Incomplete));
    assert_eq!(framer.next(b"\r\n", &Limits::PEER), Ok(Next::Ping(2)));
    assert_eq!(framer.next(b"\r\n", &Limits::PEER), Ok(Next::Blank(2)));
    let whole = message("l:0\r\n", "");
    let is_message = |it| matches!(it, Ok(Next::Message { .. }));
    assert!(is_message(framer.next(&whole, &Limits::PEER)));
    assert_eq!(framer.next(b"\r\n", &Limits::PEER), Ok(Next::Blank(2)), "a message was between");
}

#[test]
fn the_length_is_told_once_or_twice_alike_in_any_form() {
    let head = |headers: &str| message(headers, "").len();
    for headers in [
        "Content-Length: 4\r\n",
        "l:4\r\n",
        "CONTENT-LENGTH  :\t0004  \r\nSubject: x\r\n",
        "Content-Length:\r\n 4\r\n",
        "Content-Length: 4\r\nl: 4\r\n",
        "L: 4\r\nX: y\r\nL: 04\r\nl: 4\r\n",
    ] {
        let length = head(headers) + 4;
        let expected = Ok(Next::Message { head: head(headers), length });
        assert_eq!(first(&message(headers, "text tail")), expected, "{headers}");
        let by_datagram = datagram(&message(headers, "text tail"), &Limits::PEER);
        assert_eq!(by_datagram, Ok((head(headers), length)), "{headers}");
    }
    for headers in [
        "Content-Length: -1\r\n",
        "Content-Length: 4x\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length:\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4\r\nl: 5\r\n",
        "Content-Length: 4\r\n 4\r\n",
    ] {
        assert_eq!(status(&message(headers, "text")), (400, true), "{headers}");
        assert!(datagram(&message(headers, "text"), &Limits::PEER).is_err(), "{headers}");
    }
    assert_eq!(status(&message("Subject: x\r\n Content-Length: 4\r\n", "")), (400, true), "folded");
    assert_eq!(status(&message("", "")), (400, true));
    let whole = message("", "the rest");
    assert_eq!(datagram(&whole, &Limits::PEER), Ok((whole.len() - 8, whole.len())));
}

#[test]
fn nothing_over_the_bounds_is_waited_for() {
    let length = |it: usize| message(&format!("l: {it}\r\n"), "");
    assert_eq!(status(&length(limits::SIP_MESSAGE_BYTES_MAX)), (413, true));
    assert_eq!(status(&message("l: 99999999999999999999999\r\n", "")), (413, true));
    assert_eq!(first(&length(limits::SIP_MESSAGE_BYTES_MAX - 200)), Ok(Next::Incomplete));
    let long = "x".repeat(limits::SIP_HEAD_BYTES_MAX);
    assert_eq!(status(format!("{HEAD}X: {long}").as_bytes()), (513, false));
    assert_eq!(status(long.as_bytes()), (513, false));
    assert_eq!(status(&message(&format!("X: {long}\r\n"), "")), (513, false));
    let fits = &long[..limits::SIP_HEAD_BYTES_MAX - HEAD.len() - 14];
    assert!(first(&message(&format!("X: {fits}\r\nl: 0\r\n"), "")).is_ok());
    assert_eq!(status(b"MESSAGE sip:a@b SIP/2.0\nVia"), (400, false));
    assert_eq!(datagram(b"\r\n", &Limits::PEER).map_err(|it| it.head), Err(None));
    assert_eq!(datagram(b"", &Limits::PEER).map_err(|it| it.head), Err(None));
}

#[test]
fn a_long_message_in_single_octets_is_looked_at_once() {
    let text = message(&format!("X: {}\r\nl: 3\r\n", "y".repeat(8_000)), "abc");
    let mut framer = Framer::default();
    for end in 0..text.len() {
        assert_eq!(framer.next(&text[..end], &Limits::PEER), Ok(Next::Incomplete));
        assert_eq!(framer.is_within(), end > 0);
    }
    let expected = Ok(Next::Message { head: text.len() - 3, length: text.len() });
    assert_eq!(framer.next(&text, &Limits::PEER), expected);
    assert!(!framer.is_within());
}
