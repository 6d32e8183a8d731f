//! Whom a user has blocked, allowed or politely denied.
//!
//! XEP-0191 for blocking; the list of those who may see the user without being asked about is ours,
//! and so is that of those who were told *yes* and meant *no* (`subscription`). Users without rules,
//! nearly all, pay one test of a null pointer. A rule for a domain does **not** reach its subdomains:
//! nothing matches by suffix.

use crate::address::{Address, AddressRef};
use crate::home::record::{Change, List};
use crate::limits::RULES_MAX;
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::payload::blocking::Blocking;

/// The rules of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privacy {
    lists: Option<Box<[Vec<Address>; 3]>>,
}

/// How a user stands to somebody who sends him something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing of him arrives, nothing goes to him (XEP-0191, 3.3).
    Blocked,
    /// He sees an offline user.
    Denied,
    /// He may subscribe without asking.
    Allowed,
    /// No rule speaks of him.
    Unruled,
}

/// What a change of the block list comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// To be committed together.
    pub changes: Vec<Change>,
    /// What was not blocked and is now, or the reverse: contacts that they cover see the user go or
    /// come.
    pub addresses: Vec<Address>,
}

impl Privacy {
    /// From what the store had.
    pub fn new(rules: Vec<(List, Address)>) -> Self {
        let mut privacy = Self::default();
        for (list, rule) in rules {
            privacy.add(list, rule);
        }
        privacy
    }

    /// There is no rule.
    pub fn is_empty(&self) -> bool {
        self.lists.is_none()
    }

    /// What the rules say of `who`.
    #[inline]
    pub fn verdict(&self, who: AddressRef<'_>) -> Verdict {
        if self.is_empty() { Verdict::Unruled } else { self.ruled(who) }
    }

    fn ruled(&self, who: AddressRef<'_>) -> Verdict {
        if covered(self.list(List::Blocked), who) {
            Verdict::Blocked
        } else if covered(self.list(List::Denied), who) {
            Verdict::Denied
        } else if covered(self.list(List::Allowed), who) {
            Verdict::Allowed
        } else {
            Verdict::Unruled
        }
    }

    /// `who` is blocked.
    #[inline]
    pub fn is_blocked(&self, who: AddressRef<'_>) -> bool {
        !self.is_empty() && covered(self.list(List::Blocked), who)
    }

    /// The contact, bare, must not be told of the user's presence: he is blocked, or one of his
    /// devices is. Presence goes to the contact, not to a device, so the others hear nothing either.
    pub fn hides_from(&self, contact: AddressRef<'_>) -> bool {
        let device = |rule: &Address| rule.local().is_some() && rule.bare() == contact.bare();
        !self.is_empty()
            && (self.is_blocked(contact) || self.list(List::Blocked).iter().any(device))
    }

    /// `who` may subscribe without asking, unless it is blocked.
    pub fn is_allowed(&self, who: AddressRef<'_>) -> bool {
        !self.is_empty() && covered(self.list(List::Allowed), who)
    }

    /// `who` was denied politely.
    pub fn is_denied(&self, who: AddressRef<'_>) -> bool {
        !self.is_empty() && covered(self.list(List::Denied), who)
    }

    /// Sorted.
    pub fn list(&self, list: List) -> &[Address] {
        self.lists.as_ref().map_or(&[], |lists| lists[list as usize].as_slice())
    }

    /// False: it was there already.
    pub fn add(&mut self, list: List, rule: Address) -> bool {
        let lists = self.lists.get_or_insert_default();
        let list = &mut lists[list as usize];
        list.binary_search(&rule).is_err_and(|at| {
            list.insert(at, rule);
            true
        })
    }

    /// False: it was not there.
    pub fn remove(&mut self, list: List, rule: &Address) -> bool {
        let Some(lists) = self.lists.as_mut() else { return false };
        let list = &mut lists[list as usize];
        let found = list.binary_search(rule).is_ok_and(|at| {
            list.remove(at);
            true
        });
        if lists.iter().all(Vec::is_empty) {
            self.lists = None;
        }
        found
    }

    /// What a block or unblock of the user's comes to (XEP-0191, 3.3 to 3.5). A mere get: nothing.
    pub fn edit(&self, blocking: Blocking) -> Result<Blocks, StanzaFault> {
        let blocked = self.list(List::Blocked);
        let parse = |jids: Vec<String>| {
            let parse = |jid: &String| Address::parse(jid).map_err(|_| StanzaFault::JidMalformed);
            let mut addresses = jids.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            addresses.sort_unstable();
            addresses.dedup();
            Ok::<_, StanzaFault>(addresses)
        };
        let (block, addresses) = match blocking {
            Blocking::List => return Ok(Blocks::default()),
            Blocking::UnblockAll => (false, blocked.to_vec()),
            Blocking::Block(jids) => (true, parse(jids)?),
            Blocking::Unblock(jids) => (false, parse(jids)?),
        };
        let is_new = |it: &Address| block != blocked.binary_search(it).is_ok();
        let addresses: Vec<Address> = addresses.into_iter().filter(is_new).collect();
        if block && blocked.len() + addresses.len() > RULES_MAX {
            return Err(StanzaFault::ResourceConstraint);
        }
        let change = |it: &Address| match block {
            true => Change::AddRule(List::Blocked, it.clone()),
            false => Change::RemoveRule(List::Blocked, it.clone()),
        };
        Ok(Blocks { changes: addresses.iter().map(change).collect(), addresses })
    }
}

/// Whether one of the rules, which are sorted, covers `who` (XEP-0191, 2): the address itself, the
/// user with all his resources, the domain with all that is under its name.
fn covered(rules: &[Address], who: AddressRef<'_>) -> bool {
    let has = |text: &str| rules.binary_search_by(|it| it.full().cmp(text)).is_ok();
    !rules.is_empty() && (has(who.bare()) || has(who.domain()) || has(who.full()))
}

/// Whether a rule covers `who`.
pub fn covers(rule: &Address, who: AddressRef<'_>) -> bool {
    covered(std::slice::from_ref(rule), who)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn rules_cover_what_xep_0191_section_2_says() {
        let cases = [
            // Rule; whom it covers; whom not.
            ("a@b/c", &["a@b/c"][..], &["a@b", "a@b/d", "b/c", "b"][..]),
            ("a@b", &["a@b", "a@b/c"], &["aa@b", "b", "b/c", "a@sub.b"]),
            ("b/c", &["b/c"], &["b", "a@b/c", "b/d"]),
            ("b", &["b", "b/c", "a@b", "a@b/c"], &["sub.b", "a@sub.b", "bb"]),
        ];
        for (rule, yes, no) in cases {
            let privacy = Privacy::new(vec![
                (List::Blocked, address("0@a.a")),
                (List::Blocked, address(rule)),
                (List::Blocked, address("z@zz")),
            ]);
            for who in yes {
                assert!(privacy.is_blocked(address(who).view()), "{rule} {who}");
                assert!(covers(&address(rule), address(who).view()));
            }
            for who in no {
                assert!(!privacy.is_blocked(address(who).view()), "{rule} {who}");
            }
        }
    }

    #[test]
    fn the_stronger_list_decides() {
        let mut privacy = Privacy::default();
        let who = address("a@b/c");
        let mut verdicts = vec![privacy.verdict(who.view())];
        for (list, rule) in [(List::Allowed, "b"), (List::Denied, "a@b"), (List::Blocked, "a@b/c")]
        {
            privacy.add(list, address(rule));
            verdicts.push(privacy.verdict(who.view()));
        }
        use Verdict::{Allowed, Blocked, Denied, Unruled};
        assert_eq!(verdicts, [Unruled, Allowed, Denied, Blocked]);
        assert_eq!(privacy.verdict(address("x@y").view()), Unruled);
    }

    fn edit(privacy: &mut Privacy, blocking: Blocking) -> Result<Vec<String>, StanzaFault> {
        let blocks = privacy.edit(blocking)?;
        for change in blocks.changes {
            match change {
                Change::AddRule(list, rule) => assert!(privacy.add(list, rule)),
                Change::RemoveRule(list, rule) => assert!(privacy.remove(list, &rule)),
                other => panic!("{other:?} is no rule"),
            }
        }
        Ok(blocks.addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_what_is_new_is_blocked_or_unblocked() {
        let mut privacy = Privacy::default();
        let jids = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let block = |all: &[&str]| Blocking::Block(jids(all));
        assert_eq!(edit(&mut privacy, block(&["b", "A@b", "a@B"])).unwrap(), ["a@b", "b"]);
        assert_eq!(edit(&mut privacy, block(&["b", "c"])).unwrap(), ["c"]);
        let unblock = Blocking::Unblock(jids(&["b", "x"]));
        assert_eq!(edit(&mut privacy, unblock).unwrap(), ["b"]);
        assert_eq!(edit(&mut privacy, block(&["@"])), Err(StanzaFault::JidMalformed));
        assert_eq!(edit(&mut privacy, Blocking::UnblockAll).unwrap(), ["a@b", "c"]);
        assert!(privacy.is_empty());
        let many: Vec<String> = (0..RULES_MAX).map(|i| format!("{i}.x")).collect();
        edit(&mut privacy, Blocking::Block(many)).unwrap();
        assert_eq!(edit(&mut privacy, block(&["c"])), Err(StanzaFault::ResourceConstraint));
        assert_eq!(edit(&mut privacy, block(&["1.x"])).unwrap(), [""; 0]);
    }
}
