//! Where a SIP domain's edge is, as DNS says it.
//!
//! Microsoft's record `_sipfederationtls._tcp` comes first; where a rule wants it, RFC 3263, 4.1
//! follows: NAPTR records with TLS over TCP, else `_sips._tcp`. Services without TLS are never
//! looked for. That a name server fails is never taken for the domain's word, so an outage can't
//! lead to another service.

use super::Srv;

/// Which record named the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SipService {
    /// `_sipfederationtls._tcp`.
    Federation,
    /// `_sips._tcp`, or what NAPTR named in its place.
    Sips,
}

impl SipService {
    /// The SRV name to ask for `domain`, which is in A-labels.
    pub fn query(self, domain: &str) -> String {
        match self {
            Self::Federation => format!("_sipfederationtls._tcp.{domain}."),
            Self::Sips => format!("_sips._tcp.{domain}."),
        }
    }
}

/// What DNS says about a SIP domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SipFound {
    /// There are targets; [`Plan::sip`](super::Plan::sip) puts them in order.
    Records {
        service: SipService,
        records: Vec<Srv>,
        /// How long this may be believed.
        seconds: u32,
    },
    /// The domain says that it has no SIP edge (RFC 2782: target `.`).
    NotOffered,
    /// The name servers say that there is no such record, or no such domain.
    Absent,
    /// It can't be found out now: a timeout, or the name server's failure.
    Failed,
}

/// A NAPTR record (RFC 3403, 4), as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    pub order: u16,
    pub preference: u16,
    pub flags: String,
    pub services: String,
    /// Lower-case with the last dot.
    pub replacement: String,
}

/// The SRV names to ask next, best first: RFC 3263, 4.1, TLS over TCP alone.
pub fn next_service(mut records: Vec<Naptr>) -> Vec<String> {
    records.retain(|it| {
        it.flags.eq_ignore_ascii_case("s")
            && it.services.eq_ignore_ascii_case("SIPS+D2T")
            && it.replacement.len() > 1
    });
    records.sort_by_key(|it| (it.order, it.preference));
    records.into_iter().map(|it| it.replacement).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_over_tcp_is_followed_in_order() {
        let row = |order, preference, flags: &str, services: &str, to: &str| Naptr {
            order,
            preference,
            flags: flags.into(),
            services: services.into(),
            replacement: to.into(),
        };
        let records = vec![
            row(20, 1, "s", "SIPS+D2T", "late."),
            row(10, 9, "S", "sips+d2t", "second."),
            row(10, 5, "s", "SIPS+D2T", "first."),
            row(1, 1, "s", "SIP+D2T", "clear."),
            row(1, 1, "s", "SIP+D2U", "udp."),
            row(1, 1, "u", "SIPS+D2T", "uri."),
            row(1, 1, "s", "SIPS+D2T", "."),
        ];
        assert_eq!(next_service(records), ["first.", "second.", "late."]);
    }
}
