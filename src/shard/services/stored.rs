//! What users keep with us and we only hand out: contact cards and private data.
//!
//! XEP-0054, XEP-0049. Kept as they came, with a bound on size, and for private data on number. A
//! missing card and a missing user get the same answer: who asks learns nothing about accounts.

use crate::address::Address;
use crate::home::PrivateNames;
use crate::home::record::{Change, Fetch, Fetched, PRIVATE_NAMES};
use crate::limits::{
    PRIVATE_BYTES_MAX, PRIVATE_ELEMENTS_MAX, PRIVATE_NAME_BYTES_MAX, VCARD_BYTES_MAX,
};
use crate::shard::Shard;
use crate::shard::services::{Answered, Asked, Later, Reply};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::payload::stored;

const NO_CARD: &[u8] = b"<vCard xmlns='vcard-temp'/>";

/// One element of private data to be kept.
struct Put {
    name: Box<str>,
    octets: Box<[u8]>,
    later: Later,
}

impl Shard {
    /// XEP-0054, 3: everybody reads, the user writes.
    pub(super) fn vcard(&mut self, asked: &Asked<'_>) -> Answered {
        let user = asked.carry.to.without_resource().to_address();
        let own = asked.own;
        if !asked.is_set {
            let later = self.later(asked.carry)?;
            self.fetch(
                &user,
                Fetch::Vcard,
                Box::new(move |shard, found| {
                    let answer = match found {
                        Ok(Fetched::Payload(Some(card))) => Ok(card.into_vec()),
                        Ok(_) if own => Ok(NO_CARD.to_vec()),
                        Ok(_) => Err(StanzaFault::ServiceUnavailable),
                        Err(_) => Err(StanzaFault::ResourceConstraint),
                    };
                    shard.answer_later(later, answer);
                }),
            );
            return Ok(Reply::Later);
        }
        if !own {
            return Err(StanzaFault::ServiceUnavailable);
        }
        if asked.payload.len() > VCARD_BYTES_MAX {
            self.counters.stored_refused += 1;
            return Err(StanzaFault::NotAcceptable);
        }
        let card = stored::vcard(asked.payload)?.map(Box::from);
        let later = self.later(asked.carry)?;
        self.keep_for(&user, vec![Change::Vcard(card)], later);
        Ok(Reply::Later)
    }

    /// Keeps what no rule depends on; the store keeps the order.
    fn keep_for(&mut self, user: &Address, changes: Vec<Change>, later: Later) {
        self.commit_aside(
            user,
            changes,
            Box::new(move |shard, done| {
                let answer = done.map(|()| Vec::new());
                shard.answer_later(later, answer.map_err(|_| StanzaFault::ResourceConstraint));
            }),
        );
    }

    /// XEP-0049: the owner's alone.
    pub(super) fn private(&mut self, asked: &Asked<'_>) -> Answered {
        if !asked.own {
            return Err(StanzaFault::ServiceUnavailable);
        }
        let (name, element) = stored::private(asked.payload)?;
        let too_long = element.len() > PRIVATE_BYTES_MAX || name.len() > PRIVATE_NAME_BYTES_MAX;
        if too_long {
            self.counters.stored_refused += 1;
            return Err(StanzaFault::NotAcceptable);
        }
        let (name, octets) = (Box::<str>::from(name), Box::<[u8]>::from(element));
        let later = self.later(asked.carry)?;
        let user = asked.carry.to.without_resource().to_address();
        if asked.is_set {
            self.put_private(&user, Put { name, octets, later });
            return Ok(Reply::Later);
        }
        self.fetch(
            &user,
            Fetch::Private(name),
            Box::new(move |shard, found| {
                let answer = match found {
                    // XEP-0049, 2.2: what was never kept is given back as it was asked for.
                    Ok(Fetched::Payload(kept)) => Ok(query_around(&kept.unwrap_or(octets))),
                    Ok(Fetched::Messages(_)) | Err(_) => Err(StanzaFault::ResourceConstraint),
                };
                shard.answer_later(later, answer);
            }),
        );
        Ok(Reply::Later)
    }

    /// The names of what a user keeps are kept too, so that they can be counted; they are looked
    /// up with his first set.
    fn put_private(&mut self, user: &Address, put: Put) {
        let known = self.home.account(user.bare()).is_some_and(|it| it.private.is_some());
        if known {
            return self.put_counted(user, put);
        }
        let whose = user.clone();
        self.fetch(
            user,
            Fetch::Private(PRIVATE_NAMES.into()),
            Box::new(move |shard, found| {
                let Some(account) = shard.home.account_mut(whose.bare()) else {
                    return shard.answer_later(put.later, Err(StanzaFault::ResourceConstraint));
                };
                match found {
                    // What was known meanwhile is newer.
                    Ok(Fetched::Payload(_)) if account.private.is_some() => {}
                    Ok(Fetched::Payload(names)) => account.know_private(&names.unwrap_or_default()),
                    Ok(Fetched::Messages(_)) | Err(_) => {
                        let fault = StanzaFault::ResourceConstraint;
                        return shard.answer_later(put.later, Err(fault));
                    }
                }
                shard.put_counted(&whose, put);
            }),
        );
    }

    /// One after another, so that none is overlooked in the count.
    fn put_counted(&mut self, user: &Address, put: Put) {
        let (whose, later) = (user.clone(), put.later);
        let queued = self.with_record(
            user,
            Box::new(move |shard| {
                let names = shard.home.account(whose.bare()).and_then(|it| it.private.as_deref());
                let Some(PrivateNames(names)) = names else {
                    return shard.answer_later(later, Err(StanzaFault::ResourceConstraint));
                };
                let is_new = !names.contains(&put.name);
                if is_new && names.len() >= PRIVATE_ELEMENTS_MAX {
                    shard.counters.stored_refused += 1;
                    return shard.answer_later(later, Err(StanzaFault::NotAcceptable));
                }
                let change = Change::Private { name: put.name.clone(), octets: put.octets };
                if !is_new {
                    return shard.keep_for(&whose, vec![change], later);
                }
                let lines = names.iter().chain([&put.name]).map(|it| &**it);
                let list = lines.collect::<Vec<_>>().join("\n").into_bytes().into();
                let index = Change::Private { name: PRIVATE_NAMES.into(), octets: list };
                shard.commit(
                    &whose,
                    None,
                    vec![change, index],
                    Box::new(move |shard, done| {
                        let answer = done.map(|()| Vec::new());
                        let answer = answer.map_err(|_| StanzaFault::ResourceConstraint);
                        shard.answer_later(later, answer);
                    }),
                );
            }),
        );
        if !queued {
            self.answer_later(later, Err(StanzaFault::ResourceConstraint));
        }
    }
}

fn query_around(element: &[u8]) -> Vec<u8> {
    [b"<query xmlns='jabber:iq:private'>".as_slice(), element, b"</query>"].concat()
}
