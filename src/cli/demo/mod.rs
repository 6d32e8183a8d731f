//! `tandem demo`: two domains and a SIP partner in conversation, with no set-up and no root.
//!
//! Two switches in processes of their own, a name server, a certificate authority, four users, and a
//! SIP partner with one more, all on loopback and in a folder that goes away. With `--once` each step is verified and the
//! demo ends; without, it stays up for a client of one's own.
#![expect(
    clippy::disallowed_methods,
    reason = "beside the switch, with clients that wait and read the clock"
)]

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::admin::Exit;
use crate::cli::output::{note, say};
use crate::tls::{CertStore, Clock, Roots};

mod across;
pub mod client;
pub mod dns;
pub mod edge;
pub mod element;
pub mod script;

mod ladder;
mod scram;
mod talk;
mod world;
mod write;

use client::{Login, Trouble};
use ladder::Ladder;
use talk::Cast;
use world::{Folder, Place, Switch};

/// Runs the demo.
pub(super) fn demo(once: bool) -> Exit {
    match play(once) {
        Ok(true) => Exit::Done,
        Ok(false) => Exit::Refused,
        Err(trouble) => {
            note(format!("tandem demo: {trouble}"));
            Exit::Refused
        }
    }
}

/// `--write`.
pub(super) fn write(folder: &Path) -> Exit {
    match write::write(folder) {
        Ok(()) => {
            let config = folder.join("tandem.toml");
            let config = config.display();
            say(format!(
                "Written: {config}, with a certificate for example.com and its authority."
            ));
            say(format!("Next:    tandem check config {config}"));
            say(format!("         tandem run {config}"));
            say(format!("         tandem ctl --config {config} user add alice@example.com"));
            Exit::Done
        }
        Err(trouble) => {
            note(format!("tandem demo: {trouble}"));
            Exit::Refused
        }
    }
}

fn play(once: bool) -> Result<bool, Trouble> {
    let mut ladder = Ladder::new();
    let folder = Folder::new()?;
    let authority = world::authority()?;
    let places =
        [Place::find("example.com", &folder.0)?, Place::find("partner.example", &folder.0)?];
    let edge = across::partner(&authority, &places[0])?;
    let mut zones: Vec<_> =
        places.iter().map(|it| dns::Zone::xmpp(it.domain, it.peer.port())).collect();
    let port = edge.listens.port();
    zones.push(dns::Zone::sip(across::DOMAIN, across::EDGE, Ipv4Addr::LOCALHOST, port));
    let (nameserver, questions) = dns::serve(zones)?;
    for place in &places {
        place.furnish(&authority, nameserver)?;
    }
    let ca = folder.0.join("ca.pem");
    std::fs::write(&ca, authority.root_pem())?;

    ladder.head("Two switches, each a process of its own");
    let mut switches = Vec::new();
    for place in &places {
        ladder.step("tandem", place.domain, "start", || {
            let switch = Switch::start(place)?;
            let ready = switch.ready.clone();
            switches.push(switch);
            Ok(ready)
        });
    }
    let [here, there] = switches.as_slice() else { return Ok(ladder.summary()) };
    let password = password()?;
    for (switch, address) in [
        (here, "alice@example.com"),
        (here, "bob@example.com"),
        (there, "carol@partner.example"),
        (there, "dave@partner.example"),
    ] {
        let user = address.split('@').next().unwrap_or_default();
        ladder.step("ctl", address, "user add", || {
            switch.add_user(address, &password).map(|()| format!("{user} has an account"))
        });
    }
    let logins = logins(&places, &password, authority.root_pem())?;
    let Some(mut cast) = talk::log_in(&mut ladder, &logins) else { return Ok(ladder.summary()) };
    talk::talk(&mut ladder, &mut cast);
    across::talk(&mut ladder, &edge, &mut cast.alice, &mut cast.bob);
    let asked: Vec<String> = questions.try_iter().collect();
    for (service, domain) in [
        ("_xmpp-server", "partner.example"),
        ("_xmpp-server", "example.com"),
        ("_sipfederationtls", across::DOMAIN),
    ] {
        let name = format!("{service}._tcp.{domain}.");
        ladder.step("dns", domain, "was asked for SRV", || {
            match asked.iter().any(|it| it.eq_ignore_ascii_case(&name)) {
                true => Ok(name.clone()),
                false => Err(Trouble("nobody asked".to_owned())),
            }
        });
    }
    let all_held = ladder.summary();
    if !once {
        stay(cast, edge, &places, &ca, &password)?;
    }
    Ok(all_held)
}

fn logins(places: &[Place; 2], password: &str, ca: &str) -> Result<[Login; 4], Trouble> {
    let clock = Clock::default();
    clock.set(client::now());
    let tls = CertStore::build(&[], client::now(), &clock);
    let tls = Arc::new(tls.map_err(|_| Trouble("TLS can't be set up".to_owned()))?);
    let roots = Arc::new(Roots::from_pem(ca.as_bytes()).0);
    let [here, there] = places;
    let login = |place: &Place, user| Login {
        server: place.client,
        domain: place.domain,
        user,
        password: password.to_owned(),
        resource: "demo",
        roots: Arc::clone(&roots),
        tls: Arc::clone(&tls),
    };
    Ok([login(here, "alice"), login(here, "bob"), login(there, "carol"), login(there, "dave")])
}

/// One that nobody can guess: the ports are open to every user of the host.
fn password() -> Result<String, Trouble> {
    let mut bytes = [0; 5];
    getrandom::fill(&mut bytes).map_err(|it| Trouble(it.to_string()))?;
    Ok(format!("demo-{}", bytes.map(|it| format!("{it:02x}")).concat()))
}

/// Tells how to join, and waits for Ctrl-C.
fn stay(
    cast: Cast,
    edge: edge::Edge,
    places: &[Place; 2],
    ca: &Path,
    password: &str,
) -> Result<(), Trouble> {
    let Cast { alice, bob, carol, dave } = cast;
    // Her account is the visitor's.
    alice.close();
    for (client, name) in [(bob, "Bob"), (carol, "Carol"), (dave, "Dave")] {
        thread::spawn(move || talk::answer_texts(client, name));
    }
    thread::spawn(move || across::answer_texts(&edge));
    let [here, there] = places;
    say("");
    say("Join with a client of your own:");
    say("  user       alice@example.com");
    say(format!("  password   {password}"));
    say(format!("  server     {} port {} (STARTTLS)", here.client.ip(), here.client.port()));
    say(format!("  authority  {} (trust it in that client)", ca.display()));
    say("  write to   bob@example.com, carol@partner.example, dave@partner.example: they answer");
    say("             zoe@contoso.example answers too, across SIP; add her to see her presence");
    for place in [here, there] {
        say(format!(
            "  {:<16} http://{}/metrics   tandem ctl --socket {} status",
            place.domain,
            place.admin,
            place.socket().display()
        ));
    }
    say("");
    say("Ctrl-C ends it and leaves nothing behind.");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        tokio::select! {
            _ = hang_up.recv() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
