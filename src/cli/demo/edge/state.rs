//! What the partner knows, and what it answers by itself.
//!
//! RFC 3261 and RFC 6665 as far as a partner needs them: dialogs with their routes, answers to requests, a NOTIFY for
//! each subscription. Everything heard is kept and judged by `check`. Orders of a script come before the habits here.
//! There are **no** timers and no retransmissions: its transports are reliable.

use std::sync::Arc;
use std::time::Instant;

use super::check;
use super::dialog::{Dialog, Heard, Sent, User};
use super::link::Link;
use super::shape::{self, Parts, Site};
use super::words::{Message, address, domain, param, uri};
use super::{Answer, Counts, Manner, Partner, Rule};

pub(super) struct State {
    pub(super) site: Site,
    pub(super) strict: bool,
    pub(super) partners: Vec<Partner>,
    pub(super) users: Vec<User>,
    pub(super) dialogs: Vec<Dialog>,
    pub(super) sent: Vec<Sent>,
    pub(super) heard: Vec<Heard>,
    pub(super) links: Vec<(u64, Arc<Link>)>,
    /// Method, whom it has to concern (empty: anybody), and the answer.
    pub(super) orders: Vec<(String, String, Answer)>,
    /// Requests that wait for a script: their places in what was heard.
    pub(super) held: Vec<usize>,
    pub(super) faults: Vec<String>,
    pub(super) counts: Counts,
    /// Whether ACKs of ours stay away.
    pub(super) withholds_acks: bool,
    /// Seconds granted to who watches.
    pub(super) grant: u32,
    pub(super) salt: String,
    pub(super) serial: u64,
}

impl State {
    pub(super) fn new(site: Site, strict: bool, salt: String) -> Self {
        Self {
            site,
            strict,
            partners: Vec::new(),
            users: Vec::new(),
            dialogs: Vec::new(),
            sent: Vec::new(),
            heard: Vec::new(),
            links: Vec::new(),
            orders: Vec::new(),
            held: Vec::new(),
            faults: Vec::new(),
            counts: Counts::default(),
            withholds_acks: false,
            grant: GRANT_SECONDS,
            salt,
            serial: 0,
        }
    }

    /// A word nobody has had.
    pub(super) fn token(&mut self) -> String {
        self.serial += 1;
        format!("{}{:04x}", self.salt, self.serial)
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|it| it.name == name)
    }

    pub(super) fn partner(&self, domain: &str) -> Option<&Partner> {
        self.partners.iter().find(|it| it.domain.eq_ignore_ascii_case(domain))
    }

    /// A connection that may carry requests to this domain, whoever opened it.
    pub(super) fn link_to(&self, domain: &str) -> Option<Arc<Link>> {
        let partner = self.partner(domain)?;
        let fits =
            |it: &Link| it.is_alive() && (it.names.is_empty() || it.names.contains(&partner.name));
        self.links.iter().map(|it| &it.1).find(|it| fits(it)).map(Arc::clone)
    }

    /// A message has come over a connection.
    pub(super) fn take(&mut self, id: u64, link: &Link, message: Message) {
        let place = self.heard.len();
        let at = Instant::now();
        let dialog = self.dialog_of(&message);
        self.heard.push(Heard { link: id, at, message: message.clone(), dialog, taken: false });
        if message.status == 0 {
            self.request(place, link, &message)
        } else {
            self.response(place, link, &message)
        }
    }

    fn request(&mut self, place: usize, link: &Link, message: &Message) {
        let from = domain(address(uri(message.header("From")))).to_owned();
        let dialog = self.heard.get(place).and_then(|it| it.dialog);
        let partner = self.partner(&from).cloned();
        // Microsoft's rule: the target of the sender's SRV record stands in the certificate, else a bare 504.
        let covered = link.names.is_empty()
            || partner.as_ref().is_some_and(|it| link.names.contains(&it.name));
        if message.method != "ACK" && (partner.is_none() || !covered) {
            self.counts.mismatches += 1;
            return self.reply(link, message, 504, "Server time-out", &Answer::default(), None);
        }
        if let Some(partner) = partner {
            let known = dialog.and_then(|it| self.dialogs.get(it));
            let faults = check::request(message, known, &self.site, &partner, self.strict);
            self.faults.extend(faults);
        }
        if let Some(dialog) = dialog.and_then(|it| self.dialogs.get_mut(it)) {
            dialog.far_number = dialog.far_number.max(message.number());
        }
        if message.method == "ACK" {
            if let Some(dialog) = dialog.and_then(|it| self.dialogs.get_mut(it)) {
                dialog.acknowledged = true;
            }
            return;
        }
        if message.method == "CANCEL" {
            return self.cancelled(link, message);
        }
        let whom = address(uri(message.header("To"))).split('@').next().unwrap_or_default();
        let is_it = |it: &(String, String, Answer)| {
            it.0 == message.method && (it.1.is_empty() || it.1 == whom)
        };
        if let Some(at) = self.orders.iter().position(is_it) {
            let (_, _, answer) = self.orders.remove(at);
            if answer.status == 0 {
                self.held.push(place);
                return;
            }
            return self.obey(place, link, message, &answer);
        }
        self.habit(place, link, message);
    }

    /// A script has said how to answer.
    pub(super) fn obey(&mut self, place: usize, link: &Link, message: &Message, answer: &Answer) {
        let forms = ["INVITE", "SUBSCRIBE"].contains(&message.method.as_str());
        let known = self.heard.get(place).and_then(|it| it.dialog);
        let success = (200..300).contains(&answer.status);
        let dialog = match known {
            _ if answer.forks => Some(self.accept(place, message)),
            None if forms && success => Some(self.accept(place, message)),
            _ => known,
        };
        if answer.forgets
            && let Some(dialog) = dialog.and_then(|it| self.dialogs.get_mut(it))
        {
            dialog.over = true;
        }
        self.reply(link, message, answer.status, &answer.reason, answer, dialog);
    }

    /// What the partner does when nobody has said anything.
    fn habit(&mut self, place: usize, link: &Link, message: &Message) {
        let dialog = self.heard.get(place).and_then(|it| it.dialog);
        let alive = dialog.filter(|&it| self.dialogs.get(it).is_some_and(|it| !it.over));
        let tagged = !param(message.header("To"), "tag").is_empty();
        let user = address(&message.uri).split('@').next().unwrap_or_default().to_owned();
        let plain = Answer::default();
        match message.method.as_str() {
            _ if tagged && alive.is_none() => {
                self.reply(link, message, 481, "Call leg/transaction does not exist", &plain, None);
            }
            "OPTIONS" => self.reply(link, message, 200, "OK", &plain, None),
            _ if !tagged && self.user(&user).is_none() => {
                let extra = "ms-diagnostics-public: 1003;reason=\"User does not exist\"".to_owned();
                let answer = Answer { extra: vec![extra], ..plain };
                self.reply(link, message, 404, "Not Found", &answer, None);
            }
            "SUBSCRIBE" => self.subscribed(place, link, message, alive),
            "INVITE" if alive.is_none() => self.invited(place, link, message),
            "INVITE" => self.reply(link, message, 488, "Not Acceptable Here", &plain, alive),
            "BYE" => {
                if let Some(dialog) = alive.and_then(|it| self.dialogs.get_mut(it)) {
                    dialog.over = true;
                }
                self.reply(link, message, 200, "OK", &plain, alive);
            }
            "MESSAGE" | "INFO" | "NOTIFY" => self.reply(link, message, 200, "OK", &plain, alive),
            _ => self.reply(link, message, 501, "Not Implemented", &plain, alive),
        }
    }

    /// RFC 6665, 4.2.1: 200, then what there is to see; or the other way round, as Microsoft's servers may.
    fn subscribed(&mut self, place: usize, link: &Link, message: &Message, known: Option<usize>) {
        let at = known.unwrap_or_else(|| self.accept(place, message));
        let asked: u32 = message.header("Expires").parse().unwrap_or(7_200);
        let granted = asked.min(self.grant);
        let Some(dialog) = self.dialogs.get_mut(at) else { return };
        dialog.expires = granted;
        let manner = self
            .users
            .iter()
            .find(|it| it.name == dialog.user)
            .map(|it| it.manner)
            .unwrap_or_default();
        let mut answer = Answer { extra: vec![format!("Expires: {granted}")], ..Answer::default() };
        if manner == Manner::Piggyback && granted > 0 {
            let user = dialog.user.clone();
            answer.extra.extend([
                "Event: presence".to_owned(),
                format!("subscription-state: active;expires={granted}"),
                "ms-piggyback-cseq: 1".to_owned(),
            ]);
            answer.body = self.document(&user, true);
        }
        if manner == Manner::NotifyFirst {
            self.notify(link, at);
        }
        self.reply(link, message, 200, "OK", &answer, Some(at));
        if manner == Manner::NotifyAfter
            || manner == Manner::Benotify
            || (granted == 0 && manner == Manner::Piggyback)
        {
            self.notify(link, at);
        }
    }

    fn document(&self, user: &str, old: bool) -> Option<(String, Vec<u8>)> {
        let it = self.user(user)?;
        let who = format!("{user}@{}", self.site.domain);
        Some(if old {
            shape::msrtc(&who, it.open, &it.activity)
        } else {
            shape::pidf(&who, it.open, &it.activity)
        })
    }

    /// Tells a watcher what is to be told.
    pub(super) fn notify(&mut self, link: &Link, at: usize) {
        let Some(dialog) = self.dialogs.get(at) else { return };
        let Some(user) = self.user(&dialog.user) else { return };
        let (expires, name, benotify) =
            (dialog.expires, user.name.clone(), user.manner == Manner::Benotify);
        let rule = user.rule;
        let state = match rule {
            _ if expires == 0 => "terminated;reason=timeout".to_owned(),
            Rule::Pending => format!("pending;expires={expires}"),
            Rule::Allow => format!("active;expires={expires}"),
            Rule::Deny => "terminated;reason=rejected".to_owned(),
        };
        let body = if rule == Rule::Allow { self.document(&name, benotify) } else { None };
        let method = if benotify { "BENOTIFY" } else { "NOTIFY" };
        let mut extra = vec!["Event: presence".to_owned(), format!("subscription-state: {state}")];
        if benotify {
            extra.push("Require: eventlist".to_owned());
        }
        self.send_within(link, at, method, extra, body);
        if state.starts_with("terminated")
            && let Some(dialog) = self.dialogs.get_mut(at)
        {
            dialog.over = true;
        }
    }

    /// A session: what an Access Edge's inside says on the way, with a To-tag of its own each time it forks.
    fn invited(&mut self, place: usize, link: &Link, message: &Message) {
        let plain = Answer::default();
        let Some(user) = address(&message.uri).split('@').next().map(str::to_owned) else { return };
        self.reply(link, message, 100, "Trying", &plain, None);
        let progress = Answer {
            extra: vec!["ms-diagnostics: 13004;reason=\"Request was proxied to one or more registered endpoints\"".to_owned()],
            ..Answer::default()
        };
        self.reply(link, message, 101, "Progress Report", &progress, None);
        for _ in 0..2 {
            self.reply(link, message, 180, "Ringing", &plain, None);
        }
        let at = self.accept(place, message);
        let who = format!("sip:{user}@{}", self.site.domain);
        let answer = Answer { body: Some(shape::answer(&who)), ..plain };
        self.reply(link, message, 200, "OK", &answer, Some(at));
    }

    fn cancelled(&mut self, link: &Link, message: &Message) {
        let plain = Answer::default();
        let same =
            |it: &Heard| it.message.method == "INVITE" && it.message.branch() == message.branch();
        let held = self.held.iter().position(|&it| self.heard.get(it).is_some_and(same));
        let Some(held) = held else {
            return self.reply(
                link,
                message,
                481,
                "Call leg/transaction does not exist",
                &plain,
                None,
            );
        };
        let place = self.held.remove(held);
        self.reply(link, message, 200, "OK", &plain, None);
        if let Some(invite) = self.heard.get(place).map(|it| it.message.clone()) {
            self.reply(link, &invite, 487, "Request Terminated", &plain, None);
        }
    }

    /// Answers a request; a 2xx that makes a dialog records the routes of the inside.
    pub(super) fn reply(
        &mut self,
        link: &Link,
        request: &Message,
        status: u16,
        reason: &str,
        answer: &Answer,
        dialog: Option<usize>,
    ) {
        let known = dialog.and_then(|it| self.dialogs.get(it)).cloned();
        let to = request.header("To").to_owned();
        let to = match &known {
            Some(dialog) if param(&to, "tag").is_empty() => dialog.local.clone(),
            None if param(&to, "tag").is_empty() && status > 100 => {
                format!("{to};tag={}", self.token())
            }
            _ => to,
        };
        let forms = ["INVITE", "SUBSCRIBE"].contains(&request.method.as_str())
            && (200..300).contains(&status);
        let user = known.map(|it| it.user).unwrap_or_default();
        let parts = Parts {
            to,
            contact: if forms { self.site.contact(&user) } else { String::new() },
            records: forms,
            extra: answer.extra.clone(),
            body: answer.body.clone(),
            ..Parts::default()
        };
        let bytes = self.site.response(request, status, reason, &parts);
        if link.send(&bytes).is_err() {
            link.close();
        }
    }

    /// A request in a dialog.
    pub(super) fn send_within(
        &mut self,
        link: &Link,
        at: usize,
        method: &str,
        extra: Vec<String>,
        body: Option<(String, Vec<u8>)>,
    ) -> usize {
        let Some(dialog) = self.dialogs.get_mut(at) else { return usize::MAX };
        // An ACK has the number of its INVITE.
        if method != "ACK" {
            dialog.number += 1;
        }
        let forms = ["INVITE", "SUBSCRIBE"].contains(&method) && dialog.remote_tag.is_empty();
        let dialog = dialog.clone();
        let has_contact = ["INVITE", "SUBSCRIBE", "NOTIFY", "ACK"].contains(&method);
        let parts = Parts {
            method: method.to_owned(),
            uri: dialog.target.clone(),
            branch: format!("z9hG4bK{}", self.token()),
            from: dialog.local.clone(),
            to: dialog.remote.clone(),
            call_id: dialog.call_id.clone(),
            number: dialog.number,
            contact: if has_contact { self.site.contact(&dialog.user) } else { String::new() },
            records: forms,
            routes: dialog.routes.clone(),
            extra,
            body,
        };
        self.send(link, &parts, Some(at))
    }

    /// A request, and what is needed to know its answers.
    pub(super) fn send(&mut self, link: &Link, parts: &Parts, dialog: Option<usize>) -> usize {
        let bytes = self.site.request(parts);
        if let Ok((message, _)) = Message::read(&bytes) {
            self.sent.push(Sent {
                branch: parts.branch.clone(),
                dialog,
                message,
                answers: Vec::new(),
            });
        }
        if link.send(&bytes).is_err() {
            link.close();
        }
        self.sent.len() - 1
    }

    fn response(&mut self, place: usize, link: &Link, message: &Message) {
        let is_it =
            |it: &Sent| it.branch == message.branch() && it.message.method == message.method;
        let Some(sent) = self.sent.iter_mut().find(|it| is_it(it)) else {
            self.faults.push(format!("an answer to nothing:\n{message:?}"));
            return;
        };
        sent.answers.push(place);
        let sent = sent.clone();
        if let Some(heard) = self.heard.get_mut(place) {
            heard.dialog = sent.dialog;
        }
        let far = domain(address(uri(sent.message.header("To"))));
        if let Some(partner) = self.partner(far).cloned() {
            self.faults.extend(check::response(
                message,
                &sent.message,
                &self.site,
                &partner,
                self.strict,
            ));
        }
        if (200..300).contains(&message.status)
            && let Some(at) = sent.dialog
        {
            self.confirmed(link, at, message);
        }
    }

    /// RFC 3261, 12.1.2: a 2xx makes the dialog; one to INVITE is acknowledged each time.
    fn confirmed(&mut self, link: &Link, at: usize, message: &Message) {
        let acknowledges = message.method == "INVITE" && !self.withholds_acks;
        let Some(dialog) = self.dialogs.get_mut(at) else { return };
        let forms = ["INVITE", "SUBSCRIBE"].contains(&message.method.as_str());
        if forms && !dialog.up {
            let records = message.list("Record-Route");
            let theirs = records.len().saturating_sub(2);
            dialog.routes = records.iter().take(theirs).rev().map(|it| (*it).to_owned()).collect();
            dialog.target = uri(message.header("Contact")).to_owned();
            dialog.remote = message.header("To").to_owned();
            dialog.remote_tag = param(&dialog.remote, "tag").to_owned();
            dialog.up = true;
        }
        if message.method == "BYE" {
            dialog.over = true;
        }
        if acknowledges {
            if dialog.ack.is_empty() {
                dialog.acknowledged = true;
                let sent = self.send_within(link, at, "ACK", Vec::new(), None);
                let ack = self.sent.get(sent).map(|it| it.message.raw.clone()).unwrap_or_default();
                if let Some(dialog) = self.dialogs.get_mut(at) {
                    dialog.ack = ack;
                }
            } else if link.send(&dialog.ack).is_err() {
                link.close();
            }
        }
    }
}

/// What Cisco's and ours grant as well: two hours.
const GRANT_SECONDS: u32 = 7_200;
