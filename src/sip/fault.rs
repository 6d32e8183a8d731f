//! What is wrong with a message, as the answer that says so (RFC 3261, 21).
//!
//! A fault of a request becomes a response; a malformed response is dropped and counted, so its fault
//! is **never** told to anybody (RFC 3261, 18.1.2).

use std::borrow::Cow;

/// A refusal: the status, its phrase, and the headers that this status asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// 400 to 699.
    pub status: u16,
    /// The phrase; for 400 it says what is wrong.
    pub reason: &'static str,
    /// Headers of the answer: Accept, Allow, Unsupported, Min-Expires, Warning and the like.
    pub extra: Vec<(&'static str, Cow<'static, str>)>,
}

impl Fault {
    /// The status with its usual phrase.
    pub const fn new(status: u16) -> Self {
        Self::saying(status, reason(status))
    }

    /// 400, with a phrase that says what is wrong (RFC 3261, 21.4.1).
    pub const fn bad(reason: &'static str) -> Self {
        Self::saying(400, reason)
    }

    /// The status with a phrase of its own.
    pub const fn saying(status: u16, reason: &'static str) -> Self {
        Self { status, reason, extra: Vec::new() }
    }

    /// With one more header in the answer.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.extra.push((name, value.into()));
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status, self.reason)
    }
}

/// The usual phrase of a status (RFC 3261, 21; RFC 6665, 7.3; the others name theirs).
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification", // RFC 5839, 7.1
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed", // RFC 3903, 11.2.1
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small", // RFC 4028, 6
        423 => "Interval Too Brief",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        _ => match status / 100 {
            1 => "Progress",
            2 => "Success",
            3 => "Redirection",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}
