//! `tandem demo --write DIR`: a complete, commented configuration to start from.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::cli::demo::client::Trouble;
use crate::cli::demo::world::authority;
use crate::config::keys;
use crate::control::authority::Purpose;

/// Leaves it there; refuses to write over one that is there already.
pub(super) fn write(folder: &Path) -> Result<(), Trouble> {
    let config = folder.join("tandem.toml");
    if config.exists() {
        return Err(Trouble(format!("{} is there already; nothing was changed", config.display())));
    }
    fs::create_dir_all(folder.join("tls"))?;
    fs::create_dir_all(folder.join("state"))?;
    let authority = authority()?;
    let issued =
        authority.issue(&["example.com"], Purpose::Both).map_err(|it| Trouble(it.to_string()))?;
    fs::write(folder.join("tls/ca.pem"), authority.root_pem())?;
    fs::write(folder.join("tls/example.com.pem"), issued.cert_pem)?;
    private_file(&folder.join("tls/example.com.key"), issued.key_pem.as_bytes())?;
    fs::write(config, commented())?;
    Ok(())
}

/// Writes a file that only its owner may read.
pub(super) fn private_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(bytes)
}

/// Every key with its meaning: those that are set here, and the others with their defaults.
pub(super) fn commented() -> String {
    let mut text = HEAD.to_owned();
    for table in keys::tables() {
        let title = keys::title(table);
        for (i, set) in ENTRIES.iter().filter(|it| it.0 == table).map(|it| it.1).enumerate() {
            text.push_str(&format!("\n{title}\n"));
            for row in keys::KEYS.iter().filter(|it| it.table == table) {
                let value = set.iter().find(|it| it.0 == row.name);
                if i == 0 {
                    text.push_str(&format!("# {}. Takes {}.\n", row.means, row.takes));
                }
                match value {
                    Some((name, value)) => text.push_str(&format!("{name} = {value}\n")),
                    // A default that can be written is shown as it would be.
                    None if i == 0 && is_toml(row.default) => {
                        text.push_str(&format!("# {} = {}\n", row.name, row.default));
                    }
                    None if i == 0 => {
                        text.push_str(&format!("# {}, if absent: {}\n", row.name, row.default));
                    }
                    None => {}
                }
            }
        }
    }
    text.push_str(PEERS);
    text
}

fn is_toml(default: &str) -> bool {
    default.parse::<u32>().is_ok()
        || ["true", "false"].contains(&default)
        || (default.starts_with('"') && default.ends_with('"'))
}

type Entry = (&'static str, &'static [(&'static str, &'static str)]);

/// What is set, table by table. Tables without an entry are left to their defaults and not shown.
const ENTRIES: &[Entry] = &[
    ("node", &[("name", "\"example-1\""), ("state", "\"state\"")]),
    (
        "domain",
        &[
            ("name", "\"example.com\""),
            ("certificate", "\"tls/example.com.pem\""),
            ("key", "\"tls/example.com.key\""),
        ],
    ),
    ("listen", &[("address", "[\"0.0.0.0:5222\", \"[::]:5222\"]"), ("party", "\"client\"")]),
    (
        "listen",
        &[
            ("address", "[\"0.0.0.0:5223\", \"[::]:5223\"]"),
            ("party", "\"client\""),
            ("security", "\"direct\""),
        ],
    ),
    ("listen", &[("address", "[\"0.0.0.0:5269\", \"[::]:5269\"]"), ("party", "\"peer\"")]),
    ("federation", &[("default", "\"allow\"")]),
    ("store", &[("kind", "\"sqlite\"")]),
    ("admin", &[("http", "\"127.0.0.1:5280\"")]),
    ("log", &[("level", "\"info\"")]),
    ("trust", &[]),
    ("accounts", &[]),
];

const HEAD: &str = "\
# The configuration of one Tandem node.
#
# It runs as it is, with a certificate of a throw-away authority (tls/ca.pem) that is good for a
# month. For service put your own domain, certificate and key here.
# `tandem check config tandem.toml` tells what is wrong with it and what would run;
# `tandem check config --keys` lists every key. Relative paths start at the folder of this file.
";

const PEERS: &str = "
# Exceptions from federation.default, by domain. The most specific rule wins; file order never
# matters.
#
# [[peer]]
# pattern = \"spam.example\"            # that domain alone
# action = \"deny\"
#
# [[peer]]
# pattern = \".partner.example\"        # all below partner.example, not itself
# action = \"allow\"
# auth = \"external\"                   # by certificate only
#
# [[peer]]
# pattern = \"lab.example\"
# action = \"allow\"
# auth = \"dialback\"
# targets = [\"192.0.2.7:5269\"]        # no DNS is asked
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_is_written_loads_without_a_warning_but_the_bundle() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path()).expect("a new folder");
        let loaded =
            config::load(&folder.path().join("tandem.toml")).unwrap_or_else(|it| panic!("{it}"));
        let other = loaded.warnings.iter().filter(|it| !["C0406"].contains(&it.code)).count();
        assert_eq!(other, 0, "{}", loaded.warnings);
        assert!(write(folder.path()).is_err(), "it would have been written over");
    }
}
