//! Durations as people read them.

use std::fmt;
use std::time::Duration;

/// The duration in at most two units: `412us`, `350ms`, `1.84s`, `2m 05s`, `1h 02m`.
#[must_use]
pub const fn short(duration: Duration) -> Short {
    Short(duration)
}

/// What [`short`] displays.
#[derive(Clone, Copy, Debug)]
pub struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        // Rounded first and compared then, so that 59.999 s is "1m 00s" and never "60.00s".
        let in_units_of = |unit: u128| (micros + unit / 2) / unit;
        let (millis, hundredths) = (in_units_of(1_000), in_units_of(10_000));
        let (seconds, minutes) = (in_units_of(1_000_000), in_units_of(60_000_000));
        if micros < 1_000 {
            write!(f, "{micros}us")
        } else if millis < 1_000 {
            write!(f, "{millis}ms")
        } else if hundredths < 6_000 && hundredths % 100 == 0 {
            write!(f, "{}s", hundredths / 100)
        } else if hundredths < 6_000 {
            write!(f, "{}.{:02}s", hundredths / 100, hundredths % 100)
        } else if seconds < 3_600 {
            write!(f, "{}m {:02}s", seconds / 60, seconds % 60)
        } else {
            write!(f, "{}h {:02}m", minutes / 60, minutes % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_up_to_each_border() {
        for (micros, expected) in [
            (0, "0us"),
            (412, "412us"),
            (999, "999us"),
            (1_000, "1ms"),
            (350_400, "350ms"),
            (999_499, "999ms"),
            (999_500, "1s"),
            (10_000_000, "10s"),
            (1_840_000, "1.84s"),
            (59_994_999, "59.99s"),
            (59_995_000, "1m 00s"),
            (125_000_000, "2m 05s"),
            (3_599_499_999, "59m 59s"),
            (3_599_500_000, "1h 00m"),
            (3_720_000_000, "1h 02m"),
            (93_600_000_000, "26h 00m"),
        ] {
            assert_eq!(short(Duration::from_micros(micros)).to_string(), expected, "{micros}");
        }
    }

    #[test]
    fn the_longest_duration_does_not_overflow() {
        assert_eq!(short(Duration::MAX).to_string(), "5124095576030431h 00m");
    }
}
