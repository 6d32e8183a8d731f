//! What is wrong with a configuration, and how it is told.
//!
//! A finding names its place (file, line, column), what is wrong, why it matters and how to mend
//! it. All findings of a run are collected, sorted by line and printed together, as text with the
//! source line and a caret, or as JSON for editors and pipelines. The codes are stable.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::json;

/// Whether the node can run in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It can't: exit 78.
    Error,
    /// It can, but an operator should read this.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Stable: `C0104`.
    pub code: &'static str,
    pub severity: Severity,
    /// Octets of the file; empty at 0 if the whole file is meant.
    pub span: Range<usize>,
    /// What is wrong, in one sentence without a full stop.
    pub what: String,
    /// Beside the caret: a few words about exactly this place.
    pub mark: String,
    /// Why it matters.
    pub why: String,
    /// How to mend it.
    pub mend: String,
    /// A second place that takes part, with a few words about it.
    pub other: Option<(Range<usize>, String)>,
}

impl Finding {
    /// An error at a place.
    pub fn error(code: &'static str, span: Range<usize>, what: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, span, what.into())
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, span: Range<usize>, what: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, span, what.into())
    }

    fn new(code: &'static str, severity: Severity, span: Range<usize>, what: String) -> Self {
        let nothing = String::new;
        Self {
            code,
            severity,
            span,
            what,
            mark: nothing(),
            why: nothing(),
            mend: nothing(),
            other: None,
        }
    }

    /// The words beside the caret.
    pub fn mark(self, mark: impl Into<String>) -> Self {
        Self { mark: mark.into(), ..self }
    }

    /// Why it matters.
    pub fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    /// How to mend it.
    pub fn mend(self, mend: impl Into<String>) -> Self {
        Self { mend: mend.into(), ..self }
    }

    /// The second place.
    pub fn other(self, span: Range<usize>, words: impl Into<String>) -> Self {
        Self { other: Some((span, words.into())), ..self }
    }
}

/// All findings over one file, with its text to point into.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    path: PathBuf,
    source: String,
    list: Vec<Finding>,
}

impl Findings {
    /// None yet.
    pub fn new(path: &Path, source: &str) -> Self {
        Self { path: path.to_owned(), source: source.to_owned(), list: Vec::new() }
    }

    /// One more.
    pub fn push(&mut self, finding: Finding) {
        self.list.push(finding);
    }

    /// Makes a secret in the text unreadable, so that no excerpt shows it.
    pub fn conceal(&mut self, span: &Range<usize>) {
        // Octets for octets: all other places stay where they are.
        let inside = span.start + 1..span.end.saturating_sub(1);
        if let Some(text) = self.source.get(inside.clone()) {
            let stars = "*".repeat(text.len());
            self.source.replace_range(inside, &stars);
        }
    }

    /// Sorted by place, errors before warnings at the same one.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|it| (it.span.start, it.severity == Severity::Warning, it.code));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// How many keep the node from running.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|it| it.severity == Severity::Error).count()
    }

    /// How many do not.
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    /// Line and column, both from 1; the column counts characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.source.get(..offset.min(self.source.len())).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The findings as people read them.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for finding in &self.list {
            // Writing to a String can't fail.
            self.render_one(finding, colour, &mut out).ok();
        }
        out
    }

    fn render_one(&self, finding: &Finding, colour: bool, out: &mut String) -> fmt::Result {
        let paint = Paint(colour);
        let (word, tint) = match finding.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
        };
        let head = paint.with(tint, &format!("{word}[{}]", finding.code));
        writeln!(out, "{head}: {}", paint.with(BOLD, &finding.what))?;
        let (line, column) = self.position(finding.span.start);
        let other_line = finding.other.as_ref().map_or(0, |(span, _)| self.position(span.start).0);
        let width = line.max(other_line).to_string().len();
        let path = self.path.display();
        if finding.span == (0..0) {
            writeln!(out, "{:width$}--> {path}", "")?;
        } else {
            writeln!(out, "{:width$}--> {path}:{line}:{column}", "")?;
            writeln!(out, "{:width$} |", "")?;
            self.excerpt(&finding.span, &paint.with(tint, &finding.mark), tint, paint, width, out)?;
            if let Some((span, words)) = &finding.other {
                let (line, column) = self.position(span.start);
                writeln!(out, "{:width$}::: {path}:{line}:{column}", "")?;
                writeln!(out, "{:width$} |", "")?;
                self.excerpt(span, &paint.with(BLUE, words), BLUE, paint, width, out)?;
            }
        }
        for (word, text) in [("why", &finding.why), ("mend", &finding.mend)] {
            if !text.is_empty() {
                writeln!(out, "{:width$} = {}: {text}", "", paint.with(BOLD, word))?;
            }
        }
        writeln!(out)
    }

    /// The source line with a caret below the place.
    fn excerpt(
        &self,
        span: &Range<usize>,
        words: &str,
        tint: &str,
        paint: Paint,
        width: usize,
        out: &mut String,
    ) -> fmt::Result {
        let (line, column) = self.position(span.start);
        let text = self.source.lines().nth(line - 1).unwrap_or_default();
        let left = text.chars().count().saturating_sub(column - 1);
        let marked = self.source.get(span.clone()).map_or(1, |it| it.chars().count());
        let carets = "^".repeat(marked.min(left).max(1));
        // Tabs stay tabs, so that the caret stands below its place on any terminal.
        let pad: String =
            text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(out, "{line:>width$} | {text}")?;
        let space = if words.is_empty() { "" } else { " " };
        writeln!(out, "{:width$} | {pad}{}{space}{words}", "", paint.with(tint, &carets))
    }

    /// `2 errors, 1 warning`.
    pub fn count(&self) -> String {
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        format!("{}, {}", plural(self.errors(), "error"), plural(self.warnings(), "warning"))
    }

    /// The findings for programs.
    pub fn json(&self) -> serde_json::Value {
        let place = |span: &Range<usize>| {
            let (line, column) = self.position(span.start);
            let (end_line, end_column) = self.position(span.end);
            json!({ "file": self.path.display().to_string(), "line": line, "column": column,
                    "end_line": end_line, "end_column": end_column })
        };
        let row = |it: &Finding| {
            json!({
                "code": it.code,
                "severity": if it.severity == Severity::Error { "error" } else { "warning" },
                "place": place(&it.span),
                "what": it.what,
                "mark": it.mark,
                "why": it.why,
                "mend": it.mend,
                "other": it.other.as_ref().map(|(span, words)| json!({ "place": place(span), "mark": words })),
            })
        };
        self.list.iter().map(row).collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";
const BOLD: &str = "1";
