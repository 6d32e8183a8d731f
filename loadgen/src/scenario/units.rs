//! Human values: `2000/s`, `60s`, `4KiB`, `99%`, `< 20ms`.
//!
//! Nothing is guessed: a number without its unit is refused where two units could be meant.

use crate::scenario::model::Than;

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'));
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: f64 = number.replace('_', "").parse().ok()?;
    Some((number, unit.trim()))
}

/// `2000/s`, `20k/s`, `90/min`, `90/m`, `5/h`: events a second.
pub fn rate(text: &str) -> Option<f64> {
    let (number, unit) = split(text)?;
    let (scale, per) = unit.split_once('/')?;
    let scale = match scale.trim() {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        _ => return None,
    };
    let seconds = match per.trim() {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    Some(number * scale / seconds)
}

/// `20ms`, `1.5s`, `5m`, `1h`, `800us`, `90ns`: nanoseconds.
pub fn duration(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let of = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3_600e9,
        _ => return None,
    };
    let ns = number * of;
    (ns < 1e18).then_some(ns as u64)
}

/// `180`, `180B`, `4KiB`, `1MiB`, `2kB`: octets.
pub fn octets(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let of = match unit {
        "" | "B" => 1.0,
        "kB" => 1e3,
        "KiB" => 1_024.0,
        "MB" => 1e6,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return None,
    };
    let octets = number * of;
    (octets < 1e15).then_some(octets as u64)
}

/// `99%` or `0.99`: a part of one.
pub fn part(text: &str) -> Option<f64> {
    match split(text)? {
        (number, "%") => Some(number / 100.0),
        (number, "") => Some(number),
        _ => None,
    }
}

/// A plain count.
pub fn count(text: &str) -> Option<f64> {
    match split(text)? {
        (number, "") => Some(number),
        (number, "k") => Some(number * 1e3),
        _ => None,
    }
}

/// The comparison at the begin of a condition, and what follows it.
pub fn comparison(text: &str) -> Option<(Than, &str)> {
    let text = text.trim();
    let known = [
        ("<=", Than::AtMost),
        (">=", Than::AtLeast),
        ("<", Than::Less),
        (">", Than::More),
        ("==", Than::Equal),
        ("=", Than::Equal),
    ];
    known.iter().find_map(|(sign, than)| Some((*than, text.strip_prefix(sign)?.trim())))
}

/// Whether a value stands in this relation to another.
pub fn holds(than: Than, got: f64, wanted: f64) -> bool {
    match than {
        Than::Less => got < wanted,
        Than::AtMost => got <= wanted,
        Than::Equal => (got - wanted).abs() < f64::EPSILON,
        Than::AtLeast => got >= wanted,
        Than::More => got > wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units() {
        assert_eq!(rate("2000/s"), Some(2000.0));
        assert_eq!(rate("2.5k/s"), Some(2500.0));
        assert_eq!(rate("90/min"), Some(1.5));
        assert_eq!(rate("2000"), None);
        assert_eq!(duration("1.5s"), Some(1_500_000_000));
        assert_eq!(duration("800us"), Some(800_000));
        assert_eq!(duration("60"), None);
        assert_eq!(duration("9999999999999h"), None);
        assert_eq!(octets("4KiB"), Some(4096));
        assert_eq!(octets("180"), Some(180));
        assert_eq!(octets("4Kib"), None);
        assert_eq!(part("99%"), Some(0.99));
        assert_eq!(comparison("<= 5us"), Some((Than::AtMost, "5us")));
        assert_eq!(comparison("5us"), None);
        assert!(holds(Than::Equal, 0.0, 0.0) && !holds(Than::Less, 2.0, 2.0));
    }
}
