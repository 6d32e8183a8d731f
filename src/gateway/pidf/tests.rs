//! Presence documents of every dialect, and tables 1 to 3 of availability end to end.

use toml::Table;

use super::*;
use crate::address::Address;
use crate::policy::{Pidf, Profile};
use crate::presence::availability::BUSY;
use crate::xmpp::frame::{Content, one};

fn document(text: &str) -> Document {
    read(text.as_bytes(), None).unwrap_or_else(|_| panic!("{text}"))
}

fn shown(show: Show, status: Option<&str>) -> Shown {
    Shown { show, status: status.map(str::to_owned), ..Shown::default() }
}

fn user() -> Address {
    Address::parse(r"o\27malley@fabrikam.example").unwrap()
}

fn written(dialect: Pidf, all: &[(&str, Shown)]) -> String {
    let resources: Vec<_> = all.iter().map(|(name, shown)| Resource { name, shown }).collect();
    let mut out = Vec::new();
    write(dialect, user().view(), None, &resources, &mut out);
    String::from_utf8(out).unwrap()
}

/// The rows of one table of availability.
fn rows(number: i64) -> Vec<Table> {
    let text = include_str!("../../../tests/data/availability.toml");
    let all: Table = text.parse().unwrap();
    let mut tables = all["table"].as_array().unwrap().iter();
    let table = tables.find(|it| it["number"].as_integer() == Some(number)).unwrap();
    table["rows"].as_array().unwrap().iter().map(|it| it.as_table().unwrap().clone()).collect()
}

fn state(name: &str) -> State {
    match name {
        "available" => State::Available,
        "busy" => State::Busy,
        "dnd" => State::Dnd,
        "brb" => State::Brb,
        "away" => State::Away,
        "offline" => State::Offline,
        _ => panic!("{name}"),
    }
}

const BOTH: [Pidf; 2] = [Pidf::Microsoft, Pidf::Standard];

#[test]
fn table_1_end_to_end_in_both_dialects() {
    for row in rows(1) {
        let name = row["lync"].as_str().unwrap();
        let words: &[&str] = match state(name) {
            State::Available => &["", "online"],
            State::Busy => &["busy", "on-the-phone", "meeting", "in-a-call"],
            State::Dnd => &["donotdisturb", "do-not-disturb"],
            State::Brb => &["berightback", "be-right-back"],
            State::Away => &["away", "idle", "out-to-lunch"],
            _ => &["", "busy"],
        };
        let basic = if name == "offline" { "closed" } else { "open" };
        for (dialect, word) in BOTH.iter().flat_map(|d| words.iter().map(move |w| (*d, *w))) {
            let element = if word.is_empty() { String::new() } else { format!("<r:{word}/>") };
            let text = match dialect {
                Pidf::Microsoft => format!(
                    "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:ep='ep' entity='sip:a@b'>\
                     <tuple id='0'><status><basic>{basic}</basic><ep:activities><ep:activity>{word}\
                     </ep:activity></ep:activities></status></tuple></presence>"
                ),
                Pidf::Standard => format!(
                    "<presence xmlns='urn:ietf:params:xml:ns:pidf' xmlns:r='r' xmlns:dm='dm'>\
                     <tuple id='x'><status><basic>{basic}</basic></status></tuple><dm:person \
                     id='p'><r:activities>{element}</r:activities></dm:person></presence>"
                ),
            };
            let found = document(&text);
            assert_eq!(found.state, state(name), "{text}");
            let wire = found.shown.wire();
            let xmpp = row["xmpp"].as_table().unwrap();
            let show = xmpp["show"].as_str().unwrap();
            assert_eq!(wire.seen_by(Profile::Xmpp), state(show), "{text}");
            assert_eq!(wire.status, xmpp.get("status").map(|it| it.as_str().unwrap()), "{text}");
            let jabber = row["jabber"]["show"].as_str().unwrap();
            assert_eq!(wire.seen_by(Profile::Jabber), state(jabber), "{text}");
        }
    }
}

#[test]
fn tables_2_and_3_end_to_end_in_both_dialects() {
    for (number, from) in [(2, "jabber"), (3, "xmpp")] {
        for row in rows(number) {
            let (name, lync) = (row[from].as_str().unwrap(), row["lync"].as_str().unwrap());
            let shown = match name {
                "busy" => shown(Show::Away, Some(BUSY)),
                "available" => shown(Show::Available, None),
                "offline" => shown(Show::Offline, None),
                show => shown(Show::read(show), None),
            };
            for dialect in BOTH {
                let text = written(dialect, &[("x", shown.clone())]);
                assert_eq!(document(&text).state, state(lync), "{text}");
                assert_eq!(text.contains("<basic>closed"), name == "offline", "{text}");
            }
        }
    }
}

#[test]
fn the_shapes_that_are_written() {
    let busy = shown(Show::Dnd, None);
    assert_eq!(
        written(Pidf::Microsoft, &[("Home PC", busy.clone())]),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
         xmlns:ep=\"urn:ietf:params:xml:ns:pidf:status:rpid-status\" \
         xmlns:et=\"urn:ietf:params:xml:ns:pidf:rpid-tuple\" \
         xmlns:ci=\"urn:ietf:params:xml:ns:pidf:cipid\" entity=\"sip:o&apos;malley@fabrikam.example\">\
         <tuple id=\"t0\"><status><basic>open</basic><ep:activities><ep:activity>busy</ep:activity>\
         </ep:activities></status></tuple></presence>"
    );
    let here = Shown {
        status: Some("1 < 2".into()),
        lang: Some("de".into()),
        priority: Some(-1),
        ..shown(Show::Available, None)
    };
    let mut standard = Vec::new();
    let resources =
        [Resource { name: "Home PC", shown: &busy }, Resource { name: "a.b", shown: &here }];
    let lang = write(Pidf::Standard, user().view(), Some("O"), &resources, &mut standard);
    // The other resource stands for the user.
    assert_eq!(lang, None);
    assert_eq!(
        String::from_utf8(standard).unwrap(),
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><presence \
             xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
             xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\" \
             entity=\"sip:o&apos;malley@fabrikam.example\"><tuple id=\"{}\"><status><basic>open</basic>\
             <show xmlns=\"jabber:client\">dnd</show></status><contact priority=\"0.000\">\
             sip:o&apos;malley@fabrikam.example;gr=Home%20PC</contact></tuple><tuple id=\"ID-a.b\">\
             <status><basic>open</basic></status><contact>\
             sip:o&apos;malley@fabrikam.example;gr=a.b</contact><note xml:lang=\"de\">1 &lt; 2</note>\
             </tuple><dm:person id=\"p0\"><rpid:activities><rpid:busy/></rpid:activities></dm:person>\
             </presence>",
            tuple_id("Home PC")
        )
    );
    for dialect in BOTH {
        let none = written(dialect, &[]);
        assert!(none.contains("<tuple id=\"t0\"><status><basic>closed</basic></status></tuple>"));
        assert_eq!(none, written(dialect, &[("x", shown(Show::Offline, Some("bye")))]));
    }
    let mut named = Vec::new();
    write(Pidf::Microsoft, user().view(), Some("<O>"), &[], &mut named);
    let named = String::from_utf8(named).unwrap();
    assert!(named.ends_with("<ci:display-name>&lt;O&gt;</ci:display-name></presence>"));
}

#[test]
fn what_is_written_is_read_again() {
    for show in [Show::Available, Show::Away, Show::Xa, Show::Dnd] {
        for status in [None, Some("Grüße & <b>"), Some("a\nb")] {
            let before = Shown {
                lang: status.map(|_| "de-CH".to_owned()),
                priority: Some(5),
                ..shown(show, status)
            };
            let text = written(Pidf::Standard, &[("x", before.clone())]);
            let again = document(&text);
            assert_eq!(again.shown, before, "{text}");
            assert_eq!(again.entity.as_deref(), Some("sip:o'malley@fabrikam.example"));
            assert_eq!(again.unknown, 0);
            let text = written(Pidf::Microsoft, &[("x", before)]);
            let again = document(&text);
            // A text of one's own stands beside no state word.
            assert_eq!(
                again.shown.status.as_deref(),
                if show == Show::Dnd { Some(BUSY) } else { status }
            );
        }
    }
}

#[test]
fn the_best_resource_stands_for_the_user() {
    let with = |show, priority| Shown { priority: Some(priority), ..shown(show, None) };
    for (all, expected) in [
        (vec![with(Show::Available, 0), with(Show::Xa, 1)], Some(1)),
        (vec![with(Show::Xa, 0), with(Show::Away, 0), with(Show::Dnd, 0)], Some(2)),
        (vec![with(Show::Available, 0), with(Show::Dnd, 0)], Some(0)),
        (vec![with(Show::Away, 0), with(Show::Away, 0)], Some(1)),
        (vec![with(Show::Offline, 9), with(Show::Away, -1)], Some(1)),
        (vec![with(Show::Offline, 9)], None),
        (vec![], None),
    ] {
        let names = ["0", "1", "2"];
        let resources: Vec<_> =
            all.iter().zip(names).map(|(shown, name)| Resource { name, shown }).collect();
        let found = best(&resources).map(|it| it.name.parse::<usize>().unwrap());
        assert_eq!(found, expected, "{all:?}");
    }
}

#[test]
fn samples_of_the_field() {
    let sfb = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<presence \
        xmlns=\"urn:ietf:params:xml:ns:pidf\"\n xmlns:ep=\"urn:ietf:params:xml:ns:pidf:status:rpid-status\"\n \
        xmlns:ci=\"urn:ietf:params:xml:ns:pidf:cipid\"\n entity=\"sip:john.doe@sfb.example\">\n<tuple \
        id=\"0\">\n<status>\n<basic>open</basic>\n<ep:activities>\n<ep:activity>on-the-phone</ep:activity>\n\
        </ep:activities>\n</status>\n</tuple>\n<ci:display-name>John Doe</ci:display-name>\n</presence>\n";
    let found = document(sfb);
    assert_eq!((found.state, found.shown), (State::Busy, shown(Show::Away, Some(BUSY))));
    assert_eq!(found.entity.as_deref(), Some("sip:john.doe@sfb.example"));
    // A declared encoding is not believed; a real one is.
    let aol = sfb.replace("utf-8", "utf-16").replace("sip:john", "john");
    assert_eq!(document(&aol).state, State::Busy);
    assert_eq!(document(&aol).entity.as_deref(), Some("john.doe@sfb.example"));
    let wide: Vec<u8> = aol.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read(&wide, None).unwrap().state, State::Busy);
    assert_eq!(read(&[b"\xEF\xBB\xBF", sfb.as_bytes()].concat(), None).unwrap().state, State::Busy);
    let msrtc = |availability, activity| {
        format!(
            "<presentity uri=\"user1@server.contoso.com\" \
             xmlns=\"http://schemas.microsoft.com/2002/09/sip/presence\">\r\n\
             <availability aggregate=\"{availability}\" description=\"\" epid=\"03\" />\r\n\
             <activity aggregate=\"{activity}\" description=\"\" epid=\"03\" />\r\n</presentity>\r\n"
        )
    };
    for (availability, activity, state) in [
        (300, 400, State::Available),
        (300, 600, State::Busy),
        (300, 100, State::Away),
        (300, 300, State::Brb),
        (0, 400, State::Offline),
        (99, 0, State::Offline),
    ] {
        let found = document(&msrtc(availability, activity));
        assert_eq!(found.state, state, "{availability} {activity}");
        assert_eq!(found.entity.as_deref(), Some("user1@server.contoso.com"));
    }
    let xpidf = |status, substatus| {
        format!(
            "<?xml version=\"1.0\"?>\n<presence>\n<presentity uri=\"sip:a@b;method=SUBSCRIBE\" />\n\
             <atom id=\"1\">\n<address uri=\"sip:a@b\" priority=\"0.800000\">\n<status \
             status=\"{status}\" />\n<msnsubstatus substatus=\"{substatus}\" />\n</address>\n</atom>\n\
             </presence>"
        )
    };
    for (status, substatus, state) in [
        ("open", "online", State::Available),
        ("inuse", "busy", State::Busy),
        ("open", "onthephone", State::Busy),
        ("open", "berightback", State::Brb),
        ("open", "outtolunch", State::Away),
        ("open", "idle", State::Away),
        ("open", "unknown", State::Available),
        ("closed", "unknown", State::Offline),
    ] {
        let found = document(&xpidf(status, substatus));
        assert_eq!((found.state, found.unknown), (state, 0), "{status} {substatus}");
    }
    let categories = "<categories xmlns='x' uri='sip:a@b'><category name='state'><state \
        xsi:type='userState' xmlns:xsi='i'><availability>15500</availability></state></category>\
        <category name='state'><state xsi:type='aggregateState' xmlns:xsi='i'><availability>6500\
        </availability></state></category></categories>";
    assert_eq!(document(categories).state, State::Busy);
}

#[test]
fn an_activity_is_read_wherever_it_stands() {
    for inner in [
        "<status><basic>open</basic><a:activities><a:activity>busy</a:activity></a:activities></status>",
        "<status><basic>open</basic></status><rpid:activities><rpid:busy/></rpid:activities>",
        "<status><basic>OPEN</basic><x:activity>meeting</x:activity></status>",
        "<status><basic> open </basic></status><activities><other/><on-the-phone>x</on-the-phone></activities>",
        "<status><basic>open</basic><activities><activity><busy/></activity></activities></status>",
        "<status><basic>open</basic><activities><online/><busy/><away/></activities></status>",
    ] {
        let text = format!("<presence><tuple id='a'>{inner}</tuple></presence>");
        assert_eq!(document(&text).state, State::Busy, "{text}");
    }
    let both = "<presence><tuple><status><basic>open</basic><e:activity>away</e:activity></status>\
        </tuple><dm:person><rpid:activities><rpid:busy/></rpid:activities></dm:person></presence>";
    assert_eq!(document(both).state, State::Away);
    let unknown = "<presence><tuple><status><basic>open</basic></status><activities><steering/>\
        <activity>dancing</activity></activities></tuple></presence>";
    assert_eq!((document(unknown).state, document(unknown).unknown), (State::Available, 2));
}

#[test]
fn a_show_of_xmpp_wins_over_any_activity() {
    let with = |show: &str| {
        document(&format!(
            "<presence><tuple><status><basic>open</basic><show xmlns='jabber:client'>{show}</show>\
             </status><note>in a call</note></tuple><dm:person><activities><busy/></activities>\
             </dm:person></presence>"
        ))
        .shown
    };
    assert_eq!(with("xa"), shown(Show::Xa, Some("in a call")));
    assert_eq!(with("chat"), shown(Show::Available, Some("in a call")));
    assert_eq!(with("odd"), shown(Show::Away, Some(BUSY)));
}

#[test]
fn one_presence_of_several_tuples() {
    let text = "<presence><tuple id='a'><status><basic>closed</basic></status>\
        <contact priority='1'>x</contact><note>never</note></tuple>\
        <tuple id='b'><status><basic>open</basic><show>away</show></status>\
        <contact priority='0.25'>y</contact></tuple>\
        <tuple id='c'><status><basic>open</basic><show>dnd</show></status>\
        <contact priority='0.5'>z</contact></tuple>\
        <tuple id='d'><status><basic>open</basic><show>xa</show></status>\
        <contact priority='0.5'>z</contact></tuple></presence>";
    let found = document(text).shown;
    assert_eq!((found.show, found.priority), (Show::Dnd, Some(64)));
    let closed = "<presence><tuple><status/></tuple><note>gone home</note></presence>";
    assert_eq!(document(closed).shown, shown(Show::Offline, Some("gone home")));
    assert_eq!(document("<presence/>").state, State::Offline);
    let blind =
        "<presence xmlns:dm='x'><dm:person><activities><busy/></activities></dm:person></presence>";
    assert_eq!(document(blind).state, State::Offline);
}

#[test]
fn the_note_of_the_documents_language() {
    let text = "<presence><tuple><status><basic>open</basic></status><note xml:lang='de'>Hallo</note>\
        <note xml:lang='en'>Hello</note></tuple><note>x</note></presence>";
    for (lang, note, its) in
        [(None, "Hallo", "de"), (Some("en"), "Hello", "en"), (Some("EN, de"), "Hello", "en")]
    {
        let found = read(text.as_bytes(), lang).unwrap().shown;
        assert_eq!((found.status.as_deref(), found.lang.as_deref()), (Some(note), Some(its)));
    }
    let found = read(text.as_bytes(), Some("fr")).unwrap().shown;
    assert_eq!((found.status.as_deref(), found.lang.as_deref()), (Some("x"), Some("fr")));
}

#[test]
fn priorities_both_ways() {
    for (p, k) in [
        (0, 0),
        (1, 7),
        (2, 15),
        (5, 39),
        (10, 78),
        (63, 496),
        (64, 503),
        (100, 787),
        (126, 992),
        (127, 1_000),
    ] {
        assert_eq!(thousandths(p), Some(k));
    }
    for p in 0..=127 {
        assert_eq!(priority(thousandths(p).unwrap()), p);
    }
    assert_eq!(thousandths(-1), None);
    for (text, p) in [
        ("0", Some(0)),
        ("0.001", Some(1)),
        ("0.007", Some(1)),
        ("0.008", Some(2)),
        ("0.25", Some(32)),
        ("0.5", Some(64)),
        ("0.75", Some(96)),
        ("0.999", Some(127)),
        ("1", Some(127)),
        ("1.000", Some(127)),
        ("0.8000001", Some(102)),
        ("", None),
        ("-0.5", None),
        ("2", None),
        ("1.5", None),
        ("0.x", None),
        (".5", None),
    ] {
        assert_eq!(qvalue(text).map(priority), p, "{text}");
    }
}

#[test]
fn malformed_documents_are_refused() {
    let deep = format!("<presence>{}", "<a>".repeat(40));
    let wide = format!("<presence>{}</presence>", "<tuple/>".repeat(200));
    let long = format!("<presence>{}</presence>", "<a/>".repeat(20_000));
    for text in [
        "",
        " ",
        "hello",
        "<presence>",
        "<presence></presenc>",
        "<presence><tuple></presence>",
        "<presence/><presence/>",
        "<presence/>x",
        "<html/>",
        "<presence a=b/>",
        "<!DOCTYPE presence [<!ENTITY a 'b'>]><presence>&a;</presence>",
        "<presence>&a;</presence>",
        "<presence><note>&#0;</note></presence>",
        "<presence a='1' a='2' entity='x'/>",
        &deep,
        &wide,
        &long,
    ] {
        assert_eq!(read(text.as_bytes(), None), Err(Malformed), "{}", &text[..text.len().min(80)]);
    }
    assert_eq!(read(b"<presence>\xFF</presence>", None), Err(Malformed));
    let controls = "<presence><tuple><status><basic>open</basic></status><note>a&#1;b</note></tuple></presence>";
    if let Ok(found) = read(controls.as_bytes(), None) {
        assert_eq!(found.shown.status.as_deref(), Some("a\u{FFFD}b"));
    }
}

#[test]
fn stanzas_in_and_out() {
    let (from, to) =
        (Address::parse("a@b.example").unwrap(), Address::parse("c@d.example").unwrap());
    for (shown, text) in [
        (shown(Show::Available, None), "<presence from='a@b.example' to='c@d.example'></presence>"),
        (
            Shown {
                priority: Some(5),
                lang: Some("en".into()),
                ..shown(Show::Away, Some("<Busy>"))
            },
            "<presence from='a@b.example' to='c@d.example' xml:lang='en'><show>away</show>\
             <status>&lt;Busy&gt;</status><priority>5</priority></presence>",
        ),
        (
            shown(Show::Offline, Some("bye")),
            "<presence from='a@b.example' to='c@d.example' type='unavailable'><status>bye</status>\
             </presence>",
        ),
    ] {
        let mut out = Vec::new();
        shown.write_stanza(from.view(), to.view(), &mut out);
        assert_eq!(String::from_utf8(out.clone()).unwrap(), text);
        let stanza = one(&out, Content::Client).unwrap();
        assert_eq!(Shown::of_stanza(&out, &stanza), shown, "{text}");
    }
}
