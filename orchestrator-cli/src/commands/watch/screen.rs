//! The terminal while it is watched: keys are read one by one, and the page is drawn over the one before.
//!
//! A page has a screen of its own, so that what the terminal showed before is there again afterwards, whatever happens.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Once;
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::{cursor, queue, style, terminal};

/// Whether there is a terminal to draw on, with a keyboard.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// The terminal; dropping it restores what was there.
#[derive(Debug)]
pub(super) struct Screen {
    shown: Vec<String>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        static RESTORE: Once = Once::new();
        // A panic's message would be lost with the page; and a program that aborts drops nothing.
        RESTORE.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                next(panic);
            }));
        });
        terminal::enable_raw_mode()?;
        let screen = Self { shown: Vec::new() };
        let mut out = io::stdout();
        queue!(out, terminal::EnterAlternateScreen, cursor::Hide, terminal::Clear(terminal::ClearType::All))?;
        out.flush()?;
        Ok(screen)
    }

    /// Draws a page that is made for a width, as much of it as fits.
    pub(super) fn show(&mut self, page: impl FnOnce(usize) -> Vec<String>) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let mut lines = page(usize::from(width));
        lines.truncate(usize::from(height));
        if lines == self.shown {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        for (row, line) in (0..).zip(&lines) {
            let line = console::truncate_str(line, usize::from(width), "…");
            queue!(
                out,
                cursor::MoveTo(0, row),
                style::Print(line),
                terminal::Clear(terminal::ClearType::UntilNewLine)
            )?;
        }
        queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
        self.shown = lines;
        out.flush()
    }

    /// Waits for so long, or until somebody has seen enough. Blocks.
    pub(super) fn is_enough(&mut self, wait: Duration) -> io::Result<bool> {
        let end = Instant::now() + wait;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if !event::poll(left)? {
                return Ok(false);
            }
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    let quits = matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc);
                    // In raw mode the terminal sends a key in the place of the signal.
                    if quits || (control && matches!(key.code, KeyCode::Char('c' | 'd'))) {
                        return Ok(true);
                    }
                }
                Event::Resize(..) => {
                    self.shown.clear();
                    return Ok(false);
                }
                Event::Key(_) | Event::Mouse(_) | Event::FocusGained | Event::FocusLost => {}
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let mut out = io::stdout();
    // What cannot be restored is gone, as the terminal is.
    let _ = queue!(out, cursor::Show, terminal::LeaveAlternateScreen).and_then(|()| out.flush());
    let _ = terminal::disable_raw_mode();
}
