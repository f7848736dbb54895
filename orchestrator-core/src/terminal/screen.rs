//! The one door to standard error: whole lines, and below them the progress line while there is one.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where log lines, summaries and the progress line go.
pub(super) struct Screen {
    /// Guards the order of what appears: no line is written while the progress line is being drawn.
    inner: Mutex<Inner>,
}

struct Inner {
    out: Box<dyn Write + Send>,
    bar: Option<ProgressBar>,
}

impl Screen {
    pub(super) fn stderr() -> Self {
        Self::new(Box::new(io::stderr()))
    }

    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { inner: Mutex::new(Inner { out, bar: None }) }
    }

    /// Writes whole lines, above the progress line. What cannot be written is dropped: a closed pipe must not end a
    /// run.
    pub(super) fn print(&self, lines: &str) {
        let mut inner = self.lock();
        let Inner { out, bar } = &mut *inner;
        let mut write = || {
            let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
        };
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Draws the progress line, with the next picture of its spinner.
    pub(super) fn draw(&self, text: String) {
        let mut inner = self.lock();
        let bar = inner.bar.get_or_insert_with(spinner);
        bar.set_message(text);
        bar.tick();
    }

    /// Takes the progress line off the screen.
    pub(super) fn clear(&self) {
        if let Some(bar) = self.lock().bar.take() {
            bar.finish_and_clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    }
    bar
}
