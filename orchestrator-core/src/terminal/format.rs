//! One `tracing` event as a line of text.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use chrono::{Local, NaiveTime, Timelike};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::capture::level_name;
use super::paint::{Ink, Paint, push_one_line};
use super::screen::Screen;
use super::{RUN_TARGET, TELLS_OF_MANY};
use crate::state::StateName;

/// Prints every event that it is given.
#[derive(Debug)]
pub(super) struct PrintLayer {
    screen: Arc<Screen>,
    paint: Paint,
}

impl PrintLayer {
    pub(super) const fn new(screen: Arc<Screen>, paint: Paint) -> Self {
        Self { screen, paint }
    }
}

impl<S: Subscriber> Layer<S> for PrintLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // Made before the screen is locked: what is being formatted may log, too.
        let mut line = String::with_capacity(96 + fields.message.len() + fields.rest.len());
        let is_one_of_many = push_line(&mut line, self.paint, Local::now().time(), event.metadata(), &fields);
        if is_one_of_many && *event.metadata().level() >= Level::INFO {
            self.screen.print_soon(&line);
        } else {
            self.screen.print(&line);
        }
    }
}

/// Appends an event as a line; says whether it is one of the many of a flow run.
fn push_line(line: &mut String, paint: Paint, at: NaiveTime, metadata: &Metadata<'_>, fields: &Fields) -> bool {
    paint.push(line, Ink::Dim, |line| push_clock(line, at));
    line.push_str(" | ");
    let level = *metadata.level();
    paint.push(line, Ink::of_level(level), |line| line.push_str(padded_name(level)));
    line.push_str(" | ");
    let run = fields.run().filter(|_| metadata.target() == RUN_TARGET);
    let is_one_of_many = match &run {
        Some(run) => {
            push_origin(line, run.kind, run.name);
            TELLS_OF_MANY.get()
        }
        None if is_own(metadata.target()) => {
            line.push_str("orchestrator");
            false
        }
        None => match crate::context::current_run_label() {
            Some((kind, name, is_in_flow)) => {
                push_origin(line, kind, &name);
                is_in_flow
            }
            None => {
                push_one_line(line, metadata.target());
                false
            }
        },
    };
    line.push_str(" - ");
    let text = line.len();
    // Only the engine's texts name states.
    fields.with_text(|said| push_text(line, paint, said, run.is_some()));
    line.truncate(text + line[text..].trim_end().len());
    if line[text..].contains('\n') {
        let indented = line[text..].replace('\n', "\n    ");
        line.truncate(text);
        line.push_str(&indented);
    }
    line.push('\n');
    is_one_of_many
}

fn push_origin(line: &mut String, kind: &str, name: &str) {
    line.push_str(kind);
    line.push_str(" '");
    push_one_line(line, name);
    line.push('\'');
}

/// As `07:05:01.042`.
fn push_clock(line: &mut String, at: NaiveTime) {
    let millis = (at.nanosecond() / 1_000_000).min(999);
    let mut clock = *b"00:00:00.000";
    for (number, last, digits) in [(at.hour(), 1, 2), (at.minute(), 4, 2), (at.second(), 7, 2), (millis, 11, 3)] {
        let mut rest = number;
        for place in 0..digits {
            clock[last - place] += (rest % 10) as u8;
            rest /= 10;
        }
    }
    line.push_str(std::str::from_utf8(&clock).unwrap_or_default());
}

/// The level's name, as wide as any.
const fn padded_name(level: Level) -> &'static str {
    match level {
        Level::WARN => "WARN ",
        Level::INFO => "INFO ",
        Level::ERROR | Level::DEBUG | Level::TRACE => level_name(level),
    }
}

/// Whether an event comes from this library, rather than from a crate whose name begins like ours.
fn is_own(target: &str) -> bool {
    let krate = target.split("::").next().unwrap_or(target);
    matches!(krate, "orchestrator" | "orchestrator_core")
}

/// Appends what is said, with the state in its colour where the engine names one.
fn push_text(line: &mut String, paint: Paint, text: &str, of_engine: bool) {
    let names_state = of_engine && paint == Paint::Coloured;
    let Some((before, after)) = text.split_once("state ").filter(|_| names_state) else {
        paint.push_foreign(line, text);
        return;
    };
    let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
    let (word, rest) = after.split_at(end);
    paint.push_foreign(line, before);
    line.push_str("state ");
    paint.push(line, StateName::parse(word).map_or(Ink::None, Ink::of_state), |line| line.push_str(word));
    paint.push_foreign(line, rest);
}

/// The fields of an event: the message, what the engine says about the run, and the rest as `key=value`.
#[derive(Default)]
pub(super) struct Fields {
    message: String,
    rest: String,
    run_kind: String,
    run_name: String,
}

struct Run<'a> {
    kind: &'a str,
    name: &'a str,
}

impl Fields {
    /// The message, followed by the other fields.
    pub(super) fn into_text(mut self) -> String {
        if self.rest.is_empty() { std::mem::take(&mut self.message) } else { self.with_text(str::to_owned) }
    }

    fn with_text<R>(&self, take: impl FnOnce(&str) -> R) -> R {
        match (self.message.is_empty(), self.rest.is_empty()) {
            (_, true) => take(&self.message),
            (true, false) => take(&self.rest),
            (false, false) => take(&format!("{} {}", self.message, self.rest)),
        }
    }

    fn run(&self) -> Option<Run<'_>> {
        (!self.run_kind.is_empty()).then_some(Run { kind: &self.run_kind, name: &self.run_name })
    }

    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let name = field.name();
        // Writing to a String fails only if a value's own formatting does; what was written until then is kept.
        let _ = match name {
            "message" => self.message.write_fmt(value),
            "run.kind" => self.run_kind.write_fmt(value),
            "run.name" => self.run_name.write_fmt(value),
            name => {
                let space = if self.rest.is_empty() { "" } else { " " };
                let name = name.strip_prefix("r#").unwrap_or(name);
                write!(self.rest, "{space}{name}=").and_then(|()| self.rest.write_fmt(value))
            }
        };
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let is_bare = || !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        match field.name() {
            "message" => self.message.push_str(value),
            "run.kind" => self.run_kind.push_str(value),
            "run.name" => self.run_name.push_str(value),
            _ if is_bare() => self.add(field, format_args!("{value}")),
            _ => self.add(field, format_args!("{value:?}")),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, format_args!("{}", crate::error::chain(value)));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::testing::Paper;
    use super::*;

    /// What is printed for the events of `body`, without the times.
    fn printed(paint: Paint, body: impl FnOnce()) -> String {
        let paper = Paper::default();
        let layer = PrintLayer::new(Arc::new(paper.screen()), paint);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), body);
        paper.text()
    }

    fn plain(body: impl FnOnce()) -> String {
        let text = printed(Paint::Plain, body);
        let times = text.lines().filter(|line| !line.starts_with(' ')).map(|line| &line[..12]);
        for time in times {
            NaiveTime::parse_from_str(time, "%H:%M:%S%.3f").expect("each line starts with the time");
        }
        text.lines().map(|line| if line.starts_with(' ') { line } else { &line[12..] }).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_engines_events_name_their_run() {
        let text = plain(|| {
            tracing::info!(target: RUN_TARGET, { run.kind = "Task run", run.name = "fetch_stars-3" }, "Finished in state Cached()");
            tracing::error!(
                target: RUN_TARGET, { run.kind = "Flow run", run.name = %"a\nb", seconds = 2 },
                "Finished in state Failed(no\nway)"
            );
        });
        assert_eq!(
            text,
            " | INFO  | Task run 'fetch_stars-3' - Finished in state Cached()\n \
             | ERROR | Flow run 'a\\nb' - Finished in state Failed(no\n    way) seconds=2"
        );
    }

    #[test]
    fn other_events_name_their_target_and_their_fields() {
        let text = plain(|| {
            tracing::info!(target: "my_crate::fetch", "hello");
            tracing::warn!(target: "my_crate", repo = "a/b", title = "two words", r#type = ?Some(1), "odd\u{1b}[2J");
            tracing::debug!(target: "my_crate", stars = 3);
            tracing::warn!(target: "orchestrator_core::cache", "undecodable");
            tracing::trace!(target: "orchestrator_demo", "a user's crate");
        });
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                " | INFO  | my_crate::fetch - hello",
                " | WARN  | my_crate - odd\\x1b[2J repo=a/b title=\"two words\" type=Some(1)",
                " | DEBUG | my_crate - stars=3",
                " | WARN  | orchestrator - undecodable",
                " | TRACE | orchestrator_demo - a user's crate",
            ]
        );
    }

    #[test]
    fn the_state_is_coloured_in_the_engines_events_only() {
        let text = printed(Paint::Coloured, || {
            tracing::info!(target: RUN_TARGET, { run.kind = "Task run", run.name = "a-0" }, "Finished in state Cached()");
            tracing::info!(target: "my_crate", "in state Cached()");
        });
        let (first, second) = text.split_once('\n').expect("two lines");
        assert!(first.ends_with("Finished in state \u{1b}[32mCached\u{1b}[0m()"), "{first:?}");
        assert!(first.contains("\u{1b}[32mINFO \u{1b}[0m"), "{first:?}");
        assert!(second.contains("in state Cached()"), "{second:?}");
    }
}
