//! Where newer settings come from: the same file, read and checked whole.
//!
//! What only a restart can change stays as it is, and the report says so.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::{self, Loaded};
use crate::control::{Reloaded, Source};
use crate::policy::{Pattern, Rule, Transport};
use crate::shard::settings::{Listener, Party, Settings};

/// The configuration's files.
pub(super) struct Files {
    path: PathBuf,
    now: Loaded,
    stamps: Vec<Stamp>,
}

type Stamp = Option<(SystemTime, u64)>;

impl Files {
    /// `loaded` is what runs.
    pub(super) fn new(path: &Path, loaded: Loaded) -> Self {
        let stamps = stamps(&loaded.watched);
        Self { path: path.to_owned(), now: loaded, stamps }
    }

    fn adopt(&mut self, loaded: Loaded) -> Reloaded {
        let mut changes = differences(&self.now.summary(), &loaded.summary());
        let needs_restart = [
            ("node.shards", self.now.settings.shards != loaded.settings.shards),
            ("node.pump", self.now.node.pump != loaded.node.pump),
            ("node.spin", self.now.node.spin != loaded.node.spin),
            ("node.state", self.now.node.state != loaded.node.state),
            ("listen.address", self.now.addresses != loaded.addresses),
            ("listen.security", sockets_differ(&self.now.settings, &loaded.settings)),
            ("federation.nameserver", self.now.nameserver != loaded.nameserver),
            ("store", self.now.store != loaded.store),
            ("admin", self.now.admin != loaded.admin),
            ("log.level", self.now.log_level != loaded.log_level),
        ];
        for (key, _) in needs_restart.into_iter().filter(|it| it.1) {
            changes.push(format!("{key} takes effect at the next start only"));
        }
        let was = &self.now.settings;
        let same_sockets =
            self.now.addresses == loaded.addresses && !sockets_differ(was, &loaded.settings);
        changes.extend(effects(was, &loaded.settings));
        let settings = Settings {
            shards: was.shards,
            // Places in the list are ids of sockets that are open.
            listeners: if same_sockets {
                loaded.settings.listeners.clone()
            } else {
                was.listeners.clone()
            },
            own_addresses: was.own_addresses.clone(),
            // Keys that were made with a drawn secret are still under way.
            dialback_secrets: if loaded.secret_is_drawn && self.now.secret_is_drawn {
                was.dialback_secrets.clone()
            } else {
                loaded.settings.dialback_secrets.clone()
            },
            scram_secret: was.scram_secret.clone(),
            ..Settings::clone(&loaded.settings)
        };
        let roots = std::sync::Arc::clone(&loaded.roots);
        self.stamps = stamps(&loaded.watched);
        // What stays as it was until a restart is compared with next time, too.
        self.now = Loaded {
            settings: std::sync::Arc::new(settings.clone()),
            node: self.now.node.clone(),
            addresses: self.now.addresses.clone(),
            nameserver: self.now.nameserver,
            store: self.now.store.clone(),
            admin: self.now.admin.clone(),
            log_level: self.now.log_level,
            ..loaded
        };
        Reloaded { settings, roots, changes }
    }
}

impl Source for Files {
    fn reload(&mut self) -> Result<Reloaded, String> {
        match config::load(&self.path) {
            Ok(loaded) => {
                let moved = moved_at_once(&self.now.settings, &loaded.settings);
                moved.map_or_else(|| Ok(self.adopt(loaded)), Err)
            }
            Err(found) => Err(format!("{found}{}; the old configuration stays", found.count())),
        }
    }

    fn certificates(&mut self) -> Result<Option<Reloaded>, String> {
        let stamps = stamps(&self.now.watched);
        if stamps == self.stamps {
            return Ok(None);
        }
        // The first is the configuration itself: what stands there waits for the operator's word.
        if stamps.first() != self.stamps.first() {
            return Err(
                "the configuration was changed as well: `tandem ctl reload` takes both".to_owned()
            );
        }
        self.reload().map(Some)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let it = std::fs::metadata(path).ok()?;
        Some((it.modified().ok()?, it.len()))
    };
    paths.iter().map(stamp).collect()
}

/// A domain goes from SIP to XMPP by way of not being federated: while both were its way, each of
/// its users would have two presences. What to do, if that was left out.
fn moved_at_once(was: &Settings, now: &Settings) -> Option<String> {
    let sip = was.policy.rules().iter().filter(|it| it.1.allow && it.1.protocol.sip().is_some());
    let mut moved = sip.filter_map(|(pattern, _)| {
        let Pattern::Exact(domain) = pattern else { return None };
        let rule = now.policy.verdict(domain).0;
        (rule.allow && rule.protocol.sip().is_none()).then_some(domain)
    });
    let domain = moved.next()?;
    Some(format!(
        "{domain} speaks SIP and would speak XMPP from now on, but a domain can't be moved in one step. \
         1. Deny it ([[peer]] pattern = \"{domain}\", action = \"deny\") and reload: its users go offline. \
         2. Wait until its subscriptions and sessions have ended. \
         3. Allow it with protocol = \"xmpp\" and reload. The old configuration stays"
    ))
}

/// Whether a socket that is open would have to be another: one for datagrams or for connections.
fn sockets_differ(was: &Settings, now: &Settings) -> bool {
    let kinds = |it: &Settings| -> Vec<bool> {
        let is_datagram = |it: &Listener| matches!(it.party, Party::Sip(Transport::Udp));
        it.listeners.iter().map(is_datagram).collect()
    };
    kinds(was) != kinds(now)
}

/// When the changes that were taken take effect, where that is not at once and for all.
fn effects(was: &Settings, now: &Settings) -> Vec<String> {
    let mut effects = Vec::new();
    for domain in &now.domains {
        let Some(before) = was.domain(&domain.name) else { continue };
        let name = &domain.name;
        let shown = |it: &Settings| {
            it.tls.find(name).map(|it| (it.validity(), it.end_point().map(<[u8]>::to_vec)))
        };
        if shown(was) != shown(now) {
            effects.push(format!(
                "certificate of {name}: new connections show it; those that stand keep the old one"
            ));
        }
        if before.sip_name != domain.sip_name {
            effects.push(format!(
                "sip_name of {name}: new dialogs have it; those that stand keep {}, so leave that in DNS and in the certificate until they have ended",
                before.sip_name
            ));
        }
    }
    let (old, new) = (was.policy.rules(), now.policy.rules());
    let find = |rules: &[(Pattern, Rule)], pattern: &Pattern| {
        let found = rules.iter().find(|it| it.0 == *pattern).map(|it| it.1.clone());
        found.filter(|it| it.allow && it.protocol.sip().is_some())
    };
    for (pattern, _) in old.iter().chain(new.iter().filter(|it| old.iter().all(|o| o.0 != it.0))) {
        let text = config::pattern_text(pattern);
        match (find(old, pattern), find(new, pattern)) {
            (None, Some(_)) => effects.push(format!("SIP with {text}: allowed from now on")),
            (Some(_), None) => effects.push(format!(
                "SIP with {text}: refused from now on, in dialogs that stand as well; connections are not cut"
            )),
            (Some(before), Some(after)) if before != after => effects.push(format!(
                "SIP with {text}: the next request goes by the new rule; connections that stand are not cut"
            )),
            _ => {}
        }
    }
    if was.policy.edges() != now.policy.edges() {
        effects.push(
            "edges: whom they are believed for counts from the next request on; connections that stand are not cut"
                .to_owned(),
        );
    }
    effects
}

/// Lines of the one page that went or came.
fn differences(before: &str, after: &str) -> Vec<String> {
    let gone = before
        .lines()
        .filter(|it| !after.lines().any(|new| new == *it))
        .map(|it| format!("was: {it}"));
    let new = after
        .lines()
        .filter(|it| !before.lines().any(|old| old == *it))
        .map(|it| format!("now: {it}"));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo;

    fn furnished() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(demo::write(folder.path()).code(), 0);
        let path = folder.path().join("tandem.toml");
        (folder, path)
    }

    fn edit(path: &Path, from: &str, to: &str) {
        let text = std::fs::read_to_string(path).expect("the file");
        assert!(text.contains(from), "{from}");
        std::fs::write(path, text.replace(from, to)).expect("our folder");
    }

    #[test]
    fn what_changed_is_told_and_what_waits_for_a_restart() {
        let (_folder, path) = furnished();
        let loaded = config::load(&path).unwrap_or_else(|it| panic!("{it}"));
        let secrets = loaded.settings.dialback_secrets.clone();
        let mut files = Files::new(&path, loaded);
        edit(&path, "default = \"allow\"", "default = \"deny\"");
        edit(&path, "0.0.0.0:5222", "0.0.0.0:6222");
        let done = files.reload().expect("a good file");
        assert!(!done.settings.policy.default.allow);
        assert!(done.changes.iter().any(|it| it.contains("default deny")), "{:?}", done.changes);
        assert!(
            done.changes.iter().any(|it| it.starts_with("listen.address")),
            "{:?}",
            done.changes
        );
        assert_eq!(done.settings.dialback_secrets, secrets);
    }

    const PEER: &str = "\n[[peer]]\npattern = \"contoso.example\"\naction = \"allow\"\n";

    /// The file with SIP and one partner.
    fn with_sip(path: &Path) -> String {
        let text = std::fs::read_to_string(path).expect("the file");
        let listen = "\n[[listen]]\naddress = \"127.0.0.1:5061\"\nparty = \"sip\"\n";
        std::fs::write(path, text.clone() + listen).expect("our folder");
        text + listen
    }

    /// Reloads with another text and returns what is said about it.
    fn take(files: &mut Files, path: &Path, text: &str) -> (Settings, String) {
        std::fs::write(path, text).expect("our folder");
        let done = files.reload().unwrap_or_else(|it| panic!("{it}"));
        (done.settings, done.changes.join("\n"))
    }

    #[test]
    fn a_sip_partner_comes_changes_and_goes() {
        let (_folder, path) = furnished();
        let text = with_sip(&path);
        let mut files = Files::new(&path, config::load(&path).unwrap_or_else(|it| panic!("{it}")));
        let sip = format!("{text}{PEER}protocol = \"sip\"\n");
        let (settings, said) = take(&mut files, &path, &sip);
        assert!(settings.policy.sip("contoso.example").is_some());
        assert!(said.contains("SIP with contoso.example: allowed from now on"), "{said}");
        assert!(said.contains("now: ") && !said.contains("next start"), "{said}");

        let (settings, said) = take(&mut files, &path, &format!("{sip}rate = 5\n"));
        assert_eq!(settings.policy.sip("contoso.example").map(|it| it.rule.rate), Some(5));
        assert!(said.contains("the next request goes by the new rule"), "{said}");

        let edge = "\n[[edge]]\nname = \"edge.example\"\nspeaks_for = [\"contoso.example\"]\n";
        let (settings, said) = take(&mut files, &path, &format!("{sip}{edge}"));
        assert!(settings.policy.edge("contoso.example").is_some());
        assert!(said.contains("edges: whom they are believed for"), "{said}");

        let denied = sip.replace("\"allow\"\nprotocol = \"sip\"", "\"deny\"");
        let (settings, said) = take(&mut files, &path, &denied);
        assert!(settings.policy.sip("contoso.example").is_none());
        assert!(said.contains("SIP with contoso.example: refused from now on"), "{said}");
        let (_, said) = take(&mut files, &path, &denied);
        assert_eq!(said, "");
    }

    #[test]
    fn from_sip_to_xmpp_it_is_two_steps() {
        let (_folder, path) = furnished();
        let text = with_sip(&path);
        let sip = format!("{text}{PEER}protocol = \"sip\"\n");
        std::fs::write(&path, &sip).expect("our folder");
        let mut files = Files::new(&path, config::load(&path).unwrap_or_else(|it| panic!("{it}")));
        // By default everybody may come by XMPP, so to leave the rule out is to move the domain.
        for at_once in [format!("{text}{PEER}"), text.clone()] {
            std::fs::write(&path, at_once).expect("our folder");
            let said = files.reload().expect_err("a move at once");
            assert!(said.contains("can't be moved in one step"), "{said}");
        }
        let denied = format!("{text}{}", PEER.replace("allow", "deny"));
        take(&mut files, &path, &denied);
        let (settings, _) = take(&mut files, &path, &format!("{text}{PEER}"));
        assert!(settings.policy.verdict("contoso.example").0.protocol.sip().is_none());
        // Back it goes at once: XMPP keeps nothing that could go on.
        let (settings, _) = take(&mut files, &path, &sip);
        assert!(settings.policy.sip("contoso.example").is_some());
    }

    #[test]
    fn what_a_socket_takes_waits_for_a_restart() {
        let (_folder, path) = furnished();
        let text = with_sip(&path);
        let mut files = Files::new(&path, config::load(&path).unwrap_or_else(|it| panic!("{it}")));
        let (settings, said) = take(&mut files, &path, &format!("{text}security = \"udp\"\n"));
        assert!(said.contains("listen.security takes effect at the next start only"), "{said}");
        let tls = Party::Sip(Transport::Tls);
        assert_eq!(settings.listeners.last().map(|it| it.party), Some(tls));
        let (settings, said) = take(&mut files, &path, &format!("{text}proxy = \"127.0.0.1\"\n"));
        assert!(!said.contains("next start"), "{said}");
        assert_eq!(settings.listeners.last().map(|it| it.proxies.len()), Some(1));
    }

    #[test]
    fn a_bad_file_changes_nothing() {
        let (_folder, path) = furnished();
        let mut files = Files::new(&path, config::load(&path).unwrap_or_else(|it| panic!("{it}")));
        edit(&path, "default = \"allow\"", "default = \"alow\"");
        let text = files.reload().expect_err("a bad file");
        assert!(text.contains("did you mean \"allow\"?") && text.contains("stays"), "{text}");
        // It was not the certificates that changed.
        assert!(files.certificates().is_err());
    }

    #[test]
    fn new_certificates_are_taken_unasked() {
        let (folder, path) = furnished();
        let mut files = Files::new(&path, config::load(&path).unwrap_or_else(|it| panic!("{it}")));
        assert!(matches!(files.certificates(), Ok(None)));
        let other = tempfile::tempdir().expect("a folder");
        demo::write(other.path());
        for name in ["tls/example.com.pem", "tls/example.com.key"] {
            std::fs::copy(other.path().join(name), folder.path().join(name)).expect("our folders");
        }
        // A clock of coarse ticks may give both the same time.
        let later = SystemTime::UNIX_EPOCH;
        let file =
            std::fs::File::options().write(true).open(folder.path().join("tls/example.com.pem"));
        file.and_then(|it| it.set_modified(later)).expect("our file");
        let taken = files.certificates().expect("a good file").expect("it changed");
        let said = taken.changes.join("\n");
        assert!(said.contains("certificate of example.com: new connections show it"), "{said}");
        assert!(matches!(files.certificates(), Ok(None)));
    }
}
