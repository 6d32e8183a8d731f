//! Line charts as SVG: one text, no script needed, colours from the page's style sheet.
//!
//! A chart that is put into a page may be read point by point there: each carries its points for
//! the page's script. Does **not** know what it draws.

use std::fmt::Write as _;

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly from zero (or the smallest, on the x axis).
    Linear,
    /// By powers of ten.
    Log,
    /// Quantiles by nines: 0, 0.9, 0.99, 0.999, …
    Nines,
}

/// What an axis counts, for its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count or a rate: 1.5 k.
    Count,
    /// Nanoseconds: 1.5 ms.
    Nanoseconds,
    /// Seconds of a run.
    Seconds,
    /// A part of one: 15 %.
    Share,
    /// A ratio: 1.25.
    Ratio,
    /// Octets: 1.5 KiB.
    Octets,
    /// A quantile: 99.9 %.
    Quantile,
}

/// One line of a chart.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Which colour of the page, from 0.
    pub colour: usize,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
    /// Drawn with gaps.
    pub dashed: bool,
    /// Filled down to the axis.
    pub filled: bool,
}

/// A part of the x axis with a name.
#[derive(Clone, Debug)]
pub struct Band {
    /// What it is.
    pub name: String,
    /// From.
    pub from: f64,
    /// To.
    pub to: f64,
    /// Drawn darker: what happens in it does not count.
    pub aside: bool,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// One sentence that says how to read it.
    pub note: String,
    /// The x axis.
    pub x: (Scale, Unit),
    /// The y axis.
    pub y: (Scale, Unit),
    /// Lines, drawn in this order.
    pub lines: Vec<Line>,
    /// Parts of the x axis.
    pub bands: Vec<Band>,
    /// A level that is to be kept, with its name.
    pub bound: Option<(f64, String)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 36.0;

struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn of(scale: Scale, values: impl Iterator<Item = f64> + Clone, is_y: bool) -> Self {
        let finite = values.filter(|v| v.is_finite());
        let least = finite.clone().fold(f64::INFINITY, f64::min);
        let most = finite.clone().fold(f64::NEG_INFINITY, f64::max);
        if least > most {
            return Self { scale, from: 0.0, to: 1.0 };
        }
        match scale {
            Scale::Linear if is_y => {
                Self { scale, from: least.min(0.0), to: ceiling(most.max(1e-9)) }
            }
            Scale::Linear => {
                Self { scale, from: least, to: if most > least { most } else { least + 1.0 } }
            }
            Scale::Nines => Self { scale, from: 0.0, to: nines(most).max(1.0) },
            Scale::Log => {
                let positive = finite.filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
                let low = if positive.is_finite() { positive.log10() } else { 0.0 };
                let high = most.max(1e-9).log10();
                // Whole decades on the y axis, so that its ends have labels.
                let (low, high) = if is_y { (low.floor(), high.ceil()) } else { (low, high) };
                Self { scale, from: low, to: if high > low { high } else { low + 1.0 } }
            }
        }
    }

    /// 0 to 1 within the axis.
    fn place(&self, value: f64) -> f64 {
        let at = match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(1e-12).log10(),
            Scale::Nines => nines(value),
        };
        ((at - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step((self.to - self.from) / 5.0);
                let first = (self.from / step).ceil();
                let count = ((self.to / step).floor() - first) as usize + 1;
                (0..count.min(20)).map(|i| (first + i as f64) * step).collect()
            }
            Scale::Log => {
                let (low, high) = (self.from.ceil() as i32, self.to.floor() as i32);
                // At most eight labels.
                let every = ((high - low) / 8 + 1).max(1) as usize;
                let decades = (low..=high).step_by(every).map(|d| 10_f64.powi(d));
                let fine = high - low < 2;
                decades
                    .flat_map(|d| if fine { vec![d, 2.0 * d, 5.0 * d] } else { vec![d] })
                    .filter(|v| (self.from - 1e-9..=self.to + 1e-9).contains(&v.log10()))
                    .collect()
            }
            Scale::Nines => (0..=self.to.floor() as i32)
                .map(|n| 1.0 - 10_f64.powi(-n))
                .flat_map(|q| if q == 0.0 { vec![0.0, 0.5] } else { vec![q] })
                .collect(),
        }
    }
}

/// How many nines a quantile has: 0.99 has two.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile.min(0.999_999_99)).max(1e-9).log10()
}

fn step(raw: f64) -> f64 {
    let decade = 10_f64.powf(raw.max(1e-12).log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|m| m * decade)
        .find(|s| *s >= raw * 0.999)
        .unwrap_or(decade * 10.0)
}

fn ceiling(value: f64) -> f64 {
    let step = step(value / 5.0);
    (value / step).ceil() * step
}

/// A value with its unit, three digits.
pub fn shown(value: f64, unit: Unit) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let &(by, name) = steps
            .iter()
            .rev()
            .find(|(by, _)| value.abs() >= *by * 0.9995)
            .or_else(|| steps.first())
            .unwrap_or(&(1.0, ""));
        format!("{}{name}", digits(value / by))
    };
    match unit {
        Unit::Count => scaled(&[(1.0, ""), (1e3, " k"), (1e6, " M"), (1e9, " G")]),
        Unit::Nanoseconds if value == 0.0 => "0".to_owned(),
        Unit::Nanoseconds => scaled(&[(1.0, " ns"), (1e3, " µs"), (1e6, " ms"), (1e9, " s")]),
        Unit::Seconds => format!("{} s", digits(value)),
        Unit::Share => format!("{} %", digits(value * 100.0)),
        Unit::Ratio => format!("{value:.2}"),
        Unit::Octets => scaled(&[
            (1.0, " B"),
            (1024.0, " KiB"),
            (1_048_576.0, " MiB"),
            (1_073_741_824.0, " GiB"),
        ]),
        Unit::Quantile if value >= 0.5 => {
            let percent = format!("{:.6}", value * 100.0);
            format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
        }
        Unit::Quantile => format!("{} %", digits(value * 100.0)),
    }
}

fn digits(value: f64) -> String {
    let text = match value.abs() {
        a if a >= 99.95 => format!("{value:.0}"),
        a if a >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A text as it may stand in HTML.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

impl Chart {
    /// The chart as a figure of HTML: title, legend, drawing, note.
    pub fn html(&self) -> String {
        let mut legend = String::new();
        if self.lines.len() > 1 {
            for line in &self.lines {
                let dashed = if line.dashed { " dashed" } else { "" };
                // Writing into a String does not fail.
                _ = write!(
                    legend,
                    "<span class=\"key c{}{dashed}\"><i></i>{}</span>",
                    line.colour,
                    escaped(&line.name)
                );
            }
        }
        format!(
            "<figure class=\"chart\"><h3>{}</h3><div class=\"legend\">{legend}</div>{}\
             <figcaption>{}</figcaption></figure>",
            escaped(&self.title),
            self.svg(),
            escaped(&self.note)
        )
    }

    /// The drawing alone.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|l| l.points.iter());
        let x = Axis::of(self.x.0, points().map(|p| p.0), false);
        let bound = self.bound.iter().map(|b| b.0);
        let y = Axis::of(self.y.0, points().map(|p| p.1).chain(bound), true);
        let at_x = |v: f64| LEFT + x.place(v) * (WIDTH - LEFT - RIGHT);
        let at_y = |v: f64| HEIGHT - BOTTOM - y.place(v) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" data-chart='{}'>",
            escaped(&self.title),
            self.data(&at_x, &at_y)
        );
        self.bands(&mut out, &at_x);
        for tick in y.ticks() {
            let at = at_y(tick);
            _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                shown(tick, self.y.1)
            );
        }
        let base = HEIGHT - BOTTOM;
        for tick in x.ticks() {
            let at = at_x(tick);
            _ = write!(
                out,
                "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{base}\" y2=\"{}\"/>\
                 <text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                base + 4.0,
                base + 18.0,
                shown(tick, self.x.1)
            );
        }
        _ = write!(
            out,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{base}\" y2=\"{base}\"/>",
            WIDTH - RIGHT
        );
        if let Some((value, name)) = &self.bound {
            let at = at_y(*value);
            _ = write!(
                out,
                "<line class=\"bound\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"boundname\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                WIDTH - RIGHT - 4.0,
                at - 4.0,
                escaped(name)
            );
        }
        for line in &self.lines {
            draw(&mut out, line, &at_x, &at_y, base);
        }
        out.push_str("</svg>");
        out
    }

    fn bands(&self, out: &mut String, at_x: &dyn Fn(f64) -> f64) {
        for (number, band) in self.bands.iter().enumerate() {
            let (from, to) = (at_x(band.from), at_x(band.to));
            let class = match (band.aside, number % 2) {
                (true, _) => "aside",
                (false, 0) => "even",
                (false, _) => "odd",
            };
            _ = write!(
                out,
                "<rect class=\"band {class}\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" \
                 height=\"{:.1}\"/>",
                to - from,
                HEIGHT - TOP - BOTTOM
            );
            // A name wider than its band would run into the next one.
            if to - from > 7.0 * band.name.chars().count() as f64 {
                _ = write!(
                    out,
                    "<text class=\"bandname\" x=\"{:.1}\" y=\"{}\">{}</text>",
                    from + 3.0,
                    TOP - 6.0,
                    escaped(&band.name)
                );
            }
        }
    }

    /// Places and texts of the points, for the page's script.
    fn data(&self, at_x: &dyn Fn(f64) -> f64, at_y: &dyn Fn(f64) -> f64) -> String {
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|line| {
                let points: Vec<_> = thinned(&line.points)
                    .iter()
                    .map(|&(x, y)| {
                        let round = |v: f64| (v * 10.0).round() / 10.0;
                        serde_json::json!([
                            round(at_x(x)),
                            round(at_y(y)),
                            shown(x, self.x.1),
                            shown(y, self.y.1)
                        ])
                    })
                    .collect();
                serde_json::json!({ "name": line.name, "colour": line.colour, "points": points })
            })
            .collect();
        serde_json::Value::from(lines)
            .to_string()
            .replace('&', "&amp;")
            .replace('\'', "&#39;")
            .replace('<', "&lt;")
    }
}

/// At most 600 points: more than a screen shows. The largest of each group stays, so that no peak
/// is lost.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(600).max(1);
    let largest = |g: &[(f64, f64)]| g.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points
        .chunks(group)
        .filter_map(largest)
        .filter(|p| p.0.is_finite() && p.1.is_finite())
        .collect()
}

fn draw(
    out: &mut String,
    line: &Line,
    at_x: &dyn Fn(f64) -> f64,
    at_y: &dyn Fn(f64) -> f64,
    base: f64,
) {
    let points = thinned(&line.points);
    let mut path = String::new();
    for &(x, y) in &points {
        let letter = if path.is_empty() { 'M' } else { 'L' };
        _ = write!(path, "{letter}{:.1} {:.1}", at_x(x), at_y(y));
    }
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
    if line.filled {
        _ = write!(
            out,
            "<path class=\"area c{}\" d=\"{path}L{:.1} {base}L{:.1} {base}Z\"/>",
            line.colour,
            at_x(last.0),
            at_x(first.0)
        );
    }
    let dashed = if line.dashed { " dashed" } else { "" };
    _ = write!(out, "<path class=\"line c{}{dashed}\" d=\"{path}\"/>", line.colour);
    // Few points are measurements one wants to see.
    if points.len() <= 12 {
        for &(x, y) in &points {
            let (x, y) = (at_x(x), at_y(y));
            _ = write!(
                out,
                "<circle class=\"dot c{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>",
                line.colour
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_three_digits() {
        let cases = [
            (0.0, Unit::Count, "0"),
            (999.6, Unit::Count, "1 k"),
            (12_345.0, Unit::Count, "12.3 k"),
            (1_500.0, Unit::Nanoseconds, "1.5 µs"),
            (2e9, Unit::Nanoseconds, "2 s"),
            (0.123, Unit::Share, "12.3 %"),
            (1536.0, Unit::Octets, "1.5 KiB"),
            (0.999, Unit::Quantile, "99.9 %"),
            (1.2, Unit::Ratio, "1.20"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(shown(value, unit), text);
        }
    }

    #[test]
    fn odd_charts_are_drawn_and_stay_inside() {
        let line = |points: Vec<(f64, f64)>| Line {
            name: "a<b>'".to_owned(),
            colour: 0,
            points,
            dashed: true,
            filled: true,
        };
        let many = (0..5_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        for points in
            [vec![], vec![(0.0, 0.0)], vec![(1.0, f64::NAN), (2.0, 1.0), (2.0, 1e12)], many]
        {
            for scale in [Scale::Linear, Scale::Log, Scale::Nines] {
                let chart = Chart {
                    title: "t".to_owned(),
                    note: String::new(),
                    x: (scale, Unit::Seconds),
                    y: (Scale::Log, Unit::Nanoseconds),
                    lines: vec![line(points.clone())],
                    bands: vec![],
                    bound: Some((5.0, "b".to_owned())),
                };
                let svg = chart.svg();
                assert!(svg.ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"));
                assert!(svg.len() < 120_000);
            }
        }
    }
}
