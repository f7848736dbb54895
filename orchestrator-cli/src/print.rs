//! Standard output and standard error: tables for people, JSON for programs, colours on terminals.
//!
//! Everything is made up first and written at once, so that a reader who leaves early is noticed in one place.

use std::fmt::Display;
use std::io::{self, Write};

use console::{Alignment, Style};
use orchestrator_core::text::one_line;
use orchestrator_core::{State, StateType};
use serde::Serialize;

use crate::exit::Trouble;

/// Writes text to standard output.
pub(crate) fn out(text: &str) -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Trouble::from)
}

/// Writes a JSON document to standard output.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Trouble> {
    let text = serde_json::to_string_pretty(value).expect("what is printed has text for keys");
    out(&(text + "\n"))
}

/// Writes a JSON document to one line of standard output.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Trouble> {
    let text = serde_json::to_string(value).expect("what is printed has text for keys");
    out(&(text + "\n"))
}

/// How much of a list is shown, with a word to follow where there is more of it and nobody said how much is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    said: Option<usize>,
    exceeded: bool,
}

impl Limit {
    /// What is shown of a list if nothing is said.
    const DEFAULT: usize = 20;

    pub(crate) const fn new(said: Option<usize>) -> Self {
        Self { said, exceeded: false }
    }

    /// How many to ask for.
    pub(crate) fn wanted(self) -> usize {
        self.said.unwrap_or(Self::DEFAULT + 1)
    }

    /// Takes off what is not to be shown.
    pub(crate) fn apply<T>(&mut self, found: &mut Vec<T>) {
        self.exceeded = self.said.is_none() && found.len() > Self::DEFAULT;
        if self.exceeded {
            found.truncate(Self::DEFAULT);
        }
    }

    /// Says that the list goes on, if it does.
    pub(crate) fn tell(self, json: bool) {
        if self.exceeded {
            let said = format!("there are more than these {}: --limit says how many to list", Self::DEFAULT);
            if json { warn(&said, json) } else { note(&said) }
        }
    }
}

/// Says something that is not part of the answer. What cannot be said is dropped.
pub(crate) fn note(said: &str) {
    let _ = writeln!(io::stderr(), "{said}");
}

/// Says what went wrong: for people, or as an object on one line.
pub(crate) fn complain(said: &str, code: u8, json: bool) {
    if json {
        let error = serde_json::json!({ "error": { "message": said, "exit_code": code } });
        return note(&error.to_string());
    }
    let style = Style::new().force_styling(true).red().bold();
    headed("error:", style, said);
}

/// Says what went wrong beside what was asked for, and decides nothing about the exit code.
pub(crate) fn warn(said: &str, json: bool) {
    if json {
        let warning = serde_json::json!({ "warning": { "message": said } });
        return note(&warning.to_string());
    }
    let style = Style::new().force_styling(true).yellow().bold();
    headed("warning:", style, said);
}

fn headed(head: &str, style: Style, said: &str) {
    if console::colors_enabled_stderr() {
        note(&format!("{} {said}", style.apply_to(head)));
    } else {
        note(&format!("{head} {said}"));
    }
}

/// The name of a state, in its colour.
pub(crate) fn state(state: &State) -> String {
    state_name(state.kind, &state.name)
}

/// A name, in the colour of a type of states.
pub(crate) fn state_name(kind: StateType, name: &str) -> String {
    let style = match kind {
        StateType::Completed => Style::new().green(),
        StateType::Failed | StateType::Crashed => Style::new().red(),
        StateType::Cancelled | StateType::Cancelling | StateType::Paused => Style::new().yellow(),
        StateType::Running => Style::new().cyan(),
        StateType::Scheduled | StateType::Pending => Style::new(),
    };
    style.apply_to(name).to_string()
}

/// Text that matters less.
pub(crate) fn dim(text: impl Display) -> String {
    Style::new().dim().apply_to(text).to_string()
}

/// Rows below a line of headings. Cells are one line each; on a terminal rows are as wide as it.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Cells may be coloured; what is foreign has been through [`one_line`].
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn print(&self) -> Result<(), Trouble> {
        out(&self.text(width()))
    }

    /// The lines, cut to a width if there is one.
    pub(crate) fn text(&self, width: Option<usize>) -> String {
        let headings: Vec<String> =
            self.headings.iter().map(|heading| Style::new().bold().apply_to(heading).to_string()).collect();
        let rows = || [&headings].into_iter().chain(&self.rows);
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| rows().filter_map(|row| row.get(column)).map(|cell| console::measure_text_width(cell)).max())
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = String::new();
        for row in rows() {
            let cells =
                row.iter().zip(&widths).map(|(cell, width)| console::pad_str(cell, *width, Alignment::Left, None));
            let line = cells.collect::<Vec<_>>().join("  ");
            let line = line.trim_end();
            match width {
                Some(width) => text += &console::truncate_str(line, width, "…"),
                None => text += line,
            }
            text.push('\n');
        }
        text
    }
}

/// Names and values, one pair in each line; a value of several lines is indented.
#[derive(Debug, Default)]
pub(crate) struct Facts(Vec<(&'static str, String)>);

impl Facts {
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    pub(crate) fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        let mut text = String::new();
        for (name, value) in &self.0 {
            let value = value.trim_end().replace('\n', &format!("\n{:width$}", "", width = width + 4));
            text += &format!("  {}  {value}\n", dim(format!("{name:width$}")));
        }
        text
    }
}

/// The width of the terminal on standard output, if that is one.
pub(crate) fn width() -> Option<usize> {
    let terminal = console::Term::stdout();
    terminal.is_term().then(|| usize::from(terminal.size().1)).filter(|width| *width > 0)
}

/// Foreign text of any number of lines, without what would move the cursor.
pub(crate) fn lines(text: &str) -> String {
    text.lines().map(one_line).collect::<Vec<_>>().join("\n")
}
