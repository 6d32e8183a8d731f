//! What scripts do with the partner: its people's acts, its answers on demand, and what has been heard.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::dialog::{Dialog, Heard, Kind, User};
use super::link::Link;
use super::shape;
use super::state::State;
use super::words::{Message, domain};
use super::{Answer, Counts, Edge, Manner, Partner, Rule};
use crate::cli::demo::client::Trouble;

/// A request that was sent: its dialog, and how to find its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The dialog it began or belongs to.
    pub dialog: usize,
    sent: usize,
}

impl Edge {
    /// Federates with somebody.
    pub fn partner(&self, partner: Partner) {
        let mut state = self.shared.state();
        state.partners.retain(|it| it.domain != partner.domain);
        state.partners.push(partner);
    }

    /// Hires somebody, available to everybody.
    pub fn user(&self, name: &str) {
        self.shared.state().users.push(User {
            name: name.to_owned(),
            open: true,
            activity: String::new(),
            rule: Rule::default(),
            manner: Manner::default(),
        });
    }

    /// Who may watch a user from now on; those that watch already are not told.
    pub fn rule(&self, user: &str, rule: Rule) {
        self.change(user, |it| it.rule = rule);
    }

    /// How those who watch a user are told.
    pub fn manner(&self, user: &str, manner: Manner) {
        self.change(user, |it| it.manner = manner);
    }

    /// Seconds granted to who watches.
    pub fn grant(&self, seconds: u32) {
        self.shared.state().grant = seconds;
    }

    fn change(&self, user: &str, change: impl FnOnce(&mut User)) {
        if let Some(user) = self.shared.state().users.iter_mut().find(|it| it.name == user) {
            change(user);
        }
    }

    /// A user's state changes, and all who may see it are told.
    pub fn publish(&self, user: &str, open: bool, activity: &str) -> Result<usize, Trouble> {
        self.change(user, |it| (it.open, it.activity) = (open, activity.to_owned()));
        self.tell(user)
    }

    /// A user decides, and those who wait are told.
    pub fn decide(&self, user: &str, rule: Rule) -> Result<usize, Trouble> {
        self.rule(user, rule);
        self.tell(user)
    }

    fn tell(&self, user: &str) -> Result<usize, Trouble> {
        let is_watched =
            |it: &Dialog| it.kind == Kind::Watched && it.up && !it.over && it.user == user;
        let watched: Vec<(usize, String)> = {
            let state = self.shared.state();
            let all = state.dialogs.iter().enumerate();
            all.filter(|it| is_watched(it.1)).map(|(at, it)| (at, it.far.clone())).collect()
        };
        for (at, far) in &watched {
            let link = self.link(domain(far))?;
            self.shared.state().notify(&link, *at);
        }
        Ok(watched.len())
    }

    /// Begins a dialog, or asks once outside of any. `extra` are whole lines.
    pub fn begin(
        &self,
        method: &str,
        user: &str,
        far: &str,
        extra: &[&str],
        body: Option<(String, Vec<u8>)>,
    ) -> Result<Call, Trouble> {
        let link = self.link(domain(far))?;
        let mut state = self.shared.state();
        let dialog = state.dialog(method, user, far);
        let extra = extra.iter().map(|it| (*it).to_owned()).collect();
        let sent = state.send_within(&link, dialog, method, extra, body);
        Ok(Call { dialog, sent })
    }

    /// What a server can do: a URI of its own choice.
    pub fn options(&self, user: &str, far: &str, uri: &str) -> Result<Call, Trouble> {
        let link = self.link(domain(far))?;
        let mut state = self.shared.state();
        let dialog = state.dialog("OPTIONS", user, far);
        if let Some(it) = state.dialogs.get_mut(dialog) {
            it.target = uri.to_owned();
        }
        let sent = state.send_within(&link, dialog, "OPTIONS", Vec::new(), None);
        Ok(Call { dialog, sent })
    }

    /// The last NOTIFY of a subscription; what comes in it later is unknown here.
    pub fn terminate(&self, dialog: usize, extra: &[&str]) -> Result<Call, Trouble> {
        let call = self.within(dialog, "NOTIFY", extra, None)?;
        if let Some(dialog) = self.shared.state().dialogs.get_mut(dialog) {
            dialog.over = true;
        }
        Ok(call)
    }

    /// A request in a dialog.
    pub fn within(
        &self,
        dialog: usize,
        method: &str,
        extra: &[&str],
        body: Option<(String, Vec<u8>)>,
    ) -> Result<Call, Trouble> {
        let far = self.dialog(dialog, |it| it.far.clone())?;
        let link = self.link(domain(&far))?;
        let extra = extra.iter().map(|it| (*it).to_owned()).collect();
        let sent = self.shared.state().send_within(&link, dialog, method, extra, body);
        Ok(Call { dialog, sent })
    }

    fn dialog<T>(&self, at: usize, of: impl FnOnce(&Dialog) -> T) -> Result<T, Trouble> {
        let state = self.shared.state();
        state.dialogs.get(at).map(of).ok_or_else(|| Trouble("no such dialog".to_owned()))
    }

    /// `user` asks to watch `far`, as Office Communications Server 2007 writes it.
    pub fn subscribe(&self, user: &str, far: &str) -> Result<Call, Trouble> {
        self.begin("SUBSCRIBE", user, far, SUBSCRIBE, None)
    }

    /// The same again in its dialog; 0 seconds end it.
    pub fn refresh(&self, dialog: usize, seconds: u32) -> Result<Call, Trouble> {
        let expires = format!("Expires: {seconds}");
        self.within(dialog, "SUBSCRIBE", &[SUBSCRIBE, &[expires.as_str()]].concat(), None)
    }

    /// `user` opens a window to `far`, with the first text embedded in a way nobody has agreed to.
    pub fn invite(&self, user: &str, far: &str) -> Result<Call, Trouble> {
        self.begin("INVITE", user, far, INVITE, Some(shape::offer()))
    }

    /// A text in a session.
    pub fn message(&self, dialog: usize, text: &str) -> Result<Call, Trouble> {
        let body = ("text/plain; charset=UTF-8".to_owned(), text.as_bytes().to_vec());
        self.within(dialog, "MESSAGE", &[], Some(body))
    }

    /// `type` or `idle`.
    pub fn typing(&self, dialog: usize, status: &str) -> Result<Call, Trouble> {
        let text = format!(
            "<?xml version=\"1.0\"?><KeyboardActivity> <status status=\"{status}\" /></KeyboardActivity>"
        );
        self.within(dialog, "INFO", &[], Some(("application/xml".to_owned(), text.into_bytes())))
    }

    /// The window is closed.
    pub fn bye(&self, dialog: usize) -> Result<Call, Trouble> {
        self.within(dialog, "BYE", &[], None)
    }

    /// The next request of this method is answered so; orders are kept in a row.
    pub fn answer_next(&self, method: &str, answer: Answer) {
        self.answer_next_to("", method, answer);
    }

    /// The same for requests to one of its people.
    pub fn answer_next_to(&self, user: &str, method: &str, answer: Answer) {
        self.shared.state().orders.push((method.to_owned(), user.to_owned(), answer));
    }

    /// Takes no calls any more, or takes them again; those that are up are cut.
    pub fn deaf(&self, deaf: bool) {
        self.shared.deaf.store(deaf, Ordering::Relaxed);
        if deaf {
            self.hang_up();
        }
    }

    /// ACKs of ours stay away.
    pub fn withhold_acks(&self) {
        self.shared.state().withholds_acks = true;
    }

    /// Answers the oldest request that waits for it. A provisional answer leaves it waiting.
    pub fn answer_held(&self, method: &str, answer: &Answer) -> Result<(), Trouble> {
        let place = self.wait(&format!("a held {method}"), self.patience, |state| {
            let is_it =
                |it: &&usize| state.heard.get(**it).is_some_and(|it| it.message.method == method);
            state.held.iter().find(is_it).copied()
        })?;
        let mut state = self.shared.state();
        let Some(heard) = state.heard.get(place).cloned() else { return Ok(()) };
        let Some(link) =
            state.links.iter().find(|it| it.0 == heard.link).map(|it| Arc::clone(&it.1))
        else {
            return Err(Trouble("its connection is gone".to_owned()));
        };
        if answer.status >= 200 && !answer.forks {
            state.held.retain(|&it| it != place);
        }
        state.obey(place, &link, &heard.message, answer);
        Ok(())
    }

    /// The final answer to a request of ours.
    pub fn answer(&self, call: Call) -> Result<Message, Trouble> {
        self.wait("the answer", self.patience, |state| {
            let sent = state.sent.get(call.sent)?;
            let all = sent.answers.iter().filter_map(|&it| state.heard.get(it));
            all.map(|it| &it.message).find(|it| it.status >= 200).cloned()
        })
        .map_err(|it| Trouble(format!("{}: {it}", self.words_of(call))))
    }

    /// All answers so far.
    pub fn answers(&self, call: Call) -> Vec<Message> {
        let state = self.shared.state();
        let places = state.sent.get(call.sent).map(|it| it.answers.clone()).unwrap_or_default();
        places.iter().filter_map(|&it| state.heard.get(it)).map(|it| it.message.clone()).collect()
    }

    /// How many answers requests of this method have got.
    pub fn answers_to(&self, method: &str) -> usize {
        let state = self.shared.state();
        state.sent.iter().filter(|it| it.message.method == method).map(|it| it.answers.len()).sum()
    }

    fn words_of(&self, call: Call) -> String {
        self.shared
            .state()
            .sent
            .get(call.sent)
            .map(|it| it.message.method.clone())
            .unwrap_or_default()
    }

    /// A request of ours as it went out.
    pub fn request(&self, call: Call) -> Option<Message> {
        self.shared.state().sent.get(call.sent).map(|it| it.message.clone())
    }

    /// Sends the same octets again.
    pub fn repeat(&self, call: Call) -> Result<(), Trouble> {
        let far = self.dialog(call.dialog, |it| it.far.clone())?;
        let raw = self.request(call).map(|it| it.raw).unwrap_or_default();
        Ok(self.link(domain(&far))?.send(&raw)?)
    }

    /// The next request that fits and that no script has had yet. `what` is for the words of a failure.
    pub fn next(&self, what: &str, wanted: impl Fn(&Message) -> bool) -> Result<Message, Trouble> {
        self.next_within(what, self.patience, wanted)
    }

    /// The same with a time of one's own.
    pub fn next_within(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message, Trouble> {
        self.next_heard(what, patience, |it| it.message.status == 0 && wanted(&it.message))
            .map(|it| it.message)
    }

    /// The next request of a dialog.
    pub fn next_in(&self, dialog: usize, method: &str) -> Result<Message, Trouble> {
        let is_it = |it: &Heard| {
            it.dialog == Some(dialog) && it.message.status == 0 && it.message.method == method
        };
        self.next_heard(method, self.patience, is_it).map(|it| it.message)
    }

    /// The next request of this method that began a dialog, and that dialog.
    pub fn next_dialog(&self, method: &str) -> Result<(Message, usize), Trouble> {
        let is_it = |it: &Heard| {
            it.message.status == 0 && it.message.method == method && it.dialog.is_some()
        };
        let heard = self.next_heard(method, self.patience, is_it)?;
        Ok((heard.message, heard.dialog.unwrap_or_default()))
    }

    fn next_heard(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Heard) -> bool,
    ) -> Result<Heard, Trouble> {
        self.wait(what, patience, |state| {
            let heard = state.heard.iter_mut().find(|it| !it.taken && wanted(it))?;
            heard.taken = true;
            Some(heard.clone())
        })
    }

    /// Fails if a request that fits comes within that time.
    pub fn none(&self, time: Duration, wanted: impl Fn(&Message) -> bool) -> Result<(), Trouble> {
        match self.next_within("nothing", time, wanted) {
            Ok(message) => Err(Trouble(format!("not expected:\n{message:?}"))),
            Err(_) => Ok(()),
        }
    }

    /// When the last request that fits came.
    pub fn last_at(&self, wanted: impl Fn(&Message) -> bool) -> Option<Instant> {
        let state = self.shared.state();
        state
            .heard
            .iter()
            .rev()
            .find(|it| it.message.status == 0 && wanted(&it.message))
            .map(|it| it.at)
    }

    /// How many requests fit, whether a script had them or not.
    pub fn count(&self, wanted: impl Fn(&Message) -> bool) -> usize {
        let state = self.shared.state();
        state.heard.iter().filter(|it| it.message.status == 0 && wanted(&it.message)).count()
    }

    /// Waits until a session's ACK was heard or said.
    pub fn acknowledged(&self, dialog: usize) -> Result<(), Trouble> {
        self.wait("the ACK", self.patience, |state| {
            state.dialogs.get(dialog)?.acknowledged.then_some(())
        })
    }

    /// Waits for what is counted.
    pub fn counted(&self, what: &str, wanted: impl Fn(&Counts) -> bool) -> Result<Counts, Trouble> {
        self.wait(what, self.patience, |state| wanted(&state.counts).then_some(state.counts))
    }

    /// What it has counted so far.
    pub fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    /// What it holds against what it heard; taken, so that each fault is told once.
    pub fn faults(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().faults)
    }

    /// The first line and the tag of To of all that was heard, for whoever has to find out why.
    pub fn transcript(&self) -> Vec<String> {
        let state = self.shared.state();
        let line = |it: &Message| {
            let tag = super::words::param(it.header("To"), "tag").to_owned();
            let start =
                String::from_utf8_lossy(&it.raw).lines().next().unwrap_or_default().to_owned();
            format!("{start} [{}; {tag}]", it.header("CSeq"))
        };
        state.heard.iter().map(|it| line(&it.message)).collect()
    }

    /// Forgets what no script has taken, so that a flow does not see what another has left.
    pub fn forget(&self) {
        let mut state = self.shared.state();
        state.heard.iter_mut().for_each(|it| it.taken = true);
        state.orders.clear();
        state.held.clear();
    }

    /// Forgets its dialogs, as a server that was restarted without them.
    pub fn forget_dialogs(&self) {
        self.shared.state().dialogs.iter_mut().for_each(|it| it.over = true);
    }

    /// Cuts all connections.
    pub fn hang_up(&self) {
        let links: Vec<Arc<Link>> =
            self.shared.state().links.iter().map(|it| Arc::clone(&it.1)).collect();
        links.iter().for_each(|it| it.close());
    }

    /// The certificate, DER, that a partner has shown on the connection in use.
    pub fn certificate_of(&self, domain: &str) -> Option<Vec<u8>> {
        Some(self.shared.state().link_to(domain)?.certificate.clone())
    }

    /// From now on each octet goes out by itself on the connections there are, or no longer.
    pub fn drip(&self, drips: bool) {
        self.shared.state().links.iter().for_each(|it| it.1.drip(drips));
    }

    /// Octets as they are to a partner's domain.
    pub fn send_raw(&self, domain: &str, bytes: &[u8]) -> Result<(), Trouble> {
        Ok(self.link(domain)?.send(bytes)?)
    }

    fn wait<T>(
        &self,
        what: &str,
        patience: Duration,
        mut wanted: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, Trouble> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state();
        loop {
            if let Some(found) = wanted(&mut state) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Trouble(format!("{what}: no answer in time")));
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// As in the OCS 2007 Resource Kit: no Expires, six types, two extensions.
const SUBSCRIBE: &[&str] = &[
    "Event: presence",
    "Accept: application/msrtc-event-categories+xml, application/xpidf+xml, text/xml+msrtc.pidf, application/pidf+xml, application/rlmi+xml, multipart/related",
    "Proxy-Require: ms-benotify",
];

/// The text of these is "not agreed": shown only if the answer takes ms-text-format.
const INVITE: &[&str] = &[
    "ms-text-format: text/plain; charset=UTF-8;msgr=WAAtAE0ATQBTAC0ASQBNAC0A; ms-body=bm90IGFncmVlZA==",
    "ms-im-format: text/html; charset=UTF-8; ms-body=PGI+bm90IGFncmVlZDwvYj4=",
    "EndPoints: \"Zoë\"<sip:zoe@contoso.example>, <sip:bob@fabrikam.example>",
];
