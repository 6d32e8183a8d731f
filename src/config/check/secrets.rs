//! Secrets: given, read from a file or the environment, or drawn.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::config::check::Checks;
use crate::config::file::Federation;
use crate::config::finding::Finding;
use crate::config::read::{At, in_words};

impl Checks<'_> {
    /// Dialback secrets: the first makes keys, all are accepted.
    pub(super) fn dialback_secrets(&mut self, federation: &Federation) -> Vec<Vec<u8>> {
        let mut secrets = Vec::new();
        if let (Some(list), Some(file)) =
            (&federation.dialback_secrets, &federation.dialback_secret_file)
        {
            let first = list.first().map(|it| it.span.clone()).unwrap_or_default();
            self.found.push(
                Finding::error(
                    "C0110",
                    file.span.clone(),
                    "dialback secrets are given in two ways",
                )
                .mark("by a file")
                .other(first, "and here")
                .mend("keep the file and remove `dialback_secrets`"),
            );
        }
        for at in federation.dialback_secrets.iter().flatten() {
            if !at.value.starts_with("env:") {
                self.found.conceal(&at.span);
            }
            let secret = match at.value.strip_prefix("env:") {
                None => at.value.clone(),
                Some(name) => match std::env::var(name) {
                    Ok(secret) => secret,
                    Err(_) => {
                        let what = format!("the environment has no variable {name}");
                        self.found.push(Finding::error("C0301", at.span.clone(), what));
                        continue;
                    }
                },
            };
            self.secret(&secret, at, &mut secrets);
        }
        if let Some(at) = &federation.dialback_secret_file {
            let path = self.path(&at.value);
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    self.watched.push(path);
                    self.not_for_all(at, "dialback secret");
                    for line in text.lines().map(str::trim).filter(|it| !it.is_empty()) {
                        self.secret(line, at, &mut secrets);
                    }
                    if text.trim().is_empty() {
                        let what = "the file of dialback secrets is empty";
                        self.found.push(Finding::error("C0210", at.span.clone(), what));
                    }
                }
                Err(fault) => {
                    let what =
                        format!("the file of dialback secrets can't be read: {}", in_words(&fault));
                    let finding = Finding::error("C0301", at.span.clone(), what);
                    self.found.push(finding.mark(format!("{}", path.display())));
                }
            }
        }
        if secrets.is_empty() {
            // XEP-0185, 2: nobody but this node has to know it.
            secrets.push(draw());
        }
        secrets
    }

    fn secret(&mut self, secret: &str, at: &At<String>, secrets: &mut Vec<Vec<u8>>) {
        if secret.len() >= DIALBACK_SECRET_OCTETS {
            secrets.push(secret.as_bytes().to_vec());
            return;
        }
        let what = format!(
            "a dialback secret of {} octets; it needs {DIALBACK_SECRET_OCTETS}",
            secret.len()
        );
        self.found.push(
            Finding::error("C0210", at.span.clone(), what)
                .mark("too short")
                .why("every other server sees keys made from it and can try secrets at leisure")
                .mend("openssl rand -hex 32, or leave it out: a node alone draws its own at each start"),
        );
    }
}

/// What hides whether an account exists; kept over restarts where it was kept before.
pub(super) fn scram_secret(state: &Path) -> Vec<u8> {
    let kept = std::fs::read(state.join(SCRAM_SECRET_FILE)).ok();
    kept.filter(|it| it.len() >= 32).unwrap_or_else(draw)
}

/// Keeps it for the next start, so that a made-up salt does not change.
pub fn keep_scram_secret(state: &Path, secret: &[u8]) -> std::io::Result<()> {
    let path = state.join(SCRAM_SECRET_FILE);
    if path.exists() {
        return Ok(());
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret)
}

fn draw() -> Vec<u8> {
    let mut bytes = vec![0; 32];
    // A host without entropy can't run TLS either; the process has nothing to go on with.
    getrandom::fill(&mut bytes).expect("the kernel gives random octets");
    bytes
}

/// XEP-0185, 2 asks for a secret that can't be guessed; 32 octets are SHA-256's own length.
const DIALBACK_SECRET_OCTETS: usize = 32;
const SCRAM_SECRET_FILE: &str = "scram.secret";
