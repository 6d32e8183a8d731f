//! On the home shard: whose request it is, and which dialog's.
//!
//! A request without To-tag is for the user whom its Request-URI names, one with a To-tag for the
//! dialog of its Call-ID and that tag, whose user the To names (RFC 3261, 12.2.2). Policy, identity
//! and syntax were looked at where it came in.

use crate::address::{Address, AddressRef};
use crate::envelope::{Kind, Purpose};
use crate::gateway::address::{self as jid};
use crate::limits::SIP_RESTORING_MAX;
use crate::shard::Shard;
use crate::shard::account::Outcome;
use crate::shard::deliver::Carry;
use crate::shard::sip::{Asker, DialogOf, Heard, Txn, dialog_key};
use crate::sip::fault::Fault;
use crate::sip::message::Message;
use crate::sip::method::Method;
use crate::sip::write;
use crate::xmpp::fault::StanzaFault;

/// A request that waits for the dialogs to be loaded.
#[derive(Debug)]
pub(super) struct Waiting {
    txn: Txn,
    far: Box<str>,
    frame: Vec<u8>,
}

/// A stanza of a local user to somebody in a SIP domain.
pub(super) fn stanza(shard: &mut Shard, carry: &Carry<'_>) {
    if carry.from.local().is_none() || carry.to.local().is_none() {
        // No service of ours or theirs speaks through the gateway.
        return match carry.purpose {
            Purpose::Get | Purpose::Set => shard.bounce(carry, StanzaFault::ServiceUnavailable),
            _ => shard.outcome(carry.origin, Outcome::ByRule),
        };
    }
    match (carry.kind, carry.purpose) {
        (Kind::Message, _) => shard.session_stanza(carry),
        (Kind::Presence, Purpose::Subscribe | Purpose::Unsubscribe | Purpose::Probe) => {
            shard.watch_stanza(carry);
        }
        (Kind::Presence, Purpose::Error) => shard.outcome(carry.origin, Outcome::ByRule),
        (Kind::Presence, _) => shard.watched_stanza(carry),
        // Nothing of an IQ goes to SIP (RFC 7247 maps none).
        (Kind::Iq, Purpose::Get | Purpose::Set) => {
            shard.bounce(carry, StanzaFault::ServiceUnavailable);
        }
        (Kind::Iq, _) => shard.outcome(carry.origin, Outcome::ByRule),
    }
}

impl Shard {
    /// A partner's request for a user of this shard. `far`: the domain of its From, which the
    /// connection may speak for.
    pub(in crate::shard) fn sip_request_came(&mut self, txn: Txn, far: &str, frame: &[u8]) {
        self.with_message(frame, |shard, request| {
            // It was judged where it came in; what that reads is asked for again and again.
            let request = request.checked().unwrap_or(request);
            shard.sip_request_read(txn, far, &request);
        });
    }

    /// The same with one that was read on this shard.
    pub(in crate::shard) fn sip_request_read(
        &mut self,
        txn: Txn,
        far: &str,
        request: &Message<'_>,
    ) {
        self.counters.sip.requests_home += 1;
        let tag = request.to().ok().and_then(|to| to.tag());
        match tag.and_then(|tag| std::str::from_utf8(tag).ok()) {
            Some(tag) => self.sip_in_dialog(txn, far, request, tag),
            None => self.sip_out_of_dialog(txn, request),
        }
    }

    /// A server transaction of an INVITE was cancelled: it has had its 487.
    pub(in crate::shard) fn sip_cancelled(&mut self, txn: Txn) {
        self.session_cancelled(txn);
    }

    /// An answer to a request of ours, or none.
    pub(in crate::shard) fn sip_heard(&mut self, asker: Asker, heard: Heard<'_>) {
        match asker {
            Asker::Nobody => {}
            Asker::Watched(key) => self.watched_heard(key, heard),
            Asker::Watch(key) => self.watch_heard(key, heard),
            Asker::Session(key) => self.session_heard(key, heard),
            Asker::Page(key) => self.page_heard(key, heard),
        }
    }

    fn sip_in_dialog(&mut self, txn: Txn, far: &str, request: &Message<'_>, tag: &str) {
        let Ok(call_id) = request.call_id() else { return };
        let method = request.method();
        let of = self.dialog_of(&dialog_key(call_id, tag));
        if of.is_none() && self.sip.restoring {
            return self.wait_for_dialogs(txn, far, request.frame());
        }
        // To know a dialog's tags is not to be in it: the connection must speak for its contact.
        if of.is_some_and(|of| self.dialog_far(of).is_some_and(|it| it != far)) {
            self.counters.sip.dialog_foreign += 1;
            if method.is_answered() {
                self.sip_refuse(txn, request, &Fault::new(481));
            }
            return;
        }
        match (method, of) {
            // It may come before the answer that makes its dialog.
            (Method::Notify | Method::Benotify, None | Some(DialogOf::Watch(_))) => {
                self.watch_notify(txn, request);
            }
            (Method::Subscribe, Some(DialogOf::Watched(key))) => {
                self.watched_refresh(key, txn, request);
            }
            (_, Some(DialogOf::Session(key))) => self.session_request(key, txn, request),
            (Method::Ack | Method::Benotify, _) => self.counters.sip.dialog_unknown += 1,
            (Method::Options, Some(_)) => self.sip_options(txn, request),
            (Method::Notify | Method::Subscribe | Method::Bye, _) | (_, None) => {
                self.counters.sip.dialog_unknown += 1;
                self.sip_refuse(txn, request, &Fault::new(481));
            }
            (_, Some(_)) => self.sip_refuse(txn, request, &Fault::new(405)),
        }
    }

    /// The domain of the contact whose dialog it is.
    fn dialog_far(&self, of: DialogOf) -> Option<&str> {
        match of {
            DialogOf::Watched(key) => self.sip.watched.get(key).map(|it| it.watcher.domain()),
            DialogOf::Watch(key) => self.sip.watches.all.get(key).map(|it| it.contact.domain()),
            DialogOf::Session(key) => self.sip.im.contact(key).map(Address::domain),
        }
    }

    fn sip_out_of_dialog(&mut self, txn: Txn, request: &Message<'_>) {
        match request.method() {
            Method::Ack | Method::Benotify => return self.counters.sip.dialog_unknown += 1,
            Method::Notify | Method::Bye | Method::Info | Method::Cancel => {
                self.counters.sip.dialog_unknown += 1;
                return self.sip_refuse(txn, request, &Fault::new(481));
            }
            _ => {}
        }
        let user = match jid::to_address(request.uri()) {
            Ok(user) => user.to_bare(),
            Err(bad) => return self.sip_refuse(txn, request, &Fault::new(bad.status())),
        };
        let contact = match request.from().map(|from| jid::to_address(from.uri)) {
            Ok(Ok(contact)) => contact.to_bare(),
            _ => return self.sip_refuse(txn, request, &Fault::new(403)),
        };
        let frame = request.frame().to_vec();
        let owner = user.clone();
        let work = move |shard: &mut Self| {
            shard.with_message(&frame, |shard, request| {
                if shard.home.account(user.bare()).is_some() {
                    return shard.sip_for_user(txn, &user, &contact, &request);
                }
                // Who can't be had now must not be taken for one who is not there.
                let fault = match shard.gates.has_no_account() {
                    true => Fault::new(404),
                    false => Fault::new(500).with("Retry-After", "5"),
                };
                shard.counters.sip.user_unknown += u64::from(fault.status == 404);
                shard.sip_refuse(txn, &request, &fault);
            });
        };
        if !self.with_record(&owner, Box::new(work)) {
            // Overload; no Retry-After, since it is this user's alone.
            self.sip_refuse(txn, request, &Fault::new(480));
        }
    }

    /// The user exists and his record is at rest.
    fn sip_for_user(&mut self, txn: Txn, user: &Address, contact: &Address, request: &Message<'_>) {
        match request.method() {
            Method::Subscribe => self.watched_subscribe(txn, user, contact, request),
            Method::Invite => self.session_invite(txn, user, contact, request),
            Method::Message => self.session_message(txn, user, contact, request),
            Method::Options => self.sip_options(txn, request),
            _ => self.sip_refuse(txn, request, &Fault::new(405)),
        }
    }

    /// What we can do (RFC 3261, 11.2).
    pub(in crate::shard) fn sip_options(&mut self, txn: Txn, request: &Message<'_>) {
        let mut text = Vec::new();
        let tag = self.sip_token();
        write::response(request, 200, "OK", Some(&tag), &mut text)
            .header("Allow", ALLOW.as_bytes())
            .header("Accept", b"application/sdp, application/pidf+xml, text/plain")
            .header("Allow-Events", b"presence")
            .header("Supported", b"")
            .end();
        self.sip_reply(txn, text);
    }

    fn wait_for_dialogs(&mut self, txn: Txn, far: &str, frame: &[u8]) {
        if self.sip.waiting.len() >= SIP_RESTORING_MAX {
            self.counters.sip.restoring_full += 1;
            let refuse = |shard: &mut Self, request: Message<'_>| {
                shard.sip_refuse(txn, &request, &Fault::new(480));
            };
            self.with_message(frame, refuse);
            return;
        }
        self.sip.waiting.push(Waiting { txn, far: far.into(), frame: frame.to_vec() });
    }

    /// All dialogs are loaded: what waited goes on.
    pub(super) fn dialogs_restored(&mut self) {
        self.sip.restoring = false;
        for it in std::mem::take(&mut self.sip.waiting) {
            self.sip_request_came(it.txn, &it.far, &it.frame);
        }
    }

    /// Delivers what a partner said as a stanza of the contact's, as if a server had sent it.
    pub(in crate::shard) fn say_for_contact(
        &mut self,
        type_: &str,
        contact: AddressRef<'_>,
        user: AddressRef<'_>,
    ) {
        self.say(type_, contact, user);
    }
}

/// What may be sent to us (RFC 3261, 20.5).
pub(in crate::shard) const ALLOW: &str =
    "INVITE, ACK, CANCEL, BYE, MESSAGE, INFO, OPTIONS, NOTIFY, SUBSCRIBE";
