//! `http://jabber.org/protocol/commands`: a command with one step, and the form it takes.
//!
//! XEP-0050, XEP-0004. Sessions of several steps are **not** known here: each request says all.

use quick_xml::NsReader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};

use crate::limits::RULES_MAX;
use crate::xmpp::payload::{Misread, Payload, attribute, open_tag};
use crate::xmpp::stanza::{Ns, Stanza};
use crate::xmpp::write;

/// What a client wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Also `next` and `complete`, which with one step are the same.
    Execute,
    Cancel,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub node: String,
    pub action: Action,
    /// The submitted form.
    pub form: Option<Form>,
}

/// Fields with their values.
pub type Form = Vec<(String, Vec<String>)>;

/// Reads the payload of an IQ set.
pub fn read(frame: &[u8], stanza: &Stanza) -> Result<Command, Misread> {
    let mut payload = Payload::new(frame, stanza, Ns::Commands)?;
    let start = payload.open(&["command"])?;
    let node = attribute(&start, "node")?.ok_or(Misread::Missing)?;
    let action = match attribute(&start, "action")?.as_deref() {
        None | Some("execute" | "next" | "complete") => Action::Execute,
        Some("cancel") => Action::Cancel,
        Some(_) => return Err(Misread::Unreadable),
    };
    Ok(Command { node, action, form: read_form(frame, stanza)? })
}

/// The first form of type `submit`, wherever it stands.
fn read_form(frame: &[u8], stanza: &Stanza) -> Result<Option<Form>, Misread> {
    let octets = frame.get(..stanza.len as usize).ok_or(Misread::Unreadable)?;
    let text = std::str::from_utf8(octets).map_err(|_| Misread::Unreadable)?;
    let mut reader = NsReader::from_str(text);
    let mut form: Option<Form> = None;
    let mut values = 0_usize;
    loop {
        let (ns, event) = reader.read_resolved_event().map_err(|_| Misread::Unreadable)?;
        let ours = matches!(ns, ResolveResult::Bound(Namespace(it)) if it == Ns::Data.name());
        let (start, is_empty) = match event {
            Event::Eof => return Ok(form),
            Event::Start(start) if ours => (start, false),
            Event::Empty(start) if ours => (start, true),
            _ => continue,
        };
        match (start.local_name().into_inner(), form.as_mut()) {
            ("x", None) if attribute(&start, "type")?.as_deref() == Some("submit") => {
                form = Some(Vec::new());
            }
            ("x", Some(_)) => return Err(Misread::Doubled),
            ("field", Some(fields)) => {
                if fields.len() >= RULES_MAX {
                    return Err(Misread::TooMany);
                }
                fields.push((attribute(&start, "var")?.unwrap_or_default(), Vec::new()));
            }
            ("value", Some(fields)) => {
                let value = if is_empty { String::new() } else { text_of(&mut reader, &start)? };
                values += 1;
                if values > RULES_MAX {
                    return Err(Misread::TooMany);
                }
                // What a client leaves empty, or writes on no line, is no value.
                if let (Some((_, all)), false) = (fields.last_mut(), value.trim().is_empty()) {
                    all.push(value);
                }
            }
            _ => {}
        }
    }
}

fn text_of(reader: &mut NsReader<&[u8]>, start: &BytesStart<'_>) -> Result<String, Misread> {
    let end = start.to_end();
    let text = reader.read_text(end.name()).map_err(|_| Misread::Unreadable)?;
    let text = text.xml10_content();
    quick_xml::escape::unescape(&text).map(|it| it.into_owned()).map_err(|_| Misread::Unreadable)
}

/// Appends `<command/>` as an answer, with what `inner` writes.
pub fn write(node: &str, status: &str, out: &mut Vec<u8>, inner: impl FnOnce(&mut Vec<u8>)) {
    open_tag("command", Ns::Commands, out);
    write::attr("node", node, out);
    // Nothing is remembered between two requests, so the session has the command's own name.
    write::attr("sessionid", node, out);
    write::attr("status", status, out);
    out.push(b'>');
    if status == "executing" {
        out.extend_from_slice(b"<actions execute='complete'><complete/></actions>");
    }
    inner(out);
    out.extend_from_slice(b"</command>");
}

/// Appends a field of a form.
pub fn field<'a>(
    var: &str,
    kind: &str,
    label: &str,
    values: impl IntoIterator<Item = &'a str>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"<field");
    write::attr("var", var, out);
    write::attr("type", kind, out);
    if !label.is_empty() {
        write::attr("label", label, out);
    }
    out.push(b'>');
    for value in values {
        out.extend_from_slice(b"<value>");
        write::escape_into(value, out);
        out.extend_from_slice(b"</value>");
    }
    out.extend_from_slice(b"</field>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::frame::{Content, one};

    fn command(text: &str) -> Result<Command, Misread> {
        let text = format!("<iq type='set' id='1'>{text}</iq>");
        read(text.as_bytes(), &one(text.as_bytes(), Content::Client).unwrap())
    }

    #[test]
    fn commands_are_read_with_their_forms() {
        const NS: &str = "xmlns='http://jabber.org/protocol/commands'";
        assert_eq!(
            command(&format!("<command {NS} node='n' action='execute'/>")),
            Ok(Command { node: "n".into(), action: Action::Execute, form: None })
        );
        assert_eq!(command(&format!("<command {NS}/>")), Err(Misread::Missing));
        assert_eq!(
            command(&format!("<command {NS} node='n' action='x'/>")),
            Err(Misread::Unreadable)
        );
        let form = "<x xmlns='jabber:x:data' type='submit'><field var='add'>\
                    <value>a@b</value><value> </value><value>c&amp;d</value></field>\
                    <field var='remove'/></x>";
        let read = command(&format!("<command {NS} node='n'>{form}</command>")).unwrap();
        assert_eq!(
            read.form.unwrap(),
            [
                ("add".to_owned(), vec!["a@b".to_owned(), "c&d".to_owned()]),
                ("remove".to_owned(), Vec::new())
            ]
        );
        let canceled = command(&format!("<command {NS} node='n' action='cancel'/>")).unwrap();
        assert_eq!(canceled.action, Action::Cancel);
        let many = format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='add'>{}</field></x>",
            "<value>a</value>".repeat(RULES_MAX + 1)
        );
        assert_eq!(
            command(&format!("<command {NS} node='n'>{many}</command>")),
            Err(Misread::TooMany)
        );
    }

    #[test]
    fn what_is_written_is_what_is_meant() {
        let mut out = Vec::new();
        write("n", "executing", &mut out, |out| field("v", "jid-multi", "L", ["a&b"], out));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<command xmlns='http://jabber.org/protocol/commands' node='n' sessionid='n' \
             status='executing'><actions execute='complete'><complete/></actions>\
             <field var='v' type='jid-multi' label='L'><value>a&amp;b</value></field></command>"
        );
    }
}
