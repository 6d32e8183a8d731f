//! The words and numbers that presence documents have for what somebody does.
//!
//! RFC 4480, 3.2 and its drafts, XPIDF (`msnsubstatus`), the aggregates of `text/xml+msrtc.pidf` and
//! of Microsoft's categories. Long lists on purpose: what is met in the field is read. What a word
//! means beyond the state of table 1, *at lunch* say, is **not** kept.

use crate::presence::availability::{State, Wire, to_lync};

/// A word for an activity, in any dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Known(State),
    /// Nothing is known to be done.
    Nothing,
    /// A word that is not in the list; its bearer is available.
    Unknown,
}

/// Reads a word: the text of an element, or an element's name.
pub fn read(word: &str) -> Word {
    let word = word.trim();
    if word.len() > 32 {
        return Word::Unknown;
    }
    Word::Known(match word.to_ascii_lowercase().as_str() {
        "away" | "idle" | "inactive" | "out-to-lunch" | "outtolunch" | "meal" | "vacation"
        | "holiday" | "permanent-absence" | "travel" => State::Away,
        "berightback" | "be-right-back" | "brb" => State::Brb,
        "busy" | "on-the-phone" | "onthephone" | "in-a-call" | "meeting" | "appointment" => {
            State::Busy
        }
        "donotdisturb" | "do-not-disturb" | "dnd" => State::Dnd,
        "" | "online" | "available" | "active" | "open" | "unknown" | "other" => {
            return Word::Nothing;
        }
        _ => return Word::Unknown,
    })
}

/// `<activity aggregate=''/>` of `text/xml+msrtc.pidf`, of somebody who can receive.
pub fn of_aggregate(number: u32) -> State {
    match number {
        100..=299 => State::Away,
        300..=399 => State::Brb,
        500..=699 => State::Busy,
        700..=799 => State::Away,
        // Unknown, active, and what no list names.
        _ => State::Available,
    }
}

/// `<availability aggregate=''/>` of `text/xml+msrtc.pidf`: whether he can receive.
pub fn can_receive(number: u32) -> bool {
    number >= 100
}

/// `<availability/>` of a state category.
pub fn of_category(number: u32) -> State {
    match number {
        3_000..=4_499 => State::Available,
        4_500..=5_999 => State::Away,
        6_000..=8_999 => State::Busy,
        9_000..=11_999 => State::Dnd,
        12_000..=14_999 => State::Brb,
        15_000..=17_999 => State::Away,
        _ => State::Offline,
    }
}

/// The word we write for a local user's presence, the same in both dialects; `None`: no activity.
pub fn word(wire: Wire<'_>) -> Option<&'static str> {
    match to_lync(wire) {
        State::Busy => Some("busy"),
        State::Away => Some("away"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_every_dialect() {
        for (words, state) in [
            (
                "away idle inactive out-to-lunch outtolunch meal vacation holiday \
                 permanent-absence travel Away",
                State::Away,
            ),
            ("berightback be-right-back brb", State::Brb),
            ("busy on-the-phone onthephone in-a-call meeting appointment", State::Busy),
            ("donotdisturb do-not-disturb doNotDisturb", State::Dnd),
        ] {
            for word in words.split_whitespace() {
                assert_eq!(read(word), Word::Known(state), "{word}");
            }
        }
        for word in ["", " online ", "unknown"] {
            assert_eq!(read(word), Word::Nothing, "{word}");
        }
        for word in ["steering", "dancing", &"a".repeat(99)] {
            assert_eq!(read(word), Word::Unknown, "{word}");
        }
    }

    #[test]
    fn numbers_of_both_kinds() {
        for (number, state) in [
            (0, State::Available),
            (99, State::Available),
            (100, State::Away),
            (150, State::Away),
            (200, State::Away),
            (300, State::Brb),
            (400, State::Available),
            (500, State::Busy),
            (600, State::Busy),
            (700, State::Away),
            (800, State::Available),
            (999, State::Available),
        ] {
            assert_eq!(of_aggregate(number), state, "{number}");
        }
        assert!(!can_receive(99) && can_receive(100) && can_receive(300));
        for (number, state) in [
            (3_500, State::Available),
            (4_500, State::Away),
            (6_500, State::Busy),
            (7_500, State::Busy),
            (9_500, State::Dnd),
            (12_500, State::Brb),
            (15_500, State::Away),
            (18_500, State::Offline),
            (0, State::Offline),
        ] {
            assert_eq!(of_category(number), state, "{number}");
        }
    }
}
