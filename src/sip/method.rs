//! Methods by name (RFC 3261, 7.1; extensions by their own).
//!
//! Names are compared **with** case, as tokens of a method are (RFC 3261, 7.1), and no escape is
//! undone in them (RFC 4475, 3.1.1.5).

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method<'a> {
    /// `INVITE`.
    Invite,
    /// `ACK`.
    Ack,
    /// `BYE`.
    Bye,
    /// `CANCEL`.
    Cancel,
    /// `OPTIONS`.
    Options,
    /// `REGISTER`.
    Register,
    /// `MESSAGE` (RFC 3428).
    Message,
    /// `SUBSCRIBE` (RFC 6665).
    Subscribe,
    /// `NOTIFY` (RFC 6665).
    Notify,
    /// `BENOTIFY`: a NOTIFY that is never answered (MS-SIP, 3.5).
    Benotify,
    /// `INFO` (RFC 6086).
    Info,
    /// `REFER` (RFC 3515).
    Refer,
    /// `UPDATE` (RFC 3311).
    Update,
    /// `PRACK` (RFC 3262).
    Prack,
    /// `PUBLISH` (RFC 3903).
    Publish,
    /// `SERVICE`: requests of Microsoft clients to their own servers.
    Service,
    /// Any other token.
    Other(&'a [u8]),
}

impl<'a> Method<'a> {
    /// The method of this name.
    pub fn new(name: &'a [u8]) -> Self {
        match name {
            b"INVITE" => Self::Invite,
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"OPTIONS" => Self::Options,
            b"REGISTER" => Self::Register,
            b"MESSAGE" => Self::Message,
            b"SUBSCRIBE" => Self::Subscribe,
            b"NOTIFY" => Self::Notify,
            b"BENOTIFY" => Self::Benotify,
            b"INFO" => Self::Info,
            b"REFER" => Self::Refer,
            b"UPDATE" => Self::Update,
            b"PRACK" => Self::Prack,
            b"PUBLISH" => Self::Publish,
            b"SERVICE" => Self::Service,
            _ => Self::Other(name),
        }
    }

    /// Its name on the wire.
    pub const fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Invite => b"INVITE",
            Self::Ack => b"ACK",
            Self::Bye => b"BYE",
            Self::Cancel => b"CANCEL",
            Self::Options => b"OPTIONS",
            Self::Register => b"REGISTER",
            Self::Message => b"MESSAGE",
            Self::Subscribe => b"SUBSCRIBE",
            Self::Notify => b"NOTIFY",
            Self::Benotify => b"BENOTIFY",
            Self::Info => b"INFO",
            Self::Refer => b"REFER",
            Self::Update => b"UPDATE",
            Self::Prack => b"PRACK",
            Self::Publish => b"PUBLISH",
            Self::Service => b"SERVICE",
            Self::Other(name) => name,
        }
    }

    /// Whether a request of this method may be answered at all: not ACK (RFC 3261, 17) and not
    /// BENOTIFY, which gets not even an error (MS-SIP, 3.5).
    pub const fn is_answered(self) -> bool {
        !matches!(self, Self::Ack | Self::Benotify)
    }
}
