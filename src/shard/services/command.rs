//! The ad-hoc command by which a user edits who may see him without asking.
//!
//! XEP-0050, with a form of XEP-0004. One step and no state: asked without a form we show the list
//! and two fields; the form changes it and shows what it is then. It is for the user alone, at his
//! account or at his server; nobody else is told that it is there.

use crate::address::{Address, AddressRef};
use crate::home::record::List;
use crate::shard::Shard;
use crate::shard::rules::RuleChange;
use crate::shard::services::{Answered, Asked, Reply, now};
use crate::xmpp::fault::StanzaFault;
use crate::xmpp::payload::command::{self, Action};
use crate::xmpp::stanza::Ns;
use crate::xmpp::write;

/// The node of the command.
const ALLOW: &str = "urn:tandem:allow";
const ALLOW_NAME: &str = "Who may see me without asking";

impl Shard {
    /// Who may give commands here: a user of this shard, at his own account or at the server.
    pub(super) fn commander<'a>(&self, asked: &Asked<'a>) -> Option<AddressRef<'a>> {
        let from = asked.carry.from;
        let his = asked.own || asked.of_server;
        (his && self.home.find(from).is_some()).then(|| from.without_resource())
    }

    /// XEP-0050, 2.4.
    pub(super) fn command(&mut self, asked: &Asked<'_>) -> Answered {
        let user = self.commander(asked).ok_or(StanzaFault::ServiceUnavailable)?.to_address();
        let command = command::read(asked.frame, asked.stanza)?;
        if command.node != ALLOW {
            return Err(StanzaFault::ItemNotFound);
        }
        if command.action == Action::Cancel {
            return now(|out| command::write(ALLOW, "canceled", out, |_| {}));
        }
        let Some(form) = command.form else {
            return now(|out| self.allow_form(&user, false, out));
        };
        let mut changes = Vec::new();
        for (name, add) in [("remove", false), ("add", true)] {
            for value in form.iter().filter(|it| it.0 == name).flat_map(|it| &it.1) {
                let rule = Address::parse(value.trim()).map_err(|_| StanzaFault::JidMalformed)?;
                changes.push(RuleChange { list: List::Allowed, rule, add });
            }
        }
        let later = self.later(asked.carry)?;
        let whose = user.clone();
        self.change_rules(
            &user,
            changes,
            Box::new(move |shard, done| {
                let mut out = Vec::new();
                let answer = match done {
                    Err(fault) => Err(fault.into()),
                    Ok(()) => {
                        shard.allow_form(&whose, true, &mut out);
                        Ok(out)
                    }
                };
                shard.answer_later(later, answer);
            }),
        );
        Ok(Reply::Later)
    }

    /// The list as it is, to be edited or as the last word.
    fn allow_form(&self, user: &Address, is_done: bool, out: &mut Vec<u8>) {
        let allowed =
            self.home.account(user.bare()).map_or(&[][..], |it| it.privacy.list(List::Allowed));
        let status = if is_done { "completed" } else { "executing" };
        command::write(ALLOW, status, out, |out| {
            let kind = if is_done { "result" } else { "form" };
            out.extend_from_slice(b"<x");
            write::attr("xmlns", Ns::Data.name(), out);
            write::attr("type", kind, out);
            out.extend_from_slice(b"><title>");
            write::escape_into(ALLOW_NAME, out);
            out.extend_from_slice(b"</title>");
            let values = allowed.iter().map(Address::full);
            command::field("FORM_TYPE", "hidden", "", [ALLOW], out);
            if is_done {
                command::field("allowed", "jid-multi", "Persons and domains", values, out);
            } else {
                let list: Vec<&str> = values.collect();
                let list = if list.is_empty() { "nobody".to_owned() } else { list.join(" ") };
                let label = "Persons and whole domains that may see you without asking";
                command::field("allowed", "fixed", label, [list.as_str()], out);
                command::field("add", "jid-multi", "Add", [], out);
                command::field("remove", "jid-multi", "Remove", [], out);
            }
            out.extend_from_slice(b"</x>");
        });
    }
}

/// XEP-0050, 2.2.
pub(super) fn info(node: &str) -> Answered {
    match node {
        ALLOW => now(|out| {
            out.extend_from_slice(b"<query");
            write::attr("xmlns", Ns::DiscoInfo.name(), out);
            write::attr("node", node, out);
            out.extend_from_slice(b"><identity category='automation' type='command-node'");
            write::attr("name", ALLOW_NAME, out);
            out.extend_from_slice(b"/>");
            for feature in [Ns::Commands, Ns::Data] {
                out.extend_from_slice(b"<feature");
                write::attr("var", feature.name(), out);
                out.extend_from_slice(b"/>");
            }
            out.extend_from_slice(b"</query>");
        }),
        _ => Err(StanzaFault::ItemNotFound),
    }
}

/// XEP-0050, 2.1: the commands are the items of one node.
pub(super) fn items(node: &str, here: &str) -> Answered {
    let is_list = node == Ns::Commands.name();
    if !is_list && node != ALLOW {
        return Err(StanzaFault::ItemNotFound);
    }
    now(|out| {
        out.extend_from_slice(b"<query");
        write::attr("xmlns", Ns::DiscoItems.name(), out);
        write::attr("node", node, out);
        if !is_list {
            return out.extend_from_slice(b"/>");
        }
        out.extend_from_slice(b"><item");
        write::attr("jid", here, out);
        write::attr("node", ALLOW, out);
        write::attr("name", ALLOW_NAME, out);
        out.extend_from_slice(b"/></query>");
    })
}
