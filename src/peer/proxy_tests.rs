//! Headers whole, cut, lying about their lengths, and mangled.

use super::*;

/// A header with these parts behind two IPv4 addresses.
fn header(command: u8, family: u8, addresses: &[u8], parts: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut body = addresses.to_vec();
    for (kind, value) in parts {
        part(*kind, value, &mut body);
    }
    let mut octets = SIGNATURE.to_vec();
    octets.extend_from_slice(&[command, family]);
    octets.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    octets.extend_from_slice(&body);
    octets
}

const V4: [u8; 12] = [192, 0, 2, 9, 127, 0, 0, 1, 0xc3, 0x50, 0x13, 0xc5];

fn ssl(client: u8, verify: u32, parts: &[(u8, &[u8])]) -> (u8, Vec<u8>) {
    let mut value = vec![client];
    value.extend_from_slice(&verify.to_be_bytes());
    for (kind, text) in parts {
        part(*kind, text, &mut value);
    }
    (SSL, value)
}

/// As HAProxy sends it with `send-proxy-v2-ssl-cn` and the option `authority`.
fn of_haproxy() -> Vec<u8> {
    let parts = [
        (0x03, vec![1, 2, 3, 4]),
        (AUTHORITY, b"imp1.fabrikam.example".to_vec()),
        ssl(7, 0, &[(SSL_VERSION, b"TLSv1.2"), (SSL_COMMON_NAME, b"edge.contoso.example")]),
        (0xe0, b"what somebody made up".to_vec()),
    ];
    header(0x21, STREAM_V4, &V4, &parts)
}

#[test]
fn a_proxys_header_is_read_in_any_pieces() {
    let mut octets = of_haproxy();
    let whole = octets.len();
    octets.extend_from_slice(b"OPTIONS sip:fabrikam.example SIP/2.0\r\n");
    for cut in 0..whole {
        assert_eq!(read(&octets[..cut]), Ok(None), "{cut}");
    }
    for cut in whole..octets.len() {
        let (length, header) = read(&octets[..cut]).unwrap().unwrap();
        assert_eq!(length, whole);
        assert_eq!(header.source, Some("192.0.2.9:50000".parse().unwrap()));
        assert_eq!(header.destination, Some("127.0.0.1:5061".parse().unwrap()));
        assert_eq!(header.authority.as_deref(), Some("imp1.fabrikam.example"));
        assert_eq!(header.vouched(), Some("edge.contoso.example"));
        assert_eq!(header.tls.unwrap().version.as_deref(), Some("TLSv1.2"));
    }
}

#[test]
fn a_name_counts_only_if_its_certificate_was_good() {
    let common: &[(u8, &[u8])] = &[(SSL_COMMON_NAME, b"edge.contoso.example")];
    for (client, verify, parts, is_vouched) in [
        (0x07, 0, common, true),
        (0x03, 0, common, true),
        (0x05, 0, common, true),
        // Shown and refused; not shown; no TLS at all; no name.
        (0x07, 18, common, false),
        (0x01, 0, common, false),
        (0x06, 0, common, false),
        (0x07, 0, &[], false),
    ] {
        let octets = header(0x21, STREAM_V4, &V4, &[ssl(client, verify, parts)]);
        let (_, header) = read(&octets).unwrap().unwrap();
        assert_eq!(header.vouched().is_some(), is_vouched, "{client:#x} {verify}");
    }
}

#[test]
fn other_families_and_the_proxys_own_connections() {
    let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[9], &[0; 15], &[1], &[0xc3, 0x50, 0x13, 0xc5]];
    let (_, found) = read(&header(0x21, STREAM_V6, &v6.concat(), &[])).unwrap().unwrap();
    assert_eq!(found.source, Some("[2001:db8::9]:50000".parse().unwrap()));
    assert_eq!(found.destination, Some("[::1]:5061".parse().unwrap()));
    for octets in [
        header(0x21, UNSPECIFIED, &[], &[]),
        header(0x21, STREAM_LOCAL, &[0; 216], &[]),
        header(0x20, STREAM_V4, &V4, &[ssl(7, 0, &[(SSL_COMMON_NAME, b"edge.contoso.example")])]),
        header(0x20, UNSPECIFIED, &[], &[]),
        header(0x20, 0x77, &[1, 2, 3], &[]),
    ] {
        let (length, found) = read(&octets).unwrap().unwrap();
        assert_eq!((length, found), (octets.len(), Header::default()));
    }
}

#[test]
fn what_is_no_header_is_refused_at_once() {
    for (octets, fault) in [
        (b"INVITE sip:a@example.com SIP/2.0\r\n".to_vec(), Fault::NotProxy),
        (b"\r\n\r\nOPTIONS".to_vec(), Fault::NotProxy),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), Fault::NotProxy),
        (vec![0x16, 3, 1], Fault::NotProxy),
        (header(0x11, STREAM_V4, &V4, &[]), Fault::Unknown),
        (header(0x22, STREAM_V4, &V4, &[]), Fault::Unknown),
        (header(0x21, 0x12, &V4, &[]), Fault::Unknown),
        (header(0x21, 0x41, &V4, &[]), Fault::Unknown),
        // Addresses shorter than their family.
        (header(0x21, STREAM_V4, &V4[..11], &[]), Fault::Malformed),
        (header(0x21, STREAM_V6, &V4, &[]), Fault::Malformed),
        (header(0x21, STREAM_LOCAL, &V4, &[]), Fault::Malformed),
        // Parts longer than what holds them.
        (header(0x21, STREAM_V4, &[&V4[..], &[AUTHORITY]].concat(), &[]), Fault::Malformed),
        (header(0x21, STREAM_V4, &[&V4[..], &[2, 0, 9, b'a']].concat(), &[]), Fault::Malformed),
        (header(0x21, STREAM_V4, &[&V4[..], &[2, 255, 255]].concat(), &[]), Fault::Malformed),
        (header(0x21, STREAM_V4, &V4, &[(SSL, vec![7, 0, 0, 0])]), Fault::Malformed),
        (
            header(0x21, STREAM_V4, &V4, &[(SSL, vec![7, 0, 0, 0, 0, 0x22, 0, 2, b'a'])]),
            Fault::Malformed,
        ),
        // Texts that could fool an eye or a comparison.
        (header(0x21, STREAM_V4, &V4, &[(AUTHORITY, vec![0xff, 0xfe])]), Fault::Malformed),
        (
            header(0x21, STREAM_V4, &V4, &[ssl(7, 0, &[(SSL_COMMON_NAME, b"a.example\0.b")])]),
            Fault::Malformed,
        ),
        // Twice.
        (
            header(0x21, STREAM_V4, &V4, &[(AUTHORITY, b"a".to_vec()), (AUTHORITY, b"a".to_vec())]),
            Fault::Doubled,
        ),
        (header(0x21, STREAM_V4, &V4, &[ssl(7, 0, &[]), ssl(7, 0, &[])]), Fault::Doubled),
        (
            header(
                0x21,
                STREAM_V4,
                &V4,
                &[ssl(7, 0, &[(SSL_COMMON_NAME, b"a"), (SSL_COMMON_NAME, b"b")])],
            ),
            Fault::Doubled,
        ),
    ] {
        assert_eq!(read(&octets), Err(fault), "{octets:?}");
        assert!(!fault.text().is_empty());
    }
    // The length is believed only up to the bound, before the octets come.
    let mut long = header(0x21, STREAM_V4, &V4, &[]);
    long[14..16].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(read(&long[..16]), Err(Fault::TooLong));
    let rest = PROXY_HEADER_BYTES_MAX - HEAD_BYTES - V4.len() - 3;
    let full = header(0x21, STREAM_V4, &V4, &[(4, vec![0; rest])]);
    assert_eq!(read(&full).unwrap().unwrap().0, PROXY_HEADER_BYTES_MAX);
    assert_eq!(read(&header(0x21, STREAM_V4, &V4, &[(4, vec![0; rest + 1])])), Err(Fault::TooLong));
}

#[test]
fn no_mangled_header_panics() {
    let good = of_haproxy();
    for place in 0..good.len() {
        for octet in [0, 1, 2, 0x20, 0x21, 0x22, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[place] = octet;
            if let Ok(Some((length, _))) = read(&bad) {
                assert!(length <= bad.len());
            }
            bad.truncate(place + 1);
            drop(read(&bad));
        }
    }
}

#[test]
fn what_is_written_can_be_read() {
    for (from, to, family) in [
        ("192.0.2.1:40000", "127.0.0.1:5061", STREAM_V4),
        ("[::ffff:192.0.2.1]:40000", "127.0.0.1:5061", STREAM_V4),
        ("[2001:db8::1]:40000", "[::1]:5061", STREAM_V6),
        ("192.0.2.1:40000", "[::1]:5061", STREAM_V6),
    ] {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        for authority in [None, Some("edge.contoso.example")] {
            let mut octets = b"before".to_vec();
            write(from, to, authority, &mut octets);
            let octets = &octets[6..];
            assert_eq!(octets[13], family);
            let (length, header) = read(octets).unwrap().unwrap();
            assert_eq!(length, octets.len());
            let canonical =
                |it: SocketAddr| Some(SocketAddr::new(it.ip().to_canonical(), it.port()));
            assert_eq!((header.source, header.destination), (canonical(from), canonical(to)));
            assert_eq!(header.authority.as_deref(), authority);
            assert_eq!(header.vouched(), None);
        }
    }
    let mut octets = Vec::new();
    write(
        "192.0.2.1:1".parse().unwrap(),
        "192.0.2.2:2".parse().unwrap(),
        Some(&"a".repeat(254)),
        &mut octets,
    );
    assert_eq!(read(&octets).unwrap().unwrap().1.authority, None);
}
