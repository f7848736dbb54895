//! Signals that came while the program was busy with something that ends in order.

#[cfg(unix)]
use std::io;
#[cfg(unix)]
use std::task::{Context, Poll, Waker};

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{self, Trouble};

/// Whether the program was told to end with SIGTERM.
#[derive(Debug)]
pub(crate) struct Terminated {
    #[cfg(unix)]
    signal: Signal,
}

impl Terminated {
    /// From now on the signal does not end the program by itself.
    pub(crate) fn new() -> Result<Self, Trouble> {
        Ok(Self {
            #[cfg(unix)]
            signal: signal(SignalKind::terminate()).map_err(unwatchable)?,
        })
    }

    pub(crate) fn is_so(&mut self) -> bool {
        #[cfg(unix)]
        return has_come(&mut self.signal);
        #[cfg(not(unix))]
        false
    }
}

#[cfg(unix)]
fn unwatchable(error: io::Error) -> Trouble {
    Trouble::new(exit::FAILED, format!("cannot watch for signals: {error}"))
}

/// The signals that cancel runs. They are watched by the library, too, which does the cancelling.
#[derive(Debug)]
pub(crate) struct Interrupted {
    #[cfg(unix)]
    interrupt: Signal,
    terminated: Terminated,
}

impl Interrupted {
    /// From now on these signals do not end the program by themselves.
    pub(crate) fn new() -> Result<Self, Trouble> {
        Ok(Self {
            #[cfg(unix)]
            interrupt: signal(SignalKind::interrupt()).map_err(unwatchable)?,
            terminated: Terminated::new()?,
        })
    }

    /// The exit code that goes with the signal that has come, if one has.
    pub(crate) fn code(&mut self) -> Option<u8> {
        #[cfg(unix)]
        if has_come(&mut self.interrupt) {
            return Some(exit::INTERRUPTED);
        }
        self.terminated.is_so().then_some(exit::TERMINATED)
    }
}

#[cfg(unix)]
fn has_come(signal: &mut Signal) -> bool {
    signal.poll_recv(&mut Context::from_waker(Waker::noop())) == Poll::Ready(Some(()))
}
