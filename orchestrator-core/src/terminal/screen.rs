//! The one door to standard error: whole lines, and below them the progress line while there is one.
//!
//! Lines are written as they come. Those of a burst are written together: a program whose tasks end by the hundred thousand
//! would spend most of its time in system calls otherwise, with one worker waiting for the other. They come some milliseconds
//! late, in their order, and before whatever is printed after them.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// So many lines are written as they come, in each window.
const AT_ONCE: u32 = 64;
const WINDOW: Duration = Duration::from_millis(20);
/// So long others may come after the first line that is kept back.
const KEPT_BACK: Duration = Duration::from_millis(5);
/// So many bytes are kept back at most.
const ROOM: usize = 64 * 1024;
/// As long as this the thread that writes waits for another burst.
const LINGER: Duration = Duration::from_secs(1);

/// Where log lines, summaries and the progress line go.
pub(super) struct Screen(Arc<Shared>);

struct Shared {
    /// Guards the order of what appears: no line is written while the progress line is being drawn.
    inner: Mutex<Inner>,
    /// Locked for a moment only, also by who holds `inner`.
    kept: Mutex<Kept>,
    /// Tells the thread that writes of a line.
    comes: Condvar,
    window: Duration,
}

struct Inner {
    out: Box<dyn Write + Send>,
    /// What is being written; empty in between.
    lines: String,
    bar: Option<ProgressBar>,
}

/// Lines that are to be written.
#[derive(Default)]
struct Kept {
    lines: String,
    /// When the present window began, and how many lines were written in it.
    window: Option<(Instant, u32)>,
    /// Whether there is a thread that writes them.
    has_thread: bool,
}

impl Screen {
    pub(super) fn stderr() -> Self {
        Self::new(Box::new(io::stderr()))
    }

    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self::with_window(out, WINDOW)
    }

    fn with_window(out: Box<dyn Write + Send>, window: Duration) -> Self {
        let inner = Mutex::new(Inner { out, lines: String::new(), bar: None });
        Self(Arc::new(Shared { inner, kept: Mutex::default(), comes: Condvar::new(), window }))
    }

    /// Writes whole lines, above the progress line and after all that came before. What cannot be written is dropped: a closed
    /// pipe must not end a run.
    pub(super) fn print(&self, lines: &str) {
        lock(&self.0.kept).lines.push_str(lines);
        self.0.write();
    }

    /// Writes a line, some milliseconds later if there are many. Whoever has it written sees to it that something is
    /// [`print`](Self::print)ed or [`flush`](Self::flush)ed before the program may end.
    pub(super) fn print_soon(&self, line: &str) {
        let now = Instant::now();
        let mut kept = lock(&self.0.kept);
        let lasts = |(began, _): &(Instant, u32)| now.saturating_duration_since(*began) < self.0.window;
        let (began, lines) = kept.window.filter(lasts).unwrap_or((now, 0));
        kept.window = Some((began, lines + 1));
        let is_first = kept.lines.is_empty();
        kept.lines.push_str(line);
        let is_burst = lines >= AT_ONCE || !is_first;
        if !is_burst || kept.lines.len() >= ROOM {
            drop(kept);
            self.0.write();
        } else if !kept.has_thread {
            let shared = Arc::clone(&self.0);
            let thread = thread::Builder::new().name("orchestrator-terminal".to_owned());
            kept.has_thread = thread.spawn(move || shared.write_on()).is_ok();
            let is_alone = !kept.has_thread;
            drop(kept);
            if is_alone {
                self.0.write();
            }
        } else if is_first {
            drop(kept);
            self.0.comes.notify_one();
        }
    }

    /// Writes what is kept back.
    pub(super) fn flush(&self) {
        self.0.write();
    }

    /// Draws the progress line, with the next picture of its spinner.
    pub(super) fn draw(&self, text: String) {
        let mut inner = lock(&self.0.inner);
        let bar = inner.bar.get_or_insert_with(spinner);
        bar.set_message(text);
        bar.tick();
    }

    /// Takes the progress line off the screen.
    pub(super) fn clear(&self) {
        if let Some(bar) = lock(&self.0.inner).bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Shared {
    fn write(&self) {
        let mut inner = lock(&self.inner);
        let Inner { out, lines, bar } = &mut *inner;
        std::mem::swap(lines, &mut lock(&self.kept).lines);
        if lines.is_empty() {
            return;
        }
        let mut write = || {
            let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
        };
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
        lines.clear();
    }

    /// Writes what is kept back, until nothing was for a while.
    fn write_on(&self) {
        let ended = Ended(self);
        loop {
            thread::sleep(KEPT_BACK);
            self.write();
            let kept = lock(&self.kept);
            let is_empty = |kept: &mut Kept| kept.lines.is_empty();
            let (mut kept, _) =
                self.comes.wait_timeout_while(kept, LINGER, is_empty).unwrap_or_else(PoisonError::into_inner);
            if kept.lines.is_empty() {
                // At once, so that whoever comes next starts another.
                kept.has_thread = false;
                std::mem::forget(ended);
                return;
            }
        }
    }
}

/// Says that there is no thread any more, after a panic, too.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        lock(&self.0.kept).has_thread = false;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Tells of each write.
    struct Teller(Sender<String>);

    impl Write for Teller {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8(bytes.to_vec()).expect("only text is written");
            self.0.send(text).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// With one window for the whole of the test.
    fn screen() -> (Screen, Receiver<String>) {
        let (tell, told) = channel();
        (Screen::with_window(Box::new(Teller(tell)), Duration::from_secs(3600)), told)
    }

    fn line(number: u32) -> String {
        format!("line {number}\n")
    }

    #[test]
    fn a_few_lines_are_written_as_they_come() {
        let (screen, told) = screen();
        for number in 0..AT_ONCE {
            screen.print_soon(&line(number));
            assert_eq!(told.try_recv(), Ok(line(number)));
        }
    }

    #[test]
    fn what_is_kept_back_is_written_in_order_without_anybody_asking() {
        let (screen, told) = screen();
        let all = 10 * AT_ONCE;
        (0..all).for_each(|number| screen.print_soon(&line(number)));
        let (mut written, mut writes) = (String::new(), 0);
        while !written.ends_with(&line(all - 1)) {
            written.push_str(&told.recv().expect("the screen is there"));
            writes += 1;
        }
        assert_eq!(written, (0..all).map(line).collect::<String>());
        assert!(writes < all / 2, "{writes} writes of {all} lines");
        // The thread that wrote them has not ended, or another one does it.
        (0..all).for_each(|number| screen.print_soon(&line(number)));
        let mut again = String::new();
        while !again.ends_with(&line(all - 1)) {
            again.push_str(&told.recv().expect("the screen is there"));
        }
        assert_eq!(again, written);
    }

    #[test]
    fn what_is_printed_comes_after_what_was_kept_back() {
        for flushed in [false, true] {
            let (screen, told) = screen();
            let all = 3 * AT_ONCE;
            (0..all).for_each(|number| screen.print_soon(&line(number)));
            let mut expected: String = (0..all).map(line).collect();
            if flushed {
                screen.flush();
            } else {
                screen.print("summary\n");
                expected.push_str("summary\n");
            }
            let written: String = told.try_iter().collect();
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn many_threads_lose_no_line() {
        let (screen, told) = screen();
        thread::scope(|scope| {
            for thread in 0..4 {
                let screen = &screen;
                scope.spawn(move || (0..1000).for_each(|number| screen.print_soon(&line(10_000 * thread + number))));
            }
        });
        screen.flush();
        let written: String = told.try_iter().collect();
        let mut numbers: Vec<u32> = written.lines().map(|line| line[5..].parse().expect("a number")).collect();
        for thread in 0..4 {
            let of_thread: Vec<_> = numbers.iter().filter(|number| **number / 10_000 == thread).collect();
            assert!(of_thread.is_sorted(), "in the order of each thread");
        }
        numbers.sort_unstable();
        assert_eq!(numbers.len(), 4000);
        numbers.dedup();
        assert_eq!(numbers.len(), 4000, "each once");
    }
}
