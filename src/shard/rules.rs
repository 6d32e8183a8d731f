//! The one way by which a user's lists of blocked, allowed and denied change.
//!
//! The client's block list (XEP-0191), the ad-hoc command, pre-approval and `tandem ctl` all end in
//! [`Shard::change_rules`]: what is wanted is checked against the lists as they are when nothing of
//! the user is under way, committed, and told. What a rule does to stanzas is in `blocking.rs` and
//! in the subscriptions; whom it covers is `home::privacy`'s.

use std::cell::Cell;
use std::rc::Rc;

use crate::address::Address;
use crate::home::privacy::Privacy;
use crate::home::record::{Change, List};
use crate::limits::{RULES_BYTES_MAX, RULES_MAX};
use crate::shard::kernel::{Question, Ticket};
use crate::shard::{Request, Shard};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::payload::blocking::Blocking;

/// What follows a change of rules: after the pushes, before any presence.
pub(super) type RulesDone = Box<dyn FnOnce(&mut Shard, Result<(), RuleFault>)>;

/// A person or domain is put on a list or taken off it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleChange {
    pub(super) list: List,
    pub(super) rule: Address,
    pub(super) add: bool,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) enum RuleEdit {
    /// Earlier ones first.
    Rules(Vec<RuleChange>),
    /// XEP-0191.
    Blocking(Blocking),
}

/// Why rules stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleFault {
    NoAccount,
    Malformed,
    /// A user can't be on his own lists.
    Oneself,
    /// One device can be blocked, but not allowed or denied.
    OneDevice,
    /// Too many rules, or too long ones.
    Full,
    /// The store can't be had now.
    Unavailable,
}

impl RuleFault {
    /// For an operator.
    fn reason(self) -> &'static str {
        match self {
            Self::NoAccount => "there is no such account",
            Self::Malformed => "the rule is no address",
            Self::Oneself => "the rule is the user's own address",
            Self::OneDevice => "the rule has a resource, which only blocking knows",
            Self::Full => "the list is full",
            Self::Unavailable => "the store can't be asked now",
        }
    }
}

impl From<RuleFault> for StanzaFault {
    fn from(fault: RuleFault) -> Self {
        match fault {
            RuleFault::NoAccount => Self::ServiceUnavailable,
            RuleFault::Malformed => Self::JidMalformed,
            RuleFault::Oneself | RuleFault::OneDevice => Self::NotAcceptable,
            RuleFault::Full | RuleFault::Unavailable => Self::ResourceConstraint,
        }
    }
}

impl Shard {
    /// Puts `rule` on a list of the user or takes it off. He is one of this shard's.
    pub(super) fn change_rule(
        &mut self,
        user: &Address,
        list: List,
        rule: Address,
        add: bool,
        after: RulesDone,
    ) {
        self.change_rules(user, vec![RuleChange { list, rule, add }], after);
    }

    /// All or none of these.
    pub(super) fn change_rules(
        &mut self,
        user: &Address,
        changes: Vec<RuleChange>,
        after: RulesDone,
    ) {
        self.edit_rules(user, RuleEdit::Rules(changes), after);
    }

    /// Waits until nothing of the user is under way, and changes his lists.
    pub(super) fn edit_rules(&mut self, user: &Address, edit: RuleEdit, after: RulesDone) {
        // If the gate is full the work is gone, but somebody still waits for a word.
        let after = Rc::new(Cell::new(Some(after)));
        let (whose, held) = (user.to_bare(), Rc::clone(&after));
        let work = move |shard: &mut Self| {
            if let Some(after) = held.take() {
                shard.edit_rules_now(&whose, edit, after);
            }
        };
        if !self.with_record(user, Box::new(work))
            && let Some(after) = after.take()
        {
            self.counters.rules_refused += 1;
            after(self, Err(RuleFault::Unavailable));
        }
    }

    fn edit_rules_now(&mut self, user: &Address, edit: RuleEdit, after: RulesDone) {
        let changes = match self.home.account(user.bare()) {
            None => Err(RuleFault::NoAccount),
            Some(account) => changes_of(user, &account.privacy, edit),
        };
        let changes = match changes {
            Ok(changes) => changes,
            Err(fault) => {
                self.counters.rules_refused += 1;
                return after(self, Err(fault));
            }
        };
        if changes.is_empty() {
            return after(self, Ok(()));
        }
        let (whose, done) = (user.clone(), changes.clone());
        self.commit(
            user,
            None,
            changes,
            Box::new(move |shard, committed| {
                if committed.is_err() {
                    return after(shard, Err(RuleFault::Unavailable));
                }
                let blocked = rules_of(&done, true);
                let unblocked = rules_of(&done, false);
                shard.blocks_changed(&whose, &blocked, &unblocked);
                after(shard, Ok(()));
                shard.show_blocks(&whose, &blocked, &unblocked);
                shard.watched_rules(&whose);
            }),
        );
    }

    /// An operator's change (`Order::Rule`).
    pub(super) fn rule_ordered(
        &mut self,
        ticket: Ticket,
        user: &Address,
        list: List,
        rule: Address,
        add: bool,
    ) {
        let after = move |shard: &mut Self, done: Result<(), RuleFault>| {
            let done = done.map_err(RuleFault::reason);
            shard.requests.push(Request::Ask(Question::Done { ticket, done }));
        };
        self.change_rule(user, list, rule, add, Box::new(after));
    }
}

/// What an edit comes to, or why it may not be.
fn changes_of(user: &Address, privacy: &Privacy, edit: RuleEdit) -> Result<Vec<Change>, RuleFault> {
    let mut then = privacy.clone();
    let mut changes = Vec::new();
    match edit {
        RuleEdit::Blocking(blocking) => {
            let blocks = privacy.edit(blocking).map_err(|fault| match fault {
                StanzaFault::ResourceConstraint => RuleFault::Full,
                _ => RuleFault::Malformed,
            })?;
            changes = blocks.changes;
        }
        RuleEdit::Rules(wanted) => {
            for RuleChange { list, rule, add } in wanted {
                if list != List::Blocked && !rule.view().is_bare() {
                    return Err(RuleFault::OneDevice);
                }
                // Who is allowed is denied no longer, and the reverse.
                let other = match list {
                    List::Allowed => Some(List::Denied),
                    List::Denied => Some(List::Allowed),
                    List::Blocked => None,
                };
                if let (true, Some(other)) = (add, other)
                    && then.remove(other, &rule)
                {
                    changes.push(Change::RemoveRule(other, rule.clone()));
                }
                if add && then.add(list, rule.clone()) {
                    changes.push(Change::AddRule(list, rule));
                } else if !add && then.remove(list, &rule) {
                    changes.push(Change::RemoveRule(list, rule));
                }
            }
        }
    }
    let mut more = [false; List::ALL.len()];
    for change in &changes {
        if let Change::AddRule(list, rule) = change {
            if rule.bare() == user.bare() {
                return Err(RuleFault::Oneself);
            }
            then.add(*list, rule.clone());
            more[*list as usize] = true;
        }
    }
    for list in List::ALL.into_iter().filter(|list| more[*list as usize]) {
        let rules = then.list(list);
        let octets: usize = rules.iter().map(|it| it.full().len()).sum();
        if rules.len() > RULES_MAX || octets > RULES_BYTES_MAX {
            return Err(RuleFault::Full);
        }
    }
    Ok(changes)
}

/// What was blocked, or unblocked.
fn rules_of(changes: &[Change], added: bool) -> Vec<Address> {
    changes
        .iter()
        .filter_map(|change| match change {
            Change::AddRule(List::Blocked, rule) if added => Some(rule.clone()),
            Change::RemoveRule(List::Blocked, rule) if !added => Some(rule.clone()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn change(list: List, rule: &str, add: bool) -> RuleChange {
        RuleChange { list, rule: address(rule), add }
    }

    fn changes(privacy: &Privacy, wanted: Vec<RuleChange>) -> Result<Vec<Change>, RuleFault> {
        changes_of(&address("me@a"), privacy, RuleEdit::Rules(wanted))
    }

    #[test]
    fn only_what_differs_is_committed() {
        let privacy =
            Privacy::new(vec![(List::Allowed, address("b")), (List::Denied, address("x@c"))]);
        let same = changes(&privacy, vec![change(List::Allowed, "b", true)]).unwrap();
        assert_eq!(same, []);
        let both = vec![change(List::Allowed, "b", false), change(List::Allowed, "b", true)];
        assert_eq!(
            changes(&privacy, both).unwrap(),
            [
                Change::RemoveRule(List::Allowed, address("b")),
                Change::AddRule(List::Allowed, address("b"))
            ]
        );
        assert_eq!(
            changes(&privacy, vec![change(List::Allowed, "x@c", true)]).unwrap(),
            [
                Change::RemoveRule(List::Denied, address("x@c")),
                Change::AddRule(List::Allowed, address("x@c"))
            ]
        );
    }

    #[test]
    fn what_may_not_be_a_rule_is_refused() {
        let none = Privacy::default();
        let one = |list, rule| changes(&none, vec![change(list, rule, true)]);
        assert_eq!(one(List::Blocked, "me@a/x"), Err(RuleFault::Oneself));
        assert_eq!(one(List::Allowed, "b@c/x"), Err(RuleFault::OneDevice));
        assert!(one(List::Blocked, "b@c/x").is_ok());
        let many = (0..=RULES_MAX).map(|i| change(List::Allowed, &format!("{i}.x"), true));
        assert_eq!(changes(&none, many.collect()), Err(RuleFault::Full));
        let long = |i: usize| change(List::Blocked, &format!("b@c/{i}{}", "x".repeat(1_000)), true);
        assert_eq!(changes(&none, (0..70).map(long).collect()), Err(RuleFault::Full));
        assert!(changes(&none, (0..60).map(long).collect()).is_ok());
    }
}
