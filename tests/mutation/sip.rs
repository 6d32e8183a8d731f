//! Spoilt SIP messages, on streams and in datagrams, and spoilt values of their headers.

use tandem::sip::{
    Fault, Index, Message, Name, NameAddr, Uri, Via, frame,
    frame::{FrameFault, Framer, Limits, Next},
    header::{Event, MediaType, SubscriptionState},
    uri, write,
};

use crate::sip_corpus;

#[path = "../sip_corpus/mutator.rs"]
mod mutator;

use mutator::Mutator;

const INPUTS: usize = if cfg!(debug_assertions) { 100_000 } else { 10_000_000 };
const THREADS: u64 = 2;

#[test]
fn spoilt_messages_pass_whole_or_not_at_all() {
    let (framed, passed) = threads(messages);
    println!("{INPUTS} spoilt SIP messages, {framed} framed, {passed} passed");
    assert!(passed > INPUTS / 20, "the mutator must leave some whole");
    assert!(passed < INPUTS / 2, "and must spoil most");
}

#[test]
fn spoilt_values_are_read_or_refused() {
    let (addresses, uris) = threads(values);
    println!("{INPUTS} spoilt SIP values, {addresses} addresses, {uris} URIs");
    assert!(addresses > INPUTS / 20 && uris > INPUTS / 20);
}

fn threads(run: fn(u64, usize) -> (usize, usize)) -> (usize, usize) {
    std::thread::scope(|scope| {
        let each = INPUTS / THREADS as usize;
        let runs: Vec<_> =
            (0..THREADS).map(|n| scope.spawn(move || run(0x51B0_0001 + (n << 32), each))).collect();
        runs.into_iter()
            .map(|it| it.join().expect("no panic"))
            .fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    })
}

fn messages(seed: u64, inputs: usize) -> (usize, usize) {
    let samples = sip_corpus::torture().into_iter().map(|it| it.0).chain(sip_corpus::microsoft());
    let mut mutator = Mutator::new(seed, samples.map(|it| it.text));
    let mut scratch = Scratch::default();
    let (mut text, mut framed, mut passed) = (Vec::new(), 0, 0);
    for i in 0..inputs {
        mutator.next(&mut text);
        let by_stream = first(&text);
        let by_datagram = frame::datagram(&text, &Limits::PEER);
        if let Ok(Some((head, length))) = &by_stream {
            framed += 1;
            // With a Content-Length both are cut alike.
            assert_eq!(by_datagram.as_ref().ok(), Some(&(*head, *length)), "{}", shown(&text));
        }
        let frame = match &by_datagram {
            Ok((head, length)) => {
                assert!(head <= length && *length <= text.len(), "{}", shown(&text));
                &text[..*length]
            }
            Err(it) => &text[..it.head.unwrap_or(0)],
        };
        passed += usize::from(scratch.judge(frame, by_datagram.is_ok()));
        if i % 8 == 0 {
            pieces(&text, &by_stream, 1 + mutator.below(40));
        }
    }
    (framed, passed)
}

type First = Result<Option<(usize, usize)>, FrameFault>;

/// The first message of a stream.
fn first(text: &[u8]) -> First {
    let mut framer = Framer::default();
    match framer.next(text, &Limits::PEER)? {
        Next::Message { head, length } => {
            assert!(head <= length && length <= text.len(), "{}", shown(text));
            Ok(Some((head, length)))
        }
        Next::Blank(count) | Next::Ping(count) => {
            assert!(count <= text.len() && count > 0);
            Ok(None)
        }
        Next::Incomplete => Ok(None),
    }
}

/// The same comes of it in pieces; a fault may show earlier.
fn pieces(text: &[u8], whole: &First, piece: usize) {
    let mut framer = Framer::default();
    let mut end = 0;
    loop {
        end = text.len().min(end + piece);
        match framer.next(&text[..end], &Limits::PEER) {
            Ok(Next::Incomplete) if end < text.len() => {}
            Ok(Next::Message { head, length }) => {
                assert_eq!(whole, &Ok(Some((head, length))), "{}", shown(text));
                return;
            }
            Ok(_) => {
                assert_eq!(whole, &Ok(None), "{}", shown(text));
                return;
            }
            Err(it) => {
                assert_eq!(whole, &Err(it), "{}", shown(text));
                return;
            }
        }
    }
}

#[derive(Default)]
struct Scratch {
    index: Index,
    again: Index,
    out: Vec<u8>,
}

impl Scratch {
    /// Asks everything of one frame; true: it passes.
    fn judge(&mut self, frame: &[u8], whole: bool) -> bool {
        let Ok(message) = self.index.read(frame) else { return false };
        let judged = message.check();
        let within = |part: &[u8]| {
            let (frame, part) = (frame.as_ptr_range(), part.as_ptr_range());
            part.is_empty() || (frame.start <= part.start && part.end <= frame.end)
        };
        for (name, value) in message.all() {
            assert!(within(name) && within(value), "{}", shown(frame));
        }
        assert!(within(message.body()) && within(message.uri()) && within(message.reason()));
        ask(&message);
        self.out.clear();
        match &judged {
            Ok(()) if whole && message.is_request() => {
                echoes(&message, &mut self.again, &mut self.out);
            }
            Err(fault) => answers(&message, fault, &mut self.again, &mut self.out),
            Ok(()) => {}
        }
        judged.is_ok() && whole
    }
}

/// Every view once: none may panic.
fn ask(message: &Message<'_>) {
    let contacts = message.list(Name::Contact).filter_map(|it| NameAddr::parse(it).ok());
    let addresses = [message.from().ok(), message.to().ok()].into_iter().flatten().chain(contacts);
    for it in addresses {
        std::hint::black_box((it.tag(), it.uri().ok(), it.name()));
    }
    if let Ok(it) = message.via() {
        std::hint::black_box((it.key(), it.received(), it.rport()));
    }
    std::hint::black_box((message.expires().ok(), message.min_expires().ok()));
    std::hint::black_box((message.retry_after(), message.event(), message.content_type()));
    std::hint::black_box((message.subscription_state(), message.method()));
    std::hint::black_box(message.has_token(Name::Supported, "timer"));
    std::hint::black_box(message.list(Name::RecordRoute).count());
}

/// An answer to what passed reads like it.
fn echoes(request: &Message<'_>, again: &mut Index, out: &mut Vec<u8>) {
    write::response(request, 200, "OK", Some("g1"), out).end();
    assert_eq!(first(out).ok().flatten().map(|it| it.1), Some(out.len()), "{}", shown(out));
    let answer = again.read(out).expect("a status line");
    assert_eq!(answer.check(), Ok(()), "{} to {}", shown(out), shown(request.frame()));
    for name in [Name::Via, Name::From, Name::CallId, Name::CSeq] {
        let (theirs, ours) = (request.headers(name), answer.headers(name));
        assert!(
            theirs.map(words).eq(ours.map(words)),
            "{} to {}",
            shown(out),
            shown(request.frame())
        );
    }
    let tag = |message: &Message<'_>| message.to().ok().and_then(|it| it.tag().map(words));
    assert_eq!(tag(&answer), tag(request).or_else(|| Some(b"g1".to_vec())), "{}", shown(out));
    let hops = request.list(Name::Via).count();

    out.clear();
    write::insert_via(request.frame(), b"SIP/2.0/TLS imp1;branch=z9hG4bKus", out);
    let handed = again.read(out).expect("a start line");
    assert_eq!(handed.via().ok().and_then(|it| it.key()), Some(&b"z9hG4bKus"[..]));
    assert_eq!(handed.list(Name::Via).count(), hops + 1);
    assert_eq!(handed.body(), request.body());
}

/// The answer to what did not pass is a message at least.
fn answers(message: &Message<'_>, fault: &Fault, again: &mut Index, out: &mut Vec<u8>) {
    write::refusal(message, fault, Some("g1"), out);
    assert_eq!(first(out).ok().flatten().map(|it| it.1), Some(out.len()), "{}", shown(out));
    let answer = again.read(out).expect("a status line");
    assert_eq!((answer.status(), answer.body()), (fault.status, &b""[..]), "{}", shown(out));
}

/// Without blanks, and without what can't be handed on.
fn words(value: &[u8]) -> Vec<u8> {
    value.iter().copied().filter(|it| !matches!(it, b' ' | b'\t' | b'\r' | b'\n' | 0)).collect()
}

fn values(seed: u64, inputs: usize) -> (usize, usize) {
    let samples = sip_corpus::torture().into_iter().map(|it| it.0).chain(sip_corpus::microsoft());
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for sample in samples {
        let mut index = Index::default();
        let message = index.read(&sample.text).expect(&sample.name);
        let values = message.all().map(|it| it.1).chain([message.uri()]);
        texts.extend(values.filter(|it| !it.is_empty() && it.len() < 400).map(<[u8]>::to_vec));
    }
    let mut mutator = Mutator::new(seed, texts.into_iter());
    let (mut text, mut addresses, mut uris) = (Vec::new(), 0, 0);
    for _ in 0..inputs {
        mutator.next(&mut text);
        if let Ok(it) = NameAddr::parse(&text) {
            addresses += 1;
            // Written down and read again it is the same.
            let again = NameAddr::parse(it.value());
            assert_eq!(again.as_ref(), Ok(&it), "{}", shown(&text));
            std::hint::black_box((it.name(), it.params.iter().count()));
        }
        if let Ok(it) = Uri::parse(&text) {
            uris += 1;
            assert!(!it.is_sip() || !it.host.is_empty(), "{}", shown(&text));
            std::hint::black_box((it.ip(), it.params().count(), it.user.and_then(uri::unescape)));
        }
        if let Ok(it) = Via::parse(&text) {
            assert!(!it.host.is_empty(), "{}", shown(&text));
            std::hint::black_box((it.received(), it.rport(), it.key()));
        }
        std::hint::black_box((MediaType::parse(&text), Event::parse(&text)));
        std::hint::black_box((SubscriptionState::parse(&text), tandem::sip::unfold(&text)));
    }
    (addresses, uris)
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
