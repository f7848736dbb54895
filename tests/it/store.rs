//! The embedded database: what outlives a process, and what happens when there is something wrong with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use orchestrator::backend::record::{CacheEntry, CacheHit, CacheKey, CacheQuery, Event, TakeOver};
use orchestrator::backend::sqlite::{SqliteBackend, SqliteOptions};
use orchestrator::backend::{
    BackendError, BackendErrorKind, CacheCare, CacheIndex, EventStore, ResultIndex, RunHistory, RunSearch, StateBackend,
};
use orchestrator::prelude::*;
use orchestrator::{FlowRunId, FlowRunQuery, LogLine, RunId, StateName, TaskRunId, TaskRunQuery, Timestamp, Why};

use crate::door::Calls;

static CALLS: Calls = Calls::new();

#[task(cache_ttl = "1h")]
async fn squared(n: u64) -> u64 {
    CALLS.one();
    tracing::info!(n, "squaring");
    n * n
}

#[flow]
async fn squares(upto: u64) -> Result<Vec<u64>, TaskError> {
    squared::map(0..upto).await
}

async fn open(folder: &Path) -> Orchestrator {
    Orchestrator::builder().home(folder).build().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_keeps_its_thread_from_the_start_is_in_the_file_as_running() {
    type Channels = (std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>);
    static CHANNELS: std::sync::Mutex<Option<Channels>> = std::sync::Mutex::new(None);

    #[task(retries = 1)]
    async fn busy() -> Result<u32, String> {
        if RunContext::current().attempt() == 1 {
            return Err("the first attempt fails".to_owned());
        }
        let (begun, over) = CHANNELS.lock().unwrap().take().expect("it is called once");
        begun.send(()).unwrap();
        over.recv().unwrap();
        Ok(1)
    }

    #[task]
    async fn after(n: u32) -> u32 {
        n
    }

    #[flow]
    async fn keeps_a_thread() -> Result<u32, TaskError> {
        after(busy()).await
    }

    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (end, over) = std::sync::mpsc::channel();
    *CHANNELS.lock().unwrap() = Some((begun, over));
    let run = orchestrator.scope(async { keeps_a_thread() }).await;
    tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
    let file = SqliteBackend::open(folder.path().join("orchestrator.db")).unwrap();
    let stored = || {
        let runs = file.task_runs(run.run_id()).unwrap();
        let mut states: Vec<_> = runs.into_iter().map(|run| (run.task_name, run.state.name)).collect();
        states.sort_by(|(one, _), (other, _)| one.cmp(other));
        states
    };
    let expected = [("after".to_owned(), "Pending".to_owned()), ("busy".to_owned(), "Retrying".to_owned())];
    // The next batch is a few milliseconds away.
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while stored() != expected {
        assert!(std::time::Instant::now() < patience, "{:?}", stored());
        tokio::task::yield_now().await;
    }
    end.send(()).unwrap();
    assert_eq!(run.await.unwrap(), 1);
}

/// Runs one of the tests below named `child_*` in a process of its own.
fn child(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("store::{name}"), "--nocapture", "--test-threads=1"]);
    command
        .env("STORE_TEST_FOLDER", folder)
        .env("ORCHESTRATOR_HOME", folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The folder that the parent process gave; `None` in an ordinary run of all tests.
fn parents_folder() -> Option<PathBuf> {
    std::env::var_os("STORE_TEST_FOLDER").map(PathBuf::from)
}

#[tokio::test]
async fn child_squares() {
    if parents_folder().is_some() {
        // The orchestrator of a program that makes none.
        assert_eq!(squares(20).await.unwrap()[19], 361);
        println!("calls: {}", CALLS.get());
    }
}

#[tokio::test]
async fn a_second_process_hits_what_the_first_stored_and_sees_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let output = child("child_squares", folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run().contains("calls: 20"));
    assert!(run().contains("calls: 0"));
    let orchestrator = open(folder.path()).await;
    let runs = orchestrator.flow_runs(&FlowRunQuery::new().flow("squares")).await.unwrap();
    assert_eq!(runs.len(), 2);
    let [second, first] = [&runs[0], &runs[1]];
    assert_ne!(second.pid, first.pid);
    assert_eq!(first.parameters, serde_json::json!({ "upto": 20 }));
    let names = |runs: Vec<TaskRun>| runs.into_iter().map(|run| run.state.name).collect::<Vec<_>>();
    let tasks = orchestrator.task_runs(first.id).await.unwrap();
    let logs = orchestrator.logs(tasks[3].id).await.unwrap();
    assert_eq!(logs.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["squaring n=3"]);
    assert_eq!(names(tasks), vec!["Completed"; 20]);
    assert_eq!(names(orchestrator.task_runs(second.id).await.unwrap()), vec!["Cached"; 20]);
}

#[tokio::test]
async fn child_killed_in_the_middle() {
    if parents_folder().is_none() {
        return;
    }
    #[task]
    async fn done() {}
    #[task]
    async fn endless() {
        std::future::pending::<()>().await;
    }
    #[flow]
    async fn killed() -> Result<(), TaskError> {
        done().await?;
        endless().await
    }
    let run = killed();
    // Once the history can be asked for, it is stored.
    loop {
        let tasks = Orchestrator::current().task_runs(run.run_id()).await.unwrap();
        if tasks.iter().any(|task| task.task_name == "endless" && task.state.name == "Running") {
            println!("ready {}", run.run_id());
            std::future::pending::<()>().await;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_killed_process_leaves_a_database_that_can_be_read_and_written() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let mut process = child("child_killed_in_the_middle", folder.path()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let id: FlowRunId = loop {
        let line = lines.next().unwrap().unwrap();
        if let Some((_, id)) = line.split_once("ready ") {
            break id.trim().parse().unwrap();
        }
    };
    let elsewhere = open(folder.path()).await.explain(id).await.unwrap();
    assert!(matches!(&elsewhere.why, Why::Running { .. }), "{elsewhere:?}");
    assert_eq!(elsewhere.elsewhere.as_ref().map(|elsewhere| elsewhere.pid), Some(process.id()), "{elsewhere:?}");
    let said = elsewhere.to_string();
    assert!(said.contains(&format!("; it belongs to process {} on", process.id())), "{said}");
    assert!(said.contains(", last heard of at "), "{said}");
    process.kill().unwrap();
    process.wait().unwrap();
    let orchestrator = open(folder.path()).await;
    let said = orchestrator.explain(id).await.unwrap().to_string();
    assert!(said.contains("' ended as Crashed: its process "), "{said}");
    let tasks = orchestrator.task_runs(id).await.unwrap();
    let shown: Vec<_> = tasks.iter().map(|task| (task.task_name.as_str(), task.state.name.as_str())).collect();
    assert_eq!(shown, [("done", "Completed"), ("endless", "Crashed")]);
    let states = orchestrator.states(id).await.unwrap();
    let names: Vec<_> = states.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["Pending", "Running", "Crashed"]);
    let said = states[2].message.as_deref().unwrap();
    assert!(said.starts_with("its process") && said.contains(&process.id().to_string()), "{said}");
    let again = open(folder.path()).await;
    assert_eq!(again.states(id).await.unwrap().len(), 3, "noticed once");
    orchestrator.scope(async { squares(2).await.unwrap() }).await;
}

#[tokio::test]
async fn child_interrupted() {
    if parents_folder().is_none() {
        return;
    }
    #[task]
    async fn endless() {
        println!("\nready");
        std::future::pending::<()>().await;
    }
    #[flow]
    async fn interrupted() -> Result<(), TaskError> {
        endless().await
    }
    println!("outcome: {}", interrupted().await.unwrap_err());
}

#[cfg(unix)]
#[tokio::test]
async fn sigterm_cancels_in_order_and_is_recorded() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let mut process = child("child_interrupted", folder.path()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.ends_with("ready")).unwrap();
    assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
    let outcome = lines.find(|line| line.starts_with("outcome: ")).unwrap();
    assert!(outcome.contains("was cancelled"), "{outcome}");
    assert!(process.wait().unwrap().success());
    let orchestrator = open(folder.path()).await;
    let run = &orchestrator.flow_runs(&FlowRunQuery::new()).await.unwrap()[0];
    let states: Vec<_> = orchestrator.states(run.id).await.unwrap().into_iter().map(|state| state.name).collect();
    assert_eq!(states, ["Pending", "Running", "Cancelling", "Cancelled"]);
    assert_eq!(orchestrator.task_runs(run.id).await.unwrap()[0].state.name, "Cancelled");
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let below = Orchestrator::builder().home(&file).build().await.unwrap_err();
    assert_eq!(below.as_backend().map(BackendError::kind), Some(BackendErrorKind::Unavailable));
    assert!(below.to_string().contains("file"), "{below}");
    let damaged = folder.path().join("orchestrator.db");
    std::fs::write(&damaged, "this is no database, however long it is ".repeat(100)).unwrap();
    let error = Orchestrator::builder().home(folder.path()).build().await.unwrap_err();
    assert_eq!(error.as_backend().map(BackendError::kind), Some(BackendErrorKind::Corrupt));
    assert!(std::fs::read_to_string(&damaged).unwrap().starts_with("this is no database"), "it is left as it was");
    let url = Orchestrator::builder().database_url("oracle:x").build().await.unwrap_err();
    assert_eq!(url.to_string(), "'oracle:x' is not a database URL: expected `memory` or `sqlite:PATH`");
}

#[tokio::test]
async fn a_database_of_a_newer_format_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.shutdown().await.unwrap();
    let path = folder.path().join("orchestrator.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Orchestrator::builder().home(folder.path()).build().await.unwrap_err();
    assert_eq!(error.as_backend().map(BackendError::kind), Some(BackendErrorKind::NewerFormat { found: 99 }));
    assert!(error.to_string().contains("format 99, written by a newer version"), "{error}");
}

#[tokio::test]
async fn child_without_a_usable_home() {
    if parents_folder().is_some() {
        assert_eq!(squares(3).await.unwrap(), [0, 1, 4]);
        println!("done");
    }
}

#[test]
fn a_program_goes_on_in_memory_and_says_so_loudly() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let output = child("child_without_a_usable_home", &file).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("ERROR") && said.contains("kept in memory"), "{said}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("done"));
    let strict = child("child_without_a_usable_home", &file).env("ORCHESTRATOR_STRICT", "true").output().unwrap();
    assert!(!strict.status.success());
}

#[tokio::test]
async fn a_full_store_loses_history_loudly_and_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions::default().max_bytes(300 * 1024);
    let backend = Arc::new(SqliteBackend::open_with(folder.path().join("small.db"), options).unwrap());
    let orchestrator = Orchestrator::builder().build_over(backend);
    #[task]
    async fn name(n: u32) -> String {
        format!("{n:>1000}")
    }
    #[flow]
    async fn many() -> Result<usize, TaskError> {
        Ok(name::map(0..5000).await?.len())
    }
    let length = orchestrator.scope(async { many().await }).await.unwrap();
    assert_eq!(length, 5000);
    assert!(orchestrator.lost_events() > 0);
    let error = orchestrator.shutdown().await.unwrap_err().to_string();
    assert!(error.contains("no space is left"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_database_that_is_taken_away_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    orchestrator.scope(async { squares(2).await.unwrap() }).await;
    assert_eq!(orchestrator.lost_events(), 0);
    let database = folder.path().join("orchestrator.db");
    std::fs::rename(&database, folder.path().join("elsewhere.db")).unwrap();
    assert_eq!(orchestrator.scope(async { squares(2).await.unwrap() }).await, [0, 1]);
    let lost = orchestrator.lost_events();
    assert!(lost > 0);
    // Neither is what stands in its place written into.
    std::fs::write(&database, "").unwrap();
    orchestrator.scope(async { squares(2).await.unwrap() }).await;
    assert!(orchestrator.lost_events() > lost);
    assert_eq!(std::fs::read(&database).unwrap(), b"");

    let folder = tempfile::tempdir().unwrap();
    let strict = Orchestrator::builder().home(folder.path()).strict(true).build().await.unwrap();
    strict.scope(async { squares(2).await.unwrap() }).await;
    std::fs::remove_file(folder.path().join("orchestrator.db")).unwrap();
    let error = strict.scope(async { squares(2).await.unwrap_err() }).await;
    assert!(error.to_string().contains("it was removed, moved or replaced while this process used it"), "{error}");
}

#[tokio::test]
async fn strict_runs_fail_when_their_history_is_lost() {
    let orchestrator = Orchestrator::builder().strict(true).build_over(Arc::new(Broken));
    let error = orchestrator.scope(async { squares(1).await }).await.unwrap_err();
    assert!(error.is_crashed());
    assert!(error.to_string().contains("its history was not stored: cannot write: another"), "{error}");
    let lenient = Orchestrator::builder().build_over(Arc::new(Broken));
    assert_eq!(lenient.scope(async { squares(2).await }).await.unwrap(), [0, 1]);
}

/// A store that takes nothing.
#[derive(Debug)]
struct Broken;

fn broken<T>() -> Result<T, BackendError> {
    Err(BackendError::new(BackendErrorKind::Unavailable, "write").because("another day"))
}

impl EventStore for Broken {
    fn append(&self, _batch: &[Event]) -> Result<(), BackendError> {
        broken()
    }

    fn take_over(&self, _take_over: &TakeOver) -> Result<bool, BackendError> {
        broken()
    }
}

impl RunHistory for Broken {
    fn flow_run(&self, _id: FlowRunId) -> Result<Option<FlowRun>, BackendError> {
        broken()
    }

    fn flow_runs(&self, _query: &FlowRunQuery, _now: Timestamp) -> Result<Vec<FlowRun>, BackendError> {
        broken()
    }

    fn task_runs(&self, _flow_run: FlowRunId) -> Result<Vec<TaskRun>, BackendError> {
        broken()
    }

    fn task_run(&self, _id: TaskRunId) -> Result<Option<TaskRun>, BackendError> {
        broken()
    }

    fn states(&self, _run: RunId) -> Result<Vec<State>, BackendError> {
        broken()
    }

    fn logs(&self, _run: RunId) -> Result<Vec<LogLine>, BackendError> {
        broken()
    }
}

impl RunSearch for Broken {
    fn runs_called(&self, _text: &str, _at_most: usize) -> Result<Vec<RunId>, BackendError> {
        broken()
    }

    fn find_task_runs(&self, _query: &TaskRunQuery, _now: Timestamp) -> Result<Vec<TaskRun>, BackendError> {
        broken()
    }

    fn count_task_runs(&self, _flow_run: FlowRunId) -> Result<Vec<(StateName, u64)>, BackendError> {
        broken()
    }

    fn active_subflows(&self, _flow_run: FlowRunId) -> Result<Option<(u64, FlowRunId)>, BackendError> {
        broken()
    }

    fn logs_after(&self, _run: RunId, _after: u64, _at_most: usize) -> Result<Vec<(u64, LogLine)>, BackendError> {
        broken()
    }
}

impl CacheIndex for Broken {
    fn cached(&self, _key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        broken()
    }
}

impl CacheCare for Broken {
    fn cache_entries(&self, _query: &CacheQuery) -> Result<Vec<CacheEntry>, BackendError> {
        broken()
    }

    fn remove_cached(&self, _keys: &[CacheKey]) -> Result<u64, BackendError> {
        broken()
    }

    fn clear_cache(&self, _task_key: Option<&str>) -> Result<u64, BackendError> {
        broken()
    }
}

impl ResultIndex for Broken {
    fn result(&self, _root: FlowRunId, _key: &CacheKey) -> Result<Option<CacheHit>, BackendError> {
        broken()
    }
}

impl StateBackend for Broken {
    fn location(&self) -> String {
        "nowhere".to_owned()
    }
}

#[tokio::test]
async fn an_entry_of_another_type_or_damaged_is_a_miss() {
    let folder = tempfile::tempdir().unwrap();
    let before = CALLS.get();
    let run = async || {
        let orchestrator = open(folder.path()).await;
        let result = orchestrator.scope(async { squared(1234).await.unwrap() }).await;
        orchestrator.shutdown().await.unwrap();
        result
    };
    assert_eq!((run().await, run().await), (1_522_756, 1_522_756));
    let calls = CALLS.get() - before;
    let connection = rusqlite::Connection::open(folder.path().join("orchestrator.db")).unwrap();
    for damage in
        ["UPDATE cache SET type_name = 'bool'", "UPDATE cache SET value = x'ff00'", "UPDATE cache SET format = 'x'"]
    {
        assert_eq!(connection.execute(damage, []).unwrap(), 1, "{damage}");
        assert_eq!(run().await, 1_522_756);
    }
    assert_eq!(CALLS.get() - before, calls + 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_of_a_large_fan_out_is_in_the_history() {
    #[task]
    async fn step(n: u32) -> u32 {
        n
    }
    #[flow]
    async fn wide() -> Result<usize, TaskError> {
        Ok(step::map(0..10_000).await?.len())
    }
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    let id = orchestrator
        .scope(async {
            let run = wide();
            let id = run.run_id();
            run.await.unwrap();
            id
        })
        .await;
    // A second connection: what the flow's await returned after is stored.
    let reader = SqliteBackend::open(folder.path().join("orchestrator.db")).unwrap();
    let runs = reader.task_runs(id).unwrap();
    assert_eq!(runs.len(), 10_000);
    assert!(runs.iter().all(|run| run.state.name == "Completed"));
    assert_eq!(reader.states(id.into()).unwrap().last().unwrap().name, "Completed");
}

#[test]
fn child_that_returns_while_runs_go_on() {
    if parents_folder().is_none() {
        return;
    }
    #[task]
    async fn endless() {
        std::future::pending::<()>().await;
    }
    #[flow]
    async fn left() -> Result<(), TaskError> {
        endless().await
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = runtime.block_on(async {
        let run = left();
        while Orchestrator::current().task_runs(run.run_id()).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        run
    });
    drop(runtime);
    println!("left {}", run.run_id());
}

#[tokio::test]
async fn runs_that_a_program_leaves_behind_are_recorded_as_crashed() {
    let folder = tempfile::tempdir().unwrap();
    let output = child("child_that_returns_while_runs_go_on", folder.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let id: FlowRunId = said.split_once("left ").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
    // Read without an orchestrator, which would end what it finds going on.
    let reader = SqliteBackend::open(folder.path().join("orchestrator.db")).unwrap();
    assert_eq!(reader.states(id.into()).unwrap().last().unwrap().name, "Crashed");
    assert_eq!(reader.task_runs(id).unwrap()[0].state.name, "Crashed");
}
