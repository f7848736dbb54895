//! An orchestrator that others have found to be gone, while it was suspended or could not be seen, stops.

use std::path::Path;
use std::time::{Duration, Instant};

use orchestrator::backend::sqlite::SqliteBackend;
use orchestrator::backend::{Owner, StateBackend};
use orchestrator::prelude::*;
use orchestrator::{FlowRunId, Timestamp};
use tokio::sync::Notify;

use crate::door::{Calls, Notes, soon};
use crate::process::{Process, command, is_child};

const NOBODY_ELSE: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);

async fn open(folder: &Path, lease: Duration) -> Orchestrator {
    Orchestrator::builder().home(folder).lease(lease).cancel_grace(SHORT).build().await.unwrap()
}

/// Says that the only orchestrator which uses the folder is gone.
fn expel(folder: &Path) {
    let store = SqliteBackend::open(folder.join("orchestrator.db")).unwrap();
    let shared = store.shared().unwrap();
    loop {
        let [owner]: [Owner; 1] = shared.owners().unwrap().try_into().unwrap();
        // It may renew its lease at any time.
        if shared.expel(&owner, Timestamp::from_micros(i64::MAX / 2), "nobody heard of it").unwrap().is_some() {
            return;
        }
    }
}

const SAID: &str = "this process was found to be gone: nobody heard of it; what it did since is not recorded";

static HOOKS: Notes = Notes::new();

fn note_task(run: &TaskRun, state: &State) {
    HOOKS.add(format!("{} {}", run.name, state.name));
}

fn note_flow(run: &FlowRun, state: &State) {
    HOOKS.add(format!("{} {}", run.flow_name, state.name));
}

static BEGUN: Notify = Notify::const_new();
static LEFT: Calls = Calls::new();

/// Counts when it is dropped.
struct Leaves;

impl Drop for Leaves {
    fn drop(&mut self) {
        LEFT.one();
    }
}

#[task(concurrency = "seat", on_crashed = note_task, on_cancellation = note_task, on_failure = note_task)]
async fn sits() {
    let _leaves = Leaves;
    BEGUN.notify_one();
    std::future::pending::<()>().await;
}

#[flow(on_crashed = note_flow, on_cancellation = note_flow, on_failure = note_flow)]
async fn sitting() -> Result<(), TaskError> {
    let _leaves = Leaves;
    let stands = sits();
    sits().await?;
    stands.await
}

#[tokio::test]
async fn a_heartbeat_that_is_refused_ends_all_runs_and_starts_none() {
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path(), SHORT).await;
    orchestrator.limit("seat", 1).await.unwrap();
    let run = orchestrator.scope(async { sitting() }).await;
    soon(BEGUN.notified()).await;
    // From now on the history has it.
    orchestrator.flow_run(run.run_id()).await.unwrap();
    expel(folder.path());
    let error = soon(&run).await.unwrap_err();
    assert!(error.is_crashed(), "{error}");
    assert!(error.to_string().ends_with(&format!("crashed: {SAID}")), "{error}");
    assert_eq!(run.state().name, "Crashed");
    assert_eq!(LEFT.get(), 2, "the bodies are dropped");
    assert_eq!(HOOKS.take(), [""; 0]);

    let refused = soon(orchestrator.scope(async { sitting().await })).await.unwrap_err().to_string();
    let advice = "and it starts no run any more: build a new orchestrator, or start the program again";
    assert!(refused.contains(&format!("was refused: {SAID}, {advice}")), "{refused}");
    let slot = soon(orchestrator.scope(async { concurrency("seat", 1).await })).await.unwrap_err();
    assert!(slot.is_backend(), "{slot}");

    // Whoever comes next finds all as it should be.
    let next = open(folder.path(), NOBODY_ELSE).await;
    let limit = next.limits().await.unwrap().remove(0);
    assert_eq!((limit.slots, limit.taken), (1, 0));
    let run = next.flow_run(run.run_id()).await.unwrap();
    assert_eq!((run.state.name.as_str(), run.state.message.as_deref()), ("Crashed", Some("nobody heard of it")));
    for task in next.task_runs(run.id).await.unwrap() {
        assert_eq!(task.state.name, "Crashed");
    }
    soon(orchestrator.shutdown()).await.unwrap_err();
    soon(next.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_completion_that_is_refused_is_an_error() {
    static GO: Notify = Notify::const_new();
    static BEGUN: Notify = Notify::const_new();
    static TOLD: Calls = Calls::new();
    fn told(_: &FlowRun, _: &State) {
        TOLD.one();
    }
    #[task]
    async fn seven() -> u32 {
        7
    }
    #[flow(on_crashed = told)]
    async fn completes() -> Result<u32, TaskError> {
        BEGUN.notify_one();
        GO.notified().await;
        seven().await
    }
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path(), NOBODY_ELSE).await;
    let run = orchestrator.scope(async { completes() }).await;
    soon(BEGUN.notified()).await;
    // From now on the history has it.
    orchestrator.flow_run(run.run_id()).await.unwrap();
    expel(folder.path());
    GO.notify_one();
    let error = soon(&run).await.unwrap_err();
    assert!(error.is_crashed() && error.to_string().ends_with(SAID), "{error}");
    let refused = soon(orchestrator.scope(async { seven().await })).await.unwrap_err();
    assert!(refused.to_string().contains(SAID), "{refused}");
    assert_eq!(orchestrator.flow_run(run.run_id()).await.unwrap().state.name, "Crashed");
    assert_eq!(TOLD.get(), 0);
    assert!(orchestrator.lost_events() > 0);
    let error = soon(orchestrator.shutdown()).await.unwrap_err().to_string();
    assert!(error.contains("another process found this one to be gone"), "{error}");
}

#[tokio::test]
async fn a_result_that_nobody_keeps_any_more_is_none() {
    static GO: Notify = Notify::const_new();
    static BEGUN: Notify = Notify::const_new();
    static NEXT: Calls = Calls::new();
    #[task(persist)]
    async fn kept() -> u32 {
        BEGUN.notify_one();
        GO.notified().await;
        7
    }
    #[task]
    async fn after_it(n: u32) -> u32 {
        NEXT.one();
        n
    }
    #[flow]
    async fn keeping() -> Result<u32, TaskError> {
        after_it(kept()).await
    }
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path(), NOBODY_ELSE).await;
    let run = orchestrator.scope(async { keeping() }).await;
    soon(BEGUN.notified()).await;
    expel(folder.path());
    GO.notify_one();
    assert!(soon(run).await.unwrap_err().is_crashed());
    assert_eq!(NEXT.get(), 0);
    soon(orchestrator.shutdown()).await.unwrap_err();
}

#[tokio::test]
async fn what_was_completed_before_is_given_out() {
    #[flow]
    async fn early() -> u32 {
        3
    }
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path(), NOBODY_ELSE).await;
    let run = orchestrator.scope(async { early() }).await;
    run.wait().await;
    expel(folder.path());
    assert_eq!(run.await.unwrap(), 3);
}

#[tokio::test]
async fn nothing_is_undone_on_behalf_of_others() {
    static BEGUN: Notify = Notify::const_new();
    static UNDONE: Calls = Calls::new();
    fn undo(_: &u32) {
        UNDONE.one();
    }
    #[task(on_rollback = undo)]
    async fn books() -> u32 {
        1
    }
    #[task]
    async fn waits() {
        BEGUN.notify_one();
        std::future::pending::<()>().await;
    }
    #[flow]
    async fn booking() -> Result<(), TaskError> {
        transaction(async {
            books().await?;
            waits().await
        })
        .await
    }
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path(), SHORT).await;
    let run = orchestrator.scope(async { booking() }).await;
    soon(BEGUN.notified()).await;
    expel(folder.path());
    assert!(soon(run).await.unwrap_err().is_crashed());
    assert_eq!(UNDONE.get(), 0);
    soon(orchestrator.shutdown()).await.unwrap_err();
}

#[tokio::test]
async fn a_sync_body_that_does_not_stop_is_abandoned() {
    static BEGUN: Notify = Notify::const_new();
    let (release, released) = std::sync::mpsc::channel::<()>();
    static RELEASED: std::sync::Mutex<Option<std::sync::mpsc::Receiver<()>>> = std::sync::Mutex::new(None);
    *RELEASED.lock().unwrap() = Some(released);
    #[task]
    fn deaf() {
        BEGUN.notify_one();
        let released = RELEASED.lock().unwrap().take().unwrap();
        let _ = released.recv();
    }
    #[flow]
    async fn around_deaf() -> Result<(), TaskError> {
        deaf().await
    }
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path(), SHORT).await;
    let run = orchestrator.scope(async { around_deaf() }).await;
    soon(BEGUN.notified()).await;
    expel(folder.path());
    assert!(soon(run).await.unwrap_err().is_crashed());
    soon(orchestrator.shutdown()).await.unwrap_err();
    drop(release);
}

#[tokio::test]
async fn child_suspended() {
    static BEGUN: Notify = Notify::const_new();
    #[task]
    async fn waits() {
        BEGUN.notify_one();
        std::future::pending::<()>().await;
    }
    #[flow(on_crashed = tells, on_cancellation = tells)]
    async fn suspended() -> Result<(), TaskError> {
        waits().await
    }
    fn tells(_: &FlowRun, _: &State) {
        println!("hook");
    }
    if !is_child() {
        return;
    }
    let run = suspended();
    BEGUN.notified().await;
    Orchestrator::current().flow_run(run.run_id()).await.unwrap();
    println!("begun {}", run.run_id());
    println!("error {}", run.await.unwrap_err());
    println!("refused {}", suspended().await.unwrap_err());
    println!("shutdown {:?}", Orchestrator::current().shutdown().await);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_that_was_stopped_for_longer_than_its_lease_finds_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("fence::child_suspended", folder.path());
    let log = folder.path().join("stderr.txt");
    command.stderr(std::fs::File::create(&log).unwrap());
    let mut process = Process::start(command.env("ORCHESTRATOR_LEASE_SECS", "0.3"));
    let id: FlowRunId = process.says("begun ").parse().unwrap();
    process.signal("-STOP");
    let orchestrator = open(folder.path(), SHORT).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while orchestrator.flow_run(id).await.unwrap().state.name != "Crashed" {
        assert!(Instant::now() < deadline, "it is found to be gone");
        tokio::task::yield_now().await;
    }
    process.signal("-CONT");
    let why = "was stopped for longer than its lease; what it did since is not recorded";
    let said = process.says("error ");
    assert!(said.contains("crashed: this process was found to be gone: its process ") && said.ends_with(why), "{said}");
    let said = process.says("refused ");
    assert!(said.contains(why) && said.ends_with("start the program again"), "{said}");
    process.says("shutdown ");
    assert!(process.rest().iter().all(|line| !line.contains("hook")));
    let log = std::fs::read_to_string(log).unwrap();
    let told = log.lines().filter(|line| line.contains(" | ERROR | ") && line.contains("was found to be gone"));
    assert_eq!(told.count(), 1, "it is told once: {log}");
    let states = orchestrator.states(id).await.unwrap();
    assert_eq!(states.iter().map(|state| state.name.as_str()).collect::<Vec<_>>(), ["Pending", "Running", "Crashed"]);
}
