//! What we write, another's reader reads as we do: rsip, which shares no code with us.
//!
//! Requests and responses with chosen words are written, then read by both. Kept within what rsip can
//! read: known methods, users without a dot (else it takes them for a host), no colons in parameters of
//! URIs, no compact names, bodies of text, a message at a time. Phrases are **not** compared, since it
//! replaces them.

#![expect(clippy::print_stdout, reason = "says what was compared")]

use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};
use tandem::sip::{Index, Message, NameAddr, Uri, write};

const INPUTS: usize = if cfg!(debug_assertions) { 5_000 } else { 100_000 };

const METHODS: &[&str] =
    &["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "MESSAGE", "SUBSCRIBE", "NOTIFY", "INFO"];
const STATUSES: &[u16] =
    &[100, 180, 200, 202, 400, 403, 404, 420, 423, 480, 481, 488, 489, 503, 603];
const HOSTS: &[&str] = &["b.example", "imp1.fabrikam.example", "192.0.2.7", "x-y.z.example"];
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-._";
const BODIES: &[&str] =
    &["", "hello", "v=0\r\nm=message 5060 sip null\r\n", "\r\n\r\na: b\r\n\r\n", "\u{17B}"];

#[test]
fn another_reader_reads_what_we_write() {
    let mut choice = Choice(0x0D1F_0051);
    let (mut text, mut answer, mut index) = (Vec::new(), Vec::new(), Index::default());
    for _ in 0..INPUTS {
        text.clear();
        let words = Words::new(&mut choice);
        words.write(&mut text);
        let ours = index.read(&text).expect("a start line");
        assert_eq!(ours.check(), Ok(()), "{}", shown(&text));
        let theirs = sound(rsip::Request::try_from(text.as_slice()), &text);
        assert_eq!(theirs.method().to_string(), words.method);
        assert_eq!(ours.method().as_bytes(), words.method.as_bytes());
        same_uri(&Uri::parse(ours.uri()).expect("a URI"), theirs.uri(), &text);
        assert_eq!(theirs.body(), words.body.as_bytes(), "{}", shown(&text));
        same_headers(&ours, &theirs, &text);
        let theirs = theirs.contact_header().and_then(|it| it.typed()).expect("Contact");
        let contact = ours.contact().expect("an address").expect("a Contact");
        same_uri(&contact.uri().expect("a URI"), &theirs.uri, &text);

        answer.clear();
        let status = choice.of(STATUSES);
        write::response(&ours, status, write::reason(status), Some("our-tag"), &mut answer)
            .header("Server", b"Tandem")
            .body("text/plain", words.body.as_bytes());
        let theirs = sound(rsip::Response::try_from(answer.as_slice()), &answer);
        let mut index = Index::default();
        let ours = index.read(&answer).expect("a status line");
        assert_eq!(theirs.status_code().code(), status);
        assert_eq!((ours.status(), theirs.body().as_slice()), (status, words.body.as_bytes()));
        same_headers(&ours, &theirs, &answer);
        assert!(ours.to().is_ok_and(|it| it.tag().is_some()));
    }
    println!("{INPUTS} requests and as many responses read alike");
}

/// What both readers say of the headers that every message has.
fn same_headers(ours: &Message<'_>, theirs: &impl HeadersExt, text: &[u8]) {
    let shown = || shown(text);
    let (via, hop) = (ours.via().expect("Via"), theirs.via_header().expect("Via"));
    let hop = sound(hop.typed(), text);
    assert_eq!(via.host, hop.uri.host().to_string().as_bytes(), "{}", shown());
    assert_eq!(via.port, hop.uri.port().map(|it| *it.value()), "{}", shown());
    assert_eq!(via.transport, hop.transport.to_string().as_bytes(), "{}", shown());
    let branch = hop.branch().map(|it| it.value().as_bytes());
    assert_eq!(via.branch(), branch, "{}", shown());

    let from = sound(theirs.from_header().and_then(|it| it.typed()), text);
    let tag = from.tag().map(|it| it.value().as_bytes());
    same_party(&ours.from().expect("From"), from.display_name.as_deref(), &from.uri, tag, text);
    let to = sound(theirs.to_header().and_then(|it| it.typed()), text);
    let tag = to.tag().map(|it| it.value().as_bytes());
    same_party(&ours.to().expect("To"), to.display_name.as_deref(), &to.uri, tag, text);

    let call_id = theirs.call_id_header().expect("Call-ID").value();
    assert_eq!(ours.call_id(), Ok(call_id), "{}", shown());
    let cseq = sound(theirs.cseq_header().and_then(|it| it.typed()), text);
    let (number, method) = ours.cseq().expect("CSeq");
    assert_eq!((number, method.as_bytes()), (cseq.seq, cseq.method.to_string().as_bytes()));
}

fn same_party(
    ours: &NameAddr<'_>,
    name: Option<&str>,
    uri: &rsip::Uri,
    tag: Option<&[u8]>,
    text: &[u8],
) {
    assert_eq!(ours.tag(), tag, "{}", shown(text));
    let name = name.unwrap_or_default().trim_matches('"');
    assert_eq!(ours.display, name.as_bytes(), "{}", shown(text));
    same_uri(&ours.uri().expect("a URI"), uri, text);
}

fn same_uri(ours: &Uri<'_>, theirs: &rsip::Uri, text: &[u8]) {
    let user = ours.user.map(String::from_utf8_lossy);
    assert_eq!(user.as_deref(), theirs.user(), "{}", shown(text));
    assert_eq!(ours.host, theirs.host().to_string().as_bytes(), "{}", shown(text));
    assert_eq!(ours.port, theirs.port().map(|it| *it.value()), "{}", shown(text));
    let transport = theirs.transport().map(|it| it.to_string().to_ascii_lowercase());
    let own = ours.param("transport").flatten().map(String::from_utf8_lossy);
    assert_eq!(own.as_deref(), transport.as_deref(), "{}", shown(text));
    assert_eq!(ours.params().count(), theirs.params.len(), "{}", shown(text));
}

/// The words of one request.
struct Words {
    method: &'static str,
    uris: [String; 4],
    via: String,
    from: String,
    to: String,
    call_id: String,
    cseq: u64,
    body: &'static str,
}

impl Words {
    fn new(choice: &mut Choice) -> Self {
        let uris = std::array::from_fn(|_| choice.uri());
        let [_, from, to, _] = &uris;
        let name = ["", "Bob ", "\"J. R\" ", "\"\u{17B}oe, x\" "];
        let (from_name, to_name) = (choice.of(&name), choice.of(&name));
        let to_tag =
            if choice.below(2) == 0 { format!(";tag={}", choice.word()) } else { String::new() };
        let port = if choice.below(2) == 0 { ":5061" } else { "" };
        let more = choice.of(&["", ";alias", ";rport", ";received=192.0.2.1"]);
        let (host, transport) = (choice.of(HOSTS), choice.of(&["TLS", "TCP", "UDP"]));
        let via = format!("SIP/2.0/{transport} {host}{port};branch=z9hG4bK{}{more}", choice.word());
        let from = format!("{from_name}<{from}>;tag={}", choice.word());
        Self {
            method: choice.of(METHODS),
            via,
            from,
            to: format!("{to_name}<{to}>{to_tag}"),
            call_id: format!("{}@{host}", choice.word()),
            cseq: choice.below(1 << 31) as u64,
            body: choice.of(BODIES),
            uris,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let [uri, _, _, contact] = &self.uris;
        let mut without = Vec::new();
        write::request(self.method, uri.as_bytes(), &mut without)
            .uint("Max-Forwards", 70)
            .header("From", self.from.as_bytes())
            .header("To", self.to.as_bytes())
            .header("Call-ID", self.call_id.as_bytes())
            .header("CSeq", format!("{} {}", self.cseq, self.method).as_bytes())
            .header("Contact", format!("<{contact}>").as_bytes())
            .body("text/plain", self.body.as_bytes());
        write::insert_via(&without, self.via.as_bytes(), out);
    }
}

/// Always the same for the same seed.
struct Choice(u64);

impl Choice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % bound as u64) as usize
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn word(&mut self) -> String {
        let length = 1 + self.below(20);
        (0..length).map(|_| char::from(self.of(LETTERS))).collect()
    }

    fn uri(&mut self) -> String {
        let user = if self.below(5) > 0 {
            format!("{}@", self.word().replace('.', "+"))
        } else {
            String::new()
        };
        let port = self.of(&["", ":5060", ":5061", ":1"]);
        let params = self.of(&["", ";transport=tls", ";transport=tcp;lr", ";lr"]);
        format!("{}{user}{}{port}{params}", self.of(&["sip:", "sips:"]), self.of(HOSTS))
    }
}

/// What a reader made of a text that has to be read.
fn sound<T>(it: Result<T, rsip::Error>, text: &[u8]) -> T {
    it.unwrap_or_else(|fault| panic!("{fault}: {}", shown(text)))
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
