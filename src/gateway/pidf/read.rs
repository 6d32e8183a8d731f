//! Reads a presence document of any dialect.
//!
//! By the local names of elements, wherever they stand, and with the namespaces left out of account:
//! what is met in the field is bound to more of them than any list has. A declared encoding is not
//! believed. Document types are refused, so that no entity is ever expanded.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::gateway::activity::{self, Word};
use crate::gateway::message::language;
use crate::gateway::part::utf_16;
use crate::gateway::pidf::{Shown, note, priority, qvalue};
use crate::limits::{
    ATTRIBUTES_MAX, NOTE_OCTETS_MAX, PIDF_DEPTH_MAX, PIDF_EVENTS_MAX, PIDF_TUPLES_MAX,
};
use crate::presence::availability::{Show, State, from_lync};

/// What a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Whom it is about, as written: with or without a scheme.
    pub entity: Option<String>,
    /// Open or not, and the activity: a state of table 1, whatever the show of XMPP says.
    pub state: State,
    /// For XMPP.
    pub shown: Shown,
    /// Words for activities that no list has; for a counter.
    pub unknown: u32,
}

/// Not a presence document: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads a document; `lang` is the language its headers name (Content-Language).
pub fn read(body: &[u8], lang: Option<&str>) -> Result<Document, Malformed> {
    let decoded;
    let text = match body {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [b'<', 0, ..] | [0, b'<', ..] => {
            decoded = utf_16(body, None);
            &decoded
        }
        _ => std::str::from_utf8(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body))
            .map_err(|_| Malformed)?,
    };
    let mut reading = Reading::default();
    let mut reader = Reader::from_str(text.trim_start());
    for _ in 0..PIDF_EVENTS_MAX {
        match reader.read_event().map_err(|_| Malformed)? {
            Event::Eof if reading.rooted && reading.open.is_empty() => {
                return Ok(reading.finish(lang.and_then(language)));
            }
            Event::Eof | Event::DocType(_) => return Err(Malformed),
            Event::Start(start) => reading.start(&start)?,
            Event::Empty(start) => {
                reading.start(&start)?;
                reading.end();
            }
            Event::End(_) => reading.end(),
            Event::Text(text) => reading.text(&text)?,
            Event::CData(text) => reading.text(&text)?,
            Event::GeneralRef(reference) => {
                let text = format!("&{};", &*reference);
                let text = quick_xml::escape::unescape(&text).map_err(|_| Malformed)?;
                reading.text(&text)?;
            }
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
        }
    }
    Err(Malformed)
}

#[derive(Debug, Default)]
struct Note {
    lang: Option<String>,
    text: String,
}

#[derive(Debug, Default)]
struct Tuple {
    open: bool,
    show: Option<Show>,
    state: Option<State>,
    /// Of its contact, in thousandths.
    priority: Option<u16>,
    notes: Vec<Note>,
}

#[derive(Debug)]
struct Element {
    name: String,
    lang: Option<String>,
    /// It is a tuple, and what is in it is said of that one.
    tuple: bool,
}

#[derive(Debug, Default)]
struct Reading {
    open: Vec<Element>,
    rooted: bool,
    entity: Option<String>,
    tuples: Vec<Tuple>,
    /// What is said of the person, not of one tuple.
    person: Tuple,
    /// Character data of the innermost element so far.
    text: String,
    /// The availability of a category, and whether it is the sum of all.
    category: Option<(bool, State)>,
    aggregated: bool,
    unknown: u32,
}

impl Reading {
    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), Malformed> {
        let name = start.local_name().into_inner().to_owned();
        if self.open.is_empty() {
            if self.rooted || !matches!(name.as_str(), "presence" | "presentity" | "categories") {
                return Err(Malformed);
            }
            self.rooted = true;
            // Elsewhere the one state there is stands in the root.
            if name != "presence" {
                self.tuples.push(Tuple::default());
            }
        }
        if self.open.len() >= PIDF_DEPTH_MAX {
            return Err(Malformed);
        }
        // One too many ends it: looking for doubles grows with the square.
        let mut attributes = start.attributes();
        let mut attributes = attributes.with_checks(true).take(ATTRIBUTES_MAX + 1).enumerate();
        if attributes.any(|(at, it)| it.is_err() || at >= ATTRIBUTES_MAX) {
            return Err(Malformed);
        }
        let tuple =
            matches!(name.as_str(), "tuple" | "atom") && !self.open.iter().any(|it| it.tuple);
        if tuple {
            if self.tuples.len() >= PIDF_TUPLES_MAX {
                return Err(Malformed);
            }
            self.tuples.push(Tuple::default());
        }
        let element = Element { name, lang: value(start, "xml:lang")?, tuple };
        self.open.push(element);
        self.text.clear();
        self.attributes(start)
    }

    /// What is said by attributes.
    fn attributes(&mut self, start: &BytesStart<'_>) -> Result<(), Malformed> {
        let Some(name) = self.open.last().map(|it| it.name.clone()) else { return Ok(()) };
        let aggregate =
            || Ok(value(start, "aggregate")?.and_then(|it| it.trim().parse::<u32>().ok()));
        match name.as_str() {
            "presence" | "presentity" | "categories" => {
                for key in ["entity", "uri"] {
                    if self.entity.is_none() {
                        self.entity = value(start, key)?;
                    }
                }
            }
            "contact" | "address" => {
                let found = value(start, "priority")?.and_then(|it| qvalue(&it));
                let tuple = self.tuple();
                tuple.priority = tuple.priority.or(found);
            }
            "status" => {
                if let Some(status) = value(start, "status")? {
                    // XPIDF: open, inuse, closed, inactive.
                    self.tuple().open = matches!(status.trim(), "open" | "inuse");
                }
            }
            "msnsubstatus" => {
                if let Some(word) = value(start, "substatus")? {
                    self.does(&word);
                }
            }
            "availability" => {
                if let Some(number) = aggregate()? {
                    self.tuple().open = activity::can_receive(number);
                }
            }
            "activity" => {
                if let Some(number) = aggregate()? {
                    let state = activity::of_aggregate(number);
                    self.tuple().state.get_or_insert(state);
                }
            }
            "state" => {
                let kind = match value(start, "xsi:type")? {
                    Some(kind) => Some(kind),
                    None => value(start, "type")?,
                };
                self.aggregated = kind.is_some_and(|it| it.contains("aggregateState"));
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), Malformed> {
        if self.open.is_empty() {
            // RFC 3863 is XML: outside the root there is white space only.
            return if text.trim().is_empty() { Ok(()) } else { Err(Malformed) };
        }
        if self.text.len() <= NOTE_OCTETS_MAX {
            self.text.push_str(text);
        }
        Ok(())
    }

    /// What is said by text, and by an element being there.
    fn end(&mut self) {
        let Some(element) = self.open.pop() else { return };
        let text = std::mem::take(&mut self.text);
        let parent = self.open.last().map_or("", |it| it.name.as_str());
        match element.name.as_str() {
            "basic" => self.tuple().open |= text.to_ascii_lowercase().contains("open"),
            "show" => {
                let show = match text.trim() {
                    "away" | "xa" | "dnd" | "chat" | "" => Some(Show::read(&text)),
                    _ => None,
                };
                let tuple = self.tuple();
                tuple.show = tuple.show.or(show);
            }
            "note" => {
                let note = Note { lang: element.lang, text };
                self.tuple().notes.push(note);
            }
            "activity" => self.does(&text),
            "availability" => {
                if let Ok(number) = text.trim().parse() {
                    let sum = self.aggregated;
                    if sum || self.category.is_none() {
                        self.category = Some((sum, activity::of_category(number)));
                    }
                }
            }
            "activities" => {}
            name if matches!(parent, "activities" | "activity") => {
                let name = name.to_owned();
                self.does(&name);
            }
            _ => {}
        }
    }

    /// The tuple that is open; else what is said is said of the person, or of the root.
    fn tuple(&mut self) -> &mut Tuple {
        let in_tuple = self.open.iter().any(|it| it.tuple);
        let rooted = self.open.first().is_some_and(|it| it.name != "presence");
        match self.tuples.last_mut() {
            Some(tuple) if in_tuple || rooted => tuple,
            _ => &mut self.person,
        }
    }

    fn does(&mut self, word: &str) {
        match activity::read(word) {
            Word::Known(state) => {
                self.tuple().state.get_or_insert(state);
            }
            Word::Nothing => {}
            Word::Unknown => self.unknown = self.unknown.saturating_add(1),
        }
    }

    fn finish(mut self, lang: Option<&str>) -> Document {
        if let (Some((_, state)), Some(tuple)) = (self.category, self.tuples.first_mut()) {
            tuple.open = state != State::Offline;
            tuple.state = Some(state);
        }
        // Any open tuple wins, then the highest priority, then the first.
        let rank = |it: &Tuple| (it.open, it.priority.unwrap_or(0));
        let mut best: Option<Tuple> = None;
        for tuple in self.tuples {
            if best.as_ref().is_none_or(|it| rank(&tuple) > rank(it)) {
                best = Some(tuple);
            }
        }
        let best = best.unwrap_or_default();
        let state = match best.open {
            true => best.state.or(self.person.state).unwrap_or(State::Available),
            false => State::Offline,
        };
        let notes = [&best.notes, &self.person.notes];
        let mut notes = notes.into_iter().flatten().filter(|it| !it.text.trim().is_empty());
        let fits = |it: &&Note| match (&it.lang, lang) {
            (Some(own), Some(lang)) => own.eq_ignore_ascii_case(lang),
            _ => true,
        };
        let found = notes.clone().find(fits).or_else(|| notes.next());
        let wire = from_lync(state);
        let (show, set) = match best.show {
            Some(show) if best.open => (show, None),
            _ => (wire.show, wire.status),
        };
        let own = found.and_then(|it| note(&it.text));
        let lang = match (set, &own) {
            (None, Some(_)) => {
                let own = found.and_then(|it| it.lang.as_deref()).and_then(language);
                own.or(lang).map(str::to_owned)
            }
            _ => None,
        };
        let priority = best.priority.filter(|_| best.open).map(priority);
        let shown = Shown { show, status: set.map(str::to_owned).or(own), lang, priority };
        Document { entity: self.entity, state, shown, unknown: self.unknown }
    }
}

/// An attribute, as meant.
fn value(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, Malformed> {
    match start.try_get_attribute(name).map_err(|_| Malformed)? {
        None => Ok(None),
        Some(it) => match it.normalized_value(XmlVersion::Implicit1_0) {
            Ok(value) => Ok(Some(value.into_owned())),
            Err(_) => Err(Malformed),
        },
    }
}
