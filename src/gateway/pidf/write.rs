//! Writes the presence document of a local user, in the dialect his watcher's side reads.
//!
//! The caller hands over the resources that this watcher may see, the oldest first; none means
//! closed, and looks the same whether the user is offline or hides.

use sha2::{Digest, Sha256};

use crate::address::AddressRef;
use crate::gateway::message::language;
use crate::gateway::pidf::{Shown, thousandths};
use crate::gateway::{activity, address};
use crate::policy::Pidf;
use crate::presence::availability::{BUSY, IDLE, Show};
use crate::xmpp::write::escape_into;

/// A resource that the watcher may see.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    pub name: &'a str,
    pub shown: &'a Shown,
}

/// The resource that stands for the user: the highest priority, then available, dnd, away, xa, then
/// the latest, which is the last one. `None`: offline.
pub fn best<'a, 'b>(resources: &'b [Resource<'a>]) -> Option<&'b Resource<'a>> {
    let rank = |show: Show| match show {
        Show::Available => 4,
        Show::Dnd => 3,
        Show::Away => 2,
        Show::Xa => 1,
        Show::Offline => 0,
    };
    resources
        .iter()
        .filter(|it| it.shown.show != Show::Offline)
        .max_by_key(|it| (it.shown.priority.unwrap_or(0), rank(it.shown.show)))
}

/// The id of a resource's tuple (RFC 8048, 6.2), which must be an `xs:ID`.
pub fn tuple_id(resource: &str) -> String {
    let is_plain = (1..=64).contains(&resource.len())
        && resource.bytes().all(|it| it.is_ascii_alphanumeric() || b"._-".contains(&it));
    if is_plain {
        return format!("ID-{resource}");
    }
    let digest = Sha256::digest(resource);
    let hex: String = digest.iter().take(16).map(|it| format!("{it:02x}")).collect();
    format!("IDx-{hex}")
}

/// Appends the document of `user`, and tells the language of what is written in it
/// (Content-Language).
pub fn write(
    dialect: Pidf,
    user: AddressRef<'_>,
    display_name: Option<&str>,
    resources: &[Resource<'_>],
    out: &mut Vec<u8>,
) -> Option<String> {
    let best = best(resources);
    push(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><presence xmlns=\"urn:ietf:params:xml:ns:pidf\"",
        out,
    );
    push(
        match dialect {
            Pidf::Microsoft => {
                " xmlns:ep=\"urn:ietf:params:xml:ns:pidf:status:rpid-status\" \
                 xmlns:et=\"urn:ietf:params:xml:ns:pidf:rpid-tuple\" \
                 xmlns:ci=\"urn:ietf:params:xml:ns:pidf:cipid\""
            }
            Pidf::Standard => {
                " xmlns:dm=\"urn:ietf:params:xml:ns:pidf:data-model\" \
                 xmlns:rpid=\"urn:ietf:params:xml:ns:pidf:rpid\""
            }
        },
        out,
    );
    push(" entity=\"", out);
    escape_into(&address::to_uri(user.without_resource()), out);
    push("\">", out);
    match (dialect, best) {
        (_, None) => push("<tuple id=\"t0\"><status><basic>closed</basic></status></tuple>", out),
        (Pidf::Microsoft, Some(best)) => microsoft(best.shown, out),
        (Pidf::Standard, Some(best)) => {
            for resource in resources.iter().filter(|it| it.shown.show != Show::Offline) {
                standard(user, resource, out);
            }
            if let Some(word) = activity::word(best.shown.wire()) {
                push("<dm:person id=\"p0\"><rpid:activities><rpid:", out);
                push(word, out);
                push("/></rpid:activities></dm:person>", out);
            }
        }
    }
    if let (Pidf::Microsoft, Some(name)) = (dialect, display_name) {
        push("<ci:display-name>", out);
        escape_into(name, out);
        push("</ci:display-name>", out);
    }
    push("</presence>", out);
    best.filter(|it| it.shown.status.is_some())
        .and_then(|it| it.shown.lang.as_deref())
        .and_then(language)
        .map(str::to_owned)
}

fn microsoft(shown: &Shown, out: &mut Vec<u8>) {
    push("<tuple id=\"t0\"><status><basic>open</basic>", out);
    if let Some(word) = activity::word(shown.wire()) {
        push("<ep:activities><ep:activity>", out);
        push(word, out);
        push("</ep:activity></ep:activities>", out);
    }
    push("</status>", out);
    // A text that only makes the state is said by the activity.
    if !matches!(shown.status.as_deref(), Some(BUSY | IDLE)) {
        note(shown, out);
    }
    push("</tuple>", out);
}

fn standard(user: AddressRef<'_>, resource: &Resource<'_>, out: &mut Vec<u8>) {
    let shown = resource.shown;
    push("<tuple id=\"", out);
    push(&tuple_id(resource.name), out);
    push("\"><status><basic>open</basic>", out);
    if let Some(show) = shown.show.word() {
        push("<show xmlns=\"jabber:client\">", out);
        push(show, out);
        push("</show>", out);
    }
    push("</status><contact", out);
    if let Some(value) = thousandths(shown.priority.unwrap_or(0)) {
        push(&format!(" priority=\"{}.{:03}\"", value / 1_000, value % 1_000), out);
    }
    push(">", out);
    let full = user.without_resource().to_address().with_resource(resource.name);
    let uri = full.map_or_else(|_| address::to_uri(user), |it| address::to_uri(it.view()));
    escape_into(&uri, out);
    push("</contact>", out);
    note(shown, out);
    push("</tuple>", out);
}

fn note(shown: &Shown, out: &mut Vec<u8>) {
    let Some(status) = &shown.status else { return };
    push("<note", out);
    if let Some(lang) = shown.lang.as_deref().and_then(language) {
        push(" xml:lang=\"", out);
        push(lang, out);
        push("\"", out);
    }
    push(">", out);
    escape_into(status, out);
    push("</note>", out);
}

fn push(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}
