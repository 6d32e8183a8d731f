//! The heads of texts that were judged, and of their answers, for the next of the same dialog.
//!
//! Kept is what judging a request finds that depends on its head and on the settings alone (1 to 4 and
//! 6 to 8 of 7.6 of our rules): that it is sound, the domain of its From, whom it is for, that it is to
//! be relayed to nobody and has not been here. If the next is alike (`sip::Alike`) and the settings are
//! the same, that is not found out again. Whether the connection may speak for that domain is asked of
//! **each** request, and so is all that transactions, dialogs and users know.

use memchr::memmem::Finder;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::limits::{SIP_ALIKE_BYTES_MAX, SIP_ALIKE_LINES_MAX, SIP_ALIKES_MAX};
use crate::shard::Shard;
use crate::shard::conn::Conn;
use crate::shard::sip::inbound::{Aim, Went};
use crate::sip::frame::Limits;
use crate::sip::{Alike, Message, Method};

/// Of a shard's connections, found by Call-ID. It only says where to look: what is found is compared.
#[derive(Debug)]
pub(super) struct Heads {
    seed: u64,
    name: Finder<'static>,
    /// Pairs of places; none before the first text.
    places: Vec<Option<Box<Head>>>,
    /// Heads that were replaced before they were of use.
    useless: u32,
}

/// One of them.
#[derive(Debug)]
struct Head {
    hash: u64,
    /// Of the settings it was judged by.
    version: u64,
    alike: Alike,
    /// Of a text; `None`: an answer, of which there is no more to be judged than that it is sound.
    judged: Option<Judged>,
    was_used: bool,
}

/// What was found out about a text.
#[derive(Debug)]
struct Judged {
    /// The domain of its From.
    far: Box<str>,
    aim: Aim,
}

impl Heads {
    pub(super) fn new(seed: u64) -> Self {
        // Behind `Call`, in any case; found once for all.
        Self { seed, name: Finder::new(b"-ID:"), places: Vec::new(), useless: 0 }
    }

    /// What the Call-ID of a message seems to be.
    fn call_id<'a>(&self, octets: &'a [u8]) -> Option<&'a [u8]> {
        let head = octets.get(..octets.len().min(SIP_ALIKE_BYTES_MAX))?;
        let at = self.name.find_iter(head).find(|at| {
            let before = at.checked_sub(NAME.len()).and_then(|start| head.get(start..*at));
            before.is_some_and(|it| it.eq_ignore_ascii_case(NAME))
        })?;
        let value = head.get(at + 4..)?;
        let end = memchr::memchr(b'\r', value)?;
        value.get(..end).map(<[u8]>::trim_ascii)
    }

    fn hash(&self, call_id: &[u8], is_request: bool) -> u64 {
        xxh3_64_with_seed(call_id, self.seed.wrapping_add(u64::from(is_request)))
    }

    /// The two places of a hash.
    fn pair(hash: u64) -> [usize; 2] {
        let at = (hash % SIP_ALIKES_MAX as u64) as usize;
        [at, at ^ 1]
    }

    /// The head that a message is perhaps like, until it is put back.
    fn take(&mut self, octets: &[u8]) -> Option<(usize, Box<Head>)> {
        let is_request = octets.starts_with(b"MESSAGE ");
        if self.places.is_empty() || !(is_request || octets.starts_with(b"SIP/2.0 200 ")) {
            return None;
        }
        let hash = self.hash(self.call_id(octets)?, is_request);
        Self::pair(hash).into_iter().find_map(|at| {
            let place = self.places.get_mut(at)?;
            let head = place.take_if(|it| it.hash == hash)?;
            Some((at, head))
        })
    }

    fn put_back(&mut self, at: usize, head: Box<Head>) {
        if let Some(place) = self.places.get_mut(at) {
            *place = Some(head);
        }
    }

    fn keep(&mut self, head: Head) {
        self.places.resize_with(SIP_ALIKES_MAX, || None);
        let [first, second] = Self::pair(head.hash);
        let hash_at =
            |at: usize| self.places.get(at).and_then(|it| it.as_deref()).map(|it| it.hash);
        // Its own place, or a free one, or the first.
        let at = match (hash_at(first), hash_at(second)) {
            (Some(it), _) if it == head.hash => first,
            (_, Some(it)) if it == head.hash => second,
            (Some(_), None) => second,
            _ => first,
        };
        let Some(place) = self.places.get_mut(at) else { return };
        if place.as_ref().is_some_and(|it| !it.was_used && it.version == head.version) {
            self.useless = self.useless.wrapping_add(1);
            if !self.useless.is_multiple_of(USELESS) {
                return;
            }
        }
        *place = Some(Box::new(head));
    }
}

impl Shard {
    /// A text or an answer whose head is as that of one before it in its dialog, and how many octets it
    /// has; `None`: it is not known to be.
    pub(super) fn sip_alike(&mut self, conn: &mut Conn, octets: &[u8]) -> Option<(Went, usize)> {
        let (at, mut head) = self.transport.heads.take(octets)?;
        let went = match head.alike.read(octets, Limits::PEER.message_octets_max) {
            Some(message) if head.version == self.settings.version => {
                self.counters.sip.alike += 1;
                self.sip_heard_of(conn);
                let went = match &head.judged {
                    Some(it) => self.sip_judged_before(conn, &it.far, &it.aim, &message),
                    None => {
                        self.client_response(&message);
                        Went::On
                    }
                };
                Some((went, message.frame().len()))
            }
            _ => None,
        };
        head.was_used |= went.is_some();
        self.transport.heads.put_back(at, head);
        went
    }

    /// A text was judged, and is taken.
    pub(super) fn sip_keep_text(&mut self, far: &str, aim: &Aim, request: &Message<'_>) {
        let judged = || Judged { far: far.into(), aim: aim.clone() };
        self.sip_keep_head(request, || Some(judged()));
    }

    /// An answer was judged.
    pub(super) fn sip_keep_answer(&mut self, response: &Message<'_>) {
        if response.status() == 200 {
            self.sip_keep_head(response, || None);
        }
    }

    /// In a dialog, of a MESSAGE, and small; others are not worth it.
    fn sip_keep_head(&mut self, message: &Message<'_>, judged: impl FnOnce() -> Option<Judged>) {
        let is_text = matches!(message.method(), Method::Message);
        let in_dialog = || message.to().is_ok_and(|it| it.tag().is_some());
        let is_small = || {
            message.frame().len() - message.body().len() <= SIP_ALIKE_BYTES_MAX
                && message.all().nth(SIP_ALIKE_LINES_MAX).is_none()
        };
        if !is_text || !in_dialog() || !is_small() {
            return;
        }
        let (Ok(call_id), Some(alike)) = (message.call_id(), Alike::of(message)) else { return };
        let heads = &mut self.transport.heads;
        let hash = heads.hash(call_id.as_bytes(), message.is_request());
        let version = self.settings.version;
        heads.keep(Head { hash, version, alike, judged: judged(), was_used: false });
    }
}

/// A line's end, and what `-ID` stands behind.
const NAME: &[u8] = b"\r\nCall";

/// Of heads that take the place of one that was of no use, one in so many is kept: where no text is
/// like the one before it, that costs little.
const USELESS: u32 = 16;
