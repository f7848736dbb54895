//! Colours, and what may not reach a terminal unchanged.

use std::fmt::{self, Write as _};

use tracing::Level;

use crate::state::{StateName, StateType};

/// Whether text is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Paint {
    Plain,
    Coloured,
}

/// A colour, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ink {
    None,
    Dim,
    Green,
    Yellow,
    Red,
    BoldRed,
}

const RESET: &str = "\u{1b}[0m";

impl Ink {
    pub(super) const fn of_level(level: Level) -> Self {
        match level {
            Level::ERROR => Self::BoldRed,
            Level::WARN => Self::Yellow,
            Level::INFO => Self::Green,
            Level::DEBUG | Level::TRACE => Self::Dim,
        }
    }

    /// That of a state that is good, bad or in between.
    pub(super) const fn of_state(name: StateName) -> Self {
        if matches!(name, StateName::AwaitingRetry | StateName::Late | StateName::RolledBack) {
            return Self::Yellow;
        }
        match name.kind() {
            StateType::Completed => Self::Green,
            StateType::Failed | StateType::Crashed => Self::Red,
            StateType::Cancelled | StateType::Cancelling => Self::Yellow,
            StateType::Scheduled | StateType::Pending | StateType::Running | StateType::Paused => Self::None,
        }
    }

    /// The sequence that switches it on (ECMA-48, SGR).
    const fn code(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Dim => "\u{1b}[2m",
            Self::Green => "\u{1b}[32m",
            Self::Yellow => "\u{1b}[33m",
            Self::Red => "\u{1b}[31m",
            Self::BoldRed => "\u{1b}[31m\u{1b}[1m",
        }
    }
}

impl Paint {
    /// Coloured on a terminal, unless `NO_COLOR` is set; `CLICOLOR_FORCE` colours in any case.
    pub(super) fn for_stderr() -> Self {
        if console::colors_enabled_stderr() { Self::Coloured } else { Self::Plain }
    }

    /// Appends what `write` appends, in that ink.
    pub(super) fn push(self, line: &mut String, ink: Ink, write: impl FnOnce(&mut String)) {
        let code = if self == Self::Coloured { ink.code() } else { "" };
        line.push_str(code);
        write(line);
        if !code.is_empty() {
            line.push_str(RESET);
        }
    }

    /// The text in that ink.
    pub(super) fn text(self, ink: Ink, text: impl fmt::Display) -> String {
        let mut painted = String::new();
        self.push(&mut painted, ink, |line| {
            // Writing to a String fails only if the text's own formatting does; what was written until then is kept.
            let _ = write!(line, "{text}");
        });
        painted
    }

    /// Appends foreign text so that it cannot move the cursor or hide what follows.
    ///
    /// Line breaks and tabs stay. Colours that the text brings along stay where we colour too, and end with the text.
    pub(super) fn push_foreign(self, line: &mut String, text: &str) {
        if text.bytes().all(|byte| is_harmless(byte) || matches!(byte, b'\t' | b'\n')) {
            line.push_str(text);
            return;
        }
        let mut rest = text;
        let mut coloured = false;
        while let Some(found) = rest.find(|c: char| is_control(c) && c != '\t' && c != '\n') {
            line.push_str(&rest[..found]);
            rest = &rest[found..];
            if let Some(length) = colour_length(rest).filter(|_| self == Self::Coloured) {
                line.push_str(&rest[..length]);
                rest = &rest[length..];
                coloured = true;
                continue;
            }
            let mut chars = rest.chars();
            if let Some(control) = chars.next().filter(|&c| c != '\r' || !rest.starts_with("\r\n")) {
                push_escaped(line, control);
            }
            rest = chars.as_str();
        }
        line.push_str(rest);
        if coloured {
            line.push_str(RESET);
        }
    }
}

/// Foreign text that has to fit into one line, such as a run's name: what would move the cursor, or change
/// the order of the text, is made visible.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    push_one_line(&mut line, text);
    line
}

/// Appends foreign text as [`one_line`].
pub(super) fn push_one_line(line: &mut String, text: &str) {
    if text.bytes().all(is_harmless) {
        line.push_str(text);
        return;
    }
    for c in text.chars() {
        if is_control(c) { push_escaped(line, c) } else { line.push(c) }
    }
}

/// Whether it is a character of ASCII that is shown as it is: most text has no others.
const fn is_harmless(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// Whether it moves the cursor, or changes the order in which the characters around it are shown.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_escaped(line: &mut String, control: char) {
    match control {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        other => {
            let code = u32::from(other);
            // Writing to a String does not fail.
            let _ = if code < 0x80 { write!(line, "\\x{code:02x}") } else { write!(line, "\\u{{{code:x}}}") };
        }
    }
}

/// The length of the colour sequence (`ESC [ 1;31 m`) at the start of the text, if there is one.
fn colour_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    parameters[end..].starts_with('m').then_some("\u{1b}[".len() + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(paint: Paint, text: &str) -> String {
        let mut line = String::new();
        paint.push_foreign(&mut line, text);
        line
    }

    #[test]
    fn control_characters_become_visible() {
        for (text, expected) in [
            ("plain\ttext\nsecond", "plain\ttext\nsecond"),
            ("a\u{1b}[2Jb", "a\\x1b[2Jb"),
            ("10%\r20%", "10%\\r20%"),
            ("dos\r\nline", "dos\nline"),
            ("\u{7}\u{7f}\u{9b}", "\\x07\\x7f\\u{9b}"),
            ("exe.\u{202e}gpj\u{2066}x\u{2069}", "exe.\\u{202e}gpj\\u{2066}x\\u{2069}"),
            ("red \u{1b}[31mx\u{1b}[0m", "red \\x1b[31mx\\x1b[0m"),
        ] {
            assert_eq!(foreign(Paint::Plain, text), expected);
        }
        assert_eq!(one_line("a\nb\u{1b}c\u{202e}d"), "a\\nb\\x1bc\\u{202e}d");
    }

    #[test]
    fn colours_pass_where_we_colour_and_end_with_the_text() {
        assert_eq!(foreign(Paint::Coloured, "\u{1b}[1;31mred"), "\u{1b}[1;31mred\u{1b}[0m");
        assert_eq!(foreign(Paint::Coloured, "\u{1b}[2Jgone\u{1b}[1"), "\\x1b[2Jgone\\x1b[1");
    }

    #[test]
    fn states_are_coloured_by_what_they_mean() {
        let painted = |paint: Paint, state| paint.text(Ink::of_state(state), "x");
        assert_eq!(painted(Paint::Plain, StateName::Failed), "x");
        assert_eq!(painted(Paint::Coloured, StateName::Cached), "\u{1b}[32mx\u{1b}[0m");
        assert_eq!(painted(Paint::Coloured, StateName::TimedOut), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(painted(Paint::Coloured, StateName::NotReady), "\u{1b}[33mx\u{1b}[0m");
        assert_eq!(painted(Paint::Coloured, StateName::Running), "x");
    }
}
