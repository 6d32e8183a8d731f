//! Certificates of every kind against every policy, both ways.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

use super::*;
use crate::policy::{
    Edge, Im, Pattern, PeerAuth, Pidf, Profile, Protocol, Rule, Security, SipRule, SipTarget,
};

/// A certificate with these names: `dns`, `sip:uri`, `cn=name`.
fn verdict(names: &[&str]) -> Verdict {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for name in names {
        if let Some(name) = name.strip_prefix("cn=") {
            params.distinguished_name.push(DnType::CommonName, name);
        } else if name.contains(':') {
            params.subject_alt_names.push(SanType::URI((*name).try_into().unwrap()));
        } else {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into().unwrap()));
        }
    }
    let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    Verdict { chain: Ok(()), names: Names::of(made.der()), not_after: None }
}

fn rule(identity: Identity, transport: Transport, names: &[&str], targets: &[&str]) -> Rule {
    let host = |it: &str| match it.parse() {
        Ok(address) => SipHost::Address(address),
        Err(_) => SipHost::Name(it.to_owned()),
    };
    Rule {
        allow: true,
        protocol: Protocol::Sip(Box::new(SipRule {
            identity,
            names: names.iter().map(|it| (*it).to_owned()).collect(),
            targets: targets.iter().map(|it| SipTarget { host: host(it), port: 5061 }).collect(),
            transport,
            rate: 20,
            im: Im::Session,
            pidf: Pidf::Microsoft,
        })),
        profile: Profile::Lync,
        auth: PeerAuth::External,
        security: Security::Direct,
        targets: Vec::new(),
        private_addresses: false,
    }
}

/// m: microsoft, h: microsoft with a host by hand, f: fixed, r: rfc5922, c: clear, x: XMPP, n: no.
fn policy() -> Policy {
    use Identity::{Fixed, Microsoft, Rfc5922};
    use Transport::{Tcp, Tls};
    let xmpp =
        Rule { protocol: Protocol::Xmpp, profile: Profile::Xmpp, ..rule(Fixed, Tls, &[], &[]) };
    let rules = [
        ("m.example", rule(Microsoft, Tls, &[], &[])),
        ("h.example", rule(Microsoft, Tls, &[], &["edge.host.example"])),
        ("f.example", rule(Fixed, Tls, &["sipfed.online.lync.com", "two.example"], &[])),
        ("r.example", rule(Rfc5922, Tls, &[], &[])),
        ("c.example", rule(Microsoft, Tcp, &[], &["127.0.0.5"])),
        ("x.example", xmpp.clone()),
        ("n.example", Rule { allow: false, ..rule(Microsoft, Tls, &[], &[]) }),
        (".behind.example", rule(Microsoft, Tls, &[], &[])),
    ];
    let rules = rules.map(|(it, rule)| (Pattern::parse(it).unwrap(), rule));
    let edge = Edge {
        name: "expressway.corp.example".into(),
        speaks_for: vec![Pattern::parse("*.behind.example").unwrap()],
        targets: Vec::new(),
    };
    let default = Rule { allow: false, ..xmpp };
    Policy::new(default, rules.into()).with_edges(vec![edge])
}

/// How it ends, in a word.
fn word(it: &Speaks) -> &'static str {
    match it {
        Speaks::Yes => "yes",
        Speaks::AskDns => "ask",
        Speaks::No(Mismatch::NotAllowed) => "not allowed",
        Speaks::No(Mismatch::Chain(_)) => "chain",
        Speaks::No(Mismatch::Name { .. }) => "name",
        Speaks::No(Mismatch::NoTarget) => "no target",
        Speaks::No(Mismatch::Address) => "address",
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn whose_requests_a_certificate_covers() {
    // From's domain, the names in the certificate, SRV targets if known, may it.
    type Row =
        (&'static str, &'static [&'static str], Option<&'static [&'static str]>, &'static str);
    let rows: &[Row] = &[
        ("m.example", &["sip.m.example"], Some(&["sip.m.example"]), "yes"),
        ("m.example", &["SIP.M.example"], Some(&["sip.m.example"]), "yes"),
        ("m.example", &["m.example"], Some(&["m.example"]), "yes"),
        (
            "m.example",
            &["a.m.example", "b.m.example"],
            Some(&["x.m.example", "b.m.example"]),
            "yes",
        ),
        ("m.example", &["sip.m.example"], None, "ask"),
        ("m.example", &["sip.m.example"], Some(&[]), "no target"),
        // The domain alone is not the target, nor is a wildcard, nor a neighbour.
        ("m.example", &["m.example"], Some(&["sip.m.example"]), "name"),
        ("m.example", &["*.m.example"], Some(&["sip.m.example"]), "name"),
        ("m.example", &["sip.m.example.evil.net"], Some(&["sip.m.example"]), "name"),
        ("m.example", &["sip.other.example"], Some(&["sip.m.example"]), "name"),
        // A target outside the domain or too deep in it never counts, though the certificate has it.
        ("m.example", &["sip.other.example"], Some(&["sip.other.example"]), "no target"),
        ("m.example", &["a.b.m.example"], Some(&["a.b.m.example"]), "no target"),
        ("m.example", &["evilm.example"], Some(&["evilm.example"]), "no target"),
        // The common name: without subjectAltName only.
        ("m.example", &["cn=sip.m.example"], Some(&["sip.m.example"]), "yes"),
        ("m.example", &["cn=sip.m.example", "other.example"], Some(&["sip.m.example"]), "name"),
        ("m.example", &["cn=sip.m.example", "cn=b.example"], Some(&["sip.m.example"]), "name"),
        ("m.example", &["cn=*.m.example"], Some(&["sip.m.example"]), "name"),
        // Subdomains are others.
        ("sub.m.example", &["sip.m.example"], Some(&["sip.m.example"]), "not allowed"),
        ("x.example", &["sip.x.example"], Some(&["sip.x.example"]), "not allowed"),
        ("n.example", &["sip.n.example"], Some(&["sip.n.example"]), "not allowed"),
        ("other.example", &["sip.other.example"], Some(&["sip.other.example"]), "not allowed"),
        // By hand: the host that was written down, without DNS.
        ("h.example", &["edge.host.example"], None, "yes"),
        ("h.example", &["sip.h.example"], Some(&["sip.h.example"]), "name"),
        ("f.example", &["sipfed.online.lync.com"], None, "yes"),
        ("f.example", &["two.example"], None, "yes"),
        ("f.example", &["*.online.lync.com"], None, "name"),
        ("f.example", &["f.example", "sip.f.example"], Some(&["sip.f.example"]), "name"),
        ("f.example", &["cn=sipfed.online.lync.com"], None, "yes"),
        // RFC 5922: URIs before hosts.
        ("r.example", &["sip:r.example"], None, "yes"),
        ("r.example", &["SIP:R.example"], None, "yes"),
        ("r.example", &["r.example"], None, "yes"),
        ("r.example", &["cn=r.example"], None, "yes"),
        ("r.example", &["sip:other.example", "r.example"], None, "name"),
        ("r.example", &["sip:user@r.example", "r.example"], None, "yes"),
        ("r.example", &["sip:user@r.example"], None, "name"),
        ("r.example", &["sips:r.example"], None, "name"),
        ("r.example", &["https://r.example"], None, "name"),
        ("r.example", &["*.example"], None, "name"),
        ("r.example", &["*.r.example", "sip.r.example"], Some(&["sip.r.example"]), "name"),
        ("r.example", &["cn=r.example", "sip:other.example"], None, "name"),
        // Behind an edge its name decides, for what it speaks for and no more.
        ("a.behind.example", &["expressway.corp.example"], None, "yes"),
        ("a.behind.example", &["sip.a.behind.example"], Some(&["sip.a.behind.example"]), "name"),
        ("a.b.behind.example", &["expressway.corp.example"], None, "ask"),
        (
            "a.b.behind.example",
            &["expressway.corp.example"],
            Some(&["x.a.b.behind.example"]),
            "name",
        ),
        ("m.example", &["expressway.corp.example"], Some(&["sip.m.example"]), "name"),
        // A rule without TLS knows an address, not a certificate.
        ("c.example", &["sip.c.example"], Some(&["sip.c.example"]), "address"),
        ("m.example", &[], Some(&["sip.m.example"]), "name"),
    ];
    let policy = policy();
    for (domain, names, targets, expected) in rows {
        let targets = targets.map(|it| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        let verdict = verdict(names);
        let found = speaks_for(&policy, domain, Shown::Certificate(&verdict), targets.as_deref());
        assert_eq!(word(&found), *expected, "{domain} {names:?} {targets:?}");
        // A bad chain is nobody's, whatever its names are.
        let bad = Verdict { chain: Err(ChainFault::BadSignature), ..verdict };
        let found = speaks_for(&policy, domain, Shown::Certificate(&bad), targets.as_deref());
        assert_ne!(found, Speaks::Yes);
    }
}

#[test]
fn a_proxys_word_and_an_address() {
    let policy = policy();
    let targets = ["sip.m.example".to_owned()];
    let ip = |it: &str| Shown::Address(it.parse().unwrap());
    for (domain, shown, expected) in [
        ("m.example", Shown::Vouched("sip.m.example"), "yes"),
        ("m.example", Shown::Vouched("SIP.m.example"), "yes"),
        ("m.example", Shown::Vouched("sip.other.example"), "name"),
        ("m.example", Shown::Vouched("not a host"), "name"),
        ("m.example", Shown::Vouched(""), "name"),
        ("r.example", Shown::Vouched("r.example"), "yes"),
        ("f.example", Shown::Vouched("two.example"), "yes"),
        ("a.behind.example", Shown::Vouched("expressway.corp.example"), "yes"),
        ("c.example", Shown::Vouched("c.example"), "address"),
        ("c.example", ip("127.0.0.5"), "yes"),
        ("c.example", ip("::ffff:127.0.0.5"), "yes"),
        ("c.example", ip("127.0.0.6"), "address"),
        ("m.example", ip("127.0.0.5"), "address"),
        ("a.behind.example", ip("127.0.0.5"), "address"),
        ("x.example", ip("127.0.0.5"), "not allowed"),
    ] {
        let found = speaks_for(&policy, domain, shown, Some(&targets));
        assert_eq!(word(&found), expected, "{domain} {shown:?}");
    }
}

#[test]
fn the_server_we_connect_to_is_the_right_one() {
    let policy = policy();
    for (domain, target, names, expected) in [
        ("m.example", "sip.m.example", &["sip.m.example"][..], true),
        ("m.example", "sip.m.example", &["b.m.example"], false),
        ("m.example", "sip.m.example", &["*.m.example"], false),
        ("h.example", "edge.host.example", &["edge.host.example"], true),
        ("f.example", "127.0.0.1", &["two.example"], true),
        ("f.example", "sip.f.example", &["sip.f.example"], false),
        ("r.example", "proxy.host.example", &["sip:r.example"], true),
        ("r.example", "proxy.host.example", &["proxy.host.example"], false),
        ("a.behind.example", "any", &["expressway.corp.example"], true),
        ("a.behind.example", "sip.a.behind.example", &["sip.a.behind.example"], false),
    ] {
        let peer = policy.sip(domain).expect("allowed");
        let found = is_server_of(&peer, domain, target, &verdict(names));
        assert_eq!(found.is_ok(), expected, "{domain} {target} {names:?}");
        if let Err(mismatch) = found {
            assert!(mismatch.to_string().contains("wanted is"), "{mismatch}");
        }
    }
    let peer = policy.sip("m.example").expect("allowed");
    let bad = Verdict { chain: Err(ChainFault::BadSignature), ..verdict(&["sip.m.example"]) };
    assert!(is_server_of(&peer, "m.example", "sip.m.example", &bad).is_err());
}

#[test]
fn where_dns_may_lead() {
    let policy = policy();
    for (domain, target, expected) in [
        ("m.example", "m.example", true),
        ("m.example", "sip.m.example", true),
        ("m.example", "a.sip.m.example", false),
        ("m.example", "sip.other.example", false),
        ("m.example", ".m.example", false),
        ("f.example", "sipfed.online.lync.com", true),
        ("r.example", "proxy.host.example", true),
    ] {
        let peer = policy.sip(domain).expect("allowed");
        assert_eq!(may_target(&peer, domain, target), expected, "{domain} {target}");
    }
}

#[test]
fn a_closed_federation_knows_its_own() {
    let policy = policy();
    for (names, expected) in [
        (&["sip.m.example"][..], true),
        (&["m.example"], true),
        (&["edge.host.example"], true),
        (&["sipfed.online.lync.com"], true),
        (&["sip:r.example"], true),
        (&["expressway.corp.example"], true),
        (&["cn=sip.m.example"], true),
        (&["sip.n.example"], false),
        (&["sip.x.example"], false),
        (&["*.m.example"], false),
        (&["a.sip.m.example"], false),
        (&["stranger.example", "sip.stranger.example"], false),
        (&[], false),
    ] {
        assert_eq!(is_of_somebody(&policy, &verdict(names).names), expected, "{names:?}");
    }
}

#[test]
fn connections_of_one_far_side_share_a_name() {
    let policy = policy();
    for (domain, name) in [
        ("m.example", "m.example"),
        ("f.example", "sipfed.online.lync.com"),
        ("a.behind.example", "expressway.corp.example"),
        ("b.behind.example", "expressway.corp.example"),
        ("a.b.behind.example", "a.b.behind.example"),
        ("c.example", "c.example"),
    ] {
        assert_eq!(policy.sip(domain).expect("allowed").name(domain), name);
    }
}
