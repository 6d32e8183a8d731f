//! Between the store's and the resolver's words and the wires': the one place that maps them.

use crate::control::resolver::Found;
use crate::control::store::Keys;
use crate::dns;
use crate::xmpp::sasl;

/// The stored keys as SCRAM takes them.
pub(super) fn credentials(_keys: Keys) -> sasl::Credentials {
    sasl::Credentials {}
}

/// What was found in DNS, or the reason why nothing was.
pub(super) fn records(_found: Found) -> Result<dns::Records, dns::LookupFault> {
    Ok(dns::Records {})
}

/// Too many domains are being looked up already.
pub(super) fn lookup_overload() -> dns::LookupFault {
    dns::LookupFault {}
}
