//! The contacts that see a user's presence, by where they are.

use crate::address::Address;

/// All that hear of a user's presence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Differs each time somebody joins or leaves.
    pub version: u64,
    /// One for each shard that has watchers, by number.
    pub shares: Vec<Share>,
    /// Contacts in other domains, bare.
    pub foreign: Vec<Address>,
}

/// The watchers that are at home on one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub shard: u16,
    /// The shard has been told who they are.
    pub told: bool,
    /// Bare addresses.
    pub watchers: Vec<Box<str>>,
}

impl Audience {
    /// Deals `contacts`, which are bare, to shards; `shard_of` says `None` for another domain.
    pub fn new<'a>(
        version: u64,
        contacts: impl Iterator<Item = &'a Address>,
        shard_of: impl Fn(&Address) -> Option<u16>,
    ) -> Self {
        let mut audience = Self { version, shares: Vec::new(), foreign: Vec::new() };
        for contact in contacts {
            let Some(shard) = shard_of(contact) else {
                audience.foreign.push(contact.clone());
                continue;
            };
            let at = match audience.shares.binary_search_by_key(&shard, |it| it.shard) {
                Ok(at) => at,
                Err(at) => {
                    audience.shares.insert(at, Share { shard, told: false, watchers: Vec::new() });
                    at
                }
            };
            if let Some(share) = audience.shares.get_mut(at) {
                share.watchers.push(contact.full().into());
            }
        }
        audience
    }

    /// Nobody hears of it: it need not be kept, since it is made anew in no time.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty() && self.foreign.is_empty()
    }

    /// The share of a shard.
    pub fn share_mut(&mut self, shard: u16) -> Option<&mut Share> {
        self.shares.iter_mut().find(|it| it.shard == shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchers_are_dealt_to_their_shards() {
        let contacts: Vec<_> = ["a0@x.example", "b1@x.example", "c@far.example", "d0@x.example"]
            .iter()
            .map(|it| Address::parse(it).unwrap())
            .collect();
        let shard_of = |it: &Address| match it.local() {
            Some(local) if it.domain() == "x.example" => Some(u16::from(local.ends_with('1'))),
            _ => None,
        };
        let mut audience = Audience::new(7, contacts.iter(), shard_of);
        assert_eq!(audience.foreign, [Address::parse("c@far.example").unwrap()]);
        let names = |share: &Share| share.watchers.join(" ");
        assert_eq!(
            audience.share_mut(0).map(|it| names(it)),
            Some("a0@x.example d0@x.example".into())
        );
        assert_eq!(audience.share_mut(1).map(|it| names(it)), Some("b1@x.example".into()));
        assert!(audience.share_mut(2).is_none());
    }
}
