//! A partner's request at the edge: the checks that need no user, in the order of 7.6 of our rules
//! (RFC 3261, 8.2 and 16.3).
//!
//! Syntax, method, scheme, hops; then whose it is (`identity.rs`); then whom it is for, loops, merged
//! requests and extensions. What passes gets a transaction and goes to its user's home. What does not
//! is refused without one: the same request gets the same answer again (8.2.7). Route headers that
//! name us are passed over; we relay for **nobody**.

use crate::address::prepare_domain;
use crate::gateway::address::to_address;
use crate::route::shard_of;
use crate::shard::Shard;
use crate::shard::conn::{Conn, Role};
use crate::shard::kernel::ShardId;
use crate::shard::sip::Txn;
use crate::shard::sip::identity::May;
use crate::shard::sip::server::{Incoming, Known, Names};
use crate::shard::sip::transport::Place;
use crate::sip::Fault;
use crate::sip::transaction::Branch;
use crate::sip::write;
use crate::sip::{Message, Method, Name, NameAddr, Uri, Via};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It was taken, or refused.
    On,
    /// It must wait where it lies.
    Waits,
}

/// Whom a request is for.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    /// A domain of ours.
    pub(super) near: Box<str>,
    pub(super) home: ShardId,
    /// A user, not the domain itself.
    pub(super) user: bool,
}

impl Shard {
    /// A request on a connection.
    pub(super) fn sip_request(&mut self, conn: &mut Conn, request: &Message<'_>) -> Went {
        let place = Place::Conn(conn.id);
        // 1 to 4.
        let (far, request) = match self.sip_sound(request) {
            Ok(found) => found,
            Err(fault) => {
                self.refuse_here(place, request, &fault);
                return Went::On;
            }
        };
        let request = &request;
        let aim = self.sip_aim(request);
        // 5.
        let near = aim.as_ref().ok().map(|it| &*it.near);
        match self.sip_may(conn, &far, near) {
            May::Yes => {}
            May::Wait => return Went::Waits,
            May::No(fault) => {
                self.refuse_here(place, request, &fault);
                return Went::On;
            }
        }
        let Role::Sip(sip) = &conn.role else { return Went::On };
        let peer = sip.peer.as_deref().unwrap_or_default();
        self.sip_permitted(place, peer, &far, aim, request);
        Went::On
    }

    /// A text that was judged with the one before it (`heads.rs`): what is left is whether the
    /// connection may say it, and whether it was said before.
    pub(super) fn sip_judged_before(
        &mut self,
        conn: &mut Conn,
        far: &str,
        aim: &Aim,
        request: &Message<'_>,
    ) -> Went {
        let place = Place::Conn(conn.id);
        match self.sip_may(conn, far, Some(&aim.near)) {
            May::Yes => {}
            May::Wait => return Went::Waits,
            May::No(fault) => {
                self.refuse_here(place, request, &fault);
                return Went::On;
            }
        }
        let Role::Sip(sip) = &conn.role else { return Went::On };
        let peer = sip.peer.as_deref().unwrap_or_default();
        if let Some(names) = self.sip_names(place, peer, request) {
            self.sip_begins(place, peer, far, aim, names, request);
        }
        Went::On
    }

    /// 1 to 4: what the message itself shows. The domain of its From, and the request as it was read.
    pub(super) fn sip_sound<'m>(
        &mut self,
        request: &Message<'m>,
    ) -> Result<(String, Message<'m>), Fault> {
        let request = match request.checked() {
            Ok(request) => request,
            Err(fault) => {
                match fault.status {
                    501 | 405 => self.counters.sip.methods += 1,
                    483 => self.counters.sip.loops += 1,
                    _ => self.counters.sip.malformed += 1,
                }
                return Err(fault);
            }
        };
        let Some(far) = domain_of(&request.from_uri()?) else {
            self.counters.sip.malformed += 1;
            return Err(Fault::new(403));
        };
        if self.settings.domain(&far).is_some() {
            // Nobody outside speaks for a domain of ours.
            self.counters.sip.own_domain += 1;
            return Err(Fault::new(403));
        }
        Ok((far, request))
    }

    /// 6 and later: it is who it says.
    pub(super) fn sip_permitted(
        &mut self,
        place: Place,
        peer: &str,
        far: &str,
        aim: Result<Aim, Fault>,
        request: &Message<'_>,
    ) {
        let method = request.method();
        if matches!(method, Method::Cancel) {
            let found = self.server_cancel(peer, request);
            let status = if found { 200 } else { 481 };
            return self.answer_here(place, request, status);
        }
        let Some(names) = self.sip_names(place, peer, request) else { return };
        let aim = match aim.and_then(|aim| self.sip_admitted(request).map(|()| aim)) {
            Ok(aim) => aim,
            Err(fault) => return self.refuse_here(place, request, &fault),
        };
        if matches!(method, Method::Ack | Method::Benotify) {
            return self.hand_home(aim.home, Txn { shard: self.id, key: 0 }, far, request);
        }
        if !aim.user && !matches!(method, Method::Options) {
            self.counters.sip.user_unknown += 1;
            return self.refuse_here(place, request, &Fault::new(404));
        }
        if matches!(place, Place::Conn(_)) && aim.user {
            self.sip_keep_text(far, &aim, request);
        }
        self.sip_begins(place, peer, far, &aim, names, request);
    }

    /// What a request's transaction is to be named; `None`: there is nothing more to be done.
    fn sip_names(&mut self, place: Place, peer: &str, request: &Message<'_>) -> Option<Names> {
        match self.server_known(peer, request) {
            Known::New(names) => return Some(names),
            Known::Absorbed => {}
            Known::Unnamed => self.counters.sip.malformed += 1,
            Known::Merged => {
                self.counters.sip.merged += 1;
                self.refuse_here(place, request, &Fault::saying(482, "Merged Request"));
            }
        }
        None
    }

    /// It gets a transaction and goes on.
    fn sip_begins(
        &mut self,
        place: Place,
        peer: &str,
        far: &str,
        aim: &Aim,
        names: Names,
        request: &Message<'_>,
    ) {
        let it = Incoming { place, peer, far, near: &aim.near, home: aim.home };
        let Some(txn) = self.server_begin(&it, names, request) else {
            self.counters.sip.overload += 1;
            let is_new = request.to().is_ok_and(|it| it.tag().is_none());
            return self.refuse_here(place, request, &Fault::new(if is_new { 503 } else { 500 }));
        };
        if aim.user {
            self.hand_home(aim.home, txn, far, request);
        } else {
            self.sip_options(txn, request);
        }
    }

    /// 6 to 8, but for the user: our domain, no relay, no loop, no extension that we lack.
    fn sip_admitted(&mut self, request: &Message<'_>) -> Result<(), Fault> {
        for route in request.list(Name::Route) {
            let host = NameAddr::parse(route).ok().and_then(|it| self.own_host(&it));
            if host.is_none() {
                self.counters.sip.relay_denied += 1;
                return Err(Fault::saying(403, "Relay denied"));
            }
        }
        if self.has_been_here(request) {
            self.counters.sip.loops += 1;
            return Err(Fault::new(482));
        }
        // RFC 3261, 8.2.2.3: not of an ACK; MS-SIP, 4.4: not of a BENOTIFY.
        if matches!(request.method(), Method::Ack | Method::Benotify) {
            return Ok(());
        }
        if request.header(Name::Require).is_none() {
            return Ok(());
        }
        let required: Vec<_> = request.list(Name::Require).map(String::from_utf8_lossy).collect();
        if required.is_empty() {
            return Ok(());
        }
        self.counters.sip.extensions += 1;
        Err(Fault::new(420).with("Unsupported", required.join(", ")))
    }

    /// Whom it is for: the user of its To inside a dialog, of its Request-URI before.
    pub(super) fn sip_aim(&mut self, request: &Message<'_>) -> Result<Aim, Fault> {
        let to = request.to()?;
        let uri = request.read_uri()?;
        // Inside a dialog the Request-URI is our Contact, which names the node.
        let near = if to.tag().is_some() {
            let named = request.to_uri().ok();
            named.and_then(|it| self.served(it.host)).or_else(|| self.served(uri.host))
        } else {
            self.served(uri.host)
        };
        let Some(near) = near else {
            self.counters.sip.not_ours += 1;
            return Err(Fault::new(404));
        };
        let (named, read) = match to.tag() {
            Some(_) => (to.uri, request.to_uri()),
            None => (request.uri(), Ok(uri)),
        };
        let has_user = read.is_ok_and(|it| it.user.is_some_and(|it| !it.is_empty()));
        if !has_user {
            return Ok(Aim { near, home: self.id, user: false });
        }
        // Whom no address can name is nobody's: any shard can say so.
        let home = to_address(named)
            .map_or(self.id, |address| ShardId(shard_of(address.slot(), self.settings.shards)));
        Ok(Aim { near, home, user: true })
    }

    /// The domain of ours that this host stands for: itself, or the one whose SIP name it is.
    fn served(&self, host: &[u8]) -> Option<Box<str>> {
        let host = std::str::from_utf8(host).ok()?;
        let host = prepare_domain(host).ok()?;
        if let Some(domain) = self.settings.domain(&host) {
            return Some(domain.name.as_str().into());
        }
        let named = self.settings.domains.iter().find(|it| it.sip_name == *host)?;
        Some(named.name.as_str().into())
    }

    /// A Route that names us.
    fn own_host(&self, route: &NameAddr<'_>) -> Option<()> {
        let uri = route.uri().ok()?;
        if self.served(uri.host).is_some() {
            return Some(());
        }
        let host = std::str::from_utf8(uri.host).ok()?;
        let address = host.trim_matches(['[', ']']).parse().ok()?;
        self.settings.is_own(address, uri.port.unwrap_or(5060)).then_some(())
    }

    /// RFC 3261, 16.3, 4: a branch of ours in its Vias.
    fn has_been_here(&self, request: &Message<'_>) -> bool {
        let sent_by_us = |text: &[u8]| {
            // Most have no branch that begins as ours do.
            memchr::memmem::find(text, Branch::BEGIN)?;
            let via = Via::parse(text).ok()?;
            Branch::read(via.branch()?)?;
            let host = std::str::from_utf8(via.host).ok()?.to_ascii_lowercase();
            self.settings.domains.iter().any(|it| it.sip_name == host).then_some(())
        };
        request.list(Name::Via).any(|via| sent_by_us(via).is_some())
    }

    /// Answers without a transaction.
    pub(super) fn refuse_here(&mut self, place: Place, request: &Message<'_>, fault: &Fault) {
        let lost = matches!(place, Place::Datagram(..)) && request.header(Name::Via).is_none();
        if lost || !request.method().is_answered() {
            return self.counters.sip.dropped += 1;
        }
        self.counters.sip.refused += 1;
        let tag = edge_tag(request);
        let mut text = Vec::new();
        write::refusal(request, fault, Some(&tag), &mut text);
        self.put_answer(place, request.frame().len(), &text);
    }

    fn answer_here(&mut self, place: Place, request: &Message<'_>, status: u16) {
        let mut text = Vec::new();
        let (reason, tag) = (write::reason(status), edge_tag(request));
        write::response(request, status, reason, Some(&tag), &mut text).end();
        self.put_answer(place, request.frame().len(), &text);
    }

    /// A far end of datagrams that has shown nothing gets little more than it sent.
    fn put_answer(&mut self, place: Place, asked: usize, text: &[u8]) {
        if let Place::Datagram(..) = place
            && text.len() > asked + asked / 2
        {
            return self.counters.sip.amplifying += 1;
        }
        if !self.put(place, text) {
            self.counters.sip.replies_lost += 1;
        }
    }

    /// It can't be read: an answer as far as one can be built.
    pub(super) fn unreadable_at(&mut self, place: Place, head: &[u8], fault: &Fault) {
        let text = self.with_read(head, |_, request| {
            let answered = request.is_request() && request.method().is_answered();
            let mut text = Vec::new();
            if answered && request.via().is_ok() {
                write::refusal(&request, fault, Some(&edge_tag(&request)), &mut text);
            }
            text
        });
        match text.filter(|it| !it.is_empty()) {
            Some(text) => {
                self.counters.sip.refused += 1;
                self.put_answer(place, head.len(), &text);
            }
            None => self.counters.sip.dropped += 1,
        }
    }
}

/// The domain of a name, in normal form.
pub(super) fn domain_of(uri: &Uri<'_>) -> Option<String> {
    let host = std::str::from_utf8(uri.host).ok()?;
    prepare_domain(host).ok().map(String::from)
}

/// RFC 3261, 8.2.7: the same request gets the same tag.
fn edge_tag(request: &Message<'_>) -> String {
    let via = request.header(Name::Via).unwrap_or_default();
    let id = request.header(Name::CallId).unwrap_or_default();
    let hash = xxhash_rust::xxh3::xxh3_64(via) ^ xxhash_rust::xxh3::xxh3_64(id).rotate_left(32);
    format!("e{hash:016x}")
}
