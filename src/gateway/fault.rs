//! Errors of one protocol as errors of the other (RFC 7247, 7).
//!
//! A profile without 6xx is one whose users would be told something wrong by them. No 503 is ever
//! made of a stanza's error: a SIP peer reads it as *this server is out*; and no 408 for anything
//! but an INVITE (RFC 4320, 4.2), for its sender has waited too long by then. What needs a companion
//! header that can't be given becomes an error that needs none. Verdicts about our own users
//! (unknown, offline, blocked) do **not** come from these tables.

use std::net::IpAddr;

use crate::address::Address;
use crate::gateway::{address, cut, legal};
use crate::policy::Profile;
use crate::xmpp::fault::{FaultType, StanzaFault};

/// What a SIP peer asked for, as far as an error's status goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Invite,
    /// An INVITE in a dialog, while another is under way.
    Reinvite,
    Message,
    Subscribe,
    /// Any other method.
    Other,
}

impl Asked {
    fn is_invite(self) -> bool {
        matches!(self, Self::Invite | Self::Reinvite)
    }

    /// What may stand in `Accept` of an answer (RFC 3261, 20.1).
    fn accepted(self) -> &'static str {
        match self {
            Self::Subscribe => ACCEPT_PRESENCE,
            Self::Invite | Self::Reinvite => ACCEPT_SDP,
            Self::Message | Self::Other => ACCEPT_TEXT,
        }
    }
}

/// `Accept` of an answer to a MESSAGE whose body is of no use.
pub const ACCEPT_TEXT: &str = "text/plain, text/html, text/rtf, multipart/alternative, \
    multipart/related, multipart/mixed, application/im-iscomposing+xml";
/// `Accept` for presence.
pub const ACCEPT_PRESENCE: &str = "application/pidf+xml";
/// `Accept` for an INVITE.
pub const ACCEPT_SDP: &str = "application/sdp";
/// `Allow` of an answer 405.
pub const ALLOW: &str =
    "INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, SUBSCRIBE, NOTIFY, BENOTIFY";

/// An error that XMPP told us, and what it was about.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub fault: StanzaFault,
    /// The new address of `gone` and `redirect` (RFC 6120, 8.3.3.5, 8.3.3.14).
    pub moved: Option<&'a Address>,
    /// It is about a full address, one resource, and not the user at all.
    pub full: bool,
    /// It is about what was asked, not who.
    pub method: bool,
    /// `remote-server-not-found`: there is such a domain, but it can't be found now.
    pub unresolved: bool,
}

impl Told<'_> {
    /// An error about a user, without particulars.
    pub fn plain(fault: StanzaFault) -> Self {
        Self { fault, moved: None, full: false, method: false, unresolved: false }
    }
}

/// The answer to a SIP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The header that the status demands, and its value.
    pub companion: Option<(&'static str, String)>,
}

/// The answer for an error of XMPP (RFC 7247, 7.1).
pub fn to_sip(told: &Told<'_>, asked: Asked, profile: Profile) -> Answer {
    let status = match profile {
        Profile::Lync => lync_status(told, asked),
        _ => status(told, asked),
    };
    // RFC 4320, 4.2.
    let status = match status {
        408 if asked.is_invite() => 408,
        408 if told.fault == StanzaFault::RemoteServerTimeout => 504,
        408 => 480,
        status => status,
    };
    let contact = || told.moved.map(|it| format!("<{}>", address::to_uri(it.view())));
    let companion = match status {
        301 | 302 => contact().map(|it| ("Contact", it)),
        405 => Some(("Allow", ALLOW.to_owned())),
        406 => Some(("Accept", asked.accepted().to_owned())),
        _ => None,
    };
    match (status, &companion) {
        (301, None) => Answer { status: 410, companion },
        (302, None) => Answer { status: 480, companion },
        _ => Answer { status, companion },
    }
}

fn status(told: &Told<'_>, asked: Asked) -> u16 {
    use StanzaFault as F;
    // About one resource, or about the user wherever he is.
    let by = |full: u16, bare: u16| if told.full { full } else { bare };
    match told.fault {
        F::BadRequest | F::Conflict | F::JidMalformed => 400,
        F::SubscriptionRequired | F::UndefinedCondition => 400,
        F::FeatureNotImplemented => by(405, 501),
        F::Forbidden => by(403, 603),
        F::Gone => 301,
        F::InternalServerError | F::ResourceConstraint => 500,
        F::ItemNotFound => by(404, 604),
        F::NotAcceptable => by(406, 606),
        // RFC 7247 says 401 and 407 of two of them, which want a challenge (RFC 3261, 20.27, 20.44).
        F::NotAllowed | F::NotAuthorized | F::PolicyViolation | F::RegistrationRequired => 403,
        F::RecipientUnavailable => by(480, 600),
        F::Redirect => 302,
        F::RemoteServerNotFound if told.unresolved => 408,
        F::RemoteServerNotFound => 404,
        F::RemoteServerTimeout => 408,
        F::ServiceUnavailable if told.method => 405,
        F::ServiceUnavailable => 403,
        F::UnexpectedRequest if told.full && asked == Asked::Reinvite => 491,
        F::UnexpectedRequest => 400,
    }
}

/// Without 6xx, and with what a Microsoft client tells its user in mind.
fn lync_status(told: &Told<'_>, asked: Asked) -> u16 {
    use StanzaFault as F;
    match told.fault {
        F::FeatureNotImplemented => 501,
        F::Forbidden | F::SubscriptionRequired => 403,
        F::Gone => 410,
        F::ItemNotFound | F::JidMalformed => 404,
        F::NotAcceptable if asked.is_invite() => 488,
        F::NotAcceptable => 406,
        F::RecipientUnavailable | F::Redirect => 480,
        F::ServiceUnavailable if !told.method => 480,
        F::UnexpectedRequest => 400,
        _ => status(told, asked),
    }
}

/// What a SIP response means to XMPP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub fault: StanzaFault,
    pub fault_type: FaultType,
    /// The new address, of `gone` and `redirect`.
    pub moved: Option<Address>,
    pub alarm: Option<Alarm>,
}

/// What an operator should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// 401 or 407: a partner asked us for a password.
    Challenged,
    /// 482 or 483: a request goes round in circles.
    Loop,
    /// 504 of a Microsoft partner: its edge checks our SRV record and our certificate.
    EdgeCheck,
}

/// The error of XMPP for a final response that is none of success (RFC 7247, 7.2). `contact` is the
/// URI of the response's Contact, without angle brackets; `later`: it has a Retry-After.
pub fn to_xmpp(status: u16, contact: Option<&[u8]>, later: bool, profile: Profile) -> Verdict {
    use FaultType::{Modify, Wait};
    use StanzaFault as F;
    let usual = |fault: F| (fault, fault.fault_type());
    let mut moved = contact.and_then(|it| address::to_address(it).ok());
    let (fault, fault_type) = match status {
        301 if moved.is_none() => usual(F::ItemNotFound),
        301 => usual(F::Gone),
        380 => usual(F::NotAcceptable),
        300..=399 => usual(F::Redirect),
        401 => usual(F::NotAuthorized),
        403 => usual(F::Forbidden),
        404 | 481 | 484 | 485 | 604 => usual(F::ItemNotFound),
        405 | 420 | 439 | 501 => usual(F::FeatureNotImplemented),
        406 | 415 | 416 | 421 | 482 | 483 | 488 | 505 | 606 => usual(F::NotAcceptable),
        407 => usual(F::RegistrationRequired),
        408 | 504 => usual(F::RemoteServerTimeout),
        410 => usual(F::Gone),
        413 | 414 | 489 | 513 => (F::PolicyViolation, Modify),
        440 => (F::PolicyViolation, Wait),
        423 => usual(F::ResourceConstraint),
        430 | 480 | 486 | 487 | 600 | 603 => usual(F::RecipientUnavailable),
        491 => usual(F::UnexpectedRequest),
        400..=499 => usual(F::BadRequest),
        502 => usual(F::RemoteServerNotFound),
        503 => (F::InternalServerError, Wait),
        500..=599 if later => (F::InternalServerError, Wait),
        500..=599 => usual(F::InternalServerError),
        600..=699 => usual(F::RecipientUnavailable),
        _ => usual(F::UndefinedCondition),
    };
    if !matches!(status, 300..=379 | 381..=399) {
        moved = None;
    }
    let alarm = match status {
        401 | 407 => Some(Alarm::Challenged),
        482 | 483 => Some(Alarm::Loop),
        504 if profile == Profile::Lync => Some(Alarm::EdgeCheck),
        _ => None,
    };
    Verdict { fault, fault_type, moved, alarm }
}

/// Whether a request that was answered so may be tried elsewhere or again later, before its sender
/// is told: this server is out, not the user.
pub fn is_of_the_hop(status: u16) -> bool {
    status == 503
}

/// Octets of a reason phrase that is carried over.
const REASON_OCTETS: usize = 256;

/// A reason phrase, or the text of an error, as it may be carried over: one short line of text that
/// names no address of a network (RFC 7247, 7).
pub fn carried_text(raw: &str) -> Option<String> {
    let text: String = legal(raw).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = cut(text.trim(), REASON_OCTETS).trim_end();
    let names_address = text
        .split(|c: char| {
            c.is_whitespace() || matches!(c, '(' | ')' | '[' | ']' | '<' | '>' | ',' | ';')
        })
        .map(|it| it.trim_matches(|c: char| !c.is_ascii_hexdigit() && c != ':'))
        .any(|it| {
            let host = it.rsplit_once(':').map_or(it, |(host, _port)| host);
            it.parse::<IpAddr>().is_ok() || host.parse::<IpAddr>().is_ok()
        });
    (!text.is_empty() && !names_address).then(|| text.to_owned())
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
