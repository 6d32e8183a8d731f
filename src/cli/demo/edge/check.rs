//! What the partner holds against a message it got: bytes that had to come back as they were, and did not.
//!
//! RFC 3261, 8.1.3.3, 8.2.6.2, 12.1 and 12.2.1.1; `strict` adds what an Access Edge needs of its partners although no
//! RFC asks for it: names instead of addresses, and none of its own extensions back.

use super::Partner;
use super::dialog::Dialog;
use super::shape::{SUPPORTED, Site};
use super::words::{Message, domain, param, uri};

/// A request of theirs; `dialog` if it is in one.
pub(super) fn request(
    message: &Message,
    dialog: Option<&Dialog>,
    site: &Site,
    partner: &Partner,
    strict: bool,
) -> Vec<String> {
    let mut found = Found { message, all: Vec::new() };
    let method = message.method.as_str();
    let vias = message.list("Via");
    found.unless(message.branch().starts_with("z9hG4bK"), "the branch has no z9hG4bK");
    found.unless(message.has("Max-Forwards"), "no Max-Forwards");
    let cseq = message.header("CSeq").split_whitespace().nth(1);
    found.unless(cseq == Some(method), "CSeq names another method");
    if let Some(dialog) = dialog.filter(|it| it.up) {
        let contact = site.contact(&dialog.user);
        found.same("Request-URI is the Contact", &message.uri, uri(&contact));
        found.same("Route", &message.list("Route").join(", "), &site.records().join(", "));
        found.same("epid of To", param(message.header("To"), "epid"), &dialog.epid);
        found.same("tag of From", param(message.header("From"), "tag"), &dialog.remote_tag);
        let again = ["ACK", "CANCEL"].contains(&method);
        let number = message.number();
        found.unless(again || number > dialog.far_number, "CSeq does not grow");
    }
    if strict {
        let Partner { name, .. } = partner;
        let transport = site.transport.to_uppercase();
        let top = vias.first().copied().unwrap_or_default();
        let by_name = top.starts_with(&format!("SIP/2.0/{transport} {name}:"));
        found.unless(by_name && vias.len() == 1, "Via is not one, of our partner's name");
        let forms = ["SUBSCRIBE", "INVITE"].contains(&method);
        if forms || message.has("Contact") {
            found.ours("Contact", uri(message.header("Contact")), partner, site);
        }
        if forms && param(message.header("To"), "tag").is_empty() {
            let records = message.list("Record-Route");
            found.unless(records.len() == 1, "Record-Route is not one");
            found.ours("Record-Route", records.first().map_or("", |it| uri(it)), partner, site);
        }
        found.nothing_mirrored();
    }
    found.all
}

/// An answer of theirs to `sent`.
pub(super) fn response(
    message: &Message,
    sent: &Message,
    site: &Site,
    partner: &Partner,
    strict: bool,
) -> Vec<String> {
    let mut found = Found { message, all: Vec::new() };
    for name in ["Via", "Call-ID", "CSeq", "From"] {
        found.same(name, &lines(message, name), &lines(sent, name));
    }
    let (to, was) = (message.header("To"), sent.header("To"));
    found.unless(to.starts_with(was), "To does not begin as it was");
    let tagged = !param(to, "tag").is_empty();
    found.unless(tagged || message.status == 100, "no tag in To");
    let forms = sent.has("Record-Route");
    if forms && (200..300).contains(&message.status) {
        let (records, mine) = (message.list("Record-Route"), sent.list("Record-Route"));
        found.unless(records.ends_with(&mine), "our Record-Routes are not as they were");
        if strict {
            found.unless(
                records.len() == mine.len() + 1,
                "there is not one Record-Route above ours",
            );
            found.ours("Record-Route", records.first().map_or("", |it| uri(it)), partner, site);
            found.ours("Contact", uri(message.header("Contact")), partner, site);
        }
    }
    if strict {
        found.nothing_mirrored();
    }
    found.all
}

fn lines(message: &Message, name: &str) -> String {
    let all = message.headers.iter().filter(|it| it.0.eq_ignore_ascii_case(name));
    all.map(|it| it.1.as_str()).collect::<Vec<_>>().join("\r\n")
}

struct Found<'a> {
    message: &'a Message,
    all: Vec<String>,
}

impl Found<'_> {
    fn unless(&mut self, holds: bool, what: &str) {
        if !holds {
            self.all.push(format!("{what} in\n{:?}", self.message));
        }
    }

    fn same(&mut self, what: &str, seen: &str, wanted: &str) {
        self.unless(seen == wanted, &format!("{what}: \"{seen}\" is not \"{wanted}\""));
    }

    /// A place that is the partner's, by name, with the transport written out.
    fn ours(&mut self, what: &str, place: &str, partner: &Partner, site: &Site) {
        let mut parts = place.split(';');
        let host = parts.next().unwrap_or_default().trim_start_matches("sip:");
        let named = domain(host).split(':').next() == Some(partner.name.as_str());
        let transport = format!("transport={}", site.transport);
        let said = parts.any(|it| it == transport);
        self.unless(named && said, &format!("{what} \"{place}\" is not {} by name", partner.name));
        if what == "Record-Route" {
            self.unless(place.split(';').any(|it| it == "lr"), "Record-Route without lr");
        }
    }

    fn nothing_mirrored(&mut self) {
        for name in ["Supported", "Require", "Proxy-Require"] {
            let back = self
                .message
                .list(name)
                .into_iter()
                .find(|it| SUPPORTED.contains(it))
                .map(str::to_owned);
            if let Some(token) = back {
                self.unless(false, &format!("{name} has {token}"));
            }
        }
        for name in ["ms-text-format", "ms-edge-proxy-message-trust", "ms-diagnostics"] {
            self.unless(!self.message.has(name), &format!("{name} is not theirs to send"));
        }
    }
}
