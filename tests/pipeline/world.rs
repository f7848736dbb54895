//! A folder with a history of its own, and the program that runs in it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    folder: TempDir,
}

/// What a command gave.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(arguments).env_clear().env(crate::IS_PROGRAM, "1").env("ORCHESTRATOR_HOME", self.folder());
        command.env("TZ", "UTC").env("COLUMNS", "100").env("ORCHESTRATOR_LOG", "warn").stdin(Stdio::null());
        command
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Answer {
        self.command(arguments).output().expect("run the program").into()
    }

    /// The same, with text on standard input.
    pub(crate) fn ask_with(&self, arguments: &[&str], input: &str) -> Answer {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run the program");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("write to the program");
        child.wait_with_output().expect("the program ends").into()
    }

    /// Standard output, of a command that does what it is asked.
    #[track_caller]
    pub(crate) fn tell(&self, arguments: &[&str]) -> String {
        let answer = self.ask(arguments);
        assert_eq!(answer.code, Some(0), "{arguments:?}: {answer:?}");
        answer.out
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.tell(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} gives no JSON: {error}\n{text}"))
    }

    /// The newest flow run; `null` as long as there is none.
    #[track_caller]
    pub(crate) fn newest(&self) -> Value {
        if !self.path("orchestrator.db").exists() {
            return Value::Null;
        }
        let answer = self.ask(&["runs", "ls", "--limit", "1"]);
        if answer.err.contains("there is none yet") {
            return Value::Null;
        }
        self.json(&["runs", "ls", "--limit", "1"])[0].clone()
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Waits until something is so that another process does.
#[track_caller]
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it has not happened");
        std::thread::sleep(Duration::from_millis(20));
    }
}
