//! What we pass on must read the same for expat and for libxml2 as it does for us.
//!
//! Spoilt stanzas go to both parsers, through `differential.py`, inside the header of the receiver's
//! stream. What we accept both must accept, and all three must see the same names, attributes and
//! text, also after it was handed on. What only we refuse must be one of the rules in `stricter`.
//!
//! Needs /usr/bin/python3 with python3-lxml; without them the test says that it skipped, except where
//! `CI=true`.

#![expect(clippy::print_stdout, reason = "says what was compared, or that it was not")]

mod corpus;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    process::{Command, Stdio},
};

use corpus::Mutator;
use tandem::xmpp::{
    fault::StreamFault,
    read::{self, Event, Reader},
    splice::{self, Edits},
    stanza::Stanza,
};

const INPUTS: usize = if cfg!(debug_assertions) { 24_000 } else { 240_000 };
/// Documents that one run of the helper gets.
const BATCH: usize = 4_000;

const CLIENT: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'>";
const SERVER: &str = "<stream:stream xmlns='jabber:server' \
    xmlns:stream='http://etherx.jabber.org/streams'>";
const END: &str = "</stream:stream>";

/// What a parser made of a document; none: it refused.
type Report = Option<String>;

#[test]
fn expat_and_libxml2_read_what_we_read() {
    if !helper_is_there() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "python3-lxml is missing");
        println!("skipped: differential needs /usr/bin/python3 with python3-lxml");
        return;
    }
    let mut mutator = Mutator::new(0x0D1F_F00D);
    let mut tally = BTreeMap::new();
    let mut whole: Vec<Vec<u8>> = corpus::stanzas().iter().map(|it| it.to_vec()).collect();
    whole.extend(corpus::refused().iter().map(|it| it.1.to_vec()));
    let mut done = 0;
    while done < INPUTS {
        let mut inputs = std::mem::take(&mut whole);
        while inputs.len() < BATCH {
            let mut text = Vec::new();
            mutator.next(&mut text);
            inputs.push(text);
        }
        done += inputs.len();
        compare(&inputs, &mut tally);
    }
    println!("{done} inputs: {tally:#?}");
    assert!(tally.get("accepted by all").is_some_and(|it| *it > INPUTS / 20));
}

/// One batch: every input as it came, and what we accept once more as we hand it on.
fn compare(inputs: &[Vec<u8>], tally: &mut BTreeMap<String, usize>) {
    let mut documents = Vec::new();
    let mut cases = Vec::new();
    for text in inputs {
        // What lies between stanzas is the framer's own, and its tests'.
        if text.first() != Some(&b'<') || text.starts_with(b"</") {
            continue;
        }
        let judged = corpus::judge(text);
        let text = match &judged {
            Ok(Some(stanza)) => &text[..stanza.len as usize],
            _ => text.as_slice(),
        };
        documents.push([CLIENT.as_bytes(), text, END.as_bytes()].concat());
        let (mut wanted, mut headers) = (None, Vec::new());
        if let Ok(Some(stanza)) = &judged {
            wanted = Some(dump(CLIENT, text));
            headers = hand_on(text, stanza, &mut documents);
        }
        cases.push((text, judged, wanted, headers));
    }
    let mut reports = ask(&documents).into_iter().zip(&documents);
    for (text, judged, wanted, headers) in cases {
        let ((expat, libxml2), _) = reports.next().expect("a report each");
        let shown = String::from_utf8_lossy(text);
        match judged {
            Ok(Some(_)) => {
                assert_eq!(expat, wanted, "expat: {shown}");
                assert_eq!(libxml2, wanted, "libxml2: {shown}");
                count(tally, "accepted by all");
                for header in headers {
                    let ((expat, libxml2), document) = reports.next().expect("a report each");
                    let inner = &document[header.len()..document.len() - END.len()];
                    same_as_original(text, header, inner, wanted.as_deref().unwrap_or_default());
                    let wanted = Some(dump(header, inner));
                    assert_eq!(expat, wanted, "expat, handed on: {shown}");
                    assert_eq!(libxml2, wanted, "libxml2, handed on: {shown}");
                    count(tally, "handed on, the same for all");
                }
            }
            Ok(None) => {
                assert!(expat.is_none() || libxml2.is_none(), "unfinished only for us: {shown}");
                count(tally, "unfinished");
            }
            Err(fault) => match (&expat, &libxml2) {
                (Some(_), Some(_)) => {
                    let rule = stricter(text, fault).unwrap_or_else(|| panic!("{fault}: {shown}"));
                    count(tally, &format!("stricter: {rule}"));
                }
                (None, None) => count(tally, "refused by all"),
                _ => count(tally, "refused by us and one of them"),
            },
        }
    }
}

fn count(tally: &mut BTreeMap<String, usize>, what: &str) {
    *tally.entry(what.to_owned()).or_default() += 1;
}

/// Where we refuse what both parsers take, this is the rule.
fn stricter(text: &[u8], fault: StreamFault) -> Option<&'static str> {
    let holds = |what: &[u8]| text.windows(what.len()).any(|it| it == what);
    match fault {
        StreamFault::RestrictedXml if holds(b"<!--") => Some("comments"),
        StreamFault::RestrictedXml if holds(b"<?") => Some("processing instructions"),
        StreamFault::NotWellFormed if text.starts_with(b"<!") || text.starts_with(b"<?") => {
            Some("nothing but blanks between stanzas")
        }
        StreamFault::InvalidXml if holds(b"xml:id") => Some("no xml:id"),
        StreamFault::InvalidNamespace if holds(b"xmlns") => Some("a namespace name is a plain URI"),
        StreamFault::BadNamespacePrefix if holds(b"stream:") || holds(b"db:") => {
            Some("prefixes of the header end there")
        }
        StreamFault::BadNamespacePrefix if holds(b"jabber:client") => {
            Some("stanzas bear no prefix")
        }
        StreamFault::NotWellFormed if text.iter().any(|b| *b >= 0x80) => {
            Some("names keep to letters that all editions know")
        }
        StreamFault::NotWellFormed if holds(b"&#0") || holds(b"&#x0") => {
            Some("references of more than twelve octets")
        }
        _ => None,
    }
}

/// Adds what goes to another client, and what goes to another server, as documents; returns which.
fn hand_on(text: &[u8], stanza: &Stanza, documents: &mut Vec<Vec<u8>>) -> Vec<&'static str> {
    let mut headers = Vec::new();
    for (exchange, header) in [(false, CLIENT), (true, SERVER)] {
        if !stanza.kind.is_stanza() {
            continue;
        }
        let edits = Edits { from: Some("me@here/<'>"), exchange, ..Edits::default() };
        let mut out = header.as_bytes().to_vec();
        if splice::forward(text, stanza, &edits, &mut out).is_ok() {
            out.extend_from_slice(END.as_bytes());
            documents.push(out);
            headers.push(header);
        } else {
            assert!(exchange, "only an exchange may fail");
            assert_eq!(out, header.as_bytes());
        }
    }
    headers
}

/// Handing on changes the sender and the content namespace, and nothing else.
fn same_as_original(text: &[u8], header: &str, inner: &[u8], wanted: &str) {
    let plain = |dump: &str| {
        let lines =
            dump.lines().skip(1).map(|line| line.replace("{jabber:server}", "{jabber:client}"));
        let mut lines: Vec<String> = lines.collect();
        if let Some(root) = lines.first_mut() {
            let kept = root.split('\t').filter(|it| !it.starts_with("from="));
            *root = kept.collect::<Vec<_>>().join("\t");
        }
        lines
    };
    let again = dump(header, inner);
    assert_eq!(plain(&again), plain(wanted), "{}", String::from_utf8_lossy(text));
    assert!(again.lines().nth(1).is_some_and(|it| it.contains("\tfrom=me@here/<'>")), "{again}");
}

/// Our own reading, by `read`, with a resolution of namespaces that owes nothing to the scan's.
fn dump(header: &str, element: &[u8]) -> String {
    let document = [header.as_bytes(), element, END.as_bytes()].concat();
    let (mut out, mut text) = (Vec::new(), String::new());
    let mut scopes: Vec<Vec<(String, String)>> =
        vec![vec![("xml".to_owned(), "http://www.w3.org/XML/1998/namespace".to_owned())]];
    let flush = |text: &mut String, out: &mut Vec<String>| {
        if !text.is_empty() {
            out.push(format!("T{}", quoted(&std::mem::take(text))));
        }
    };
    for event in Reader::new(&document) {
        match event {
            Event::Start(name, attrs, empty) => {
                flush(&mut text, &mut out);
                out.push(start(name, attrs, &mut scopes));
                if empty {
                    out.push("E".to_owned());
                    scopes.pop();
                }
            }
            Event::End(_) => {
                flush(&mut text, &mut out);
                out.push("E".to_owned());
                scopes.pop();
            }
            Event::Text(raw) => {
                text += &read::text_of(&[b"<a>", raw, b"</a>"].concat());
            }
            Event::Cdata(raw) => {
                text += &read::text_of(&[b"<a><![CDATA[", raw, b"]]></a>"].concat());
            }
        }
    }
    out.join("\n")
}

fn start(name: &[u8], attrs: &[u8], scopes: &mut Vec<Vec<(String, String)>>) -> String {
    let string = |octets: &[u8]| String::from_utf8(octets.to_vec()).expect("UTF-8");
    let (mut own, mut plain) = (Vec::new(), Vec::new());
    for (name, value, _) in read::attributes(attrs) {
        let (name, value) = (string(name), read::unescape(value).into_owned());
        match name.split_once(':') {
            None if name == "xmlns" => own.push((String::new(), value)),
            Some(("xmlns", prefix)) => own.push((prefix.to_owned(), value)),
            _ => plain.push((name, value)),
        }
    }
    scopes.push(own);
    let clark = |name: &str, element: bool| {
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        if prefix.is_empty() && !element {
            return local.to_owned();
        }
        let uri = scopes.iter().rev().flatten().find(|it| it.0 == prefix).map_or("", |it| &it.1);
        if uri.is_empty() { local.to_owned() } else { format!("{{{uri}}}{local}") }
    };
    let mut line = format!("S{}", clark(&string(name), true));
    let mut plain: Vec<_> = plain.iter().map(|it| (clark(&it.0, false), &it.1)).collect();
    plain.sort();
    for (name, value) in plain {
        line += &format!("\t{name}={}", quoted(value));
    }
    line
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r")
}

fn helper_is_there() -> bool {
    Command::new("/usr/bin/python3")
        .args(["-c", "import lxml.etree, pyexpat"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
}

/// What expat and libxml2 make of each document.
fn ask(documents: &[Vec<u8>]) -> Vec<(Report, Report)> {
    let mut child = Command::new("/usr/bin/python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for document in documents {
                let len = u32::try_from(document.len()).expect("is short");
                stdin.write_all(&len.to_be_bytes()).expect("it reads");
                stdin.write_all(document).expect("it reads");
            }
        });
        child.stdout.take().expect("a pipe").read_to_end(&mut answers).expect("it answers");
    });
    assert!(child.wait().expect("it ends").success(), "the helper failed");
    let mut rest = answers.as_slice();
    let mut report = || {
        let (len, behind) = rest.split_first_chunk::<4>().expect("a length");
        let len = u32::from_be_bytes(*len);
        rest = behind;
        if len == u32::MAX {
            return None;
        }
        let (dump, behind) = rest.split_at(len as usize);
        rest = behind;
        Some(String::from_utf8(dump.to_vec()).expect("UTF-8"))
    };
    documents.iter().map(|_| (report(), report())).collect()
}
