//! What must be true of every address.

use std::borrow::Cow;

use super::prepare::already_normal;
use super::*;

fn text(raw: &str) -> Result<String, Malformed> {
    Address::parse(raw).map(|it| it.full().to_owned())
}

/// A small generator: tests need variety, not quality.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % sides
    }
}

fn rounds(release: usize) -> usize {
    if cfg!(debug_assertions) { release / 100 } else { release }
}

#[test]
fn examples_of_rfc_7622() {
    // RFC 7622, 3.5, table 1.
    for (raw, normal) in [
        ("juliet@example.com", "juliet@example.com"),
        ("juliet@example.com/foo", "juliet@example.com/foo"),
        ("juliet@example.com/foo bar", "juliet@example.com/foo bar"),
        ("juliet@example.com/foo@bar", "juliet@example.com/foo@bar"),
        (r"foo\20bar@example.com", r"foo\20bar@example.com"),
        ("fussball@example.com", "fussball@example.com"),
        // Nodeprep folds the sharp s, which PRECIS would keep.
        ("fu\u{df}ball@example.com", "fussball@example.com"),
        ("\u{3c0}@example.com", "\u{3c0}@example.com"),
        ("\u{3a3}@example.com/foo", "\u{3c3}@example.com/foo"),
        ("\u{3c3}@example.com/foo", "\u{3c3}@example.com/foo"),
        ("\u{3c2}@example.com/foo", "\u{3c3}@example.com/foo"),
        ("king@example.com/\u{265a}", "king@example.com/\u{265a}"),
        ("example.com", "example.com"),
        ("example.com/foobar", "example.com/foobar"),
        ("a.example.com/b@example.net", "a.example.com/b@example.net"),
    ] {
        assert_eq!(text(raw).as_deref(), Ok(normal), "{raw}");
    }
    // RFC 7622, 3.5, table 2, and more of the kind.
    for (raw, why) in [
        ("\"juliet\"@example.com", Malformed::LocalProhibited),
        ("foo bar@example.com", Malformed::LocalProhibited),
        ("juliet@example.com/", Malformed::ResourceEmpty),
        ("@example.com", Malformed::LocalEmpty),
        ("@example.com/foo", Malformed::LocalEmpty),
        ("juliet@", Malformed::DomainEmpty),
        ("juliet@/foo", Malformed::DomainEmpty),
        ("/foobar", Malformed::DomainEmpty),
        ("", Malformed::DomainEmpty),
        (".", Malformed::DomainEmpty),
        ("a@b@example.com", Malformed::DomainInvalid),
        ("a@example..com", Malformed::DomainInvalid),
        ("a@-example.com", Malformed::DomainInvalid),
        ("a@exa mple.com", Malformed::DomainInvalid),
        ("a@exa_mple.com", Malformed::DomainInvalid),
        ("a@xn--a.com", Malformed::DomainInvalid),
        ("a@example.com/\u{7}", Malformed::ResourceProhibited),
        ("a\u{e000}@example.com", Malformed::LocalProhibited),
        // Right-to-left letters and Latin ones in one part.
        ("\u{5d0}a@example.com", Malformed::LocalProhibited),
    ] {
        assert_eq!(text(raw), Err(why), "{raw:?}");
    }
}

#[test]
fn ip_addresses_are_no_domains() {
    for raw in [
        "a@192.0.2.1",
        "a@[2001:db8::1]",
        "2001:db8::1",
        "a@127.1",
        "a@2130706433",
        "a@0x7f000001",
        "a@192.0.2.1.",
        "a@\u{ff11}92.0.2.1",
    ] {
        assert_eq!(text(raw), Err(Malformed::DomainIsIpLiteral), "{raw}");
    }
    assert_eq!(text("a@1.example").as_deref(), Ok("a@1.example"));
    assert_eq!(text("a@example.3com").as_deref(), Ok("a@example.3com"));
}

#[test]
fn domains_become_lower_case_a_labels_without_a_final_dot() {
    for (raw, normal) in [
        ("Example.COM.", "example.com"),
        ("b\u{fc}cher.example", "xn--bcher-kva.example"),
        ("B\u{dc}CHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("example\u{3002}com", "example.com"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(text(raw).as_deref(), Ok(normal), "{raw}");
    }
}

#[test]
fn what_looks_alike_stays_apart_and_what_is_alike_meets() {
    // Cyrillic a, Latin a: RFC 7622, 7.3.2 leaves them two users.
    assert_ne!(text("p\u{430}ypal@example.com"), text("paypal@example.com"));
    // Compatibility forms are one user.
    assert_eq!(text("\u{ff4a}ulie\u{ff54}@example.com"), text("juliet@example.com"));
    assert_eq!(text("\u{212b}ngstrom@example.com"), text("\u{e5}ngstrom@example.com"));
    assert_eq!(text("Stra\u{df}e@example.com"), text("STRASSE@example.com"));
    // Invisible characters vanish instead of making a second one.
    assert_eq!(text("ju\u{ad}liet@example.com"), text("juliet@example.com"));
    // Normalisation makes no separators: these would become @ and /.
    assert_eq!(text("a\u{ff20}b@example.com"), Err(Malformed::LocalProhibited));
    assert_eq!(text("a@example.com\u{ff0f}x"), Err(Malformed::DomainInvalid));
    // Resources keep their case.
    assert_eq!(text("A@B.example/C").as_deref(), Ok("a@b.example/C"));
    // Newer than Unicode 3.2.
    assert_eq!(text("r@b.example/\u{1f600}").as_deref(), Ok("r@b.example/\u{1f600}"));
    assert_eq!(text("\u{1d2c}@b.example").as_deref(), Ok("a@b.example"));
}

#[test]
fn parts_are_found_again() {
    let it = Address::parse("Romeo@Example.net/Orchard/2@x").unwrap();
    assert_eq!(it.local(), Some("romeo"));
    assert_eq!(it.domain(), "example.net");
    assert_eq!(it.resource(), Some("Orchard/2@x"));
    assert_eq!(it.bare(), "romeo@example.net");
    assert_eq!(it.to_bare().full(), "romeo@example.net");
    assert_eq!(it.bare_hash(), it.to_bare().bare_hash());
    assert_eq!(it.slot(), Slot::of(xxh3_64(b"romeo@example.net")));
    assert_eq!(it.to_bare().with_resource("y").unwrap().full(), "romeo@example.net/y");
    assert_eq!(it.with_resource("y").unwrap().full(), "romeo@example.net/y");
    assert_eq!(it.with_resource(""), Err(Malformed::ResourceEmpty));
    let host = Address::parse("example.net/x").unwrap();
    assert_eq!((host.local(), host.domain(), host.bare()), (None, "example.net", "example.net"));
    assert_eq!(Address::of(Some("ROMEO"), "Example.net", None).unwrap(), it.to_bare());
    assert_eq!(Address::of(Some("a@b"), "x.example", None), Err(Malformed::LocalProhibited));
    assert_eq!(Slot::new(SLOT_COUNT), None);
}

#[test]
fn normal_ascii_is_borrowed() {
    for raw in ["juliet@example.com/balcony", "example.com", "a.b+c@x.example", r"a\20b@x.example"]
    {
        let mut scratch = String::new();
        let it = AddressRef::parse(raw, &mut scratch).unwrap();
        assert!(std::ptr::eq(it.full().as_ptr(), raw.as_ptr()));
    }
}

#[test]
fn both_ways_agree_on_ascii() {
    let letters = b"aZ0-.@/\\ :x~!\x7f";
    let mut dice = Dice(7);
    let mut scratch = String::new();
    for _ in 0..rounds(2_000_000) {
        let mut raw: String =
            (0..dice.roll(9)).map(|_| char::from(letters[dice.roll(letters.len())])).collect();
        raw.push_str(["", "@b.c", ".de", "/x", "@xn--bcher-kva.x"][dice.roll(5)]);
        let Some(fast) = already_normal(&raw) else { continue };
        let slow = prepare::normalise(&raw, &mut scratch).expect(&raw);
        assert_eq!(fast, slow);
        assert_eq!(fast.local(), slow.local());
        assert_eq!(fast.domain(), slow.domain());
        assert_eq!(fast.resource(), slow.resource());
    }
}

/// A text of exactly `octets` octets whose last character has 1-4 of them.
fn part_of(octets: usize, dice: &mut Dice) -> String {
    let wide = ["a", "\u{e9}", "\u{4e2d}", "\u{10330}"];
    let last = wide[dice.roll(4)];
    let filler = wide[dice.roll(4)];
    let mut part = String::with_capacity(octets);
    while part.len() + filler.len() + last.len() <= octets {
        part.push_str(filler);
    }
    while part.len() + last.len() < octets {
        part.push('b');
    }
    part.push_str(last);
    part
}

#[test]
fn nothing_is_cut_around_the_longest_parts() {
    let mut dice = Dice(1_023);
    for _ in 0..rounds(1_000_000) {
        let octets = 1_020 + dice.roll(11);
        let part = part_of(octets, &mut dice);
        assert_eq!(part.len(), octets);
        let (raw, long) = if dice.roll(2) == 0 {
            (format!("{part}@x.example"), Malformed::LocalTooLong)
        } else {
            (format!("a@x.example/{part}"), Malformed::ResourceTooLong)
        };
        let expected = if octets <= 1_023 { Ok(raw.clone()) } else { Err(long) };
        assert_eq!(text(&raw), expected);
    }
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(text(&longest).as_deref(), Ok(&*longest));
    assert_eq!(text(&format!("{longest}a")), Err(Malformed::DomainTooLong));
    assert_eq!(text(&format!("{label}a.example")), Err(Malformed::DomainInvalid));
    assert_eq!(text(&format!("{}.example", "\u{e9}".repeat(600))), Err(Malformed::DomainTooLong));
}

#[test]
fn preparing_twice_changes_nothing() {
    let mut dice = Dice(42);
    let spans =
        [(0, 0x250), (0x250, 0x2000), (0x2000, 0x3400), (0xf900, 0x600), (0x1_0000, 0x1_0000)];
    let character = |dice: &mut Dice| {
        let (start, len) = spans[dice.roll(spans.len())];
        char::from_u32(u32::try_from(start + dice.roll(len.max(1))).unwrap_or(0)).unwrap_or('x')
    };
    for _ in 0..rounds(1_000_000) {
        let part: String = (0..1 + dice.roll(3)).map(|_| character(&mut dice)).collect();
        for raw in
            [format!("{part}@x.example"), format!("x.example/{part}"), format!("{part}.example")]
        {
            let Ok(once) = Address::parse(&raw) else { continue };
            let twice = Address::parse(once.full());
            assert_eq!(twice.as_ref(), Ok(&once), "{raw:?}");
            assert_eq!(twice.map(|it| it.bare().len()), Ok(once.bare().len()));
        }
    }
}

#[test]
fn every_character_is_prepared_as_the_profiles_say() {
    // The planes that hold characters, and a sample of the empty ones.
    let numbers = (0..0x3_0000).chain((0x3_0000..0x11_0000).step_by(61));
    for c in numbers.filter_map(char::from_u32) {
        let raw = format!("x{c}");
        // One pass of theirs may leave more to fold; then the second one is compared.
        let twice = |prepare: fn(&str) -> Result<Cow<'_, str>, stringprep::Error>| {
            let once = prepare(&raw).ok()?;
            prepare(&once).ok().map(Cow::into_owned)
        };
        if let Some(theirs) = twice(stringprep::nodeprep) {
            assert_eq!(prepare_local(&raw).as_deref(), Ok(&*theirs), "{:x}", u32::from(c));
        }
        if let Some(theirs) = twice(stringprep::resourceprep) {
            assert_eq!(prepare_resource(&raw).as_deref(), Ok(&*theirs), "{:x}", u32::from(c));
        }
        let settled = prepare_local(&raw).map(|it| prepare_local(&it).as_deref() == Ok(&*it));
        assert_ne!(settled, Ok(false), "{:x}", u32::from(c));
    }
}
