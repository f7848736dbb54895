//! Asking before something is lost.

use std::io::{self, IsTerminal as _, Write as _};

use crate::exit::Trouble;

/// Asks whether `what` is to be removed, as in `Remove 3 runs?`; where nobody can be asked, says that --yes is wanted.
pub(crate) fn remove(what: &str, with: &str) -> Result<(), Trouble> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Trouble::usage(format!("{what} would be removed: say --yes where nobody can be asked")));
    }
    let mut answer = String::new();
    let _ = write!(io::stderr(), "Remove {what}{with}? [y/N] ").and_then(|()| io::stderr().flush());
    io::stdin().read_line(&mut answer).map_err(|error| Trouble::usage(format!("cannot read the answer: {error}")))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Trouble::usage("nothing was removed")),
    }
}
