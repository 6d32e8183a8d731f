//! Where an element that arrives in pieces ends.
//!
//! A state of a few octets that goes over each octet once, however they were cut. It knows quotes,
//! CDATA sections and depth, no names: what it finds is scanned afterwards, and the scan has the last
//! word. So a malformed element costs its stream an error and never a guess at the next one's start.

use crate::xmpp::chars;

/// How far an unfinished element has been looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Boundary {
    scanned: u32,
    depth: u16,
    state: State,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// No end yet.
    Open,
    /// The end.
    End(usize),
    /// Something up to here that no element may hold.
    Odd(usize),
    /// More open elements than allowed.
    Deep,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Character data, also before the first `<`.
    #[default]
    Text,
    /// Behind `<`.
    Open,
    /// In a start tag.
    Start,
    /// Behind a `/` in a start tag.
    Slash,
    /// In a value, up to this quote.
    Value(u8),
    /// In an end tag.
    End,
    /// In `<![CDATA[`, of which so many octets matched.
    Section(u8),
    /// In a CDATA section, behind so many brackets.
    Cdata(u8),
    /// In the XML declaration; true behind a question mark.
    Declaration(bool),
}

const SECTION: &[u8] = b"![CDATA[";

impl Boundary {
    /// Octets looked through so far; 0: nothing is unfinished.
    #[inline]
    pub(crate) fn scanned(&self) -> u32 {
        self.scanned
    }

    /// Goes on over what is new in `buf`. A header ends with its start tag.
    pub(crate) fn look(&mut self, buf: &[u8], header: bool, depth_max: u16) -> Sight {
        let mut at = self.scanned as usize;
        while let Some(&b) = buf.get(at) {
            self.state = match self.state {
                State::Text => match memchr::memchr(b'<', buf.get(at..).unwrap_or_default()) {
                    Some(skip) => {
                        at += skip;
                        State::Open
                    }
                    None => {
                        at = buf.len();
                        break;
                    }
                },
                State::Value(quote) => {
                    match memchr::memchr2(quote, b'<', buf.get(at..).unwrap_or_default()) {
                        Some(skip) => {
                            at += skip;
                            if buf.get(at) == Some(&b'<') {
                                return Sight::Odd(at + 1);
                            }
                            State::Start
                        }
                        None => {
                            at = buf.len();
                            break;
                        }
                    }
                }
                State::Start => match b {
                    b'>' if header => return Sight::End(at + 1),
                    b'>' => {
                        self.depth += 1;
                        if self.depth > depth_max {
                            return Sight::Deep;
                        }
                        State::Text
                    }
                    b'/' => State::Slash,
                    b'\'' | b'"' => State::Value(b),
                    b'<' => return Sight::Odd(at + 1),
                    _ => State::Start,
                },
                State::Cdata(brackets) => match (b, brackets) {
                    (b']', _) => State::Cdata((brackets + 1).min(2)),
                    (b'>', 2) => State::Text,
                    _ => State::Cdata(0),
                },
                state => match self.rare(state, b, header) {
                    Ok(Some(next)) => next,
                    Ok(None) => return Sight::End(at + 1),
                    Err(()) => return Sight::Odd(at + 1),
                },
            };
            at += 1;
        }
        self.scanned = u32::try_from(at).unwrap_or(u32::MAX);
        Sight::Open
    }

    /// The states that last for a few octets. None: the element ends here.
    fn rare(&mut self, state: State, b: u8, header: bool) -> Result<Option<State>, ()> {
        Ok(Some(match (state, b) {
            (State::Open, b'/') if self.depth > 0 => State::End,
            (State::Open, b'?') if header && self.depth == 0 => State::Declaration(false),
            (State::Open, b'!') if self.depth > 0 => State::Section(1),
            (State::Open, _) if chars::is_name(b) => State::Start,
            (State::Slash, b'>') if header => return Err(()),
            (State::Slash, b'>') if self.depth == 0 => return Ok(None),
            (State::Slash, b'>') => State::Text,
            (State::End, b'>') => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Ok(None);
                }
                State::Text
            }
            (State::End, b'<') => return Err(()),
            (State::End, _) => State::End,
            (State::Section(matched), _) if SECTION.get(usize::from(matched)) == Some(&b) => {
                if usize::from(matched) + 1 == SECTION.len() {
                    State::Cdata(0)
                } else {
                    State::Section(matched + 1)
                }
            }
            (State::Declaration(_), b'?') => State::Declaration(true),
            (State::Declaration(true), b'>') => State::Text,
            (State::Declaration(_), _) => State::Declaration(false),
            _ => return Err(()),
        }))
    }
}
