//! Tables of answers and the steps that follow from them.

use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::limits::{DNS_ADDRESSES_MAX, DNS_FAILURES_MAX, DNS_SRV_MAX};
use crate::time::Moment;

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Srv {
    Srv { priority, weight, port, target: target.to_owned() }
}

fn records(list: &[(u16, u16, u16, &str)]) -> Answer {
    Answer::Records(list.iter().map(|it| srv(it.0, it.1, it.2, it.3)).collect())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const OPEN: Permits<'static> = Permits { is_own: &|_, _| false, allows_private: &|_| false };

/// Runs a plan in which every host has the addresses `lookup` says; returns what was done, as text.
fn run(
    plan: &mut Plan,
    lookup: &dyn Fn(&str) -> Option<Vec<IpAddr>>,
    permits: Permits<'_>,
) -> Vec<String> {
    let mut said = Vec::new();
    for _ in 0..1_000 {
        match plan.step() {
            Step::Resolve(host) => {
                let addresses = lookup(&host);
                said.push(format!("? {host}"));
                plan.resolved(addresses.as_deref(), &Failures::default(), permits, Moment(0));
            }
            Step::Connect(it) => {
                let kind = if it.kind == Kind::DirectTls { "direct" } else { "starttls" };
                said.push(format!("{kind} {} {} {}", it.host, it.address, it.port));
            }
            Step::Exhausted(why) => {
                said.push(format!("{why:?}"));
                return said;
            }
        }
    }
    panic!("the plan does not end");
}

fn one(_: &str) -> Option<Vec<IpAddr>> {
    Some(vec![ip("203.0.113.7")])
}

#[test]
fn which_targets_in_which_order() {
    use Answer::{Absent, Failed};
    let rows: Vec<(&str, Answer, Answer, &[&str])> = vec![
        (
            "no SRV at all",
            Absent,
            Absent,
            &["? example.net", "starttls example.net 203.0.113.7 5269", "AllTried"],
        ),
        (
            "one kind",
            Absent,
            records(&[(5, 0, 5269, "x.example.net.")]),
            &["? x.example.net", "starttls x.example.net 203.0.113.7 5269", "AllTried"],
        ),
        (
            "both kinds are one list",
            records(&[(20, 0, 443, "d.example.net.")]),
            records(&[(10, 0, 5269, "S.example.net")]),
            &[
                "? s.example.net",
                "starttls s.example.net 203.0.113.7 5269",
                "? d.example.net",
                "direct d.example.net 203.0.113.7 443",
                "AllTried",
            ],
        ),
        (
            "a dot: this kind is not offered",
            records(&[(0, 0, 0, ".")]),
            records(&[(10, 0, 5269, "s.example.net")]),
            &["? s.example.net", "starttls s.example.net 203.0.113.7 5269", "AllTried"],
        ),
        ("both dots", records(&[(0, 0, 0, ".")]), records(&[(0, 0, 0, ".")]), &["NotOffered"]),
        ("a dot and nothing: no guess", Absent, records(&[(0, 0, 0, ".")]), &["NotOffered"]),
        ("no answer is not 'none'", Failed, Absent, &["LookupFailed"]),
        ("no answer to both", Failed, Failed, &["LookupFailed"]),
        ("a dot, and no answer", records(&[(0, 0, 0, ".")]), Failed, &["LookupFailed"]),
        (
            "one kind answers",
            Failed,
            records(&[(1, 1, 5269, "s.example.net")]),
            &["? s.example.net", "starttls s.example.net 203.0.113.7 5269", "AllTried"],
        ),
        (
            "names that no host has",
            Absent,
            records(&[
                (0, 0, 1, "b\u{fc}cher.example"),
                (0, 0, 2, "a..b"),
                (0, 0, 0, "x.example"),
                (0, 0, 4, ""),
            ]),
            &["NoAddress"],
        ),
    ];
    for (what, direct, starttls, expected) in rows {
        let mut plan = Plan::new("Example.net", direct, starttls, &mut || 0);
        assert_eq!(run(&mut plan, &one, OPEN), expected, "{what}");
    }
}

#[test]
fn no_address_no_fallback() {
    let answer = || records(&[(1, 0, 5269, "a.example"), (2, 0, 5269, "b.example")]);
    let new = || Plan::new("example.net", Answer::Absent, answer(), &mut || 0);
    assert_eq!(
        run(&mut new(), &|_| Some(vec![]), OPEN),
        ["? a.example", "? b.example", "NoAddress"]
    );
    assert_eq!(run(&mut new(), &|_| None, OPEN), ["? a.example", "? b.example", "LookupFailed"]);
}

#[test]
fn weights_share() {
    let answer =
        records(&[(1, 10, 1, "a.example"), (1, 30, 2, "b.example"), (1, 0, 3, "c.example")]);
    let mut seed = 1_u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 3
    };
    let mut first = [0_u32; 3];
    for _ in 0..10_000 {
        let mut plan = Plan::new("example.net", Answer::Absent, answer.clone(), &mut random);
        let Step::Resolve(host) = plan.step() else { panic!("a host was expected") };
        first[usize::from(host.as_bytes()[0] - b'a')] += 1;
    }
    // RFC 2782: 10, 30 and almost nothing of 41.
    assert!((2_200..2_700).contains(&first[0]), "{first:?}");
    assert!((7_000..7_600).contains(&first[1]), "{first:?}");
    assert!((100..400).contains(&first[2]), "{first:?}");
}

#[test]
fn every_record_comes_once_whatever_the_dice_say() {
    for dice in [0, 1, 40, 41, u32::MAX] {
        let answer =
            records(&[(1, 10, 1, "a.example"), (1, 30, 2, "b.example"), (1, 0, 3, "c.example")]);
        let mut plan = Plan::new("example.net", Answer::Absent, answer, &mut || dice);
        let said = run(&mut plan, &one, OPEN);
        for host in ["? a.example", "? b.example", "? c.example"] {
            assert_eq!(said.iter().filter(|it| *it == host).count(), 1, "{dice}: {said:?}");
        }
    }
}

#[test]
fn families_take_turns() {
    let all = ["203.0.113.1", "203.0.113.2", "203.0.113.1", "2001:db8::1", "2001:db8::2"].map(ip);
    let mut plan = Plan::fixed(&[(Kind::DirectTls, "a.example".to_owned(), 5270)]);
    let said = run(&mut plan, &|_| Some(all.to_vec()), OPEN);
    let order = ["2001:db8::1", "203.0.113.1", "2001:db8::2", "203.0.113.2"];
    assert_eq!(said[1..5], order.map(|it| format!("direct a.example {it} 5270")));
}

#[test]
fn what_may_not_be_reached() {
    let table = [
        ("203.0.113.1", Scope::Public),
        ("172.15.0.1", Scope::Public),
        ("172.16.0.1", Scope::Private),
        ("172.32.0.1", Scope::Public),
        ("10.0.0.1", Scope::Private),
        ("127.0.0.1", Scope::Private),
        ("192.168.1.1", Scope::Private),
        ("169.254.169.254", Scope::Private),
        ("100.64.0.1", Scope::Private),
        ("0.0.0.0", Scope::Unusable),
        ("224.0.0.1", Scope::Unusable),
        ("255.255.255.255", Scope::Unusable),
        ("2001:db8::1", Scope::Public),
        ("::1", Scope::Private),
        ("::", Scope::Unusable),
        ("ff02::1", Scope::Unusable),
        ("fe80::1", Scope::Private),
        ("fd00::1", Scope::Private),
        ("::ffff:10.0.0.1", Scope::Private),
        ("::ffff:203.0.113.1", Scope::Public),
        ("64:ff9b::7f00:1", Scope::Private),
        ("2002:a00:1::", Scope::Private),
        ("::127.0.0.1", Scope::Private),
    ];
    for (address, expected) in table {
        assert_eq!(scope(ip(address)), expected, "{address}");
    }
    let tried = |permits: Permits<'_>| {
        let lookup = |_: &str| Some(vec![ip("127.0.0.1"), ip("203.0.113.9"), ip("224.0.0.1")]);
        let plan = &mut Plan::fixed(&[(Kind::StartTls, "a.example".to_owned(), 5269)]);
        let said = run(plan, &lookup, permits);
        said[1..].iter().map(|it| it.replace("starttls a.example ", "")).collect::<Vec<_>>()
    };
    assert_eq!(tried(OPEN), ["203.0.113.9 5269", "AllTried"]);
    assert_eq!(
        tried(Permits { allows_private: &|it| it.is_loopback(), ..OPEN }),
        ["127.0.0.1 5269", "203.0.113.9 5269", "AllTried"]
    );
    let own = |_: IpAddr, port: u16| port == 5269;
    assert_eq!(tried(Permits { is_own: &own, allows_private: &|_| true }), ["Forbidden"]);
}

#[test]
fn what_failed_lately_comes_last() {
    let mut failures = Failures::default();
    let now = Moment(1_000);
    failures.note(ip("203.0.113.1"), 5269, now);
    let order = |at: Moment| {
        let (a, b) = ("a.example".to_owned(), "b.example".to_owned());
        let mut plan = Plan::fixed(&[(Kind::StartTls, a, 5269), (Kind::StartTls, b, 5269)]);
        let mut order = Vec::new();
        loop {
            match plan.step() {
                Step::Resolve(host) => {
                    let address = if host == "a.example" { "203.0.113.1" } else { "203.0.113.2" };
                    plan.resolved(Some(&[ip(address)]), &failures, OPEN, at);
                }
                Step::Connect(it) => order.push(it.host),
                Step::Exhausted(_) => return order,
            }
        }
    };
    assert_eq!(order(now), ["b.example", "a.example"]);
    assert_eq!(order(now + Duration::from_secs(61)), ["a.example", "b.example"]);
}

#[test]
fn failures_are_bounded_and_forgotten() {
    let mut failures = Failures::default();
    for i in 0..5_000_u32 {
        failures.note(IpAddr::from(i.to_be_bytes()), 5269, Moment(u64::from(i)));
    }
    assert_eq!(failures.len(), DNS_FAILURES_MAX);
    assert!(failures.has(IpAddr::from(4_999_u32.to_be_bytes()), 5269, Moment(5_000)));
    assert!(!failures.has(IpAddr::from(0_u32.to_be_bytes()), 5269, Moment(5_000)));
    failures.forget(IpAddr::from(4_999_u32.to_be_bytes()), 5269);
    assert_eq!(failures.len(), DNS_FAILURES_MAX - 1);
    assert!(!failures.is_empty());
}

#[test]
fn bounds_hold() {
    let many = |port| {
        Answer::Records((0..500).map(|i| srv(i, 0, port, &format!("h{i}.example"))).collect())
    };
    let lookup = |_: &str| Some(vec![ip("203.0.113.1")]);
    let said = run(&mut Plan::new("x.example", many(1), many(2), &mut || 9), &lookup, OPEN);
    assert_eq!(said.iter().filter(|it| it.starts_with('?')).count(), DNS_SRV_MAX);
    assert!(said.iter().any(|it| it.starts_with("direct")));
    assert!(said.iter().any(|it| it.starts_with("starttls")));
    let crowd: Vec<IpAddr> =
        (0..200_u32).map(|i| IpAddr::from((0xCB00_7100 + i).to_be_bytes())).collect();
    let said = run(
        &mut Plan::new("x.example", many(1), Answer::Absent, &mut || 9),
        &|_| Some(crowd.clone()),
        OPEN,
    );
    assert_eq!(said.iter().filter(|it| it.starts_with("direct")).count(), DNS_ADDRESSES_MAX);
}
