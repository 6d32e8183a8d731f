//! Escaping what a local part may not hold, for names that come from elsewhere.
//!
//! XEP-0106, 4. An address keeps its local part escaped; only the gateway, when it writes a name of
//! the other protocol, takes the escapes away. Does **not** prepare: escape first, prepare then.

use std::borrow::Cow;

// XEP-0106, 4.2: what is escaped, with its code in lower-case hexadecimal.
const ESCAPES: [(char, &str); 10] = [
    (' ', "20"),
    ('"', "22"),
    ('&', "26"),
    ('\'', "27"),
    ('/', "2f"),
    (':', "3a"),
    ('<', "3c"),
    ('>', "3e"),
    ('@', "40"),
    ('\\', "5c"),
];

/// `raw` as a local part can hold it. `None` if it begins or ends with a space, which has no
/// escaped form (XEP-0106, 4.2).
pub fn escape_local(raw: &str) -> Option<Cow<'_, str>> {
    if raw.starts_with(' ') || raw.ends_with(' ') {
        return None;
    }
    if !raw.contains(|c| ESCAPES.iter().any(|&(it, _)| it == c)) {
        return Some(Cow::Borrowed(raw));
    }
    let mut escaped = String::with_capacity(raw.len() + 8);
    for (at, c) in raw.char_indices() {
        match ESCAPES.iter().find(|&&(it, _)| it == c) {
            // A backslash stands for itself unless what follows would be read as an escape.
            Some(('\\', _)) if code_at(&raw[at + 1..]).is_none() => escaped.push('\\'),
            Some((_, code)) => {
                escaped.push('\\');
                escaped.push_str(code);
            }
            None => escaped.push(c),
        }
    }
    Some(Cow::Owned(escaped))
}

/// The name that was escaped. What is no escape stays as it is.
pub fn unescape_local(local: &str) -> Cow<'_, str> {
    if !local.contains('\\') {
        return Cow::Borrowed(local);
    }
    let mut raw = String::with_capacity(local.len());
    let mut rest = local;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let escape = if c == '\\' { code_at(after) } else { None };
        // XEP-0106, 4.2: \20 at either end is no space.
        let at_end = rest.len() == local.len() || after.len() == 2;
        match escape {
            Some(' ') if at_end => {
                raw.push(c);
                rest = after;
            }
            Some(it) => {
                raw.push(it);
                rest = &after[2..];
            }
            None => {
                raw.push(c);
                rest = after;
            }
        }
    }
    Cow::Owned(raw)
}

/// The character whose code `text` starts with. Nodeprep folds capitals, so they count as well.
fn code_at(text: &str) -> Option<char> {
    let code = text.get(..2)?;
    ESCAPES.iter().find(|(_, it)| it.eq_ignore_ascii_case(code)).map(|&(c, _)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_specification() {
        for (raw, escaped) in [
            ("space cadet", r"space\20cadet"),
            ("call me \"ishmael\"", r"call\20me\20\22ishmael\22"),
            ("at&t guy", r"at\26t\20guy"),
            ("d'artagnan", r"d\27artagnan"),
            ("/.fanboy", r"\2f.fanboy"),
            ("::foo::", r"\3a\3afoo\3a\3a"),
            ("<foo>", r"\3cfoo\3e"),
            ("user@host", r"user\40host"),
            (r"c:\net", r"c\3a\net"),
            (r"c:\\net", r"c\3a\\net"),
            (r"c:\cool stuff", r"c\3a\cool\20stuff"),
            (r"c:\5commas", r"c\3a\5c5commas"),
        ] {
            assert_eq!(escape_local(raw).unwrap(), escaped);
            assert_eq!(unescape_local(escaped), raw);
        }
        assert_eq!(escape_local(" a"), None);
        assert_eq!(unescape_local(r"\20a\20"), r"\20a\20");
    }

    #[test]
    fn what_was_escaped_comes_back() {
        let parts = ["a", "\\", "20", "5c", "5C", "2f", " ", "@", "é", "/", "\\5c", "\\20"];
        for i in 0..parts.len().pow(4) {
            let raw: String = (0..4).map(|n| parts[i / parts.len().pow(n) % parts.len()]).collect();
            if let Some(escaped) = escape_local(&raw) {
                assert_eq!(unescape_local(&escaped), raw, "{escaped}");
                assert!(!escaped.contains(['@', '/', ' ']));
            }
        }
    }
}
