//! V10's second half: the index of a SIP message of 3,000 octets, in nanoseconds and allocations.
//!
//! The messages have the shape of an invitation as a Lync pool relays it, and stand behind one another as
//! they would in a buffer; each has other hosts, tags, signatures and lengths of lines. Framing and the
//! checks that every message gets are timed apart.

use std::hint::black_box;
use std::time::Instant;

use tandem::sip::frame::{Framer, Limits, Next};
use tandem::sip::{Index, Name};

use crate::counting;

const MESSAGES: usize = 64;
const BYTES: usize = 3_000;

/// What a round came to.
pub(crate) struct Round {
    /// Nanoseconds per message for its index alone.
    pub index_ns: f64,
    /// Nanoseconds per message for framing, index, and the checks of a request.
    pub whole_ns: f64,
    /// Allocations of the whole round.
    pub allocations: u64,
}

/// Passes over the messages, each through `each`, for the index alone or with framing and the checks;
/// gives how many messages were read there.
pub(crate) fn repeat(
    passes: u64,
    checks: bool,
    each: impl Fn(&mut dyn FnMut()),
) -> Result<u64, String> {
    let messages: Vec<Vec<u8>> = (0..MESSAGES).map(message).collect();
    let text = messages.concat();
    let mut index = Index::default();
    indexed(&messages, &mut index)?;
    for _ in 0..passes {
        let mut done = Ok(());
        each(&mut || {
            done = if checks { checked(&text, &mut index) } else { indexed(&messages, &mut index) };
        });
        done?;
    }
    Ok(passes * MESSAGES as u64)
}

/// Times rounds of `passes` over the messages.
pub(crate) fn rounds(rounds: usize, passes: usize) -> Result<Vec<Round>, String> {
    let messages: Vec<Vec<u8>> = (0..MESSAGES).map(message).collect();
    let text = messages.concat();
    let mut index = Index::default();
    // The first pass makes room for the places of headers.
    indexed(&messages, &mut index)?;
    checked(&text, &mut index)?;
    let each = (passes * MESSAGES) as f64;
    (0..rounds)
        .map(|_| {
            let before = counting::allocations();
            let begin = Instant::now();
            for _ in 0..passes {
                indexed(&messages, &mut index)?;
            }
            let index_ns = begin.elapsed().as_nanos() as f64 / each;
            let begin = Instant::now();
            for _ in 0..passes {
                checked(&text, &mut index)?;
            }
            let whole_ns = begin.elapsed().as_nanos() as f64 / each;
            Ok(Round { index_ns, whole_ns, allocations: counting::allocations() - before })
        })
        .collect()
}

fn indexed(messages: &[Vec<u8>], index: &mut Index) -> Result<(), String> {
    for text in messages {
        let message = index.read(black_box(text)).map_err(|e| e.to_string())?;
        black_box(message.header(Name::CSeq));
    }
    Ok(())
}

fn checked(text: &[u8], index: &mut Index) -> Result<(), String> {
    let mut rest = text;
    while !rest.is_empty() {
        let Ok(Next::Message { length, .. }) =
            Framer::default().next(black_box(rest), &Limits::PEER)
        else {
            return Err("a sound message was not framed".to_owned());
        };
        let (frame, behind) = rest.split_at(length);
        index.read(frame).and_then(|it| it.check()).map_err(|e| e.to_string())?;
        rest = behind;
    }
    Ok(())
}

fn message(n: usize) -> Vec<u8> {
    let sign = |length: usize, salt: usize| -> String {
        let letter = |i| char::from(b'A' + ((i * 7 + n * 13 + salt) % 26) as u8);
        (0..length).map(letter).collect()
    };
    let body = "v=0\r\no=- 0 0 IN IP4 198.51.100.77\r\ns=session\r\nc=IN IP4 198.51.100.77\r\nt=0 0\r\n\
        m=message 5060 sip null\r\na=accept-types:text/plain text/rtf multipart/alternative ";
    let length = body.len();
    let (port, tag) = (50_000 + n * 7, n * 7_919);
    let supported: String =
        ["timer", "histinfo", "ms-safe-transfer", "ms-sender", "replaces", "100rel"]
            .map(|it| format!("Supported: {it}\r\n"))
            .concat();
    let (route, key) = (sign(40 + n % 9, 1), sign(380 + n % 30, 2));
    let head = format!(
        "INVITE sip:bob{n}@fabrikam.example:5061;transport=tls SIP/2.0\r\n\
         Record-Route: <sip:pool-n1.contoso.example:5061;transport=tls;ms-fe=fe-{n}.contoso.example;\
         opaque=state:F:Ci.R81c{n:x};lr;ms-route-sig={route}>;ms-rrsig={route};tag={tag:x}\r\n\
         Via: SIP/2.0/TLS 192.0.2.18:5061;branch=z9hG4bK{tag:X}.78A9;branched=FALSE;\
         ms-internal-info=\"15{n};k=1,2\"\r\nMax-Forwards: 68\r\n\
         Via: SIP/2.0/TLS 192.0.2.40:{port};ms-received-port={port};ms-received-cid=81C{n:X}\r\n\
         Content-Length: {length}\r\n\
         Record-Route: <sip:access-1.contoso.example:5061;transport=tls;lr;ms-key-info={key}>;tag={tag:x}\r\n\
         Via: SIP/2.0/TLS 198.51.100.77:{port};ms-received-port={port};ms-received-cid=2D9{n:X}\r\n\
         From: \"Zo\u{EB} {n}\"<sip:zoe{n}@contoso.example>;tag=be5{tag:x};epid=787f6c813e\r\n\
         To: <sip:bob{n}@fabrikam.example>;epid=54fa23d827\r\nCall-ID: 6e2aad4ebbd0c6d548d3{tag:08x}\r\n\
         CSeq: 1 INVITE\r\nContact: <sip:zoe{n}@contoso.example;opaque=user:epid:{route};gruu>\r\n\
         User-Agent: UCCAPI/16.0.7412.1040 OC/16.0.7412.1040 (Skype for Business)\r\n{supported}\
         Ms-Conversation-ID: {tag:032x}\r\nms-keep-alive: UAC;hop-hop=yes\r\nms-subnet: 198.51.100.0\r\n\
         Allow: INVITE, BYE, ACK, CANCEL, INFO, MESSAGE, UPDATE, REFER\r\nSubject: {n}\r\n\
         EndPoints: <sip:zoe{n}@contoso.example>, <sip:bob{n}@fabrikam.example>\r\n\
         Content-Type: application/sdp;call-type=im\r\nms-im-format: text/html; ms-body="
    );
    let rest = BYTES.saturating_sub(head.len() + body.len() + 4);
    format!("{head}{}\r\n\r\n{body}", sign(rest, 3)).into_bytes()
}
