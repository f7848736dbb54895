//! How long history is kept: the policy. [`upkeep`] applies it in the background.

pub(crate) mod upkeep;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::duration::duration;

/// What a policy looks like, for people who wrote it differently.
pub(crate) const RIGHT: &str =
    "an age such as `30d` or `12h`, a number of runs such as `10000 runs`, both as in `30d,10000 runs`, or `off`";

/// One day.
const DAY: u64 = 24 * 60 * 60;

/// The shortest age of a policy in force.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long history is kept: runs that ended before an age, and all but the newest of them.
///
/// What goes is a root run, one that no other run started, with all that it started: their states, log lines and
/// persisted results. A run that has not ended stays, and so does all that is around it. Cached results go when they
/// have expired, whatever the policy says, unless it is [`off`](Retention::off).
///
/// As text, for `ORCHESTRATOR_RETENTION`: `30d`, `12h`, `10000 runs`, `30d,10000 runs`, `off`. Ages are as the command line
/// takes them: `90s`, `1h30m`, `2 weeks`. The default is `30d`. An age of less than a second, and `0 runs`, keep nothing:
/// they can be [applied once](crate::Orchestrator::apply_retention), but not be in force.
///
/// ```
/// use std::time::Duration;
///
/// use orchestrator_core::Retention;
///
/// let policy: Retention = "30d,10000 runs".parse().unwrap();
/// assert_eq!(policy, Retention::default().runs(10_000));
/// assert_eq!(Retention::off().age(Duration::from_secs(3600)).to_string(), "1h");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Retention {
    age: Option<Duration>,
    runs: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Some(Duration::from_secs(30 * DAY)), runs: None }
    }
}

impl Retention {
    /// Everything is kept.
    pub const fn off() -> Self {
        Self { age: None, runs: None }
    }

    /// Removes runs that ended longer ago than that.
    pub const fn age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Removes all but the newest so many root flow runs, and all but the newest so many task runs outside of flows.
    pub const fn runs(mut self, runs: u64) -> Self {
        self.runs = Some(runs);
        self
    }

    /// The age from which on runs are removed.
    #[must_use]
    pub const fn max_age(&self) -> Option<Duration> {
        self.age
    }

    /// How many runs of each kind are kept.
    #[must_use]
    pub const fn max_runs(&self) -> Option<u64> {
        self.runs
    }

    /// Whether everything is kept.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.age.is_none() && self.runs.is_none()
    }

    /// What is wrong with it as a policy in force, if it would remove what has just ended. Asking for that once is no mistake.
    pub(crate) fn wrong(&self) -> Option<&'static str> {
        let is_nothing = self.age.is_some_and(|age| age < SHORTEST) || self.runs == Some(0);
        is_nothing.then_some(
            "that keeps no history at all; expected at least `1s` or `1 run`, `off` to keep everything, or nothing at all \
             for `30d`",
        )
    }

    /// Runs that ended before that moment are removed.
    pub(crate) fn oldest(&self, now: Timestamp) -> Option<Timestamp> {
        let age = i64::try_from(self.age?.as_micros()).unwrap_or(i64::MAX);
        Some(Timestamp::from_micros(now.as_micros().saturating_sub(age)))
    }
}

impl FromStr for Retention {
    type Err = ParseRetentionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseRetentionError(text.to_owned());
        if text.trim().eq_ignore_ascii_case("off") {
            return Ok(Self::off());
        }
        let mut policy = Self::off();
        for part in text.split(',').map(str::trim) {
            match part.strip_suffix("runs").or_else(|| part.strip_suffix("run")) {
                Some(number) if policy.runs.is_none() => {
                    policy.runs = Some(number.trim().parse().map_err(|_| wrong())?);
                }
                None if policy.age.is_none() => policy.age = Some(duration(part).map_err(|_| wrong())?),
                Some(_) | None => return Err(wrong()),
            }
        }
        Ok(policy)
    }
}

/// The form that [`FromStr`] reads.
impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let comma = match (self.age, self.runs) {
            (None, None) => return f.write_str("off"),
            (Some(_), Some(_)) => ",",
            (Some(_), None) | (None, Some(_)) => "",
        };
        if let Some(age) = self.age.filter(|age| age.subsec_nanos() > 0) {
            humantime::format_duration(age).fmt(f)?;
        } else if let Some(age) = self.age {
            let seconds = age.as_secs();
            let (unit, name) = [(DAY, "d"), (3600, "h"), (60, "m")]
                .into_iter()
                .find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit))
                .unwrap_or((1, "s"));
            write!(f, "{}{name}", seconds / unit)?;
        }
        f.write_str(comma)?;
        let plural = |runs| if runs == 1 { "" } else { "s" };
        self.runs.map_or(Ok(()), |runs| write!(f, "{runs} run{}", plural(runs)))
    }
}

/// A text that says not how long history is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseRetentionError(String);

impl fmt::Display for ParseRetentionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' does not say how long history is kept: expected {RIGHT}", self.0)
    }
}

impl std::error::Error for ParseRetentionError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_written() {
        let days = |days: u64| Retention::off().age(Duration::from_secs(days * DAY));
        for (text, policy, written) in [
            ("30d", Retention::default(), "30d"),
            ("2w", days(14), "14d"),
            ("1d12h", Retention::off().age(Duration::from_secs(36 * 3600)), "36h"),
            ("90 m", Retention::off().age(Duration::from_secs(90 * 60)), "90m"),
            ("61s", Retention::off().age(Duration::from_secs(61)), "61s"),
            ("2 weeks 1day", days(15), "15d"),
            ("0s", Retention::off().age(Duration::ZERO), "0s"),
            ("1.5s", Retention::off().age(Duration::from_millis(1500)), "1s 500ms"),
            ("10000 runs", Retention::off().runs(10_000), "10000 runs"),
            ("1 run", Retention::off().runs(1), "1 run"),
            (" 7d , 50runs ", days(7).runs(50), "7d,50 runs"),
            ("50 runs,7d", days(7).runs(50), "7d,50 runs"),
            ("OFF", Retention::off(), "off"),
        ] {
            assert_eq!(text.parse(), Ok(policy), "{text}");
            assert_eq!(policy.to_string(), written);
            assert_eq!(written.parse(), Ok(policy));
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_right() {
        for text in [
            "",
            "30",
            "d",
            "30x",
            "-1d",
            "runs",
            "many runs",
            "30d,12h",
            "1 runs,2 runs",
            "30d,",
            "99999999999999999999d",
        ] {
            let error = text.parse::<Retention>().expect_err(text).to_string();
            assert!(error.starts_with(&format!("'{text}'")), "{error}");
            assert!(error.contains("`30d`") && error.contains("`10000 runs`") && error.contains("`off`"), "{error}");
        }
    }

    #[test]
    fn what_keeps_nothing_is_not_to_be_in_force() {
        for text in ["0", "0d", "0s", "999ms", "0 runs", "30d,0 runs", "0s,10 runs"] {
            assert!(text.parse::<Retention>().expect(text).wrong().is_some(), "{text}");
        }
        for text in ["1s", "1 run", "30d,1 run", "off"] {
            assert_eq!(text.parse::<Retention>().expect(text).wrong(), None, "{text}");
        }
    }

    #[test]
    fn very_long_ages_keep_everything() {
        let policy = Retention::off().age(Duration::MAX);
        assert!(policy.oldest(Timestamp::from_micros(5)).expect("an age").as_micros() < -1_000_000_000);
    }
}
