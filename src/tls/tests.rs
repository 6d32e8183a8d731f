//! Sessions against each other, and the certificate matrix.

use rcgen::ExtendedKeyUsagePurpose as Eku;

use super::testing::{Ca, DAY, Made, Pair, Recipe, San, TODAY, carry, clock, store, wall};
use super::*;

fn dns(name: &'static str) -> San {
    San::Dns(name.as_bytes())
}

fn made(domain: &'static str) -> (Ca, Made) {
    let ca = Ca::new("Test Authority");
    let made = ca.make(&Recipe::new(&[dns(domain)]));
    (ca, made)
}

#[test]
fn a_conversation_in_any_pieces() {
    let (_, it) = made("example.com");
    let store = store(&[(&it, "example.com")]);
    for piece in [1, 7, 300, 100_000] {
        let mut pair = Pair::of(&store, Use::C2s, None, "example.com");
        pair.shake_hands(piece).unwrap();
        assert_eq!(pair.server.version(), Some("TLSv1.3"));
        assert!(pair.server.suite().unwrap().starts_with("TLS13_"));
        assert_eq!(pair.server.sni(), Some("example.com"));
        assert_eq!(pair.server.exporter(), pair.client.exporter());
        assert!(pair.server.exporter().is_some());
        assert_eq!(pair.server.end_point(), pair.client.end_point());
        assert_eq!(pair.server.end_point().unwrap().len(), 32);
        assert!(pair.server.peer_certificates().is_empty());
        for length in [1, 300, 16_384, 100_000] {
            let text: Vec<u8> = (0..length).map(|i: u32| (i % 251) as u8).collect();
            let (mut wire, mut plain) = (Vec::new(), Vec::new());
            pair.client.seal(&text, &mut wire).unwrap();
            for piece in wire.chunks(piece) {
                pair.server.feed(piece, &mut plain).unwrap();
            }
            assert!(plain == text);
        }
        let mut wire = Vec::new();
        pair.client.close(&mut wire);
        wire.extend_from_slice(b"what follows is ignored");
        let fed = pair.server.feed(&wire, &mut Vec::new()).unwrap();
        assert!(fed.is_closed && !fed.is_established_now);
        assert!(pair.server.feed(b"and later", &mut Vec::new()).unwrap().is_closed);
    }
}

#[test]
fn what_fits_a_record_is_one_record() {
    let (_, it) = made("example.com");
    let store = store(&[(&it, "example.com")]);
    let mut pair = Pair::of(&store, Use::C2s, None, "example.com");
    assert_eq!(pair.client.seal(b"too early", &mut Vec::new()), Err(TlsFault::NotEstablished));
    pair.shake_hands(100_000).unwrap();
    let mut wire = Vec::new();
    pair.server.seal(&[7; 16_384], &mut wire).unwrap();
    assert_eq!(wire.len(), 16_384 + 22);
}

#[test]
fn established_is_said_once() {
    let (_, it) = made("example.com");
    let store = store(&[(&it, "example.com")]);
    let mut pair = Pair::of(&store, Use::C2s, None, "example.com");
    let mut times = (0, 0);
    for _ in 0..4 {
        let at_server = carry(&mut pair.client, &mut pair.server, 100_000).unwrap();
        let at_client = carry(&mut pair.server, &mut pair.client, 100_000).unwrap();
        times.0 += u32::from(at_server.is_established_now);
        times.1 += u32::from(at_client.is_established_now);
    }
    assert_eq!(times, (1, 1));
}

#[test]
fn certificate_by_sni_then_by_stream_then_default() {
    let ca = Ca::new("Test Authority");
    let first = ca.make(&Recipe::new(&[dns("example.com")]));
    let second = ca.make(&Recipe::new(&[dns("example.net"), dns("*.example.net")]));
    let store = store(&[(&first, "example.com"), (&second, "example.net")]);
    let shown = |domain: &str, stream_to: Option<&str>| {
        let client = Session::client(&store, Use::S2s, None, domain, false).unwrap();
        let mut pair = Pair::new(client, Session::server(&store, Use::S2s, stream_to));
        pair.shake_hands(100_000).unwrap();
        pair.client.peer_certificates()[0].clone()
    };
    assert_eq!(shown("example.com", None), first.der);
    assert_eq!(shown("example.net", None), second.der);
    assert_eq!(shown("chat.example.net", None), second.der);
    assert_eq!(shown("a.chat.example.net", None), first.der);
    assert_eq!(shown("elsewhere.example", None), first.der);
    // An address as the name: no SNI is sent.
    assert_eq!(shown("192.0.2.1", Some("example.net")), second.der);
    assert_eq!(shown("192.0.2.1", None), first.der);
}

#[test]
fn alpn_of_ours_of_none_of_strangers() {
    let (_, it) = made("example.com");
    let store = store(&[(&it, "example.com")]);
    let agreed = |client_speaks: Use, server_speaks: Use, is_direct: bool| {
        let client =
            Session::client(&store, client_speaks, None, "example.com", is_direct).unwrap();
        let mut pair = Pair::new(client, Session::server(&store, server_speaks, None));
        pair.shake_hands(100_000).unwrap();
        assert_eq!(pair.client.alpn(), pair.server.alpn());
        pair.server.alpn().map(<[u8]>::to_vec)
    };
    assert_eq!(agreed(Use::S2s, Use::S2s, true).unwrap(), b"xmpp-server");
    assert_eq!(agreed(Use::C2s, Use::C2s, true).unwrap(), b"xmpp-client");
    assert_eq!(agreed(Use::C2s, Use::C2s, false), None);
    assert_eq!(agreed(Use::C2s, Use::S2s, true), None);
}

/// A client as others write them: TLS of this version only, with these protocols.
fn foreign_client(version: &'static rustls::SupportedProtocolVersion, alpn: &[&[u8]]) -> Session {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = verifiers::KeyOnly(Arc::clone(&provider));
    let mut config = rustls::ClientConfig::builder_with_details(provider, Arc::new(clock()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    let name = "example.com".try_into().unwrap();
    Session::of_client(rustls::ClientConnection::new(Arc::new(config), name).unwrap())
}

#[test]
fn tls12_and_foreign_protocols() {
    let (_, it) = made("example.com");
    let store = store(&[(&it, "example.com")]);
    let shaken = |client: Session| {
        let mut pair = Pair::new(client, Session::server(&store, Use::C2s, None));
        pair.shake_hands(40).unwrap();
        pair.server
    };
    let server = shaken(foreign_client(&rustls::version::TLS12, &[]));
    assert_eq!(server.version(), Some("TLSv1.2"));
    assert!(server.suite().unwrap().starts_with("TLS_ECDHE_ECDSA_"));
    assert_eq!(server.exporter(), None);
    assert!(server.end_point().is_some());
    let server = shaken(foreign_client(&rustls::version::TLS13, &[b"http/1.1", b"h2"]));
    assert_eq!(server.alpn(), None);
    let server = shaken(foreign_client(&rustls::version::TLS13, &[b"h2", b"xmpp-client"]));
    assert_eq!(server.alpn(), Some(b"xmpp-client".as_slice()));
}

#[test]
fn a_client_certificate_is_taken_and_judged_afterwards() {
    let (ca, theirs) = made("peer.example");
    let their_store = store(&[(&theirs, "peer.example")]);
    let (_, mine) = made("example.com");
    let my_store = store(&[(&mine, "example.com")]);
    let client =
        Session::client(&their_store, Use::S2s, Some("peer.example"), "example.com", true).unwrap();
    let mut pair = Pair::new(client, Session::server(&my_store, Use::S2s, None));
    pair.shake_hands(50).unwrap();
    let chain = pair.server.peer_certificates().to_vec();
    assert_eq!(chain, std::slice::from_ref(&theirs.der));
    // Server auth only, in a client's hand: believed.
    let verdict = judge(&chain, &ca.roots(), wall(TODAY), Usage::AsClient);
    assert_eq!(verdict.proves("peer.example", Use::S2s), Ok(()));
    let stranger = judge(&chain, &Roots::default(), wall(TODAY), Usage::AsClient);
    assert!(matches!(stranger.chain, Err(ChainFault::UnknownIssuer { self_signed: false, .. })));
}

#[test]
fn garbage_ends_the_session_with_an_alert() {
    let (_, it) = made("example.com");
    let store = store(&[(&it, "example.com")]);
    let mut server = Session::server(&store, Use::C2s, None);
    let fault =
        server.feed(b"<?xml version='1.0'?><stream:stream to='example.com'>", &mut Vec::new());
    assert!(matches!(fault, Err(TlsFault::Malformed(_))), "{fault:?}");
    let mut alert = Vec::new();
    server.pending_out(&mut alert);
    assert_eq!(alert.first(), Some(&21));
    assert_eq!(server.feed(b"more", &mut Vec::new()), Err(TlsFault::NotEstablished));

    let mut pair = Pair::of(&store, Use::C2s, None, "example.com");
    pair.shake_hands(100_000).unwrap();
    let mut wire = Vec::new();
    pair.client.seal(b"text", &mut wire).unwrap();
    *wire.last_mut().unwrap() ^= 1;
    assert!(matches!(pair.server.feed(&wire, &mut Vec::new()), Err(TlsFault::Malformed(_))));
    assert!(pair.server.feed(&wire, &mut Vec::new()).is_err());
    assert!(pair.server.seal(b"text", &mut wire).is_err());
    let without = Arc::new(CertStore::build(&[], wall(TODAY), &clock()).unwrap());
    let mut pair = Pair::of(&without, Use::C2s, None, "example.com");
    assert!(matches!(pair.shake_hands(9_999), Err(TlsFault::Ours(_))));
}

#[test]
fn changed_bytes_never_panic() {
    let (_, it) = made("example.com");
    let store = store(&[(&it, "example.com")]);
    let mut hello = Vec::new();
    let mut client = Session::client(&store, Use::C2s, None, "example.com", true).unwrap();
    client.pending_out(&mut hello);
    let mut seed = 88_172_645_463_325_252_u64;
    for _ in 0..2_000 {
        let mut bytes = hello.clone();
        for _ in 0..3 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = (seed as usize >> 8) % bytes.len();
            bytes[at] ^= seed as u8;
        }
        let mut server = Session::server(&store, Use::C2s, None);
        for piece in bytes.chunks(1 + (seed as usize % 200)) {
            if server.feed(piece, &mut Vec::new()).is_err() {
                break;
            }
        }
        server.close(&mut Vec::new());
    }
}

#[test]
fn material_says_what_is_wrong() {
    let (ca, it) = made("example.com");
    let other = ca.make(&Recipe::new(&[dns("example.com")]));
    let old = ca.make(&Recipe { days: (-90, -1), ..Recipe::new(&[dns("example.com")]) });
    let soon = ca.make(&Recipe { days: (1, 9), ..Recipe::new(&[dns("example.com")]) });
    let load = |chain: &str, key: &str, domain: &str| {
        let domains = [domain.to_owned()];
        let (chain_pem, key_pem) = (chain.as_bytes(), key.as_bytes());
        let source = MaterialSource { chain_pem, key_pem, domains: &domains };
        CertStore::build(&[source], wall(TODAY), &clock())
            .map(|it| it.materials().next().unwrap().validity())
            .map_err(|faults| faults[0].1.to_string())
    };
    let refused = |chain: &str, key: &str, domain: &str| load(chain, key, domain).unwrap_err();
    let full = format!("{}{}", it.pem, ca.pem);
    assert_eq!(load(&full, &it.key_pem, "example.com"), Ok((TODAY - 10 * DAY, TODAY + 90 * DAY)));
    let texts = [
        refused("", &it.key_pem, "example.com"),
        refused(&it.pem, &it.pem, "example.com"),
        refused(&it.pem, &other.key_pem, "example.com"),
        refused(&format!("{}{}", it.pem, other.pem), &it.key_pem, "example.com"),
        refused(&format!("{}{}", ca.pem, it.pem), &it.key_pem, "example.com"),
        refused(&full, &it.key_pem, "example.net"),
        refused(&old.pem, &old.key_pem, "example.com"),
        refused(&soon.pem, &soon.key_pem, "example.com"),
        refused("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----", &it.key_pem, "x"),
    ];
    let expected = [
        "there is no certificate in the file",
        "there is no private key in the file",
        "the private key does not belong to the first certificate of the file",
        "the chain is out of order: certificate 1 was issued by CN=Test Authority, but CN=test follows",
        "the chain is out of order: certificate 1 was issued by CN=Test Authority, but CN=test follows",
        "the certificate does not cover example.net; it has example.com",
        "certificate 1 is valid from 2025-10-03 00:00:00 UTC to 2025-12-31 00:00:00 UTC; now is \
         2026-01-01 00:00:00 UTC, and an hour must be left",
        "certificate 1 is valid from 2026-01-02 00:00:00 UTC to 2026-01-10 00:00:00 UTC; now is \
         2026-01-01 00:00:00 UTC",
    ];
    for (text, expected) in texts.iter().zip(expected) {
        // A root in front of its own leaf: the root's issuer is itself, the leaf follows.
        assert_eq!(text, expected);
    }
    assert!(texts[8].starts_with("the file is not readable PEM"), "{}", texts[8]);
}

/// One row per certificate: its names, a domain, whether it speaks for it as server (S2s) and for clients (C2s).
#[test]
fn name_matrix() {
    let ca = Ca::new("Test Authority");
    let rows: Vec<(Vec<San>, &str, bool, bool)> = vec![
        (vec![dns("example.com")], "example.com", true, true),
        (vec![dns("EXAMPLE.com")], "example.COM", true, true),
        (vec![dns("example.com")], "chat.example.com", false, false),
        (vec![dns("example.com.")], "example.com", false, false),
        (vec![dns("example.com")], "example.com.", false, false),
        (vec![dns("*.example.com")], "chat.example.com", true, true),
        (vec![dns("*.example.com")], "example.com", false, false),
        (vec![dns("*.example.com")], "a.chat.example.com", false, false),
        (vec![dns("c*.example.com")], "chat.example.com", false, false),
        (vec![dns("a.*.example.com")], "a.b.example.com", false, false),
        (vec![dns("*")], "localhost", false, false),
        (vec![dns("xn--bcher-kva.example")], "bücher.example", true, true),
        (vec![dns("xn--bcher-kva.example")], "xn--bcher-kva.example", true, true),
        (vec![San::Dns("bücher.example".as_bytes())], "bücher.example", false, false),
        (vec![San::Dns(b"example.com\0.evil.example")], "example.com", false, false),
        (vec![San::Dns(b"example.com\0"), dns("b.example")], "b.example", true, true),
        (vec![San::Dns(b"user@example.com")], "example.com", false, false),
        (vec![San::Dns(b"\xff\xfe"), dns("b.example")], "b.example", true, true),
        (vec![San::Dns(b"")], "example.com", false, false),
        (vec![San::Srv("_xmpp-server.example.com")], "example.com", true, false),
        (vec![San::Srv("_xmpp-client.example.com")], "example.com", false, true),
        (vec![San::Srv("_XMPP-Server.Example.com")], "example.com", true, false),
        (vec![San::Srv("_xmpp-server.*.example.com")], "a.example.com", false, false),
        (vec![San::Srv("_sip.example.com")], "example.com", false, false),
        (vec![San::Xmpp("example.com")], "example.com", true, true),
        (vec![San::Xmpp("Bücher.example")], "xn--bcher-kva.example", true, true),
        (vec![San::Xmpp("user@example.com")], "example.com", false, false),
        (vec![San::Xmpp("example.com/home")], "example.com", false, false),
        (vec![San::Xmpp("*.example.com")], "a.example.com", false, false),
        (vec![], "test", false, false),
    ];
    for (i, (sans, domain, as_server, for_clients)) in rows.iter().enumerate() {
        let names = Names::of(&ca.make(&Recipe::new(sans)).der);
        assert_eq!(names.speak_for(domain, Use::S2s), *as_server, "row {i}: {names} for {domain}");
        assert_eq!(
            names.speak_for(domain, Use::C2s),
            *for_clients,
            "row {i}: {names} for {domain}"
        );
    }
}

#[test]
fn chain_matrix() {
    let ca = Ca::new("Test Authority");
    let stranger = Ca::new("Somebody");
    let base = Recipe::new(&[dns("example.com")]);
    let with = |ekus: &[Eku]| Recipe { ekus: ekus.to_vec(), ..base.clone() };
    let judged = |made: &Made, usage| {
        let verdict = judge(std::slice::from_ref(&made.der), &ca.roots(), wall(TODAY), usage);
        verdict.proves("example.com", Use::S2s).map_err(|why| why.to_string())
    };
    let both = |made: &Made| (judged(made, Usage::AsServer), judged(made, Usage::AsClient));
    let fault = |text: &str| Err(text.to_owned());
    assert_eq!(both(&ca.make(&with(&[]))), (Ok(()), Ok(())));
    assert_eq!(both(&ca.make(&with(&[Eku::ServerAuth]))), (Ok(()), Ok(())));
    assert_eq!(both(&ca.make(&with(&[Eku::ServerAuth, Eku::ClientAuth]))), (Ok(()), Ok(())));
    let lacks =
        fault("the extended key usage lacks server auth; the certificate names client auth");
    assert_eq!(both(&ca.make(&with(&[Eku::ClientAuth]))), (lacks, Ok(())));
    let lacks = fault(
        "the extended key usage lacks server auth or client auth; the certificate names code signing",
    );
    assert_eq!(both(&ca.make(&with(&[Eku::CodeSigning]))).1, lacks);

    let late = ca.make(&Recipe { days: (-9, -1), ..base.clone() });
    let text = "a certificate expired on 2025-12-31 00:00:00 UTC; now is 2026-01-01 00:00:00 UTC";
    assert_eq!(both(&late), (fault(text), fault(text)));
    let early = ca.make(&Recipe { days: (2, 9), ..base.clone() });
    let text =
        "a certificate becomes valid on 2026-01-03 00:00:00 UTC; now is 2026-01-01 00:00:00 UTC";
    assert_eq!(both(&early).0, fault(text));
    let theirs = stranger.make(&base);
    assert_eq!(both(&theirs).0, fault("the issuer is not trusted: CN=Somebody"));
    let ca_as_leaf = ca.make(&Recipe { is_ca: true, ..base.clone() });
    assert!(both(&ca_as_leaf).0.unwrap_err().contains("authority's"));
    let other_name =
        ca.make(&Recipe::new(&[dns("example.net"), San::Srv("_xmpp-server.a.example")]));
    let text = "the certificate does not speak for example.com; it has example.net, _xmpp-server.a.example";
    assert_eq!(both(&other_name).0, fault(text));
    let nameless = ca.make(&Recipe { common_name: "example.com", ..Recipe::new(&[]) });
    let text = "the certificate does not speak for example.com; it has no names (a common name does not count)";
    assert_eq!(both(&nameless).0, fault(text));
    assert_eq!(
        judge(&[], &ca.roots(), wall(TODAY), Usage::AsServer).chain,
        Err(ChainFault::NoCertificate)
    );
    let long = vec![ca.make(&base).der; 11];
    assert!(matches!(
        judge(&long, &ca.roots(), wall(TODAY), Usage::AsServer).chain,
        Err(ChainFault::TooLong { certificates: 11 })
    ));
    let junk = Der::from(vec![0x30, 0x03, 1, 2, 3]);
    assert!(matches!(
        judge(&[junk], &ca.roots(), wall(TODAY), Usage::AsServer).chain,
        Err(ChainFault::Malformed(_))
    ));
}

#[test]
fn roots_survive_a_strange_one() {
    let ca = Ca::new("Test Authority");
    let pem = format!(
        "{}-----BEGIN CERTIFICATE-----\nMAMBAgM=\n-----END CERTIFICATE-----\n{}",
        ca.pem, ca.pem
    );
    let (roots, unusable) = Roots::from_pem(pem.as_bytes());
    assert_eq!((roots.len(), unusable), (2, 1));
}
