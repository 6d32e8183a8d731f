//! The text of an HTML message, without its markup.
//!
//! Reads what chat clients write: paragraphs, line breaks, character references. White space is
//! taken together as a browser would. Tables, lists and style are **not** drawn.

/// Elements whose content is no text of the message.
const UNSHOWN: &[&str] = &["script", "style", "head", "title", "template"];
/// Elements that stand on lines of their own.
const BLOCKS: &[&str] = &[
    "p",
    "div",
    "li",
    "ul",
    "ol",
    "tr",
    "table",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "blockquote",
    "pre",
    "body",
    "html",
];

/// What a reader of the page sees, in lines.
pub(super) fn text_of(html: &str) -> String {
    let mut page = Page { out: String::with_capacity(html.len()), blank: false };
    let mut rest = html;
    while !rest.is_empty() {
        let at = memchr::memchr2(b'<', b'&', rest.as_bytes()).unwrap_or(rest.len());
        page.text(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('&') {
            let (c, length) = reference(rest);
            page.character(c);
            rest = &rest[length..];
        } else if rest.is_empty() {
            break;
        } else if let Some(length) = tag(rest) {
            let name = name_of(&rest[1..length]);
            let closes = rest[1..].starts_with('/');
            rest = &rest[length..];
            if name == "br" {
                page.line();
            } else if BLOCKS.contains(&name.as_str()) {
                page.block();
            } else if !closes && UNSHOWN.contains(&name.as_str()) {
                rest = behind(rest, &name);
            }
        } else {
            page.character('<');
            rest = &rest[1..];
        }
    }
    page.out.truncate(page.out.trim_end().len());
    page.out
}

struct Page {
    out: String,
    /// White space was seen since the last character.
    blank: bool,
}

impl Page {
    fn text(&mut self, text: &str) {
        for c in text.chars() {
            if c.is_ascii_whitespace() {
                self.blank = true;
            } else {
                self.character(c);
            }
        }
    }

    fn character(&mut self, c: char) {
        if std::mem::take(&mut self.blank) && !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push(' ');
        }
        // A no-break space was written to be seen as one.
        self.out.push(if c == '\u{A0}' { ' ' } else { c });
    }

    fn line(&mut self) {
        self.blank = false;
        self.out.push('\n');
    }

    /// A block begins or ends: on a new line, if there is something before.
    fn block(&mut self) {
        self.blank = false;
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
    }
}

/// The length of the tag, comment or declaration that `rest` starts with. One without an end is all
/// that is left; a `<` that begins none is a character.
fn tag(rest: &str) -> Option<usize> {
    if let Some(comment) = rest.strip_prefix("<!--") {
        return Some(comment.find("-->").map_or(rest.len(), |it| it + 7));
    }
    let begins = rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || "/!?".contains(c));
    if !begins {
        return None;
    }
    let mut quote = None;
    for (at, octet) in rest.bytes().enumerate() {
        match (quote, octet) {
            (None, b'>') => return Some(at + 1),
            // A quote is one only in a value.
            (None, b'"' | b'\'') if rest[..at].ends_with('=') => quote = Some(octet),
            (Some(open), octet) if open == octet => quote = None,
            _ => {}
        }
    }
    Some(rest.len())
}

/// The lower-case name of an element by what is between `<` and `>`.
fn name_of(tag: &str) -> String {
    let tag = tag.strip_prefix('/').unwrap_or(tag);
    let end = tag.bytes().position(|it| !it.is_ascii_alphanumeric()).unwrap_or(tag.len());
    tag[..end.min(16)].to_ascii_lowercase()
}

/// What is behind the end of an element that is not shown; nothing, if it does not end.
fn behind<'a>(rest: &'a str, name: &str) -> &'a str {
    let mut at = 0;
    while let Some(found) = memchr::memmem::find(&rest.as_bytes()[at..], b"</") {
        let start = at + found;
        let end = &rest[start..];
        if end.get(2..2 + name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name)) {
            return end.split_once('>').map_or("", |(_, behind)| behind);
        }
        at = start + 2;
    }
    ""
}

/// The character that `rest`, which starts with `&`, refers to, and how long that is. What is no
/// reference is the ampersand itself.
fn reference(rest: &str) -> (char, usize) {
    // No reference is longer than this.
    let end = rest.bytes().take(12).position(|it| it == b';');
    let Some(name) = end.and_then(|end| rest.get(1..end)) else { return ('&', 1) };
    let c = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{A0}'),
        "auml" => Some('ä'),
        "ouml" => Some('ö'),
        "uuml" => Some('ü'),
        "Auml" => Some('Ä'),
        "Ouml" => Some('Ö'),
        "Uuml" => Some('Ü'),
        "szlig" => Some('ß'),
        "euro" => Some('€'),
        "copy" => Some('©'),
        "hellip" => Some('…'),
        "ndash" => Some('–'),
        "mdash" => Some('—'),
        _ => name.strip_prefix('#').and_then(numeric),
    };
    c.map_or(('&', 1), |c| (c, name.len() + 2))
}

fn numeric(number: &str) -> Option<char> {
    let code = match number.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    code.ok().map(|it| char::from_u32(it).unwrap_or(char::REPLACEMENT_CHARACTER))
}

#[cfg(test)]
mod tests {
    use super::text_of;

    #[test]
    fn what_a_reader_sees() {
        for (html, text) in [
            ("Hello", "Hello"),
            (
                "<html><body><p>Hello <b>big</b>\r\n  world</p><p>two</p></body></html>",
                "Hello big world\ntwo",
            ),
            ("a<br>b<BR/>c<br />d", "a\nb\nc\nd"),
            ("<DIV>a</DIV><DIV>b</DIV>", "a\nb"),
            ("1 &lt; 2 &amp;&amp; &quot;x&quot; &#252;&#xFC;&uuml;", "1 < 2 && \"x\" üüü"),
            ("a&nbsp;&nbsp;b", "a  b"),
            ("a & b &; &bogus; &#xD800; &", "a & b &; &bogus; \u{FFFD} &"),
            ("1 < 2 > 1 <3", "1 < 2 > 1 <3"),
            ("<head><title>t</title></head>x<style>p{}</Style >y<script>if(a</b)</script>z", "xyz"),
            ("a<!-- <b> -->b<!DOCTYPE html>c<?xml x?>d", "abcd"),
            ("<a href=\"x>y\" title='>'>link</a>", "link"),
            ("<p title=it's>a</p>b", "a\nb"),
            ("<b", ""),
            ("a<!--", "a"),
            ("a<script>never ends", "a"),
            ("<span style=\"font-size:9pt;color:#000\">Grüße 😀</span>", "Grüße 😀"),
            ("", ""),
            ("<", "<"),
            ("&", "&"),
        ] {
            assert_eq!(text_of(html), text, "{html}");
        }
    }
}
