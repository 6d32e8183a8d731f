//! Takes values out of a TOML table, keeps their places and collects what is wrong with them.
//!
//! Goes on after a mistake, so that one look shows all of them. The findings have the form of the
//! server's own configuration. Does **not** know what the values mean.

use std::ops::Range;

use tandem::config::keys::nearest;
use tandem::config::{Finding, Findings};
use toml::de::{DeTable, DeValue};

/// A place in the file.
pub(super) type Span = Range<usize>;

/// A table that is being read; keys that nobody took are unknown ones.
pub(super) struct Section<'i, 'f> {
    pub(super) title: String,
    pub(super) span: Span,
    table: DeTable<'i>,
    pub(super) found: &'f mut Findings,
    known: Vec<&'static str>,
}

/// `did you mean ...?`, or nothing.
pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    nearest(word, known).map_or_else(String::new, |it| format!("did you mean \"{it}\"?"))
}

pub(super) fn listed(words: &[&str]) -> String {
    words.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ")
}

/// Text of the file as it may be shown: on one line and not endless.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'i, 'f> Section<'i, 'f> {
    pub(super) fn new(
        title: &str,
        span: Span,
        table: DeTable<'i>,
        found: &'f mut Findings,
    ) -> Self {
        Self { title: title.to_owned(), span, table, found, known: Vec::new() }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<(DeValue<'i>, Span)> {
        self.known.push(key);
        let value = self.table.remove(key)?;
        let span = value.span();
        Some((value.into_inner(), span))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Something is wrong with a value.
    pub(super) fn wrong(&mut self, span: Span, what: String, mark: &str, mend: &str) {
        self.found.push(Finding::error("L0003", span, what).mark(mark).mend(mend));
    }

    fn wrong_type(&mut self, key: &str, got: &DeValue<'_>, span: Span, takes: &str) {
        let what = format!("`{key}` in {} is {}, not {takes}", self.title, kind(got));
        self.found.push(Finding::error("L0002", span, what).mark(format!("expected {takes}")));
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<(String, Span)> {
        match self.take(key)? {
            (DeValue::String(text), span) => Some((text.into_owned(), span)),
            (other, span) => {
                self.wrong_type(key, &other, span, "a text in quotes");
                None
            }
        }
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Vec<(String, Span)> {
        match self.take(key) {
            None => Vec::new(),
            Some((DeValue::String(text), span)) => vec![(text.into_owned(), span)],
            Some((DeValue::Array(list), _)) => {
                let mut texts = Vec::new();
                for item in list {
                    let span = item.span();
                    match item.into_inner() {
                        DeValue::String(text) => texts.push((text.into_owned(), span)),
                        other => self.wrong_type(key, &other, span, "a text in quotes"),
                    }
                }
                texts
            }
            Some((other, span)) => {
                self.wrong_type(key, &other, span, "a text or a list of texts");
                Vec::new()
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.take(key)? {
            (DeValue::Boolean(value), _) => Some(value),
            (other, span) => {
                self.wrong_type(key, &other, span, "true or false");
                None
            }
        }
    }

    /// A number, fraction or not, within bounds.
    pub(super) fn number(&mut self, key: &'static str, least: f64, most: f64) -> Option<f64> {
        let (value, span) = self.take(key)?;
        let number = match &value {
            DeValue::Integer(it) => i64::from_str_radix(&it.as_str().replace('_', ""), it.radix())
                .ok()
                .map(|it| it as f64),
            DeValue::Float(it) => it.as_str().replace('_', "").parse().ok(),
            other => {
                self.wrong_type(key, other, span, "a number");
                return None;
            }
        };
        self.within(key, number, span, least, most)
    }

    fn within(
        &mut self,
        key: &str,
        number: Option<f64>,
        span: Span,
        least: f64,
        most: f64,
    ) -> Option<f64> {
        let number = number.filter(|it| (least..=most).contains(it));
        if number.is_none() {
            let what = format!("`{key}` in {} is out of range", self.title);
            self.wrong(span, what, &format!("{least} to {most}"), "");
        }
        number
    }

    pub(super) fn count(&mut self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        let span = self.table.get(key).map(toml::Spanned::span);
        let number = self.number(key, least as f64, most as f64)?;
        if number.fract() != 0.0 {
            let what = format!("`{key}` in {} is not a whole number", self.title);
            self.wrong(span.unwrap_or(0..0), what, "", "");
            return None;
        }
        Some(number as u64)
    }

    /// A value with a unit, by one of the readers of `units`; bare numbers where `bare` says so.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        read: fn(&str) -> Option<T>,
        example: &str,
    ) -> Option<T> {
        let (value, span) = self.take(key)?;
        self.value_of(key, value, span, read, example)
    }

    pub(super) fn value_of<T>(
        &mut self,
        key: &str,
        value: DeValue<'i>,
        span: Span,
        read: fn(&str) -> Option<T>,
        example: &str,
    ) -> Option<T> {
        let text = match &value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(it) => it.as_str().to_owned(),
            DeValue::Float(it) => it.as_str().to_owned(),
            other => {
                self.wrong_type(key, other, span, "a value with its unit");
                return None;
            }
        };
        let got = read(&text);
        if got.is_none() {
            let what = format!("`{key}` in {} can't be read", self.title);
            let mark = match value {
                DeValue::String(_) => "this unit is not known here",
                _ => "has no unit",
            };
            self.wrong(span, what, mark, &format!("write it as in {key} = \"{example}\""));
        }
        got
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let (text, span) = self.text(key)?;
        let got = words.iter().find(|(word, _)| *word == text);
        if got.is_none() {
            let known: Vec<&str> = words.iter().map(|it| it.0).collect();
            let what = format!("unknown {key} \"{}\" in {}", printable(&text), self.title);
            let mend = format!("`{key}` is one of {}", listed(&known));
            self.wrong(span, what, &did_you_mean(&text, &known), &mend);
        }
        got.map(|it| it.1)
    }

    /// A key that must be there is not, nor one that looks like it.
    pub(super) fn missing(&mut self, key: &str, example: &str) {
        if self.table.keys().any(|it| nearest(it.get_ref(), &[key]).is_some()) {
            return;
        }
        let what = format!("`{key}` is missing in {}", self.title);
        let finding = Finding::error("L0004", self.span.clone(), what)
            .mark(format!("has no `{key}`"))
            .mend(format!("add {key} = {example}"));
        self.found.push(finding);
    }

    /// What is left of it, for keys that have names of their own.
    pub(super) fn rest(self) -> DeTable<'i> {
        self.table
    }

    /// What nobody took is unknown.
    pub(super) fn finish(self) {
        for (key, _) in self.table {
            let (span, name) = (key.span(), key.into_inner());
            let what = format!("unknown key `{}` in {}", printable(&name), self.title);
            let known: Vec<String> = self.known.iter().map(|it| format!("`{it}`")).collect();
            let finding = Finding::error("L0001", span, what)
                .mark(did_you_mean(&name, &self.known))
                .mend(format!("{} knows {}", self.title, known.join(", ")));
            self.found.push(finding);
        }
    }
}
