//! Which foreign domains may be talked to: the rules of `[federation]` and `[[peer]]`.

use std::ops::Range;

use crate::config::check::Checks;
use crate::config::check::sip::sip_keys;
use crate::config::file::{Edge, Federation, Peer};
use crate::config::finding::Finding;
use crate::config::read::{At, printable};
use crate::policy::{Pattern, PeerAuth, Policy, Profile, Protocol, Rule, Security, Target};

impl Checks<'_> {
    /// The table for all of federation.
    pub(super) fn policy(
        &mut self,
        federation: &Federation,
        peers: &[Peer],
        edges: &[Edge],
        local: &[String],
    ) -> Policy {
        if !federation.default_is_written {
            let span = federation.span.clone().unwrap_or_default();
            self.found.push(
                Finding::error("C0205", span, "`default` is missing in [federation]")
                    .mark("allow or deny?")
                    .why("whether strangers' domains may talk to your users is yours to say; there is no silent choice")
                    .mend("[federation] default = \"allow\" (with [[peer]] rules as exceptions) or default = \"deny\""),
            );
        }
        let default = Rule {
            allow: federation.default.as_ref().is_some_and(|it| it.value),
            protocol: Protocol::Xmpp,
            profile: Profile::Xmpp,
            auth: federation.auth.as_ref().map_or(PeerAuth::Both, |it| it.value),
            security: federation.security.as_ref().map_or(Security::StartTls, |it| it.value),
            targets: Vec::new(),
            private_addresses: federation.private_addresses.as_ref().is_some_and(|it| it.value),
        };
        if default.allow && default.security == Security::Optional {
            self.clear_text(federation.security.as_ref(), "any domain");
        }
        let mut seen: Vec<(Pattern, Range<usize>, bool)> = Vec::new();
        let mut rules = Vec::new();
        for peer in peers {
            let rule = self.rule(peer, &default);
            let Some((pattern, at)) =
                peer.pattern.as_ref().and_then(|at| Some((self.pattern(at)?, at)))
            else {
                continue;
            };
            self.not_local(&pattern, at, local);
            let is_sip = rule.protocol.sip().is_some();
            if let Some((_, first, other)) = seen.iter().find(|it| it.0 == pattern) {
                if *other != is_sip {
                    self.two_protocols(at, first, is_sip);
                    continue;
                }
                let what = format!("two rules for \"{}\"", printable(&at.value));
                self.found.push(
                    Finding::error("C0202", at.span.clone(), what)
                        .mark("again here")
                        .other(first.clone(), "first here")
                        .why("file order never matters, so nothing says which of the two holds")
                        .mend("merge them into one"),
                );
                continue;
            }
            seen.push((pattern.clone(), at.span.clone(), is_sip));
            rules.push((pattern, rule));
        }
        let policy = Policy::new(default, rules);
        let edges = self.edges(edges, peers, local, &policy);
        policy.with_edges(edges)
    }

    /// A domain is SIP or XMPP federated, never both; how it goes from one to the other.
    fn two_protocols(&mut self, at: &At<String>, first: &Range<usize>, is_sip: bool) {
        let words = |is_sip| if is_sip { "by SIP here" } else { "by XMPP here" };
        let what =
            format!("\"{}\" can't be federated by SIP and by XMPP at once", printable(&at.value));
        self.found.push(
            Finding::error("C0202", at.span.clone(), what)
                .mark(words(is_sip))
                .other(first.clone(), words(!is_sip))
                .why("each of its users would have two presences, and what is said to one of them could go either way")
                .mend("to move it from SIP to XMPP: 1. remove the SIP rule (where the default allows: action = \"deny\") and `tandem ctl reload`; 2. wait until its subscriptions and sessions have ended, its users are offline meanwhile; 3. add the XMPP rule and reload again"),
        );
    }

    fn rule(&mut self, peer: &Peer, default: &Rule) -> Rule {
        let allow = peer.action.as_ref().is_some_and(|it| it.value);
        if peer.action.as_ref().is_some_and(|it| !it.value) {
            self.without_effect(peer);
        }
        if peer.is_sip.as_ref().is_some_and(|it| it.value) {
            return self.sip_rule(peer, allow, default);
        }
        self.keys_of_sip(peer);
        let security = peer.security.as_ref().map_or(default.security, |it| it.value);
        let port = if security == Security::Direct { 5270 } else { 5269 };
        let written = peer.targets.iter().flatten();
        let addresses: Vec<_> = written.filter_map(|at| self.socket_address(at, port)).collect();
        if allow && peer.security.is_some() && security == Security::Optional {
            let is_near = !addresses.is_empty() && addresses.iter().all(|it| it.ip().is_loopback());
            let name = peer.pattern.as_ref().map_or("a peer", |it| &it.value);
            if !is_near {
                self.clear_text(peer.security.as_ref(), &printable(name));
            }
        }
        Rule {
            allow,
            protocol: Protocol::Xmpp,
            profile: peer.profile.as_ref().map_or(Profile::Xmpp, |it| it.value),
            auth: peer.auth.as_ref().map_or(default.auth, |it| it.value),
            security,
            targets: addresses.into_iter().map(|address| Target { address, security }).collect(),
            private_addresses: peer
                .private_addresses
                .as_ref()
                .map_or(default.private_addresses, |it| it.value),
        }
    }

    fn clear_text(&mut self, at: Option<&At<Security>>, with: &str) {
        let span = at.map(|it| it.span.clone()).unwrap_or_default();
        self.found.push(
            Finding::warning("C0408", span, format!("clear text is allowed with {with}"))
                .mark("TLS may be left out here")
                .why("whoever is on the way can read, change and make up what the domain says")
                .mend("security = \"starttls\"; \"optional\" is for benches and closed networks"),
        );
    }

    /// Settings of a rule that denies.
    fn without_effect(&mut self, peer: &Peer) {
        let written = [
            ("auth", peer.auth.as_ref().map(|it| it.span.clone())),
            ("security", peer.security.as_ref().map(|it| it.span.clone())),
            ("targets", peer.targets.as_ref().and_then(|it| it.first()).map(|it| it.span.clone())),
            ("private_addresses", peer.private_addresses.as_ref().map(|it| it.span.clone())),
        ];
        let written = written.into_iter().filter_map(|(key, span)| Some((key, span?)));
        for (key, span) in written.chain(sip_keys(peer)) {
            let what = format!("`{key}` has no effect in a rule that denies");
            let mend = "remove it, or did you mean action = \"allow\"?";
            self.found.push(Finding::warning("C0409", span, what).mend(mend));
        }
    }

    /// A pattern with its domain in normal form.
    pub(super) fn pattern(&mut self, at: &At<String>) -> Option<Pattern> {
        let text = at.value.as_str();
        let (head, domain) = match text.strip_prefix('.') {
            Some(rest) => (".".to_owned(), rest),
            None => match text.split_once('.') {
                Some((first, rest)) if first.contains('*') => {
                    (format!("{}.", first.to_ascii_lowercase()), rest)
                }
                _ => (String::new(), text),
            },
        };
        if text != "*" && !domain.contains('*') {
            let domain = At { value: domain.to_owned(), span: at.span.clone() };
            let domain = self.domain_name(&domain)?;
            if let Ok(pattern) = Pattern::parse(&format!("{head}{domain}")) {
                return Some(pattern);
            }
        } else if let Ok(pattern) = Pattern::parse(text) {
            return Some(pattern);
        }
        let what = format!("\"{}\" is none of the four forms of a pattern", printable(text));
        self.found.push(
            Finding::error("C0108", at.span.clone(), what)
                .why("a star stands for one label or part of one, at the front; by itself it means any domain")
                .mend("\"a.example\", \"*.a.example\" (one label), \".a.example\" (all below, not itself), or \"*\""),
        );
        None
    }

    /// A domain is ours or foreign, never both.
    pub(super) fn not_local(&mut self, pattern: &Pattern, at: &At<String>, local: &[String]) {
        if *pattern == Pattern::Any {
            return;
        }
        for name in local.iter().filter(|it| pattern.matches(it)) {
            let finding = if matches!(pattern, Pattern::Exact(_)) {
                Finding::error(
                    "C0203",
                    at.span.clone(),
                    format!("{name} is served here and can't be a foreign domain too"),
                )
                .mark("one of our own")
                .mend("remove the rule, or the [[domain]]")
            } else {
                let what =
                    format!("\"{}\" covers {name}, which is served here", printable(&at.value));
                Finding::error("C0204", at.span.clone(), what)
                    .mark(format!("swallows {name}"))
                    .mend("name the foreign subdomains one by one; \"*\" is the one pattern that never means a domain of ours")
            };
            self.found.push(
                finding.why(
                    "what other servers say in the name of a domain of ours is always refused",
                ),
            );
        }
    }
}
