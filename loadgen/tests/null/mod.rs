//! A small XMPP server for tests: takes any password, routes messages, tells presence to
//! everybody who asked, answers rosters. Or behaves badly, as told. A thread a connection.

#![expect(clippy::unwrap_used, reason = "a server for tests that cannot go on fails the test")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// As it should.
    Good,
    /// Closes each connection once something was said.
    Closes,
    /// Never answers.
    Stalls,
    /// Answers with endless nonsense.
    Garbage,
    /// Takes no password.
    RefusesLogin,
    /// Loses, doubles, changes and returns messages.
    Lies,
}

#[derive(Default)]
struct House {
    /// By bare address.
    here: HashMap<String, TcpStream>,
    /// Who sees whom: by presentity.
    watchers: HashMap<String, Vec<String>>,
    messages: u64,
}

/// The server; its threads end with the test.
pub(crate) struct Null {
    /// Where it is.
    pub(crate) at: SocketAddr,
}

impl Null {
    /// Begins to listen.
    pub(crate) fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let house = Arc::new(Mutex::new(House::default()));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let house = Arc::clone(&house);
                thread::spawn(move || serve(stream, manners, &house));
            }
        });
        Self { at }
    }
}

fn attribute(tag: &str, name: &str) -> String {
    let Some(at) = tag.find(&format!(" {name}='")) else { return String::new() };
    tag[at + name.len() + 3..].split('\'').next().unwrap_or_default().to_owned()
}

/// The first whole element of a stream, cut off.
fn element(held: &mut String) -> Option<String> {
    let begin = held.find('<')?;
    let tag_end = begin + held[begin..].find('>')? + 1;
    let tag = &held[begin..tag_end];
    let name: String =
        tag[1..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == ':').collect();
    let open = tag.ends_with("/>") || tag.starts_with("</") || tag.starts_with("<?");
    let end = if open || name == "stream:stream" {
        tag_end
    } else {
        let close = format!("</{name}>");
        tag_end + held[tag_end..].find(&close)? + close.len()
    };
    let element = held[begin..end].to_owned();
    held.drain(..end);
    Some(element)
}

fn serve(stream: TcpStream, manners: Manners, house: &Mutex<House>) {
    let here = stream.peer_addr();
    let user = talk(stream, manners, house);
    // Whoever took his place since stays.
    let mut house = house.lock().unwrap();
    if let (Some(stream), Ok(here)) = (house.here.get(&user), here)
        && stream.peer_addr().is_ok_and(|at| at == here)
    {
        house.here.remove(&user);
    }
}

/// Serves a connection to its end and says whose it was.
fn talk(mut stream: TcpStream, manners: Manners, house: &Mutex<House>) -> String {
    stream.set_nodelay(true).unwrap();
    let (mut held, mut buffer) = (String::new(), vec![0; 16 << 10]);
    let (mut proved, mut user) = (false, String::new());
    while let Ok(count) = stream.read(&mut buffer) {
        match manners {
            _ if count == 0 => break,
            Manners::Closes => return user,
            Manners::Stalls => continue,
            Manners::Garbage => {
                while stream.write_all(&[b'?'; 4 << 10]).is_ok() {}
                return user;
            }
            Manners::Good | Manners::RefusesLogin | Manners::Lies => {}
        }
        held += &String::from_utf8_lossy(&buffer[..count]);
        while let Some(it) = element(&mut held) {
            let answer = answer(&it, manners, house, &stream, &mut proved, &mut user);
            // Others write to this stream, too: one at a time.
            let _one = house.lock().unwrap();
            if stream.write_all(answer.as_bytes()).is_err() {
                return user;
            }
        }
    }
    user
}

fn answer(
    it: &str,
    manners: Manners,
    house: &Mutex<House>,
    stream: &TcpStream,
    proved: &mut bool,
    user: &mut String,
) -> String {
    let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
    if it.starts_with("<stream:stream") {
        let features = if *proved {
            "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>".to_owned()
        } else {
            format!("<mechanisms {sasl}><mechanism>PLAIN</mechanism></mechanisms>")
        };
        return format!(
            "<stream:stream id='1' version='1.0'><stream:features>{features}</stream:features>"
        );
    }
    if it.starts_with("<auth") {
        if manners == Manners::RefusesLogin {
            return format!("<failure {sasl}><not-authorized/></failure>");
        }
        use base64::Engine as _;
        let text = it.split('>').nth(1).unwrap().split('<').next().unwrap();
        let said = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let said = String::from_utf8(said).unwrap();
        *user = format!("{}@load.example", said.split('\0').nth(1).unwrap());
        *proved = true;
        return format!("<success {sasl}/>");
    }
    let mut house = house.lock().unwrap();
    let id = attribute(it, "id");
    if it.contains("<resource>") {
        house.here.insert(user.clone(), stream.try_clone().unwrap());
        return format!("<iq type='result' id='{id}'><bind><jid>{user}/r</jid></bind></iq>");
    }
    if it.starts_with("<iq type='get'") {
        return format!("<iq type='result' id='{id}'><query xmlns='jabber:iq:roster'/></iq>");
    }
    if it.starts_with("<iq type='set'") {
        let item = &it[it.find("<item").unwrap()..];
        let jid = attribute(item, "jid");
        let push = format!("<iq type='set' id='p'><query><item jid='{jid}'/></query></iq>");
        return format!("{push}<iq type='result' id='{id}'/>");
    }
    if it.starts_with("<presence") {
        house.presence(it, user);
    } else if it.starts_with("<message") {
        house.message(it, user, manners);
    }
    String::new()
}

impl House {
    fn say(&mut self, to: &str, text: &str) {
        let bare = to.split('/').next().unwrap();
        if let Some(stream) = self.here.get_mut(bare) {
            let _gone = stream.write_all(text.as_bytes());
        }
    }

    fn presence(&mut self, it: &str, user: &str) {
        let (to, kind) = (attribute(it, "to"), attribute(it, "type"));
        match kind.as_str() {
            "subscribe" => self.say(&to, &format!("<presence type='subscribe' from='{user}'/>")),
            "subscribed" => {
                let watchers = self.watchers.entry(user.to_owned()).or_default();
                if !watchers.contains(&to) {
                    watchers.push(to.clone());
                }
                let item = format!("<item jid='{user}' subscription='to'/>");
                self.say(&to, &format!("<iq type='set' id='q'><query>{item}</query></iq>"));
            }
            _ => {
                for watcher in self.watchers.get(user).cloned().unwrap_or_default() {
                    let text = it.replacen("<presence", &format!("<presence from='{user}/r'"), 1);
                    self.say(&watcher, &text);
                }
            }
        }
    }

    fn message(&mut self, it: &str, user: &str, manners: Manners) {
        let (to, id) = (attribute(it, "to"), attribute(it, "id"));
        let text = it.replacen("<message", &format!("<message from='{user}/r'"), 1);
        self.messages += 1;
        match if manners == Manners::Lies { self.messages % 10 } else { 9 } {
            0 => {}
            1 => {
                self.say(&to, &text);
                self.say(&to, &text);
            }
            2 => {
                let at = text.find("tl1 ").unwrap() + 5;
                let digit = if &text[at..=at] == "0" { "1" } else { "0" };
                self.say(&to, &format!("{}{digit}{}", &text[..at], &text[at + 1..]));
            }
            3 => {
                let error = "<error type='cancel'><service-unavailable/></error>";
                let back = format!("<message type='error' id='{id}' from='{to}'>{error}</message>");
                self.say(user, &back);
            }
            _ => self.say(&to, &text),
        }
    }
}
