//! The TOML form of a scenario, checked: every name that is used exists, every value has its unit.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tandem::config::{Finding, Findings};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::section::{Section, Span, did_you_mean, listed, printable};
use super::{thresholds, units};
use crate::flows;
use crate::scenario::model::{
    Flow, Kind, Phase, Population, Run, Sasl, Scenario, Side, Size, Stage, Target, Tls, Transport,
};

/// Users of a population, threads, watchers: more is a slip of the finger.
const USERS_MOST: u64 = 1 << 20;
const THREADS_MOST: u64 = 256;
const SIZE_MOST: u64 = 1 << 20;

pub(super) const TLS: [(&str, Tls); 3] =
    [("none", Tls::None), ("starttls", Tls::StartTls), ("direct", Tls::Direct)];
const SIDES: [(&str, Side); 4] = [
    ("client", Side::Client),
    ("peer", Side::Peer),
    ("edge", Side::Edge),
    ("addressed", Side::Addressed),
];
const SASL: [(&str, Option<Sasl>); 5] = [
    ("auto", None),
    ("scram-sha-256", Some(Sasl::ScramSha256)),
    ("scram-sha-1", Some(Sasl::ScramSha1)),
    ("plain", Some(Sasl::Plain)),
    ("anonymous", Some(Sasl::Anonymous)),
];
pub(super) const TRANSPORTS: [(&str, Transport); 3] =
    [("tcp", Transport::Tcp), ("tls", Transport::Tls), ("udp", Transport::Udp)];
const KINDS: [(&str, Kind); 9] = [
    ("message", Kind::Message),
    ("presence", Kind::Presence),
    ("login", Kind::Login),
    ("idle", Kind::Idle),
    ("roster", Kind::Roster),
    ("reconnect", Kind::Reconnect),
    ("subscribe", Kind::Subscribe),
    ("session", Kind::Session),
    ("options", Kind::Options),
];
const PHASES: [(&str, Phase); 6] = [
    ("warmup", Phase::Warmup),
    ("ramp", Phase::Ramp),
    ("hold", Phase::Hold),
    ("step", Phase::Step),
    ("spike", Phase::Spike),
    ("pause", Phase::Pause),
];

/// The word of a kind, as written in scenarios and results.
pub fn kind_word(kind: Kind) -> &'static str {
    KINDS.iter().find(|it| it.1 == kind).map_or("", |it| it.0)
}

/// The word of a stage, as written in scenarios and results.
pub fn phase_word(phase: Phase) -> &'static str {
    PHASES.iter().find(|it| it.1 == phase).map_or("", |it| it.0)
}

/// Reads a scenario's text; `path` is for what is told.
pub fn parse(path: &Path, text: &str) -> Result<Scenario, Findings> {
    let mut found = Findings::new(path, text);
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(fault) => {
            let span = fault.span().unwrap_or(0..0);
            let what = format!("this is no TOML: {}", fault.message().replace('\n', ", "));
            found.push(Finding::error("L0005", span, what));
            return Err(found);
        }
    };
    let scenario = whole(table, &mut found);
    if found.errors() > 0 {
        found.sort();
        return Err(found);
    }
    Ok(scenario)
}

/// A value as the tables in it: one, or a list of them.
fn tables<'i>(
    name: &str,
    value: Option<(DeValue<'i>, Span)>,
    found: &mut Findings,
) -> Vec<(DeTable<'i>, Span)> {
    let entries: Vec<Spanned<DeValue<'i>>> = match value {
        None => Vec::new(),
        Some((DeValue::Array(list), _)) => list.into_iter().collect(),
        Some((other, span)) => vec![Spanned::new(span, other)],
    };
    let mut tables = Vec::new();
    for entry in entries {
        let span = entry.span();
        match entry.into_inner() {
            DeValue::Table(table) => tables.push((table, span)),
            _ => {
                let what = format!("`{name}` is not a table");
                let mend = format!("write [{name}] or [[{name}]] on a line of its own");
                found.push(Finding::error("L0002", span, what).mend(mend));
            }
        }
    }
    tables
}

struct Names {
    targets: Vec<String>,
    populations: Vec<String>,
    sides: Vec<Side>,
}

fn whole(table: DeTable<'_>, found: &mut Findings) -> Scenario {
    let mut root = Section::new("the scenario", 0..0, table, found);
    let mut it = Scenario::default();
    match root.text("name") {
        Some((name, _)) => it.name = name,
        None => root.missing("name", "\"im-chat\""),
    }
    it.about = root.text("about").map_or_else(String::new, |it| it.0);
    it.seed = root.count("seed", 0, 1 << 53).unwrap_or(1);
    let keys = ["target", "population", "flow", "stage", "threshold", "run"];
    let [target, population, flow, stage, threshold, run] = keys.map(|key| root.take(key));
    root.finish();

    for (table, span) in tables("target", target, found) {
        it.targets.extend(read_target(Section::new("[target]", span, table, found)));
    }
    let mut names = Names {
        targets: it.targets.iter().map(|it| it.name.clone()).collect(),
        populations: Vec::new(),
        sides: Vec::new(),
    };
    for (table, span) in tables("population", population, found) {
        let section = Section::new("[population]", span, table, found);
        it.populations.extend(read_population(section, &names));
    }
    names.populations = it.populations.iter().map(|it| it.name.clone()).collect();
    names.sides = it.populations.iter().map(|it| it.side).collect();
    for (table, span) in tables("flow", flow, found) {
        it.flows.push(read_flow(Section::new("[[flow]]", span, table, found), &names));
    }
    for (table, span) in tables("stage", stage, found) {
        it.stages.push(read_stage(Section::new("[[stage]]", span, table, found)));
    }
    if let Some((table, span)) = tables("run", run, found).pop() {
        it.run = read_run(Section::new("[run]", span, table, found));
    }
    let flows: Vec<&str> = it.flows.iter().map(|it| it.name.as_str()).collect();
    for (table, span) in tables("threshold", threshold, found) {
        it.thresholds.extend(thresholds::read(table, span, &flows, found));
    }
    check_whole(&it, found);
    it
}

/// What no table alone can tell.
fn check_whole(it: &Scenario, found: &mut Findings) {
    let mut lacks = |what: &str, mend: &str| {
        found.push(Finding::error("L0004", 0..0, what).mend(mend));
    };
    if it.targets.is_empty() {
        lacks("no server is named", "add [target] with address = \"127.0.0.1:5222\"");
    }
    if it.populations.is_empty() {
        lacks(
            "nobody is played",
            "add [population] with local = \"user%d@localhost\", users = 100",
        );
    }
    if it.flows.is_empty() {
        lacks("nothing is done", "add [[flow]] with kind = \"message\"");
    }
    if it.stages.is_empty() {
        lacks("no stage says how long", "add [[stage]] with type = \"hold\", for = \"60s\"");
    }
    let twice = |names: Vec<&String>| {
        let mut seen = std::collections::BTreeSet::new();
        names.into_iter().find(|name| !seen.insert(*name)).cloned()
    };
    for (what, names) in [
        ("targets", it.targets.iter().map(|it| &it.name).collect::<Vec<_>>()),
        ("populations", it.populations.iter().map(|it| &it.name).collect()),
        ("flows", it.flows.iter().map(|it| &it.name).collect()),
    ] {
        if let Some(name) = twice(names) {
            lacks(&format!("two {what} are called \"{name}\""), "give one of them another name");
        }
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    let text = text
        .strip_prefix("localhost:")
        .map_or_else(|| text.to_owned(), |it| format!("127.0.0.1:{it}"));
    text.parse().ok()
}

fn read_target(mut section: Section<'_, '_>) -> Option<Target> {
    let name = section.text("name").map_or_else(|| "default".to_owned(), |it| it.0);
    if !section.has("address") {
        section.missing("address", "\"127.0.0.1:5222\"");
    }
    let mut addresses = Vec::new();
    for (text, span) in section.texts("address") {
        match address(&text) {
            Some(it) => addresses.push(it),
            None => {
                let what = format!("\"{}\" is not an address with a port", printable(&text));
                section.wrong(span, what, "", "write it as in \"127.0.0.1:5222\"");
            }
        }
    }
    let domain = section.text("domain").map(|it| it.0);
    let tls = section.choice("tls", &TLS).unwrap_or_default();
    let pid = section.count("pid", 1, 1 << 32).map(|it| it as u32);
    section.finish();
    Some(Target { name, addresses, domain: domain.unwrap_or_default(), tls, pid })
}

/// One population, or the three short forms `local`, `remote`, `edge` in one table.
fn read_population(mut section: Section<'_, '_>, names: &Names) -> Vec<Population> {
    let mut places = Vec::new();
    for (key, side) in [("local", Side::Client), ("remote", Side::Peer), ("edge", Side::Edge)] {
        if let Some((address, span)) = section.text(key) {
            places.push((key.to_owned(), side, address, span));
        }
    }
    let side = section.choice("side", &SIDES);
    let name = section.text("name").map(|it| it.0);
    match section.text("address") {
        Some((address, span)) => {
            let side = side.unwrap_or(Side::Client);
            let name = name.unwrap_or_else(|| "users".to_owned());
            places.push((name, side, address, span));
        }
        None if places.is_empty() => section.missing("address", "\"user%05d@localhost\""),
        None => {}
    }
    let target = reference(&mut section, "target", &names.targets, "target");
    let target = target.unwrap_or_else(|| names.targets.first().cloned().unwrap_or_default());
    if !section.has("users") {
        section.missing("users", "1000");
    }
    let users = section.count("users", 1, USERS_MOST).unwrap_or(1) as usize;
    let domains = section.count("domains", 1, 1 << 16).unwrap_or(1) as usize;
    let password = section.text("password").map_or_else(|| "pw".to_owned(), |it| it.0);
    let model = Population {
        name: String::new(),
        side: Side::Client,
        target,
        users,
        address: String::new(),
        domains,
        password,
        sasl: section.choice("sasl", &SASL).flatten(),
        roster: section.boolean("roster").unwrap_or(false),
        presence: section.boolean("presence").unwrap_or(false),
        managed: section.boolean("managed").unwrap_or(false),
        sources: sources(&mut section),
        listen: socket(&mut section, "listen"),
        listen_dns: socket(&mut section, "listen_dns"),
        dialback: section.boolean("dialback").unwrap_or(false),
        pager: section.boolean("pager").unwrap_or(false),
        template: template(&mut section),
        certificates: section.text("certificates").map(|it| it.0.into()),
        transport: section.choice("transport", &TRANSPORTS).unwrap_or_default(),
        connect_per_s: section
            .value("connect_rate", units::rate, "500/s")
            .map_or(500, |it| it as u64),
    };
    let mut people = Vec::new();
    for (name, side, address, span) in places {
        // Clients are of the server's one domain, also beside peers of many in one table.
        let many =
            side != Side::Client || address.rsplit('@').next().is_some_and(|it| it.contains('%'));
        let domains = if many { domains } else { 1 };
        check_address(&mut section, &address, &span, users, domains);
        people.push(Population { name, side, address, domains, ..model.clone() });
    }
    section.finish();
    people
}

fn check_address(
    section: &mut Section<'_, '_>,
    address: &str,
    span: &Span,
    users: usize,
    domains: usize,
) {
    let Some((local, domain)) = address.split_once('@') else {
        let what = format!("\"{}\" is not an address of a user", printable(address));
        section.wrong(span.clone(), what, "has no @", "write it as in \"user%05d@localhost\"");
        return;
    };
    if users > 1 && !local.contains('%') {
        let what = format!("all {users} users would have the same name");
        section.wrong(
            span.clone(),
            what,
            "",
            "let their number stand in it: \"user%05d@localhost\"",
        );
    }
    if domains > 1 && !domain.contains('%') {
        let what = format!("all {domains} domains would have the same name");
        section.wrong(
            span.clone(),
            what,
            "",
            "let their number stand in it: \"u%d@d%03d.load.example\"",
        );
    }
}

/// A file with a MESSAGE that can be sent.
fn template(section: &mut Section<'_, '_>) -> Option<PathBuf> {
    let (path, span) = section.text("template")?;
    let judged = std::fs::read_to_string(&path).map_err(|e| e.to_string());
    if let Err(reason) = judged.and_then(|text| flows::judge_template(&text)) {
        let what = format!("\"{}\" is no template: {}", printable(&path), printable(&reason));
        section.wrong(span, what, "", "a MESSAGE with fields such as {from}, {to}, {call}, {text}");
    }
    Some(path.into())
}

/// `127.0.0.0/24` or a list of addresses.
fn sources(section: &mut Section<'_, '_>) -> Vec<std::net::Ipv4Addr> {
    let mut all = Vec::new();
    for (text, span) in section.texts("sources") {
        let (base, bits) = text.split_once('/').unwrap_or((&text, "32"));
        let both = base.parse::<std::net::Ipv4Addr>().ok().zip(bits.parse::<u32>().ok());
        let Some((base, bits)) = both.filter(|it| (16..=32).contains(&it.1)) else {
            let what = format!("\"{}\" is neither an address nor a network", printable(&text));
            section.wrong(span, what, "", "write it as in \"127.0.1.0/24\" (a /16 at most)");
            continue;
        };
        let first = u32::from(base) & u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        let count = 1_u32 << (32 - bits);
        // Neither the network's own address nor its broadcast.
        let hosts = if count > 2 { 1..count - 1 } else { 0..count };
        all.extend(hosts.map(|n| std::net::Ipv4Addr::from(first + n)));
    }
    all
}

fn socket(section: &mut Section<'_, '_>, key: &'static str) -> Option<SocketAddr> {
    let (text, span) = section.text(key)?;
    let got = address(&text);
    if got.is_none() {
        let what = format!("\"{}\" is not an address with a port", printable(&text));
        section.wrong(span, what, "", &format!("write it as in {key} = \"127.0.0.1:5299\""));
    }
    got
}

/// A name that must exist.
fn reference(
    section: &mut Section<'_, '_>,
    key: &'static str,
    known: &[String],
    what: &str,
) -> Option<String> {
    let (name, span) = section.text(key)?;
    if known.contains(&name) {
        return Some(name);
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let told = format!("no {what} is called \"{}\"", printable(&name));
    let mend = format!("`{key}` is one of {}", listed(&known));
    section.wrong(span, told, &did_you_mean(&name, &known), &mend);
    None
}

fn read_flow(mut section: Section<'_, '_>, names: &Names) -> Flow {
    let kind = section.choice("kind", &KINDS);
    if kind.is_none() {
        section.missing("kind", "\"message\"");
    }
    let kind = kind.unwrap_or(Kind::Message);
    let first = || names.populations.first().cloned().unwrap_or_default();
    let from = reference(&mut section, "from", &names.populations, "population");
    let from = from.unwrap_or_else(first);
    let to = reference(&mut section, "to", &names.populations, "population");
    let to = to.unwrap_or_else(|| from.clone());
    check_side(&mut section, kind, &from, names);
    let name = section.text("name").map(|it| it.0);
    let flow = Flow {
        name: name.unwrap_or_else(|| {
            if from == to { kind_word(kind).to_owned() } else { format!("{from}-{to}") }
        }),
        kind,
        from,
        to,
        share: section.number("share", 0.0, 1e9).unwrap_or(1.0),
        size: read_size(&mut section),
        watchers: section.count("watchers", 1, USERS_MOST).unwrap_or(1) as usize,
        presentities: section.count("presentities", 1, USERS_MOST).unwrap_or(1) as usize,
        random_pairs: section.boolean("random_pairs").unwrap_or(false),
        expires_s: section
            .value("expires", units::duration, "600s")
            .map_or(600, |ns| (ns / 1_000_000_000).max(1)),
        read_octets_per_s: section
            .value("read_rate", |it| units::octets(it.strip_suffix("/s")?), "4KiB/s")
            .unwrap_or(0),
        cut: section.value("cut", units::part, "50%").unwrap_or(1.0),
    };
    section.finish();
    flow
}

/// Who can do what.
fn check_side(section: &mut Section<'_, '_>, kind: Kind, from: &str, names: &Names) {
    let at = names.populations.iter().position(|it| it == from);
    let Some(&side) = at.and_then(|at| names.sides.get(at)) else { return };
    let word = |side| SIDES.iter().find(|it| it.1 == side).map_or("", |it| it.0);
    let wants = match kind {
        Kind::Subscribe | Kind::Session | Kind::Options => Side::Edge,
        Kind::Login | Kind::Roster | Kind::Reconnect => Side::Client,
        Kind::Message | Kind::Presence | Kind::Idle if side == Side::Addressed => Side::Client,
        Kind::Message | Kind::Presence | Kind::Idle => side,
    };
    if side != wants {
        let (kind, side, wants) = (kind_word(kind), word(side), word(wants));
        let what = format!("\"{from}\" has side = \"{side}\" and can not do kind = \"{kind}\"");
        let mend = format!("let `from` name a population with side = \"{wants}\"");
        section.wrong(section.span.clone(), what, "", &mend);
    }
}

/// One size, or `{ p50 = 180, p99 = 1200, max = 8000 }`.
fn read_size(section: &mut Section<'_, '_>) -> Size {
    let of = |n: u64| n.min(SIZE_MOST) as usize;
    let fixed = |n: usize| Size { p50: n, p99: n, max: n };
    match section.take("size") {
        None => fixed(180),
        Some((DeValue::Table(table), span)) => {
            let mut inner = Section::new("size", span.clone(), table, section.found);
            let p50 = inner.value("p50", units::octets, "180B").map_or(180, of);
            let p99 = inner.value("p99", units::octets, "1200B").map_or(p50, of);
            let max = inner.value("max", units::octets, "8KiB").map_or(p99, of);
            inner.finish();
            if p99 < p50 || max < p99 {
                let what = "the sizes contradict one another".to_owned();
                section.wrong(span, what, "p50 <= p99 <= max does not hold", "");
            }
            Size { p50, p99, max }
        }
        Some((other, span)) => {
            fixed(section.value_of("size", other, span, units::octets, "4KiB").map_or(180, of))
        }
    }
}

fn read_stage(mut section: Section<'_, '_>) -> Stage {
    let phase = section.choice("type", &PHASES);
    if phase.is_none() {
        section.missing("type", "\"hold\"");
    }
    if !section.has("for") {
        section.missing("for", "\"60s\"");
    }
    let rate_per_s = section.value("rate", units::rate, "2000/s").unwrap_or(0.0);
    let for_ns = section.value("for", units::duration, "60s").unwrap_or(1_000_000_000);
    section.finish();
    Stage { phase: phase.unwrap_or(Phase::Hold), rate_per_s, for_ns }
}

fn read_run(mut section: Section<'_, '_>) -> Run {
    let default = Run::default();
    let arrivals = [("uniform", false), ("poisson", true)];
    let mut run = Run {
        threads: section.count("threads", 1, THREADS_MOST).map_or(1, |it| it as usize),
        cores: Vec::new(),
        poisson: section.choice("arrivals", &arrivals).unwrap_or(false),
        closed: section.count("closed", 1, 1 << 16).map(|it| it as usize),
        in_flight_max: section.count("in_flight_max", 1, 1 << 32).unwrap_or(default.in_flight_max),
        drain_ns: section.value("drain", units::duration, "40s").unwrap_or(default.drain_ns),
        abort_if_late: section.boolean("abort_if_late").unwrap_or(false),
    };
    if let Some((DeValue::Array(list), _)) = section.take("cores") {
        let number = |it: &Spanned<DeValue<'_>>| match it.get_ref() {
            DeValue::Integer(n) => n.as_str().parse().ok(),
            _ => None,
        };
        run.cores = list.iter().filter_map(number).collect();
    }
    section.finish();
    run
}
