//! V10: the strict scan and the address of a 300-byte stanza, in nanoseconds and allocations.
//!
//! The stanzas stand behind one another as they would in a buffer of the kernel; each has another
//! address, id and text, so that no branch is learnt by heart.

use std::hint::black_box;
use std::time::Instant;

use tandem::address::AddressRef;
use tandem::xmpp::frame::{Framer, Limits, Next};

use crate::counting;

const STANZAS: usize = 256;
const BYTES: usize = 300;

/// What a round came to.
pub(crate) struct Round {
    /// Nanoseconds per stanza.
    pub ns: f64,
    /// Allocations of the whole round.
    pub allocations: u64,
}

/// A stream that stands, and stanzas behind one another.
fn begun() -> Result<(Framer, Vec<u8>), String> {
    let header = b"<stream:stream to='load.example' version='1.0' xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams'>";
    let mut framer = Framer::default();
    match framer.next(header, &Limits::STRANGER) {
        Ok(Next::Open(..)) => {}
        other => return Err(format!("the header was read as {other:?}")),
    }
    Ok((framer, (0..STANZAS).flat_map(stanza).collect()))
}

/// Passes over the stanzas, each through `each`; gives how many stanzas were read there.
pub(crate) fn repeat(passes: u64, each: impl Fn(&mut dyn FnMut())) -> Result<u64, String> {
    let (mut framer, text) = begun()?;
    pass(&mut framer, &text)?;
    for _ in 0..passes {
        let mut done = Ok(());
        each(&mut || done = pass(&mut framer, &text));
        done?;
    }
    Ok(passes * STANZAS as u64)
}

/// Times rounds of `passes` over the stanzas.
pub(crate) fn rounds(rounds: usize, passes: usize) -> Result<Vec<Round>, String> {
    let (mut framer, text) = begun()?;
    // The first pass fills caches and whatever is lazy.
    pass(&mut framer, &text)?;
    (0..rounds)
        .map(|_| {
            let before = counting::allocations();
            let begin = Instant::now();
            for _ in 0..passes {
                pass(&mut framer, &text)?;
            }
            let ns = begin.elapsed().as_nanos() as f64 / (passes * STANZAS) as f64;
            Ok(Round { ns, allocations: counting::allocations() - before })
        })
        .collect()
}

fn stanza(index: usize) -> Vec<u8> {
    let head = format!(
        "<message to='user{}@load.example/{:x}' type='chat' id='{:08x}'><body>",
        index * 7919 % 100_000,
        index * 31,
        index * 0x9e37
    );
    let tail = "</body><active xmlns='http://jabber.org/protocol/chatstates'/></message>";
    let mut body = String::new();
    while head.len() + body.len() + tail.len() < BYTES {
        body.push(char::from(b'a' + ((index + body.len() * 7) % 26) as u8));
    }
    format!("{head}{body}{tail}").into_bytes()
}

fn pass(framer: &mut Framer, text: &[u8]) -> Result<(), String> {
    let mut rest = text;
    let mut scratch = String::new();
    while !rest.is_empty() {
        let Ok(Next::Element(stanza, length)) = framer.next(black_box(rest), &Limits::CLIENT)
        else {
            return Err("a sound stanza was not read".to_owned());
        };
        let to = stanza.to.as_ref().map(|to| to.raw(rest)).unwrap_or_default();
        let address = AddressRef::parse(to, &mut scratch).map_err(|e| e.reason().to_owned())?;
        black_box(address.slot());
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(())
}
