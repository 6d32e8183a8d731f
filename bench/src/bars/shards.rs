//! V13's and V14's clients, who have to be on known shards, and V14: two shards against one.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tandem::address::Address;
use tandem::route::shard_of;

use super::outcome::Outcome;
use super::rounds::{Case, Spread, Work, is_valid, number, verdict};
use super::{Bar, Bars, say};
use crate::servers::{self, DOMAIN, Running, Stage, Subject, write};

/// More users than clients, so that enough of them are on each shard.
pub(super) const SPARE_USERS: usize = 64;
/// Crossings of a message that are allowed.
const CROSSINGS_MAX: f64 = 1.0;

fn shard(user: usize) -> Result<u16, String> {
    let address =
        Address::parse(&format!("u{user}@{DOMAIN}")).map_err(|e| e.reason().to_owned())?;
    Ok(shard_of(address.slot(), 2))
}

/// Writes the names of so many clients, neighbours being a pair: on one shard of two and then on the
/// other, or `across` both.
pub(super) fn names(
    dir: &Path,
    clients: usize,
    users: usize,
    across: bool,
) -> Result<PathBuf, String> {
    let mut free: [Vec<usize>; 2] = Default::default();
    for user in 0..users {
        if let Some(of) = free.get_mut(usize::from(shard(user)?)) {
            of.push(user);
        }
    }
    let mut text = String::new();
    for pair in 0..clients / 2 {
        let sides = if across { [0, 1] } else { [pair % 2; 2] };
        for side in sides {
            let user = free[side].pop().ok_or("too few users on one of the shards")?;
            text += &format!("u{user}\n");
        }
    }
    let path = dir.join(if across { "across.txt" } else { "apart.txt" });
    write(&path, &text)?;
    Ok(path)
}

impl Bars {
    /// Pairs that have nothing to do with one another, over one shard and over two, all on one core;
    /// beside it the crossings between shards of pairs by lot.
    pub(super) fn two_shards(&self, stage: &Stage) -> Result<Value, String> {
        let work = |by_lot| Work::Chat { managed: false, by_lot };
        let case = Case { bar: Bar::V14, work: work(false), ..Case::plain() };
        let apart = names(&stage.dir, self.clients, stage.users, false)?;
        let mut raw = serde_json::Map::new();
        for &subject in &self.subjects {
            let start = |shards: usize| -> Result<(Running, Stage), String> {
                let bar = format!("{}-{shards}", stage.bar);
                let names = Some(apart.clone());
                let stage = Stage { bar, shards, names, ..stage.clone() };
                Ok((servers::start(subject, false, &stage)?, stage))
            };
            let (one, two) = (start(1)?, start(2)?);
            let (mut rows, mut crossings) = ([Vec::new(), Vec::new(), Vec::new()], [0.0; 3]);
            for _ in 0..self.rounds() {
                for (at, (server, stage)) in [&one, &two, &two].into_iter().enumerate() {
                    let case = Case { work: work(at == 2), ..case };
                    let before = server.crossings().unwrap_or(0.0);
                    let row = self.load(case, subject, server, stage)?;
                    let posts = server.crossings().unwrap_or(f64::NAN) - before;
                    // Of the whole run, as the posts are.
                    let each = posts / number(&row, "/account/delivered").max(1.0);
                    crossings[at] = f64::max(crossings[at], each);
                    rows[at].push(row);
                }
            }
            let each = |row: &Value| number(row, "/server/cpu_ns_per_message");
            let ratios = rows[1].iter().zip(&rows[0]).map(|(two, one)| each(two) / each(one));
            let figure = Spread::of(ratios.collect());
            let valid = is_valid(&rows[0], false) && is_valid(&rows[1], false);
            let [_, own, lot] = crossings;
            let holds = figure.median <= 1.1 && own <= CROSSINGS_MAX && lot <= CROSSINGS_MAX;
            let (one_us, two_us) = (super::rounds::cost(&rows[0]), super::rounds::cost(&rows[1]));
            say(&format!(
                "  {:<13} {:.2} us/message on one shard, {:.2} us on two",
                subject.name(),
                one_us.median / 1e3,
                two_us.median / 1e3
            ))?;
            self.tell(&Outcome {
                bar: stage.bar.clone(),
                figure,
                limit: 1.1,
                unit: "",
                verdict: verdict(holds, valid),
                subject: format!("{}, two shards", subject.name()),
                base: "one".to_owned(),
                told: format!("; crossings a message {own:.2}, of pairs by lot {lot:.2}"),
            })?;
            let [one, two, lot] = rows;
            raw.insert(format!("{} (1 shard)", subject.name()), json!(one));
            raw.insert(format!("{} (2 shards)", subject.name()), json!(two));
            raw.insert(format!("{} (2 shards, by lot)", subject.name()), json!(lot));
        }
        Ok(Value::Object(raw))
    }
}

/// Whether it has shards and tells what it counted.
pub(super) fn is_tandem(subject: Subject) -> bool {
    matches!(subject, Subject::TandemRing | Subject::TandemEpoll)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_where_they_should_be() {
        let dir = tempfile::tempdir().unwrap();
        for across in [false, true] {
            let path = names(dir.path(), 20, 20 + SPARE_USERS, across).unwrap();
            let text = std::fs::read_to_string(path).unwrap();
            let on: Vec<u16> =
                text.lines().map(|it| shard(it[1..].parse().unwrap()).unwrap()).collect();
            assert_eq!(on.len(), 20);
            assert!(on.chunks(2).all(|pair| (pair[0] != pair[1]) == across), "{on:?}");
            assert_eq!(on.iter().filter(|it| **it == 0).count(), 10);
        }
    }
}
