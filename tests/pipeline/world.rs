//! A folder with a history of its own, and the program that runs in it.

use std::io::Write as _;
use std::ops::Deref;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Answer, Home};

/// Nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World(Home);

impl Deref for World {
    type Target = Home;

    fn deref(&self) -> &Home {
        &self.0
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let mut home = Home::of(std::env::current_exe().expect("this program"));
        home.variables = &[(crate::IS_PROGRAM, "1"), ("ORCHESTRATOR_LOG", "warn")];
        Self(home)
    }

    /// What a command gives that is given text on standard input.
    pub(crate) fn ask_with(&self, arguments: &[&str], input: &str) -> Answer {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run the program");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("write to the program");
        child.wait_with_output().expect("the program ends").into()
    }

    /// The newest flow run; `null` as long as there is none.
    #[track_caller]
    pub(crate) fn newest(&self) -> Value {
        if !self.database().exists() {
            return Value::Null;
        }
        let answer = self.ask(&["runs", "ls", "--limit", "1"]);
        if answer.err.contains("there is none yet") {
            return Value::Null;
        }
        self.json(&["runs", "ls", "--limit", "1"])[0].clone()
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
