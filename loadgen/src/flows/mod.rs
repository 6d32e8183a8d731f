//! Who is played: a cast for each side of a server.
//!
//! Does **not** know sockets or schedules; [`crate::engine`] does.

mod c2s;
mod c2s_client;
mod c2s_roster;
#[cfg(test)]
mod c2s_tests;
mod c2s_wire;
mod gateway;
mod s2s;
mod s2s_in;
mod s2s_out;
#[cfg(test)]
mod s2s_tests;
mod s2s_wire;
mod sip;
mod sip_dialog;
mod sip_heard;
mod sip_line;
mod sip_notify;
#[cfg(test)]
mod sip_tests;
mod sip_text;

pub use s2s::domains;
pub use sip_text::judge_template;

use std::sync::Arc;

use crate::pairs::{self, Pairs};
use crate::party::{Call, Cast};
use crate::scenario::model::{Population, Scenario, Side};

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
        Side::Edge => Ok(Arc::new(sip::Edges::new(scenario, population, pairs)?)),
        Side::Addressed => Ok(Arc::new(Addressed(it.clone()))),
    }
}

/// Users whom nobody plays.
struct Addressed(Population);

impl Cast for Addressed {
    fn carriers(&self) -> usize {
        0
    }

    fn carrier_of(&self, _: usize) -> usize {
        0
    }

    fn dial(&self, _: usize) -> Call {
        unreachable!("without carriers nobody dials")
    }

    fn address_of(&self, user: usize) -> Arc<str> {
        pairs::address(&self.0, user).into()
    }
}
