//! What the tests of this module share: a screen that is read back, and made-up runs.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::screen::Screen;
use crate::backend::record::{Process, RunIds, RunInfo, SharedList};
use crate::clock::Timestamp;
use crate::def::Def;
use crate::error::TaskError;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::observe::{Observed, Observer};
use crate::state::{StateName, Transition};

/// Where a [`Screen`] writes in tests.
#[derive(Clone, Default, Debug)]
pub(super) struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    pub(super) fn screen(&self) -> Screen {
        Screen::new(Box::new(self.clone()))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no test panics in a write").clone()).expect("only text is written")
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics in a write").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A run that goes through states in front of an observer.
pub(super) struct Actor {
    pub(super) info: RunInfo,
    pub(super) name: String,
}

/// The end of a run.
pub(super) struct End<'a> {
    pub(super) name: StateName,
    pub(super) run_count: u32,
    pub(super) millis: Option<u64>,
    pub(super) error: Option<&'a TaskError>,
}

impl Actor {
    pub(super) fn flow(name: &str, within: Option<&Self>) -> Self {
        Self::new(FlowRunId::new(Timestamp::from_micros(1)).into(), name, within)
    }

    pub(super) fn task(name: &str, within: Option<&Self>) -> Self {
        Self::new(TaskRunId::new(Timestamp::from_micros(1)).into(), name, within)
    }

    fn new(id: RunId, name: &str, within: Option<&Self>) -> Self {
        static FUNCTION: Def = Def::task("function", "tests::function");
        static PROCESS: Process = Process { host: String::new(), pid: 1, namespace: 2, started: 1, session: 0 };
        let info = RunInfo {
            id,
            def: &FUNCTION,
            given_name: None,
            index: 0,
            parent: within.map(|run| run.info.id),
            flow_run: within.and_then(|run| run.info.id.as_flow().or(run.info.flow_run)),
            tags: SharedList::default(),
            upstream: RunIds::default(),
            process: &PROCESS,
        };
        Self { info, name: name.to_owned() }
    }

    /// Enters states that are not the last.
    pub(super) fn enters(&self, observer: &impl Observer, names: &[StateName]) {
        for &name in names {
            self.ends(observer, &End { name, run_count: 0, millis: None, error: None });
        }
    }

    pub(super) fn ends(&self, observer: &impl Observer, end: &End<'_>) {
        let transition = Transition::new(end.name, Timestamp::from_micros(1));
        observer.on_transition(&Observed {
            run: &self.info,
            name: &self.name,
            named: false,
            transition: &transition,
            run_count: end.run_count,
            duration: end.millis.map(Duration::from_millis),
            error: end.error,
        });
    }
}
