//! Messages of others: all 61 of RFC 4475 and RFC 5118, and those of Microsoft's servers.
//!
//! Each goes through the framer and the parser whole, octet by octet, cut at every octet, and with others
//! before and behind it; whatever way it came, the same must come of it. What becomes of those that pass
//! is **not** tested here: that is the engine's answer.

#![expect(clippy::print_stdout, reason = "the table of outcomes is the result")]

mod sip_corpus;

use sip_corpus::Sample;
use tandem::sip::{
    Fault, Index, Message, Name, NameAddr, frame,
    frame::{FrameFault, Framer, Limits, Next},
    write,
};

const OPTIONS: &[u8] = b"OPTIONS sip:bob@fabrikam.example SIP/2.0\r\n\
    Via: SIP/2.0/TLS a.example;branch=z9hG4bKafter\r\nMax-Forwards: 70\r\n\
    From: <sip:a@a.example>;tag=1\r\nTo: <sip:bob@fabrikam.example>\r\nCall-ID: after\r\n\
    CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";

/// `accept`, `drop` or a status, as the manifest has it.
fn judged(frame: &[u8], framed: Option<&Fault>) -> String {
    let mut index = Index::default();
    let Ok(message) = index.read(frame) else { return "drop".to_owned() };
    match framed.cloned().map_or_else(|| message.check(), Err) {
        Ok(()) => "accept".to_owned(),
        Err(_) if !message.is_request() => "drop".to_owned(),
        Err(fault) => {
            answer_is_sound(&message, &fault);
            fault.status.to_string()
        }
    }
}

/// What a message of its own that is refused gets.
fn answer_is_sound(request: &Message<'_>, fault: &Fault) {
    let mut answer = Vec::new();
    write::refusal(request, fault, Some("t9"), &mut answer);
    let next = Framer::default().next(&answer, &Limits::PEER);
    let (length, shown) = (answer.len(), String::from_utf8_lossy(&answer));
    assert!(matches!(next, Ok(Next::Message { length: it, .. }) if it == length), "{shown}");
    let mut index = Index::default();
    let answer = index.read(&answer).expect("a status line");
    assert_eq!(answer.status(), fault.status);
}

/// All that comes of a stream which ends after `text`: outcomes, `close` where it is ended by us,
/// `wait` where something is unfinished. The octets come in pieces of these lengths, again and again.
fn stream(text: &[u8], pieces: &[usize]) -> Vec<String> {
    let mut framer = Framer::default();
    let (mut begin, mut end, mut outcomes) = (0, 0, Vec::new());
    let mut pieces = pieces.iter().cycle();
    loop {
        match framer.next(&text[begin..end], &Limits::PEER) {
            Ok(Next::Incomplete) if end == text.len() => break,
            Ok(Next::Incomplete) => end = text.len().min(end + pieces.next().expect("endless")),
            Ok(Next::Blank(count) | Next::Ping(count)) => begin += count,
            Ok(Next::Message { head, length }) => {
                assert!(head <= length && begin + length <= end);
                outcomes.push(judged(&text[begin..begin + length], None));
                begin += length;
            }
            Err(FrameFault { fault, head }) => {
                let head = &text[begin..begin + head.unwrap_or(0)];
                outcomes.push(format!("{}+close", judged(head, Some(&fault))));
                return outcomes;
            }
        }
    }
    if begin < text.len() {
        outcomes.push("wait".to_owned());
    }
    outcomes
}

fn datagram(text: &[u8]) -> String {
    match frame::datagram(text, &Limits::PEER) {
        Ok((head, length)) => {
            assert!(head <= length && length <= text.len());
            judged(&text[..length], None)
        }
        Err(FrameFault { fault, head }) => judged(&text[..head.unwrap_or(0)], Some(&fault)),
    }
}

/// What the parser has to say where the manifest has what the whole switch does.
fn at_the_parser(column: &str, row: &[String]) -> Vec<String> {
    let parses = row[7] == "ok";
    column
        .split('|')
        .map(|it| match it {
            // The core refuses these: extensions, types, answers to nobody.
            "415" | "420" | "406" | "drop" if parses => "accept".to_owned(),
            it => it.to_owned(),
        })
        .collect()
}

#[test]
fn torture_messages_have_the_outcomes_of_the_manifest() {
    let mut told = 0;
    for (sample, row) in sip_corpus::torture() {
        assert_eq!(sample.text.len().to_string(), row[3], "{}: its line ends were changed", row[2]);
        let by_datagram = datagram(&sample.text);
        assert!(at_the_parser(&row[8], &row).contains(&by_datagram), "{} {by_datagram}", row[2]);

        let text = if row[9] == "recount" { recounted(&sample.text) } else { sample.text };
        let by_stream = stream(&text, &[usize::MAX / 2]);
        let expected = match row[9].as_str() {
            "=" | "recount" => {
                at_the_parser(&row[8], &row).into_iter().map(|it| vec![it]).collect()
            }
            "wait+close" => vec![vec!["wait".to_owned()]],
            // The second one's Content-Length leaves a few octets of its body behind.
            "405, then accept" => vec![["405", "accept", "400+close"].map(str::to_owned).to_vec()],
            it => vec![vec![it.to_owned()]],
        };
        assert!(expected.contains(&by_stream), "{} {by_stream:?}, not {expected:?}", row[2]);
        println!("{:45} udp {by_datagram:7} stream {}", row[2], by_stream.join(", "));
        told += 1;
    }
    println!("{told}/61");
    assert_eq!(told, 61);
}

/// With the Content-Length of the body that is there.
fn recounted(text: &[u8]) -> Vec<u8> {
    let head = memchr::memmem::find(text, b"\r\n\r\n").expect("an empty line") + 4;
    let shown = String::from_utf8(text[..head].to_vec()).expect("UTF-8");
    let lines = shown.lines().map(|line| {
        if line.to_ascii_lowercase().starts_with("content-length:") {
            format!("Content-Length: {}\r\n", text.len() - head)
        } else {
            format!("{line}\r\n")
        }
    });
    [lines.collect::<String>().as_bytes(), &text[head..]].concat()
}

#[test]
fn the_name_without_quotes_is_refused_once_its_empty_line_is_there() {
    let (sample, _) =
        sip_corpus::torture().into_iter().find(|it| it.1[2].contains("baddn")).expect("baddn");
    let text = [sample.text.as_slice(), b"\r\n"].concat();
    assert_eq!(stream(&text, &[text.len()]), ["400"]);
    assert_eq!(datagram(&text), "400");
}

/// All samples as they are sent on a stream.
fn all() -> Vec<Sample> {
    let torture = sip_corpus::torture().into_iter().map(|(mut sample, row)| {
        if row[9] == "recount" {
            sample.text = recounted(&sample.text);
        }
        sample
    });
    torture.chain(sip_corpus::microsoft()).collect()
}

#[test]
fn the_same_comes_of_it_however_it_is_cut() {
    for sample in all() {
        let text = sample.text;
        let whole = stream(&text, &[text.len()]);
        assert_eq!(stream(&text, &[1]), whole, "{} octet by octet", sample.name);
        for cut in 1..text.len() {
            assert_eq!(stream(&text, &[cut, text.len()]), whole, "{} cut at {cut}", sample.name);
        }
    }
}

#[test]
fn a_connection_that_ends_within_a_message_makes_none() {
    for sample in all() {
        let text = sample.text;
        let whole = stream(&text, &[text.len()]);
        for cut in 1..text.len() {
            let part = stream(&text[..cut], &[cut]);
            // As much as came whole, and then either nothing more or the same end.
            let whole_part = part.iter().take_while(|it| *it != "wait").count();
            assert_eq!(part[..whole_part], whole[..whole_part], "{} cut at {cut}", sample.name);
        }
    }
}

#[test]
fn what_stands_behind_a_message_is_the_next() {
    for sample in all() {
        let text = [sample.text.as_slice(), OPTIONS].concat();
        let mut expected = stream(&sample.text, &[sample.text.len()]);
        match expected.last().map(String::as_str) {
            // Its Content-Length takes the OPTIONS for its body, or its head takes it for a header.
            Some("wait") => continue,
            Some(it) if it.ends_with("close") => {}
            _ => expected.push("accept".to_owned()),
        }
        assert_eq!(stream(&text, &[text.len()]), expected, "{}", sample.name);
        assert_eq!(stream(&text, &[1]), expected, "{} octet by octet", sample.name);
    }
}

#[test]
fn messages_of_microsoft_pass_in_pairs_with_keep_alives_between() {
    let samples = sip_corpus::microsoft();
    assert_eq!(samples.len(), 19);
    for first in &samples {
        assert_eq!(stream(&first.text, &[first.text.len()]), ["accept"], "{}", first.name);
        for second in &samples {
            for between in [&b""[..], b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n"] {
                let text = [between, &first.text, between, &second.text, between].concat();
                for pieces in [&[text.len()][..], &[7], &[first.text.len() + 1, 1]] {
                    let outcomes = stream(&text, pieces);
                    assert_eq!(outcomes, ["accept", "accept"], "{} {}", first.name, second.name);
                }
            }
        }
    }
}

#[test]
fn routes_and_hops_are_echoed_octet_for_octet() {
    let mut requests = 0;
    for sample in sip_corpus::microsoft() {
        let mut index = Index::default();
        let request = index.read(&sample.text).expect("a start line");
        let lines = |name: &str| -> Vec<&[u8]> {
            let text = sample.text.split(|it| *it == b'\n').take_while(|it| *it != b"\r");
            text.filter(|it| it.starts_with(name.as_bytes()))
                .map(|it| it[name.len()..].trim_ascii())
                .collect()
        };
        // The values as a plain search finds them are what a Route and an answer are made of.
        assert_eq!(
            request.headers(Name::Via).collect::<Vec<_>>(),
            lines("Via:"),
            "{}",
            sample.name
        );
        let routes: Vec<&[u8]> = request.list(Name::RecordRoute).collect();
        assert_eq!(routes, lines("Record-Route:"), "{}", sample.name);
        for route in &routes {
            let route = NameAddr::parse(route).expect(&sample.name);
            assert!(route.uri().expect("a URI").param("lr").is_some(), "{}", sample.name);
        }
        if !request.is_request() {
            continue;
        }
        requests += 1;
        let mut answer = Vec::new();
        let writer = write::response(&request, 200, "OK", Some("g-1"), &mut answer);
        writer.each("Record-Route", routes.iter().copied()).end();
        let mut index = Index::default();
        let answer = index.read(&answer).expect("a status line");
        answer.check().expect(&sample.name);
        for name in [Name::Via, Name::RecordRoute, Name::From, Name::CallId, Name::CSeq] {
            let (theirs, ours) = (request.headers(name), answer.headers(name));
            assert!(theirs.eq(ours), "{} {name:?}", sample.name);
        }
        let (to, echoed) = (request.to().expect("To"), answer.to().expect("To"));
        assert!(echoed.value().starts_with(to.value()));
        assert_eq!(echoed.tag(), to.tag().or(Some(b"g-1")), "{}", sample.name);

        let mut next = Vec::new();
        let writer = write::request("NOTIFY", b"sip:a@b;opaque=user:epid:x;gruu", &mut next);
        writer.each("Route", routes.iter().copied()).end();
        let mut index = Index::default();
        let next = index.read(&next).expect("a start line");
        assert!(next.list(Name::Route).eq(routes), "{}", sample.name);
    }
    assert!(requests > 8, "{requests}");
}

/// Reads one torture message as a datagram and looks at it.
fn look(name: &str, look: impl FnOnce(&Message<'_>)) {
    let all = sip_corpus::torture();
    let (sample, _) = all.iter().find(|it| it.0.name.contains(name)).expect(name);
    let length = frame::datagram(&sample.text, &Limits::PEER).map_or(sample.text.len(), |it| it.1);
    let mut index = Index::default();
    look(&index.read(&sample.text[..length]).expect("a start line"));
}

#[test]
fn torture_messages_have_the_values_that_their_notes_tell() {
    look("wsinv", |it| {
        assert_eq!(it.max_forwards(), Ok(Some(68)));
        assert_eq!(it.cseq().expect("CSeq").0, 9);
        assert_eq!((it.header(Name::Subject), it.list(Name::Via).count()), (Some(&b""[..]), 3));
        let via = it.via().expect("Via");
        assert_eq!(
            (via.branch(), via.key(), via.host),
            (Some(&b"390skdjuw"[..]), None, &b"192.0.2.2"[..])
        );
        assert_eq!(it.to().expect("To").tag(), Some(&b"1918181833n"[..]));
        assert_eq!(it.from().expect("From").display, br#"J Rosenberg \\\""#);
        assert_eq!(it.other("unknownheaderwithunusualvalue").next(), Some(&b";;,,;;,;"[..]));
        let contact = it.contact().expect("Contact").expect("one");
        assert_eq!(contact.param("q"), Some(Some(&b"0.33"[..])));
    });
    look("intmeth", |it| {
        assert_eq!(it.method().as_bytes(), b"!interesting-Method0123456789_*+`.%indeed'~");
        assert_eq!(it.to().expect("To").display, b"BEL:\\\x07 NUL:\\\0 DEL:\\\x7F");
        let call_id = it.call_id().expect("Call-ID");
        assert_eq!(call_id, "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{");
        assert_eq!(it.max_forwards(), Ok(Some(255)));
    });
    look("esc01", |it| {
        let uri = it.contact().expect("Contact").expect("one").uri().expect("a URI");
        assert_eq!(uri.user, Some(&b"cal%6Cer"[..]));
        assert_eq!(uri.param("n%61me"), Some(Some(&b"v%61lue%25%34%31"[..])));
    });
    look("escnull", |it| {
        let users: Vec<_> = it
            .list(Name::Contact)
            .map(|it| NameAddr::parse(it).and_then(|it| it.uri()).expect("a URI").user)
            .collect();
        assert_eq!(users, [Some(&b"%00"[..]), Some(b"%00%00")]);
    });
    look("esc02", |it| {
        assert_eq!(it.list(Name::Contact).count(), 2);
        let from = it.from().expect("From");
        assert_eq!((it.method().as_bytes(), from.display), (&b"RE%47IST%45R"[..], &b"%Z%45"[..]));
    });
}

#[test]
fn torture_messages_have_the_parts_that_their_notes_tell() {
    look("lwsdisp", |it| assert_eq!(it.from().expect("From").display, b"caller"));
    look("longreq", |it| assert_eq!(it.list(Name::Via).count(), 34));
    look("dblreq", |it| assert_eq!(it.body(), b""));
    look("semiuri", |it| {
        let uri = tandem::sip::Uri::parse(it.uri()).expect("a URI");
        assert_eq!((uri.user, uri.params().count()), (Some(&b"user;par=u%40example.net"[..]), 0));
    });
    look("transports", |it| assert_eq!(it.list(Name::Via).count(), 5));
    look("mpart01", |it| {
        assert_eq!(it.body().iter().filter(|it| **it == 0).count(), 2);
        assert!(it.content_type().expect("a type").is("multipart", "mixed"));
    });
    look("unreason", |it| {
        let reason = String::from_utf8_lossy(it.reason());
        assert!(it.status() == 200 && reason.starts_with("= 2**3 * 5**2 "), "{reason}");
    });
    look("noreason", |it| assert_eq!((it.status(), it.reason()), (100, &b""[..])));
}

#[test]
fn torture_messages_have_the_addresses_that_their_notes_tell() {
    look("cparam01", |it| {
        let contact = it.contact().expect("Contact").expect("one");
        assert_eq!(contact.param("unknownparam"), Some(None));
        assert_eq!(contact.uri().expect("a URI").param("unknownparam"), None);
    });
    look("cparam02", |it| {
        let contact = it.contact().expect("Contact").expect("one");
        assert_eq!(contact.param("unknownparam"), None);
        assert_eq!(contact.uri().expect("a URI").param("unknownparam"), Some(None));
    });
    look("regescrt", |it| {
        let uri = it.contact().expect("Contact").expect("one").uri().expect("a URI");
        assert!(uri.headers().is_some_and(|it| it.starts_with(b"Route=%3C")));
        assert!(it.header(Name::Route).is_none());
    });
    look("bext01", |it| {
        assert!(
            it.list(Name::Require).count() > 1
                && it.has_token(Name::ProxyRequire, "noProxiesSupportThis")
        );
    });
    look("badbranch", |it| assert_eq!(it.via().expect("Via").key(), None));
    look("inv2543", |it| {
        assert!(it.body().starts_with(b"v=0") && it.from().expect("From").tag().is_none());
    });
    look("port-ambiguous", |it| {
        let uri = tandem::sip::Uri::parse(it.uri()).expect("a URI");
        assert_eq!((uri.ip(), uri.port), ("2001:db8::10:5070".parse().ok(), None));
    });
    look("port-unambiguous", |it| {
        let uri = tandem::sip::Uri::parse(it.uri()).expect("a URI");
        assert_eq!((uri.ip(), uri.port), ("2001:db8::10".parse().ok(), Some(5070)));
    });
    for name in ["with-delim", "no-delim"] {
        look(name, |it| {
            let received = it.via().expect("Via").received();
            assert_eq!(received, "2001:db8::9:255".parse().ok(), "{name}");
        });
    }
    look("3-colons", |it| {
        let received = it.via().expect("Via").received();
        let uri = tandem::sip::Uri::parse(it.uri()).expect("a URI");
        assert!(received.is_some() || uri.ip().is_some(), "{received:?}");
    });
}
