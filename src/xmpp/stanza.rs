//! What one scan knows about a first-level element of a stream.
//!
//! A `Stanza` is a handful of ranges into the octets it was read from: what it is, the addresses of
//! its root, which children it has and where. It owns nothing and is cheap to drop. Values are as on
//! the wire, still escaped; `read` looks deeper, for the few who need it.

use std::{borrow::Cow, num::NonZeroU32, ops::Range};

pub use crate::xmpp::namespace::Ns;
use crate::xmpp::read;

/// First-level children whose place is remembered; of further ones only the kind is known.
pub const CHILDREN_PLACED: usize = 16;

/// A first-level element, as ranges into the octets it was scanned from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza {
    /// What it is.
    pub kind: Kind,
    /// The namespace of its root.
    pub ns: Ns,
    /// True for `<presence/>`, false for `<presence></presence>`.
    pub empty: bool,
    /// Elements in it, itself included: what limits before login are counted with.
    pub elements: u32,
    /// Octets of the whole element.
    pub len: u32,
    /// Behind the root's name: where an attribute can be inserted.
    pub name_end: u32,
    /// Behind the `>` of the root's start tag.
    pub inner_start: u32,
    /// At the `<` of the root's end tag; equal to `inner_start` in an empty element.
    pub inner_end: u32,
    /// Attributes of the root.
    pub to: Option<Attr>,
    /// See `to`.
    pub from: Option<Attr>,
    /// See `to`.
    pub id: Option<Attr>,
    /// The attribute `type`.
    pub type_: Option<Attr>,
    /// The attribute `xml:lang`.
    pub lang: Option<Attr>,
    /// The root's own declaration of its default namespace.
    pub xmlns: Option<Attr>,
    /// One bit per `ChildKind` that occurs on the first level, also beyond the placed ones.
    pub kinds: u64,
    /// What stands in the way of handing it on as it is.
    pub quirks: Quirks,
    /// How many of `placed` are in use.
    pub placed_count: u8,
    /// The first of the children, in their order.
    pub placed: [Child; CHILDREN_PLACED],
}

/// An attribute of the root: its value, and all of it for cutting it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The blank before it.
    pub cut: NonZeroU32,
    /// Behind the opening quote.
    pub start: u32,
    /// At the closing quote.
    pub end: u32,
}

/// A first-level child.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Child {
    /// What it is.
    pub kind: ChildKind,
    /// Its namespace.
    pub ns: Ns,
    /// At its `<`.
    pub start: u32,
    /// Behind its last `>`.
    pub end: u32,
}

/// Things a scan notes because a forward must heed them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks(pub(crate) u8);

impl Quirks {
    /// There are more children than `placed` holds.
    pub(crate) const OVERFLOW: u8 = 1;
    /// A first-level child names `jabber:client` or `jabber:server` as its own default.
    pub(crate) const CHILD_CONTENT: u8 = 2;
    /// One of the two is bound to a prefix, or named again below a child of that namespace.
    pub(crate) const CONTENT_BOUND: u8 = 4;
    /// The root declares a prefix, which children may use.
    pub(crate) const ROOT_PREFIX: u8 = 8;

    pub(crate) fn has(self, quirk: u8) -> bool {
        self.0 & quirk != 0
    }
}

/// The first-level elements of a stream that we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// RFC 6120, 8.2.1.
    Message,
    /// RFC 6120, 8.2.2.
    Presence,
    /// RFC 6120, 8.2.3.
    Iq,
    /// `<starttls/>` (RFC 6120, 5.4.2.1).
    StartTls,
    /// `<proceed/>` (RFC 6120, 5.4.2.3).
    Proceed,
    /// `<failure/>` of STARTTLS (RFC 6120, 5.4.2.2).
    TlsFailure,
    /// `<auth/>` (RFC 6120, 6.4.2).
    Auth,
    /// `<challenge/>` (RFC 6120, 6.4.3).
    Challenge,
    /// `<response/>` (RFC 6120, 6.4.3).
    Response,
    /// `<abort/>` (RFC 6120, 6.4.4).
    SaslAbort,
    /// `<success/>` (RFC 6120, 6.4.6).
    SaslSuccess,
    /// `<failure/>` of SASL (RFC 6120, 6.4.5).
    SaslFailure,
    /// `<stream:features/>` (RFC 6120, 4.3.2).
    Features,
    /// `<stream:error/>` (RFC 6120, 4.9).
    StreamError,
    /// `<db:result/>` (XEP-0220).
    DbResult,
    /// `<db:verify/>` (XEP-0220).
    DbVerify,
    /// `<compress/>` (XEP-0138), which is always refused.
    Compress,
    /// Anything of stream management (XEP-0198).
    Sm,
    /// `<active/>` of XEP-0352.
    Active,
    /// `<inactive/>` of XEP-0352.
    Inactive,
    /// Anything else, also a stanza in another namespace than the stream's.
    #[default]
    Unknown,
}

impl Kind {
    /// True for message, presence and iq.
    pub const fn is_stanza(self) -> bool {
        matches!(self, Self::Message | Self::Presence | Self::Iq)
    }

    pub(crate) fn of(local: &[u8], ns: Ns, content: Ns) -> Self {
        match (ns, local) {
            (_, b"message") if ns == content => Self::Message,
            (_, b"presence") if ns == content => Self::Presence,
            (_, b"iq") if ns == content => Self::Iq,
            (Ns::Tls, b"starttls") => Self::StartTls,
            (Ns::Tls, b"proceed") => Self::Proceed,
            (Ns::Tls, b"failure") => Self::TlsFailure,
            (Ns::Sasl, b"auth") => Self::Auth,
            (Ns::Sasl, b"challenge") => Self::Challenge,
            (Ns::Sasl, b"response") => Self::Response,
            (Ns::Sasl, b"abort") => Self::SaslAbort,
            (Ns::Sasl, b"success") => Self::SaslSuccess,
            (Ns::Sasl, b"failure") => Self::SaslFailure,
            (Ns::Stream, b"features") => Self::Features,
            (Ns::Stream, b"error") => Self::StreamError,
            (Ns::Dialback, b"result") => Self::DbResult,
            (Ns::Dialback, b"verify") => Self::DbVerify,
            (Ns::Compress, b"compress") => Self::Compress,
            (Ns::Sm, _) => Self::Sm,
            (Ns::ClientState, b"active") => Self::Active,
            (Ns::ClientState, b"inactive") => Self::Inactive,
            _ => Self::Unknown,
        }
    }
}

/// First-level children we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is named after its element")]
pub enum ChildKind {
    Body,
    Subject,
    Thread,
    Error,
    Show,
    Status,
    Priority,
    ChatActive,
    ChatComposing,
    ChatPaused,
    ChatInactive,
    ChatGone,
    ReceiptRequest,
    ReceiptReceived,
    NoStore,
    NoPermanentStore,
    NoCopy,
    Store,
    Delay,
    StanzaId,
    OriginId,
    OccupantId,
    CarbonsPrivate,
    CarbonsSent,
    CarbonsReceived,
    CarbonsEnable,
    CarbonsDisable,
    Forwarded,
    Caps,
    Bind,
    Session,
    Ping,
    Time,
    DiscoInfo,
    DiscoItems,
    Version,
    Roster,
    Vcard,
    VcardUpdate,
    Blocking,
    Private,
    Last,
    Command,
    MucUser,
    #[default]
    Other,
}

impl ChildKind {
    /// The bit of this kind in `Stanza::kinds`.
    #[inline]
    pub const fn bit(self) -> u64 {
        1 << (self as u8)
    }

    /// The chat states of XEP-0085, as a set of bits.
    pub const CHAT_STATES: u64 = Self::ChatActive.bit()
        | Self::ChatComposing.bit()
        | Self::ChatPaused.bit()
        | Self::ChatInactive.bit()
        | Self::ChatGone.bit();

    #[inline(always)]
    pub(crate) fn of(local: &[u8], ns: Ns, content: Ns) -> Self {
        if ns == content {
            return match local {
                b"body" => Self::Body,
                b"subject" => Self::Subject,
                b"thread" => Self::Thread,
                b"error" => Self::Error,
                b"show" => Self::Show,
                b"status" => Self::Status,
                b"priority" => Self::Priority,
                _ => Self::Other,
            };
        }
        match (ns, local) {
            (Ns::ChatStates, b"active") => Self::ChatActive,
            (Ns::ChatStates, b"composing") => Self::ChatComposing,
            (Ns::ChatStates, b"paused") => Self::ChatPaused,
            (Ns::ChatStates, b"inactive") => Self::ChatInactive,
            (Ns::ChatStates, b"gone") => Self::ChatGone,
            (Ns::Receipts, b"request") => Self::ReceiptRequest,
            (Ns::Receipts, b"received") => Self::ReceiptReceived,
            (Ns::Hints, b"no-store") => Self::NoStore,
            (Ns::Hints, b"no-permanent-store") => Self::NoPermanentStore,
            (Ns::Hints, b"no-copy") => Self::NoCopy,
            (Ns::Hints, b"store") => Self::Store,
            (Ns::Delay, b"delay") => Self::Delay,
            (Ns::StanzaId, b"stanza-id") => Self::StanzaId,
            (Ns::StanzaId, b"origin-id") => Self::OriginId,
            (Ns::OccupantId, b"occupant-id") => Self::OccupantId,
            (Ns::Carbons, b"private") => Self::CarbonsPrivate,
            (Ns::Carbons, b"sent") => Self::CarbonsSent,
            (Ns::Carbons, b"received") => Self::CarbonsReceived,
            (Ns::Carbons, b"enable") => Self::CarbonsEnable,
            (Ns::Carbons, b"disable") => Self::CarbonsDisable,
            (Ns::Forward, b"forwarded") => Self::Forwarded,
            (Ns::Caps, b"c") => Self::Caps,
            (Ns::Bind, b"bind") => Self::Bind,
            (Ns::Session, b"session") => Self::Session,
            (Ns::Ping, b"ping") => Self::Ping,
            (Ns::Time, b"time") => Self::Time,
            (Ns::DiscoInfo, b"query") => Self::DiscoInfo,
            (Ns::DiscoItems, b"query") => Self::DiscoItems,
            (Ns::Version, b"query") => Self::Version,
            (Ns::Roster, b"query") => Self::Roster,
            (Ns::Vcard, b"vCard") => Self::Vcard,
            (Ns::VcardUpdate, b"x") => Self::VcardUpdate,
            (Ns::Blocking, _) => Self::Blocking,
            (Ns::Private, b"query") => Self::Private,
            (Ns::Last, b"query") => Self::Last,
            (Ns::Commands, b"command") => Self::Command,
            (Ns::MucUser, b"x") => Self::MucUser,
            _ => Self::Other,
        }
    }
}

impl Attr {
    /// The value as on the wire, still escaped.
    #[inline]
    pub fn raw<'a>(&self, frame: &'a [u8]) -> &'a str {
        let octets = frame.get(self.start as usize..self.end as usize).unwrap_or_default();
        std::str::from_utf8(octets).unwrap_or_default()
    }

    /// How many octets the value takes on the wire.
    #[inline]
    pub fn octets(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// The value as meant.
    #[inline]
    pub fn value<'a>(&self, frame: &'a [u8]) -> Cow<'a, str> {
        read::unescape(self.raw(frame))
    }

    /// All of it, with the blank before it.
    pub fn whole(&self) -> Range<u32> {
        self.cut.get()..self.end.saturating_add(1)
    }
}

impl Stanza {
    /// True if a child of this kind is on the first level.
    #[inline]
    pub const fn has(&self, kind: ChildKind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// True if a child of one of these kinds is on the first level.
    #[inline]
    pub const fn has_any(&self, kinds: u64) -> bool {
        self.kinds & kinds != 0
    }

    /// True if there are more children than `children` tells of.
    pub fn overflows(&self) -> bool {
        self.quirks.has(Quirks::OVERFLOW)
    }

    /// The first `CHILDREN_PLACED` children, in their order.
    #[inline]
    pub fn children(&self) -> &[Child] {
        self.placed.get(..usize::from(self.placed_count)).unwrap_or_default()
    }

    /// The first placed child of this kind.
    pub fn child(&self, kind: ChildKind) -> Option<&Child> {
        if !self.has(kind) {
            return None;
        }
        self.children().iter().find(|it| it.kind == kind)
    }

    /// What is between the root's tags.
    pub fn inner<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(self.inner_start as usize..self.inner_end as usize).unwrap_or_default()
    }

    /// The local name of the root.
    pub fn name<'a>(&self, frame: &'a [u8]) -> &'a str {
        let octets = frame.get(1..self.name_end as usize).unwrap_or_default();
        let octets = octets
            .iter()
            .position(|b| *b == b':')
            .map_or(octets, |colon| octets.get(colon.saturating_add(1)..).unwrap_or_default());
        std::str::from_utf8(octets).unwrap_or_default()
    }

    /// The text of the first child of this kind, as meant.
    pub fn child_text(&self, frame: &[u8], kind: ChildKind) -> Option<String> {
        self.child(kind).map(|it| read::text_of(it.octets(frame)))
    }

    /// An attribute of the root that no field tells of, as meant.
    pub fn attr<'a>(&self, frame: &'a [u8], name: &[u8]) -> Option<Cow<'a, str>> {
        read::attr_of(frame, name)
    }
}

impl Child {
    /// All of it.
    #[inline]
    pub fn octets<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        frame.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// All of it, as a range for `splice::Edits::cuts`.
    pub fn range(&self) -> Range<u32> {
        self.start..self.end
    }
}

const _: () = assert!((ChildKind::Other as u8) < 64, "kinds has a bit for each");
