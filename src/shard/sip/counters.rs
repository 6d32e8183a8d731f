//! What a shard counts of SIP, each with its metric name; see `shard/counters.rs`.

macro_rules! counters {
    ($($field:ident: $name:literal,)*) => {
        /// Since the process started.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct SipCounters {
            $(pub(crate) $field: u64,)*
        }

        impl SipCounters {
            pub(crate) fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($name, self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    requests_home: "tandem_sip_requests_total",
    dialogs_full: "tandem_sip_dialogs_full_total",
    dialog_unknown: "tandem_sip_dialog_unknown_total",
    user_unknown: "tandem_sip_user_unknown_total",
    restoring_full: "tandem_sip_restoring_full_total",
}
