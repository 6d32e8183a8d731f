//! What a knob should be, held against what it is.
//!
//! Values are fields apart by blanks, as the kernel prints them. A value that is better already is
//! good: limits are only raised.

use crate::tune::check::Outcome;
use crate::tune::profile::How;

/// A wanted value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    pub how: How,
    fields: Vec<String>,
}

impl Want {
    /// Out of fields apart by blanks.
    pub fn new(how: How, value: &str) -> Self {
        Self { how, fields: value.split_whitespace().map(str::to_owned).collect() }
    }

    /// The bare value.
    pub fn value(&self) -> String {
        self.fields.join(" ")
    }

    /// Whether a value is good, and if not, on which side it is.
    pub fn judge(&self, now: &str) -> Outcome {
        let now: Vec<&str> = now.split_whitespace().collect();
        if self.how == How::Include {
            let has = ranges(&now.concat()).unwrap_or_default();
            let wants = ranges(&self.fields.concat()).unwrap_or_default();
            let is_in = |&(from, to): &(u64, u64)| (from..=to).all(|it| covered(&has, it));
            return if wants.iter().all(is_in) { Outcome::Ok } else { Outcome::Low };
        }
        if now.len() != self.fields.len() {
            return Outcome::Differs;
        }
        let each = self.fields.iter().zip(&now).map(|(want, now)| self.judge_one(want, now));
        each.max().unwrap_or(Outcome::Ok)
    }

    fn judge_one(&self, want: &str, now: &str) -> Outcome {
        if want == ANY || want == now {
            return Outcome::Ok;
        }
        let (Some(wanted), Some(now)) = (number(want), number(now)) else {
            return Outcome::Differs;
        };
        match self.how {
            How::Raise if now >= wanted => Outcome::Ok,
            How::Lower if now <= wanted => Outcome::Ok,
            _ if now < wanted => Outcome::Low,
            _ if now > wanted => Outcome::High,
            _ => Outcome::Ok,
        }
    }

    /// What to write, where this stands now.
    pub fn mended(&self, now: &str) -> String {
        let now = now.trim();
        if self.how == How::Include {
            let comma = if now.is_empty() { "" } else { "," };
            return format!("{now}{comma}{}", self.fields.concat());
        }
        let mut stands = now.split_whitespace();
        let one = |want: &String| {
            let now = stands.next().unwrap_or(want);
            let good = self.judge_one(want, now) == Outcome::Ok;
            if good { now.to_owned() } else { want.clone() }
        };
        self.fields.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// The value as a TuneD profile writes it.
    pub fn tuned(&self) -> String {
        // TuneD compares single numbers: with more than one it would write the sign as well.
        let sign = match self.how {
            How::Raise => ">",
            How::Lower => "<",
            How::Exact | How::Include => "",
        };
        format!("{sign}{}", self.value())
    }
}

impl std::fmt::Display for Want {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (How::Raise, [first, second, most]) = (self.how, self.fields.as_slice())
            && [first, second].iter().all(|it| *it == ANY)
        {
            return write!(f, "max >= {most}");
        }
        f.write_str(match self.how {
            How::Raise if self.value() == "unlimited" => "",
            How::Raise => ">= ",
            How::Lower => "<= ",
            How::Include => "with ",
            How::Exact => "",
        })?;
        f.write_str(&self.value())
    }
}

/// Whatever stands there.
pub(super) const ANY: &str = "_";

/// A number, or no limit.
pub(super) fn number(text: &str) -> Option<u64> {
    if matches!(text, "unlimited" | "infinity") { Some(u64::MAX) } else { text.parse().ok() }
}

/// `5060-5061,5222`.
pub(super) fn ranges(text: &str) -> Option<Vec<(u64, u64)>> {
    let one = |it: &str| {
        let (from, to) = it.split_once('-').unwrap_or((it, it));
        let (from, to) = (from.parse().ok()?, to.parse().ok()?);
        (from <= to && to <= u64::from(u16::MAX)).then_some((from, to))
    };
    text.split(',').filter(|it| !it.is_empty()).map(one).collect()
}

fn covered(has: &[(u64, u64)], it: u64) -> bool {
    has.iter().any(|&(from, to)| (from..=to).contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_good_and_worse_has_a_side() {
        let more = Want::new(How::Raise, "65535");
        assert_eq!(more.judge("4096\n"), Outcome::Low);
        assert_eq!(more.judge("65535"), Outcome::Ok);
        assert_eq!(more.judge("70000"), Outcome::Ok);
        assert_eq!(more.judge("unlimited"), Outcome::Ok);
        let less = Want::new(How::Lower, "10");
        assert_eq!((less.judge("60"), less.judge("1")), (Outcome::High, Outcome::Ok));
        let this = Want::new(How::Exact, "0");
        assert_eq!((this.judge("1"), this.judge("0")), (Outcome::High, Outcome::Ok));
        assert_eq!(Want::new(How::Exact, "madvise").judge("always"), Outcome::Differs);
        assert_eq!(Want::new(How::Exact, "1024 65535").judge("32768\t60999"), Outcome::High);
        assert_eq!(more.judge("1 2 3"), Outcome::Differs);
    }

    #[test]
    fn a_row_of_numbers_keeps_what_is_good() {
        let most = Want::new(How::Raise, "_ _ 4194304");
        assert_eq!(most.judge("4096\t131072\t33554432"), Outcome::Ok);
        assert_eq!(most.judge("4096 131072 1000"), Outcome::Low);
        assert_eq!(most.mended("4096 131072 1000"), "4096 131072 4194304");
        let all = Want::new(How::Raise, "10 20 30");
        assert_eq!(all.mended("50 1 30"), "50 20 30");
    }

    #[test]
    fn ports_are_taken_into_a_list() {
        let ports = Want::new(How::Include, "5060-5061,5222");
        assert_eq!(ports.judge("\n"), Outcome::Low);
        assert_eq!(ports.judge("5000-6000"), Outcome::Ok);
        assert_eq!(ports.judge("5060,5061,5222,9000"), Outcome::Ok);
        assert_eq!(ports.judge("5060,5222"), Outcome::Low);
        assert_eq!(ports.mended("9000\n"), "9000,5060-5061,5222");
        assert_eq!(ports.mended(""), "5060-5061,5222");
    }
}
