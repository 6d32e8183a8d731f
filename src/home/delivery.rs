//! Who gets a stanza for a local user: RFC 6121, 8.5 as code, checked against its table.
//!
//! Where the RFC leaves a choice: an error instead of silence, storing instead of an error, and the
//! resources with the highest priority instead of all. Whether a message is worth storing is
//! `storing`'s to say; what becomes of subscriptions and probes is `subscription`'s. Blocking is
//! **not** looked at: that comes first.
//!
//! Table: `delivery.table`.

use crate::address::AddressRef;
use crate::envelope::{Kind, Purpose};
use crate::home::{Home, Resource};
use crate::xmpp::fault::StanzaFault;

/// What becomes of a stanza for a local user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery<K> {
    /// The connections that get it.
    To(Receivers<K>),
    /// The sender is told.
    Refused(StanzaFault),
    /// The RFC orders silence.
    Discarded,
    /// The server answers on the user's behalf (RFC 6121, 8.5.1).
    Server,
    /// It waits for the user, if it may and there is room; or else `service-unavailable`.
    Store,
    /// RFC 6121, 3: as if sent to the bare address.
    Subscription,
    /// RFC 6121, 4.3.2; with a resource in the address: of that resource only.
    Probe,
}

/// One receiver in nearly every case, so no allocation for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receivers<K> {
    One(K),
    Several(Vec<K>),
}

impl<K: Copy + PartialEq> Home<K> {
    /// Who gets a stanza of this kind and purpose for `to`, which has a local part here.
    ///
    /// `account`: there is such an account. `shares_presence`: the user's presence is there for the
    /// sender to see, or the sender is the user himself; asked only where it matters.
    #[inline]
    pub fn deliver(
        &self,
        to: AddressRef<'_>,
        kind: Kind,
        purpose: Purpose,
        account: bool,
        shares_presence: impl Fn() -> bool,
    ) -> Delivery<K> {
        if !account {
            return Self::nobody(kind, purpose);
        }
        if to.resource().is_some() {
            if let Some(resource) = self.find(to) {
                return Self::exact(resource, kind, purpose, shares_presence);
            }
            return self.unmatched(to, kind, purpose);
        }
        match kind {
            Kind::Message => self.message_to_bare(to, purpose),
            Kind::Presence => self.presence_to_bare(to, purpose),
            Kind::Iq => match purpose {
                // RFC 6121, 8.5.2.1.3: the server answers, or says that it can't.
                Purpose::Get | Purpose::Set => Delivery::Server,
                _ => Delivery::Discarded,
            },
        }
    }

    /// RFC 6121, 8.5.1: no such account. To a stranger it looks like a user who is away.
    fn nobody(kind: Kind, purpose: Purpose) -> Delivery<K> {
        match (kind, purpose) {
            (Kind::Presence, Purpose::Probe) => Delivery::Probe,
            (Kind::Presence, _) | (_, Purpose::Error | Purpose::Result) => Delivery::Discarded,
            (Kind::Message | Kind::Iq, _) => Delivery::Refused(StanzaFault::ServiceUnavailable),
        }
    }

    /// RFC 6121, 8.5.3.1: the full address matches a connected resource.
    #[inline]
    fn exact(
        resource: &Resource<K>,
        kind: Kind,
        purpose: Purpose,
        shares_presence: impl Fn() -> bool,
    ) -> Delivery<K> {
        match (kind, purpose) {
            // RFC 6121, 3.1.3: subscriptions are dealt with as if sent to the bare address.
            (Kind::Presence, p) if p.is_subscription() => Delivery::Subscription,
            (Kind::Presence, Purpose::Probe) => Delivery::Probe,
            // RFC 6121, 8.5.3.1: a client tells of itself only to those who may know that it is there.
            (Kind::Iq, Purpose::Get | Purpose::Set) if !shares_presence() => {
                Delivery::Refused(StanzaFault::ServiceUnavailable)
            }
            _ => Delivery::To(Receivers::One(resource.key)),
        }
    }

    /// RFC 6121, 8.5.3.2: no such resource.
    fn unmatched(&self, to: AddressRef<'_>, kind: Kind, purpose: Purpose) -> Delivery<K> {
        match (kind, purpose) {
            // A chat goes on as if it had been sent to the bare address.
            (Kind::Message, Purpose::Chat) => self.message_to_bare(to, purpose),
            (Kind::Message, Purpose::Error) => Delivery::Discarded,
            (Kind::Message, _) => Delivery::Refused(StanzaFault::ServiceUnavailable),
            (Kind::Presence, p) if p.is_subscription() => Delivery::Subscription,
            (Kind::Presence, Purpose::Probe) => Delivery::Probe,
            (Kind::Presence, _) => Delivery::Discarded,
            (Kind::Iq, Purpose::Get | Purpose::Set) => {
                Delivery::Refused(StanzaFault::ServiceUnavailable)
            }
            (Kind::Iq, _) => Delivery::Discarded,
        }
    }

    /// RFC 6121, 8.5.2.1.1 and 8.5.2.2.1.
    fn message_to_bare(&self, to: AddressRef<'_>, purpose: Purpose) -> Delivery<K> {
        if purpose == Purpose::Error {
            return Delivery::Discarded;
        }
        if purpose == Purpose::Groupchat {
            return Delivery::Refused(StanzaFault::ServiceUnavailable);
        }
        let all = self.resources(to.bare());
        let priority =
            |r: &Resource<K>| r.available.as_ref().map(|a| a.priority).filter(|p| *p >= 0);
        let Some(highest) = all.iter().filter_map(priority).max() else {
            return match purpose {
                Purpose::Headline => Delivery::Discarded,
                _ => Delivery::Store,
            };
        };
        // Headlines go to all that want messages, the rest to the most available.
        let least = if purpose == Purpose::Headline { 0 } else { highest };
        receivers(all.iter().filter(|r| priority(r).is_some_and(|p| p >= least)))
    }

    /// RFC 6121, 8.5.2.1.2.
    fn presence_to_bare(&self, to: AddressRef<'_>, purpose: Purpose) -> Delivery<K> {
        match purpose {
            // An error is about a request that was sent from the bare address.
            Purpose::Available | Purpose::Unavailable | Purpose::Error => {
                receivers(self.resources(to.bare()).iter().filter(|r| r.available.is_some()))
            }
            Purpose::Probe => Delivery::Probe,
            p if p.is_subscription() => Delivery::Subscription,
            _ => Delivery::Discarded,
        }
    }
}

fn receivers<'a, K: Copy + 'a>(chosen: impl Iterator<Item = &'a Resource<K>>) -> Delivery<K> {
    let mut chosen = chosen.map(|r| r.key);
    match (chosen.next(), chosen.next()) {
        (None, _) => Delivery::Discarded,
        (Some(one), None) => Delivery::To(Receivers::One(one)),
        (Some(one), Some(two)) => {
            Delivery::To(Receivers::Several([one, two].into_iter().chain(chosen).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::home::Available;

    /// Resources as `name:priority`; without a priority it is connected only.
    fn home(resources: &[(&str, Option<i8>)]) -> Home<u32> {
        let mut home = Home::new(7);
        for (key, (name, priority)) in (0_u32..).zip(resources) {
            home.bind("romeo@example.net", name, key).unwrap();
            home.resource_mut("romeo@example.net", key).unwrap().available =
                priority.map(|priority| Available { priority, stanza: Box::default() });
        }
        home
    }

    fn row(
        (home, account): (&Home<u32>, bool),
        to: &str,
        kind: Kind,
        purpose: Purpose,
        shares_presence: bool,
    ) -> String {
        let to = Address::parse(to).unwrap();
        match home.deliver(to.view(), kind, purpose, account, || shares_presence) {
            Delivery::To(Receivers::One(k)) => format!("to {k}"),
            Delivery::To(Receivers::Several(all)) => format!("to {all:?}"),
            Delivery::Refused(fault) => fault.name().to_owned(),
            Delivery::Discarded => "silence".to_owned(),
            Delivery::Server => "server".to_owned(),
            Delivery::Store => "store".to_owned(),
            Delivery::Subscription => "subscription".to_owned(),
            Delivery::Probe => "probe".to_owned(),
        }
    }

    /// Table: `delivery.table`.
    #[test]
    fn the_table_of_rfc_6121_section_8_5() {
        use Purpose::{
            Available, Chat, Error, Get, Groupchat, Headline, Normal, Probe, Result, Set,
            Subscribe, Subscribed, Unavailable, Unsubscribe, Unsubscribed,
        };
        type Bound = (&'static str, Option<i8>);
        let worlds: [(&str, &[Bound]); 6] = [
            ("no account", &[]),
            ("nobody", &[]),
            ("connected only", &[("a", None)]),
            ("negative", &[("a", Some(-1))]),
            ("one", &[("a", Some(0))]),
            ("several", &[("a", Some(5)), ("b", Some(5)), ("c", Some(1)), ("d", Some(-1))]),
        ];
        let stanzas = [
            (Kind::Message, &[Normal, Chat, Groupchat, Headline, Error][..]),
            (
                Kind::Presence,
                &[
                    Available,
                    Unavailable,
                    Probe,
                    Subscribe,
                    Subscribed,
                    Unsubscribe,
                    Unsubscribed,
                    Error,
                ],
            ),
            (Kind::Iq, &[Get, Set, Result, Error]),
        ];
        let mut table = String::new();
        for (world, resources) in worlds {
            let account = world != "no account";
            let home = home(resources);
            for to in ["romeo@example.net", "romeo@example.net/a", "romeo@example.net/gone"] {
                for (kind, purposes) in stanzas {
                    for purpose in purposes {
                        let row = |shares| row((&home, account), to, kind, *purpose, shares);
                        let (result, stranger) = (row(true), row(false));
                        let kind = kind.name();
                        table += &format!("{world:<15} {to:<24} {kind:<9} {purpose:?} -> {result}");
                        if stranger != result {
                            table += &format!(", for strangers {stranger}");
                        }
                        table += "\n";
                    }
                }
            }
        }
        crate::stdx::table::check(
            "src/home/delivery.table",
            &table,
            include_str!("delivery.table"),
        );
    }

    #[test]
    fn a_name_bound_twice_replaces_the_first() {
        let mut home = home(&[("a", Some(0))]);
        let old = home.bind("romeo@example.net", "a", 9).unwrap().unwrap();
        assert_eq!(old.key, 0);
        assert!(home.unbind("romeo@example.net", 0).is_none(), "it is somebody else's now");
        assert!(home.unbind("romeo@example.net", 9).is_some());
        assert_eq!(home.online(), 0);
    }
}
