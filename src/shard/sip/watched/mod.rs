//! Local users watched by SIP contacts.
//!
//! RFC 6665, 4.2; RFC 3856; RFC 8048, 5.3. A SUBSCRIBE becomes a dialog of the user, on his home
//! shard; who may see him is decided by his roster and his rules ([`Shard::standing_of`]), the same
//! as for a contact elsewhere: a watcher on whom nothing is decided is put to the home as
//! `subscribe`, and what the user's clients say to him comes back as a stanza, which is only the
//! sign to look again. What a dialog does is `gateway::watched`'s; NOTIFYs are in `notify.rs`, what
//! outlives the process in `kept.rs`.
//!
//! Not here: lists of resources (their `Require` is refused before), watcher information (489).

mod kept;
mod notify;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use table::Watched;

use crate::address::Address;
use crate::envelope::Purpose;
use crate::gateway::pidf;
use crate::gateway::watched::{Input, Lease, Reply, Standing, State, Step, Tell};
use crate::home::dialogs::DialogChange;
use crate::home::record::{Item, List};
use crate::home::subscription::Denial;
use crate::home::{Account, Readiness};
use crate::limits::{
    REQUESTS_MAX, REQUESTS_OF_DOMAIN_MAX, RESOURCES_MAX, WATCHED_DIALOG_BYTES_MAX,
    WATCHED_DOUBT_TIME, WATCHED_PER_PAIR_MAX,
};
use crate::policy::Profile;
use crate::shard::account::Outcome;
use crate::shard::deliver::{Carry, Text};
use crate::shard::kernel::Unavailable;
use crate::shard::settings::Settings;
use crate::shard::sip::watched::table::Watching;
use crate::shard::sip::{DialogOf, Due, Txn, dialog_key};
use crate::shard::{Shard, Timer};
use crate::sip::dialog::Dialog;
use crate::sip::fault::Fault;
use crate::sip::header::MediaType;
use crate::sip::message::Message;
use crate::sip::name::Name;
use crate::sip::write;
use crate::stdx::Key;

impl Shard {
    /// A contact wants to watch a user, whose record is at rest.
    pub(super) fn watched_subscribe(
        &mut self,
        txn: Txn,
        user: &Address,
        watcher: &Address,
        request: &Message<'_>,
    ) {
        self.counters.sip.watched_subscribes += 1;
        let lease = match self.watched_lease(watcher, request) {
            Ok(lease) => lease,
            Err(fault) => return self.watched_refuse(txn, request, &fault),
        };
        if self.standing_of(user, watcher, State::Init) == Some(Standing::Rejected) {
            return self.watched_refuse(txn, request, &Fault::new(403));
        }
        let tag = self.sip_token();
        let own = self.settings.domain(user.domain()).map_or("", |it| it.sip_name.as_str());
        let dialog = match Dialog::uas(request, &tag, own) {
            Ok(dialog) => dialog,
            Err(fault) => return self.watched_refuse(txn, request, &fault),
        };
        // A look is over before anything else can come in its dialog.
        let is_look = lease == Lease::Ends;
        let row = if is_look { "".into() } else { dialog_key(dialog.call_id(), &tag) };
        let event = request.header(Name::Event).unwrap_or(b"presence");
        let expires = self.now.moment + Duration::from_secs(seconds(lease).into());
        let who = (user, watcher);
        let mut watching = Watching::new(who, row.clone(), dialog, event, expires);
        watching.pending = self.now.wall;
        let kept = watching.row(Duration::from_secs(seconds(lease).into()), self.now);
        if kept.data.len() > WATCHED_DIALOG_BYTES_MAX {
            return self.watched_refuse(txn, request, &Fault::new(513));
        }
        watching.usable = watching.dialog.ceiling();
        let Some(key) = self.sip.watched.insert(watching) else {
            self.counters.sip.dialogs_full += 1;
            return self.watched_refuse(txn, request, &Fault::new(503));
        };
        if is_look {
            self.counters.sip.watched_fetches += 1;
            return self.watched_made(key, txn, request, lease);
        }
        if !self.dialog_enter(row, DialogOf::Watched(key)) {
            self.sip.watched.remove(key);
            return self.watched_refuse(txn, request, &Fault::new(503));
        }
        self.watched_make_room(user, watcher);
        let frame = request.frame().to_vec();
        let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
            shard.with_message(&frame, |shard, request| match done {
                Ok(()) => shard.watched_made(key, txn, &request, lease),
                Err(Unavailable) => {
                    shard.watched_drop(key);
                    shard.watched_refuse(txn, &request, &Fault::new(500));
                }
            });
        };
        self.keep(DialogChange::Put(kept), Box::new(after));
    }

    /// It is kept, or is but a look: it is answered, and told what it may see.
    fn watched_made(&mut self, key: Key, txn: Txn, request: &Message<'_>, lease: Lease) {
        let expires = self.now.moment + Duration::from_secs(seconds(lease).into());
        let Some(it) = self.sip.watched.get_mut(key) else { return };
        it.expires = expires;
        let Some(it) = self.sip.watched.get(key) else { return };
        let standing = self.standing_of(&it.user, &it.watcher, it.state);
        let standing = standing.unwrap_or(Standing::Unknown);
        let input = match lease {
            Lease::For(_) => Input::Subscribe(standing),
            Lease::Ends | Lease::TooBrief(_) => Input::End(standing),
        };
        self.watched_answer(key, txn, request, lease, input);
    }

    /// A SUBSCRIBE in a dialog.
    pub(super) fn watched_refresh(&mut self, key: Key, txn: Txn, request: &Message<'_>) {
        self.counters.sip.watched_refreshes += 1;
        let Some(it) = self.sip.watched.get(key) else {
            return self.watched_refuse(txn, request, &Fault::new(481));
        };
        if self.home.account(it.user.bare()).is_some() {
            return self.watched_refresh_now(key, txn, request);
        }
        let (user, frame) = (it.user.clone(), request.frame().to_vec());
        let owner = user.clone();
        let work = move |shard: &mut Self| {
            shard.with_message(&frame, |shard, request| {
                if shard.home.account(user.bare()).is_some() {
                    shard.watched_refresh_now(key, txn, &request);
                } else if shard.gates.has_no_account() {
                    shard.watched_refuse(txn, &request, &Fault::new(404));
                    shard.watched_feed(key, Input::Removed);
                } else {
                    shard.watched_refuse(txn, &request, &not_now());
                }
            });
        };
        if !self.with_record(&owner, Box::new(work)) {
            self.watched_refuse(txn, request, &not_now());
        }
    }

    fn watched_refresh_now(&mut self, key: Key, txn: Txn, request: &Message<'_>) {
        let heard = match self.sip.watched.get_mut(key) {
            // Between its last NOTIFY and the answer to it, there is no dialog any more.
            Some(it) if it.state.is_terminated() => Err(Fault::new(481)),
            Some(it) if it.state == State::Init => Err(Fault::new(500)),
            Some(it) => it.dialog.hears(request),
            None => Err(Fault::new(481)),
        };
        let Some(it) = self.sip.watched.get(key) else {
            return self.watched_refuse(txn, request, &Fault::new(481));
        };
        let lease = heard.and_then(|()| self.watched_lease(&it.watcher, request));
        let lease = match lease {
            Ok(lease) => lease,
            Err(fault) => return self.watched_refuse(txn, request, &fault),
        };
        if lease == Lease::Ends {
            return self.watched_answer(key, txn, request, lease, Input::End(Standing::Unknown));
        }
        let rest = Duration::from_secs(seconds(lease).into());
        let row = it.row(rest, self.now);
        let frame = request.frame().to_vec();
        let after = move |shard: &mut Self, done: Result<(), Unavailable>| {
            shard.with_message(&frame, |shard, request| {
                let Some(it) = shard.sip.watched.get_mut(key) else {
                    return shard.watched_refuse(txn, &request, &Fault::new(481));
                };
                if done.is_err() {
                    return shard.watched_refuse(txn, &request, &not_now());
                }
                it.expires = shard.now.moment + rest;
                let (user, watcher, state) = (it.user.clone(), it.watcher.clone(), it.state);
                let standing = shard.standing_of(&user, &watcher, state);
                let input = Input::Subscribe(standing.unwrap_or(Standing::Unknown));
                shard.watched_answer(key, txn, &request, lease, input);
            });
        };
        self.keep(DialogChange::Put(row), Box::new(after));
    }

    /// Answers a SUBSCRIBE as the machine says; the NOTIFY goes behind.
    fn watched_answer(
        &mut self,
        key: Key,
        txn: Txn,
        request: &Message<'_>,
        lease: Lease,
        input: Input,
    ) {
        let Some(it) = self.sip.watched.get(key) else { return };
        let step = it.state.handle(input);
        let is_new = it.state == State::Init;
        match step.reply {
            Some(Reply::Accepted) => {
                let (near, far) = (it.user.domain(), it.watcher.domain());
                let contact = format!("<{}>", self.own_contact(near, far));
                let route = self.own_route(near, far);
                let mut text = Vec::with_capacity(1_024);
                let tag = Some(it.dialog.local_tag());
                let mut writer = write::response(request, 200, "OK", tag, &mut text);
                if is_new {
                    writer = writer
                        .header("Record-Route", route.as_bytes())
                        .each("Record-Route", request.headers(Name::RecordRoute));
                }
                writer
                    .header("Contact", contact.as_bytes())
                    .uint("Expires", seconds(lease).into())
                    .header("Event", &it.event)
                    .end();
                self.sip_reply(txn, text);
            }
            Some(Reply::Forbidden) => self.watched_refuse(txn, request, &Fault::new(403)),
            Some(Reply::NoDialog) | None => self.watched_refuse(txn, request, &Fault::new(481)),
        }
        self.watched_take(key, step);
    }

    /// RFC 6665, 4.2.1: what it asks for, and for how long.
    fn watched_lease(&self, watcher: &Address, request: &Message<'_>) -> Result<Lease, Fault> {
        if !request.event().is_some_and(|it| it.is("presence")) {
            return Err(Fault::new(489).with("Allow-Events", "presence"));
        }
        // RFC 3856, 6.7: without an Accept it is PIDF.
        let accepts = |value: &[u8]| {
            MediaType::parse(value).is_some_and(|it| it.accepts("application", "pidf+xml"))
        };
        if request.header(Name::Accept).is_some() && !request.list(Name::Accept).any(accepts) {
            return Err(Fault::new(406).with("Accept", pidf::MEDIA_TYPE));
        }
        let lync = self.profile_of(watcher.domain()) == Profile::Lync;
        match Lease::of(request.expires()?, if lync { 7_200 } else { 3_600 }) {
            Lease::TooBrief(least) => Err(Fault::new(423).with("Min-Expires", least.to_string())),
            lease => Ok(lease),
        }
    }

    fn watched_refuse(&mut self, txn: Txn, request: &Message<'_>, fault: &Fault) {
        self.counters.sip.watched_refused += 1;
        self.sip_refuse(txn, request, fault);
    }

    /// The newest dialog of a pair wins; the oldest makes room.
    fn watched_make_room(&mut self, user: &Address, watcher: &Address) {
        let keys = self.sip.watched.of_pair(user, watcher);
        let live: Vec<Key> = keys
            .into_iter()
            .filter(|it| self.sip.watched.get(*it).is_some_and(|it| !it.state.is_terminated()))
            .collect();
        let too_many = live.len().saturating_sub(WATCHED_PER_PAIR_MAX);
        for key in live.into_iter().take(too_many) {
            self.counters.sip.watched_displaced += 1;
            if self.sip.watched.get(key).is_some_and(|it| it.state != State::Init) {
                self.watched_feed(key, Input::GaveUp);
            }
        }
    }

    /// How a watcher stands to a user, whose record is in memory. While nobody can know the user's
    /// state, nothing of it is said to one who was not told it before.
    fn standing_of(&self, user: &Address, watcher: &Address, state: State) -> Option<Standing> {
        let account = self.home.account(user.bare())?;
        let relation = account.relation(watcher.view());
        let standing = if account.privacy.hides_from(watcher.view()) {
            Standing::Blocked
        } else if relation.state.has_from() {
            Standing::Allowed
        } else if relation.denied {
            match self.denial_style(user.domain()) {
                Denial::Polite => Standing::Denied,
                Denial::Explicit => Standing::Rejected,
            }
        } else if relation.approved {
            Standing::Approved
        } else if relation.state.pending_in() || !is_crowded(account, watcher) {
            Standing::Undecided
        } else {
            Standing::Crowded
        };
        let is_there = || self.home.resources(user.bare()).iter().any(|it| it.available.is_some());
        let hides = match standing {
            Standing::Allowed | Standing::Approved => !is_there(),
            Standing::Denied | Standing::Blocked => true,
            _ => false,
        };
        let unsure = self.now.moment < self.sip.watched.unsure_until
            && matches!(state, State::Init | State::Unsure);
        Some(if unsure && hides { Standing::Unknown } else { standing })
    }

    /// Something happened to a dialog.
    pub(super) fn watched_feed(&mut self, key: Key, input: Input) {
        let Some(it) = self.sip.watched.get(key) else { return };
        let step = it.state.handle(input);
        self.watched_take(key, step);
    }

    fn watched_take(&mut self, key: Key, step: Step) {
        let wall = self.now.wall;
        let Some(it) = self.sip.watched.get_mut(key) else { return };
        let before = std::mem::replace(&mut it.state, step.next);
        it.pace.want(step.tell);
        if step.next == State::Pending && !matches!(before, State::Pending | State::Unsure) {
            it.pending = wall;
        }
        let (user, watcher) = (it.user.clone(), it.watcher.clone());
        if step.next.is_terminated() && !before.is_terminated() {
            self.watched_over(key);
            if step.tell == Tell::Nothing {
                self.sip.watched.remove(key);
            }
        }
        if step.ask {
            self.counters.sip.watched_asked += 1;
            self.say_for_contact("subscribe", watcher.view(), user.view());
        }
        let account = self.home.account(user.bare());
        if step.left && !account.is_some_and(|it| it.relation(watcher.view()).state.has_to()) {
            // One whom the user watches too says himself what he is.
            self.say_for_contact("unavailable", watcher.view(), user.view());
        }
        self.watched_go(key);
    }

    /// It has come to nothing.
    fn watched_drop(&mut self, key: Key) {
        self.watched_over(key);
        self.sip.watched.remove(key);
    }

    /// Presence of a local user to a SIP contact: what he decided, or that something changed.
    pub(super) fn watched_stanza(&mut self, carry: &Carry<'_>) {
        self.outcome(carry.origin, Outcome::Delivered);
        let user = carry.from.without_resource().to_address();
        let watcher = carry.to.without_resource().to_address();
        let says_no = carry.purpose == Purpose::Unsubscribed;
        if says_no {
            self.watched_denied(&user, &watcher);
        }
        for key in self.sip.watched.of_pair(&user, &watcher) {
            self.watched_note(key, carry);
            if says_no {
                self.watched_feed(key, Input::Decided(Standing::Rejected));
            } else {
                self.watched_decide(key);
            }
        }
    }

    /// Looks again at how the watcher stands.
    fn watched_decide(&mut self, key: Key) {
        let Some(it) = self.sip.watched.get(key) else { return };
        let Some(standing) = self.standing_of(&it.user, &it.watcher, it.state) else { return };
        self.watched_feed(key, Input::Decided(standing));
    }

    /// RFC 6121 knows no denial that lasts; a SIP client asks at each login. So an explicit one is
    /// noted until the user approves.
    fn watched_denied(&mut self, user: &Address, watcher: &Address) {
        if self.denial_style(user.domain()) == Denial::Explicit {
            let after = |_: &mut Self, _| {};
            self.change_rule(user, List::Denied, watcher.clone(), true, Box::new(after));
        }
    }

    /// Presence that a client sent to this contact (RFC 6121, 4.6) is his alone, until the client
    /// says something to all or goes.
    fn watched_note(&mut self, key: Key, carry: &Carry<'_>) {
        let tells = matches!(carry.purpose, Purpose::Available | Purpose::Unavailable);
        let Some(resource) = carry.from.resource().filter(|_| tells) else { return };
        let Some(it) = self.sip.watched.get_mut(key) else { return };
        it.directed.retain(|(name, _)| **name != *resource);
        if carry.origin.is_none() || it.directed.len() >= RESOURCES_MAX {
            return;
        }
        let shown = match &carry.text {
            _ if carry.purpose == Purpose::Unavailable => None,
            Text::Original { frame, stanza, .. } => Some(pidf::Shown::of_stanza(frame, stanza)),
            Text::Written(text) => notify::shown_in(text),
        };
        it.directed.push((resource.into(), shown));
    }

    /// The user's lists have changed.
    pub(in crate::shard) fn watched_rules(&mut self, user: &Address) {
        for key in self.sip.watched.of_user(user.bare()) {
            let state = self.sip.watched.get(key).map(|it| it.state);
            let approves = self.sip.watched.get(key).is_some_and(|it| {
                let standing = self.standing_of(&it.user, &it.watcher, it.state);
                standing == Some(Standing::Approved)
            });
            self.watched_decide(key);
            if approves && state == Some(State::Pending) {
                // The request that waits is the one that is granted.
                let Some(it) = self.sip.watched.get(key) else { continue };
                let (user, watcher) = (it.user.clone(), it.watcher.clone());
                self.say_for_contact("subscribe", watcher.view(), user.view());
            }
        }
    }

    /// The account was removed, or only its password changed: that is looked up when its streams
    /// have ended.
    pub(in crate::shard) fn watched_kicked(&mut self, user: &Address) {
        let at = self.now.moment + WATCHED_DOUBT_TIME;
        for key in self.sip.watched.of_user(user.bare()) {
            if let Some(it) = self.sip.watched.get_mut(key) {
                it.doubted = true;
                it.armed = at;
                self.timers.set(at, Timer::Sip(Due::Watched(key)));
            }
        }
    }

    /// Is there still an account?
    fn watched_look(&mut self, key: Key) {
        let Some(it) = self.sip.watched.get(key) else { return };
        let user = it.user.clone();
        if self.home.resources(user.bare()).is_empty()
            && self.home.readiness(user.bare()) == Readiness::Ready
        {
            self.home.forget(user.bare(), false);
        }
        let owner = user.clone();
        let work = move |shard: &mut Self| {
            if shard.home.account(user.bare()).is_none() && shard.gates.has_no_account() {
                shard.watched_feed(key, Input::Removed);
            }
            shard.watched_arm(key);
        };
        if !self.with_record(&owner, Box::new(work)) {
            self.watched_arm(key);
        }
    }

    /// A new configuration, which is not in force yet: watchers in domains that it has no place for
    /// hear that it is over.
    pub(in crate::shard) fn watched_policy(&mut self, settings: &Settings) {
        let gone = |it: &Watching| settings.policy.sip(it.watcher.domain()).is_none();
        for key in self.sip.watched.keys_of(|it| !it.state.is_terminated() && gone(it)) {
            self.watched_feed(key, Input::Refused);
        }
    }
}

/// Too many wait for the user, or too many of that domain.
fn is_crowded(account: &Account, watcher: &Address) -> bool {
    let pending = |it: &&Item| it.state.pending_in();
    let items = account.roster.items();
    let of_domain =
        items.iter().filter(pending).filter(|it| it.contact.domain() == watcher.domain());
    of_domain.count() >= REQUESTS_OF_DOMAIN_MAX
        || items.iter().filter(pending).count() >= REQUESTS_MAX
}

fn seconds(lease: Lease) -> u32 {
    match lease {
        Lease::For(seconds) => seconds,
        Lease::Ends | Lease::TooBrief(_) => 0,
    }
}

/// RFC 6665, 4.1.2.2: after 500 a subscription goes on as it was.
fn not_now() -> Fault {
    Fault::new(500).with("Retry-After", "5")
}
