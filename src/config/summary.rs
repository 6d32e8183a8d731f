//! What would run, on one page.

use std::fmt::Write as _;

use serde_json::json;

use crate::config::read::printable;
use crate::config::{Loaded, Pump};
use crate::policy::{
    Clients, Identity, Im, Pattern, PeerAuth, Pidf, Profile, Rule, Security, SipRule, Transport,
};
use crate::shard::settings::{Denial, Listener, Party};

impl Loaded {
    /// One page for people.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, text: String| {
            // Writing to a String can't fail.
            writeln!(out, "{name:<12}{text}").ok();
        };
        let settings = &self.settings;
        let shards = settings.shards;
        let plural = if shards == 1 { "" } else { "s" };
        row(
            "node",
            format!("{}, {shards} shard{plural}, pump {}", self.node.name, pump(self.node.pump)),
        );
        for (i, it) in settings.domains.iter().enumerate() {
            let plain = if it.plain { ", PLAIN allowed" } else { "" };
            let unbound = if it.channel_binding { "" } else { ", no channel binding" };
            let until =
                settings.tls.find(&it.name).map_or_else(String::new, |it| date(it.validity().1));
            let sip = if it.sip_name == it.name {
                String::new()
            } else {
                format!(", in SIP {}", it.sip_name)
            };
            row(
                if i == 0 { "domains" } else { "" },
                format!("{}{sip}{plain}{unbound}, certificate until {until}", it.name),
            );
        }
        for (i, (address, it)) in self.addresses.iter().zip(&settings.listeners).enumerate() {
            let line = format!(
                "{:<22} {}s, {}{}",
                address.to_string(),
                party(it.party),
                how(it),
                proxies(it)
            );
            row(if i == 0 { "listens" } else { "" }, line);
        }
        row("federation", format!("default {}", rule_text(&settings.policy.default)));
        for (pattern, it) in settings.policy.rules() {
            row("", format!("{} {}", pattern_text(pattern), rule_text(it)));
        }
        for (i, it) in settings.policy.edges().iter().enumerate() {
            let patterns: Vec<String> = it.speaks_for.iter().map(pattern_text).collect();
            let at: Vec<String> = it.targets.iter().map(ToString::to_string).collect();
            row(
                if i == 0 { "edges" } else { "" },
                format!("{} speaks for {}, at {}", it.name, patterns.join(", "), at.join(", ")),
            );
        }
        if settings.clients != Clients::default() {
            let patterns: Vec<_> =
                settings.clients.jabber().iter().map(|it| printable(it)).collect();
            row("clients", format!("as Cisco Jabber: {}", patterns.join(", ")));
        }
        row(
            "DNS",
            self.nameserver
                .map_or_else(|| "the system's name servers".to_owned(), |it| it.to_string()),
        );
        let authorities = if self.roots.len() == 1 { "authority" } else { "authorities" };
        row("trust", format!("{} certificate {authorities}", self.roots.len()));
        row("store", format!("sqlite {}", self.store.display()));
        let http = self.admin.http.map_or_else(|| "off".to_owned(), |it| format!("http://{it}"));
        row("admin", format!("{http}, socket {}", self.admin.socket.display()));
        row("log", self.log_level.to_owned());
        out
    }

    /// The same for programs.
    pub fn summary_json(&self) -> serde_json::Value {
        let settings = &self.settings;
        json!({
            "node": { "name": self.node.name, "shards": settings.shards, "pump": pump(self.node.pump),
                      "spin_us": u64::try_from(self.node.spin.as_micros()).unwrap_or(u64::MAX),
                      "state": self.node.state },
            "domains": settings.domains.iter().map(|it| json!({
                "name": it.name, "sip_name": it.sip_name, "plain": it.plain, "channel_binding": it.channel_binding,
                "denial": denial(it.denial),
                "certificate_until": settings.tls.find(&it.name).map(|it| it.validity().1),
            })).collect::<Vec<_>>(),
            "listens": self.addresses.iter().zip(&settings.listeners).map(|(address, it)| {
                json!({ "address": address.to_string(), "party": party(it.party),
                        "security": how(it),
                        "proxy": it.proxies.iter().map(ToString::to_string).collect::<Vec<_>>() })
            }).collect::<Vec<_>>(),
            "federation": {
                "default": rule_json(&settings.policy.default),
                "rules": settings.policy.rules().iter().map(|(pattern, it)| {
                    json!({ "pattern": pattern_text(pattern), "rule": rule_json(it) })
                }).collect::<Vec<_>>(),
                "edges": settings.policy.edges().iter().map(|it| json!({
                    "name": it.name,
                    "speaks_for": it.speaks_for.iter().map(pattern_text).collect::<Vec<_>>(),
                    "targets": it.targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
                "nameserver": self.nameserver.map(|it| it.to_string()),
            },
            "trust": { "authorities": self.roots.len() },
            "store": { "kind": "sqlite", "path": self.store },
            "admin": { "http": self.admin.http.map(|it| it.to_string()), "socket": self.admin.socket },
            "log": { "level": self.log_level },
        })
    }
}

/// A rule for programs.
fn rule_json(it: &Rule) -> serde_json::Value {
    let mut rule = json!({
        "action": if it.allow { "allow" } else { "deny" },
        "protocol": if it.protocol.sip().is_some() { "sip" } else { "xmpp" },
        "profile": it.profile.word(),
        "private_addresses": it.private_addresses,
    });
    let own = match it.protocol.sip() {
        None => json!({
            "auth": auth(it.auth),
            "security": security(it.security),
            "targets": it.targets.iter().map(|it| it.address.to_string()).collect::<Vec<_>>(),
        }),
        Some(sip) => json!({
            "identity": identity(sip.identity),
            "names": sip.names,
            "targets": sip.targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "transport": sip.transport.word(),
            "rate": sip.rate,
            "im": im(sip.im),
            "pidf": pidf(sip.pidf),
        }),
    };
    if let (Some(rule), serde_json::Value::Object(own)) = (rule.as_object_mut(), own) {
        rule.extend(own);
    }
    rule
}

/// A rule of SIP in words, behind `allow`.
fn sip_text(sip: &SipRule, profile: Profile) -> String {
    let who = match (sip.transport, sip.identity) {
        (Transport::Tcp | Transport::Udp, _) => "known by address alone".to_owned(),
        (_, Identity::Microsoft) => "certificate of its SRV target".to_owned(),
        (_, Identity::Rfc5922) => "certificate of the domain".to_owned(),
        (_, Identity::Fixed) => format!("certificate of {}", sip.names.join(" or ")),
    };
    let mut text = format!("sip over {} as {}, {who}", sip.transport.word(), profile.word());
    if !sip.targets.is_empty() {
        let list: Vec<String> = sip.targets.iter().map(ToString::to_string).collect();
        text.push_str(&format!(", at {}", list.join(", ")));
    }
    text.push_str(&match sip.rate {
        0 => ", unpaced".to_owned(),
        rate => format!(", {rate} requests a second"),
    });
    // What follows from the profile needs no words.
    let is_microsoft = profile == Profile::Lync;
    if (sip.im == Im::Session) != is_microsoft {
        text.push_str(&format!(", messages by {}", im(sip.im)));
    }
    if (sip.pidf == Pidf::Microsoft) != is_microsoft {
        text.push_str(&format!(", {} presence documents", pidf(sip.pidf)));
    }
    text
}

/// A rule in words.
pub fn rule_text(it: &Rule) -> String {
    if !it.allow {
        return "deny".to_owned();
    }
    if let Some(sip) = it.protocol.sip() {
        let private = if it.private_addresses { ", private addresses too" } else { "" };
        return format!("allow, {}{private}", sip_text(sip, it.profile));
    }
    let mut text = format!("allow, {}, {}", auth_words(it.auth), security(it.security));
    if !it.targets.is_empty() {
        let list: Vec<String> = it.targets.iter().map(|it| it.address.to_string()).collect();
        text.push_str(&format!(", at {}", list.join(", ")));
    }
    if it.private_addresses {
        text.push_str(", private addresses too");
    }
    if it.profile != Profile::Xmpp {
        text.push_str(&format!(", as {}", it.profile.word()));
    }
    text
}

/// A pattern as it is written.
pub fn pattern_text(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Exact(name) => name.clone(),
        Pattern::Label { before, after, parent } => format!("{before}*{after}.{parent}"),
        Pattern::Below(parent) => format!(".{parent}"),
        Pattern::Any => "*".to_owned(),
    }
}

fn auth(it: PeerAuth) -> &'static str {
    match it {
        PeerAuth::External => "external",
        PeerAuth::Both => "both",
        PeerAuth::Dialback => "dialback",
    }
}

fn auth_words(it: PeerAuth) -> &'static str {
    match it {
        PeerAuth::External => "certificates only",
        PeerAuth::Both => "certificates or dialback",
        PeerAuth::Dialback => "dialback suffices",
    }
}

fn identity(it: Identity) -> &'static str {
    match it {
        Identity::Microsoft => "microsoft",
        Identity::Fixed => "fixed",
        Identity::Rfc5922 => "rfc5922",
    }
}

fn im(it: Im) -> &'static str {
    match it {
        Im::Session => "session",
        Im::Page => "page",
    }
}

fn pidf(it: Pidf) -> &'static str {
    match it {
        Pidf::Microsoft => "microsoft",
        Pidf::Standard => "standard",
    }
}

/// What the listener's `security` says.
fn how(it: &Listener) -> &'static str {
    match it.party {
        Party::Sip(transport) => transport.word(),
        Party::Client | Party::Peer => security(it.security),
    }
}

fn proxies(it: &Listener) -> String {
    if it.proxies.is_empty() {
        return String::new();
    }
    let list: Vec<String> = it.proxies.iter().map(ToString::to_string).collect();
    format!(", PROXY header from {}", list.join(", "))
}

fn denial(it: Denial) -> &'static str {
    match it {
        Denial::Polite => "polite",
        Denial::Explicit => "explicit",
    }
}

fn security(it: Security) -> &'static str {
    match it {
        Security::Direct => "direct",
        Security::StartTls => "starttls",
        Security::Optional => "optional",
    }
}

fn party(it: Party) -> &'static str {
    match it {
        Party::Client => "client",
        Party::Peer => "peer",
        Party::Sip(_) => "sip peer",
    }
}

fn pump(it: Pump) -> &'static str {
    match it {
        Pump::Auto => "auto",
        Pump::Ring => "ring",
        Pump::Epoll => "epoll",
    }
}

/// The day of a moment in seconds since 1970 (civil from days, with years that begin in March).
fn date(seconds: u64) -> String {
    let z = seconds / 86_400 + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
