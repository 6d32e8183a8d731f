//! `search`: the highest rate within an objective, with the whole curve.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use tandem_loadgen::plot::{Unit, shown};
use tandem_loadgen::result::judge;
use tandem_loadgen::scenario::model::{Phase, Stage, Threshold};
use tandem_loadgen::scenario::{Overrides, of_line, units};
use tandem_loadgen::search::{self, Found, Probe};
use tandem_loadgen::sys;

use super::run::{How, load, once, say, tell};

#[derive(Args)]
pub(crate) struct Search {
    /// A file, or the name of a built-in scenario; its own stages are not used.
    scenario: String,
    /// The objective, several may be given: 'latency_p99 < 20ms'.
    #[arg(long, required = true)]
    slo: Vec<String>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    how: How,
    /// Where it begins.
    #[arg(long, default_value = "100/s")]
    from: String,
    /// Where it ends at the latest.
    #[arg(long, default_value = "1M/s")]
    most: String,
    /// How long each step is held.
    #[arg(long, default_value = "60s")]
    hold: String,
    /// Its warm-up.
    #[arg(long, default_value = "5s")]
    warmup: String,
    /// How often the answer must hold.
    #[arg(long, default_value_t = 3)]
    confirm: usize,
}

fn probe_of(result: &Value, rate: f64, slo: &[Threshold]) -> Probe {
    let flows = result["flows"].as_array().into_iter().flatten();
    let most = flows.max_by_key(|it| it["latency_ns"]["count"].as_u64());
    let at = |key: &str| most.and_then(|it| it["latency_ns"][key].as_u64()).unwrap_or(0);
    let met = slo.iter().all(|wanted| {
        let got = judge::figure(result, &wanted.key);
        got.is_some_and(|got| units::holds(wanted.than, got, wanted.value))
    });
    let word = result["verdict"]["word"].as_str().unwrap_or_default();
    Probe {
        rate,
        good: met && word == "VALID",
        generator_limited: word == "GENERATOR-LIMITED",
        latency_ns: [at("p50"), at("p99"), at("p999")],
        server_cpu_ns: result["server"]["cpu_per_message_ns"].as_f64(),
    }
}

impl Search {
    /// The objective, the bounds of the rate, and the times of a step.
    fn plan(&self) -> Result<(Vec<Threshold>, search::Search, [u64; 2]), String> {
        let slo = self.slo.iter().map(|it| of_line(it).map_err(|e| format!("--slo: {e}")));
        let slo = slo.collect::<Result<Vec<_>, _>>()?;
        let rate = |name: &str, it: &str| {
            units::rate(it).filter(|it| *it > 0.0).ok_or_else(|| format!("{name} takes 100/s"))
        };
        let time =
            |name: &str, it: &str| units::duration(it).ok_or_else(|| format!("{name} takes 60s"));
        let (from, most) = (rate("--from", &self.from)?, rate("--most", &self.most)?);
        let times = [time("--warmup", &self.warmup)?, time("--hold", &self.hold)?];
        Ok((slo, search::Search { from, most, near: 0.05, confirm: self.confirm }, times))
    }

    pub(crate) fn run(&self) -> Result<ExitCode, String> {
        let (slo, plan, times) = match self.plan() {
            Ok(it) => it,
            Err(fault) => {
                tell(&format!("tandem-loadgen: {fault}\n"));
                return Ok(ExitCode::from(2));
            }
        };
        let mut loaded = match load(&self.scenario, &self.overrides)? {
            Ok(it) => it,
            Err(code) => return Ok(code),
        };
        loaded.scenario.thresholds.clear();
        let found = plan.run(|rate| {
            let stage = |phase, for_ns| Stage { phase, rate_per_s: rate, for_ns };
            loaded.scenario.stages =
                vec![stage(Phase::Warmup, times[0]), stage(Phase::Hold, times[1])];
            let (result, _) = once(&loaded, self.how, false)?;
            if sys::interrupted() {
                return Err("interrupted".to_owned());
            }
            let probe = probe_of(&result, rate, &slo);
            tell(&row(&probe));
            Ok(probe)
        });
        match found {
            Ok(found) => {
                say(&table(&found))?;
                Ok(ExitCode::from(match (found.rate, found.generator_limited) {
                    (_, true) => judge::LIMITED,
                    (None, false) => judge::MISSED,
                    _ => judge::GOOD,
                }))
            }
            Err(fault) => {
                tell(&format!("tandem-loadgen: {fault}\n"));
                Ok(ExitCode::from(judge::SETUP))
            }
        }
    }
}

fn row(it: &Probe) -> String {
    let [p50, p99, p999] = it.latency_ns.map(|ns| shown(ns as f64, Unit::Nanoseconds));
    let cpu = it.server_cpu_ns.map_or_else(|| "–".to_owned(), |ns| shown(ns, Unit::Nanoseconds));
    let word = match (it.generator_limited, it.good) {
        (true, _) => "GENERATOR-LIMITED",
        (false, true) => "within",
        (false, false) => "missed",
    };
    let rate = shown(it.rate, Unit::Count);
    format!("{rate:>9}/s  p50 {p50:>9}  p99 {p99:>9}  p99.9 {p999:>9}  CPU {cpu:>9}  {word}\n")
}

fn table(found: &Found) -> String {
    let mut out = String::new();
    let mut curve = found.curve.clone();
    curve.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    for it in &curve {
        out.push_str(&row(it));
    }
    // Writing into a String does not fail.
    _ = match found.rate {
        Some(rate) => writeln!(out, "highest rate within the objective: {rate:.0}/s"),
        None => writeln!(out, "no rate is within the objective"),
    };
    if found.generator_limited {
        out.push_str("the generator was the limit: the server may do more\n");
    }
    out
}
