//! One change of presence, told to many: a record per shard, a stanza per domain's contact.
//!
//! The home of the presentity knows its audience and a number for its present version. A shard that
//! has watchers is told who they are once; then each change is one record, expanded where the
//! watchers are: only `to` differs, so it is cut in where the root's name ends.

use crate::address::{Address, AddressRef};
use crate::envelope::{Kind, Purpose};
use crate::home::Account;
use crate::presence::Audience;
use crate::route::shard_of;
use crate::shard::Shard;
use crate::shard::deliver::{Carry, Text, reread};
use crate::shard::kernel::ShardId;
use crate::shard::post::{Record, put_text, take_text, take_u64};
use crate::xmpp::splice::Edits;
use crate::xmpp::{read, write};

impl Shard {
    /// Tells everybody who may see the user's presence. `whole` is from one of his resources and
    /// has no `to`.
    pub(super) fn fan_out(&mut self, user: &Address, whole: &[u8]) {
        let Some(mut audience) = self.audience_of(user) else { return };
        for share in &mut audience.shares {
            let to = ShardId(share.shard);
            if !std::mem::replace(&mut share.told, true) {
                self.tell_watchers(to, user, audience.version, &share.watchers);
            }
            if to == self.id {
                self.expand(user.bare(), audience.version, whole);
            } else {
                let version = audience.version;
                self.posts.record(to, Record::Fanout, |out| {
                    put_text(user.bare(), out);
                    out.extend_from_slice(&version.to_le_bytes());
                    out.extend_from_slice(whole);
                });
            }
        }
        for contact in &audience.foreign {
            self.send_addressed(user.view(), whole, contact.view());
        }
        if let Some(account) = self.home.account_mut(user.bare())
            && account.audience.is_none()
            && !audience.is_empty()
        {
            account.audience = Some(audience);
        }
    }

    /// Takes the user's audience out, made anew if it has changed.
    fn audience_of(&mut self, user: &Address) -> Option<Box<Audience>> {
        let account = self.home.account_mut(user.bare())?;
        if let Some(audience) = account.audience.take() {
            return Some(audience);
        }
        self.audiences += 1;
        let (settings, privacy) = (&self.settings, &account.privacy);
        let seen_by = account
            .roster
            .items()
            .iter()
            .filter(|it| it.state.has_from() && !privacy.hides_from(it.contact.view()))
            .map(|it| &it.contact);
        let audience = Audience::new(self.audiences, seen_by, |contact| {
            settings.domain(contact.domain()).map(|_| shard_of(contact.slot(), settings.shards))
        });
        Some(Box::new(audience))
    }

    fn tell_watchers(&mut self, to: ShardId, user: &Address, version: u64, watchers: &[Box<str>]) {
        if to == self.id {
            return self.watchers.put(user.bare(), version, watchers.to_vec());
        }
        self.posts.record(to, Record::Watchers, |out| {
            put_text(user.bare(), out);
            out.extend_from_slice(&version.to_le_bytes());
            for watcher in watchers {
                put_text(watcher, out);
            }
        });
    }

    /// Who watches a user of another shard.
    pub(super) fn watchers_came(&mut self, mut at: &[u8]) {
        let (Some(presentity), Some(version)) = (take_text(&mut at), take_u64(&mut at)) else {
            return;
        };
        let mut watchers = Vec::new();
        while let Some(watcher) = take_text(&mut at) {
            watchers.push(watcher.into());
        }
        self.watchers.put(presentity, version, watchers);
    }

    /// A change of presence of a user of another shard.
    pub(super) fn fanout_came(&mut self, from: ShardId, mut at: &[u8]) {
        let (Some(presentity), Some(version)) = (take_text(&mut at), take_u64(&mut at)) else {
            return;
        };
        if self.watchers.get(presentity, version).is_some() {
            return self.expand(presentity, version, at);
        }
        self.counters.watchers_wanted += 1;
        self.posts.record(from, Record::WatchersWanted, |out| {
            put_text(presentity, out);
            out.extend_from_slice(at);
        });
    }

    /// Another shard has forgotten who watches a user of this one, or knows another version: it is
    /// told anew, and what it could not expand is told again.
    pub(super) fn watchers_wanted(&mut self, by: ShardId, mut at: &[u8]) {
        let mut scratch = String::new();
        let Some(Ok(user)) = take_text(&mut at).map(|it| AddressRef::parse(it, &mut scratch))
        else {
            return;
        };
        let Some(account) = self.home.account_mut(user.bare()) else { return };
        // If the audience has changed since, it is made anew, and so is told anyway.
        if let Some(share) = account.audience.as_mut().and_then(|it| it.share_mut(by.0)) {
            share.told = false;
        }
        let user = user.to_address();
        let stanzas: Vec<_> = self
            .home
            .resources(user.bare())
            .iter()
            .filter_map(|r| r.available.as_ref().map(|a| a.stanza.clone()))
            .collect();
        for stanza in stanzas {
            self.fan_out_to(by, &user, &stanza);
        }
        // What could not be expanded may be the end of a resource, which nothing else tells.
        let from = read::attr_of(at, b"from").and_then(|it| Address::parse(&it).ok());
        let is_there = |from: &Address| {
            self.home.find(from.view()).is_some_and(|resource| resource.available.is_some())
        };
        if from.is_some_and(|from| from.bare() == user.bare() && !is_there(&from)) {
            self.fan_out_to(by, &user, at);
        }
    }

    /// The same as [`Shard::fan_out`] for one shard only.
    fn fan_out_to(&mut self, to: ShardId, user: &Address, whole: &[u8]) {
        let Some(mut audience) = self.audience_of(user) else { return };
        let version = audience.version;
        if let Some(share) = audience.share_mut(to.0) {
            if !std::mem::replace(&mut share.told, true) {
                self.tell_watchers(to, user, version, &share.watchers);
            }
            self.posts.record(to, Record::Fanout, |out| {
                put_text(user.bare(), out);
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(whole);
            });
        }
        if let Some(account) = self.home.account_mut(user.bare()) {
            account.audience = Some(audience);
        }
    }

    /// Into the outboxes of all watchers of this shard that are available.
    fn expand(&mut self, presentity: &str, version: u64, whole: &[u8]) {
        let Some(target) = Target::of(whole) else { return };
        let home = &self.home;
        let Some(set) = self.watchers.get(presentity, version) else { return };
        let (mut told, mut aside, mut watched) = (0, Vec::new(), Vec::new());
        let (closed, mut behind) = (self.gates.are_closed(), Vec::<String>::new());
        let targets = set.targets(home.changes(), |watcher, found| {
            let Some((account, resources)) = home.watcher(watcher) else { return };
            let ruled = !account.privacy.is_empty();
            for resource in resources.iter().filter(|r| r.available.is_some()) {
                found((resource.key, ruled));
            }
        });
        for (watcher, (key, ruled)) in targets {
            if *ruled && home.watcher(watcher).is_some_and(|it| target.is_blocked(it.0)) {
                continue;
            }
            if closed && self.gates.holds(watcher, target.sender()) {
                if behind.last().is_none_or(|it| it != watcher) {
                    behind.push(watcher.to_owned());
                }
                continue;
            }
            let Some((outbox, first)) = self.conns.outbox_for_writing(*key, &mut self.buffers)
            else {
                aside.push((*key, watcher.to_owned()));
                continue;
            };
            if first {
                self.dirty.push(*key);
            }
            if outbox.is_idle() || outbox.grows_slow() {
                aside.push((*key, watcher.to_owned()));
                continue;
            }
            let out = outbox.buffer();
            let start = out.len();
            target.write(watcher, out);
            let length = out.len() - start;
            if outbox.stanza(length, None, self.now.moment) {
                watched.push(*key);
            }
            told += 1;
        }
        self.counters.presences_told += told;
        for (key, watcher) in aside {
            let mut text = Vec::new();
            target.write(&watcher, &mut text);
            self.tell(key, &text);
        }
        for watcher in behind {
            let mut text = Vec::new();
            target.write(&watcher, &mut text);
            self.tell_behind(presentity, watcher, text);
        }
        for key in watched {
            self.watch_outbox(key);
        }
    }

    /// What was addressed to a watcher earlier waits at his gate, and this must not overtake it.
    fn tell_behind(&mut self, presentity: &str, watcher: String, text: Vec<u8>) {
        let (Ok(user), Ok(from)) = (Address::parse(&watcher), Address::parse(presentity)) else {
            return;
        };
        let sender = from.bare_hash();
        let work = move |shard: &mut Self| {
            let account = shard.home.account(&watcher);
            if account.is_some_and(|it| it.privacy.is_blocked(from.view())) {
                return;
            }
            let resources = shard.home.resources(&watcher).iter();
            let keys: Vec<_> = resources.filter(|r| r.available.is_some()).map(|r| r.key).collect();
            for key in keys {
                shard.tell(key, &text);
            }
        };
        self.behind_gate(&user, sender, Box::new(work));
    }

    /// A presence stanza of a local user without `to`, sent to one address.
    pub(super) fn send_addressed(
        &mut self,
        user: AddressRef<'_>,
        whole: &[u8],
        to: AddressRef<'_>,
    ) {
        let Some(stanza) = reread(whole) else { return };
        let type_ = stanza.type_.map(|it| it.raw(whole));
        let purpose = Purpose::read(Kind::Presence, type_).unwrap_or(Purpose::Available);
        let mut scratch = String::new();
        let value = stanza.from.map(|it| it.value(whole));
        let from = value.as_deref().and_then(|it| AddressRef::parse(it, &mut scratch).ok());
        let edits = Edits { to: Some(to.full()), ..Edits::default() };
        self.route(&Carry {
            origin: None,
            since: self.now.moment,
            kind: Kind::Presence,
            purpose,
            from: from.unwrap_or(user),
            to,
            text: Text::Original { frame: whole, stanza: &stanza, edits },
        });
    }
}

/// A presence stanza without `to`, ready to be told to many.
struct Target<'a> {
    /// Up to the end of the root's name.
    head: &'a [u8],
    tail: &'a [u8],
    from: Option<Address>,
}

impl<'a> Target<'a> {
    fn of(whole: &'a [u8]) -> Option<Self> {
        let (head, tail) = whole.split_at_checked(1 + read::name_of(whole).len())?;
        let from = read::attr_of(whole, b"from").and_then(|it| Address::parse(&it).ok());
        Some(Self { head, tail, from })
    }

    fn sender(&self) -> u64 {
        self.from.as_ref().map_or(0, Address::bare_hash)
    }

    fn is_blocked(&self, watcher: &Account) -> bool {
        self.from.as_ref().is_some_and(|from| watcher.privacy.is_blocked(from.view()))
    }

    fn write(&self, to: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(self.head);
        write::attr("to", to, out);
        out.extend_from_slice(self.tail);
    }
}
