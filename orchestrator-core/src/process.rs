//! The process that this code runs in, and whether another one is still there.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::backend::record::Process;

/// The machine and process that this code runs in.
pub(crate) fn this_process() -> &'static Process {
    static PROCESS: OnceLock<Process> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let pid = std::process::id();
        let (namespace, started) = (namespace().unwrap_or(0), Stat::of(pid).map_or(0, |stat| stat.started));
        Process { host, pid, namespace, started, session: 0 }
    })
}

/// One more orchestrator of this process, told from the others by its session; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Session(&'static Process);

impl Session {
    pub(crate) fn begin() -> Self {
        // The keys of a `RandomState` are random, and no two of them are alike.
        let session = RandomState::new().build_hasher().finish().max(1);
        sessions().insert(session);
        // Runs refer to it as long as there is anything that remembers them.
        Self(Box::leak(Box::new(Process { session, ..this_process().clone() })))
    }

    pub(crate) const fn process(&self) -> &'static Process {
        self.0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        sessions().remove(&self.0.session);
    }
}

/// The sessions of this process that are not over.
fn sessions() -> MutexGuard<'static, BTreeSet<u64>> {
    static SESSIONS: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    SESSIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has become of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is there, and has its turns, however few.
    Alive,
    /// It is there, and was stopped: it does nothing before it is told to go on.
    Stopped,
    /// Its process is there and has nothing to do with it any more: it has ended, or another program or another copy of
    /// this one has to do with it.
    Over,
    /// It is no more.
    Gone,
    /// It cannot be seen from here: it is on another machine or in another namespace, or the system does not tell.
    Unknown,
}

/// What has become of that process.
pub(crate) fn fate(process: &Process) -> Fate {
    let own = this_process();
    let namespaces = !cfg!(target_os = "linux") || own.namespace != 0;
    if process.host != own.host || process.namespace != own.namespace || !namespaces {
        return Fate::Unknown;
    }
    let ours = process.pid == own.pid && process.started == own.started;
    if ours && process.session != 0 && !sessions().contains(&process.session) {
        return Fate::Over;
    }
    // Asked first, because a system may hide what it shows of the processes of others.
    if !exists(process.pid) {
        return Fate::Gone;
    }
    match Stat::of(process.pid) {
        // Its number was given to another one.
        Some(stat) if process.started != 0 && stat.started != process.started => Fate::Gone,
        // It has ended, and its parent has not asked how; unless only its first thread has.
        Some(Stat { state: 'Z' | 'X' | 'x', threads: 0 | 1, .. }) => Fate::Gone,
        Some(Stat { state: 'T' | 't', .. }) => Fate::Stopped,
        Some(_) => Fate::Alive,
        None => Fate::Unknown,
    }
}

#[cfg(unix)]
fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn exists(_pid: u32) -> bool {
    true
}

/// What the system tells of a process of this machine.
struct Stat {
    state: char,
    threads: u64,
    /// When it was started, in the system's ticks since it was booted.
    started: u64,
}

impl Stat {
    /// `None` if there is no such process, or if the system does not tell.
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may contain anything. The fields after it count from 3 in proc_pid_stat(5).
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let threads = fields.nth(16)?.parse().ok()?;
        let started = fields.nth(1)?.parse().ok()?;
        Some(Self { state, threads, started })
    }
}

/// The namespace of the process ids that this process sees.
fn namespace() -> Option<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_known_by_its_start() {
        let own = this_process();
        assert_ne!(own.started, 0);
        assert_eq!(fate(own), Fate::Alive);
        assert_eq!(fate(&Process { started: own.started + 1, ..own.clone() }), Fate::Gone);
        assert_eq!(fate(&Process { pid: u32::MAX, ..own.clone() }), Fate::Gone);
        assert_eq!(fate(&Process { namespace: own.namespace + 1, ..own.clone() }), Fate::Unknown);
        assert_eq!(fate(&Process { host: "elsewhere".to_owned(), ..own.clone() }), Fate::Unknown);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_is_stopped_or_dead_is_told_from_one_that_works() {
        use std::process::{Command, Stdio};
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("start a process");
        let pid = child.id();
        let started = Stat::of(pid).expect("it is there").started;
        let process = Process { pid, started, ..this_process().clone() };
        assert_eq!(fate(&process), Fate::Alive);
        let signal = |name: &str| {
            let status = Command::new("kill").args([name, &pid.to_string()]).status().expect("send a signal");
            assert!(status.success());
        };
        let until = |expected: Fate| {
            while fate(&process) != expected {
                std::thread::yield_now();
            }
        };
        signal("-STOP");
        until(Fate::Stopped);
        signal("-CONT");
        until(Fate::Alive);
        signal("-KILL");
        // Nobody has asked yet how it ended.
        until(Fate::Gone);
        child.wait().expect("ask how it ended");
        assert_eq!(fate(&process), Fate::Gone);
    }

    #[test]
    fn sessions_differ() {
        let (one, other) = (Session::begin(), Session::begin());
        let (first, second) = (one.process(), other.process());
        assert_ne!(first.session, second.session);
        assert_eq!(Process { session: 0, ..first.clone() }, *this_process());
        drop(one);
        let fates = [first, second].map(fate);
        assert!(cfg!(not(target_os = "linux")) || fates == [Fate::Over, Fate::Alive], "{fates:?}");
    }
}
