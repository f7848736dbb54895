//! Tests of this binary that run in a process of their own, which is killed or stopped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use crate::door::SOON;

const MARK: &str = "IT_TEST_CHILD";

/// Whether the test was started by another one; in an ordinary run of all tests those named `child_*` do nothing.
pub(crate) fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Whether the parent has set that variable.
pub(crate) fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

/// The test of that name, with its database in the folder.
pub(crate) fn command(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(MARK, "1").env("ORCHESTRATOR_HOME", folder).stdout(Stdio::piped());
    command
}

/// A process that ends with the test.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|said| line.send(said)));
        Self { child, lines }
    }

    /// The next line; `None` when it has ended.
    fn next_line(&self) -> Option<String> {
        match self.lines.recv_timeout(SOON) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it says nothing and does not end"),
        }
    }

    /// What stands behind `word` in the next line that has it.
    pub(crate) fn says(&mut self, word: &str) -> String {
        loop {
            let line = self.next_line().unwrap_or_else(|| panic!("it ended without saying `{word}`"));
            if let Some((_, said)) = line.split_once(word) {
                return said.trim().to_owned();
            }
        }
    }

    /// The lines that it writes until it ends well.
    pub(crate) fn rest(mut self) -> Vec<String> {
        let lines = std::iter::from_fn(|| self.next_line()).collect();
        assert!(self.child.wait().unwrap().success());
        lines
    }

    /// The status that it ends with by itself; `None` if a signal ended it.
    pub(crate) fn status(mut self) -> Option<i32> {
        std::iter::from_fn(|| self.next_line()).for_each(drop);
        self.child.wait().unwrap().code()
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// One right after the other.
    pub(crate) fn signal_twice(&self, name: &str) {
        let twice = format!("kill -s {name} {0}; kill -s {name} {0}", self.child.id());
        assert!(Command::new("sh").args(["-c", &twice]).status().unwrap().success());
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
