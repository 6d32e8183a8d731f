//! Presence that shows another state elsewhere: toward domains of another profile, and at delivery
//! to local clients of one kind.
//!
//! Which state becomes which is in `presence::availability` (tables 4 to 7); here is only where the
//! tables are asked. Where no rule has such a profile, a presence stanza passes at the price of one
//! comparison.

use crate::envelope::{Kind, Purpose};
use crate::home::Receivers;
use crate::policy::Profile;
use crate::presence::availability::{
    incoming, is_rewritten_inward, is_rewritten_outward, outgoing,
};
use crate::presence::rewritten;
use crate::shard::Shard;
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::kernel::ConnId;
use crate::xmpp::read;
use crate::xmpp::stanza::ChildKind;

impl Shard {
    /// What a domain of this profile is told instead; `None`: what was said. In the namespace of
    /// servers.
    pub(super) fn told_outward(&mut self, carry: &Carry<'_>, profile: Profile) -> Option<Vec<u8>> {
        if !is_rewritten_outward(profile)
            || (carry.kind, carry.purpose) != (Kind::Presence, Purpose::Available)
        {
            return None;
        }
        let mut text = Vec::new();
        carry.text.append_exchanged(&mut text).ok()?;
        let stanza = reread(&text)?;
        let new = rewritten(&text, &stanza, |wire| outgoing(profile, wire))?;
        self.counters.presences_rewritten += 1;
        Some(new)
    }

    /// Hands presence to clients of which some show the same words in another way; false: it is the
    /// same for all, and not handed out yet.
    pub(super) fn hand_by_kind(
        &mut self,
        receivers: &Receivers<ConnId>,
        carry: &Carry<'_>,
    ) -> bool {
        if carry.kind != Kind::Presence
            || carry.purpose != Purpose::Available
            || !self.settings.policy.has_profile(is_rewritten_inward)
            || self.settings.domain(carry.from.domain()).is_some()
        {
            return false;
        }
        let profile = self.settings.policy.verdict(carry.from.domain()).0.profile;
        let mut text = Vec::new();
        if !is_rewritten_inward(profile) || carry.text.append(&mut text).is_err() {
            return false;
        }
        let Some(stanza) = reread(&text) else { return false };
        // All kinds but Jabber are handed the same.
        let new = rewritten(&text, &stanza, |wire| incoming(profile, Profile::Xmpp, wire));
        let Some(new) = new else { return false };
        let ids = match receivers {
            Receivers::One(id) => vec![*id],
            Receivers::Several(ids) => ids.clone(),
        };
        let user = carry.to.bare();
        let (jabber, others): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|id| self.kind_of(user, *id) == Profile::Jabber);
        if !others.is_empty() {
            self.counters.presences_rewritten += 1;
            self.hand_to_all(&others, &Carry { text: Text::Written(&new), ..carry.clone() });
        }
        if !jabber.is_empty() {
            // One account, whatever the number of those who are handed it.
            let origin = carry.origin.filter(|_| others.is_empty());
            self.hand_to_all(&jabber, &Carry { origin, ..carry.clone() });
        }
        true
    }

    /// The kind of a client, by its resource and the capabilities in its presence.
    fn kind_of(&self, user: &str, id: ConnId) -> Profile {
        let resources = self.home.resources(user);
        let Some(resource) = resources.iter().find(|it| it.key == id) else {
            return Profile::default();
        };
        let presence = resource.available.as_ref().map(|it| &*it.stanza);
        let node = presence.and_then(|text| {
            let stanza = reread(text)?;
            let caps = stanza.child(ChildKind::Caps)?;
            read::attr_of(caps.octets(text), b"node").map(|it| it.into_owned())
        });
        self.settings.clients.kind(node.as_deref(), &resource.name)
    }
}
