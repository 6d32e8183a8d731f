//! The errors of XMPP by the names that go on the wire.
//!
//! A stream error (RFC 6120, 4.9.3) ends the stream, a stanza error (RFC 6120, 8.3.3) answers one
//! stanza. Each has a name for the wire and an index for the counter that counts it.
//! What is done about one is **not** decided here.

macro_rules! faults {
    ($(#[$doc:meta])* $type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $type {
            $(#[doc = concat!("`", $name, "`.")] $variant),+
        }

        impl $type {
            /// All of them, in the order of `index`.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name on the wire, and in counters.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// The place in `ALL`.
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The condition that has this name on the wire.
            pub fn from_name(name: &[u8]) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.name().as_bytes() == name)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

faults! {
    /// Why a stream ends (RFC 6120, 4.9.3).
    StreamFault {
        BadFormat = "bad-format",
        BadNamespacePrefix = "bad-namespace-prefix",
        Conflict = "conflict",
        ConnectionTimeout = "connection-timeout",
        HostGone = "host-gone",
        HostUnknown = "host-unknown",
        ImproperAddressing = "improper-addressing",
        InternalServerError = "internal-server-error",
        InvalidFrom = "invalid-from",
        InvalidNamespace = "invalid-namespace",
        InvalidXml = "invalid-xml",
        NotAuthorized = "not-authorized",
        NotWellFormed = "not-well-formed",
        PolicyViolation = "policy-violation",
        RemoteConnectionFailed = "remote-connection-failed",
        Reset = "reset",
        ResourceConstraint = "resource-constraint",
        RestrictedXml = "restricted-xml",
        SeeOtherHost = "see-other-host",
        SystemShutdown = "system-shutdown",
        UndefinedCondition = "undefined-condition",
        UnsupportedEncoding = "unsupported-encoding",
        UnsupportedFeature = "unsupported-feature",
        UnsupportedStanzaType = "unsupported-stanza-type",
        UnsupportedVersion = "unsupported-version",
    }
}

faults! {
    /// Why a stanza is answered with an error (RFC 6120, 8.3.3).
    StanzaFault {
        BadRequest = "bad-request",
        Conflict = "conflict",
        FeatureNotImplemented = "feature-not-implemented",
        Forbidden = "forbidden",
        Gone = "gone",
        InternalServerError = "internal-server-error",
        ItemNotFound = "item-not-found",
        JidMalformed = "jid-malformed",
        NotAcceptable = "not-acceptable",
        NotAllowed = "not-allowed",
        NotAuthorized = "not-authorized",
        PolicyViolation = "policy-violation",
        RecipientUnavailable = "recipient-unavailable",
        Redirect = "redirect",
        RegistrationRequired = "registration-required",
        RemoteServerNotFound = "remote-server-not-found",
        RemoteServerTimeout = "remote-server-timeout",
        ResourceConstraint = "resource-constraint",
        ServiceUnavailable = "service-unavailable",
        SubscriptionRequired = "subscription-required",
        UndefinedCondition = "undefined-condition",
        UnexpectedRequest = "unexpected-request",
    }
}

/// What the sender of a stanza may do after an error (RFC 6120, 8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultType {
    /// Try again with credentials.
    Auth,
    /// Give up.
    Cancel,
    /// Send something else.
    Modify,
    /// Try again later.
    Wait,
}

impl FaultType {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Cancel => "cancel",
            Self::Modify => "modify",
            Self::Wait => "wait",
        }
    }
}

impl StanzaFault {
    /// The type that RFC 6120, 8.3.3 names for the condition.
    pub const fn fault_type(self) -> FaultType {
        match self {
            Self::Forbidden
            | Self::NotAuthorized
            | Self::RegistrationRequired
            | Self::SubscriptionRequired => FaultType::Auth,
            Self::BadRequest
            | Self::JidMalformed
            | Self::NotAcceptable
            | Self::PolicyViolation
            | Self::Redirect => FaultType::Modify,
            Self::RecipientUnavailable
            | Self::RemoteServerTimeout
            | Self::ResourceConstraint
            | Self::UnexpectedRequest => FaultType::Wait,
            Self::Conflict
            | Self::FeatureNotImplemented
            | Self::Gone
            | Self::InternalServerError
            | Self::ItemNotFound
            | Self::NotAllowed
            | Self::RemoteServerNotFound
            | Self::ServiceUnavailable
            | Self::UndefinedCondition => FaultType::Cancel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{StanzaFault, StreamFault};

    #[test]
    fn index_is_the_place_in_all() {
        for (i, fault) in StreamFault::ALL.iter().enumerate() {
            assert_eq!(fault.index(), i);
            assert_eq!(StreamFault::from_name(fault.name().as_bytes()), Some(*fault));
        }
        for (i, fault) in StanzaFault::ALL.iter().enumerate() {
            assert_eq!(fault.index(), i);
            assert_eq!(StanzaFault::from_name(fault.name().as_bytes()), Some(*fault));
        }
    }
}
