//! Durations as people write them: on the command line, in the environment, in policies.

use std::time::Duration;

/// The duration that a text such as `90s`, `1h30m` or `30d` says.
///
/// # Errors
///
/// What is wrong with the text, and what is right.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wanted = "expected a time such as 90s, 2h or 30d";
    humantime::parse_duration(text).map_err(|error| format!("{wanted}: {error}"))
}

/// The same where a number may stand without a unit, which is then seconds.
pub(crate) fn or_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => duration(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_without_a_unit_is_seconds_only_where_it_may_be() {
        for (text, millis) in [
            ("30s", 30_000),
            ("15m", 900_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1 h", 3_600_000),
            ("5ms", 5),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(or_seconds(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, millis) in [("30", 30_000), ("0.25", 250), ("1e3", 1_000_000)] {
            assert_eq!(or_seconds(text), Ok(Duration::from_millis(millis)), "{text}");
            duration(text).expect_err(text);
        }
        for text in ["", "-1", "-1s", "inf", "nan", "1e300", "soon", "30 fortnights"] {
            or_seconds(text).expect_err(text);
        }
    }
}
