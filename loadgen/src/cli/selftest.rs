//! `selftest` and `relay`: what this host's generator can do, against a server of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use tandem_loadgen::null::{self, Stall};
use tandem_loadgen::plot::{Unit, shown};
use tandem_loadgen::result::judge;
use tandem_loadgen::scenario::{self, Loaded, Overrides, set_rate, units};
use tandem_loadgen::sys;

use super::run::{How, once, say, tell};

const TEXT: &str = r#"
name = "selftest"
about = "Pairs that chat through the generator's own server."
[target]
address = "127.0.0.1:1"
[population]
local = "user%05d@null.example"
users = 200
sasl = "plain"
[[flow]]
kind = "message"
[[stage]]
type = "warmup"
rate = "1000/s"
for = "500ms"
[[stage]]
type = "hold"
rate = "1000/s"
for = "2s"
[run]
drain = "5s"
"#;

#[derive(Args)]
pub(crate) struct Selftest {
    #[command(flatten)]
    how: How,
    /// Threads of the generator.
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Args)]
pub(crate) struct Relay {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:5222")]
    listen: SocketAddr,
    /// The domain of its users.
    #[arg(long, default_value = "localhost")]
    domain: String,
    /// A pause of everything, how long and once in how long: 200ms/1s.
    #[arg(long)]
    stall: Option<String>,
}

impl Selftest {
    /// Doubles the rate until the generator or the server on the same cores is at its end.
    pub(crate) fn run(&self) -> Result<ExitCode, String> {
        sys::catch_interrupts();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let at = null::start(at, "null.example", None).map_err(|e| e.to_string())?;
        let scenario = scenario::parse(Path::new("selftest.toml"), TEXT)
            .map_err(|found| found.render(false))?;
        let mut loaded = Loaded { scenario, text: TEXT.to_owned() };
        let target = vec![at.to_string()];
        let overrides = Overrides { target, threads: self.threads, ..Overrides::default() };
        overrides.apply(&mut loaded.scenario)?;
        let (mut rate, mut best) = (1_000.0, None);
        while rate < 1e7 && !sys::interrupted() {
            set_rate(&mut loaded.scenario, rate);
            let (result, _) = once(&loaded, self.how, false)?;
            let late = result["generator"]["late_p99_ns"].as_f64().unwrap_or(0.0);
            let late = shown(late, Unit::Nanoseconds);
            let word = result["verdict"]["word"].as_str().unwrap_or_default().to_owned();
            tell(&format!("{:>9}/s  late p99 {late:>9}  {word}\n", shown(rate, Unit::Count)));
            if word != "VALID" {
                break;
            }
            best = Some((rate, late));
            rate *= 2.0;
        }
        match best {
            Some((rate, late)) => {
                let (rate, advised) = (shown(rate, Unit::Count), shown(rate * 0.7, Unit::Count));
                say(&format!(
                    "this host's generator keeps {rate}/s, {late} late at p99, beside its own server on the same cores; \
                     ask for no more than {advised}/s\n"
                ))?;
                Ok(ExitCode::SUCCESS)
            }
            None => {
                say("this host can't keep 1000/s now: it is busy, or its clock is stolen\n")?;
                Ok(ExitCode::from(judge::LIMITED))
            }
        }
    }
}

impl Relay {
    pub(crate) fn run(&self) -> Result<ExitCode, String> {
        sys::catch_interrupts();
        let stall = match &self.stall {
            None => None,
            Some(text) => {
                let both = text
                    .split_once('/')
                    .and_then(|(long, every)| units::duration(long).zip(units::duration(every)));
                let (long, every) = both.ok_or("--stall takes 200ms/1s")?;
                let of = std::time::Duration::from_nanos;
                Some(Stall { long: of(long), every: of(every) })
            }
        };
        tell(&format!("listening on {}, any password will do\n", self.listen));
        null::serve(self.listen, &self.domain, stall).map_err(|e| e.to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}
