//! Which foreign domains may be talked to, and how: one table for all of federation.
//!
//! Asked before DNS and before any user data. Rules by exact domain, by subdomain pattern or by
//! `*`; the most specific wins and file order never matters. Sub- and parent domains are separate
//! domains: nothing matches by suffix unless a rule says so.
//! A foreign domain speaks XMPP or, by a rule of its own, SIP ([`SipRule`]): one at a time.
//! Does **not** yet know groups of users.

use std::net::SocketAddr;

mod clients;
mod sip;

pub use clients::Clients;
pub use sip::{
    Edge, Identity, Im, Pidf, Profile, Protocol, SipHost, SipPeer, SipRule, SipTarget, Transport,
};

/// The table, checked when the configuration was read: no two rules are equal in pattern.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What holds for a domain that no rule matches.
    pub default: Rule,
    /// Sorted by precedence: the first that matches wins.
    rules: Vec<(Pattern, Rule)>,
    /// How many of them are about one domain each; these come first, by name.
    exact: usize,
    edges: Vec<Edge>,
    /// The profiles in it, each once.
    profiles: Vec<Profile>,
}

/// May it be talked to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    /// What the domain speaks. The fields from `auth` on are for XMPP.
    pub protocol: Protocol,
    /// Whose habits it has.
    pub profile: Profile,
    pub auth: PeerAuth,
    pub security: Security,
    /// Fixed targets: no DNS is asked (order is the order of tries).
    pub targets: Vec<Target>,
    /// Private and loopback addresses from DNS may be connected to.
    pub private_addresses: bool,
}

/// A place to connect to that the administrator fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    pub security: Security,
}

/// Which domains a rule is about. Compared as lower-case A-labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    /// `example.com`: that domain alone.
    Exact(String),
    /// `*.example.com`: exactly one label in place of the star, which may have literal text beside
    /// it (`lab-*.example.com`).
    Label { before: String, after: String, parent: String },
    /// `.example.com`: all subdomains at any depth, not the domain itself.
    Below(String),
    /// `*`: any domain.
    Any,
}

/// How TLS comes about on a listener or toward a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first octet (XEP-0368).
    Direct,
    /// STARTTLS, and nothing else is accepted before it (RFC 6120, 5).
    StartTls,
    /// STARTTLS is offered; login in clear text is allowed too. For benches and closed networks.
    Optional,
}

/// How streams to and from other domains prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAuth {
    /// SASL EXTERNAL only.
    External,
    /// EXTERNAL where the certificate is good, else dialback to a server with a good certificate.
    Both,
    /// Dialback suffices; identity rests on DNS alone.
    Dialback,
}

impl Policy {
    /// Builds the table; the earliest of two equal patterns would win, which the configuration
    /// check refuses before.
    pub fn new(default: Rule, mut rules: Vec<(Pattern, Rule)>) -> Self {
        rules.sort_by(|(a, x), (b, y)| {
            let by_name = a.exact().cmp(&b.exact());
            let by_rule = x.allow.cmp(&y.allow).then(a.cmp(b));
            a.precedence().cmp(&b.precedence()).then(by_name).then(by_rule)
        });
        let exact = rules.partition_point(|it| it.0.exact().is_some());
        let mut profiles: Vec<_> = rules.iter().map(|it| it.1.profile).collect();
        profiles.push(default.profile);
        profiles.sort_unstable();
        profiles.dedup();
        Self { default, rules, exact, edges: Vec::new(), profiles }
    }

    /// With the trusted edges.
    pub fn with_edges(self, edges: Vec<Edge>) -> Self {
        Self { edges, ..self }
    }

    /// Whether any domain may have such a profile.
    pub fn has_profile(&self, is: impl Fn(Profile) -> bool) -> bool {
        self.profiles.iter().any(|it| is(*it))
    }

    /// The trusted edges, as written.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The rule for a domain (lower-case A-labels) and the pattern it stood under; `None`: the
    /// default decided.
    pub fn verdict(&self, domain: &str) -> (&Rule, Option<&Pattern>) {
        let (exact, others) = self.rules.split_at(self.exact);
        let at = exact.partition_point(|it| it.0.exact() < Some(domain));
        exact
            .get(at)
            .filter(|(pattern, _)| pattern.matches(domain))
            .or_else(|| others.iter().find(|(pattern, _)| pattern.matches(domain)))
            .map_or((&self.default, None), |(pattern, rule)| (rule, Some(pattern)))
    }

    /// All rules, the most specific first.
    pub fn rules(&self) -> &[(Pattern, Rule)] {
        &self.rules
    }
}

impl Pattern {
    /// Reads a pattern as the configuration writes it; the domain part must already be lower-case
    /// A-labels.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(parent) = text.strip_prefix('.') {
            return if parent.is_empty() || parent.contains('*') {
                Err(BadPattern)
            } else {
                Ok(Self::Below(parent.to_owned()))
            };
        }
        let Some((first, parent)) = text.split_once('.') else {
            return if text.is_empty() || text.contains('*') {
                Err(BadPattern)
            } else {
                Ok(Self::Exact(text.to_owned()))
            };
        };
        match first.split_once('*') {
            _ if parent.contains('*') || parent.is_empty() || first.is_empty() => Err(BadPattern),
            None => Ok(Self::Exact(text.to_owned())),
            Some((_, after)) if after.contains('*') => Err(BadPattern),
            Some((before, after)) => Ok(Self::Label {
                before: before.to_owned(),
                after: after.to_owned(),
                parent: parent.to_owned(),
            }),
        }
    }

    /// The domain that it is about alone.
    fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(name) => Some(name),
            _ => None,
        }
    }

    /// Whether the pattern is about this domain.
    pub fn matches(&self, domain: &str) -> bool {
        match self {
            Self::Exact(name) => domain == name,
            Self::Any => true,
            Self::Below(parent) => domain
                .strip_suffix(parent.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            Self::Label { before, after, parent } => {
                domain.split_once('.').is_some_and(|(first, rest)| {
                    rest == parent
                        && first.len() > before.len() + after.len()
                        && first.starts_with(before.as_str())
                        && first.ends_with(after.as_str())
                })
            }
        }
    }

    /// Whether there is a domain that both are about.
    pub fn overlaps(&self, other: &Self) -> bool {
        let is_in = |inner: &str, outer: &str| {
            inner == outer || inner.strip_suffix(outer).is_some_and(|it| it.ends_with('.'))
        };
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Exact(name), pattern) | (pattern, Self::Exact(name)) => pattern.matches(name),
            (Self::Below(a), Self::Below(b)) => is_in(a, b) || is_in(b, a),
            (Self::Below(below), Self::Label { parent, .. })
            | (Self::Label { parent, .. }, Self::Below(below)) => is_in(parent, below),
            (
                Self::Label { before, after, parent },
                Self::Label { before: b, after: a, parent: p },
            ) => {
                parent == p
                    && (before.starts_with(b.as_str()) || b.starts_with(before.as_str()))
                    && (after.ends_with(a.as_str()) || a.ends_with(after.as_str()))
            }
        }
    }

    /// Smaller goes first: exact, then more literal labels, then one label before any depth.
    pub(crate) fn precedence(
        &self,
    ) -> (u8, std::cmp::Reverse<usize>, u8, std::cmp::Reverse<usize>) {
        let labels = |parent: &str| std::cmp::Reverse(parent.split('.').count());
        match self {
            Self::Exact(_) => (0, std::cmp::Reverse(0), 0, std::cmp::Reverse(0)),
            Self::Label { before, after, parent } => {
                (1, labels(parent), 0, std::cmp::Reverse(before.len() + after.len()))
            }
            Self::Below(parent) => (1, labels(parent), 1, std::cmp::Reverse(0)),
            Self::Any => (2, std::cmp::Reverse(0), 0, std::cmp::Reverse(0)),
        }
    }
}

/// A pattern that is none of the four forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPattern;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool) -> Rule {
        Rule {
            allow,
            protocol: Protocol::Xmpp,
            profile: Profile::Xmpp,
            auth: PeerAuth::Both,
            security: Security::StartTls,
            targets: Vec::new(),
            private_addresses: false,
        }
    }

    fn table(default: bool, rows: &[(&str, bool)]) -> Policy {
        let rows = rows.iter().map(|(p, a)| (Pattern::parse(p).unwrap(), rule(*a))).collect();
        Policy::new(rule(default), rows)
    }

    #[test]
    fn the_most_specific_rule_wins_in_any_order() {
        let rows = [
            ("*", false),
            (".example.com", true),
            ("*.example.com", false),
            ("lab-*.example.com", true),
            ("example.com", false),
            ("deep.lab.example.com", false),
        ];
        let mut turned = rows;
        turned.reverse();
        for policy in [table(true, &rows), table(true, &turned)] {
            for (domain, allow) in [
                ("other.net", false),
                ("example.com", false),
                ("a.b.example.com", true),
                ("one.example.com", false),
                ("lab-1.example.com", true),
                ("lab-.example.com", false),
                ("deep.lab.example.com", false),
                ("notexample.com", false),
            ] {
                assert_eq!(policy.verdict(domain).0.allow, allow, "{domain}");
            }
        }
    }

    #[test]
    fn without_a_rule_the_default_decides() {
        assert!(table(true, &[]).verdict("a.example").0.allow);
        assert!(!table(false, &[]).verdict("a.example").0.allow);
        assert!(table(false, &[("a.example", true)]).verdict("a.example").0.allow);
        assert!(!table(false, &[("a.example", true)]).verdict("sub.a.example").0.allow);
    }

    #[test]
    fn one_of_many_domains_is_found_among_them() {
        let names: Vec<String> = (0..300).map(|n| format!("d{n}.example")).collect();
        let mut rows: Vec<_> =
            names.iter().rev().map(|it| (it.as_str(), it.len() % 2 == 0)).collect();
        rows.extend([("*.example", true), ("d7.example", true)]);
        let policy = table(false, &rows);
        for name in &names {
            let (rule, pattern) = policy.verdict(name);
            assert_eq!(pattern, Some(&Pattern::Exact(name.clone())));
            assert_eq!(rule.allow, name.len() % 2 == 0, "{name}");
        }
        for other in ["d300.example", "a.example", "z.example"] {
            assert_eq!(policy.verdict(other).1, Pattern::parse("*.example").as_ref().ok());
        }
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for text in ["", ".", "**", "a.*.b", "*.", "a**.b", ".*", "*x"] {
            assert_eq!(Pattern::parse(text), Err(BadPattern), "{text}");
        }
    }
}
