//! What the partner says, in the shapes of Microsoft's servers.
//!
//! Routes and Vias of a site's inside between other headers, header parameters behind `>`, Vias without a branch,
//! `epid` before `tag`, no space before `<`, GRUU Contacts, odd cases of names, one Supported a line, Content-Length
//! in the middle: what Lync 2013 and Skype for Business 2015 show, with invented names. Does **not** sign anything.

use super::words::Message;

/// The site as its messages show it.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The Access Edge's FQDN.
    pub(super) name: String,
    pub(super) domain: String,
    pub(super) port: u16,
    /// `tls` or `tcp`.
    pub(super) transport: &'static str,
}

/// What differs between requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) method: String,
    pub(super) uri: String,
    pub(super) branch: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) call_id: String,
    pub(super) number: u32,
    /// Empty: none, as in MESSAGE and BYE.
    pub(super) contact: String,
    /// Whether the inside's routes are recorded.
    pub(super) records: bool,
    pub(super) routes: Vec<String>,
    /// Whole lines without their end.
    pub(super) extra: Vec<String>,
    /// Content-Type and octets.
    pub(super) body: Option<(String, Vec<u8>)>,
}

impl Site {
    /// What every dialog of this site goes through: the edge, then a pool. Whole values.
    pub(super) fn records(&self) -> [String; 2] {
        let Self { name, domain, port, transport } = self;
        [
            format!(
                "<sip:{name}:{port};transport={transport};ms-fe=fe-07.{domain};opaque=state:F:Ci.R81c40;lr;ms-route-sig=wdiiabRLwxw6SvUn9yNqGQVv2s47NSjyGr_dW2_T23AA>;ms-rrsig=aTP7qel0vRG0onQJsjn5aUmDDANRItae9FAWRcM3hIAA;tag=7C64C3D27A404C60"
            ),
            format!(
                "<sip:pool-n1.{domain}:5061;transport={transport};lr;opaque=state:T;ms-identity;ms-key-info={};ms-route-sig=Yk_w>;tag=D85250824CA6C646",
                "jACAAPo9w-9gLtcJgl_IAQECAAADZgAAAKQAAAnTaukuFFMFe".repeat(8)
            ),
        ]
    }

    /// The edge's own Via, and those of the inside.
    fn vias(&self, branch: &str) -> [String; 3] {
        let Self { name, port, transport, .. } = self;
        let transport = transport.to_uppercase();
        [
            format!(
                "SIP/2.0/{transport} {name}:{port};branch={branch};branched=FALSE;ms-internal-info=\"1582abqf,ETv2;GXdl0z+C;k=1,2\""
            ),
            "SIP/2.0/TLS 192.0.2.40:51233;ms-received-port=51233;ms-received-cid=81C4000"
                .to_owned(),
            "SIP/2.0/TLS 198.51.100.77:52304;ms-received-port=52304;ms-received-cid=2D94C00"
                .to_owned(),
        ]
    }

    /// Contact of a user: the address of record with an opaque part, nothing that could be looked up.
    pub(super) fn contact(&self, user: &str) -> String {
        let user = user.split('@').next().unwrap_or_default();
        format!("<sip:{user}@{};opaque=user:epid:exEHxCV3__dumzh8-{user};gruu>", self.domain)
    }

    /// A whole request.
    pub(super) fn request(&self, parts: &Parts) -> Vec<u8> {
        let [edge, pool] = self.records();
        let [top, middle, client] = self.vias(&parts.branch);
        let mut lines = vec![format!("{} {} SIP/2.0", parts.method, parts.uri)];
        if parts.records {
            lines.push(format!("Record-Route: {edge}"));
        }
        lines.push(format!("Via: {top}"));
        lines.push("Max-Forwards: 68".to_owned());
        lines.push(format!("Via: {middle}"));
        lines.push(length(parts.body.as_ref()));
        if parts.records {
            lines.push(format!("Record-Route: {pool}"));
        }
        lines.push(format!("Via: {client}"));
        lines.extend(parts.routes.iter().map(|it| format!("Route: {it}")));
        lines.push("Authentication-Info: Kerberos qop=\"auth\", opaque=\"39B646F9\", srand=\"C1DC4DF9\", snum=\"23\", targetname=\"sip/fe-07\", realm=\"SIP Communications Service\", version=4".to_owned());
        lines.push(format!("From: {}", parts.from));
        lines.push(format!("To: {}", parts.to));
        lines.push(format!("Call-ID: {}", parts.call_id));
        lines.push(format!("CSEQ: {} {}", parts.number, parts.method));
        if !parts.contact.is_empty() {
            lines.push(format!("CONTACT: {}", parts.contact));
        }
        lines.push(USER_AGENT.to_owned());
        lines.extend(parts.extra.iter().cloned());
        if parts.method == "INVITE" {
            lines.extend(INVITE_LINES.iter().map(|it| (*it).to_owned()));
        }
        lines.extend(SUPPORTED.iter().map(|it| format!("Supported: {it}")));
        whole(lines, parts.body.as_ref())
    }

    /// A response: everything that has to come back comes back as it was.
    pub(super) fn response(
        &self,
        request: &Message,
        status: u16,
        reason: &str,
        parts: &Parts,
    ) -> Vec<u8> {
        let [edge, pool] = self.records();
        let mut lines = vec![format!("SIP/2.0 {status} {reason}")];
        if parts.records {
            lines.push(format!("Record-Route: {pool}"));
        }
        let lines_of = |name: &str| {
            let all = request.headers.iter().filter(|it| it.0.eq_ignore_ascii_case(name));
            all.map(|it| format!("{name}: {}", it.1)).collect::<Vec<_>>()
        };
        lines.extend(lines_of("Via"));
        lines.push(length(parts.body.as_ref()));
        if parts.records {
            lines.push(format!("Record-Route: {edge}"));
            lines.extend(lines_of("Record-Route"));
        }
        lines.push(format!("from: {}", request.header("From")));
        lines.push(format!("to: {}", parts.to));
        lines.extend(lines_of("CSeq"));
        lines.extend(lines_of("Call-ID"));
        if !parts.contact.is_empty() {
            lines.push(format!("CONTACT: {}", parts.contact));
        }
        lines.extend(parts.extra.iter().cloned());
        if status >= 200 {
            lines.extend(SUPPORTED.iter().map(|it| format!("Supported: {it}")));
        }
        whole(lines, parts.body.as_ref())
    }
}

fn length(body: Option<&(String, Vec<u8>)>) -> String {
    format!("Content-Length: {}", body.map_or(0, |it| it.1.len()))
}

fn whole(mut lines: Vec<String>, body: Option<&(String, Vec<u8>)>) -> Vec<u8> {
    if let Some((kind, _)) = body {
        lines.push(format!("Content-Type: {kind}"));
    }
    let mut bytes = lines.join("\r\n").into_bytes();
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend_from_slice(body.map(|it| it.1.as_slice()).unwrap_or_default());
    bytes
}

/// The offer of a session of texts: a blank at the end of the line, and no CRLF behind the last.
pub fn offer() -> (String, Vec<u8>) {
    ("application/sdp;call-type=im".to_owned(), sdp("null", true).into_bytes())
}

/// The answer to such an offer.
pub(super) fn answer(user: &str) -> (String, Vec<u8>) {
    ("application/sdp".to_owned(), sdp(user, false).into_bytes())
}

fn sdp(who: &str, all: bool) -> String {
    let more = if all {
        " text/rtf multipart/alternative text/x-msmsgsinvite image/gif application/ms-imdn+xml"
    } else {
        ""
    };
    format!(
        "v=0\r\no=- 0 0 IN IP4 198.51.100.77\r\ns=session\r\nc=IN IP4 198.51.100.77\r\nt=0 0\r\n\
         m=message 5060 sip {who}\r\na=accept-types:text/plain{more} "
    )
}

/// A presence document in Microsoft's dialect: activity as a text inside `status`.
pub(super) fn pidf(who: &str, open: bool, activity: &str) -> (String, Vec<u8>) {
    let basic = if open { "open" } else { "closed" };
    let activity = match activity {
        "" => String::new(),
        it => format!("<ep:activities><ep:activity>{it}</ep:activity></ep:activities>"),
    };
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-16\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" xmlns:ep=\"urn:ietf:params:xml:ns:pidf:status:rpid-status\" xmlns:ci=\"urn:ietf:params:xml:ns:pidf:cipid\" entity=\"{who}\"><tuple id=\"0\"><status><basic>{basic}</basic>{activity}</status></tuple><ci:display-name>Zoë</ci:display-name></presence>"
    );
    ("application/pidf+xml".to_owned(), text.into_bytes())
}

/// The older document of the same, which nobody has asked for.
pub(super) fn msrtc(who: &str, open: bool, activity: &str) -> (String, Vec<u8>) {
    let availability = if open { 300 } else { 0 };
    let activity = match activity {
        "busy" => 600,
        "away" => 700,
        _ => 400,
    };
    let text = format!(
        "<presentity uri=\"{who}\" xmlns=\"http://schemas.microsoft.com/2002/09/sip/presence\"><availability aggregate=\"{availability}\" description=\"\" epid=\"03640fc59f\"/><activity aggregate=\"{activity}\" description=\"\" epid=\"03640fc59f\"/></presentity>"
    );
    ("text/xml+msrtc.pidf".to_owned(), text.into_bytes())
}

const USER_AGENT: &str = "User-Agent: UCCAPI/16.0.7412.1040 OC/16.0.7412.1040 (Skype for Business)";

/// Headers of an INVITE that a partner has to bear.
const INVITE_LINES: &[&str] = &[
    "Subject: Räumung von Gebäude 7 – Zeitplan",
    "ms-keep-alive: UAC;hop-hop=yes",
    "Roster-Manager: <sip:zoe@contoso.example>",
    "P-Asserted-Identity: \"Zoë\"<sip:zoe@contoso.example>,<tel:+15550100>",
    "Ms-Conversation-ID: pJj88wJfkAsTcZD4ru/CQj/oDqw=",
    "Allow: ACK, BYE, CANCEL, INVITE, MESSAGE, OPTIONS, INFO, UPDATE, NOTIFY, BENOTIFY, REFER",
];

/// One a line. None of them may come back.
pub(super) const SUPPORTED: &[&str] = &[
    "timer",
    "replaces",
    "com.microsoft.rtc-multiparty",
    "ms-renders-mime-alternative",
    "ms-delayed-accept",
    "100rel",
    "ms-sender",
    "ms-renders-gif",
    "ms-conf-invite",
    "ms-embedded-first-message",
    "ms-dialog-route-set-update",
    "ms-renders-isf",
    "ms-early-media",
    "histinfo",
    "ms-safe-transfer",
    "ms-benotify",
    "ms-piggyback-first-notify",
    "com.microsoft.autoextend",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::edge::words::param;

    fn site() -> Site {
        let (name, domain) = ("edge.contoso.example".to_owned(), "contoso.example".to_owned());
        Site { name, domain, port: 5061, transport: "tls" }
    }

    #[test]
    fn a_request_has_every_trap_and_reads_back() {
        let parts = Parts {
            method: "SUBSCRIBE".to_owned(),
            uri: "sip:bob@a.example".to_owned(),
            branch: "z9hG4bK1".to_owned(),
            from: "\"Zoë\"<sip:zoe@contoso.example>;epid=787f6c813e;tag=be55".to_owned(),
            to: "<sip:bob@a.example>".to_owned(),
            call_id: "6e2aad4e".to_owned(),
            number: 1,
            contact: site().contact("zoe"),
            records: true,
            ..Parts::default()
        };
        let bytes = site().request(&parts);
        let (message, complaint) = Message::read(&bytes).expect("readable");
        assert_eq!(complaint, None);
        assert_eq!(message.list("Record-Route"), site().records().each_ref().map(String::as_str));
        assert_eq!(message.list("Via").len(), 3);
        assert_eq!(message.branch(), "z9hG4bK1");
        assert_eq!(param(message.header("From"), "tag"), "be55");
        assert_eq!(message.list("Supported"), SUPPORTED);
    }

    #[test]
    fn a_response_brings_back_what_it_must() {
        let request = "INVITE sip:zoe@contoso.example SIP/2.0\r\nVia: SIP/2.0/TLS sip.a.example:5061;branch=z9hG4bK9\r\nRecord-Route: <sip:sip.a.example:5061;transport=tls;lr>\r\nFrom: <sip:bob@a.example>;tag=g\r\nTo: <sip:zoe@contoso.example>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
        let (request, _) = Message::read(request.as_bytes()).expect("readable");
        let parts = Parts {
            to: "<sip:zoe@contoso.example>;epid=1;tag=2".to_owned(),
            records: true,
            body: Some(answer("sip:zoe@contoso.example")),
            ..Parts::default()
        };
        let (response, _) =
            Message::read(&site().response(&request, 200, "OK", &parts)).expect("readable");
        let [edge, pool] = site().records();
        assert_eq!(
            response.list("Record-Route"),
            [&pool, &edge, "<sip:sip.a.example:5061;transport=tls;lr>"]
        );
        assert_eq!((response.status, response.method.as_str()), (200, "INVITE"));
        assert!(response.text().ends_with("a=accept-types:text/plain "));
    }
}
