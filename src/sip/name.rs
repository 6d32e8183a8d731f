//! Names of headers, in any case and in their compact forms (RFC 3261, 7.3.1, 7.3.3, 20).
//!
//! One look-up finds a name: its length and its ends give the one place where it could be. A header
//! that is **not** listed is `Other` and keeps its octets.

macro_rules! names {
    ($($variant:ident = $name:literal $(/ $compact:literal)?),+ $(,)?) => {
        /// A header this switch knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Name {
            $(#[doc = concat!("`", $name, "`.")] $variant,)+
            /// Any other: `Message::other` finds it.
            Other,
        }

        impl Name {
            /// As it is written on the wire; empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                    Self::Other => "",
                }
            }

            const ALL: &'static [Self] = &[$(Self::$variant),+];
            const TEXTS: &'static [&'static str] = &[$($name),+];

            const fn compact(letter: u8) -> Self {
                $($(if letter == $compact { return Self::$variant; })?)+
                Self::Other
            }
        }
    };
}

names! {
    Via = "Via" / b'v',
    From = "From" / b'f',
    To = "To" / b't',
    CallId = "Call-ID" / b'i',
    CSeq = "CSeq",
    MaxForwards = "Max-Forwards",
    Contact = "Contact" / b'm',
    Route = "Route",
    RecordRoute = "Record-Route",
    ContentLength = "Content-Length" / b'l',
    ContentType = "Content-Type" / b'c',
    ContentEncoding = "Content-Encoding" / b'e',
    ContentDisposition = "Content-Disposition",
    ContentLanguage = "Content-Language",
    ContentTransferEncoding = "Content-Transfer-Encoding",
    ContentId = "Content-ID",
    MimeVersion = "MIME-Version",
    Event = "Event" / b'o',
    SubscriptionState = "Subscription-State",
    AllowEvents = "Allow-Events" / b'u',
    Expires = "Expires",
    MinExpires = "Min-Expires",
    RetryAfter = "Retry-After",
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    Allow = "Allow",
    Supported = "Supported" / b'k',
    Require = "Require",
    ProxyRequire = "Proxy-Require",
    Unsupported = "Unsupported",
    Subject = "Subject" / b's',
    Date = "Date",
    Timestamp = "Timestamp",
    UserAgent = "User-Agent",
    Server = "Server",
    Warning = "Warning",
    Reason = "Reason",
    Priority = "Priority",
    Organization = "Organization",
    InReplyTo = "In-Reply-To",
    ErrorInfo = "Error-Info",
    CallInfo = "Call-Info",
    AlertInfo = "Alert-Info",
    ReferTo = "Refer-To" / b'r',
    ReferredBy = "Referred-By" / b'b',
    Replaces = "Replaces",
    SessionExpires = "Session-Expires" / b'x',
    MinSe = "Min-SE",
    AcceptContact = "Accept-Contact" / b'a',
    RejectContact = "Reject-Contact" / b'j',
    RequestDisposition = "Request-Disposition" / b'd',
    Identity = "Identity" / b'y',
    IdentityInfo = "Identity-Info" / b'n',
    RSeq = "RSeq",
    RAck = "RAck",
    SipETag = "SIP-ETag",
    SipIfMatch = "SIP-If-Match",
    SuppressIfMatch = "Suppress-If-Match",
    HistoryInfo = "History-Info",
    PAssertedIdentity = "P-Asserted-Identity",
    PPreferredIdentity = "P-Preferred-Identity",
    Authorization = "Authorization",
    ProxyAuthorization = "Proxy-Authorization",
    WwwAuthenticate = "WWW-Authenticate",
    ProxyAuthenticate = "Proxy-Authenticate",
    AuthenticationInfo = "Authentication-Info",
    ProxyAuthenticationInfo = "Proxy-Authentication-Info",
    MsDiagnostics = "ms-diagnostics",
    MsDiagnosticsPublic = "ms-diagnostics-public",
    MsClientDiagnostics = "ms-client-diagnostics",
    MsTextFormat = "ms-text-format",
    MsImFormat = "ms-im-format",
    MsConversationId = "Ms-Conversation-ID",
    MsPiggybackCSeq = "ms-piggyback-cseq",
    MsKeepAlive = "ms-keep-alive",
    MsUserData = "ms-user-data",
    MsEdgeProxyMessageTrust = "ms-edge-proxy-message-trust",
    MsAssertedVerificationLevel = "ms-asserted-verification-level",
    MsSplitDomainInfo = "ms-split-domain-info",
    MsSender = "Ms-Sender",
    MsSubnet = "ms-subnet",
    MsEndpointLocationData = "ms-endpoint-location-data",
    RosterManager = "Roster-Manager",
    EndPoints = "EndPoints",
    TriggeredInvite = "TriggeredInvite",
    MessageId = "Message-Id",
}

impl Name {
    /// The header of this name.
    pub fn new(name: &[u8]) -> Self {
        if let [letter] = name {
            return Self::compact(letter.to_ascii_lowercase());
        }
        let at =
            place(name).and_then(|it| PLACES.get(it)).map_or(usize::MAX, |it| usize::from(*it));
        let (Some(found), Some(text)) = (Self::ALL.get(at), Self::TEXTS.get(at)) else {
            return Self::Other;
        };
        if same(text.as_bytes(), name) { *found } else { Self::Other }
    }

    /// Its place in a table of `COUNT` places.
    pub(super) const fn place(self) -> usize {
        self as usize
    }

    /// All names, `Other` included.
    pub(super) const COUNT: usize = Self::Other as usize + 1;
}

/// Compares without case, eight octets at a time: a known name is letters and hyphens, and what differs
/// from a hyphen by the bit of case is a CR, which no token has.
fn same(known: &[u8], name: &[u8]) -> bool {
    if known.len() != name.len() {
        return false;
    }
    let eight = |a: Option<&[u8; 8]>, b: Option<&[u8; 8]>| match (a, b) {
        (Some(a), Some(b)) => u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b),
        _ => u64::MAX,
    };
    let four = |a: Option<&[u8; 4]>, b: Option<&[u8; 4]>| match (a, b) {
        (Some(a), Some(b)) => u64::from(u32::from_le_bytes(*a) ^ u32::from_le_bytes(*b)),
        _ => u64::MAX,
    };
    let ends = || {
        eight(known.first_chunk(), name.first_chunk())
            | eight(known.last_chunk(), name.last_chunk())
    };
    let differ = match name.len() {
        // Both ends, which may overlap.
        4..=7 => {
            four(known.first_chunk(), name.first_chunk())
                | four(known.last_chunk(), name.last_chunk())
        }
        8..=16 => ends(),
        17..=24 => {
            let (_, known_rest) = known.split_at_checked(8).unwrap_or_default();
            let (_, name_rest) = name.split_at_checked(8).unwrap_or_default();
            ends() | eight(known_rest.first_chunk(), name_rest.first_chunk())
        }
        _ => return known.eq_ignore_ascii_case(name),
    };
    differ & !CASES == 0
}

const CASES: u64 = u64::from_le_bytes([0x20; 8]);

/// Places of the look-up.
const SIZE: usize = 512;

/// The one place where a name could be: no two known names share one, which is checked below.
const fn place(name: &[u8]) -> Option<usize> {
    match name {
        [first, .., before, last] => Some(mixed(*first, *before, *last, name.len())),
        [first, last] => Some(mixed(*first, *first, *last, 2)),
        _ => None,
    }
}

/// Case is put aside by the bit that makes it.
const fn mixed(first: u8, before: u8, last: u8, length: usize) -> usize {
    let (first, before, last) = (first | 0x20, before | 0x20, last | 0x20);
    // Factors found by trying: with them no two of the names above meet.
    (first as usize * 88 + before as usize * 303 + last as usize * 48 + length * 408) % SIZE
}

const NOBODY: u8 = u8::MAX;

const PLACES: [u8; SIZE] = {
    let mut places = [NOBODY; SIZE];
    let mut i = 0;
    while i < Name::ALL.len() {
        #[expect(clippy::indexing_slicing, reason = "at compile time")]
        {
            let Some(place) = place(Name::ALL[i].as_str().as_bytes()) else {
                panic!("a name of one letter")
            };
            assert!(places[place] == NOBODY, "two names share a place");
            places[place] = i as u8;
        }
        i += 1;
    }
    places
};

const _: () = assert!(Name::ALL.len() < NOBODY as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for name in Name::ALL {
            let text = name.as_str();
            assert_eq!(Name::new(text.as_bytes()), *name);
            assert_eq!(Name::new(text.to_ascii_uppercase().as_bytes()), *name);
            assert_eq!(Name::new(text.to_ascii_lowercase().as_bytes()), *name);
        }
    }

    #[test]
    fn every_compact_form_is_found() {
        let forms = "vftimlcesk ouxrbajdyn";
        let names: Vec<Name> =
            forms.bytes().filter(|it| *it != b' ').map(|it| Name::new(&[it])).collect();
        assert!(!names.contains(&Name::Other), "{names:?}");
        assert_eq!(Name::new(b"V"), Name::Via);
        assert_eq!(Name::new(b"q"), Name::Other);
    }

    #[test]
    fn what_is_not_known_is_other() {
        for name in [&b""[..], b"C%6Fntact", b"Vib", b"X-Unknown", b"Cseqs"] {
            assert_eq!(Name::new(name), Name::Other);
        }
    }
}
