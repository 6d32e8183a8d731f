//! Carbons: a user's other resources see what he says and hears.
//!
//! XEP-0280. Which messages are copied is `home::carbons`; here is who gets them. Copies are on
//! nobody's account: one that finds no room is missed, and counted.

use crate::home::carbons::is_eligible;
use crate::shard::Shard;
use crate::shard::conn::Role;
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::kernel::ConnId;
use crate::xmpp::payload::carbons::{Way, write_carbon};
use crate::xmpp::stanza::ChildKind;

impl Shard {
    /// XEP-0280, 4 and 5.
    pub(super) fn switch_carbons(&mut self, id: ConnId, carry: &Carry<'_>) {
        let Text::Original { stanza, .. } = &carry.text else { return };
        let on = stanza.has(ChildKind::CarbonsEnable);
        if let Some(resource) = self.home.resource_mut(carry.from.bare(), id) {
            resource.carbons = on;
        }
        self.note_copied(carry.from.bare());
        self.own_result(carry, &[]);
    }

    /// Tells the user's connections whether what they say must be copied, so that those of nearly
    /// all users need not ask.
    pub(super) fn note_copied(&mut self, bare: &str) {
        let all = self.home.resources(bare);
        let with: Vec<ConnId> = all.iter().filter(|it| it.carbons).map(|it| it.key).collect();
        let keys: Vec<ConnId> = all.iter().map(|it| it.key).collect();
        for key in keys {
            if let Some(Role::Bound(bound)) = self.conns.get_mut(key).map(|conn| &mut conn.role) {
                bound.copied = with.iter().any(|it| *it != key);
            }
        }
    }

    /// Whether what a new resource says must be copied.
    pub(super) fn is_copied(&self, bare: &str, id: ConnId) -> bool {
        self.home.resources(bare).iter().any(|it| it.carbons && it.key != id)
    }

    /// The user says something on `id` (XEP-0280, 8).
    pub(super) fn copy_sent(&mut self, id: ConnId, carry: &Carry<'_>) {
        self.copy(Way::Sent, carry.from.bare(), &[id], carry);
    }

    /// The user hears something on `ids` (XEP-0280, 7).
    pub(super) fn copy_received(&mut self, ids: &[ConnId], carry: &Carry<'_>) {
        let mut except = ids.to_vec();
        if carry.from.bare() == carry.to.bare() {
            // The one that said it knows.
            except.extend(self.home.find(carry.from).map(|it| it.key));
        }
        self.copy(Way::Received, carry.to.bare(), &except, carry);
    }

    fn copy(&mut self, way: Way, bare: &str, except: &[ConnId], carry: &Carry<'_>) {
        let others: Vec<(ConnId, String)> = self
            .home
            .resources(bare)
            .iter()
            .filter(|it| it.carbons && !except.contains(&it.key))
            .map(|it| (it.key, format!("{bare}/{}", it.name)))
            .collect();
        if others.is_empty() {
            return;
        }
        let eligible = match &carry.text {
            Text::Original { stanza, .. } => is_eligible(way, carry.kind, carry.purpose, stanza),
            Text::Written(text) => {
                reread(text).is_some_and(|it| is_eligible(way, carry.kind, carry.purpose, &it))
            }
        };
        let mut message = Vec::new();
        if !eligible || carry.text.append(&mut message).is_err() {
            return;
        }
        for (key, to) in others {
            let mut text = Vec::new();
            if write_carbon(way, bare, &to, &message, &mut text) {
                self.counters.carbons += 1;
                self.tell(key, &text);
            }
        }
    }
}
