//! This very program, started again in another role: a test of its own that does nothing unless it is given a folder.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const FOLDER: &str = "CRASH_TEST_FOLDER";
const STDERR: &str = "stderr.txt";

/// The folder that this process was given; `None` in an ordinary run of all tests.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// What the processes of a folder have said.
pub(crate) fn said(folder: &Path) -> String {
    std::fs::read_to_string(folder.join(STDERR)).unwrap_or_default()
}

/// A variable of the tests that is a number.
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is '{text}'")))
}

/// The seed that was asked for, or any, which is printed.
pub(crate) fn seed() -> u64 {
    let seed = number("ORCHESTRATOR_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("ORCHESTRATOR_TEST_SEED={seed}");
    seed
}

/// A process in another role; it is killed when this goes away.
pub(crate) struct Role {
    process: Child,
    folder: PathBuf,
}

impl Role {
    pub(crate) fn start(name: &str, folder: &Path, more: &[(&str, String)]) -> Self {
        let command = Command::new(std::env::current_exe().expect("this program has a path"));
        Self::start_as(command, name, folder, more)
    }

    /// The same, by way of a command that starts this program with the arguments that it is given.
    pub(crate) fn start_as(mut command: Command, name: &str, folder: &Path, more: &[(&str, String)]) -> Self {
        let stderr = OpenOptions::new().create(true).append(true).open(folder.join(STDERR));
        command
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .env("ORCHESTRATOR_HOME", folder.join("home"))
            .envs(more.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(stderr.expect("a file for what it says"));
        let process = command.spawn().expect("this program can be started again");
        Self { process, folder: folder.to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills the process when so much time has passed, unless it has ended well before; says whether it was killed.
    pub(crate) fn kill_after(mut self, life: Duration) -> bool {
        let end = Instant::now() + life;
        while Instant::now() < end {
            if let Some(status) = self.process.try_wait().expect("its status") {
                assert!(status.success(), "{status}: {}", said(&self.folder));
                return false;
            }
            std::thread::sleep((end - Instant::now()).min(Duration::from_millis(1)));
        }
        self.kill();
        true
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it has ended");
    }

    /// Suspends the process, as a closed laptop does, or lets it go on.
    pub(crate) fn suspend(&self, suspended: bool) {
        let signal = if suspended { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &self.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "the process can be sent {signal}");
    }

    /// How it ended; it is given so long.
    pub(crate) fn end_within(mut self, patience: Duration) -> ExitStatus {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.process.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < end, "process {} does not end: {}", self.id(), said(&self.folder));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
