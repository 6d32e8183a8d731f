//! A name server for domains that exist nowhere else.
//!
//! Answers SRV and A questions from a short list over UDP on loopback, so that the demo finds its
//! way by DNS as service does. Everything else does not exist (NXDOMAIN, RFC 1035, 4.1.1).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// One service of a domain: the name that is asked for, and where its server listens.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The name of the SRV record, without the last dot.
    pub service: String,
    /// Its target.
    pub host: String,
    /// Where that is.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
}

impl Zone {
    /// A server for other XMPP servers, on loopback.
    pub fn xmpp(domain: &str, port: u16) -> Self {
        let (service, host) = (format!("_xmpp-server._tcp.{domain}"), format!("xmpp.{domain}"));
        Self { service, host, address: Ipv4Addr::LOCALHOST, port }
    }

    /// A SIP domain as Microsoft's servers publish it.
    pub fn sip(domain: &str, host: &str, address: Ipv4Addr, port: u16) -> Self {
        Self {
            service: format!("_sipfederationtls._tcp.{domain}"),
            host: host.to_owned(),
            address,
            port,
        }
    }
}

/// Starts to answer; gives the address, and the SRV questions as they come.
pub fn serve(zones: Vec<Zone>) -> io::Result<(SocketAddr, Receiver<String>)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    let (asked, questions) = channel();
    thread::Builder::new()
        .name("demo-dns".to_owned())
        .spawn(move || answer_all(&socket, &zones, &asked))?;
    Ok((address, questions))
}

/// Ends when the socket fails, or with the process.
fn answer_all(socket: &UdpSocket, zones: &[Zone], asked: &Sender<String>) {
    let mut buffer = [0; 1_500];
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        let Some(question) = buffer.get(..len).and_then(|it| Message::from_vec(it).ok()) else {
            continue;
        };
        let Some(query) = question.queries.first().cloned() else { continue };
        let answer = answer(&question, &query, zones);
        if query.query_type == RecordType::SRV && !answer.answers.is_empty() {
            // Nobody may listen any more; that changes nothing here.
            asked.send(query.name.to_utf8()).ok();
        }
        if let Ok(bytes) = answer.to_vec() {
            socket.send_to(&bytes, from).ok();
        }
    }
}

fn answer(question: &Message, query: &Query, zones: &[Zone]) -> Message {
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = true;
    answer.add_query(query.clone());
    let asked = query.name.to_lowercase();
    for zone in zones {
        let (Some(service), Some(host)) = (name(&zone.service), name(&zone.host)) else { continue };
        let data = match query.query_type {
            RecordType::SRV if asked == service => RData::SRV(SRV::new(0, 0, zone.port, host)),
            RecordType::A if asked == host => RData::A(A(zone.address)),
            // The name exists, but has no record of that type: an empty answer, not NXDOMAIN.
            _ if asked == service || asked == host => {
                return without_answer(answer, query, ResponseCode::NoError);
            }
            _ => continue,
        };
        answer.add_answer(Record::from_rdata(query.name.clone(), TTL_SECONDS, data));
        return answer;
    }
    without_answer(answer, query, ResponseCode::NXDomain)
}

/// RFC 2308, 3: the SOA says how long the absence may be remembered.
fn without_answer(mut answer: Message, query: &Query, code: ResponseCode) -> Message {
    answer.metadata.response_code = code;
    let root = Name::root();
    let soa = SOA::new(root.clone(), root, 1, 60, 60, 60, TTL_SECONDS);
    answer.add_authority(Record::from_rdata(query.name.base_name(), TTL_SECONDS, RData::SOA(soa)));
    answer
}

fn name(text: &str) -> Option<Name> {
    Name::from_utf8(format!("{text}.")).ok()
}

/// Short: the demo's ports change with each run.
const TTL_SECONDS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(zones: &[Zone], of: &str, kind: RecordType) -> Message {
        let mut question = Message::query();
        let query = Query::query(Name::from_utf8(of).expect("a name"), kind);
        question.add_query(query.clone());
        answer(&question, &query, zones)
    }

    #[test]
    fn answers_what_it_knows_and_denies_the_rest() {
        let here = Ipv4Addr::LOCALHOST;
        let sip = Zone::sip("lync.example", "edge.lync.example", here, 15_061);
        let zones = [Zone::xmpp("example.com", 15_269), sip];
        let srv = ask(&zones, "_XMPP-server._tcp.Example.com.", RecordType::SRV);
        assert_eq!(srv.answers.len(), 1);
        assert!(matches!(&srv.answers[0].data, RData::SRV(it) if it.port == 15_269));
        assert_eq!(ask(&zones, "xmpp.example.com.", RecordType::A).answers.len(), 1);
        let srv = ask(&zones, "_sipfederationtls._tcp.lync.example.", RecordType::SRV);
        assert!(
            matches!(&srv.answers[0].data, RData::SRV(it) if it.target.to_utf8() == "edge.lync.example.")
        );
        let none = ask(&zones, "xmpp.example.com.", RecordType::AAAA);
        assert_eq!((none.answers.len(), none.metadata.response_code), (0, ResponseCode::NoError));
        let absent = ask(&zones, "_xmpp-server._tcp.nowhere.example.", RecordType::SRV);
        assert_eq!(absent.metadata.response_code, ResponseCode::NXDomain);
    }
}
