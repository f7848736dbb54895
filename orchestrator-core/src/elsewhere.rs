//! Runs of other orchestrators that share the store: how they are asked to do something with a run of theirs, and what is
//! done here with what others ask.
//!
//! A request lies in the store until the owner of the run comes for it. Whoever asked looks for the answer now and then,
//! and whether the owner is still there.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::backend::record::{FlowRun, TaskRun};
use crate::backend::{Answer, BackendError, BackendErrorKind, Owner, Request, RequestNo, Shared, Wanted};
use crate::clock::{Clock, SystemClock};
use crate::engine::panics;
use crate::error::{Error, ErrorKind};
use crate::id::RunId;
use crate::orchestrator::{Inner, Orchestrator};
use crate::pause;
use crate::run::Stop;
use crate::state::{State, StateType};

/// The shortest and the longest time between two looks for something that another process does.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];

/// How often it is looked meanwhile whether that process is there at all.
const LOOK_FOR_GONE: Duration = Duration::from_secs(1);

/// Delays before an answer is given again that could not be stored.
const TRY_AGAIN: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

/// Does what was asked of runs that are active here; blocks.
fn serve(inner: &Inner, requests: Vec<Request>) {
    let Some(shared) = inner.backend.shared() else { return };
    for request in requests {
        let no = request.no;
        let served = panics::catch(|| serve_one(inner, shared, request));
        let served = served.unwrap_or_else(|panicked| answer(shared, no, &Answer::Refused(format!("it {panicked}"))));
        if let Err(error) = served {
            tracing::debug!(target: "orchestrator", "cannot answer what another process asks: {error}");
        }
    }
}

/// Answers before it does what is asked, which may well be the end of this process.
fn serve_one(inner: &Inner, shared: &dyn Shared, Request { no, run, wanted }: Request) -> Result<(), Error> {
    let Some(wanted) = wanted else {
        let why = "this version of orchestrator does not know what is asked";
        return answer(shared, no, &Answer::Refused(why.to_owned()));
    };
    let Some(run) = inner.active_run(run) else {
        return answer(shared, no, &Answer::NotActive);
    };
    match wanted {
        Wanted::Cancel => {
            answer(shared, no, &Answer::Done)?;
            run.cancel(Stop::Request);
            Ok(())
        }
        Wanted::Resume(input) => match pause::resume(&run, &input, || answer(shared, no, &Answer::Done)) {
            Err(error) if error.is_invalid_input() => answer(shared, no, &Answer::InvalidInput(error.to_string())),
            Err(error) if error.is_not_paused() => answer(shared, no, &Answer::NotPaused(error.to_string())),
            resumed => resumed,
        },
    }
}

fn answer(shared: &dyn Shared, no: RequestNo, answer: &Answer) -> Result<(), Error> {
    for delay in TRY_AGAIN {
        match shared.answer(no, answer) {
            Err(error) if error.is_transient() => std::thread::sleep(delay),
            answered => return answered.map_err(Error::from),
        }
    }
    Ok(shared.answer(no, answer)?)
}

/// What is known of a run, whatever its kind.
#[derive(Debug)]
struct Record {
    label: String,
    state: State,
    process: String,
}

impl From<FlowRun> for Record {
    fn from(FlowRun { name, state, host, pid, .. }: FlowRun) -> Self {
        Self { label: format!("flow run '{name}'"), state, process: format!("process {pid} on {host}") }
    }
}

impl From<TaskRun> for Record {
    fn from(TaskRun { name, state, host, pid, .. }: TaskRun) -> Self {
        Self { label: format!("task run '{name}'"), state, process: format!("process {pid} on {host}") }
    }
}

/// What came of it that the owner of a run was asked for something.
enum Asked {
    Answered(Answer),
    /// There was no need to ask: it has ended.
    Ended(Record),
}

impl Orchestrator {
    /// Cancels a run of another orchestrator, and waits until it has ended.
    pub(crate) async fn cancel_elsewhere(&self, id: RunId) -> Result<(), Error> {
        let over = |record: &Record| {
            let Record { label, state, .. } = record;
            let why = state.message.as_deref().filter(|_| state.kind == StateType::Crashed);
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Error::new(ErrorKind::NotFound(format!("{label} is not active: it has ended as {}{why}", state.name)))
        };
        match self.ask_owner(id, Wanted::Cancel).await? {
            Asked::Ended(record) => return Err(over(&record)),
            Asked::Answered(Answer::Done) => {}
            Asked::Answered(answer) => {
                let record = self.record(id).await?;
                return Err(if record.state.is_terminal() { over(&record) } else { refused(id, &record, answer) });
            }
        }
        let mut pace = Pace::new();
        loop {
            let record = self.record(id).await?;
            if record.state.is_terminal() {
                return if record.state.kind == StateType::Crashed { Err(over(&record)) } else { Ok(()) };
            }
            pace.step(self).await?;
        }
    }

    /// Lets the oldest pause of a flow run of another orchestrator go on.
    pub(crate) async fn resume_paused_elsewhere(&self, id: RunId, input: Value) -> Result<(), Error> {
        let over = |Record { label, state, .. }: &Record| {
            Error::new(ErrorKind::NotPaused(format!("{label} is not paused: it has ended as {}", state.name)))
        };
        match self.ask_owner(id, Wanted::Resume(input)).await? {
            Asked::Ended(record) => Err(over(&record)),
            Asked::Answered(Answer::Done) => Ok(()),
            Asked::Answered(Answer::NotPaused(said)) => Err(Error::new(ErrorKind::NotPaused(said))),
            Asked::Answered(Answer::InvalidInput(said)) => Err(Error::new(ErrorKind::Input(said))),
            Asked::Answered(answer) => {
                let record = self.record(id).await?;
                Err(if record.state.is_terminal() { over(&record) } else { refused(id, &record, answer) })
            }
        }
    }

    /// Asks the owner of a run, or whoever is its owner by then if that one goes away; waits for the answer.
    async fn ask_owner(&self, id: RunId, wanted: Wanted) -> Result<Asked, Error> {
        let mut pace = Pace::new();
        loop {
            let record = self.record(id).await?;
            if record.state.is_terminal() {
                return Ok(Asked::Ended(record));
            }
            self.look_for_gone().await?;
            let asked = wanted.clone();
            let sent = self.with_shared(move |shared| match shared.owner_of(id)? {
                Some(Owner { no, .. }) => shared.request(no, id, &asked, SystemClock.now()),
                None => Ok(None),
            });
            if let Some(no) = sent.await? {
                let answer = self.wait_for_answer(no).await?;
                if answer != Answer::Gone {
                    return Ok(Asked::Answered(answer));
                }
            }
            pace.step(self).await?;
        }
    }

    async fn wait_for_answer(&self, no: RequestNo) -> Result<Answer, Error> {
        let mut pace = Pace::new();
        loop {
            if let Some(answer) = self.with_shared(move |shared| shared.answered(no)).await? {
                // What is left behind goes with the orchestrator that was asked; the answer counts.
                let _ = self.with_shared(move |shared| shared.withdraw(no)).await;
                return Ok(answer);
            }
            pace.step(self).await?;
        }
    }

    async fn record(&self, id: RunId) -> Result<Record, Error> {
        Ok(match id {
            RunId::Flow(id) => self.flow_run(id).await?.into(),
            RunId::Task(id) => self.task_run(id).await?.into(),
        })
    }

    async fn look_for_gone(&self) -> Result<(), Error> {
        let look = |_: &dyn crate::StateBackend, inner: &Inner| {
            if let Some(keeper) = &inner.keeper {
                keeper.lookout().look();
            }
            Ok(())
        };
        self.ask(look).await
    }

    fn with_shared<R: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Shared) -> Result<R, BackendError> + Send + 'static,
    ) -> impl Future<Output = Result<R, Error>> + Send {
        self.ask(|backend, _| question(backend.shared().expect("only what shares a store is asked for")))
    }
}

fn refused(id: RunId, record: &Record, answer: Answer) -> Error {
    let Record { label, state, process } = record;
    let doing = format!("ask {process} about run {id}");
    let said = match answer {
        Answer::Refused(why) => why,
        Answer::Done | Answer::NotActive | Answer::NotPaused(_) | Answer::InvalidInput(_) | Answer::Gone => {
            format!("{label} is not active there, though it is {} as far as is recorded", state.name)
        }
    };
    BackendError::new(BackendErrorKind::Other, doing).because(said).into()
}

/// When to look again.
pub(crate) struct Pace {
    next: Duration,
    looked: Instant,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { next: LOOK_EVERY[0], looked: Instant::now() }
    }

    /// Waits a moment; sees to it that those come to an end who are gone.
    pub(crate) async fn step(&mut self, orchestrator: &Orchestrator) -> Result<(), Error> {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(LOOK_EVERY[1]);
        if self.looked.elapsed() >= LOOK_FOR_GONE {
            self.looked = Instant::now();
            orchestrator.look_for_gone().await?;
        }
        Ok(())
    }
}

/// Serves requests on a thread of its own, since code of the user's takes part in it: one batch at a time.
#[derive(Debug, Default)]
pub(crate) struct Server(Option<std::thread::JoinHandle<()>>);

impl Server {
    /// Serves what is there, unless the last batch is not done yet; `inner` is asked for if there is something.
    pub(crate) fn serve(
        &mut self,
        take: impl FnOnce() -> Result<Vec<Request>, BackendError>,
        inner: impl FnOnce() -> Option<Arc<Inner>>,
    ) -> Result<(), BackendError> {
        if self.0.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let requests = take()?;
        if requests.is_empty() {
            return Ok(());
        }
        let Some(inner) = inner() else { return Ok(()) };
        let thread = std::thread::Builder::new().name("orchestrator-requests".to_owned());
        // A request that no thread can serve is answered when this process ends.
        self.0 = thread.spawn(move || serve(&inner, requests)).ok();
        Ok(())
    }
}
