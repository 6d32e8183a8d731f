//! Where newer settings come from: the same file, read and checked whole.
//!
//! What only a restart can change stays as it is, and the report says so.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::{self, Loaded};
use crate::control::{Reloaded, Source};
use crate::shard::settings::Settings;

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
            ("federation.nameserver", self.now.nameserver != loaded.nameserver),
            ("store", self.now.store != loaded.store),
            ("admin", self.now.admin != loaded.admin),
            ("log.level", self.now.log_level != loaded.log_level),
        ];
        for (key, _) in needs_restart.into_iter().filter(|it| it.1) {
            changes.push(format!("{key} takes effect at the next start only"));
        }
        let was = &self.now.settings;
        let settings = Settings {
            shards: was.shards,
            // Places in the list are ids of sockets that are open.
            listeners: if self.now.addresses == loaded.addresses {
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
            Ok(loaded) => Ok(self.adopt(loaded)),
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
        assert!(matches!(files.certificates(), Ok(Some(_))));
        assert!(matches!(files.certificates(), Ok(None)));
    }
}
