//! Who is played: a cast for each side of a server.
//!
//! Does **not** know sockets or schedules; [`crate::engine`] does.

mod c2s;
mod c2s_client;
mod c2s_roster;
#[cfg(test)]
mod c2s_tests;
mod c2s_wire;
mod s2s;
mod s2s_in;
mod s2s_out;
#[cfg(test)]
mod s2s_tests;
mod s2s_wire;

pub use s2s::domains;

use std::sync::Arc;

use crate::pairs::Pairs;
use crate::party::Cast;
use crate::scenario::model::{Scenario, Side};

/// Who speaks for a population of the scenario, by its place.
pub fn cast(
    scenario: &Arc<Scenario>,
    population: usize,
    pairs: &Arc<Pairs>,
) -> Result<Arc<dyn Cast>, String> {
    let it = scenario.populations.get(population).ok_or("no such population")?;
    match it.side {
        Side::Client => Ok(Arc::new(c2s::Clients::new(scenario, population, pairs)?)),
        Side::Peer => Ok(Arc::new(s2s::Peers::new(scenario, population, pairs)?)),
        Side::Edge => Err("edges are not played yet".to_owned()),
    }
}
