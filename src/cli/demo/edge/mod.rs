//! A small Lync-like edge: the SIP partner of the demo and of the flow tests.
//!
//! It listens, connects, speaks mutual TLS and has the shapes of Microsoft's messages, and it shares
//! no parser with the switch. One thread drives it: whoever waits for a message polls its
//! connections. It checks what a real Access Edge checks: our certificate must have the name of our
//! SRV target, or it says `504` and no more.
//!
//! Does **not** route, register or keep anything.

pub mod call;
pub mod link;
pub mod message;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

pub use call::{Call, Identity};
pub use link::Keys;
pub use message::Message;

use link::Link;

/// The edge. Calls have names that the caller gives.
pub struct Edge {
    pub identity: Identity,
    keys: Option<Keys>,
    listener: TcpListener,
    /// The switch: where it is, and the name that its certificate must have.
    switch: SocketAddr,
    switch_name: String,
    links: BTreeMap<u32, Link>,
    last_link: u32,
    /// Messages that nobody has waited for, with the connection each came on.
    unread: Vec<(u32, Message)>,
    calls: BTreeMap<String, Call>,
    number: u32,
    /// Messages that rsip could read, and all.
    pub by_rsip: u32,
    pub read: u32,
}

impl Edge {
    /// Listens at once.
    pub fn start(
        identity: Identity,
        keys: Option<Keys>,
        listener: TcpListener,
        switch: SocketAddr,
        switch_name: &str,
    ) -> Result<Self, String> {
        listener.set_nonblocking(true).map_err(|it| it.to_string())?;
        Ok(Self {
            identity,
            keys,
            listener,
            switch,
            switch_name: switch_name.to_owned(),
            links: BTreeMap::new(),
            last_link: 0,
            unread: Vec::new(),
            calls: BTreeMap::new(),
            number: 0,
            by_rsip: 0,
            read: 0,
        })
    }

    /// Takes what has come on any connection.
    pub fn poll(&mut self) -> Result<(), String> {
        while let Ok((socket, _)) = self.listener.accept() {
            let link = Link::accepted(socket, self.keys.as_ref())?;
            self.add(link);
        }
        let mut fault = None;
        for (&id, link) in &mut self.links {
            if let Err(why) = link.poll() {
                fault = Some(why);
            }
            while let Some((message, length)) = Message::cut(&link.inbox)? {
                link.inbox.drain(..length);
                self.read += 1;
                self.by_rsip += u32::from(message.by_rsip);
                self.unread.push((id, message));
            }
        }
        self.links.retain(|_, it| !it.closed);
        fault.map_or(Ok(()), Err)
    }

    fn add(&mut self, link: Link) -> u32 {
        self.last_link += 1;
        self.links.insert(self.last_link, link);
        self.last_link
    }

    /// A connection to the switch: one that stands, or a new one.
    fn link(&mut self) -> Result<u32, String> {
        // What the switch closed meanwhile is not used.
        self.poll()?;
        if let Some((&id, _)) = self.links.last_key_value() {
            return Ok(id);
        }
        self.dial()
    }

    /// A new connection to the switch.
    pub fn dial(&mut self) -> Result<u32, String> {
        let link = Link::dial(self.switch, &self.switch_name, self.keys.as_ref())?;
        Ok(self.add(link))
    }

    /// Ends all connections, as an edge that restarts. Calls stay known.
    pub fn hang_up(&mut self) {
        self.links.clear();
    }

    /// Connections that stand.
    pub fn connections(&self) -> usize {
        self.links.len()
    }

    /// Forgets what nobody waited for.
    pub fn forget(&mut self) {
        self.unread.clear();
    }

    /// Waits for a message; others stay for later. `what` is for the words of a failure.
    pub fn wait(
        &mut self,
        what: &str,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message, String> {
        self.wait_for(what, PATIENCE, wanted)
    }

    /// The same, so long.
    pub fn wait_for(
        &mut self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message, String> {
        let deadline = Instant::now() + patience;
        loop {
            self.poll()?;
            if let Some(at) = self.unread.iter().position(|(_, it)| wanted(it)) {
                let (link, message) = self.unread.remove(at);
                self.learn(&message);
                if !self.trusts(link) && !message.is_response() {
                    self.reply_on(link, &message, "504 Server time-out", "", "")?;
                    return Err(format!(
                        "{what}: the switch's certificate has no {}",
                        self.switch_name
                    ));
                }
                return Ok(message);
            }
            if Instant::now() >= deadline {
                let seen: Vec<_> = self.unread.iter().map(|(_, it)| it.start.clone()).collect();
                return Err(format!("{what} did not come; what came: {seen:?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Nothing that is so comes for that long.
    pub fn hears_none(
        &mut self,
        patience: Duration,
        unwanted: impl Fn(&Message) -> bool,
    ) -> Result<(), String> {
        match self.wait_for("", patience, unwanted) {
            Ok(message) => Err(format!("heard {}", message.shown())),
            Err(_) => Ok(()),
        }
    }

    /// The request of that method, in that call if it is known.
    pub fn hear(&mut self, method: &str, call: &str) -> Result<Message, String> {
        let id = self.calls.get(call).map(|it| it.id.clone());
        let is_it = |it: &Message| {
            it.what() == method && id.as_deref().is_none_or(|id| it.header("Call-ID") == id)
        };
        let message = self.wait(method, is_it)?;
        if id.is_none() {
            self.number += 1;
            let mut made = Call::answered(message.header("Call-ID"), &format!("e{}", self.number));
            made.learn(&message, &self.identity);
            self.calls.insert(call.to_owned(), made);
        }
        Ok(message)
    }

    /// The answer with that status to the last request of a call; `1xx` are passed over.
    pub fn answered(&mut self, call: &str, status: &str) -> Result<Message, String> {
        let it = self.calls.get(call).ok_or_else(|| format!("there is no call {call}"))?;
        let (id, cseq) = (it.id.clone(), format!("{} ", it.cseq));
        let is_it = |it: &Message| {
            it.is_response()
                && !it.what().starts_with('1')
                && it.header("Call-ID") == id
                && it.header("CSeq").starts_with(&cseq)
        };
        let message = self.wait(status, is_it)?;
        match message.what() == status {
            true => Ok(message),
            false => Err(format!("{} instead of {status}", message.shown())),
        }
    }

    fn trusts(&self, link: u32) -> bool {
        self.links.get(&link).is_none_or(|it| it.shows(&self.switch_name))
    }

    fn learn(&mut self, message: &Message) {
        let id = message.header("Call-ID");
        if let Some(call) = self.calls.values_mut().find(|it| it.id == id) {
            call.learn(message, &self.identity);
        }
    }

    /// Begins a call with a request of one of its users.
    pub fn begin(
        &mut self,
        method: &str,
        call: &str,
        from: &str,
        to: &str,
        own: &str,
        body: &str,
    ) -> Result<(), String> {
        self.number += 1;
        let id = format!("{call}{:08x}{:04x}", std::process::id(), self.number);
        let made = Call::begin(&self.identity, &id, &format!("e{}", self.number), from, to);
        self.calls.insert(call.to_owned(), made);
        self.request(method, call, own, body)
    }

    /// The next request of a call.
    pub fn request(
        &mut self,
        method: &str,
        call: &str,
        own: &str,
        body: &str,
    ) -> Result<(), String> {
        self.number += 1;
        let number = self.number;
        let identity = self.identity.clone();
        let it = self.calls.get_mut(call).ok_or_else(|| format!("there is no call {call}"))?;
        let text = it.request(&identity, method, number, own, body);
        let link = self.link()?;
        self.say(link, &text)
    }

    /// Answers a request.
    pub fn reply(
        &mut self,
        request: &Message,
        status: &str,
        own: &str,
        body: &str,
    ) -> Result<(), String> {
        let link = self.link()?;
        self.reply_on(link, request, status, own, body)
    }

    fn reply_on(
        &mut self,
        link: u32,
        request: &Message,
        status: &str,
        own: &str,
        body: &str,
    ) -> Result<(), String> {
        let id = request.header("Call-ID");
        let tag = self.calls.values().find(|it| it.id == id).map(|it| it.our_tag.clone());
        let tag = tag.unwrap_or_else(|| "edge".to_owned());
        let text = call::answer(&self.identity, request, &tag, status, own, body);
        self.say(link, &text)
    }

    /// Sends text as it is.
    pub fn say(&mut self, link: u32, text: &str) -> Result<(), String> {
        let it = self.links.get_mut(&link).ok_or("the connection is gone")?;
        it.send(text.as_bytes())
    }

    /// What is known of a call.
    pub fn call(&self, call: &str) -> Option<&Call> {
        self.calls.get(call)
    }
}

/// A presence document in the shape that Skype for Business writes.
pub fn document(user: &str, domain: &str, basic: &str, activity: &str) -> String {
    let activity = match activity {
        "" => String::new(),
        it => format!("<ep:activities><ep:activity>{it}</ep:activity></ep:activities>"),
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" \
         xmlns:ep=\"urn:ietf:params:xml:ns:pidf:status:rpid-status\" \
         xmlns:ci=\"urn:ietf:params:xml:ns:pidf:cipid\" entity=\"sip:{user}@{domain}\">\
         <tuple id=\"0\"><status><basic>{basic}</basic>{activity}</status></tuple>\
         <ci:display-name>{user}</ci:display-name></presence>"
    )
}

/// An offer of a session of texts; `null` stands for whoever will be there.
pub fn offer(user: &str) -> String {
    format!(
        "v=0\r\no=- 0 0 IN IP4 198.51.100.77\r\ns=session\r\nc=IN IP4 198.51.100.77\r\nt=0 0\r\n\
         m=message 5060 sip {user}\r\n\
         a=accept-types:text/plain text/rtf multipart/alternative text/x-msmsgsinvite image/gif "
    )
}

/// The head of an INVITE that a Lync client's front end would relay.
pub const INVITE: &str = "Content-Type: application/sdp;call-type=im\n\
     ms-text-format: text/plain; charset=UTF-8; ms-body=aGVsbG8=\n\
     Supported: ms-delayed-accept\nsupported: ms-renders-isf\nSUPPORTED: timer\n\
     Ms-Conversation-ID: f97b30";

/// On loopback everything is there in milliseconds; what takes this long does not come.
const PATIENCE: Duration = Duration::from_secs(8);

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
