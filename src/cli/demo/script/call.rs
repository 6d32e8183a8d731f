//! The calls of a Lync-like edge: who they are with, and its requests and answers as texts in the
//! shapes that Microsoft's servers write.
//!
//! Several Record-Routes with parameters behind the bracket, a Via without a branch, `epid` before
//! the tag, a GRUU as Contact, headers in any order and case. What a line of `own` names is taken
//! instead of what would be written.

use std::fmt::Write as _;

use crate::cli::demo::script::message::Message;

/// Who the edge is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The SIP domain.
    pub domain: String,
    /// Its own name.
    pub fqdn: String,
    /// `TLS`, `TCP` or `UDP`.
    pub transport: &'static str,
}

/// A dialog, or what may become one.
#[derive(Clone, Debug, Default)]
pub struct Call {
    pub id: String,
    /// Their side's From value without its tag, and the switch's user.
    pub ours: String,
    pub theirs: String,
    pub our_tag: String,
    pub their_tag: Option<String>,
    pub cseq: u32,
    /// Where requests in the dialog go.
    pub target: Option<String>,
    /// What of its Record-Routes is not the edge's own.
    pub routes: Vec<String>,
}

impl Call {
    /// One that the edge begins, from its user `from` to the address `to`.
    pub fn begin(identity: &Identity, id: &str, tag: &str, from: &str, to: &str) -> Self {
        Self {
            id: id.to_owned(),
            ours: format!("\"{from}\"<sip:{from}@{}>", identity.domain),
            theirs: format!("<sip:{to}>"),
            our_tag: tag.to_owned(),
            target: Some(format!("sip:{to}")),
            ..Self::default()
        }
    }

    /// One that the other side begins; the message tells the rest.
    pub fn answered(id: &str, tag: &str) -> Self {
        Self { id: id.to_owned(), our_tag: tag.to_owned(), ..Self::default() }
    }

    /// Takes what a message tells of the dialog.
    pub fn learn(&mut self, message: &Message, identity: &Identity) {
        let (ours, theirs) = if message.is_response() { ("From", "To") } else { ("To", "From") };
        let bare = |value: &str| value.split_once('>').map_or("", |it| it.0).to_owned() + ">";
        if self.ours.is_empty() {
            self.ours = bare(message.header(ours));
            self.theirs = bare(message.header(theirs));
        }
        if self.their_tag.is_none() {
            self.their_tag = message.tag(theirs).map(str::to_owned);
        }
        let contact = message.header("Contact");
        if let Some((uri, _)) = contact.split_once('<').and_then(|it| it.1.split_once('>')) {
            self.target = Some(uri.to_owned());
        }
        let makes = !message.is_response() || message.what().starts_with('2');
        if self.routes.is_empty() && makes {
            let all = message.all("Record-Route");
            self.routes =
                all.filter(|it| !it.contains(&identity.fqdn)).map(str::to_owned).collect();
        }
    }

    /// The next request of this side; `own`: headers of the caller's, a line each.
    pub fn request(
        &mut self,
        identity: &Identity,
        method: &str,
        number: u32,
        own: &str,
        body: &str,
    ) -> String {
        if !matches!(method, "ACK" | "CANCEL") {
            self.cseq += 1;
        }
        let Identity { domain, fqdn, transport } = identity;
        let target = self.target.as_deref().unwrap_or_default();
        let mut text = Text::new(format!("{method} {target} SIP/2.0\r\n"), own);
        if self.their_tag.is_none() && matches!(method, "INVITE" | "SUBSCRIBE" | "MESSAGE") {
            text.add("Record-Route", &record_route(identity));
        }
        let id = &self.id;
        text.add("Via", &format!("SIP/2.0/{transport} {fqdn}:5061;branch=z9hG4bK{number:04x}.{id};branched=FALSE;ms-internal-info=\"a;b,c\""));
        text.add("Max-Forwards", "68");
        // A second one without a branch, not beside the first.
        text.add(
            "via",
            "SIP/2.0/TLS 192.0.2.40:51233;ms-received-port=51233;ms-received-cid=81C4000",
        );
        for route in &self.routes {
            text.add("Route", route);
        }
        text.add("From", &format!("{};epid=787f6c813e;tag={}", self.ours, self.our_tag));
        match &self.their_tag {
            Some(tag) => text.add("To", &format!("{};tag={tag}", self.theirs)),
            None => text.add("To", &self.theirs),
        }
        text.add("Call-ID", id);
        text.add("CSeq", &format!("{} {method}", self.cseq));
        if matches!(method, "INVITE" | "SUBSCRIBE") {
            let user = self.ours.split_once("<sip:").map_or("", |it| it.1);
            let user = user.split('@').next().unwrap_or_default();
            text.add("Contact", &gruu(user, domain));
        }
        if method == "SUBSCRIBE" {
            text.add("Event", "presence");
            text.add(
                "Accept",
                "application/msrtc-event-categories+xml, text/xml+msrtc.pidf, application/pidf+xml",
            );
        }
        if method == "MESSAGE" {
            text.add("Content-Type", "text/plain; charset=UTF-8");
        }
        text.end(body)
    }
}

/// An answer to a request: what must be echoed is, with this side's tag, `own` and `body`.
pub fn answer(
    identity: &Identity,
    request: &Message,
    tag: &str,
    status: &str,
    own: &str,
    body: &str,
) -> String {
    let mut text = Text::new(format!("SIP/2.0 {status}\r\n"), own);
    let makes = matches!(request.what(), "INVITE" | "SUBSCRIBE");
    if makes && status.starts_with('2') {
        text.always("Record-Route", &record_route(identity));
    }
    for name in ["Record-Route", "Via"] {
        for value in request.all(name) {
            text.always(name, value);
        }
    }
    text.add("From", request.header("From"));
    let to = request.header("To");
    match request.tag("To") {
        Some(_) => text.add("To", to),
        None => text.add("To", &format!("{to};epid=54fa23d827;tag={tag}")),
    }
    text.add("Call-ID", request.header("Call-ID"));
    text.add("CSeq", request.header("CSeq"));
    if makes {
        let user = to.split_once("<sip:").map_or("x", |it| it.1);
        let user = user.split('@').next().unwrap_or_default();
        text.add("Contact", &gruu(user, &identity.domain));
    }
    text.end(body)
}

/// The edge's own, as long and strange as Microsoft's are.
pub fn record_route(identity: &Identity) -> String {
    let transport = identity.transport.to_ascii_lowercase();
    format!(
        "<sip:{}:5061;transport={transport};ms-fe=fe-07;opaque=state:F:Ci.R81c40;lr;ms-route-sig=wdii>;ms-rrsig=aTP7;tag=7C64",
        identity.fqdn
    )
}

fn gruu(user: &str, domain: &str) -> String {
    format!("<sip:{user}@{domain};opaque=user:epid:x{user}_exEHxCV3;gruu>")
}

/// A message that is being written.
struct Text<'a> {
    out: String,
    own: &'a str,
}

impl<'a> Text<'a> {
    fn new(out: String, own: &'a str) -> Self {
        Self { out, own }
    }

    /// Unless the caller has it.
    fn add(&mut self, name: &str, value: &str) {
        let has = self.own.lines().any(|line| {
            line.split_once(':').is_some_and(|(it, _)| it.trim().eq_ignore_ascii_case(name))
        });
        if !has {
            self.always(name, value);
        }
    }

    fn always(&mut self, name: &str, value: &str) {
        // To a String nothing can fail.
        write!(self.out, "{name}: {value}\r\n").ok();
    }

    fn end(mut self, body: &str) -> String {
        for line in self.own.lines().map(str::trim).filter(|it| !it.is_empty()) {
            self.out.push_str(line);
            self.out.push_str("\r\n");
        }
        self.add("Content-Length", &body.len().to_string());
        self.out.push_str("\r\n");
        self.out.push_str(body);
        self.out
    }
}
