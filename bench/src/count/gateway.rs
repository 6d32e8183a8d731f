//! Instant messages across SIP as V7 has them: sessions of a partner's edge, all on one connection, and
//! clients with stream management.

use memchr::memmem::find;
use tandem::shard::kernel::ConnId;
use tandem_loadgen::login::After;
use tandem_loadgen::sip::dialog::{DOMAIN as PARTNER, Dialog, FIRST};
use tandem_loadgen::sip::text::Reader;
use tandem_loadgen::sm::{self, Managed};

use super::chat::EDGE;
use super::world::{DOMAIN, World};

const SESSIONS: usize = 64;
/// Octets of a text, as in V7.
const BYTES: usize = 300;
const AGENT: &str = "User-Agent: UCCAPI/15.0.4420.1017 OC/15.0.4420.1017 (Microsoft Lync)\r\n";
/// Messages of the edge that come in one piece.
const TOGETHER: usize = 16;

struct Session {
    dialog: Dialog,
    client: ConnId,
    managed: Managed,
    sent: u32,
}

struct Gateway {
    world: World,
    edge: ConnId,
    sessions: Vec<Session>,
    sip: Reader,
}

/// Messages across SIP, from the edge to clients or `back`. Gives how many were counted.
pub(super) fn messages(rounds: usize, back: bool) -> Result<u64, String> {
    let mut it = Gateway::stand()?;
    let warm = 2;
    for round in 0..warm + rounds {
        let counts = round >= warm;
        let done = if back { it.outwards(counts)? } else { it.inwards(counts)? };
        if done != SESSIONS {
            return Err(format!("{done} of {SESSIONS} messages came to their end"));
        }
    }
    Ok((rounds * SESSIONS) as u64)
}

impl Gateway {
    /// Clients that are there, each in a session that the edge began.
    fn stand() -> Result<Self, String> {
        let mut world = World::new(EDGE.into())?;
        let after = After { roster: true, managed: true, presence: true };
        let clients: Result<Vec<ConnId>, String> =
            (0..SESSIONS).map(|user| world.client(user, after)).collect();
        let edge = world.edge(([127, 0, 0, 5], 40_000).into());
        let mut it = Self { world, edge, sessions: Vec::new(), sip: Reader::default() };
        for (index, client) in clients?.into_iter().enumerate() {
            it.world.hear(client);
            let from = format!("e{index}@{PARTNER}");
            let mut dialog =
                Dialog::begin(index, 0, &from, &format!("u{index}@{DOMAIN}"), EDGE.into());
            // What has the process's number in it elsewhere.
            dialog.call = format!("tl{index:08x}g0000@r1.{PARTNER}");
            dialog.via = format!("SIP/2.0/TCP 127.0.0.5:5061;branch=z9hG4bK{index:04x}");
            dialog.local.push_str(";epid=787f6c813e");
            dialog.contact = format!("<sip:{from};opaque=user:epid:xann_exEHxCV3{index:08x};gruu>");
            let invite = invite(&mut dialog, &from);
            it.world.say(edge, invite.as_bytes());
            it.world.settle();
            it.world.pass(10_000_000);
            let heard = it.world.hear(edge);
            let mut rest = heard.as_slice();
            while let Some((frame, length)) = it.sip.cut(rest)? {
                match frame.status {
                    100..200 => {}
                    200 => dialog.made(&frame),
                    _ => return Err(frame.shown()),
                }
                rest = rest.get(length..).unwrap_or_default();
            }
            let ack = dialog.text("ACK", FIRST, AGENT, "");
            it.world.say(edge, ack.as_bytes());
            it.world.settle();
            it.sessions.push(Session { dialog, client, managed: Managed::default(), sent: 0 });
        }
        Ok(it)
    }

    /// A text in each session, its acknowledgement, its answer.
    fn inwards(&mut self, counts: bool) -> Result<usize, String> {
        for together in self.sessions.chunks_mut(TOGETHER) {
            let mut said = String::new();
            for session in together {
                session.sent += 1;
                let more = format!(
                    "Contact: {}\r\n{AGENT}Supported: timer\r\nContent-Type: text/plain; \
                     charset=UTF-8;msgr=WAAtAE0ATQBTAC0ASQBNAC0ARgBvAHIAbQBhAHQAOgAgAEYATgA9AE0A\
                     UwAlADIAMABTAGgA\r\n",
                    session.dialog.contact
                );
                let text = format!("{:08} {}", session.sent, "x".repeat(BYTES - 9));
                let number = FIRST + session.sent;
                said += &session.dialog.text("MESSAGE", number, &more, &text);
            }
            self.world.say(self.edge, said.as_bytes());
        }
        self.turn(counts);
        self.acknowledge();
        self.turn(counts);
        self.answers()
    }

    /// A text of each client, MESSAGE, its answer.
    fn outwards(&mut self, counts: bool) -> Result<usize, String> {
        for (index, session) in self.sessions.iter_mut().enumerate() {
            session.sent += 1;
            let text = format!("{:08} {}", session.sent, "x".repeat(BYTES - 9));
            let mut said = format!(
                "<message to='e{index}@{PARTNER}' type='chat' id='tl'><body>{text}</body></message>"
            )
            .into_bytes();
            if session.managed.sends() {
                said.extend_from_slice(sm::REQUEST);
            }
            self.world.say(session.client, &said);
        }
        self.turn(counts);
        let heard = self.world.hear(self.edge);
        let (mut rest, mut done, mut said) = (heard.as_slice(), 0, Vec::new());
        while let Some((frame, length)) = self.sip.cut(rest)? {
            if frame.method() == b"MESSAGE" {
                done += 1;
                frame.answer("200 OK", "edge", AGENT, &mut said);
            } else {
                return Err(frame.shown());
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        for part in pieces(&said) {
            self.world.say(self.edge, part);
        }
        self.turn(counts);
        self.acknowledge();
        Ok(done)
    }

    fn turn(&mut self, counts: bool) {
        if counts { self.world.settle_counted() } else { self.world.settle() }
    }

    /// Clients answer what the server asks.
    fn acknowledge(&mut self) {
        for session in &mut self.sessions {
            let heard = self.world.hear(session.client);
            for _ in memchr::memmem::find_iter(&heard, b"<message ") {
                session.managed.receives();
            }
            if find(&heard, b"<r ").or_else(|| find(&heard, b"<r/>")).is_some() {
                self.world.say(session.client, session.managed.answer().as_bytes());
            }
        }
    }

    /// Answers with 200 that the edge has.
    fn answers(&mut self) -> Result<usize, String> {
        let heard = self.world.hear(self.edge);
        let (mut rest, mut done) = (heard.as_slice(), 0);
        while let Some((frame, length)) = self.sip.cut(rest)? {
            if frame.status != 200 {
                return Err(frame.shown());
            }
            done += 1;
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(done)
    }
}

fn invite(dialog: &mut Dialog, from: &str) -> String {
    let sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 198.51.100.77\r\ns=session\r\nc=IN IP4 198.51.100.77\r\n\
         t=0 0\r\nm=message 5060 sip sip:{from}\r\na=accept-types:text/plain \
         multipart/alternative image/gif text/rtf text/html\r\n"
    );
    let more = format!(
        "Record-Route: <sip:edge.{PARTNER}:5061;transport=tcp;ms-fe=fe-07.corp.{PARTNER};\
         opaque=state:F:Ci.R81c40;lr;ms-route-sig=wdiiCdXzUYxmFe0Qvyd5mzPvJtQ>\r\n\
         Contact: {}\r\n{AGENT}Supported: ms-early-media, ms-delayed-accept\r\n\
         Allow: INVITE, BYE, ACK, CANCEL, INFO, MESSAGE, UPDATE, REFER\r\n\
         Content-Type: application/sdp\r\n",
        dialog.contact
    );
    dialog.request("INVITE", &more, &sdp)
}

/// As a connection would deliver it.
fn pieces(said: &[u8]) -> impl Iterator<Item = &[u8]> {
    said.chunks(8_192)
}
