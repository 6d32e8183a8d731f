//! What one kind of client shows, another kind sees: the tables of availability, as rules.
//!
//! A state is what a person sees; a [`Wire`] is how it travels in XMPP presence. *Busy* and *idle*
//! have no word there (RFC 6121, 4.7.2.1): they are `away` with exactly this text as status, which a
//! Jabber client shows as the state and any other as a text. One stanza reaches all clients of a
//! domain, so toward most domains nothing is rewritten; only Lync, WebEx and Sametime differ.
//! Text that a user wrote himself is **not** touched where no table sets one.

use crate::policy::Profile;

/// `<show/>` of presence (RFC 6121, 4.7.2.1); `chat` counts as available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Show {
    /// No `<show/>`.
    Available,
    Away,
    Xa,
    Dnd,
    /// `type='unavailable'`.
    #[default]
    Offline,
}

impl Show {
    /// Reads the text of `<show/>` of an available resource; unknown is available.
    pub fn read(text: &str) -> Self {
        match text.trim() {
            "away" => Self::Away,
            "xa" => Self::Xa,
            "dnd" => Self::Dnd,
            _ => Self::Available,
        }
    }

    /// The text of `<show/>`, where there is one.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Available | Self::Offline => None,
            Self::Away => Some("away"),
            Self::Xa => Some("xa"),
            Self::Dnd => Some("dnd"),
        }
    }
}

/// What a person sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Available,
    Busy,
    Dnd,
    /// *Be right back* of Lync.
    Brb,
    Away,
    /// Extended away.
    Xa,
    Idle,
    Offline,
}

/// The status that makes `away` mean busy.
pub const BUSY: &str = "Busy";
/// The status that makes `away` mean idle.
pub const IDLE: &str = "Idle";
/// The status of a WebEx client in a meeting.
pub const IN_A_MEETING: &str = "In a meeting";

/// A state as it travels in XMPP presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire<'a> {
    pub show: Show,
    pub status: Option<&'a str>,
}

impl Wire<'_> {
    /// The state that the wire form means, whoever shows it.
    pub fn state(self) -> State {
        match (self.show, self.status) {
            (Show::Available, _) => State::Available,
            (Show::Away, Some(BUSY)) => State::Busy,
            (Show::Away, Some(IDLE)) => State::Idle,
            (Show::Away, _) => State::Away,
            (Show::Xa, _) => State::Xa,
            (Show::Dnd, _) => State::Dnd,
            (Show::Offline, _) => State::Offline,
        }
    }

    /// What a client of this kind shows, the text aside.
    pub fn seen_by(self, client: Profile) -> State {
        match (client, self.state()) {
            (Profile::Jabber, State::Xa) => State::Away,
            (Profile::Jabber, state) => state,
            // Any other client knows the texts as texts only.
            (_, State::Busy | State::Idle) => State::Away,
            (_, state) => state,
        }
    }
}

/// Table 1: what a Lync user shows, for all local clients alike. A status that is set here wins over
/// the note that came along.
pub fn from_lync(state: State) -> Wire<'static> {
    let (show, status) = match state {
        State::Available => (Show::Available, None),
        State::Busy | State::Dnd => (Show::Away, Some(BUSY)),
        State::Brb | State::Away | State::Xa | State::Idle => (Show::Away, None),
        State::Offline => (Show::Offline, None),
    };
    Wire { show, status }
}

/// Tables 2 and 3: what a Lync user sees of a local client. *Do not disturb* never crosses as such.
pub fn to_lync(wire: Wire<'_>) -> State {
    match wire.state() {
        State::Available => State::Available,
        State::Busy | State::Dnd => State::Busy,
        State::Brb | State::Away | State::Xa | State::Idle => State::Away,
        State::Offline => State::Offline,
    }
}

/// Tables 4 and 5: what a local client of this kind is handed of presence from a domain of this
/// profile. The same where nothing is to be changed.
pub fn incoming<'a>(profile: Profile, client: Profile, wire: Wire<'a>) -> Wire<'a> {
    match (profile, client, wire) {
        // Table 5: a meeting of WebEx is available for a client that is not Jabber.
        (Profile::Webex, client, Wire { show: Show::Away, status: Some(IN_A_MEETING) })
            if client != Profile::Jabber =>
        {
            Wire { show: Show::Available, ..wire }
        }
        _ => wire,
    }
}

/// Tables 6 and 7: what a domain of this profile is told of a local client's presence, whatever
/// kind the client is: the wire form says it all. The same where nothing is to be changed.
pub fn outgoing<'a>(profile: Profile, wire: Wire<'a>) -> Wire<'a> {
    match (profile, wire.state()) {
        (Profile::Webex, State::Busy) => Wire { show: Show::Away, status: Some(IDLE) },
        // The text, Busy among them, travels along.
        (Profile::Sametime, State::Xa) => Wire { show: Show::Away, ..wire },
        _ => wire,
    }
}

/// Whether presence toward a domain of this profile may have to be changed.
pub fn is_rewritten_outward(profile: Profile) -> bool {
    matches!(profile, Profile::Webex | Profile::Sametime)
}

/// Whether presence from a domain of this profile may have to be changed.
pub fn is_rewritten_inward(profile: Profile) -> bool {
    profile == Profile::Webex
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

    use super::*;

    /// The rows of one table of the specification.
    fn rows(number: i64) -> Vec<Table> {
        let text = include_str!("../../tests/data/availability.toml");
        let all: Table = text.parse().unwrap();
        let table = all["table"]
            .as_array()
            .unwrap()
            .iter()
            .find(|it| it["number"].as_integer() == Some(number))
            .unwrap();
        table["rows"].as_array().unwrap().iter().map(|it| it.as_table().unwrap().clone()).collect()
    }

    fn wire<'a>(name: &str, status: Option<&'a str>) -> Wire<'a> {
        let (show, own) = match name {
            "available" => (Show::Available, None),
            "away" => (Show::Away, None),
            "xa" => (Show::Xa, None),
            "dnd" => (Show::Dnd, None),
            "busy" => (Show::Away, Some(BUSY)),
            "idle" => (Show::Away, Some(IDLE)),
            "offline" => (Show::Offline, None),
            _ => panic!("{name}"),
        };
        Wire { show, status: status.or(own) }
    }

    fn state(name: &str) -> State {
        match name {
            "brb" => State::Brb,
            _ => wire(name, None).state(),
        }
    }

    fn text<'a>(row: &'a Table, key: &str) -> Option<&'a str> {
        row.get(key).and_then(Value::as_str)
    }

    /// A cell with `show` and `status` holds for what a client of this kind got.
    fn holds(cell: &Value, got: Wire<'_>, client: Profile, sent: Option<&str>, at: &str) {
        let cell = cell.as_table().unwrap();
        let show = text(cell, "show").unwrap();
        match client {
            Profile::Jabber => assert_eq!(got.seen_by(client), state(show), "{at}"),
            _ => assert_eq!(got.show, wire(show, None).show, "{at}"),
        }
        match text(cell, "status") {
            Some("keep") => assert_eq!(got.status, sent, "{at}"),
            Some(status) => assert_eq!(got.status, Some(status), "{at}"),
            // No text but what was sent, or what makes the state.
            None => assert!(got.status == sent || client == Profile::Jabber, "{at}"),
        }
    }

    #[test]
    fn table_1_what_a_lync_user_shows() {
        for row in rows(1) {
            let name = text(&row, "lync").unwrap();
            let got = from_lync(state(name));
            holds(&row["xmpp"], got, Profile::Xmpp, None, name);
            holds(&row["jabber"], got, Profile::Jabber, None, name);
        }
    }

    #[test]
    fn tables_2_and_3_what_a_lync_user_sees() {
        for (number, from) in [(2, "jabber"), (3, "xmpp")] {
            for row in rows(number) {
                let name = text(&row, from).unwrap();
                assert_eq!(to_lync(wire(name, None)), state(text(&row, "lync").unwrap()), "{name}");
            }
        }
        for name in ["away", "xa", "idle"] {
            assert_eq!(to_lync(wire(name, None)), State::Away, "decided beside table 2: {name}");
        }
        let own = Wire { show: Show::Available, status: Some("at my desk") };
        assert_eq!(to_lync(own), State::Available);
    }

    #[test]
    fn tables_4_and_5_what_local_clients_are_handed() {
        for (number, from, profile) in
            [(4, "sametime", Profile::Sametime), (5, "webex", Profile::Webex)]
        {
            for row in rows(number) {
                let name = text(&row, from).unwrap();
                for own in [None, Some("a text of his own")] {
                    let status = text(&row, "with_status").or(own);
                    let sent = wire(name, status);
                    for client in [Profile::Xmpp, Profile::Jabber] {
                        let got = incoming(profile, client, sent);
                        let at = format!("table {number}: {name} {status:?} {client:?}");
                        holds(&row[client.word()], got, client, status, &at);
                        assert_eq!(got.status, status, "{at}");
                    }
                }
            }
        }
    }

    #[test]
    fn tables_6_and_7_what_other_domains_are_told() {
        for (number, from) in [(6, "jabber"), (7, "xmpp")] {
            for row in rows(number) {
                let name = text(&row, from).unwrap();
                let sent = wire(name, text(&row, "with_status"));
                for domain in [Profile::Jabber, Profile::Xmpp, Profile::Webex, Profile::Sametime] {
                    let word = domain.word();
                    let key = if word == from { format!("to_{word}") } else { word.to_owned() };
                    let cell = text(&row, &key).unwrap();
                    let got = outgoing(domain, sent);
                    let at = format!("table {number}: {name} to {word}");
                    // Busy and idle are what they are on the wire; a client that shows them as away
                    // is handed the text along.
                    if matches!(cell, "busy" | "idle") {
                        assert_eq!(got, wire(cell, None), "{at}");
                    } else {
                        assert_eq!(got.seen_by(domain), state(cell), "{at}");
                        assert!(domain == Profile::Webex || got.status == sent.status, "{at}");
                    }
                    let own = Wire { show: sent.show, status: Some("a text of his own") };
                    assert_eq!(outgoing(domain, own).status, own.status, "{at}");
                }
            }
        }
    }

    #[test]
    fn only_what_a_table_names_is_ever_changed() {
        let shows = [Show::Available, Show::Away, Show::Xa, Show::Dnd, Show::Offline];
        let texts = [None, Some(BUSY), Some(IDLE), Some(IN_A_MEETING), Some("busy"), Some("")];
        let profiles =
            [Profile::Lync, Profile::Jabber, Profile::Xmpp, Profile::Sametime, Profile::Webex];
        for (show, status) in shows.iter().flat_map(|s| texts.iter().map(move |t| (*s, *t))) {
            let wire = Wire { show, status };
            for profile in profiles {
                let same = outgoing(profile, wire) == wire;
                let named = (profile == Profile::Webex && wire.state() == State::Busy)
                    || (profile == Profile::Sametime && show == Show::Xa);
                assert_eq!(same, !named, "{profile:?} {wire:?}");
                assert!(same || is_rewritten_outward(profile));
                for client in profiles {
                    let same = incoming(profile, client, wire) == wire;
                    assert!(same || is_rewritten_inward(profile), "{profile:?} {wire:?}");
                }
            }
        }
    }
}
