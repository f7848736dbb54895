//! Durations as people write them, turned into [`Duration`]s while the user's program compiles.

use std::time::Duration;

/// Unit and nanoseconds, from the smallest.
const UNITS: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
    ("w", 7 * 86_400 * 1_000_000_000),
];

const RIGHT: &str = "write it like \"500ms\", \"30s\", \"1h30m\" or \"1d\"";
const TOO_LONG: &str = "this duration is too long: the longest is 584 years";

/// A duration with units, such as `1h30m`.
///
/// # Errors
///
/// What is wrong with it and what would be right.
pub(crate) fn from_text(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(format!("this duration is empty: {RIGHT}"));
    }
    if rest.starts_with('-') {
        return Err(format!("a duration is not negative: {RIGHT}"));
    }
    let mut nanos = 0_u64;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !is_numeric(c)).unwrap_or(rest.len()));
        if number.is_empty() {
            return Err(format!("expected a number at `{rest}`: {RIGHT}"));
        }
        let after = after.trim_start();
        let (unit, after) = after.split_at(after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len()));
        let Some((_, unit_nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(if unit.is_empty() {
                format!("`{number}` has no unit: {RIGHT}")
            } else {
                format!("`{unit}` is not a unit of time; the units are ms, s, m, h, d and w")
            });
        };
        let part = scaled(number, *unit_nanos)?;
        nanos = nanos.checked_add(part).ok_or(TOO_LONG)?;
        rest = after.trim_start();
    }
    Ok(Duration::from_nanos(nanos))
}

/// A number of seconds, whole or with a fraction.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn from_secs(digits: &str) -> Result<Duration, String> {
    scaled(digits, 1_000_000_000).map(Duration::from_nanos)
}

fn is_numeric(c: char) -> bool {
    c.is_ascii_digit() || c == '.' || c == '_'
}

/// A number of units in nanoseconds.
fn scaled(number: &str, unit_nanos: u64) -> Result<u64, String> {
    let digits = number.replace('_', "");
    if digits.bytes().all(|digit| digit.is_ascii_digit()) {
        let whole = digits.parse::<u64>().ok().and_then(|whole| whole.checked_mul(unit_nanos));
        return whole.ok_or_else(|| TOO_LONG.to_owned());
    }
    let amount: f64 = digits.parse().map_err(|_| format!("`{number}` is not a number: {RIGHT}"))?;
    let duration = Duration::try_from_secs_f64(amount * (unit_nanos as f64 / 1e9)).map_err(|_| TOO_LONG)?;
    u64::try_from(duration.as_nanos()).map_err(|_| TOO_LONG.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        for (text, millis) in [
            ("0s", 0),
            ("5ms", 5),
            ("30s", 30_000),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            (" 2 h ", 7_200_000),
            ("1d", 86_400_000),
            ("1w", 604_800_000),
            ("0.5s", 500),
            ("1.5h", 5_400_000),
            ("1_000ms", 1_000),
        ] {
            assert_eq!(from_text(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, part) in [
            ("", "empty"),
            ("  ", "empty"),
            ("-1s", "not negative"),
            ("30", "no unit"),
            ("1h30", "no unit"),
            ("s", "expected a number"),
            ("1 day", "`day` is not a unit"),
            ("1.2.3s", "not a number"),
            ("600_000w", "too long"),
            ("1e5w", "`e` is not a unit"),
            ("99999999999999999999999s", "too long"),
        ] {
            let message = from_text(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn reads_seconds() {
        assert_eq!(from_secs("10"), Ok(Duration::from_secs(10)));
        assert_eq!(from_secs("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(from_secs("1e3"), Ok(Duration::from_secs(1000)));
        assert!(from_secs("1e300").is_err());
    }
}
