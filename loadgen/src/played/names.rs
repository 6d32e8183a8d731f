//! A name server for played domains (RFC 1035, RFC 2782), over UDP and TCP.
//!
//! Answers SRV for XMPP servers and SIP edges, and A. Everything else does not exist. One answers
//! for all populations of a run that name its address. Does **not** recurse.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Seconds that an answer may be remembered.
const TTL_S: u32 = 300;
/// The host of a domain, before its name: where its SRV records lead.
const HOST: &str = "host";
/// A client over TCP that says nothing for so long is left.
const SILENCE: Duration = Duration::from_secs(10);
/// Clients over TCP at once; more are turned away.
const STREAMS_MAX: usize = 64;

/// Where the services of a domain are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// XMPP servers that begin in clear (`_xmpp-server._tcp`).
    pub xmpp: Option<SocketAddr>,
    /// XMPP servers by TLS from the first octet (`_xmpps-server._tcp`, XEP-0368).
    pub xmpps: Option<SocketAddr>,
    /// SIP over TCP (`_sip._tcp`).
    pub sip: Option<SocketAddr>,
    /// SIP over TLS (`_sips._tcp`, `_sipfederationtls._tcp`).
    pub sips: Option<SocketAddr>,
}

impl Services {
    fn named(&self, service: &str) -> Option<SocketAddr> {
        match service {
            "_xmpp-server._tcp" => self.xmpp,
            "_xmpps-server._tcp" => self.xmpps,
            "_sip._tcp" => self.sip,
            "_sips._tcp" | "_sipfederationtls._tcp" => self.sips,
            _ => None,
        }
    }

    fn host(&self) -> Ipv4Addr {
        let any = [self.xmpp, self.xmpps, self.sip, self.sips].into_iter().flatten().next();
        match any.map(|it| it.ip()) {
            Some(IpAddr::V4(ip)) if !ip.is_unspecified() => ip,
            _ => Ipv4Addr::LOCALHOST,
        }
    }

    fn add(&mut self, other: Self) {
        self.xmpp = other.xmpp.or(self.xmpp);
        self.xmpps = other.xmpps.or(self.xmpps);
        self.sip = other.sip.or(self.sip);
        self.sips = other.sips.or(self.sips);
    }
}

/// What is known, by domain in lower case.
#[derive(Clone, Debug, Default)]
pub struct Zones(BTreeMap<String, Services>);

impl Zones {
    /// A domain has these services too.
    pub fn add(&mut self, domain: &str, services: Services) {
        self.0.entry(domain.to_ascii_lowercase()).or_default().add(services);
    }

    /// The answer to a query, in wire form; `None` where none is due.
    pub fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_vec(query).ok()?;
        if question.metadata.message_type != MessageType::Query {
            return None;
        }
        let asked = question.queries.first()?.clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.authoritative = true;
        answer.add_query(asked.clone());
        let (exists, data) = self.find(&asked);
        if let Some(data) = data {
            answer.add_answer(Record::from_rdata(asked.name.clone(), TTL_S, data));
        } else {
            // RFC 2308, 3: the SOA says how long the absence may be remembered.
            let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
            answer.metadata.response_code = code;
            let root = Name::root();
            let soa = RData::SOA(SOA::new(root.clone(), root, 1, 60, 60, 60, TTL_S));
            answer.add_authority(Record::from_rdata(asked.name.base_name(), TTL_S, soa));
        }
        answer.to_vec().ok()
    }

    /// Whether the name exists, and the record that was asked for.
    fn find(&self, asked: &Query) -> (bool, Option<RData>) {
        let name = asked.name.to_lowercase().to_utf8();
        let name = name.trim_end_matches('.');
        let host = name.strip_prefix(HOST).and_then(|rest| rest.strip_prefix('.'));
        if let Some(services) = self.0.get(name).or_else(|| host.and_then(|it| self.0.get(it))) {
            let data = (asked.query_type == RecordType::A).then(|| RData::A(A(services.host())));
            return (true, data);
        }
        let mut labels = name.splitn(3, '.');
        let (Some(service), Some(protocol), Some(domain)) =
            (labels.next(), labels.next(), labels.next())
        else {
            return (false, None);
        };
        let known = self.0.get(domain);
        let place = known.and_then(|it| it.named(&format!("{service}.{protocol}")));
        let target = Name::from_utf8(format!("{HOST}.{domain}.")).ok();
        let (Some(place), Some(target)) = (place, target) else { return (false, None) };
        let srv = asked.query_type == RecordType::SRV;
        (true, srv.then(|| RData::SRV(SRV::new(0, 0, place.port(), target))))
    }
}

/// What the responders of this process know, by their address.
static RESPONDERS: Mutex<Vec<(SocketAddr, Arc<RwLock<Zones>>)>> = Mutex::new(Vec::new());

/// Answers for these domains at `at` from now on, to the end of the process; gives the address.
pub fn serve(at: SocketAddr, zones: Zones) -> io::Result<SocketAddr> {
    let mut responders = RESPONDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, known)) = responders.iter().find(|(address, _)| *address == at) {
        let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
        for (domain, services) in zones.0 {
            known.add(&domain, services);
        }
        return Ok(at);
    }
    let socket = UdpSocket::bind(at)?;
    let address = socket.local_addr()?;
    let listener = TcpListener::bind(address)?;
    let zones = Arc::new(RwLock::new(zones));
    responders.push((address, Arc::clone(&zones)));
    let theirs = Arc::clone(&zones);
    thread::Builder::new()
        .name("names-udp".to_owned())
        .spawn(move || answer_datagrams(&socket, &theirs))?;
    thread::Builder::new()
        .name("names-tcp".to_owned())
        .spawn(move || answer_streams(&listener, &zones))?;
    Ok(address)
}

fn answered(zones: &RwLock<Zones>, query: &[u8]) -> Option<Vec<u8>> {
    zones.read().unwrap_or_else(PoisonError::into_inner).answer(query)
}

/// Ends with the process; a socket's error is one datagram's, a thousand in a row are the socket's.
fn answer_datagrams(socket: &UdpSocket, zones: &RwLock<Zones>) {
    let mut buffer = [0; 4_096];
    let mut failed = 0;
    while failed < 1_000 {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else {
            failed += 1;
            continue;
        };
        failed = 0;
        if let Some(answer) = buffer.get(..len).and_then(|query| answered(zones, query)) {
            // Who does not take it asks again.
            drop(socket.send_to(&answer, from));
        }
    }
}

fn answer_streams(listener: &TcpListener, zones: &Arc<RwLock<Zones>>) {
    let count = Arc::new(());
    for stream in listener.incoming().filter_map(Result::ok) {
        if Arc::strong_count(&count) > STREAMS_MAX {
            continue;
        }
        let (zones, held) = (Arc::clone(zones), Arc::clone(&count));
        let spawned = thread::Builder::new().name("names-tcp".to_owned()).spawn(move || {
            // Its end is the client's, in order or not.
            drop(answer_stream(stream, &zones));
            drop(held);
        });
        drop(spawned);
    }
}

/// RFC 1035, 4.2.2: two octets of length before each message.
fn answer_stream(mut stream: TcpStream, zones: &RwLock<Zones>) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(answer) = answered(zones, &query) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones() -> Zones {
        let mut zones = Zones::default();
        for n in 0..3 {
            let xmpp = Some("127.0.0.9:15269".parse().unwrap());
            zones.add(&format!("d{n}.Load.example"), Services { xmpp, ..Services::default() });
        }
        let sips = Some("127.0.0.8:5061".parse().unwrap());
        zones.add("edge.example", Services { sips, ..Services::default() });
        zones
    }

    fn query(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn ask(zones: &Zones, name: &str, kind: RecordType) -> Message {
        Message::from_vec(&zones.answer(&query(name, kind)).unwrap()).unwrap()
    }

    #[test]
    fn played_names_are_there_and_no_others() {
        let zones = zones();
        let srv = ask(&zones, "_xmpp-Server._tcp.d1.LOAD.example.", RecordType::SRV);
        let RData::SRV(it) = &srv.answers[0].data else { panic!("{srv:?}") };
        assert_eq!((it.port, it.target.to_utf8().as_str()), (15_269, "host.d1.load.example."));
        let host = ask(&zones, "host.d1.load.example.", RecordType::A);
        assert_eq!(host.answers[0].data, RData::A(A(Ipv4Addr::new(127, 0, 0, 9))));
        let none = ask(&zones, "host.d1.load.example.", RecordType::AAAA);
        assert_eq!((none.answers.len(), none.metadata.response_code), (0, ResponseCode::NoError));
        let sip = ask(&zones, "_sipfederationtls._tcp.edge.example.", RecordType::SRV);
        assert!(matches!(&sip.answers[0].data, RData::SRV(it) if it.port == 5061));
        for absent in [
            "_xmpps-server._tcp.d1.load.example.",
            "_xmpp-server._tcp.d9.load.example.",
            "example.",
        ] {
            let it = ask(&zones, absent, RecordType::SRV);
            assert_eq!(it.metadata.response_code, ResponseCode::NXDomain, "{absent}");
        }
        assert_eq!(zones.answer(b"garbage"), None);
    }

    #[test]
    fn both_transports_answer_and_zones_are_added() {
        let at = serve("127.0.0.1:0".parse().unwrap(), zones()).unwrap();
        let mut more = Zones::default();
        let xmpp = Some("127.0.0.7:1".parse().unwrap());
        more.add("later.example", Services { xmpp, ..Services::default() });
        assert_eq!(serve(at, more).unwrap(), at);
        let query = query("_xmpp-server._tcp.later.example.", RecordType::SRV);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(&query, at).unwrap();
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(Message::from_vec(&buffer[..len]).unwrap().answers.len(), 1);
        let mut stream = TcpStream::connect(at).unwrap();
        let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
        stream.write_all(&framed).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes(length)), len);
    }
}
