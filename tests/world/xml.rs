//! XML as scenes see it: a stream cut into its pieces, pieces as trees, trees compared with patterns.
//!
//! Written apart from the switch's own framer, so that one checks the other. Knows what the switch
//! may write and scenes contain; it is **not** a parser for hostile octets.

use std::collections::BTreeMap;

/// An element with its namespace resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) ns: String,
    pub(crate) name: String,
    /// By `name`, or `{namespace}name` where the attribute has a prefix.
    pub(crate) attrs: BTreeMap<String, String>,
    pub(crate) children: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Element(Element),
    Text(String),
}

/// What stands in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// The header; its children stay empty.
    Open(Element),
    Element(Element),
    Close,
}

/// What patterns have bound.
pub(crate) type Captures = BTreeMap<String, String>;

const STREAMS: &str = "http://etherx.jabber.org/streams";
const DIALBACK: &str = "jabber:server:dialback";
const XML: &str = "http://www.w3.org/XML/1998/namespace";

/// Cuts the next piece from the front of `buf`; `None`: it is not whole yet.
pub(crate) fn cut(buf: &mut Vec<u8>, content: &str) -> Result<Option<Item>, String> {
    let blanks = buf.iter().take_while(|b| b.is_ascii_whitespace()).count();
    buf.drain(..blanks);
    if buf.starts_with(b"<?") {
        let Some(end) = find(buf, b"?>") else { return Ok(None) };
        buf.drain(..end + 2);
        return cut(buf, content);
    }
    if buf.is_empty() {
        return Ok(None);
    }
    if buf[0] != b'<' {
        return Err(format!("text between elements: {}", String::from_utf8_lossy(buf)));
    }
    if buf.starts_with(b"</") {
        let Some(end) = find(buf, b">") else { return Ok(None) };
        let tag: Vec<u8> = buf.drain(..=end).collect();
        return match tag.as_slice() {
            b"</stream:stream>" => Ok(Some(Item::Close)),
            _ => Err(format!("an end without a start: {}", String::from_utf8_lossy(&tag))),
        };
    }
    let is_header = buf.starts_with(b"<stream:stream ");
    let Some(length) = (if is_header { tag_end(buf) } else { element_end(buf)? }) else {
        return Ok(None);
    };
    let octets: Vec<u8> = buf.drain(..length).collect();
    let mut text = String::from_utf8(octets).map_err(|e| format!("not UTF-8: {e}"))?;
    if is_header {
        text.push_str("</stream:stream>");
        return Ok(Some(Item::Open(parse(&text, content)?)));
    }
    Ok(Some(Item::Element(parse(&text, content)?)))
}

/// All pieces of a pattern or of a recorded text.
pub(crate) fn items(text: &str, content: &str) -> Result<Vec<Item>, String> {
    let mut buf = text.as_bytes().to_vec();
    let mut items = Vec::new();
    while let Some(item) = cut(&mut buf, content)? {
        items.push(item);
    }
    match buf.is_empty() {
        true => Ok(items),
        false => Err(format!("an unfinished element: {}", String::from_utf8_lossy(&buf))),
    }
}

fn find(buf: &[u8], what: &[u8]) -> Option<usize> {
    buf.windows(what.len()).position(|w| w == what)
}

/// Length of the tag at the start.
fn tag_end(buf: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (i, b) in buf.iter().enumerate() {
        match (quote, b) {
            (Some(q), b) if q == *b => quote = None,
            (None, b'\'' | b'"') => quote = Some(*b),
            (None, b'>') => return Some(i + 1),
            _ => {}
        }
    }
    None
}

fn element_end(buf: &[u8]) -> Result<Option<usize>, String> {
    let (mut at, mut depth) = (0, 0_usize);
    while at < buf.len() {
        let rest = &buf[at..];
        if rest[0] != b'<' {
            at += 1;
            continue;
        }
        if b"<![CDATA[".starts_with(&rest[..rest.len().min(9)]) && rest.len() > 1 {
            let Some(end) = find(rest, b"]]>") else { return Ok(None) };
            at += end + 3;
            continue;
        }
        let Some(length) = tag_end(rest) else { return Ok(None) };
        match (rest[1], rest[length - 2]) {
            (b'/', _) => depth = depth.checked_sub(1).ok_or("an end too many")?,
            (b'!' | b'?', _) => return Err("no element".into()),
            (_, b'/') => {}
            _ => depth += 1,
        }
        at += length;
        if depth == 0 {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Parses one element; `content` is the namespace of what has no prefix.
fn parse(text: &str, content: &str) -> Result<Element, String> {
    let scope = BTreeMap::from([
        (String::new(), content.to_owned()),
        ("stream".to_owned(), STREAMS.to_owned()),
        ("db".to_owned(), DIALBACK.to_owned()),
        ("xml".to_owned(), XML.to_owned()),
    ]);
    let mut rest = text;
    let element = parse_element(&mut rest, &scope)?;
    match rest {
        "" => Ok(element),
        rest => Err(format!("more behind an element: {rest}")),
    }
}

#[expect(clippy::too_many_lines, reason = "the order is the content: tag, attributes, children")]
fn parse_element(rest: &mut &str, outer: &BTreeMap<String, String>) -> Result<Element, String> {
    let length = tag_end(rest.as_bytes()).ok_or("an unfinished tag")?;
    let (tag, behind) = rest.split_at(length);
    *rest = behind;
    let empty = tag.ends_with("/>");
    let inside = tag[1..tag.len() - 1].trim_end_matches('/');
    let name_end = inside.find(char::is_whitespace).unwrap_or(inside.len());
    let (qname, mut attrs_text) = inside.split_at(name_end);
    let mut scope = outer.clone();
    let mut raw = Vec::new();
    loop {
        attrs_text = attrs_text.trim_start();
        if attrs_text.is_empty() {
            break;
        }
        let (name, after) =
            attrs_text.split_once('=').ok_or_else(|| format!("no attribute: {tag}"))?;
        let after = after.trim_start();
        let quote = after.chars().next().ok_or("no value")?;
        let (value, after) = after[1..].split_once(quote).ok_or("an open value")?;
        attrs_text = after;
        let (name, value) = (name.trim(), unescape(value));
        match name.strip_prefix("xmlns") {
            Some("") => drop(scope.insert(String::new(), value)),
            Some(prefix) if prefix.starts_with(':') => {
                scope.insert(prefix[1..].to_owned(), value);
            }
            _ => raw.push((name.to_owned(), value)),
        }
    }
    let resolve = |qname: &str| -> Result<(String, String), String> {
        let (prefix, name) = qname.split_once(':').unwrap_or(("", qname));
        let ns =
            scope.get(prefix).ok_or_else(|| format!("prefix {prefix} is not declared: {tag}"))?;
        Ok((ns.clone(), name.to_owned()))
    };
    let (ns, name) = resolve(qname)?;
    let mut element = Element { ns, name, attrs: BTreeMap::new(), children: Vec::new() };
    for (name, value) in raw {
        let key = match name.contains(':') {
            true => resolve(&name).map(|(ns, name)| format!("{{{ns}}}{name}"))?,
            false => name,
        };
        if element.attrs.insert(key, value).is_some() {
            return Err(format!("an attribute twice: {tag}"));
        }
    }
    if empty {
        return Ok(element);
    }
    loop {
        if let Some(cdata) = rest.strip_prefix("<![CDATA[") {
            let (text, behind) = cdata.split_once("]]>").ok_or("open CDATA")?;
            add_text(&mut element, text);
            *rest = behind;
        } else if let Some(behind) = rest.strip_prefix("</") {
            let (name, behind) = behind.split_once('>').ok_or("an open end")?;
            *rest = behind;
            if name.trim_end() != qname {
                return Err(format!("{qname} ends as {name}"));
            }
            break;
        } else if rest.starts_with('<') {
            let child = parse_element(rest, &scope)?;
            element.children.push(Node::Element(child));
        } else {
            let end = rest.find('<').ok_or_else(|| format!("{qname} has no end"))?;
            add_text(&mut element, &unescape(&rest[..end]));
            *rest = &rest[end..];
        }
    }
    Ok(element)
}

fn add_text(element: &mut Element, text: &str) {
    match element.children.last_mut() {
        Some(Node::Text(before)) => before.push_str(text),
        _ => element.children.push(Node::Text(text.to_owned())),
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (name, after) = after.split_once(';').unwrap_or((after, ""));
        match name {
            "lt" => out.push('<'),
            "gt" => out.push('>'),
            "amp" => out.push('&'),
            "quot" => out.push('"'),
            "apos" => out.push('\''),
            _ => {
                let number = name.strip_prefix("#x").map_or_else(
                    || name.strip_prefix('#').and_then(|n| n.parse().ok()),
                    |hex| u32::from_str_radix(hex, 16).ok(),
                );
                out.push(number.and_then(char::from_u32).unwrap_or('\u{fffd}'));
            }
        }
        rest = after;
    }
    out + rest
}

/// Compares a piece with a pattern. `{any}` stands for any value that is there, `{maybe}` for an
/// attribute that need not be there, `{id:x}` (any word before
/// the colon) binds it to a name or compares it with what was bound, the text `{...}` stands for any more children.
pub(crate) fn matches(
    pattern: &Item,
    actual: &Item,
    captures: &mut Captures,
) -> Result<(), String> {
    match (pattern, actual) {
        (Item::Close, Item::Close) => Ok(()),
        (Item::Open(p), Item::Open(a)) | (Item::Element(p), Item::Element(a)) => {
            element_matches(p, a, captures)
        }
        _ => Err("they are different pieces of a stream".into()),
    }
}

fn element_matches(p: &Element, a: &Element, captures: &mut Captures) -> Result<(), String> {
    if (&p.ns, &p.name) != (&a.ns, &a.name) {
        return Err(format!("<{} {}> instead of <{} {}>", a.name, a.ns, p.name, p.ns));
    }
    for key in p.attrs.keys().chain(a.attrs.keys()) {
        match (p.attrs.get(key), a.attrs.get(key)) {
            (Some(pattern), _) if pattern == "{maybe}" => {}
            (Some(pattern), Some(value)) => value_matches(pattern, value, captures)
                .map_err(|why| format!("{}: attribute {key}: {why}", p.name))?,
            (Some(_), None) => return Err(format!("{}: attribute {key} is not there", p.name)),
            _ => return Err(format!("{}: attribute {key} is too much", p.name)),
        }
    }
    let (pattern, open) = significant(p);
    let (actual, _) = significant(a);
    let mut actual = actual.into_iter();
    'children: for wanted in pattern {
        let mut first = None;
        for found in actual.by_ref() {
            match node_matches(&wanted, &found, captures) {
                Ok(()) => continue 'children,
                Err(why) if !open => return Err(format!("{}: {why}", p.name)),
                Err(why) => drop(first.get_or_insert(why)),
            }
        }
        let why = first.map(|why| format!(" ({why})")).unwrap_or_default();
        return Err(format!("{}: a child is missing: {wanted:?}{why}", p.name));
    }
    match actual.next() {
        Some(more) if !open => Err(format!("{}: a child too much: {more:?}", p.name)),
        _ => Ok(()),
    }
}

/// Children without blanks around texts; true: the pattern is open.
fn significant(element: &Element) -> (Vec<Node>, bool) {
    let mut open = false;
    let nodes = element
        .children
        .iter()
        .filter_map(|node| match node {
            Node::Element(_) => Some(node.clone()),
            Node::Text(text) => {
                let trimmed = text.trim();
                open |= trimmed == "{...}";
                (!trimmed.is_empty() && trimmed != "{...}").then(|| Node::Text(trimmed.to_owned()))
            }
        })
        .collect();
    (nodes, open)
}

fn node_matches(p: &Node, a: &Node, captures: &mut Captures) -> Result<(), String> {
    match (p, a) {
        (Node::Element(p), Node::Element(a)) => element_matches(p, a, captures),
        (Node::Text(p), Node::Text(a)) => value_matches(p, a, captures),
        _ => Err("text instead of an element, or the reverse".into()),
    }
}

fn value_matches(pattern: &str, value: &str, captures: &mut Captures) -> Result<(), String> {
    if pattern == "{any}" {
        return Ok(());
    }
    let binding = pattern.strip_prefix('{').and_then(|p| p.strip_suffix('}')?.split_once(':'));
    if let Some((_, name)) = binding.filter(|(what, _)| what.chars().all(char::is_alphanumeric)) {
        let bound = captures.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        return (bound == value)
            .then_some(())
            .ok_or_else(|| format!("{value:?}, {name} was {bound:?}"));
    }
    let wanted = fill(pattern, captures);
    (wanted == value).then_some(()).ok_or_else(|| format!("{value:?} instead of {wanted:?}"))
}

/// Puts what was bound in place of `{x}`.
pub(crate) fn fill(text: &str, captures: &Captures) -> String {
    captures
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}
