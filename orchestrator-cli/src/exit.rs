//! What the program ends with: exit codes, and the sentence that goes to standard error.

use std::io;

use orchestrator_core::Error;

/// What was asked for was done.
pub(crate) const SUCCESS: u8 = 0;
/// The run failed or crashed, or a check found something wrong.
pub(crate) const FAILED: u8 = 1;
/// The arguments make no sense, or ask for what cannot be done: nothing was done.
pub(crate) const USAGE: u8 = 2;
/// The run was cancelled, though not by a signal.
pub(crate) const CANCELLED: u8 = 3;
/// There is no such run, limit or cached result, or several could be meant.
pub(crate) const NOT_FOUND: u8 = 4;
/// The database cannot be read or written.
pub(crate) const STORE: u8 = 5;

/// Ended by Ctrl-C, by convention 128 and the number of the signal.
pub(crate) const INTERRUPTED: u8 = 130;
/// Ended by SIGTERM.
pub(crate) const TERMINATED: u8 = 143;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) code: u8,
    /// A fragment for people; `None` if there is nobody to read it, or if it was said already.
    pub(crate) said: Option<String>,
}

impl Trouble {
    pub(crate) fn new(code: u8, said: impl Into<String>) -> Self {
        Self { code, said: Some(said.into()) }
    }

    pub(crate) fn usage(said: impl Into<String>) -> Self {
        Self::new(USAGE, said)
    }

    pub(crate) fn not_found(said: impl Into<String>) -> Self {
        Self::new(NOT_FOUND, said)
    }
}

/// The code of a command that is done, when what it says was printed or nobody reads it.
pub(crate) fn printed(code: u8, printed: Result<(), Trouble>) -> Result<u8, Trouble> {
    match printed {
        Ok(()) | Err(Trouble { said: None, .. }) => Ok(code),
        Err(trouble) => Err(trouble),
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let code = if error.is_backend() {
            STORE
        } else if error.is_not_found() {
            NOT_FOUND
        } else {
            USAGE
        };
        Self::new(code, error.to_string())
    }
}

impl From<io::Error> for Trouble {
    /// What cannot be printed. A reader that has enough, such as `head`, is no trouble.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: SUCCESS, said: None };
        }
        Self::new(FAILED, format!("cannot print: {error}"))
    }
}
