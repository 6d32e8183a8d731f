//! The SIP part of what is measured: the relay of its packets, Tandem's settings for it, Kamailio.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::servers::{Stage, Subject, bare, text, write};

/// The SIP part of a stage.
#[derive(Clone, Debug)]
pub(crate) struct Sip {
    /// The profile of the partner's domain.
    pub profile: &'static str,
    /// New requests a second to it; 0: as many as there are.
    pub rate: u32,
    /// Whether messages go from clients to the edge.
    pub back: bool,
    /// Octets of the four packets of a message, for the relay.
    pub sizes: [usize; 4],
}

/// The relay of SIP's packets.
pub(crate) fn pattern(
    subject: Subject,
    lines: SocketAddr,
    owns: SocketAddr,
    dir: &Path,
    stage: &Stage,
) -> Result<(Vec<String>, Option<PathBuf>), String> {
    let (mut line, counters) = bare(subject, false, lines, dir, stage)?;
    let Some(sip) = &stage.sip else { return Ok((line, counters)) };
    let sizes: Vec<String> = sip.sizes.iter().map(ToString::to_string).collect();
    line.extend(["--owns".into(), owns.to_string(), "--sizes".into(), sizes.join(",")]);
    if sip.back {
        line.push("--back".into());
    }
    Ok((line, counters))
}

impl Sip {
    /// What Tandem is told of it.
    pub(crate) fn tandem(&self, sip: SocketAddr, edge: SocketAddr) -> String {
        let Self { profile, rate, .. } = self;
        format!(
            "[[listen]]\naddress = \"{sip}\"\nparty = \"sip\"\nsecurity = \"tcp\"\n\
             [[peer]]\npattern = \"edge.example\"\naction = \"allow\"\nprotocol = \"sip\"\n\
             profile = \"{profile}\"\ntransport = \"tcp\"\ntargets = [\"{edge}\"]\nrate = {rate}\n"
        )
    }
}

/// Kamailio with the configuration that is checked in, and a fresh file.
pub(crate) fn kamailio(
    subject: Subject,
    sip: SocketAddr,
    dir: &Path,
) -> Result<Vec<String>, String> {
    const TABLES: &str = "/usr/share/kamailio/db_sqlite";
    let file = dir.join("kamailio.db");
    let mut tables = String::new();
    for name in ["standard-create.sql", "presence-create.sql"] {
        let path = Path::new(TABLES).join(name);
        tables += &fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let sql = dir.join("tables.sql");
    write(&sql, &tables)?;
    let made = Command::new("sqlite3")
        .arg(&file)
        .stdin(File::open(&sql).map_err(|e| e.to_string())?)
        .status()
        .map_err(|e| format!("sqlite3: {e}"))?;
    if !made.success() {
        return Err("sqlite3 did not make Kamailio's tables".to_owned());
    }
    let (mode, cache) = if subject == Subject::Kamailio { ("1", "1") } else { ("0", "2") };
    let config = include_str!("../peers/kamailio/kamailio.cfg")
        .replace("@LISTEN@", &sip.to_string())
        .replace("@DB@", &text(&file))
        .replace("@MODE@", mode)
        .replace("@CACHE@", cache);
    let path = dir.join("kamailio.cfg");
    write(&path, &config)?;
    let line = ["kamailio", "-DD", "-E", "-m", "1024", "-M", "16", "-f"];
    Ok(line.into_iter().map(str::to_owned).chain([text(&path)]).collect())
}
