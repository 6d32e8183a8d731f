//! Served domains and what speaks for them: certificates, keys, trusted authorities.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::address::prepare_domain;
use crate::config::check::Checks;
use crate::config::file::Domain as Written;
use crate::config::finding::Finding;
use crate::config::read::{At, in_words, printable};
use crate::shard::settings::Domain;
use crate::tls::{CertStore, Clock, MaterialFault, MaterialSource, Roots};

/// A domain whose files could be read.
struct Readable {
    chain: (Vec<u8>, Range<usize>),
    key: (Vec<u8>, Range<usize>),
    name: Vec<String>,
}

impl Checks<'_> {
    /// The domains sorted by name, and their certificates if all are right.
    pub(super) fn domains(
        &mut self,
        written: &[Written],
    ) -> (Vec<Domain>, Option<CertStore>, Clock) {
        if written.is_empty() {
            self.found.push(
                Finding::error("C0207", 0..0, "no domain is served")
                    .why("a switch without a domain has no users and nobody to speak for")
                    .mend("add [[domain]] with name, certificate and key"),
            );
        }
        let mut domains: BTreeMap<String, (Domain, Range<usize>)> = BTreeMap::new();
        let mut readable = Vec::new();
        for entry in written {
            let name = entry.name.as_ref().and_then(|at| self.domain_name(at));
            self.plain(entry);
            let files = (
                entry.certificate.as_ref().and_then(|at| self.file(at, "certificate")),
                entry.key.as_ref().and_then(|at| self.key_file(at)),
            );
            if let (Some(chain), Some(key)) = files {
                let name = name.iter().cloned().collect();
                readable.push(Readable { chain, key, name });
            }
            let (Some(name), Some(at)) = (name, &entry.name) else { continue };
            if let Some((_, first)) = domains.get(&name) {
                self.found.push(
                    Finding::error("C0201", at.span.clone(), format!("{name} is served twice"))
                        .mark("again here")
                        .other(first.clone(), "first here")
                        .mend("remove one of the two"),
                );
                continue;
            }
            let plain = entry.plain.as_ref().is_some_and(|it| it.value);
            let channel_binding = entry.channel_binding.as_ref().is_none_or(|it| it.value);
            let denial = entry.denial.as_ref().map(|it| it.value).unwrap_or_default();
            let sip_name = entry.sip_name.as_ref().and_then(|at| self.domain_name(at));
            let domain = Domain {
                sip_name: sip_name.unwrap_or_else(|| name.clone()),
                name: name.clone(),
                plain,
                channel_binding,
                denial,
            };
            domains.insert(name, (domain, at.span.clone()));
        }
        let clock = Clock::default();
        clock.set(self.host.now);
        let store = self.certificates(&readable, &clock);
        (domains.into_values().map(|it| it.0).collect(), store, clock)
    }

    /// The normal form of a domain.
    pub(super) fn domain_name(&mut self, at: &At<String>) -> Option<String> {
        match prepare_domain(&at.value) {
            Ok(name) => Some(name.into_owned()),
            Err(fault) => {
                let what = format!("\"{}\" is not a domain", printable(&at.value));
                let finding = Finding::error("C0108", at.span.clone(), what).mark(fault.reason());
                self.found.push(
                    finding.mend("a domain is labels with dots between them: \"chat.example.com\""),
                );
                None
            }
        }
    }

    fn plain(&mut self, entry: &Written) {
        let Some(At { value: true, span }) = &entry.plain else { return };
        let name = entry.name.as_ref().map_or("this domain", |it| &it.value);
        self.found.push(
            Finding::warning("C0402", span.clone(), format!("clients of {} may log in by PLAIN", printable(name)))
                .why("under TLS only, yet the node sees each password, and a client that was lied to gives it away")
                .mend("leave it out unless a client of yours knows no SCRAM"),
        );
    }

    /// Reads a file that the configuration names.
    fn file(&mut self, at: &At<String>, what_for: &str) -> Option<(Vec<u8>, Range<usize>)> {
        let path = self.path(&at.value);
        match std::fs::read(&path) {
            Ok(bytes) => {
                self.watched.push(path);
                Some((bytes, at.span.clone()))
            }
            Err(fault) => {
                let what = format!("the {what_for} can't be read: {}", in_words(&fault));
                let finding = Finding::error("C0301", at.span.clone(), what)
                    .mark(format!("{}", path.display()));
                let finding = if Path::new(&at.value).is_relative() {
                    finding.why("relative paths start at the folder of this file")
                } else {
                    finding
                };
                self.found.push(finding);
                None
            }
        }
    }

    fn key_file(&mut self, at: &At<String>) -> Option<(Vec<u8>, Range<usize>)> {
        let bytes = self.file(at, "private key")?;
        self.not_for_all(at, "private key");
        Some(bytes)
    }

    /// Warns of a secret that every user of the host can read.
    pub(super) fn not_for_all(&mut self, at: &At<String>, what_for: &str) {
        let path = self.path(&at.value);
        if std::fs::metadata(&path).is_ok_and(|it| it.mode() & 0o004 != 0) {
            let what = format!("every user of this host can read the {what_for}");
            self.found.push(
                Finding::warning("C0404", at.span.clone(), what)
                    .why("who has it can pass for the domain")
                    .mend(format!("chmod o-rwx {}", path.display())),
            );
        }
    }

    fn certificates(&mut self, readable: &[Readable], clock: &Clock) -> Option<CertStore> {
        let sources: Vec<MaterialSource<'_>> = readable
            .iter()
            .map(|it| MaterialSource {
                chain_pem: &it.chain.0,
                key_pem: &it.key.0,
                domains: &it.name,
            })
            .collect();
        let store = match CertStore::build(&sources, self.host.now, clock) {
            Ok(store) => store,
            Err(faults) => {
                for (i, fault) in faults {
                    if let Some(it) = readable.get(i) {
                        self.found.push(material_finding(&fault, it));
                    }
                }
                return None;
            }
        };
        let soon = self.host.now.0 / 1_000_000 + EXPIRY_WARNING_SECONDS;
        for (it, material) in readable.iter().zip(store.materials()) {
            let left = material.validity().1.saturating_sub(self.host.now.0 / 1_000_000);
            if material.validity().1 < soon {
                let days = left / 86_400;
                let what = format!(
                    "the certificate expires in {days} day{}",
                    if days == 1 { "" } else { "s" }
                );
                self.found.push(
                    Finding::warning("C0405", it.chain.1.clone(), what)
                        .why("from then on no client and no other server will talk to the domain")
                        .mend("renew it; a running node takes the new one by itself"),
                );
            }
        }
        Some(store)
    }

    /// The authorities that are believed.
    pub(super) fn roots(&mut self, written: Option<&At<String>>) -> Roots {
        let Some(at) = written else {
            let bytes = self.host.bundle.as_ref().and_then(|it| std::fs::read(it).ok());
            let roots = bytes.map(|it| Roots::from_pem(&it).0).unwrap_or_default();
            if roots.is_empty() {
                self.found.push(
                    Finding::warning("C0406", 0..0, "this host has no bundle of certificate authorities")
                        .why("no certificate of another domain can be believed, so only auth = \"dialback\" works")
                        .mend("install the package ca-certificates, or name a bundle: [trust] ca_bundle = \"...\""),
                );
            }
            return roots;
        };
        let Some((bytes, span)) = self.file(at, "bundle of authorities") else {
            return Roots::default();
        };
        let (roots, unusable) = Roots::from_pem(&bytes);
        if roots.is_empty() {
            let what = format!("the bundle holds no usable authority ({unusable} unusable)");
            let finding = Finding::error("C0307", span, what);
            self.found.push(finding.why("no certificate of another domain could be believed"));
        }
        roots
    }
}

/// What tls says about a pair, at the key that has to change.
fn material_finding(fault: &MaterialFault, it: &Readable) -> Finding {
    use MaterialFault as M;
    let (code, at, why, mend) = match fault {
        M::NoCertificate | M::BadCertificate { .. } | M::BadPem(_) => (
            "C0302",
            &it.chain,
            "",
            "the file holds BEGIN CERTIFICATE blocks: the domain's own first, then those above it",
        ),
        M::NoKey | M::BadKey(_) => (
            "C0303",
            &it.key,
            "",
            "the file holds one PRIVATE KEY block: PKCS #8, PKCS #1 or SEC 1",
        ),
        M::KeyMismatch => (
            "C0304",
            &it.key,
            "a handshake signed with it would fail at every client",
            "take the key that the certificate was requested with",
        ),
        M::ChainOrder { .. } => (
            "C0302",
            &it.chain,
            "many programs don't sort it themselves",
            "put each certificate before its issuer's",
        ),
        M::NotCovered { .. } => (
            "C0306",
            &it.chain,
            "a certificate must name the domain, not the host that serves it (RFC 6120, 13.7.1.2)",
            "request one with the domain as dNSName in subjectAltName",
        ),
        M::Expired { .. } => ("C0305", &it.chain, "nobody will talk to the domain", "renew it"),
        M::NotYetValid { .. } => (
            "C0305",
            &it.chain,
            "nobody will talk to the domain yet",
            "look at the clock of this host first",
        ),
    };
    Finding::error(code, at.1.clone(), fault.to_string()).why(why).mend(mend)
}

/// Two weeks: time to renew in spite of holidays.
const EXPIRY_WARNING_SECONDS: u64 = 14 * 86_400;
