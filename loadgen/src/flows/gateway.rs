//! What crosses a gateway, seen from the SIP side: which flows begin at an edge, which end there,
//! and what has to stand before the first stage.
//!
//! Does **not** speak; the lines of an edge do.

use std::sync::Mutex;

use crate::flows::sip::Dialog;
use crate::pairs::{self, FlowPairs, Pairs};
use crate::scenario::model::{Flow, Kind, Scenario};

/// Seconds of the subscriptions that a flow of presence needs.
const PRESENCE_S: u64 = 3_600;

/// What a flow is for an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) kind: Option<Kind>,
    /// It ends here.
    pub(super) ends: bool,
    /// It begins here.
    pub(super) begins: bool,
}

impl Role {
    /// Texts come here.
    pub(super) fn takes_texts(self) -> bool {
        self.ends && matches!(self.kind, Some(Kind::Message | Kind::Session))
    }

    /// Its watchers are here.
    pub(super) fn watches(self) -> bool {
        self.ends && self.kind == Some(Kind::Presence)
    }
}

/// What each flow is.
pub(super) fn roles(scenario: &Scenario, place: usize, pairs: &Pairs) -> Vec<Role> {
    let both = scenario.flows.iter().zip(&pairs.flows);
    both.map(|(flow, it)| Role {
        kind: Some(flow.kind),
        ends: it.to == place,
        begins: it.from == place,
    })
    .collect()
}

/// A dialog for each pair of what begins here, and for each watcher of presence that ends here.
pub(super) fn dialogs(
    scenario: &Scenario,
    place: usize,
    pairs: &Pairs,
    lines: usize,
) -> Vec<Vec<Mutex<Dialog>>> {
    let address = |population: usize, user: u32| {
        let population = scenario.populations.get(population);
        population.map_or_else(String::new, |it| pairs::address(it, user as usize)).into()
    };
    let of = |it: &FlowPairs, [from, to]: [(usize, u32); 2], expires_s: u64, stays: bool| {
        let line = (from.1 as usize % lines.max(1)) as u32;
        let (from, to) = (address(from.0, from.1), address(to.0, to.1));
        debug_assert!(it.from == place || it.to == place);
        Mutex::new(Dialog { from, to, line, expires_s, stays, ..Dialog::default() })
    };
    let flow = |(flow, it): (&Flow, &FlowPairs)| {
        if flow.kind != Kind::Presence {
            let own = if it.from == place { it.users.as_slice() } else { &[] };
            return own
                .iter()
                .map(|&(from, to)| of(it, [(place, from), (it.to, to)], flow.expires_s, false))
                .collect();
        }
        let each = if it.to == place { it.watchers.each } else { 0 };
        let dialog = |index: u32| {
            let presentity = index / each.max(1);
            let watcher = it.watchers.user(presentity, index % each.max(1));
            let to = it.users.get(presentity as usize).map_or(0, |users| users.0);
            of(it, [(place, watcher), (it.from, to)], PRESENCE_S, true)
        };
        (0..it.users.len() as u32 * each).map(dialog).collect()
    };
    scenario.flows.iter().zip(&pairs.flows).map(flow).collect()
}

/// Subscriptions of the edge's users that the first stage waits for.
pub(super) fn missing(scenario: &Scenario, place: usize, pairs: &Pairs) -> usize {
    let both = scenario.flows.iter().zip(&pairs.flows);
    both.filter(|(flow, it)| flow.kind == Kind::Presence && it.to == place)
        .map(|(_, it)| it.users.len() * it.watchers.each as usize)
        .sum()
}
