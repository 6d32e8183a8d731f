//! Ten million spoilt stanzas and as many spoilt SIP messages: none may panic, and what passes must hold
//! what a scan promises.
//!
//! A debug build tries fewer, so that the usual test run stays quick; `--release` tries them all.

#![expect(clippy::print_stdout, reason = "the count is the result")]

mod corpus;
#[path = "mutation/gateway.rs"]
mod gateway;
#[path = "mutation/sip.rs"]
mod sip;
mod sip_corpus;

use corpus::Mutator;
use tandem::xmpp::{
    frame::{Limits, Next},
    splice::{self, Edits},
    stanza::Stanza,
};

const INPUTS: usize = if cfg!(debug_assertions) { 300_000 } else { 10_000_000 };

#[test]
fn the_corpus_passes_or_is_refused_by_name() {
    for text in corpus::stanzas() {
        let stanza = corpus::judge(text);
        let shown = String::from_utf8_lossy(text);
        assert!(matches!(&stanza, Ok(Some(it)) if it.len as usize == text.len()), "{shown}");
    }
    for (name, text) in corpus::refused() {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(corpus::judge(text).map_err(|it| it.name()), Err(name), "{shown}");
    }
}

#[test]
fn spoilt_stanzas_pass_whole_or_not_at_all() {
    let threads = 2_u64;
    let passed: usize = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads)
            .map(|n| scope.spawn(move || run(0x7A2D_0001 + (n << 32), INPUTS / threads as usize)))
            .collect();
        runs.into_iter().map(|it| it.join().expect("no panic")).sum()
    });
    println!("{INPUTS} spoilt stanzas, {passed} passed");
    assert!(passed > INPUTS / 20, "the mutator must leave some whole");
    assert!(passed < INPUTS / 2, "and must spoil most");
}

fn run(seed: u64, inputs: usize) -> usize {
    let mut mutator = Mutator::new(seed);
    let (mut text, mut out, mut passed) = (Vec::new(), Vec::new(), 0);
    for i in 0..inputs {
        mutator.next(&mut text);
        let judged = corpus::judge(&text);
        if let Ok(Some(stanza)) = &judged {
            passed += 1;
            holds(&text, stanza);
            forwards(&text, stanza, i % 2 == 0, &mut out);
        }
        if i % 8 == 0 {
            pieces(&text, &judged, 1 + mutator.below(9));
        }
    }
    passed
}

/// Ranges lie in the stanza and on boundaries, and nothing forbidden is in it.
fn holds(text: &[u8], stanza: &Stanza) {
    let frame = std::str::from_utf8(&text[..stanza.len as usize]).expect("UTF-8");
    assert!(frame.starts_with('<') && frame.ends_with('>'), "{frame}");
    assert!(!frame.bytes().any(|b| b < b' ' && !matches!(b, b'\t' | b'\r' | b'\n')), "{frame}");
    let attrs = [stanza.to, stanza.from, stanza.id, stanza.type_, stanza.lang, stanza.xmlns];
    for attr in attrs.into_iter().flatten() {
        let whole = attr.whole();
        let whole = &frame[whole.start as usize..whole.end as usize];
        assert!(whole.starts_with([' ', '\t', '\r', '\n']), "{frame}: {whole}");
        assert!(whole.ends_with(['\'', '"']), "{frame}: {whole}");
        assert!(!attr.raw(text).contains('<'), "{frame}: {whole}");
    }
    let mut before = stanza.inner_start;
    for child in stanza.children() {
        assert!(before <= child.start && child.end <= stanza.inner_end, "{frame}");
        let octets = child.octets(text);
        assert!(octets.starts_with(b"<") && octets.ends_with(b">"), "{frame}");
        assert!(stanza.has(child.kind), "{frame}");
        before = child.end;
    }
}

/// What is handed on reads like the original.
fn forwards(text: &[u8], stanza: &Stanza, twice: bool, out: &mut Vec<u8>) {
    out.clear();
    let from = "x'<&\"@example.com";
    let edits = Edits { from: Some(from), to: twice.then_some("y@z"), ..Edits::default() };
    splice::forward(text, stanza, &edits, out).expect("nothing is exchanged");
    let again = corpus::judge(out).expect("passes again").expect("is whole");
    let shown = String::from_utf8_lossy(text);
    assert_eq!(again.len as usize, out.len(), "{shown}");
    assert_eq!(again.from.map(|it| it.value(out)).as_deref(), Some(from), "{shown}");
    assert_eq!((again.kind, again.kinds), (stanza.kind, stanza.kinds), "{shown}");
    assert_eq!(again.inner(out), stanza.inner(text), "{shown}");
    let id = |stanza: &Stanza, frame: &[u8]| stanza.id.map(|it| it.raw(frame).to_owned());
    assert_eq!(id(&again, out), id(stanza, text), "{shown}");
}

/// The same comes of it in pieces; a fault may show later.
fn pieces(text: &[u8], judged: &Result<Option<Stanza>, impl Sized>, piece: usize) {
    let mut framer = corpus::open();
    let mut end = 0;
    let shown = || String::from_utf8_lossy(text);
    loop {
        end = text.len().min(end + piece);
        match framer.next(&text[..end], &Limits::CLIENT) {
            Ok(Next::Incomplete) if end < text.len() => {}
            Ok(Next::Element(stanza, _)) => {
                assert_eq!(
                    judged.as_ref().ok().and_then(Option::as_ref),
                    Some(&stanza),
                    "{}",
                    shown()
                );
                return;
            }
            Ok(_) => {
                assert!(!matches!(judged, Ok(Some(_))), "{}", shown());
                return;
            }
            Err(_) => {
                assert!(judged.is_err(), "{}", shown());
                return;
            }
        }
    }
}
