//! The process that this code runs in, and whether another one is still there.

use std::sync::{Arc, OnceLock};

use crate::backend::record::{Event, Process};
use crate::backend::{BackendError, StateBackend};
use crate::clock::Clock;

/// The machine and process that this code runs in.
pub(crate) fn this_process() -> &'static Process {
    static PROCESS: OnceLock<Process> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let pid = std::process::id();
        let (namespace, started) = (namespace().unwrap_or(0), start_of(pid).unwrap_or(0));
        Process { host, pid, namespace, started, session: 0 }
    })
}

/// When a process of this machine was started, in the system's ticks since it was booted; `None` if there is no such
/// process, or if the system does not tell.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything; the 20th field after it is the start (proc_pid_stat(5), field 22).
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The namespace of the process ids that this process sees.
fn namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// Ends the runs in the store that belong to processes of this machine which are no more. Says how many there were.
///
/// # Errors
///
/// If the store cannot be read or written.
pub(crate) fn end_orphans(backend: &dyn StateBackend, clock: &dyn Clock) -> Result<usize, BackendError> {
    let own = this_process();
    // Where the system does not tell, no process can be told from a later one of the same id.
    if own.started == 0 || own.namespace == 0 {
        return Ok(0);
    }
    let now = clock.now();
    let is_gone =
        |process: &Process| process.namespace == own.namespace && start_of(process.pid) != Some(process.started);
    let orphaned: Vec<Event> = backend
        .unfinished(&own.host)?
        .into_iter()
        .filter(|(_, process)| is_gone(process))
        .map(|(run, Process { host, pid, .. })| Event::Orphaned {
            run,
            at: now,
            message: Arc::from(format!("its process {pid} on {host} went away")),
        })
        .collect();
    if !orphaned.is_empty() {
        backend.append(&orphaned)?;
    }
    Ok(orphaned.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_known_by_its_start() {
        let own = this_process();
        assert_ne!(own.started, 0);
        assert_eq!(start_of(own.pid), Some(own.started));
        assert_eq!(start_of(u32::MAX), None);
    }
}
