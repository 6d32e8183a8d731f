//! The configuration as it is written: values with their places, nothing decided yet.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::finding::{Finding, Findings};
use crate::config::keys;
use crate::config::read::{At, Section, did_you_mean, printable, tables};
use crate::limits::SHARDS_MAX;
use crate::policy::{Identity, Im, PeerAuth, Pidf, Profile, Security, Transport};
use crate::shard::settings::{Denial, Party};

/// How the kernel is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pump {
    /// The ring where it is allowed, else epoll.
    Auto,
    /// io_uring or nothing.
    Ring,
    /// epoll.
    Epoll,
}

/// The whole file.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub node: Node,
    pub domains: Vec<Domain>,
    pub listens: Vec<Listen>,
    pub federation: Federation,
    pub peers: Vec<Peer>,
    pub edges: Vec<Edge>,
    /// `[clients]`.
    pub jabber_clients: Option<Vec<At<String>>>,
    pub store: Store,
    pub admin: Admin,
    pub log_level: Option<At<&'static str>>,
    pub ca_bundle: Option<At<String>>,
    pub scram_iterations: Option<At<Option<i64>>>,
}

/// `[node]`.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub name: Option<At<String>>,
    /// `None` inside: `"auto"`.
    pub shards: Option<At<Option<i64>>>,
    pub pump: Option<At<Pump>>,
    pub spin: Option<At<Duration>>,
    pub strangers: Option<At<Option<i64>>>,
    pub state: Option<At<String>>,
}

/// `[[domain]]`.
#[derive(Debug)]
pub(crate) struct Domain {
    pub name: Option<At<String>>,
    pub sip_name: Option<At<String>>,
    pub certificate: Option<At<String>>,
    pub key: Option<At<String>>,
    pub plain: Option<At<bool>>,
    pub channel_binding: Option<At<bool>>,
    pub denial: Option<At<Denial>>,
}

/// `[[listen]]`.
#[derive(Debug)]
pub(crate) struct Listen {
    pub span: Range<usize>,
    pub addresses: Vec<At<String>>,
    /// For SIP with what carries it.
    pub party: Option<At<Party>>,
    /// For XMPP.
    pub security: Option<At<Security>>,
    /// For SIP: where TLS is switched off.
    pub clear: Option<Range<usize>>,
    pub proxies: Option<Vec<At<String>>>,
}

/// `[federation]`.
#[derive(Debug, Default)]
pub(crate) struct Federation {
    /// `None`: the table is absent.
    pub span: Option<Range<usize>>,
    pub default: Option<At<bool>>,
    /// Present but not a word we know: said already.
    pub default_is_written: bool,
    pub auth: Option<At<PeerAuth>>,
    pub security: Option<At<Security>>,
    pub private_addresses: Option<At<bool>>,
    pub dialback_secrets: Option<Vec<At<String>>>,
    pub dialback_secret_file: Option<At<String>>,
    pub nameserver: Option<At<String>>,
}

/// `[[peer]]`.
#[derive(Debug)]
pub(crate) struct Peer {
    pub pattern: Option<At<String>>,
    pub action: Option<At<bool>>,
    /// True: SIP.
    pub is_sip: Option<At<bool>>,
    pub profile: Option<At<Profile>>,
    pub auth: Option<At<PeerAuth>>,
    pub security: Option<At<Security>>,
    pub targets: Option<Vec<At<String>>>,
    pub private_addresses: Option<At<bool>>,
    pub sip: Sip,
}

/// Keys of `[[peer]]` that SIP alone has.
#[derive(Debug)]
pub(crate) struct Sip {
    pub identity: Option<At<Identity>>,
    pub names: Option<Vec<At<String>>>,
    pub transport: Option<At<Transport>>,
    pub rate: Option<At<Option<i64>>>,
    pub im: Option<At<Im>>,
    pub pidf: Option<At<Pidf>>,
}

/// `[[edge]]`.
#[derive(Debug)]
pub(crate) struct Edge {
    pub name: Option<At<String>>,
    pub speaks_for: Vec<At<String>>,
    pub targets: Option<Vec<At<String>>>,
}

/// `[store]`.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub path: Option<At<String>>,
}

/// `[admin]`.
#[derive(Debug, Default)]
pub(crate) struct Admin {
    pub http: Option<At<String>>,
    pub socket: Option<At<String>>,
}

/// Reads the text; whatever can't be read is a finding, and the rest is read all the same.
pub(crate) fn read(source: &str, found: &mut Findings) -> File {
    let (root, faults) = DeTable::parse_recoverable(source);
    if !faults.is_empty() {
        not_toml(source, faults, found);
        return File::default();
    }
    let mut file = File::default();
    for (key, value) in root.into_inner() {
        read_table(&mut file, key, value, found);
    }
    file
}

/// Tells what is not TOML. The parser stops believing at the first mistake, so that line is
/// blanked and the rest parsed again: the next mistake is told in the same run.
pub(crate) fn not_toml(source: &str, mut faults: Vec<toml::de::Error>, found: &mut Findings) {
    let mut text = source.to_owned();
    let mut told = Vec::new();
    while let Some(fault) = faults.into_iter().next() {
        let at = fault.span().unwrap_or_default();
        let start = text.get(..at.start).and_then(|it| it.rfind('\n')).map_or(0, |it| it + 1);
        let end =
            text.get(start..).and_then(|it| it.find('\n')).map_or(text.len(), |it| start + it);
        // A key that comes twice only because a header was blanked is no mistake of the writer.
        let is_real = told.is_empty() || !fault.message().contains("duplicate");
        if told.contains(&start) || told.len() >= SYNTAX_FAULTS_SHOWN || !is_real {
            break;
        }
        told.push(start);
        let what = format!("this is not TOML: {}", fault.message());
        found.push(
            Finding::error("C0101", at, what).mend(
                "texts stand in \"quotes\", tables in [brackets], lists of tables in [[two]]",
            ),
        );
        if text.get(start..end).is_none_or(|it| it.trim_start().starts_with('[')) {
            break;
        }
        text.replace_range(start..end, &" ".repeat(end - start));
        faults = DeTable::parse_recoverable(&text).1;
    }
}

fn read_table(
    file: &mut File,
    key: Spanned<toml::de::DeString<'_>>,
    value: Spanned<DeValue<'_>>,
    found: &mut Findings,
) {
    let (span, written) = (key.span(), key.into_inner());
    let known = keys::tables();
    let Some(name) = known.iter().copied().find(|it| *it == written) else {
        found.push(unknown_top(&written, span, value.get_ref()));
        return;
    };
    let is_list = matches!(value.get_ref(), DeValue::Array(_));
    let should_be_list = keys::LISTS.contains(&name);
    if is_list != should_be_list {
        let title = keys::title(name);
        let what = format!("`{name}` is not written as {title}");
        let mark = format!("write {title}");
        let why = if should_be_list {
            "there may be several, so it is a list of tables"
        } else {
            "there is only one"
        };
        found.push(Finding::error("C0105", span, what).mark(mark).why(why));
    }
    for (span, table) in tables(value) {
        match table {
            Some(table) => read_section(file, Section::new(name, span, table, found)),
            None => found.push(Finding::error(
                "C0105",
                span,
                format!("`{name}` is a table and has keys of its own"),
            )),
        }
    }
}

/// A name at the top of the file that is no table of ours.
fn unknown_top(written: &str, span: Range<usize>, value: &DeValue<'_>) -> Finding {
    let places: Vec<String> = keys::tables_of(written).into_iter().map(keys::title).collect();
    let known = keys::tables();
    if !places.is_empty() {
        let what = format!("`{written}` stands outside of any table");
        return Finding::error("C0103", span, what)
            .mark(format!("belongs in {}", places.join(" or ")));
    }
    let word = if matches!(value, DeValue::Table(_) | DeValue::Array(_)) { "table" } else { "key" };
    // `[listener]`, `[[domains]]`, `[tls]`: what people write from other servers' habit.
    let habit = [
        ("tls", "trust"),
        ("listener", "listen"),
        ("c2s", "listen"),
        ("s2s", "federation"),
        ("user", "accounts"),
    ];
    let near = habit
        .iter()
        .find(|it| it.0 == written)
        .map(|it| it.1)
        .or_else(|| keys::nearest(written, &known));
    let what = format!("unknown {word} `{}`", printable(written));
    let titles: Vec<String> = known.iter().map(|it| keys::title(it)).collect();
    Finding::error("C0104", span, what)
        .mark(did_you_mean(near.map(keys::title).as_deref(), '`'))
        .mend(format!("the tables are {}", titles.join(", ")))
}

fn read_section(file: &mut File, mut it: Section<'_, '_>) {
    match it.name() {
        "node" => {
            file.node = Node {
                name: it.string("name"),
                shards: it.integer("shards", Some("auto"), 1..i64::from(SHARDS_MAX) + 1),
                pump: it.choice(
                    "pump",
                    &[("auto", Pump::Auto), ("ring", Pump::Ring), ("epoll", Pump::Epoll)],
                ),
                spin: it.duration("spin", Duration::ZERO, Duration::from_micros(50)),
                strangers: it.integer("strangers_per_address", None, 0..100_001),
                state: it.string("state"),
            };
        }
        "domain" => file.domains.push(domain(&mut it)),
        "listen" => file.listens.push(listen(&mut it)),
        "federation" => file.federation = federation(&mut it),
        "peer" => file.peers.push(peer(&mut it)),
        "edge" => file.edges.push(edge(&mut it)),
        "clients" => file.jabber_clients = it.strings("jabber"),
        "store" => {
            // One kind so far: the word is checked and means nothing more.
            it.choice("kind", &[("sqlite", ())]);
            file.store = Store { path: it.string("path") };
        }
        "admin" => file.admin = Admin { http: it.string("http"), socket: it.string("socket") },
        "log" => file.log_level = it.choice("level", &LEVELS),
        "trust" => file.ca_bundle = it.string("ca_bundle"),
        _ => file.scram_iterations = it.integer("scram_iterations", None, 4_096..1_000_001),
    }
    it.finish();
}

fn domain(it: &mut Section<'_, '_>) -> Domain {
    let named = it.has("name");
    let (certificate_named, key_named) = (it.has("certificate"), it.has("key"));
    let domain = Domain {
        name: it.string("name"),
        sip_name: it.string("sip_name"),
        certificate: it.string("certificate"),
        key: it.string("key"),
        plain: it.boolean("plain"),
        channel_binding: it.boolean("channel_binding"),
        denial: it.choice("denial", &[("polite", Denial::Polite), ("explicit", Denial::Explicit)]),
    };
    if !named {
        it.missing("name", "a domain without a name serves nobody", "name = \"example.com\"");
    }
    let why = "clients and servers are spoken to over TLS only, and it speaks for the domain";
    if !certificate_named {
        it.missing("certificate", why, "certificate = \"tls/example.com.pem\"");
    }
    if !key_named {
        it.missing(
            "key",
            "a certificate is of no use without its private key",
            "key = \"tls/example.com.key\"",
        );
    }
    domain
}

fn listen(it: &mut Section<'_, '_>) -> Listen {
    let party_named = it.has("party");
    let addresses = it.strings("address");
    let mut party = it.choice("party", &PARTIES);
    let (mut security, mut clear) = (None, None);
    if let Some(At { value: Party::Sip(transport), .. }) = &mut party {
        if let Some(at) = it.choice("security", &TRANSPORTS) {
            *transport = at.value;
            clear = (at.value != Transport::Tls).then_some(at.span);
        }
    } else {
        security = it.choice("security", &SECURITIES);
    }
    let listen = Listen {
        span: it.span.clone(),
        party,
        security,
        clear,
        addresses: addresses.clone().unwrap_or_default(),
        proxies: it.strings("proxy"),
    };
    if addresses.is_none() {
        it.missing(
            "address",
            "nobody knows where to connect",
            "address = [\"0.0.0.0:5222\", \"[::]:5222\"]",
        );
    }
    if !party_named {
        let why = "clients and servers of other domains follow different rules, so they have listeners of their own";
        it.missing(
            "party",
            why,
            "party = \"client\" (usually port 5222), \"peer\" (usually 5269) or \"sip\" (usually 5061)",
        );
    }
    listen
}

fn federation(it: &mut Section<'_, '_>) -> Federation {
    Federation {
        span: Some(it.span.clone()),
        default_is_written: it.has("default"),
        default: it.choice("default", &ACTIONS),
        auth: it.choice("auth", &AUTHS),
        security: it.choice("security", &SECURITIES),
        private_addresses: it.boolean("private_addresses"),
        dialback_secrets: it.strings("dialback_secrets"),
        dialback_secret_file: it.string("dialback_secret_file"),
        nameserver: it.string("nameserver"),
    }
}

fn peer(it: &mut Section<'_, '_>) -> Peer {
    let (pattern_named, action_named) = (it.has("pattern"), it.has("action"));
    let peer = Peer {
        pattern: it.string("pattern"),
        action: it.choice("action", &ACTIONS),
        is_sip: protocol(it),
        profile: it.choice("profile", &PROFILES),
        auth: it.choice("auth", &AUTHS),
        security: it.choice("security", &SECURITIES),
        targets: it.strings("targets"),
        private_addresses: it.boolean("private_addresses"),
        sip: Sip {
            identity: it.choice("identity", &IDENTITIES),
            names: it.strings("names"),
            transport: it.choice("transport", &TRANSPORTS),
            rate: it.integer("rate", None, 0..SIP_RATE_MOST + 1),
            im: it.choice("im", &[("session", Im::Session), ("page", Im::Page)]),
            pidf: it
                .choice("pidf", &[("microsoft", Pidf::Microsoft), ("standard", Pidf::Standard)]),
        },
    };
    if !pattern_named {
        it.missing("pattern", "a rule is about some domains", "pattern = \"partner.example\"");
    }
    if !action_named {
        it.missing(
            "action",
            "a rule allows or denies; there is no silent choice",
            "action = \"allow\" or action = \"deny\"",
        );
    }
    peer
}

/// The protocol is said, never found out.
fn protocol(it: &mut Section<'_, '_>) -> Option<At<bool>> {
    if !it.is("protocol", "discover") {
        return it.choice("protocol", &[("xmpp", false), ("sip", true)]);
    }
    it.refuse(
        "protocol",
        "a domain's protocol is not found out by asking DNS",
        "whoever answers for its DNS could move all its users to another protocol and its weaker proof; and a domain that has both would change from one day to the next",
        "protocol = \"sip\" for Lync, Skype for Business and Office 365, else protocol = \"xmpp\"",
    );
    None
}

fn edge(it: &mut Section<'_, '_>) -> Edge {
    let (name_named, speaks_for_named) = (it.has("name"), it.has("speaks_for"));
    let edge = Edge {
        name: it.string("name"),
        speaks_for: it.strings("speaks_for").unwrap_or_default(),
        targets: it.strings("targets"),
    };
    if !name_named {
        it.missing(
            "name",
            "it is known by the name in its certificate",
            "name = \"expressway.partner.example\"",
        );
    }
    if !speaks_for_named {
        it.missing(
            "speaks_for",
            "it would be believed for nobody",
            "speaks_for = [\"partner.example\", \".partner.example\"]",
        );
    }
    edge
}

const PARTIES: [(&str, Party); 3] =
    [("client", Party::Client), ("peer", Party::Peer), ("sip", Party::Sip(Transport::Tls))];
const TRANSPORTS: [(&str, Transport); 3] =
    [("tls", Transport::Tls), ("tcp", Transport::Tcp), ("udp", Transport::Udp)];
const IDENTITIES: [(&str, Identity); 3] = [
    ("microsoft", Identity::Microsoft),
    ("fixed", Identity::Fixed),
    ("rfc5922", Identity::Rfc5922),
];
const PROFILES: [(&str, Profile); 5] = [
    ("lync", Profile::Lync),
    ("jabber", Profile::Jabber),
    ("xmpp", Profile::Xmpp),
    ("sametime", Profile::Sametime),
    ("webex", Profile::Webex),
];
/// More than any edge takes; a mistyped number should not pass.
const SIP_RATE_MOST: i64 = 10_000;
const ACTIONS: [(&str, bool); 2] = [("allow", true), ("deny", false)];
const AUTHS: [(&str, PeerAuth); 3] =
    [("external", PeerAuth::External), ("both", PeerAuth::Both), ("dialback", PeerAuth::Dialback)];
const SECURITIES: [(&str, Security); 3] = [
    ("starttls", Security::StartTls),
    ("direct", Security::Direct),
    ("optional", Security::Optional),
];
const LEVELS: [(&str, &str); 5] = [
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];
/// Behind so many there is little to learn from more.
const SYNTAX_FAULTS_SHOWN: usize = 20;
