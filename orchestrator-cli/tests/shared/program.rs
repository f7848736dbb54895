//! A program and a folder with a history of its own: shared by the tests of `orchestrator` and those of a pipeline's own
//! program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The folder, and how the program is run in it.
#[derive(Debug)]
pub(crate) struct Home {
    folder: TempDir,
    pub(crate) program: PathBuf,
    /// What it finds in the environment besides.
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// Whether it says nothing on standard error if all is well.
    pub(crate) is_quiet: bool,
}

/// What a command gave.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Home {
    pub(crate) fn of(program: impl Into<PathBuf>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, program: program.into(), variables: &[], is_quiet: false }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("orchestrator.db")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("ORCHESTRATOR_HOME", self.folder())
            .envs(self.variables.iter().copied());
        command.env("TZ", "UTC").env("COLUMNS", "100").stdin(Stdio::null());
        command
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Answer {
        self.command(arguments).output().expect("run the program").into()
    }

    /// Standard output, of a command that does what it is asked.
    #[track_caller]
    pub(crate) fn tell(&self, arguments: &[&str]) -> String {
        let answer = self.ask(arguments);
        assert_eq!(answer.code, Some(0), "{arguments:?}: {answer:?}");
        assert!(!self.is_quiet || answer.err.is_empty(), "{arguments:?}: {answer:?}");
        answer.out
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.tell(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} gives no JSON: {error}\n{text}"))
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}
