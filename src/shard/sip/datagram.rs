//! SIP in datagrams: RFC 3261, 18.2.1 and 18.2.2; RFC 3581.
//!
//! For closed networks and tests: who sends is believed by its address, which must be a fixed target
//! of the domain's rule. What comes from anybody else gets at most one packet, no longer than one and
//! a half times its own. A Via is told where its request really came from. A partner's datagrams are worked
//! on by the shard of its way, as its connections are, so that a NOTIFY does not overtake the answer it
//! belongs to.

use std::net::SocketAddr;

use crate::peer::sip_identity::Mismatch;
use crate::policy::Transport as Carrier;
use crate::route::shard_of_domain;
use crate::shard::Shard;
use crate::shard::kernel::ShardId;
use crate::shard::settings::ListenerId;
use crate::shard::sip::transport::Place;
use crate::sip::Fault;
use crate::sip::Message;
use crate::sip::frame::{self, Limits};

impl Shard {
    /// A datagram came.
    pub(in crate::shard) fn datagram(
        &mut self,
        listener: ListenerId,
        remote: SocketAddr,
        bytes: &[u8],
    ) {
        if self.stopping || bytes.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        self.counters.sip.datagrams += 1;
        let place = Place::Datagram(listener, remote);
        let length = match frame::datagram(bytes, &Limits::PEER) {
            Ok((_, length)) => length,
            Err(fault) => {
                self.counters.sip.unframed += 1;
                let head = fault.head.and_then(|it| bytes.get(..it));
                return match head {
                    Some(head) => self.unreadable_at(place, head, &fault.fault),
                    None => self.counters.sip.dropped += 1,
                };
            }
        };
        let frame = bytes.get(..length).unwrap_or_default();
        self.counters.sip.received += 1;
        self.with_index(|shard, index| match index.read(frame) {
            Ok(message) if message.is_request() => shard.datagram_request(place, &message),
            Ok(message) => {
                shard.sip_response(&message);
            }
            Err(_) => shard.counters.sip.malformed += 1,
        });
    }

    fn datagram_request(&mut self, place: Place, request: &Message<'_>) {
        let Place::Datagram(listener, remote) = place else { return };
        let far = match self.sip_sound(request) {
            Ok((far, _)) => far,
            Err(fault) => return self.refuse_here(place, request, &fault),
        };
        if let Err(fault) = self.datagram_may(&far, remote) {
            return self.refuse_here(place, request, &fault);
        }
        let policy = std::sync::Arc::clone(&self.settings.policy);
        let Some(peer) = policy.sip(&far).map(|it| it.name(&far).to_owned()) else { return };
        let Some((patched, answer)) = received(request, remote) else {
            return self.counters.sip.malformed += 1;
        };
        let place = Place::Datagram(listener, answer);
        let way = ShardId(shard_of_domain(&peer, self.settings.shards));
        if way == self.id {
            self.datagram_came(place, &far, &patched);
        } else {
            self.post_datagram(way, place, &far, &patched);
        }
    }

    /// A peer's request, on the shard of its way: what we send it in answer and of our own keeps its order.
    pub(super) fn datagram_came(&mut self, place: Place, far: &str, frame: &[u8]) {
        let policy = std::sync::Arc::clone(&self.settings.policy);
        let Some(peer) = policy.sip(far).map(|it| it.name(far).to_owned()) else { return };
        self.with_read(frame, |shard, request| {
            let request = request.checked().unwrap_or(request);
            let aim = shard.sip_aim(&request);
            shard.sip_permitted(place, &peer, far, aim, &request);
        });
    }

    /// The source address is all the identity there is.
    fn datagram_may(&mut self, far: &str, remote: SocketAddr) -> Result<(), Fault> {
        let policy = std::sync::Arc::clone(&self.settings.policy);
        let Some(peer) = policy.sip(far) else {
            return Err(self.sip_denied(far, remote.ip(), String::new()));
        };
        if peer.transport() == Carrier::Udp && peer.is_target(remote.ip()) {
            return Ok(());
        }
        Err(self.sip_uncovered(remote.ip(), far, &Mismatch::Address))
    }
}

/// The request with its top Via told where it came from (RFC 3261, 18.2.1; RFC 3581, 4), and where
/// its answer goes.
fn received(request: &Message<'_>, remote: SocketAddr) -> Option<(Vec<u8>, SocketAddr)> {
    let via = request.via().ok()?;
    let frame = request.frame();
    let value = via.value();
    let start = (value.as_ptr() as usize).checked_sub(frame.as_ptr() as usize)?;
    let end = start + value.len();
    let asks_port = via.rport().is_some();
    let ip = remote.ip().to_canonical();
    let host = std::str::from_utf8(via.host).ok()?;
    let is_same = host.trim_matches(['[', ']']).parse() == Ok(ip);
    let port = if asks_port { remote.port() } else { via.port.unwrap_or(5060) };
    let answer = SocketAddr::new(remote.ip(), port);
    if is_same && !asks_port {
        return Some((frame.to_vec(), answer));
    }
    let mut out = Vec::with_capacity(frame.len() + 64);
    out.extend_from_slice(frame.get(..start)?);
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split(';');
    out.extend_from_slice(parts.next()?.trim_end().as_bytes());
    for part in parts {
        let name = part.split('=').next().unwrap_or_default().trim();
        // What they say of it themselves is not believed.
        if !name.eq_ignore_ascii_case("received") && !name.eq_ignore_ascii_case("rport") {
            out.push(b';');
            out.extend_from_slice(part.trim().as_bytes());
        }
    }
    out.extend_from_slice(format!(";received={ip}").as_bytes());
    if asks_port {
        out.extend_from_slice(format!(";rport={}", remote.port()).as_bytes());
    }
    out.extend_from_slice(frame.get(end..)?);
    Some((out, answer))
}
