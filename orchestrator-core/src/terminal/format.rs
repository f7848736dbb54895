//! One `tracing` event as a line of text.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use chrono::{Local, NaiveTime, Timelike};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::RUN_TARGET;
use super::capture::level_name;
use super::paint::{Paint, one_line};
use super::screen::Screen;
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
        let line = line(self.paint, Local::now().time(), event.metadata(), fields);
        self.screen.print(&line);
    }
}

fn line(paint: Paint, at: NaiveTime, metadata: &Metadata<'_>, fields: Fields) -> String {
    let level = *metadata.level();
    let target = metadata.target();
    let said = match fields.run() {
        Some(run) if target == RUN_TARGET => {
            Said { origin: format!("{} '{}'", run.kind, one_line(run.name)), text: fields.text(), of_engine: true }
        }
        _ => Said { origin: origin(target), text: fields.text(), of_engine: false },
    };
    render(paint, at, level, &said)
}

/// Where an event that is not about a run comes from.
fn origin(target: &str) -> String {
    if is_own(target) {
        return "orchestrator".to_owned();
    }
    match crate::context::current_run_label() {
        Some((kind, name)) => format!("{kind} '{}'", one_line(&name)),
        None => one_line(target),
    }
}

/// Whether an event comes from this library, rather than from a crate whose name begins like ours.
fn is_own(target: &str) -> bool {
    let krate = target.split("::").next().unwrap_or(target);
    matches!(krate, "orchestrator" | "orchestrator_core")
}

/// An event, taken apart.
struct Said {
    origin: String,
    text: String,
    /// Whether the text is the engine's, which names states.
    of_engine: bool,
}

fn render(paint: Paint, at: NaiveTime, level: Level, said: &Said) -> String {
    let mut text = String::with_capacity(said.text.len() + 16);
    match said.text.split_once("state ").filter(|_| said.of_engine) {
        Some((before, after)) => {
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (word, rest) = after.split_at(end);
            let word = StateName::parse(word).map_or_else(|| word.to_owned(), |name| paint.state(name, word));
            paint.push_foreign(&mut text, before);
            text.push_str("state ");
            text.push_str(&word);
            paint.push_foreign(&mut text, rest);
        }
        None => paint.push_foreign(&mut text, &said.text),
    }
    let text = text.trim_end().replace('\n', "\n    ");
    let clock = format_args!(
        "{:02}:{:02}:{:02}.{:03}",
        at.hour(),
        at.minute(),
        at.second(),
        (at.nanosecond() / 1_000_000).min(999)
    );
    let (clock, level) = (paint.dim(clock), paint.level(level, format_args!("{:<5}", level_name(level))));
    format!("{clock} | {level} | {} - {text}\n", said.origin)
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
        if self.rest.is_empty() { std::mem::take(&mut self.message) } else { self.text() }
    }

    fn text(&self) -> String {
        match (self.message.is_empty(), self.rest.is_empty()) {
            (_, true) => self.message.clone(),
            (true, false) => self.rest.clone(),
            (false, false) => format!("{} {}", self.message, self.rest),
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
        let bare = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"' || c == '=');
        match field.name() {
            "message" | "run.kind" | "run.name" => self.add(field, format_args!("{value}")),
            _ if bare => self.add(field, format_args!("{value}")),
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
