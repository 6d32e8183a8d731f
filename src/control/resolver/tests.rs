//! The resolver against a name server of our own on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, MessageType, OpCode};
use hickory_resolver::proto::rr::rdata::{A, NAPTR, SRV};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

/// What the server does with a name.
fn scripted(name: &str, kind: RecordType, reply: &mut Message) -> bool {
    let owner = Name::from_ascii(name).expect("a name");
    let srv = |port: u16, target: &str| {
        let target = Name::from_ascii(target).expect("a name");
        Record::from_rdata(owner.clone(), 300, RData::SRV(SRV::new(1, 2, port, target)))
    };
    match (name, kind) {
        ("_xmpp-server._tcp.good.example.", RecordType::SRV) => {
            reply.answers.push(srv(5_269, "XMPP.good.example."));
        }
        ("_xmpps-server._tcp.good.example.", RecordType::SRV) => {
            reply.answers.push(srv(0, "."));
        }
        ("xmpp.good.example." | "plain.example.", RecordType::A) => {
            let address = RData::A(A::new(192, 0, 2, 7));
            reply.answers.push(Record::from_rdata(owner, 300, address));
        }
        ("_sipfederationtls._tcp.lync.example.", RecordType::SRV) => {
            reply.answers.push(srv(5_061, "SIP.lync.example."));
        }
        ("_sipfederationtls._tcp.none.example.", RecordType::SRV) => {
            reply.answers.push(srv(0, "."));
        }
        ("_sips._tcp.plain.example.", RecordType::SRV) => {
            reply.answers.push(srv(5_061, "proxy.plain.example."));
        }
        ("named.example.", RecordType::NAPTR) => {
            let naptr = |preference, services: &str, to: &str| {
                let to = Name::from_ascii(to).expect("a name");
                let (flags, services) = (b"s".as_slice(), services.as_bytes());
                let data = NAPTR::new(10, preference, flags.into(), services.into(), [].into(), to);
                Record::from_rdata(owner.clone(), 300, RData::NAPTR(data))
            };
            reply.answers.push(naptr(1, "SIP+D2U", "_sip._udp.named.example."));
            reply.answers.push(naptr(2, "SIPS+D2T", "_sips._tcp.lost.example."));
            reply.answers.push(naptr(3, "SIPS+D2T", "_sips._tcp.else.example."));
        }
        ("_sips._tcp.else.example.", RecordType::SRV) => {
            reply.answers.push(srv(5_071, "proxy.else.example."));
        }
        ("shy.example.", RecordType::NAPTR) => {
            reply.metadata.response_code = ResponseCode::ServFail;
        }
        ("silent.example.", _) => return false,
        (name, RecordType::SRV) if name.ends_with(".broken.example.") => {
            reply.metadata.response_code = ResponseCode::ServFail;
        }
        (name, RecordType::SRV) if name.ends_with(".crowd.example.") => {
            reply.answers.extend((0..70).map(|n| srv(n, &format!("h{n}.crowd.example."))));
        }
        (name, _) if name.ends_with("absent.example.") => {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        (name, _) if name.ends_with("silent.example.") => return false,
        _ => {}
    }
    true
}

fn reply_to(bytes: &[u8], asked: &AtomicUsize) -> Option<Message> {
    let query = Message::from_vec(bytes).ok()?;
    asked.fetch_add(1, Ordering::Relaxed);
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&query.queries);
    let it = query.queries.first()?;
    scripted(&it.name().to_ascii().to_ascii_lowercase(), it.query_type(), &mut reply)
        .then_some(reply)
}

async fn serve_udp(socket: UdpSocket, asked: Arc<AtomicUsize>) {
    let mut bytes = [0; 4_096];
    while let Ok((len, from)) = socket.recv_from(&mut bytes).await {
        let Some(mut reply) = reply_to(&bytes[..len], &asked) else { continue };
        if reply.to_vec().expect("encodes").len() > 1_200 {
            // RFC 1035, 4.2.1: what does not fit is asked for again over TCP.
            reply.answers.clear();
            reply.metadata.truncation = true;
        }
        // The resolver may have given up; that is what one test is about.
        drop(socket.send_to(&reply.to_vec().expect("encodes"), from).await);
    }
}

async fn serve_tcp(listener: TcpListener, asked: Arc<AtomicUsize>) {
    while let Ok((mut conn, _)) = listener.accept().await {
        while let Ok(len) = conn.read_u16().await {
            let mut bytes = vec![0; len.into()];
            conn.read_exact(&mut bytes).await.expect("a whole query");
            let Some(reply) = reply_to(&bytes, &asked) else { continue };
            let reply = reply.to_vec().expect("encodes");
            conn.write_u16(u16::try_from(reply.len()).expect("fits")).await.expect("writes");
            conn.write_all(&reply).await.expect("writes");
        }
    }
}

async fn resolver(query_max: Duration) -> (Resolver, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("has an address");
    let socket = UdpSocket::bind(address).await.expect("binds");
    let asked = Arc::new(AtomicUsize::new(0));
    tokio::spawn(serve_udp(socket, Arc::clone(&asked)));
    tokio::spawn(serve_tcp(listener, Arc::clone(&asked)));
    (Resolver::with_query_max(Some(address), query_max), asked)
}

const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

#[tokio::test]
async fn services_and_addresses_are_found_and_kept() {
    let (resolver, asked) = resolver(Duration::from_secs(5)).await;
    let (direct, starttls) = resolver.services("good.example").await;
    let srv = |port, target: &str| {
        Answer::Records(vec![Srv { priority: 1, weight: 2, port, target: target.into() }])
    };
    assert_eq!(direct, srv(0, "."));
    assert_eq!(starttls, srv(5_269, "xmpp.good.example"));
    assert_eq!(resolver.addresses("xmpp.good.example").await, Ok(vec![IP]));
    let before = asked.load(Ordering::Relaxed);
    assert_eq!(resolver.services("good.example").await, (direct, starttls));
    assert_eq!(asked.load(Ordering::Relaxed), before);
    assert_eq!(resolver.addresses("xmpp.good.example").await, Ok(vec![IP]));
    // AAAA has no data and no SOA that would say for how long, so it alone is asked again.
    assert!(asked.load(Ordering::Relaxed) <= before + 1);
}

#[tokio::test]
async fn absence_failure_and_silence_are_kept_apart() {
    let (resolver, _) = resolver(Duration::from_millis(200)).await;
    let absent = (Answer::Absent, Answer::Absent);
    assert_eq!(resolver.services("plain.example").await, absent);
    assert_eq!(resolver.addresses("plain.example").await, Ok(vec![IP]));
    assert_eq!(resolver.addresses("empty.example").await, Err(Fault::NoData));

    assert_eq!(resolver.services("absent.example").await, absent);
    assert_eq!(resolver.addresses("absent.example").await, Err(Fault::NoDomain));

    let failed = (Answer::Failed, Answer::Failed);
    assert_eq!(resolver.services("broken.example").await, failed);
    let broken = resolver.srv(Kind::StartTls.query("broken.example")).await;
    assert!(matches!(broken, Err(Fault::Failed(_))), "{broken:?}");

    assert_eq!(resolver.services("silent.example").await, failed);
    assert_eq!(resolver.addresses("silent.example").await, Err(Fault::TimedOut));
}

#[tokio::test]
async fn what_is_too_much_is_cut() {
    let (resolver, _) = resolver(Duration::from_secs(5)).await;
    let (direct, starttls) = resolver.services("crowd.example").await;
    let rows = |it: &Answer| if let Answer::Records(it) = it { it.len() } else { 0 };
    assert_eq!(rows(&direct) + rows(&starttls), DNS_SRV_MAX);
}

#[tokio::test]
async fn an_address_is_its_own_answer() {
    let (resolver, asked) = resolver(Duration::from_secs(5)).await;
    let ip: IpAddr = "::1".parse().unwrap();
    assert_eq!(resolver.services("::1").await, (Answer::Absent, Answer::Absent));
    assert_eq!(resolver.addresses("::1").await, Ok(vec![ip]));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_sip_edge_is_found_by_microsofts_record_then_by_rfc_3263() {
    let (resolver, _) = resolver(Duration::from_secs(5)).await;
    let found = |service, port, target: &str| SipFound::Records {
        service,
        records: vec![Srv { priority: 1, weight: 2, port, target: target.into() }],
        seconds: 300,
    };
    let (federation, sips) = (SipService::Federation, SipService::Sips);
    for (domain, rfc3263, expected) in [
        ("lync.example", false, found(federation, 5_061, "sip.lync.example")),
        ("lync.example", true, found(federation, 5_061, "sip.lync.example")),
        ("plain.example", false, SipFound::Absent),
        ("plain.example", true, found(sips, 5_061, "proxy.plain.example")),
        ("named.example", false, SipFound::Absent),
        ("named.example", true, found(sips, 5_071, "proxy.else.example")),
        ("none.example", false, SipFound::NotOffered),
        ("none.example", true, SipFound::NotOffered),
        ("absent.example", true, SipFound::Absent),
        ("broken.example", true, SipFound::Failed),
        // What is not known of NAPTR is no leave to guess.
        ("shy.example", true, SipFound::Failed),
        ("192.0.2.1", true, SipFound::Absent),
    ] {
        assert_eq!(resolver.sip(domain, rfc3263).await, expected, "{domain} {rfc3263}");
    }
}

#[tokio::test]
async fn a_silent_name_server_is_no_absent_sip_edge() {
    let (resolver, _) = resolver(Duration::from_millis(300)).await;
    assert_eq!(resolver.sip("silent.example", true).await, SipFound::Failed);
}
