//! The text of an RTF message, without its control words (RTF 1.9.1).
//!
//! Reads what chat clients write: `\uN`, `\'xx` of Western European, paragraphs. Pictures, objects
//! and tables of fonts are passed over. Other code pages are **not** known: such clients send `\u`.

use crate::gateway::part::western;
use crate::limits::RTF_DEPTH_MAX;

/// Groups whose content is no text of the message.
const UNSHOWN: &[&str] = &[
    "fonttbl",
    "colortbl",
    "stylesheet",
    "info",
    "pict",
    "object",
    "header",
    "footer",
    "generator",
    "listtable",
    "listoverridetable",
    "rsidtbl",
    "themedata",
    "datastore",
    "xmlnstbl",
    "fldinst",
];

/// What a group hands down to those in it.
#[derive(Clone, Copy)]
struct Group {
    shown: bool,
    /// Characters that stand for a `\u` to those who don't know it.
    skip: usize,
}

struct Page {
    out: String,
    /// The first half of a pair of `\u`.
    high: Option<u16>,
    /// Characters that are still to be passed over.
    skip: usize,
}

impl Page {
    fn character(&mut self, c: char, shown: bool) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if shown {
            if self.high.take().is_some() {
                self.out.push(char::REPLACEMENT_CHARACTER);
            }
            self.out.push(c);
        }
    }

    fn unit(&mut self, unit: u16, shown: bool) {
        if !shown {
            return;
        }
        let units = [self.high.take().unwrap_or(unit), unit];
        match unit {
            0xD800..=0xDBFF => {
                if units[0] != unit {
                    self.out.push(char::REPLACEMENT_CHARACTER);
                }
                self.high = Some(unit);
            }
            0xDC00..=0xDFFF => {
                let pair = char::decode_utf16(units).next().and_then(Result::ok);
                self.out.push(pair.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            _ => {
                if units[0] != unit {
                    self.out.push(char::REPLACEMENT_CHARACTER);
                }
                self.out.push(char::from_u32(unit.into()).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
    }
}

/// What a reader of the text sees; `None` if it is not RTF or nests too deep.
pub(super) fn text_of(rtf: &str) -> Option<String> {
    let mut rest = rtf.trim_start().strip_prefix("{\\rtf")?;
    let mut groups = vec![Group { shown: true, skip: 1 }];
    let mut page = Page { out: String::with_capacity(rest.len()), high: None, skip: 0 };
    // The version, as in `\rtf1`, and the blank that ends the word.
    rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    rest = rest.strip_prefix(' ').unwrap_or(rest);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let depth = groups.len();
        let group = groups.last_mut()?;
        match c {
            '{' if depth >= RTF_DEPTH_MAX => return None,
            '{' => {
                let group = *group;
                groups.push(group);
                page.skip = 0;
            }
            '}' => {
                groups.pop();
                page.skip = 0;
                if groups.is_empty() {
                    break;
                }
            }
            '\\' => rest = control(rest, group, &mut page),
            '\r' | '\n' => {}
            c => page.character(c, group.shown),
        }
    }
    if page.high.is_some() {
        page.out.push(char::REPLACEMENT_CHARACTER);
    }
    page.out.truncate(page.out.trim_end().len());
    Some(page.out)
}

/// A control word or symbol, whose backslash was read; what follows it.
fn control<'a>(rest: &'a str, group: &mut Group, page: &mut Page) -> &'a str {
    let Some(first) = rest.chars().next() else { return "" };
    let behind = &rest[first.len_utf8()..];
    if first == '\'' {
        let octet = behind.get(..2).and_then(|it| u8::from_str_radix(it, 16).ok());
        return match octet {
            Some(octet) => {
                page.character(western(octet), group.shown);
                &behind[2..]
            }
            None => behind,
        };
    }
    if !first.is_ascii_alphabetic() {
        match first {
            '\\' | '{' | '}' => page.character(first, group.shown),
            '~' => page.character(' ', group.shown),
            '_' => page.character('-', group.shown),
            '\r' | '\n' => page.character('\n', group.shown),
            // RTF 1.9.1: a group that those who don't know its word pass over.
            '*' => group.shown = false,
            _ => {}
        }
        return behind;
    }
    let name_end = rest.bytes().position(|it| !it.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (name, mut rest) = rest.split_at(name_end);
    let digits = rest.strip_prefix('-').unwrap_or(rest);
    let digits = digits.bytes().position(|it| !it.is_ascii_digit()).unwrap_or(digits.len());
    let mut number = None;
    if digits > 0 {
        let length = digits + usize::from(rest.starts_with('-'));
        number = rest[..length].parse::<i32>().ok();
        rest = &rest[length..];
    }
    rest = rest.strip_prefix(' ').unwrap_or(rest);
    word(name, number, group, page);
    if name == "bin" {
        // So many octets follow that are no text.
        let count = usize::try_from(number.unwrap_or(0)).unwrap_or(0);
        let end = (count.min(rest.len())..=rest.len()).find(|it| rest.is_char_boundary(*it));
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    rest
}

fn word(name: &str, number: Option<i32>, group: &mut Group, page: &mut Page) {
    let c = match name {
        "par" | "line" | "sect" | "page" | "row" => '\n',
        "tab" | "cell" => '\t',
        "emdash" => '—',
        "endash" => '–',
        "bullet" => '•',
        "lquote" => '‘',
        "rquote" => '’',
        "ldblquote" => '“',
        "rdblquote" => '”',
        "emspace" | "enspace" | "qmspace" => ' ',
        "u" => {
            // A signed number of 16 bits (RTF 1.9.1); some write it unsigned.
            if let Some(number) = number {
                page.skip = 0;
                page.unit((number & 0xFFFF) as u16, group.shown);
                page.skip = group.skip;
            }
            return;
        }
        "uc" => {
            group.skip = number.and_then(|it| usize::try_from(it).ok()).unwrap_or(1).min(16);
            return;
        }
        name => {
            if UNSHOWN.contains(&name) {
                group.shown = false;
            }
            return;
        }
    };
    page.character(c, group.shown);
}

#[cfg(test)]
mod tests {
    use super::text_of;

    #[test]
    fn what_a_reader_sees() {
        for (rtf, text) in [
            (r"{\rtf1 Hello}", "Hello"),
            (
                "{\\rtf1\\fbidis\\ansi\\ansicpg1252\\deff0\\deflang1033{\\fonttbl{\\f0\\fnil\\fcharset0 \
                 Segoe UI;}}\r\n{\\colortbl ;\\red0\\green0\\blue0;}\r\n{\\*\\generator Riched20 \
                 15.0.4420}{\\*\\mmathPr\\mwrapIndent1440 }\r\n\\viewkind4\\uc1 \\pard\\cf1\\f0\\fs20 \
                 Hello\\par\r\nworld\\par\r\n{\\*\\lyncflags<rtf=1>}}\r\n",
                "Hello\nworld",
            ),
            (r"{\rtf1 a\'fcb\'80}", "aüb€"),
            (r"{\rtf1\uc1 \u252?\u8364 ?x}", "ü€x"),
            (r"{\rtf1 \u-10179?\u-8704?!}", "😀!"),
            (r"{\rtf1\uc0 \u55357\u56832 a}", "😀a"),
            (r"{\rtf1\uc2 \u252abc}", "üc"),
            (r"{\rtf1 \u252\'fcx}", "üx"),
            (r"{\rtf1 \u-10179?x\u-8704?}", "\u{FFFD}x\u{FFFD}"),
            (r"{\rtf1 \{a\\b\}\~c\_d\-e}", r"{a\b} c-de"),
            (r"{\rtf1 a\tab b\line c\emdash d}", "a\tb\nc—d"),
            (r"{\rtf1 a{\pict\bin2 }}}{\b c}}tail", "ac"),
            (r"{\rtf1 a{\*\x b}{\field{\*\fldinst HYPERLINK x}{\fldrslt shown}}}", "ashown"),
            (r"{\rtf1 never ends", "never ends"),
            (r"{\rtf1 a\", "a"),
            (r"{\rtf1 a\'", "a"),
            (r"{\rtf1 a\'zz\bin-5 b\u", "azzb"),
            ("{\\rtf1 Grüße\\bin99999999 x", "Grüße"),
        ] {
            assert_eq!(text_of(rtf).as_deref(), Some(text), "{rtf}");
        }
        assert_eq!(text_of("Hello"), None);
        assert_eq!(text_of(&format!("{{\\rtf1 {}", "{".repeat(100))), None);
    }
}
