//! What an operator sees and changes of a user's record: contacts, and lists of persons and domains.
//!
//! Looks into the store; a change goes to the user's home, which tells the clients. Contacts are
//! **not** changed here: a roster is the user's own.

use serde_json::{Value, json};

use crate::control::Node;
use crate::control::accounts::Refusal;
use crate::home::record::{Item, List};
use crate::home::subscription::State;
use crate::limits::{CTL_LINE_BYTES_MAX, STORE_PAGE_MAX};

/// Puts somebody on a list.
pub(crate) async fn enlist(
    node: &Node,
    address: &str,
    list: List,
    pattern: &str,
) -> Result<Value, Refusal> {
    let (user, rule) = node.enlist(address, list, pattern).await?;
    Ok(json!({"address": user.bare(), "list": list.name(), "pattern": rule.full()}))
}

/// Takes somebody off all lists.
pub(crate) async fn unlist(node: &Node, address: &str, pattern: &str) -> Result<Value, Refusal> {
    let (user, rule, from) = node.unlist(address, pattern).await?;
    let from: Vec<&str> = from.into_iter().map(List::name).collect();
    Ok(json!({"address": user.bare(), "pattern": rule.full(), "lists": from}))
}

/// All lists in one, in order of list and pattern.
pub(crate) async fn lists(
    node: &Node,
    address: &str,
    after: &str,
    limit: usize,
) -> Result<Value, Refusal> {
    let (user, record) = node.record(address).await?;
    let mut rules = record.rules;
    rules.sort_by(|a, b| (a.0.name(), &a.1).cmp(&(b.0.name(), &b.1)));
    let keyed = rules.into_iter().map(|(list, rule)| {
        let row = json!({"list": list.name(), "pattern": rule.full()});
        (format!("{}:{rule}", list.name()), row)
    });
    Ok(page(user.bare(), keyed, after, limit))
}

/// The contacts in order of address, requests that wait among them.
pub(crate) async fn roster(
    node: &Node,
    address: &str,
    after: &str,
    limit: usize,
) -> Result<Value, Refusal> {
    let (user, record) = node.record(address).await?;
    let mut items = record.items;
    items.sort_by(|a, b| a.contact.cmp(&b.contact));
    let keyed = items.iter().map(|it| (it.contact.full().to_owned(), row(it)));
    let mut shown = page(user.bare(), keyed, after, limit);
    shown["version"] = json!(record.roster_version);
    Ok(shown)
}

/// The rows behind the key `after`, as many as are wanted and fit into an answer; `next` is the key
/// of the last one if there are more.
fn page(
    user: &str,
    keyed: impl Iterator<Item = (String, Value)>,
    after: &str,
    limit: usize,
) -> Value {
    let mut rows: Vec<Value> = Vec::new();
    let (mut last, mut next, mut octets) = (String::new(), None, 0);
    for (key, row) in keyed.skip_while(|(key, _)| !after.is_empty() && key.as_str() <= after) {
        octets += row.to_string().len();
        let full = rows.len() >= limit.min(STORE_PAGE_MAX) || octets > CTL_LINE_BYTES_MAX;
        if full && !rows.is_empty() {
            next = Some(last);
            break;
        }
        rows.push(row);
        last = key;
    }
    json!({"address": user, "rows": rows, "next": next})
}

fn row(item: &Item) -> Value {
    // RFC 6121, A.1: the state is both in one.
    let subscription = match (item.state.has_to(), item.state.has_from()) {
        (false, false) => "none",
        (true, false) => "to",
        (false, true) => "from",
        (true, true) => "both",
    };
    let pending = match item.state {
        State::NoneOut | State::FromOut => "out",
        State::NoneIn | State::ToIn => "in",
        State::NoneBoth => "both",
        State::None | State::To | State::From | State::Both => "",
    };
    json!({
        "contact": item.contact.full(), "listed": item.listed, "subscription": subscription,
        "pending": pending, "approved": item.approved, "name": item.name, "groups": item.groups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_fit_into_an_answer() {
        let keyed =
            |octets: usize| (0..25).map(move |n| (format!("k{n:02}"), json!("x".repeat(octets))));
        let mut after = String::new();
        let mut seen = 0;
        loop {
            let page = page("u", keyed(1), &after, 10);
            seen += page["rows"].as_array().unwrap().len();
            let Some(next) = page["next"].as_str() else { break };
            after = next.to_owned();
        }
        assert_eq!(seen, 25);
        let large = page("u", keyed(CTL_LINE_BYTES_MAX / 3), "k05", 20);
        assert_eq!(large["rows"].as_array().unwrap().len(), 2);
        assert_eq!(large["next"], "k07");
        let huge = page("u", keyed(CTL_LINE_BYTES_MAX), "", 20);
        assert_eq!(huge["rows"].as_array().unwrap().len(), 1);
        assert_eq!(page("u", keyed(1), "k24", 20)["rows"], json!([]));
    }
}
