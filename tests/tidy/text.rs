//! Sources as text: code apart from comments, and the paths that code names.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file: as written, and again with comments and the insides of strings blanked.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: Vec<String>,
    pub(crate) code: Vec<String>,
    pub(crate) comments: Vec<String>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let lines = |it: &str| it.lines().map(str::to_owned).collect::<Vec<_>>();
        Self {
            path: path.into(),
            text: lines(text),
            code: lines(&code),
            comments: lines(&comments),
        }
    }

    /// The module of the library that the file belongs to: `src/xmpp/jid.rs` is of `xmpp`.
    pub(crate) fn module(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let module = rest.split('/').next()?.trim_end_matches(".rs");
        (!matches!(module, "lib" | "main" | "bin")).then_some(module)
    }

    pub(crate) fn is_long_on_purpose(&self) -> bool {
        self.text.iter().any(|it| it.starts_with("//! Long on purpose:"))
    }
}

pub(crate) fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "__pycache__" {
            continue;
        }
        if path.is_dir() {
            walk(&path, paths);
        } else {
            paths.push(path);
        }
    }
}

/// The name in `pub(crate) mod name;`.
pub(crate) fn mod_line(line: &str) -> Option<&str> {
    let (before, rest) = if let Some(rest) = line.strip_prefix("mod ") {
        ("", rest)
    } else {
        line.split_once(" mod ")?
    };
    (before.is_empty() || before.starts_with("pub") || before.starts_with('#'))
        .then(|| rest.strip_suffix(';'))?
}

pub(crate) fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

/// `a/b/../c` is `a/c`.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|it| !it.is_empty() && *it != ".") {
        if part == ".." {
            {
                parts.pop();
            }
        } else {
            parts.push(part)
        }
    }
    parts.join("/")
}

pub(crate) fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

pub(crate) fn is_word(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|it| it.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|it| it.chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Every path that starts at `root`, with the lists in braces spelt out, and the line it begins on.
pub(crate) fn paths_from(code: &[String], root: &str) -> Vec<(usize, String)> {
    let text = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&format!("{root}::")) {
        let before = text.get(..at).unwrap_or_default();
        // `$crate` and `crate` begin a path; `my_crate` and `a::crate` don't.
        if before.ends_with(|it| is_word(it) || it == ':') {
            continue;
        }
        let line = before.matches('\n').count();
        let rest: String =
            text.get(at + root.len() + 2..).unwrap_or_default().chars().take(4096).collect();
        let mut chars = rest.chars().peekable();
        tree(&mut chars, root, line, &mut found);
    }
    found
}

fn tree(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    prefix: &str,
    line: usize,
    found: &mut Vec<(usize, String)>,
) {
    while chars.next_if(|it| it.is_whitespace()).is_some() {}
    if chars.next_if_eq(&'{').is_some() {
        loop {
            tree(chars, prefix, line, found);
            while chars.next_if(|it| it.is_whitespace()).is_some() {}
            if chars.next_if_eq(&',').is_none() {
                chars.next();
                break;
            }
        }
        return;
    }
    let mut name = String::new();
    while let Some(it) = chars.next_if(|it| is_word(*it) || *it == '*') {
        name.push(it);
    }
    if name.is_empty() {
        return;
    }
    let path = format!("{prefix}::{name}");
    let mut ahead = chars.clone();
    if ahead.next() == Some(':') && ahead.next() == Some(':') {
        *chars = ahead;
        return tree(chars, &path, line, found);
    }
    // ` as Name` belongs to the list, not to the path.
    while chars.next_if(|it| is_word(*it) || *it == ' ').is_some() {}
    found.push((line, path));
}

/// The text twice: with comments and insides of strings blanked, and with only comments kept.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut at = 0;
    while at < chars.len() {
        let rest = chars.get(at..).unwrap_or_default();
        let (take, kind) = token(rest, at.checked_sub(1).and_then(|it| chars.get(it)).copied());
        for it in rest.iter().take(take.max(1)) {
            let blank = if *it == '\n' { '\n' } else { ' ' };
            code.push(if kind == Kind::Code { *it } else { blank });
            comments.push(if kind == Kind::Comment { *it } else { blank });
        }
        at += take.max(1);
    }
    (code, comments)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Comment,
    Text,
}

/// How many characters the token at the front has, and of which kind it is.
fn token(rest: &[char], before: Option<char>) -> (usize, Kind) {
    let front: String = rest.iter().take(2).collect();
    if front == "//" {
        return (rest.iter().position(|it| *it == '\n').unwrap_or(rest.len()), Kind::Comment);
    }
    if front == "/*" {
        let end = rest.windows(2).position(|it| it == ['*', '/']).map_or(rest.len(), |it| it + 2);
        return (end, Kind::Comment);
    }
    if rest.first() == Some(&'r') && !before.is_some_and(|it| is_word(it) && it != 'b') {
        let hashes = rest.iter().skip(1).take_while(|it| **it == '#').count();
        if rest.get(1 + hashes) == Some(&'"') {
            let close: Vec<char> =
                std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let inside = rest.get(2 + hashes..).unwrap_or_default();
            let end =
                inside.windows(close.len()).position(|it| it == close).unwrap_or(inside.len());
            return (2 + hashes + end + close.len(), Kind::Text);
        }
    }
    match rest {
        ['"', ..] => (closing(rest, '"'), Kind::Text),
        ['\'', '\\', ..] => (closing(rest, '\''), Kind::Text),
        ['\'', _, '\'', ..] => (3, Kind::Text),
        _ => (1, Kind::Code),
    }
}

fn closing(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while let Some(it) = rest.get(at) {
        match it {
            '\\' => at += 2,
            it if *it == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}
