//! What local clients ask of the engine: messages one by one and many a turn, with and without stream
//! management, and presence to many.

use memchr::memmem::Finder;
use tandem::address::Address;
use tandem::home::record::{Item, Record};
use tandem::home::subscription::State;
use tandem::shard::kernel::ConnId;
use tandem::time::Wall;
use tandem_loadgen::login::After;
use tandem_loadgen::sm::{self, Managed};

use super::world::{DOMAIN, Pace, World};

/// Octets of a message, as in V1.
const BYTES: usize = 300;

/// The places of nobody's edge.
pub(super) const EDGE: ([u8; 4], u16) = ([127, 0, 0, 5], 5061);

struct End {
    conn: ConnId,
    message: Vec<u8>,
    managed: Managed,
}

/// Messages between neighbours: of so many pairs `many` speak in each turn, to and fro. Gives how many
/// were counted.
pub(super) fn messages(
    pairs: usize,
    many: usize,
    rounds: usize,
    managed: bool,
    pace: Pace,
) -> Result<u64, String> {
    let mut world = World::new(EDGE.into())?;
    let mut ends = Vec::new();
    for user in 0..pairs * 2 {
        let conn = world.client(user, After { roster: true, managed, presence: true })?;
        let (head, tail) = (
            format!("<message to='u{}@{DOMAIN}/r' type='chat' id='{user:04x}'><body>", user ^ 1),
            "</body></message>",
        );
        let pad = "x".repeat(BYTES.saturating_sub(head.len() + tail.len()));
        let message = format!("{head}{pad}{tail}").into_bytes();
        ends.push(End { conn, message, managed: Managed::default() });
    }
    for end in &ends {
        world.hear(end.conn);
    }
    world.keep(pace);
    let finders = [Finder::new("<message "), Finder::new("<r "), Finder::new("<r/>")];
    let (warm, mut sent, mut came) = (rounds / 4 + 2, 0, 0);
    for round in 0..warm + rounds {
        let counts = round >= warm;
        let speaking = (0..many).map(|n| (round * many + n) % pairs);
        // There and back by turns of all pairs.
        let side = (round * many / pairs) % 2;
        for pair in speaking.clone() {
            let Some(end) = ends.get_mut(pair * 2 + side) else { continue };
            let mut said = end.message.clone();
            if managed && end.managed.sends() {
                said.extend_from_slice(sm::REQUEST);
            }
            world.say(end.conn, &said);
            sent += u64::from(counts);
        }
        if counts {
            world.turn_counted()
        } else {
            world.settle()
        }
        for pair in speaking {
            for end in ends.get_mut(pair * 2..pair * 2 + 2).unwrap_or_default() {
                let mut asked = false;
                world.heard(end.conn, |bytes| {
                    let [message, request, short] = &finders;
                    for _ in message.find_iter(bytes) {
                        came += u64::from(counts);
                        end.managed.receives();
                    }
                    asked = request.find(bytes).or_else(|| short.find(bytes)).is_some();
                });
                if asked {
                    world.say(end.conn, end.managed.answer().as_bytes());
                }
            }
        }
    }
    if came != sent {
        return Err(format!("{came} of {sent} messages came in the turn they were said in"));
    }
    Ok(sent)
}

/// One user's changes of presence to so many watchers. Gives how many deliveries were counted.
pub(super) fn fan_out(watchers: usize, rounds: usize) -> Result<u64, String> {
    let mut world = World::new(EDGE.into())?;
    let item = |user: usize, state| -> Result<Item, String> {
        let contact =
            Address::parse(&format!("u{user}@{DOMAIN}")).map_err(|e| e.reason().to_owned())?;
        Ok(Item {
            contact,
            listed: true,
            state,
            approved: false,
            name: "".into(),
            groups: Box::default(),
            request: None,
            asked: Wall(0),
        })
    };
    let record = |items| Record { items, roster_version: 1, next_message: 1, ..Record::default() };
    let watched: Result<Vec<Item>, String> = (1..=watchers).map(|n| item(n, State::From)).collect();
    world.put(&format!("u0@{DOMAIN}"), record(watched?));
    for user in 1..=watchers {
        world.put(&format!("u{user}@{DOMAIN}"), record(vec![item(0, State::To)?]));
    }
    let after = After { roster: true, managed: false, presence: true };
    let one = world.client(0, after)?;
    let mut many = Vec::new();
    for user in 1..=watchers {
        many.push(world.client(user, after)?);
    }
    let finder = Finder::new("<status>");
    let (warm, mut came) = (2, 0);
    for round in 0..warm + rounds {
        many.iter().for_each(|&conn| world.heard(conn, |_| ()));
        let said = format!(
            "<presence><show>away</show><status>change {round:08} of a status that is as long as \
             people's are</status><priority>5</priority></presence>"
        );
        world.say(one, said.as_bytes());
        if round >= warm {
            world.settle_counted();
        } else {
            world.settle();
        }
        for &conn in &many {
            world.heard(conn, |bytes| {
                came += u64::from(round >= warm && finder.find(bytes).is_some());
            });
        }
        world.pass(1_000_000_000);
    }
    let wanted = (watchers * rounds) as u64;
    if came == wanted { Ok(came) } else { Err(format!("{came} of {wanted} deliveries")) }
}
