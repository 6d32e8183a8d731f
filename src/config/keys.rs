//! Every key of the configuration file: what it takes, what holds without it, what it means.
//!
//! The one list that the reader, the "did you mean" and `tandem check config --keys` share.
//! Long on purpose: one row per key.

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The table it stands in, without brackets.
    pub table: &'static str,
    pub name: &'static str,
    /// What may be written.
    pub takes: &'static str,
    /// What holds without it; `required` if nothing does.
    pub default: &'static str,
    pub means: &'static str,
}

/// What one kind of file may have in it.
#[derive(Debug)]
pub struct Book {
    pub keys: &'static [Key],
    /// The tables that are lists: `[[name]]`.
    pub lists: &'static [&'static str],
}

impl Book {
    /// `[node]`, `[[domain]]`.
    pub fn title(&self, table: &str) -> String {
        if self.lists.contains(&table) { format!("[[{table}]]") } else { format!("[{table}]") }
    }

    /// The tables, each once, in reading order.
    pub fn tables(&self) -> Vec<&'static str> {
        let mut tables: Vec<&str> = self.keys.iter().map(|it| it.table).collect();
        tables.dedup();
        tables
    }

    /// The keys of a table.
    pub fn of_table(&self, table: &str) -> Vec<&'static str> {
        self.keys.iter().filter(|it| it.table == table).map(|it| it.name).collect()
    }

    /// The tables in which a key of that name stands.
    pub fn tables_of(&self, name: &str) -> Vec<&'static str> {
        self.keys.iter().filter(|it| it.name == name).map(|it| it.table).collect()
    }
}

/// The configuration of a node.
pub static CONFIG: Book = Book { keys: KEYS, lists: LISTS };

/// The tables that are lists: `[[name]]`.
pub const LISTS: &[&str] = &["domain", "listen", "peer", "edge"];

/// All keys, by table.
pub const KEYS: &[Key] = &[
    key("node", "name", "a word", "\"tandem\"", "names this node in logs and status"),
    key(
        "node",
        "shards",
        "\"auto\" or 1 to 64",
        "\"auto\"",
        "event loops, one per core; auto takes every core",
    ),
    key(
        "node",
        "pump",
        "\"auto\", \"ring\", \"epoll\"",
        "\"auto\"",
        "io_uring, its epoll twin, or whichever works",
    ),
    key(
        "node",
        "spin",
        "a duration, at most \"50us\"",
        "\"0us\"",
        "busy waiting before sleep: less delay, more CPU",
    ),
    key(
        "node",
        "strangers_per_address",
        "0 to 100000",
        "1024",
        "connections of one address that have not shown who they are; 0 is no bound",
    ),
    key(
        "node",
        "state",
        "a folder",
        "\"/var/lib/tandem\"",
        "where the node keeps what outlives it",
    ),
    key("domain", "name", "a domain", "required", "a domain this node serves"),
    key(
        "domain",
        "certificate",
        "a PEM file",
        "required",
        "its certificate with the chain behind it",
    ),
    key("domain", "key", "a PEM file", "required", "the private key of the certificate"),
    key(
        "domain",
        "plain",
        "true, false",
        "false",
        "offers SASL PLAIN under TLS: old clients log in, the node sees passwords",
    ),
    key(
        "domain",
        "channel_binding",
        "true, false",
        "true",
        "offers SCRAM bound to the TLS channel; some old clients (slixmpp 1.8) log in only without",
    ),
    key(
        "domain",
        "denial",
        "\"polite\", \"explicit\"",
        "\"polite\"",
        "what a denied watcher sees: an offline user, or the word no",
    ),
    key(
        "domain",
        "sip_name",
        "a host name",
        "the domain",
        "our name toward SIP peers (Contact, Record-Route, Via); the certificate must have it",
    ),
    key("listen", "address", "\"ip:port\" or a list", "required", "where connections come in"),
    key(
        "listen",
        "party",
        "\"client\", \"peer\", \"sip\"",
        "required",
        "who connects: users' clients, servers of other domains, or SIP servers of other domains",
    ),
    key(
        "listen",
        "security",
        "\"starttls\", \"direct\", \"optional\"; sip: \"tls\", \"tcp\", \"udp\"",
        "\"starttls\"; sip: \"tls\"",
        "how TLS comes about; optional, tcp and udp are clear text",
    ),
    key(
        "listen",
        "proxy",
        "\"ip\" or a list",
        "[]",
        "from these addresses every connection begins with the PROXY protocol v2; for sip",
    ),
    key(
        "federation",
        "default",
        "\"allow\", \"deny\"",
        "required",
        "what holds for a domain that no [[peer]] names",
    ),
    key(
        "federation",
        "auth",
        "\"external\", \"both\", \"dialback\"",
        "\"both\"",
        "how other domains prove who they are",
    ),
    key(
        "federation",
        "security",
        "\"starttls\", \"direct\", \"optional\"",
        "\"starttls\"",
        "how TLS toward them comes about",
    ),
    key(
        "federation",
        "private_addresses",
        "true, false",
        "false",
        "may connect to private addresses found in DNS",
    ),
    key(
        "federation",
        "dialback_secrets",
        "a list of 32 octets or more each",
        "drawn at start",
        "the first makes keys, all are accepted",
    ),
    key(
        "federation",
        "dialback_secret_file",
        "a file, one secret a line",
        "drawn at start",
        "the same, kept out of this file",
    ),
    key(
        "federation",
        "nameserver",
        "\"ip\" or \"ip:port\"",
        "the system's",
        "who is asked for SRV and addresses",
    ),
    key(
        "peer",
        "pattern",
        "\"a.example\", \"*.a.example\", \".a.example\", \"*\"",
        "required",
        "which foreign domains the rule is about",
    ),
    key("peer", "action", "\"allow\", \"deny\"", "required", "whether they may be talked to"),
    key("peer", "protocol", "\"xmpp\", \"sip\"", "\"xmpp\"", "what they speak: one, never both"),
    key(
        "peer",
        "profile",
        "\"lync\", \"jabber\", \"xmpp\", \"sametime\", \"webex\"",
        "\"lync\" for sip, else \"xmpp\"",
        "whose habits they have: availability states, typing, kinds of messages",
    ),
    key(
        "peer",
        "auth",
        "\"external\", \"both\", \"dialback\"",
        "federation.auth",
        "how they prove who they are",
    ),
    key(
        "peer",
        "security",
        "\"starttls\", \"direct\", \"optional\"",
        "federation.security",
        "how TLS toward them comes about",
    ),
    key(
        "peer",
        "targets",
        "a list of \"ip:port\"; sip: \"host:port\" too",
        "[]: DNS is asked",
        "where they are, in the order of tries",
    ),
    key(
        "peer",
        "private_addresses",
        "true, false",
        "federation.private_addresses",
        "may connect to private addresses found in DNS",
    ),
    key(
        "peer",
        "identity",
        "\"microsoft\", \"fixed\", \"rfc5922\"",
        "\"fixed\" with `names`, \"microsoft\" for lync, else \"rfc5922\"",
        "sip: the certificate must have the SRV target's name, one of `names`, or the domain itself",
    ),
    key("peer", "names", "a list of host names", "[]", "sip: what identity = \"fixed\" expects"),
    key(
        "peer",
        "transport",
        "\"tls\", \"tcp\", \"udp\"",
        "\"tls\"",
        "sip: what carries it; without TLS the addresses in `targets` are all the proof there is",
    ),
    key(
        "peer",
        "rate",
        "0 to 10000",
        "20",
        "sip: new requests a second at most; 0 is as many as there are",
    ),
    key(
        "peer",
        "im",
        "\"session\", \"page\"",
        "\"session\" for lync, else \"page\"",
        "sip: messages inside an INVITE dialog, or each alone",
    ),
    key(
        "peer",
        "pidf",
        "\"microsoft\", \"standard\"",
        "\"microsoft\" for lync, else \"standard\"",
        "sip: the dialect of the presence documents sent; all are read",
    ),
    key(
        "edge",
        "name",
        "a host name",
        "required",
        "a SIP proxy (an Expressway) that is believed for many domains; its certificate has the name",
    ),
    key(
        "edge",
        "speaks_for",
        "a list of patterns as in [[peer]]",
        "required",
        "the domains it is believed for; a [[peer]] rule has to allow each",
    ),
    key(
        "edge",
        "targets",
        "a list of \"host:port\" or \"ip:port\"",
        "its name on port 5061",
        "where it is, in the order of tries",
    ),
    key(
        "clients",
        "jabber",
        "a list of texts with * for anything",
        "[\"*cisco*jabber*\", \"jabber_*\"]",
        "local clients that show presence as Cisco Jabber does, by capabilities node or resource",
    ),
    key("store", "kind", "\"sqlite\"", "\"sqlite\"", "what holds the accounts"),
    key("store", "path", "a file", "\"tandem.db\" in node.state", "the database file"),
    key("admin", "http", "a loopback \"ip:port\"", "off", "serves /health, /ready and /metrics"),
    key(
        "admin",
        "socket",
        "a path",
        "\"ctl.sock\" in node.state",
        "where tandem ctl finds the node",
    ),
    key(
        "log",
        "level",
        "\"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        "\"info\"",
        "how much is written",
    ),
    key(
        "trust",
        "ca_bundle",
        "a PEM file",
        "the system's bundle",
        "authorities believed when other domains show certificates",
    ),
    key(
        "accounts",
        "scram_iterations",
        "4096 to 1000000",
        "10000",
        "the cost of guessing a stolen key, and of each login at the client",
    ),
];

/// One row of a [`Book`].
pub const fn key(
    table: &'static str,
    name: &'static str,
    takes: &'static str,
    default: &'static str,
    means: &'static str,
) -> Key {
    Key { table, name, takes, default, means }
}

/// `[node]`, `[[domain]]`.
pub fn title(table: &str) -> String {
    CONFIG.title(table)
}

/// The tables, each once, in reading order.
pub fn tables() -> Vec<&'static str> {
    CONFIG.tables()
}

/// The keys of a table.
pub fn of_table(table: &str) -> Vec<&'static str> {
    CONFIG.of_table(table)
}

/// The tables in which a key of that name stands.
pub fn tables_of(name: &str) -> Vec<&'static str> {
    CONFIG.tables_of(name)
}

/// The reference, as text.
pub fn reference() -> String {
    let mut out = String::new();
    for table in tables() {
        out.push_str(&format!("{}\n", title(table)));
        for it in KEYS.iter().filter(|it| it.table == table) {
            out.push_str(&format!("  {:<21} {}\n", it.name, it.means));
            out.push_str(&format!("  {:<21} takes {}; default: {}\n", "", it.takes, it.default));
        }
        out.push('\n');
    }
    out
}

/// The known word nearest to what was written, if it is near enough to be meant.
pub fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = written.to_lowercase();
    let begins = |it: &str| lower.len() >= 3 && (it.starts_with(&lower) || lower.starts_with(it));
    let is_near = |steps: usize, it: &str| steps <= (it.len().max(lower.len()) / 3).max(1);
    known
        .iter()
        .map(|it| (distance(&lower, it), *it))
        .filter(|(steps, it)| is_near(*steps, it) || begins(it))
        .min()
        .map(|it| it.1)
}

/// How many letters differ: Levenshtein, with a swap of neighbours as one step.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut best =
                (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_find_their_word() {
        let known = of_table("domain");
        for (written, word) in [
            ("certificat", "certificate"),
            ("cert", "certificate"),
            ("nmae", "name"),
            ("Key", "key"),
        ] {
            assert_eq!(nearest(written, &known), Some(word), "{written}");
        }
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn every_key_stands_once_in_the_reference() {
        let text = reference();
        for it in KEYS {
            assert!(text.contains(it.means), "{}.{}", it.table, it.name);
            assert_eq!(KEYS.iter().filter(|k| k.table == it.table && k.name == it.name).count(), 1);
        }
    }
}
