//! Prosody and ejabberd of Debian: their configurations, which are checked in beside the bench, filled in
//! for a run, and their accounts and rosters in the form of their own stores.
//!
//! Requests over XMPP would take them minutes to make 50,000 subscriptions. Does **not** change a package's own
//! files, and starts no service of theirs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::{DOMAIN, Stage, text, write};

pub(super) fn prosody(
    plain: SocketAddr,
    tls: SocketAddr,
    dir: &Path,
    stage: &Stage,
) -> Result<Vec<String>, String> {
    let data = dir.join("data").join(DOMAIN.replace('.', "%2e"));
    let accounts = data.join("accounts");
    fs::create_dir_all(&accounts).map_err(|e| e.to_string())?;
    prosody_rosters(&data, stage)?;
    for user in 0..stage.users {
        let path = accounts.join(format!("u{user}.dat"));
        write(&path, "return { [\"password\"] = \"pw\"; };\n")?;
    }
    let config = include_str!("../../peers/prosody/prosody.cfg.lua")
        .replace("@OWN@", &text(dir))
        .replace("@CERTIFICATES@", &text(&stage.dir))
        .replace("@PLAIN@", &plain.port().to_string())
        .replace("@TLS@", &tls.port().to_string())
        .replace("@MODULES@", if stage.managed { ", \"smacks\"" } else { "" });
    let path = dir.join("prosody.cfg.lua");
    write(&path, &config)?;
    Ok(vec!["prosody".into(), "--config".into(), text(&path), "-F".into()])
}

/// Subscriptions as its own store has them: 50,000 requests would each rewrite two files.
fn prosody_rosters(data: &Path, stage: &Stage) -> Result<(), String> {
    if stage.presentities == 0 {
        return Ok(());
    }
    let rosters = data.join("roster");
    fs::create_dir_all(&rosters).map_err(|e| e.to_string())?;
    let (watched, watchers) = (0..stage.presentities, stage.presentities..stage.users);
    for user in 0..stage.users {
        let is_watched = watched.contains(&user);
        let (others, kind) =
            if is_watched { (watchers.clone(), "from") } else { (watched.clone(), "to") };
        let mut roster = "return {\n[false] = { [\"version\"] = 1; };\n".to_owned();
        for other in others {
            roster += &format!(
                "[\"u{other}@{DOMAIN}\"] = {{ [\"subscription\"] = \"{kind}\"; [\"groups\"] = {{}}; }};\n"
            );
        }
        write(&rosters.join(format!("u{user}.dat")), &(roster + "};\n"))?;
    }
    Ok(())
}

/// A node without a name and without the port that nodes talk over, on one scheduler.
pub(super) fn ejabberd(
    plain: SocketAddr,
    tls: SocketAddr,
    dir: &Path,
    stage: &Stage,
) -> Result<Vec<String>, String> {
    let read = |name: &str| {
        let path = stage.dir.join(name);
        fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    write(&dir.join("both.pem"), &(read("cert.pem")? + &read("key.pem")?))?;
    let config = include_str!("../../peers/ejabberd/ejabberd.yml")
        .replace("@CERTIFICATES@", &text(dir))
        .replace("@PLAIN@", &plain.port().to_string())
        .replace("@TLS@", &tls.port().to_string());
    let path = dir.join("ejabberd.yml");
    write(&path, &config)?;
    let load = include_str!("../../peers/ejabberd/load.erl")
        .replace("@USERS@", &stage.users.to_string())
        .replace("@WATCHED@", &stage.presentities.to_string())
        .replace("@READY@", &text(&dir.join("ready")));
    let own = text(dir);
    let mut line = vec!["env".to_owned(), "ERL_LIBS=/usr/lib/x86_64-linux-gnu".to_owned()];
    line.push(format!("EJABBERD_CONFIG_PATH={}", text(&path)));
    line.push(format!("EJABBERD_LOG_PATH={own}/ejabberd.log"));
    line.extend([format!("HOME={own}"), format!("ERL_CRASH_DUMP={own}/crash.dump")]);
    line.extend(["erl", "+S", "1:1", "-noinput", "-mnesia", "dir"].map(str::to_owned));
    line.push(format!("\"{own}/mnesia\""));
    line.extend(["-s", "ejabberd", "-eval"].map(str::to_owned));
    line.push(load);
    Ok(line)
}
