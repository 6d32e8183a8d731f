//! A run as it goes: a picture on a terminal, one line a second elsewhere.
//!
//! [`View`] collects what each second brought and draws; nothing here waits or measures.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use crate::plot::{Unit, shown};

/// What one second brought. Rates are of that second, times in nanoseconds.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Seconds since the first stage began, and how long all stages take.
    pub at_s: f64,
    /// The length of the run.
    pub of_s: f64,
    /// The stage: its kind and which it is, from 1.
    pub stage: String,
    /// Events asked for; zero in a closed loop.
    pub asked: f64,
    /// Sent.
    pub sent: f64,
    /// Delivered.
    pub delivered: f64,
    /// Latency of this second: p50, p90, p99, max.
    pub latency_ns: [u64; 4],
    /// Since the samples began: p50, p90, p99, max.
    pub all_latency_ns: [u64; 4],
    /// On their way.
    pub in_flight: u64,
    /// Connections that stand.
    pub connections: u64,
    /// So far: came back, doubled, reordered, corrupt, dropped.
    pub bounced: u64,
    /// Doubled.
    pub duplicated: u64,
    /// Reordered.
    pub reordered: u64,
    /// Corrupt.
    pub corrupt: u64,
    /// Not sent.
    pub dropped: u64,
    /// Failed connects and logins.
    pub failed: u64,
    /// The generator's lateness, p99.
    pub late_p99_ns: u64,
    /// Busiest thread of the generator, 0 to 1.
    pub busy: f64,
    /// CPU of the server for each delivered message, if it is known.
    pub server_cpu_per_message_ns: Option<f64>,
}

/// Seconds that the small curves show.
const KEPT: usize = 60;
const WIDTH: usize = 80;

/// The picture and where it goes.
pub struct View {
    title: String,
    live: bool,
    drawn: usize,
    seconds: VecDeque<Second>,
}

impl View {
    /// On standard error: the picture if that is a terminal, lines if not.
    pub fn new(title: &str) -> Self {
        let live = io::stderr().is_terminal();
        Self { title: title.to_owned(), live, drawn: 0, seconds: VecDeque::with_capacity(KEPT) }
    }

    /// A second is over.
    pub fn second(&mut self, second: Second) {
        if self.seconds.len() == KEPT {
            self.seconds.pop_front();
        }
        self.seconds.push_back(second);
        let text = if self.live {
            let picture = self.picture(true);
            let up = match self.drawn {
                0 => String::new(),
                lines => format!("\x1b[{lines}A"),
            };
            self.drawn = picture.lines().count();
            // Each line clears what was right of it; the cursor stays away while it is drawn.
            format!("\x1b[?25l{up}{}\x1b[?25h", picture.replace('\n', "\x1b[K\n"))
        } else {
            self.line()
        };
        // A closed terminal must not end a run.
        drop(io::stderr().write_all(text.as_bytes()));
    }

    /// One line for a log.
    pub fn line(&self) -> String {
        let Some(it) = self.seconds.back() else { return String::new() };
        let ns = |at: usize| shown(it.latency_ns[at] as f64, Unit::Nanoseconds);
        let mut text = format!(
            "{:>5.0} s  {:<10} asked {:>7}  sent {:>7}  delivered {:>7}  p50 {:>7}  p99 {:>7}  max {:>7}",
            it.at_s,
            it.stage,
            shown(it.asked, Unit::Count),
            shown(it.sent, Unit::Count),
            shown(it.delivered, Unit::Count),
            ns(0),
            ns(2),
            ns(3)
        );
        for (name, count) in it.faults() {
            _ = write!(text, "  {name} {count}");
        }
        text.push('\n');
        text
    }

    /// The picture: 80 columns wide, coloured or not.
    pub fn picture(&self, coloured: bool) -> String {
        let Some(it) = self.seconds.back() else { return String::new() };
        let paint = |code: &str, text: &str| {
            if coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let mut out = String::new();
        let done = if it.of_s > 0.0 { (it.at_s / it.of_s).clamp(0.0, 1.0) } else { 0.0 };
        let right = format!("{:.0} of {:.0} s  {}", it.at_s, it.of_s, it.stage);
        let gap = WIDTH.saturating_sub(self.title.chars().count() + right.chars().count());
        _ = writeln!(out, "{}{:gap$}{}", paint("1", &self.title), "", paint("2", &right));
        _ = writeln!(out, "{}", paint("36", &bar(done, WIDTH)));
        let rate = |v: f64| format!("{}/s", shown(v, Unit::Count));
        let asked = if it.asked > 0.0 { rate(it.asked) } else { "closed loop".to_owned() };
        _ = writeln!(
            out,
            "  asked {asked:<12} sent {:<12} delivered {:<12}",
            rate(it.sent),
            rate(it.delivered)
        );
        let curve = |pick: &dyn Fn(&Second) -> f64| spark(self.seconds.iter().map(pick));
        _ = writeln!(out, "  {:<10} {}", "delivered", paint("34", &curve(&|s| s.delivered)));
        _ = writeln!(
            out,
            "  {:<10} {}",
            "p99",
            paint("33", &curve(&|s| (s.latency_ns[2].max(1) as f64).log10()))
        );
        let row = |name: &str, times: &[u64; 4]| {
            let [p50, p90, p99, max] = times.map(|t| shown(t as f64, Unit::Nanoseconds));
            format!("  {name:<12} p50 {p50:<9} p90 {p90:<9} p99 {p99:<9} max {max:<9}")
        };
        _ = writeln!(out, "{}", row("this second", &it.latency_ns));
        _ = writeln!(out, "{}", row("all", &it.all_latency_ns));
        _ = writeln!(
            out,
            "  connections {:<8} in flight {:<10} {}",
            it.connections,
            it.in_flight,
            it.server_cpu_per_message_ns.map_or_else(String::new, |ns| format!(
                "server {} a message",
                shown(ns, Unit::Nanoseconds)
            ))
        );
        let late = it.late_p99_ns > 1_000_000 || it.busy > 0.85;
        let own = format!(
            "  generator   late p99 {:<9} busiest thread {}",
            shown(it.late_p99_ns as f64, Unit::Nanoseconds),
            shown(it.busy, Unit::Share)
        );
        let own = if late { format!("{own}  too much: not valid") } else { own };
        _ = writeln!(out, "{}", paint(if late { "31" } else { "2" }, &own));
        let faults: Vec<String> =
            it.faults().map(|(name, count)| format!("{name} {count}")).collect();
        let (code, text) = if faults.is_empty() {
            ("32", "  nothing lost, doubled, reordered or refused".to_owned())
        } else {
            ("31", format!("  {}", faults.join("  ")))
        };
        _ = writeln!(out, "{}", paint(code, &text));
        out
    }
}

impl Second {
    fn faults(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("came back", self.bounced),
            ("doubled", self.duplicated),
            ("reordered", self.reordered),
            ("corrupt", self.corrupt),
            ("not sent", self.dropped),
            ("failed", self.failed),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}

/// A bar of eighths.
fn bar(part: f64, width: usize) -> String {
    let eighths = (part * width as f64 * 8.0).round() as usize;
    let mut text = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        text.extend(['▏', '▎', '▍', '▌', '▋', '▊', '▉'].get(eighths % 8 - 1));
    }
    let blank = width.saturating_sub(text.chars().count());
    text + &"·".repeat(blank)
}

/// A curve of eight heights, from the least to the most of what is shown, or the upper tenth of it.
fn spark(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    // What hardly varies shall not look as if it did.
    let span = (most - least).max(most.abs() * 0.1);
    let steps = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let height =
        |v: f64| if span > 0.0 { ((v - most + span) / span * 7.0).round() as usize } else { 0 };
    values.iter().filter_map(|v| steps.get(height(*v).min(7))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(seconds: usize) -> View {
        let mut view = View {
            title: "im-chat → 127.0.0.1:5222".to_owned(),
            live: false,
            drawn: 0,
            seconds: VecDeque::new(),
        };
        for at in 0..seconds {
            view.seconds.push_back(Second {
                at_s: at as f64,
                of_s: 65.0,
                stage: "hold 2/3".to_owned(),
                asked: 20_000.0,
                sent: 20_000.0,
                delivered: 19_000.0 + (at * 31 % 17) as f64 * 60.0,
                latency_ns: [180_000, 300_000, 700_000 + (at as u64 * 7_919) % 900_000, 3_000_000],
                all_latency_ns: [180_000, 310_000, 900_000, 4_200_000],
                in_flight: 37,
                connections: 2_000,
                late_p99_ns: 42_000,
                busy: 0.41,
                server_cpu_per_message_ns: Some(4_400.0),
                ..Second::default()
            });
        }
        view
    }

    #[test]
    fn the_picture_keeps_its_size() {
        for seconds in [1, 30, 60] {
            let mut view = view(seconds);
            let good = view.picture(false);
            assert!(good.lines().all(|l| l.chars().count() <= WIDTH), "{good}");
            view.seconds.back_mut().unwrap().bounced = 7;
            view.seconds.back_mut().unwrap().late_p99_ns = 2_000_000;
            let bad = view.picture(false);
            assert_eq!(good.lines().count(), bad.lines().count());
            assert!(bad.contains("came back 7") && bad.contains("not valid"));
        }
        assert_eq!(View::new("x").picture(true), "");
        if std::env::var_os("TANDEM_LOOK").is_some() {
            drop(io::stdout().write_all(view(60).picture(true).as_bytes()));
        }
    }

    #[test]
    fn bars_and_curves_hold_at_their_ends() {
        assert_eq!(bar(0.0, 4), "····");
        assert_eq!(bar(0.5, 4), "██··");
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(spark([0.0].into_iter()), "▁");
        assert_eq!(spark([0.0, 7.0].into_iter()), "▁█");
        assert_eq!(spark(std::iter::empty()), "");
    }
}
