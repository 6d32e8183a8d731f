//! What roster sets and subscriptions change, and what they may not.

use super::*;
use crate::home::subscription::Act;

const OWN: &str = "romeo@example.net";

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// Commits what came out.
fn apply(roster: &mut Roster, privacy: &mut Privacy, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::PutItem(item) => roster.put(*item),
            Change::RemoveItem(contact) => drop(roster.remove(&contact)),
            Change::RosterVersion(version) => roster.version = version,
            Change::AddRule(list, rule) => drop(privacy.add(list, rule)),
            Change::RemoveRule(list, rule) => drop(privacy.remove(list, &rule)),
            other => panic!("{other:?} is no change of a roster"),
        }
    }
}

#[derive(Default)]
struct User {
    roster: Roster,
    privacy: Privacy,
}

impl User {
    fn set(&mut self, set: RosterSet) -> Result<Option<Removal>, StanzaFault> {
        let edit = self.roster.edit(OWN, set, &self.privacy, Denial::Polite)?;
        apply(&mut self.roster, &mut self.privacy, edit.changes);
        Ok(edit.removal)
    }

    fn put(&mut self, jid: &str, name: &str, groups: &[&str]) -> Result<(), StanzaFault> {
        let groups = groups.iter().map(|it| Box::from(*it)).collect();
        self.set(RosterSet::Put { jid: jid.into(), name: name.into(), groups }).map(drop)
    }

    fn remove(&mut self, jid: &str) -> Result<Removal, StanzaFault> {
        self.set(RosterSet::Remove { jid: jid.into() }).map(Option::unwrap)
    }

    fn says(&mut self, act: Act, to: &str) -> Result<Step, StanzaFault> {
        let contact = address(to);
        let style = style_with(&self.privacy, Denial::Polite);
        let step = self.roster.relation(contact.view(), &self.privacy).user_sends(act, style);
        let asked = (act == Act::Subscribe).then_some(Wall(7));
        let changes = self.roster.after(&contact, &step, None, asked)?;
        apply(&mut self.roster, &mut self.privacy, changes);
        Ok(step)
    }

    fn hears(&mut self, act: Act, from: &str) -> Result<Step, StanzaFault> {
        let contact = address(from);
        let step = self.roster.relation(contact.view(), &self.privacy).contact_sends(act);
        let changes = self.roster.after(&contact, &step, Some(b"<presence/>"), None)?;
        apply(&mut self.roster, &mut self.privacy, changes);
        Ok(step)
    }

    /// As `jid name groups subscription ask`, of what is listed.
    fn shown(&self) -> Vec<String> {
        self.roster
            .listed()
            .map(|it| {
                let it = it.view();
                let ask = it.ask.unwrap_or("-");
                format!("{} {:?} {:?} {} {ask}", it.jid, it.name, it.groups, it.subscription)
            })
            .collect()
    }
}

#[test]
fn items_are_put_and_removed_by_their_bare_address() {
    let mut user = User::default();
    user.put("Juliet@Example.COM/balcony", "J", &["a", "b"]).unwrap();
    assert_eq!(user.shown(), [r#"juliet@example.com "J" ["a", "b"] none -"#]);
    assert!(user.roster.is_current("1"));
    user.put("juliet@example.com", "", &[]).unwrap();
    assert_eq!(user.shown(), [r#"juliet@example.com "" [] none -"#]);
    assert!(!user.roster.is_current("1"));
    assert_eq!(user.remove("nurse@example.com"), Err(StanzaFault::ItemNotFound));
    assert_eq!(user.put("@", "", &[]), Err(StanzaFault::JidMalformed));
    assert_eq!(user.put(OWN, "", &[]), Err(StanzaFault::NotAllowed));
    let removal = user.remove("juliet@example.com").unwrap();
    assert!(!removal.unsubscribe && removal.step.to_contact(true).next().is_none());
    assert_eq!((user.shown(), user.roster.version), (vec![], 3));
}

#[test]
fn a_set_keeps_the_subscription() {
    let mut user = User::default();
    user.says(Act::Subscribe, "a@b").unwrap();
    user.hears(Act::Subscribed, "a@b").unwrap();
    user.put("a@b", "A", &[]).unwrap();
    assert_eq!(user.shown(), [r#"a@b "A" [] to -"#]);
    assert_eq!(user.roster.get("a@b").unwrap().asked, Wall(7));
    assert!(user.remove("a@b").unwrap().unsubscribe);
}

#[test]
fn a_request_is_kept_without_being_listed() {
    let mut user = User::default();
    assert!(user.hears(Act::Subscribe, "a@b").unwrap().passed);
    assert!(user.shown().is_empty());
    assert_eq!(user.roster.version, 0, "no client saw anything");
    assert_eq!(user.roster.get("a@b").unwrap().request.as_deref(), Some(&b"<presence/>"[..]));
    assert_eq!(user.remove("a@b"), Err(StanzaFault::ItemNotFound));
    // It shows with the item, which knows of the request.
    user.put("a@b", "A", &[]).unwrap();
    assert_eq!(user.roster.get("a@b").unwrap().state, State::NoneIn);
    user.says(Act::Subscribed, "a@b").unwrap();
    assert_eq!(user.shown(), [r#"a@b "A" [] from -"#]);
    assert_eq!(user.roster.get("a@b").unwrap().request, None);
    // One that is taken back leaves nothing behind.
    user.hears(Act::Subscribe, "c@d").unwrap();
    user.hears(Act::Unsubscribe, "c@d").unwrap();
    assert_eq!(user.roster.items().len(), 1);
}

#[test]
fn a_polite_denial_is_remembered_and_can_be_revoked() {
    let mut user = User::default();
    user.hears(Act::Subscribe, "a@b").unwrap();
    user.says(Act::Unsubscribed, "a@b").unwrap();
    assert!(user.roster.items().is_empty());
    assert!(user.privacy.is_denied(address("a@b/x").view()));
    let again = user.hears(Act::Subscribe, "a@b").unwrap();
    assert!(!again.passed && user.roster.items().is_empty());
    user.says(Act::Subscribed, "a@b").unwrap();
    assert_eq!(user.shown(), [r#"a@b "" [] from -"#]);
    assert!(user.privacy.is_empty());
    // The removal of somebody who sees the user is a denial too.
    user.remove("a@b").unwrap();
    assert!(user.privacy.is_denied(address("a@b").view()));
}

#[test]
fn with_a_full_list_the_denial_is_explicit() {
    let mut user = User::default();
    for i in 0..RULES_MAX {
        user.privacy.add(List::Denied, address(&format!("{i}@x")));
    }
    user.hears(Act::Subscribe, "a@b").unwrap();
    assert!(user.says(Act::Unsubscribed, "a@b").unwrap().passed);
    assert!(!user.privacy.is_denied(address("a@b").view()));
}

#[test]
fn who_is_allowed_is_not_asked_about() {
    let mut user = User::default();
    user.privacy.add(List::Allowed, address("example.org"));
    let step = user.hears(Act::Subscribe, "a@example.org").unwrap();
    assert_eq!((step.passed, step.reply), (false, Some(Act::Subscribed)));
    assert_eq!(user.shown(), [r#"a@example.org "" [] from -"#]);
    assert!(user.hears(Act::Subscribe, "a@sub.example.org").unwrap().passed);
}

#[test]
fn rosters_and_requests_have_bounds() {
    let mut user = User::default();
    for i in 0..ROSTER_ITEMS_MAX {
        user.put(&format!("{i}@x"), "", &[]).unwrap();
    }
    assert_eq!(user.put("more@x", "", &[]), Err(StanzaFault::ResourceConstraint));
    assert_eq!(user.says(Act::Subscribe, "more@x"), Err(StanzaFault::ResourceConstraint));
    user.put("0@x", "name", &[]).unwrap();
    user.says(Act::Subscribe, "0@x").unwrap();
    for i in 0..REQUESTS_MAX {
        user.hears(Act::Subscribe, &format!("{i}@y")).unwrap();
    }
    assert_eq!(user.hears(Act::Subscribe, "more@y"), Err(StanzaFault::ResourceConstraint));
    user.hears(Act::Unsubscribe, "0@y").unwrap();
    user.hears(Act::Subscribe, "more@y").unwrap();
    let long = vec![b'x'; REQUEST_OCTETS_MAX + 1];
    assert_eq!(&*kept(&address("a@b"), &long), b"<presence type='subscribe' from='a@b'/>");
}

#[test]
fn a_roster_fits_into_one_answer() {
    let mut roster = Roster::default();
    let privacy = Privacy::default();
    let name: Box<str> = "&".repeat(1_000).into();
    let mut octets = 0;
    for n in 0.. {
        let set =
            RosterSet::Put { jid: format!("c{n}@x"), name: name.clone(), groups: Box::default() };
        match roster.edit("a@x", set, &privacy, Denial::Polite) {
            Ok(edit) => {
                for change in edit.changes {
                    if let Change::PutItem(item) = change {
                        octets += item.octets();
                        roster.put(*item);
                    }
                }
            }
            Err(fault) => {
                assert_eq!(fault, StanzaFault::ResourceConstraint);
                break;
            }
        }
    }
    assert!(octets <= ROSTER_OCTETS_MAX && octets + 5_200 > ROSTER_OCTETS_MAX, "{octets}");
    // One without a name still fits, and one that is there may be made smaller.
    let small = RosterSet::Put { jid: "c0@x".into(), name: "".into(), groups: Box::default() };
    assert!(roster.edit("a@x", small, &privacy, Denial::Polite).is_ok());
}
