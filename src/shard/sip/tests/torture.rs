//! The messages of RFC 4475 and RFC 5118 against a node, in datagrams and on a stream: what becomes of
//! each stands in `tests/data/sip/MANIFEST.tsv`.
//!
//! Their domains are served here and their users known. A foreign Route is taken out, since we relay
//! for nobody, and a caller from a domain that is served gets another, since nobody outside speaks
//! for it. That something is *accepted* means that it reached its user's home, was answered 200
//! there, or was a response to no request of ours; where its Request-URI has an address, which is no
//! domain of anybody's, that it was answered 404.

use super::files::FILES;
use std::time::Duration;

use super::world::{TCP, World, sip};
use crate::policy::{Identity, Transport};
use crate::shard::peer_tests::world::bare;
use crate::sip::Index;

const PARTNER: &str = "192.0.2.9:5060";

struct Row {
    file: String,
    udp: String,
    stream: String,
}

fn rows() -> Vec<Row> {
    include_str!("../../../../tests/data/sip/MANIFEST.tsv")
        .lines()
        .skip(1)
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let cell = |i: usize| cells[i].to_owned();
            let stream = if cells[9] == "=" { cell(8) } else { cell(9) };
            Row { file: cell(2), udp: cell(8), stream }
        })
        .collect()
}

/// The message as it comes, and the domain of its Request-URI.
fn prepared(file: &str) -> (Vec<u8>, String) {
    let (_, octets) = FILES.iter().find(|it| it.0 == file).unwrap();
    let octets = without_routes(octets);
    let mut index = Index::default();
    let Ok(message) = index.read(&octets) else { return (octets.clone(), String::new()) };
    let host = crate::sip::Uri::parse(message.uri()).map(|it| it.host).unwrap_or_default();
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    let from = message.from().ok().and_then(|it| it.uri().ok()).map(|it| it.host);
    match from.filter(|it| it.eq_ignore_ascii_case(host.as_bytes())) {
        Some(from) => {
            let at = from.as_ptr() as usize - octets.as_ptr() as usize;
            let mut changed = octets.clone();
            // Another domain of the same length, so that nothing else moves.
            changed[at] = if changed[at] == b'z' { b'y' } else { b'z' };
            (changed, host)
        }
        None => (octets.clone(), host),
    }
}

fn without_routes(octets: &[u8]) -> Vec<u8> {
    let head = octets.windows(4).position(|it| it == b"\r\n\r\n").map_or(octets.len(), |it| it + 2);
    let (mut out, mut cutting) = (Vec::new(), false);
    for line in octets[..head].split_inclusive(|it| *it == b'\n') {
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        let name = line.split(|it| *it == b':').next().unwrap_or_default();
        cutting = if folded { cutting } else { name.trim_ascii().eq_ignore_ascii_case(b"route") };
        if !cutting {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(&octets[head..]);
    out
}

fn node(transport: Transport, host: &str) -> World {
    let mut world = World::new();
    let rule = sip(transport, Identity::Fixed, &[PARTNER.parse().unwrap()]);
    let host = if crate::address::prepare_domain(host).is_ok() { host } else { "b.example" };
    world.add(host, 2, vec![("*", rule)], Vec::new(), bare());
    world
}

/// Whether what happened is what was to happen.
fn fits(world: &World, host: &str, wanted: &str, heard: &str) -> bool {
    let home = world.sum(0, |it| it.counters.sip.requests_home);
    let stray = world.sum(0, |it| it.counters.sip.responses_stray);
    wanted.split('|').any(|it| match it {
        "accept" if host.starts_with('[') => heard.starts_with("SIP/2.0 404 "),
        "accept" => home > 0 || stray > 0 || heard.starts_with("SIP/2.0 200 "),
        "drop" => heard.is_empty() && home == 0,
        // The home's to say, by the body.
        "415" | "406" => home > 0,
        status => heard.starts_with(&format!("SIP/2.0 {status} ")),
    })
}

#[test]
fn every_file_in_a_datagram() {
    let mut wrong = Vec::new();
    let rows = rows();
    for row in &rows {
        let (octets, host) = prepared(&row.file);
        let mut world = node(Transport::Udp, &host);
        let heard = world.octets((0, 0), PARTNER, octets);
        assert!(heard.len() <= 2, "{}: {heard:?}", row.file);
        let heard = heard.into_iter().map(|it| it.1).next().unwrap_or_default();
        if !fits(&world, &host, &row.udp, &heard) {
            wrong.push(format!("{}: {} but {heard:.200}", row.file, row.udp));
        }
    }
    assert_eq!((rows.len(), wrong), (61, Vec::<String>::new()));
}

#[test]
fn every_file_on_a_stream() {
    let mut wrong = Vec::new();
    for row in rows() {
        let (mut octets, host) = prepared(&row.file);
        if row.stream == "recount" {
            octets = recounted(&octets);
        }
        let mut world = node(Transport::Tcp, &host);
        let partner = world.partner((0, 0), TCP, "192.0.2.9:31000");
        let heard = world.say(partner, octets);
        let closed = world.scripts[partner].closed;
        let good = match row.stream.as_str() {
            "recount" => fits(&world, &host, &row.udp, &heard) && !closed,
            "400+close" => heard.starts_with("SIP/2.0 400 ") && closed,
            // Its second body is five octets longer than it says: what follows is no message.
            "405, then accept" => {
                heard.starts_with("SIP/2.0 405 ") && fits(&world, &host, "accept", &heard)
            }
            "wait+close" => {
                let waits = heard.is_empty() && !closed;
                world.pass(Duration::from_secs(31));
                waits && world.scripts[partner].closed
            }
            wanted => fits(&world, &host, wanted, &heard) && !closed,
        };
        if !good {
            wrong.push(format!("{}: {} but {closed} {heard:.200}", row.file, row.stream));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// With the Content-Length that its body has.
fn recounted(octets: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(octets.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let lines: Vec<String> = head
        .split("\r\n")
        .map(|it| match it.split_once(':') {
            Some((name, _)) if name.eq_ignore_ascii_case("content-length") => {
                format!("{name}: {}", body.len())
            }
            _ => it.to_owned(),
        })
        .collect();
    format!("{}\r\n\r\n{body}", lines.join("\r\n")).into_bytes()
}

/// What the user's home says of those that reach it: an INVITE for a voice is refused by its SDP.
#[test]
fn what_reaches_its_home_is_answered_there() {
    let mut wrong = Vec::new();
    for (file, status) in [
        // It has a To-tag, and nobody knows the dialog (RFC 3261, 12.2.2).
        ("wsinv", 481),
        ("esc01", 488),
        ("longreq", 488),
        ("inv2543", 488),
        ("baddate", 488),
        ("invut", 415),
        ("sdp01", 406),
        ("bext01", 420),
        ("mpart01", 200),
    ] {
        let (octets, host) = prepared(&format!("rfc4475/{file}.dat"));
        let mut world = node(Transport::Udp, &host);
        let mut heard = world.octets((0, 0), PARTNER, octets);
        world.pass(Duration::from_millis(300));
        heard.append(&mut world.datagrams.drain(..).collect());
        let said = heard.last().map(|it| it.1.as_str()).unwrap_or_default();
        if !said.starts_with(&format!("SIP/2.0 {status} ")) {
            wrong.push(format!("{file}: {status} but {said:.200}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
