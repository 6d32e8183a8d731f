//! What a peer's answers, and their absence, say of the peer itself: Retry-After, challenges, a bare
//! 504, silence; and how many people it was asked for.
//!
//! RFC 3261, 21.5.4; sections 5 and 6.3 of our rules. Does **not** decide over requests.

use std::time::Duration;

use crate::limits::{SIP_REST_MAX, SIP_URIS_WARN};
use crate::shard::Shard;
use crate::shard::kernel::ConnId;
use crate::shard::sip::transport::Place;
use crate::shard::sip::way::Way;
use crate::sip::{Message, Name};
use crate::stdx::Key;

impl Shard {
    /// Peers block who asks for too many people (an Edge: 1,000).
    pub(super) fn count_uri(&mut self, key: Key, text: &[u8]) {
        let uri = text.split(|it| *it == b' ').nth(1).unwrap_or_default();
        let hash = xxhash_rust::xxh3::xxh3_64(uri);
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        if way.saw(hash) {
            let fields = vec![
                ("peer", way.peer.to_string()),
                ("local", way.near.to_string()),
                ("uris", SIP_URIS_WARN.to_string()),
            ];
            self.counters.sip.many_uris += 1;
            self.notice("sip_many_uris", fields);
        }
    }

    /// An answer says something about the peer as well.
    pub(super) fn way_hears(
        &mut self,
        key: Key,
        place: Option<Place>,
        status: u16,
        response: &Message<'_>,
    ) {
        let now = self.now.moment;
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        way.failures = 0;
        let fields =
            |way: &Way| vec![("peer", way.peer.to_string()), ("local", way.near.to_string())];
        match status {
            503 => {
                let after = response.retry_after().filter(|it| *it > 0);
                let Some(after) = after else { return };
                let until = now + Duration::from_secs(after.into()).min(SIP_REST_MAX);
                self.counters.sip.retry_afters += 1;
                if way.width > 1 {
                    let line = way.lines.iter_mut().find(|it| Some(it.place) == place);
                    if let Some(line) = line {
                        line.resting_until = until;
                    }
                } else {
                    way.rest_until = until;
                }
                self.watch_sip_way(key);
            }
            504 if !way.proven && response.other("ms-diagnostics-public").next().is_none() => {
                way.proven = true;
                let mut fields = fields(way);
                fields.push((
                    "hint",
                    "a bare 504 on first contact: the partner could not verify us; check our \
                     _sipfederationtls._tcp record and that our certificate has its target's name"
                        .to_owned(),
                ));
                self.counters.sip.bare_504 += 1;
                self.notice("sip_partner_refuses_us", fields);
            }
            401 | 407 => {
                let mut fields = fields(way);
                fields.push(("status", status.to_string()));
                let realm = [Name::WwwAuthenticate, Name::ProxyAuthenticate]
                    .iter()
                    .find_map(|name| response.header(*name));
                let realm = realm.map(|it| String::from_utf8_lossy(it).into_owned());
                fields.push(("challenge", realm.unwrap_or_default()));
                self.counters.sip.challenged += 1;
                self.notice("sip_partner_wants_a_login", fields);
            }
            ..300 => way.proven = true,
            _ => {}
        }
    }

    /// Another target of the peer is known.
    pub(super) fn way_has_others(&self, key: Key) -> bool {
        self.transport.ways.get(key).is_some_and(|it| it.width > 1)
    }

    /// That line is the last choice for a while.
    pub(super) fn way_avoid(&mut self, key: Key, place: Option<Place>) {
        let now = self.now.moment;
        let Some(way) = self.transport.ways.get_mut(key) else { return };
        let line = way.lines.iter_mut().find(|it| Some(it.place) == place);
        let Some(line) = line else { return };
        line.resting_until = line.resting_until.max(now + SIP_REST_MAX / 4);
        let address = line.address;
        self.transport.failures.note(address.ip(), address.port(), now);
    }

    /// Nothing came back on it for a whole transaction: it may be dead without knowing.
    pub(super) fn way_silent(&mut self, key: Key, place: Option<Place>) {
        let heard = |shard: &Self, id: ConnId| shard.conns.get(id).map(|it| it.heard);
        match place {
            Some(Place::Conn(id)) => {
                let since = heard(self, id).map(|it| self.now.moment.since(it));
                if since.is_some_and(|it| it >= crate::sip::transaction::LIFE) {
                    self.counters.sip.lines_dead += 1;
                    self.drop_line(id);
                }
            }
            Some(place @ Place::Datagram(..)) => {
                if let Some(way) = self.transport.ways.get_mut(key) {
                    way.lines.retain(|it| it.place != place);
                }
            }
            None => {}
        }
    }
}
