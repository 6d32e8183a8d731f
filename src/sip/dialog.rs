//! A dialog: what two parties keep so that requests find their way (RFC 3261, 12; RFC 6665, 4.4.1).
//!
//! One type for both sides. The callee's dialog is made by the request ([`Dialog::uas`]), the caller's
//! begins without a far tag ([`Dialog::uac`]) and learns it from an answer, or from the NOTIFY that
//! overtakes it ([`Dialog::learn`]). What the far end wrote is echoed octet for octet: its From or To
//! with all parameters in their order, and each Record-Route value with what stands behind the
//! bracket; Microsoft signs them. Our own Record-Route is left out of the route set, since the
//! transport sends from where it stands.
//!
//! Our CSeq is kept as a ceiling, reserved in blocks, so that no number is used twice after a crash
//! and no request needs a write. Does **not** know transactions, timers or what the dialog is for.
//!
//! Table: `dialog.table`.

use crate::sip::message::Message;
use crate::sip::method::Method;
use crate::sip::name::Name;
use crate::sip::write::{self, Writer};
use crate::sip::{Fault, NameAddr, Uri};
use crate::stdx::fields::{Fields, put, put_u32};

/// How far a dialog is (RFC 3261, 12).
///
/// ```text
///   calling -> early -> confirmed -> over
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Our first request is out and nobody has answered: there is no far tag yet.
    Calling,
    /// A provisional answer named its sender (RFC 3261, 12.1).
    Early,
    /// Both ends have it.
    Confirmed,
    /// Nothing may be sent in it any more.
    Over,
}

/// What happens to a dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// 101 to 199 with a To-tag.
    Provisional,
    /// A 2xx to a request of ours.
    Success,
    /// A NOTIFY of the far end that our SUBSCRIBE asked for.
    Notified,
    /// 481 or 408 to a request of ours, or none at all.
    Gone,
    /// Any other final answer.
    Refused,
    /// BYE of either end, or the last NOTIFY.
    Ended,
}

impl State {
    /// The state after that. Table: `dialog.table`.
    #[must_use]
    pub fn after(self, input: Input) -> Self {
        match (self, input) {
            (Self::Over, _) | (_, Input::Ended | Input::Gone) => Self::Over,
            // RFC 3261, 12.3: a refused first request leaves no dialog; a refused later one leaves
            // it as it was (12.2.1.2).
            (Self::Calling | Self::Early, Input::Refused) => Self::Over,
            (Self::Confirmed, _) => Self::Confirmed,
            // RFC 6665, 4.4.1: the NOTIFY makes the dialog, whether the 2xx has come or not.
            (_, Input::Success | Input::Notified) => Self::Confirmed,
            (_, Input::Provisional) => Self::Early,
        }
    }

    /// What the final answer to a request in the dialog means to it (RFC 3261, 12.2.1.2).
    pub fn input(status: u16) -> Input {
        match status {
            ..=199 => Input::Provisional,
            200..=299 => Input::Success,
            408 | 481 => Input::Gone,
            _ => Input::Refused,
        }
    }
}

/// One dialog of a local user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    state: State,
    call_id: String,
    local_tag: String,
    /// Empty until the far end has named itself; empty for good with one of RFC 2543.
    remote_tag: Vec<u8>,
    /// Our From or To, with our tag.
    local: Vec<u8>,
    /// The far end's, as it wrote it.
    remote: Vec<u8>,
    /// Where requests are for: the far end's Contact.
    target: Vec<u8>,
    /// Route values in the order in which they are written.
    routes: Vec<Vec<u8>>,
    /// The last number that we used.
    cseq: u32,
    /// No number above it is used before it is raised and kept.
    ceiling: u32,
    /// The last number that the far end used.
    heard: Option<u32>,
    /// How its requests are written, from behind the method up to CSeq's number.
    written: Written,
}

/// What is the same in all requests of a dialog, once one was written. It says nothing that the dialog
/// does not.
#[derive(Clone, Debug, Default)]
struct Written(Option<Box<[u8]>>);

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Written {}

/// Kept octets that are no dialog of a version we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecodable;

/// Numbers of CSeq that are reserved at once.
const BLOCK: u32 = 1_000;
/// So many before the ceiling it is raised.
const LOW: u32 = 100;
/// In front of a dialog that is kept.
const VERSION: u8 = 1;

impl Dialog {
    /// The dialog that our answer to this request makes (RFC 3261, 12.1.1). `own`: our FQDN, whose
    /// Record-Route is left out.
    pub fn uas(request: &Message<'_>, local_tag: &str, own: &str) -> Result<Self, Fault> {
        let (from, to) = (request.from()?, request.to()?);
        let (number, _) = request.cseq()?;
        let Some(contact) = request.contact()? else { return Err(Fault::bad("Contact missing")) };
        let mut local = plain(to);
        local.extend_from_slice(b";tag=");
        local.extend_from_slice(local_tag.as_bytes());
        Ok(Self {
            state: State::Confirmed,
            call_id: request.call_id()?.to_owned(),
            local_tag: local_tag.to_owned(),
            remote_tag: from.tag().unwrap_or_default().to_vec(),
            local,
            remote: plain(from),
            target: contact.uri.to_vec(),
            routes: routes(request, own).collect(),
            cseq: 0,
            ceiling: BLOCK,
            heard: Some(number),
            written: Written::default(),
        })
    }

    /// The beginning of a dialog of ours, from one address to another (both as URIs); the far end's
    /// is also where the first request goes.
    pub fn uac(call_id: &str, local_tag: &str, from: &str, to: &str) -> Self {
        Self {
            state: State::Calling,
            call_id: call_id.to_owned(),
            local_tag: local_tag.to_owned(),
            remote_tag: Vec::new(),
            local: format!("<{from}>;tag={local_tag}").into_bytes(),
            remote: format!("<{to}>").into_bytes(),
            target: to.as_bytes().to_vec(),
            routes: Vec::new(),
            cseq: 0,
            ceiling: BLOCK,
            heard: None,
            written: Written::default(),
        }
    }

    /// The beginning of a dialog with another who answers the same request, which had that number
    /// (RFC 3261, 13.2.2.4).
    #[must_use]
    pub fn fork(&self, number: u32) -> Self {
        let (state, remote_tag) = (State::Calling, Vec::new());
        let written = Written::default();
        Self { state, remote_tag, cseq: number, heard: None, written, ..self.clone() }
    }

    /// What the far end says of itself: in a 101-199 or 2xx to our first request, or in the NOTIFY
    /// that came before (RFC 3261, 12.1.2; RFC 6665, 4.4.1). `false`: it is another's, who answered
    /// the same request with a tag of its own; this dialog is as it was.
    pub fn learn(&mut self, message: &Message<'_>, own: &str) -> Result<bool, Fault> {
        let is_request = message.is_request();
        let far = if is_request { message.from()? } else { message.to()? };
        let tag = far.tag().unwrap_or_default();
        let status = message.status();
        if status == 100 || (tag.is_empty() && (100..200).contains(&status)) {
            return Ok(true);
        }
        if self.state == State::Confirmed && tag != self.remote_tag {
            return Ok(false);
        }
        if !is_request && status >= 300 {
            self.apply(State::input(status));
            return Ok(true);
        }
        self.written = Written::default();
        if self.state != State::Confirmed {
            // RFC 3261, 13.2.2.4: the 2xx says all of it anew.
            self.remote_tag = tag.to_vec();
            self.remote = plain(far);
            self.routes = routes(message, own).collect();
            if !is_request {
                self.routes.reverse();
            }
        }
        if let Some(contact) = message.contact()? {
            self.target = contact.uri.to_vec();
        }
        self.apply(match (is_request, status) {
            (true, _) => Input::Notified,
            (false, ..=199) => Input::Provisional,
            _ => Input::Success,
        });
        Ok(true)
    }

    /// A request of the far end in this dialog: is it that one's, and in its turn (RFC 3261, 12.2.2)?
    /// Its Contact is where we send from now on.
    pub fn hears(&mut self, request: &Message<'_>) -> Result<(), Fault> {
        if request.from()?.tag().unwrap_or_default() != self.remote_tag {
            return Err(Fault::new(481));
        }
        let (number, method) = request.cseq()?;
        if matches!(method, Method::Ack | Method::Cancel) {
            return Ok(());
        }
        if self.heard.is_some_and(|last| number < last) {
            return Err(Fault::saying(500, "CSeq is lower than the last"));
        }
        let contact = match method {
            // RFC 3261, 12.2; RFC 3311, 5.1; RFC 6665, 4.4.1: these refresh the target.
            Method::Invite
            | Method::Update
            | Method::Subscribe
            | Method::Notify
            | Method::Benotify => request.contact()?,
            _ => None,
        };
        self.heard = Some(number);
        if let Some(contact) = contact {
            self.target = contact.uri.to_vec();
            self.written = Written::default();
        }
        Ok(())
    }

    /// The next request in this dialog: start line, Route, Max-Forwards, From, To, Call-ID and CSeq
    /// (RFC 3261, 12.2.1.1).
    pub fn request<'o>(&mut self, method: &str, out: &'o mut Vec<u8>) -> Writer<'o> {
        self.cseq += 1;
        self.again(method, self.cseq, out)
    }

    /// The same where many are to follow: what they share is written once and kept.
    pub fn request_of_many<'o>(&mut self, method: &str, out: &'o mut Vec<u8>) -> Writer<'o> {
        self.cseq += 1;
        if self.written.0.is_none() {
            let mut text = Vec::new();
            self.unnumbered("", &mut text);
            self.written = Written(Some(text.into()));
        }
        let shared = self.written.0.as_deref().unwrap_or_default();
        // Room for a text, too.
        out.reserve(shared.len() + 1_024);
        out.extend_from_slice(method.as_bytes());
        out.extend_from_slice(shared);
        write::numbered(self.cseq, method, out)
    }

    /// The same under a number that was used: the ACK of an INVITE (RFC 3261, 13.2.2.4).
    pub fn again<'o>(&self, method: &str, number: u32, out: &'o mut Vec<u8>) -> Writer<'o> {
        self.unnumbered(method, out);
        write::numbered(number, method, out)
    }

    /// All of it up to CSeq.
    fn unnumbered(&self, method: &str, out: &mut Vec<u8>) {
        let loose = self.routes.first().is_none_or(|it| is_loose(it));
        let mut writer = match self.routes.first() {
            Some(first) if !loose => write::request(method, uri(first), out),
            _ => write::request(method, &self.target, out),
        };
        for route in self.routes.iter().skip(usize::from(!loose)) {
            writer = writer.header("Route", route);
        }
        if !loose {
            // RFC 3261, 12.2.1.1: before a strict router the target is the last Route.
            writer = writer.header("Route", &[b"<", self.target.as_slice(), b">"].concat());
        }
        writer
            .header("Max-Forwards", b"70")
            .header("From", &self.local)
            .header("To", &self.remote)
            .header("Call-ID", self.call_id.as_bytes())
            .pause();
    }

    /// Something happened to it.
    pub fn apply(&mut self, input: Input) {
        self.state = self.state.after(input);
    }

    /// How far it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Names it together with [`Dialog::local_tag`].
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// Ours.
    pub fn local_tag(&self) -> &str {
        &self.local_tag
    }

    /// The far end's; empty if it has none.
    pub fn remote_tag(&self) -> &[u8] {
        &self.remote_tag
    }

    /// The far end's Contact.
    pub fn target(&self) -> &[u8] {
        &self.target
    }

    /// The number of our last request.
    pub fn cseq(&self) -> u32 {
        self.cseq
    }

    /// The far end's last number.
    pub fn heard(&self) -> Option<u32> {
        self.heard
    }

    /// The reserved numbers come to their end: [`Dialog::reserve`], and keep it.
    pub fn is_low(&self) -> bool {
        self.ceiling.saturating_sub(self.cseq) < LOW
    }

    /// The last number that is reserved.
    pub fn ceiling(&self) -> u32 {
        self.ceiling
    }

    /// Reserves the next block of numbers; they may be used once it is kept.
    pub fn reserve(&mut self) {
        self.ceiling = self.cseq + BLOCK;
    }

    /// Appends what is kept of it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(self.state as u8);
        put(self.call_id.as_bytes(), out);
        put(self.local_tag.as_bytes(), out);
        put(&self.remote_tag, out);
        put(&self.local, out);
        put(&self.remote, out);
        put(&self.target, out);
        put_u32(self.ceiling.max(self.cseq), out);
        put_u32(u32::from(self.heard.is_some()), out);
        put_u32(self.heard.unwrap_or_default(), out);
        put_u32(u32::try_from(self.routes.len()).unwrap_or(u32::MAX), out);
        for route in &self.routes {
            put(route, out);
        }
    }

    /// Reads what was kept. It goes on above the ceiling, so it is low: reserve and keep it.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Undecodable> {
        Self::read(fields).ok_or(Undecodable)
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        if fields.u8()? != VERSION {
            return None;
        }
        let state = match fields.u8()? {
            0 => State::Calling,
            1 => State::Early,
            2 => State::Confirmed,
            3 => State::Over,
            _ => return None,
        };
        let call_id = fields.text()?.to_owned();
        let local_tag = fields.text()?.to_owned();
        let remote_tag = fields.octets()?.to_vec();
        let local = fields.octets()?.to_vec();
        let remote = fields.octets()?.to_vec();
        let target = fields.octets()?.to_vec();
        let ceiling = fields.u32().filter(|it| *it < CSEQ_LAST)?;
        let is_heard = fields.u32()? == 1;
        let heard = fields.u32()?;
        let mut routes = Vec::new();
        for _ in 0..fields.u32()? {
            routes.push(fields.octets()?.to_vec());
        }
        Some(Self {
            state,
            call_id,
            local_tag,
            remote_tag,
            local,
            remote,
            target,
            routes,
            cseq: ceiling,
            ceiling,
            heard: is_heard.then_some(heard),
            written: Written::default(),
        })
    }
}

/// RFC 3261, 8.1.1.5: a number is below 2^31; a kept one that is not leaves no room.
const CSEQ_LAST: u32 = (1 << 31) - 1;

/// A From or To value as it is written on one line.
fn plain(value: NameAddr<'_>) -> Vec<u8> {
    crate::sip::unfold(value.value()).into_owned()
}

/// The Record-Route values in the order of the message, without ours.
fn routes<'a>(message: &Message<'a>, own: &'a str) -> impl Iterator<Item = Vec<u8>> {
    let values = message.list(Name::RecordRoute);
    values
        .filter(move |value| !is_own(value, own))
        .map(|value| crate::sip::unfold(value).into_owned())
}

/// The URI of a route; all of it if it is none.
fn uri(route: &[u8]) -> &[u8] {
    NameAddr::parse(route).map_or(route, |it| it.uri)
}

/// The one in front of us left it there, since we put it in (RFC 3261, 16.4).
fn is_own(route: &[u8], own: &str) -> bool {
    let host = Uri::parse(uri(route)).map(|it| it.host);
    host.is_ok_and(|it| it.eq_ignore_ascii_case(own.as_bytes()))
}

/// A router that leaves the Request-URI alone (RFC 3261, 16.12.1.1).
fn is_loose(route: &[u8]) -> bool {
    Uri::parse(uri(route)).is_ok_and(|it| it.param("lr").is_some())
}

#[cfg(test)]
#[path = "dialog_tests.rs"]
mod tests;
