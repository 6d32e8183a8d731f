//! Who sends to whom: the pairs of every flow, and the users' addresses by pattern.
//!
//! Pair `k` of a flow has the number that stands in its marks, so a receiver can tell whether a
//! text came to the right one. Does **not** know connections.

use crate::scenario::model::{Kind, Population, Scenario};

/// The pairs of all flows of a scenario.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    /// By flow.
    pub flows: Vec<FlowPairs>,
}

/// The pairs of one flow.
#[derive(Clone, Debug, Default)]
pub struct FlowPairs {
    /// The population that begins, by its place in the scenario.
    pub from: usize,
    /// The one that receives.
    pub to: usize,
    /// By pair: the user who begins and the one who gets it.
    pub users: Vec<(u32, u32)>,
    /// Presence: the first watcher among the users of `to`, how many there are, and how many see
    /// each presentity; else zero.
    pub watchers: Watchers,
}

/// Who sees whom in a flow of presence: of `of` users from `first` on, presentity `p` is seen by
/// `each`, beginning with the (`p * each`)th, round and round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watchers {
    /// The first watcher.
    pub first: u32,
    /// How many watchers there are in all.
    pub of: u32,
    /// How many see each presentity.
    pub each: u32,
}

impl Watchers {
    /// Which of a presentity's watchers this user is.
    pub fn place(&self, presentity: u32, user: u32) -> Option<u32> {
        let at = u64::from(user.checked_sub(self.first)?);
        let of = u64::from(self.of);
        if at >= of {
            return None;
        }
        let begin = u64::from(presentity) * u64::from(self.each) % of;
        let place = (at + of - begin) % of;
        (place < u64::from(self.each)).then_some(place as u32)
    }

    /// The user who is watcher number `place` of a presentity.
    pub fn user(&self, presentity: u32, place: u32) -> u32 {
        let at = u64::from(presentity) * u64::from(self.each) + u64::from(place);
        self.first + (at % u64::from(self.of.max(1))) as u32
    }
}

impl Pairs {
    /// Pairs all flows, by the scenario's seed where a lot decides.
    pub fn of(scenario: &Scenario) -> Self {
        let place = |name: &str| scenario.populations.iter().position(|p| p.name == name);
        let users = |at: usize| scenario.populations.get(at).map_or(0, |p| p.users) as u32;
        let flow = |(number, flow): (usize, &crate::scenario::model::Flow)| {
            let from = place(&flow.from).unwrap_or(0);
            let to = place(&flow.to).unwrap_or(from);
            let (froms, tos) = (users(from), users(to));
            let mut it = FlowPairs { from, to, ..FlowPairs::default() };
            match flow.kind {
                Kind::Presence => {
                    let presentities = (flow.presentities.max(1) as u32).min(froms);
                    let first = if from == to { presentities } else { 0 };
                    let of = tos.saturating_sub(first);
                    let each = (flow.watchers.max(1) as u32).min(of);
                    it.watchers = Watchers { first, of, each };
                    it.users = (0..presentities).map(|user| (user, user)).collect();
                }
                // Each presentity of `to` has so many of the watchers in `from`.
                Kind::Subscribe => {
                    let each = (flow.watchers.max(1) as u32).min(froms.max(1));
                    it.users = (0..tos)
                        .flat_map(|to| (0..each).map(move |n| ((to * each + n) % froms.max(1), to)))
                        .collect();
                }
                Kind::Message | Kind::Session if from == to => {
                    let mut order: Vec<u32> = (0..froms & !1).collect();
                    if flow.random_pairs {
                        shuffle(&mut order, scenario.seed ^ number as u64);
                    }
                    it.users = order
                        .chunks_exact(2)
                        .flat_map(|two| [(two[0], two[1]), (two[1], two[0])])
                        .collect();
                }
                Kind::Message | Kind::Session => {
                    let mut order: Vec<u32> = (0..tos).collect();
                    if flow.random_pairs {
                        shuffle(&mut order, scenario.seed ^ number as u64);
                    }
                    it.users = (0..froms.max(tos))
                        .filter(|_| froms > 0 && tos > 0)
                        .map(|k| (k % froms, order[(k % tos) as usize]))
                        .collect();
                }
                Kind::Login | Kind::Idle | Kind::Roster | Kind::Reconnect | Kind::Options => {
                    it.users = (0..froms).map(|k| (k, k % tos.max(1))).collect();
                }
            }
            it
        };
        Self { flows: scenario.flows.iter().enumerate().map(flow).collect() }
    }
}

/// Fisher and Yates with a generator that is the same everywhere.
fn shuffle(order: &mut [u32], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for at in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(at, ((state >> 33) % (at as u64 + 1)) as usize);
    }
}

/// The bare address of a user: `%d`, `%05d` before the `@` is its number, behind it that of its
/// domain.
pub fn address(population: &Population, user: usize) -> String {
    let (local, domain) = population.address.split_once('@').unwrap_or(("", &population.address));
    let domain = numbered(domain, user % population.domains.max(1));
    if local.is_empty() { domain } else { format!("{}@{domain}", numbered(local, user)) }
}

/// A pattern with its `%d` or `%0Nd` replaced.
pub fn numbered(pattern: &str, number: usize) -> String {
    let Some(at) = pattern.find('%') else { return pattern.to_owned() };
    let (before, rest) = pattern.split_at(at);
    let Some(end) = rest.find('d') else { return pattern.to_owned() };
    let width = rest.get(1..end).unwrap_or_default();
    let after = rest.get(end + 1..).unwrap_or_default();
    let wide: usize = width.trim_start_matches('0').parse().unwrap_or(0);
    if width.starts_with('0') {
        format!("{before}{number:0wide$}{after}")
    } else {
        format!("{before}{number}{after}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_numbered() {
        assert_eq!(numbered("user%05d", 7), "user00007");
        assert_eq!(numbered("u%d", 7), "u7");
        assert_eq!(numbered("d%03d.load.example", 12), "d012.load.example");
        assert_eq!(numbered("plain", 1), "plain");
        assert_eq!(numbered("odd%", 1), "odd%");
    }

    #[test]
    fn a_watcher_knows_its_place_and_a_place_its_watcher() {
        for (first, of, each) in [(3, 10, 4), (0, 5, 5), (2, 7, 1)] {
            let watchers = Watchers { first, of, each };
            for presentity in 0..20 {
                let mut seen = 0;
                for user in 0..first + of + 3 {
                    if let Some(place) = watchers.place(presentity, user) {
                        assert_eq!(watchers.user(presentity, place), user);
                        seen += 1;
                    }
                }
                assert_eq!(seen, each);
            }
        }
    }
}
