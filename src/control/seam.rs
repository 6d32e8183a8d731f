//! Between the store's words and SASL's: the one place that maps them.

use crate::control::store::Keys;
use crate::xmpp::sasl;

/// The stored keys as SCRAM takes them.
pub(super) fn credentials(_keys: Keys) -> sasl::Credentials {
    sasl::Credentials {}
}
