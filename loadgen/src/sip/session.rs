//! One session of instant messages: its dialog, and what is said in it by templates.

use super::chat::Plan;
use super::dialog::{DOMAIN, Dialog, FIRST};
use crate::account::Window;
use crate::mark;
use crate::population::Population;
use crate::sm::Managed;

/// One end of a session at either side.
pub(super) struct Session {
    pub(super) dialog: Dialog,
    pub(super) line: usize,
    pub(super) template: Vec<u8>,
    pub(super) places: Places,
    /// Messages of the side that talks.
    pub(super) sent: u32,
    pub(super) at_ns: u64,
    pub(super) window: Window,
    pub(super) managed: Managed,
    pub(super) held: Vec<u8>,
    pub(super) dirty: bool,
    pub(super) stands: bool,
}

/// Where a template is patched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    pub(super) branch: usize,
    pub(super) cseq: usize,
    pub(super) mark: usize,
}

/// One for each client.
pub(super) fn all(population: &Population, plan: &Plan) -> Vec<Session> {
    let session = |(index, client): (usize, &crate::population::Client)| {
        let bare = client.jid.split('/').next().unwrap_or_default();
        let from = format!("e{index}@{DOMAIN}");
        let mut dialog = Dialog::begin(index, 0, &from, bare, plan.edge);
        dialog.local.push_str(";epid=787f6c813e");
        dialog.contact = format!("<sip:{from};opaque=user:epid:xann_exEHxCV3{index:08x};gruu>");
        Session {
            dialog,
            line: index % plan.lines.max(1),
            template: Vec::new(),
            places: Places::default(),
            sent: 0,
            at_ns: 0,
            window: Window::default(),
            managed: Managed::default(),
            held: client.early.clone(),
            dirty: false,
            stands: false,
        }
    };
    population.clients.iter().enumerate().map(session).collect()
}

/// What a client of Microsoft's says in each request of a session.
pub(super) const AGENT: &str =
    "User-Agent: UCCAPI/15.0.4420.1017 OC/15.0.4420.1017 (Microsoft Lync)\r\n";

impl Session {
    /// What begins it.
    pub(super) fn invite(&mut self) -> String {
        let name = self.dialog.local.split(['"', ' ']).nth(1).unwrap_or("e").to_owned();
        let sdp = format!(
            "v=0\r\no=- 0 0 IN IP4 198.51.100.77\r\ns=session\r\nc=IN IP4 198.51.100.77\r\n\
             t=0 0\r\nm=message 5060 sip sip:{name}@{DOMAIN}\r\na=accept-types:text/plain \
             multipart/alternative image/gif text/rtf text/html\r\n"
        );
        let more = format!(
            "Record-Route: <sip:edge.{DOMAIN}:5061;transport=tcp;ms-fe=fe-07.corp.{DOMAIN};\
             opaque=state:F:Ci.R81c40;lr;ms-route-sig=wdiiCdXzUYxmFe0Qvyd5mzPvJtQ>\r\n\
             Contact: {}\r\n{AGENT}Supported: ms-early-media, ms-delayed-accept\r\n\
             Allow: INVITE, BYE, ACK, CANCEL, INFO, MESSAGE, UPDATE, REFER\r\n\
             Content-Type: application/sdp\r\n",
            self.dialog.contact
        );
        self.dialog.request("INVITE", &more, &sdp)
    }

    /// The session stands: what the edge says from now on differs only in numbers and mark.
    pub(super) fn write_sip(&mut self, bytes: usize) {
        let pad = bytes.saturating_sub(mark::LEN);
        let text = format!("{}{}", " ".repeat(mark::LEN), "x".repeat(pad));
        let more = format!(
            "Contact: {}\r\n{AGENT}Supported: timer\r\nContent-Type: text/plain; charset=UTF-8;\
             msgr=WAAtAE0ATQBTAC0ASQBNAC0ARgBvAHIAbQBhAHQAOgAgAEYATgA9AE0AUwAlADIAMABTAGgA\r\n",
            self.dialog.contact
        );
        let request = self.dialog.text("MESSAGE", FIRST, &more, &text);
        let number = format!("{FIRST:010}");
        self.places = Places {
            branch: request.find(&format!(".{number}M")).unwrap_or(0) + 1,
            cseq: request.find(&format!("\r\nCSeq: {number}")).unwrap_or(0) + 8,
            mark: request.len() - text.len(),
        };
        self.template = request.into_bytes();
    }

    /// The same for what its client says.
    pub(super) fn write_xmpp(&mut self, bytes: usize) {
        let to = format!("{}@{DOMAIN}", self.dialog.local.split('"').nth(1).unwrap_or("e"));
        let head = format!("<message to='{to}' type='chat' id='tl'><body>");
        let pad = bytes.saturating_sub(mark::LEN);
        let text = format!("{head}{}{}</body></message>", " ".repeat(mark::LEN), "x".repeat(pad));
        self.places = Places { mark: head.len(), ..Places::default() };
        self.template = text.into_bytes();
    }

    /// Numbers the template as the message that was counted last; the INVITE was before them.
    pub(super) fn number(&mut self) {
        let number = FIRST + self.sent;
        let Places { branch, cseq, .. } = self.places;
        decimal(number, &mut self.template[branch..branch + 10]);
        decimal(number, &mut self.template[cseq..cseq + 10]);
    }
}

/// Ten digits.
fn decimal(mut value: u32, out: &mut [u8]) {
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (value % 10) as u8;
        value /= 10;
    }
}
