//! Which events are shown and captured, from the environment.

use std::fmt;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

use super::RUN_TARGET;
use crate::suggest::nearest;

const SHOWN: [&str; 2] = ["ORCHESTRATOR_LOG", "RUST_LOG"];
const CAPTURED: &str = "ORCHESTRATOR_LOG_CAPTURE";

/// The filters that the environment asks for.
#[derive(Debug)]
pub(super) struct Filters {
    shown: String,
    captured: String,
    complaints: Vec<Complaint>,
}

/// Whether the summaries of flow runs are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reported {
    Yes,
    No,
}

impl Filters {
    /// What the environment asks to be shown, else `default`.
    pub(super) fn from_env(default: &str) -> Self {
        Self::from_lookup(default, |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// The filters, where `lookup` gives the value of an environment variable.
    pub(super) fn from_lookup(default: &str, lookup: impl Fn(&str) -> Option<String>) -> Self {
        let mut complaints = Vec::new();
        let mut first_of = |names: &[&'static str], default: &str| {
            let set = names.iter().find_map(|&name| {
                let value = lookup(name)?;
                let value = tidied(&value);
                (!value.is_empty()).then_some((name, value))
            });
            let Some((variable, value)) = set else { return default.to_owned() };
            let parsed = EnvFilter::builder().parse(&value).map_err(|error| error.to_string());
            // The other variable is also for programs that know nothing of this one.
            let misspelt = || misspelt(&value).filter(|_| variable != "RUST_LOG");
            match parsed.and_then(|_| misspelt().map_or(Ok(()), Err)) {
                Ok(()) => value,
                Err(reason) => {
                    complaints.push(Complaint { variable, value, reason });
                    default.to_owned()
                }
            }
        };
        let (shown, captured) = (first_of(&SHOWN, default), first_of(&[CAPTURED], "info"));
        Self { shown, captured, complaints }
    }

    /// Values that are not filters; `info` stands in for them.
    pub(super) fn complaints(&self) -> &[Complaint] {
        &self.complaints
    }

    /// What is printed.
    pub(super) fn shown(&self) -> EnvFilter {
        parsed(&self.shown)
    }

    /// What goes into the history. The engine's reports about runs do not: the history has them as states.
    pub(super) fn captured(&self) -> EnvFilter {
        match format!("{RUN_TARGET}=off").parse() {
            Ok(without_reports) => parsed(&self.captured).add_directive(without_reports),
            Err(_) => parsed(&self.captured),
        }
    }

    /// Summaries are printed where the engine's own events of level INFO are.
    pub(super) fn reported(&self) -> Reported {
        let probe = tracing_subscriber::registry().with(self.shown());
        let enabled =
            tracing::subscriber::with_default(probe, || tracing::enabled!(target: RUN_TARGET, tracing::Level::INFO));
        if enabled { Reported::Yes } else { Reported::No }
    }
}

/// Why a word that stands alone is most likely not the name of a target that it would be taken for, which leaves nothing to be shown.
fn misspelt(directives: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    directives.split(',').map(str::trim).find_map(|word| {
        // In brackets stand fields of spans, whose values may be any text.
        if !word.contains('[') && word.contains(|char: char| char == ';' || char.is_whitespace()) {
            return Some("what is filtered by is separated by commas".to_owned());
        }
        let lower = word.to_lowercase();
        let is_word = word.len() > 1 && word.chars().all(char::is_alphabetic) && !LEVELS.contains(&lower.as_str());
        let near = || nearest(&lower, LEVELS).filter(|_| word.len() > 2);
        let level = is_word.then(|| called(&lower).or_else(near)).flatten()?;
        Some(format!("is `{level}` meant? a target of that name is `{word}=trace`"))
    })
}

/// Without white space around what stands between commas, which would be part of a name.
fn tidied(directives: &str) -> String {
    if directives.contains('[') {
        // Values of fields may be any text.
        return directives.trim().to_owned();
    }
    directives.split(',').map(str::trim).collect::<Vec<_>>().join(",")
}

/// The level that goes by such a name elsewhere.
fn called(word: &str) -> Option<&'static str> {
    Some(match word {
        "none" | "no" | "false" | "never" | "quiet" | "silent" | "disabled" => "off",
        "err" | "errors" | "fatal" | "critical" => "error",
        "warning" | "warnings" => "warn",
        "information" | "notice" | "normal" | "default" | "on" | "true" | "yes" => "info",
        "verbose" | "fine" => "debug",
        "all" | "notset" | "finest" => "trace",
        _ => return None,
    })
}

fn parsed(directives: &str) -> EnvFilter {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    builder.parse(directives).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// A value in the environment that is not a filter.
#[derive(Debug)]
pub(super) struct Complaint {
    variable: &'static str,
    value: String,
    reason: String,
}

impl Complaint {
    pub(super) fn is_about_capture(&self) -> bool {
        self.variable == CAPTURED
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, value, reason } = self;
        write!(f, "{variable} is set to {value:?}, which is not a log filter ({reason}); going on with info")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(set: &[(&str, &str)]) -> Filters {
        Filters::from_lookup("info", |name| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_own_variable_wins_and_an_empty_one_counts_as_unset() {
        assert_eq!(filters(&[]).shown().to_string(), "info");
        assert_eq!(filters(&[("RUST_LOG", "warn")]).shown().to_string(), "warn");
        assert_eq!(filters(&[("RUST_LOG", "warn"), ("ORCHESTRATOR_LOG", "debug")]).shown().to_string(), "debug");
        assert_eq!(filters(&[("RUST_LOG", "warn"), ("ORCHESTRATOR_LOG", " ")]).shown().to_string(), "warn");
        assert_eq!(filters(&[("ORCHESTRATOR_LOG", " hyper=warn, info ")]).shown().to_string(), "hyper=warn,info");
    }

    #[test]
    fn a_bad_value_is_named_once_and_replaced() {
        let filters = filters(&[("ORCHESTRATOR_LOG", "orchestrator=loud")]);
        let complaints: Vec<_> = filters.complaints().iter().map(ToString::to_string).collect();
        let [complaint] = &complaints[..] else { panic!("expected one complaint, got {complaints:?}") };
        assert!(complaint.starts_with("ORCHESTRATOR_LOG is set to \"orchestrator=loud\", which is not"), "{complaint}");
        assert!(!complaint.contains('\n'), "{complaint}");
        assert_eq!(filters.shown().to_string(), "info");
    }

    #[test]
    fn a_level_that_is_misspelt_silences_nothing() {
        for (value, level) in [
            ("wran", "warn"),
            ("inof", "info"),
            ("debg,hyper=info", "debug"),
            ("Eror", "error"),
            ("warning", "warn"),
            ("NONE", "off"),
            ("false", "off"),
            ("verbose", "debug"),
            ("no", "off"),
        ] {
            let filters = filters(&[("ORCHESTRATOR_LOG", value)]);
            let complaints: Vec<_> = filters.complaints().iter().map(ToString::to_string).collect();
            assert!(
                matches!(&complaints[..], [one] if one.contains(&format!("is `{level}` meant?"))),
                "{complaints:?}"
            );
            assert_eq!(filters.shown().to_string(), "info");
        }
        for value in ["hyper", "my_crate=wran2", "WARN", "off", "my_crate::load=debug,error", "of=debug"] {
            let said = filters(&[("ORCHESTRATOR_LOG", value)]).complaints().first().map(ToString::to_string);
            assert!(!said.unwrap_or_default().contains("meant"), "{value}");
        }
        assert!(filters(&[("RUST_LOG", "wran")]).complaints().is_empty());
    }

    #[test]
    fn other_separators_than_commas_silence_nothing() {
        for value in ["warn;info", "warn hyper=info"] {
            let filters = filters(&[("ORCHESTRATOR_LOG", value)]);
            let complaints: Vec<_> = filters.complaints().iter().map(ToString::to_string).collect();
            assert!(matches!(&complaints[..], [one] if one.contains("separated by commas")), "{complaints:?}");
            assert_eq!(filters.shown().to_string(), "info");
        }
        assert!(filters(&[("ORCHESTRATOR_LOG", "info,[load{of=\"a b\"}]=debug")]).complaints().is_empty());
    }

    #[test]
    fn summaries_follow_the_level_of_the_engines_events() {
        for (value, expected) in [
            ("info", Reported::Yes),
            ("trace", Reported::Yes),
            ("warn,orchestrator=info", Reported::Yes),
            ("warn", Reported::No),
            ("info,orchestrator=error", Reported::No),
            ("off", Reported::No),
        ] {
            assert_eq!(filters(&[("RUST_LOG", value)]).reported(), expected, "{value}");
        }
    }

    #[test]
    fn off_is_seen_as_such() {
        assert_eq!(filters(&[("ORCHESTRATOR_LOG", "off")]).shown().max_level_hint(), Some(LevelFilter::OFF));
    }
}
