//! Ends the process if something that is measured never ends: a hang is then a failure with a name.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// The status of a process that was ended.
const HUNG: i32 = 3;

/// Watches until it is dropped.
pub(crate) struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    /// Gives what is about to begin that much time.
    pub(crate) fn over(what: &str, limit: Duration) -> Self {
        let (alive, ended) = mpsc::channel::<()>();
        let what = what.to_owned();
        thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what} did not end within {limit:?}: it hangs");
                std::process::exit(HUNG);
            }
        });
        Self { _alive: alive }
    }
}
