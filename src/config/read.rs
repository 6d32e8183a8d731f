//! Takes typed values out of a TOML table, keeps their places and collects what is wrong.
//!
//! Unlike a derived deserialiser it goes on after the first mistake, so that one run shows all.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::finding::{Finding, Findings};
use crate::config::keys;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub value: T,
    pub span: Range<usize>,
}

impl<T> At<T> {
    /// Another value at the same place.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), span: self.span }
    }
}

/// One table that is being read. Keys that nobody took are unknown ones.
pub(crate) struct Section<'i, 'f> {
    book: &'static keys::Book,
    /// Keys that were there, whatever came of them.
    taken: Vec<String>,
    /// Without brackets.
    name: &'static str,
    /// The place of its header.
    pub span: Range<usize>,
    table: DeTable<'i>,
    found: &'f mut Findings,
}

impl<'i, 'f> Section<'i, 'f> {
    /// Starts to read a table.
    pub(crate) fn new(
        name: &'static str,
        span: Range<usize>,
        table: DeTable<'i>,
        found: &'f mut Findings,
    ) -> Self {
        Self::of(&keys::CONFIG, name, span, table, found)
    }

    /// The same in a file of another kind.
    pub(crate) fn of(
        book: &'static keys::Book,
        name: &'static str,
        span: Range<usize>,
        table: DeTable<'i>,
        found: &'f mut Findings,
    ) -> Self {
        Self { book, taken: Vec::new(), name, span, table, found }
    }

    /// Without brackets.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the key was written and taken: what was wrong with it is told already.
    pub(crate) fn told(&self, key: &str) -> bool {
        self.taken.iter().any(|it| it == key)
    }

    /// A finding of the caller's own.
    pub(crate) fn push(&mut self, finding: Finding) {
        self.found.push(finding);
    }

    /// Whether the key is written, whatever its value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether the key holds this very text.
    pub(crate) fn is(&self, key: &str, text: &str) -> bool {
        let value = self.table.get(key).map(Spanned::get_ref);
        matches!(value, Some(DeValue::String(it)) if it == text)
    }

    /// Takes a value away with a word about it.
    pub(crate) fn refuse(&mut self, key: &str, what: &str, why: &str, mend: &str) {
        let Some(At { span, .. }) = self.take(key) else { return };
        self.found.push(Finding::error("C0106", span, what).why(why).mend(mend));
    }

    fn take(&mut self, key: &str) -> Option<At<DeValue<'i>>> {
        let value = self.table.remove(key)?;
        self.taken.push(key.to_owned());
        let span = value.span();
        Some(At { value: value.into_inner(), span })
    }

    fn wrong_type(&mut self, key: &str, span: Range<usize>, got: &DeValue<'_>, takes: &str) {
        let title = self.book.title(self.name);
        let row = self.book.keys.iter().find(|it| it.table == self.name && it.name == key);
        let mend = row.map_or_else(String::new, |it| format!("`{key}` takes {}", it.takes));
        let what = format!("`{key}` in {title} is {}, not {takes}", kind(got));
        self.found
            .push(Finding::error("C0105", span, what).mark(format!("expected {takes}")).mend(mend));
    }

    /// A text.
    pub(crate) fn string(&mut self, key: &str) -> Option<At<String>> {
        let At { value, span } = self.take(key)?;
        match value {
            DeValue::String(text) => Some(At { value: text.into_owned(), span }),
            other => {
                self.wrong_type(key, span, &other, "a text in quotes");
                None
            }
        }
    }

    /// A text, or a list of texts. `None` if the key is absent.
    pub(crate) fn strings(&mut self, key: &str) -> Option<Vec<At<String>>> {
        let At { value, span } = self.take(key)?;
        let list = match value {
            DeValue::String(text) => return Some(vec![At { value: text.into_owned(), span }]),
            DeValue::Array(list) => list,
            other => {
                self.wrong_type(key, span, &other, "a text or a list of texts");
                return Some(Vec::new());
            }
        };
        let mut texts = Vec::new();
        for item in list {
            let span = item.span();
            match item.into_inner() {
                DeValue::String(text) => texts.push(At { value: text.into_owned(), span }),
                other => self.wrong_type(key, span, &other, "a text in quotes"),
            }
        }
        Some(texts)
    }

    /// True or false.
    pub(crate) fn boolean(&mut self, key: &str) -> Option<At<bool>> {
        let At { value, span } = self.take(key)?;
        match value {
            DeValue::Boolean(value) => Some(At { value, span }),
            other => {
                self.wrong_type(key, span, &other, "true or false");
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &str,
        words: &[(&'static str, T)],
    ) -> Option<At<T>> {
        let At { value, span } = self.take(key)?;
        let DeValue::String(text) = value else {
            self.wrong_type(key, span, &value, "a word in quotes");
            return None;
        };
        self.choose(key, At { value: text.into_owned(), span }, words)
    }

    fn choose<T: Copy>(
        &mut self,
        key: &str,
        word: At<String>,
        words: &[(&'static str, T)],
    ) -> Option<At<T>> {
        if let Some((_, value)) = words.iter().find(|(known, _)| *known == word.value) {
            return Some(At { value: *value, span: word.span });
        }
        let known: Vec<&str> = words.iter().map(|it| it.0).collect();
        let title = self.book.title(self.name);
        let what = format!("unknown value \"{}\" for `{key}` in {title}", printable(&word.value));
        let mark = did_you_mean(keys::nearest(&word.value, &known), '"');
        let list: Vec<String> = known.iter().map(|it| format!("\"{it}\"")).collect();
        let mend = format!("`{key}` is one of {}", list.join(", "));
        self.found.push(Finding::error("C0106", word.span, what).mark(mark).mend(mend));
        None
    }

    /// A whole number within bounds, or (as `None` inside) one word that stands for "decide".
    pub(crate) fn integer(
        &mut self,
        key: &str,
        word: Option<&'static str>,
        bounds: Range<i64>,
    ) -> Option<At<Option<i64>>> {
        let At { value, span } = self.take(key)?;
        let number = match (value, word) {
            (DeValue::Integer(number), _) => {
                i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
                    .unwrap_or(i64::MAX)
            }
            (DeValue::String(text), Some(word)) => {
                let choice = self.choose(key, At { value: text.into_owned(), span }, &[(word, ())]);
                return choice.map(|it| it.map(|()| None));
            }
            (other, _) => {
                self.wrong_type(key, span, &other, "a whole number");
                return None;
            }
        };
        if bounds.contains(&number) {
            return Some(At { value: Some(number), span });
        }
        let what = format!("`{key}` in {} is out of range", self.book.title(self.name));
        let mark = format!("{} to {}", bounds.start, bounds.end - 1);
        self.found.push(Finding::error("C0109", span, what).mark(mark));
        None
    }

    /// A duration with its unit, within bounds.
    pub(crate) fn duration(
        &mut self,
        key: &str,
        least: Duration,
        most: Duration,
    ) -> Option<At<Duration>> {
        let At { value, span } = self.take(key)?;
        let text = match value {
            DeValue::String(text) => text,
            DeValue::Integer(number) => {
                let what = format!("`{key}` in {} has no unit", self.book.title(self.name));
                let mend = format!(
                    "write \"{}s\", \"{}ms\" or \"{}us\"",
                    number.as_str(),
                    number.as_str(),
                    number.as_str()
                );
                self.found.push(
                    Finding::error("C0105", span, what)
                        .mark("expected a duration in quotes")
                        .why("a number alone can be read as seconds or as milliseconds")
                        .mend(mend),
                );
                return None;
            }
            other => {
                self.wrong_type(key, span, &other, "a duration in quotes");
                return None;
            }
        };
        let Some(length) = duration(&text) else {
            let what = format!("`{key}` in {} is not a duration", self.book.title(self.name));
            self.found.push(
                Finding::error("C0108", span, what)
                    .mend("write a number and one of us, ms, s, m, h: \"30s\""),
            );
            return None;
        };
        if length < least || length > most {
            let what = format!("`{key}` in {} is out of range", self.book.title(self.name));
            self.found.push(Finding::error("C0109", span, what).mark(format!(
                "{} to {}",
                in_units(least),
                in_units(most)
            )));
            return None;
        }
        Some(At { value: length, span })
    }

    /// Says that a key is missing.
    pub(crate) fn missing(&mut self, key: &str, why: &str, mend: &str) {
        if self.table.keys().any(|it| keys::nearest(it.get_ref(), &[key]).is_some()) {
            // It is there with a slip in it, and is told as such.
            return;
        }
        let what = format!("`{key}` is missing in {}", self.book.title(self.name));
        let mark = format!("has no `{key}`");
        self.found
            .push(Finding::error("C0107", self.span.clone(), what).mark(mark).why(why).mend(mend));
    }

    /// What is left are keys that this table does not know.
    pub(crate) fn finish(self) {
        let known = self.book.of_table(self.name);
        let title = self.book.title(self.name);
        for (key, _) in self.table {
            let (span, name) = (key.span(), key.into_inner());
            let elsewhere: Vec<String> =
                self.book.tables_of(&name).into_iter().map(|it| self.book.title(it)).collect();
            let near = keys::nearest(&name, &known);
            let what = format!("unknown key `{}` in {title}", printable(&name));
            let finding = if elsewhere.is_empty() {
                Finding::error("C0104", span, what).mark(did_you_mean(near, '`'))
            } else {
                let place = elsewhere.join(" or ");
                let what = format!("`{name}` does not belong in {title}");
                Finding::error("C0103", span, what).mark(format!("belongs in {place}"))
            };
            let known: Vec<String> = known.iter().map(|it| format!("`{it}`")).collect();
            self.found.push(finding.mend(format!("{title} knows {}", known.join(", "))));
        }
    }
}

/// `did you mean ...?`, or nothing.
pub(crate) fn did_you_mean(near: Option<&str>, quote: char) -> String {
    near.map_or_else(String::new, |it| format!("did you mean {quote}{it}{quote}?"))
}

/// A table or list of tables as its entries with their places.
pub(crate) fn tables<'i>(value: Spanned<DeValue<'i>>) -> Vec<(Range<usize>, Option<DeTable<'i>>)> {
    let span = value.span();
    let entry = |span: Range<usize>, value: DeValue<'i>| match value {
        DeValue::Table(table) => (span, Some(table)),
        _ => (span, None),
    };
    match value.into_inner() {
        DeValue::Array(list) => list
            .into_iter()
            .map(|it| {
                let span = it.span();
                entry(span, it.into_inner())
            })
            .collect(),
        other => vec![entry(span, other)],
    }
}

/// What was written, in words.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
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

/// Text of the file as it may be shown: on one line and not endless.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(80).collect::<String>().escape_debug().to_string()
}

/// `30s`, `250ms`, `50us`, `5m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3_600)?),
        _ => return None,
    })
}

fn in_units(length: Duration) -> String {
    if length.subsec_nanos() == 0 && !length.is_zero() {
        format!("{}s", length.as_secs())
    } else {
        format!("{}us", length.as_micros())
    }
}

/// What the system says, without its number.
pub(crate) fn in_words(fault: &std::io::Error) -> String {
    let text = fault.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
