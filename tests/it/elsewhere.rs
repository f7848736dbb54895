//! Runs of other orchestrators over the same file: in this process, and in others.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchestrator::prelude::*;
use orchestrator::{Error, FlowRunId, Why};
use serde_json::json;

use crate::door::{soon, until, until_explained};
use crate::shared_limits::open;

#[derive(Debug, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Approval {
    approved: bool,
}

#[task]
async fn forever() {
    std::future::pending::<()>().await;
}

#[flow]
async fn endless() -> Result<(), TaskError> {
    forever().await
}

#[flow]
async fn asks() -> Result<bool, Error> {
    Ok(pause_for_input::<Approval>().message("release it?").await?.approved)
}

#[flow]
async fn quick() {}

/// An orchestrator over a file, and one that only looks at it.
async fn looked_at(folder: &Path) -> (Orchestrator, Orchestrator) {
    let one = open(folder).await;
    (one, Orchestrator::builder().home(folder).look_only(true).build().await.unwrap())
}

async fn until_in(orchestrator: &Orchestrator, run: FlowRunId, state: &str) {
    until(async || orchestrator.flow_run(run).await.is_ok_and(|run| run.state.name == state)).await;
}

/// The requests that are in the file.
fn requests(folder: &Path) -> u32 {
    let file = rusqlite::Connection::open(folder.join("orchestrator.db")).unwrap();
    file.query_row("SELECT count(*) FROM request", [], |row| row.get(0)).unwrap()
}

#[task(concurrency = "press")]
async fn presses() {
    std::future::pending::<()>().await;
}

#[task]
async fn takes_in_its_body() {
    let _slot = concurrency("press", 1).await.unwrap();
}

#[task]
async fn follows(_: ()) {}

#[task(retries = 1, retry_delay_secs = 5400.25)]
async fn fails() -> Result<(), String> {
    Err("the line is busy; the next starts in 3s".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_another_orchestrator_tries_again_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (one, looker) = looked_at(folder.path()).await;
    let run = one.scope(async { fails() }).await;
    let waits = until_explained(&looker, run.run_id(), |why| matches!(why, Why::RetryAt { .. })).await;
    let Why::RetryAt { at, attempt: 2 } = waits.why else { panic!("{waits:?}") };
    assert_eq!(run.state().scheduled_time, Some(at), "what the store tells is what the run knows");
    let delay = at - waits.state.timestamp;
    assert!((delay - chrono::TimeDelta::milliseconds(5_400_250)).abs() < chrono::TimeDelta::milliseconds(1), "{delay}");
    let said = waits.to_string();
    assert!(
        said.starts_with("task run 'fails-0' waits until ") && said.contains(" before attempt 2; it belongs to "),
        "{said}"
    );
    one.cancel(run.run_id()).await.unwrap();
}

/// A clock that may be put forward.
#[derive(Debug, Clone, Default)]
struct PutForward(Arc<AtomicBool>);

impl orchestrator::Clock for PutForward {
    fn now(&self) -> orchestrator::Timestamp {
        let hours = if self.0.load(Ordering::SeqCst) { 2 } else { 0 };
        orchestrator::SystemClock.now().after(Duration::from_secs(hours * 3600))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_that_has_passed_is_not_told_as_the_next_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let clock = PutForward::default();
    let builder = || Orchestrator::builder().home(folder.path()).clock(clock.clone());
    let one = builder().build().await.unwrap();
    let looker = builder().look_only(true).build().await.unwrap();
    let run = one.scope(async { fails() }).await;
    until_explained(&looker, run.run_id(), |why| matches!(why, Why::RetryAt { .. })).await;
    let own = one.explain(run.run_id()).await.unwrap();
    assert!(matches!(own.why, Why::RetryAt { .. }), "{own}");
    clock.0.store(true, Ordering::SeqCst);
    let [own, other] = [&one, &looker].map(|orchestrator| orchestrator.explain(run.run_id()));
    let (own, other) = (own.await.unwrap(), other.await.unwrap());
    assert_eq!(own.to_string(), "task run 'fails-0' waits for nothing, and begins in a moment");
    assert_eq!(other.why, Why::Elsewhere, "{other}");
    let said = other.to_string();
    assert!(
        said.contains("the next starts in 1h 30m); what it waits for inside its process is not: possible are"),
        "{said}"
    );
    one.cancel(run.run_id()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_cannot_tell_is_named_as_possible() {
    #[task(cache_ttl = "1h")]
    async fn computes() -> u32 {
        std::future::pending().await
    }
    let folder = tempfile::tempdir().unwrap();
    let (one, looker) = looked_at(folder.path()).await;
    let first = one.scope(async { computes() }).await;
    until_explained(&one, first.run_id(), |why| matches!(why, Why::Running { .. })).await;
    let second = one.scope(async { computes() }).await;
    until_explained(
        &one,
        second.run_id(),
        |why| matches!(why, Why::SameKey(run) if run.run_id == first.run_id().into()),
    )
    .await;
    let said = until_explained(&looker, second.run_id(), |why| *why == Why::Elsewhere).await.to_string();
    let expected = "task run 'computes-1' is Pending as far as is recorded; what it waits for inside its process is not: \
                    possible are another run that computes the same cached result, a thread of the blocking pool, and a \
                    store that lags behind; it belongs to another orchestrator of this process";
    assert!(said.starts_with(expected), "{said}");
    one.cancel(first.run_id()).await.unwrap();
    one.cancel(second.run_id()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_of_another_orchestrator_waits_for_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (one, looker) = looked_at(folder.path()).await;
    let other = open(folder.path()).await;
    one.limit("press", 1).await.unwrap();
    let holder = other.scope(async { presses::configure().run_name("the-holder").submit() }).await;
    until_explained(&looker, holder.run_id(), |why| matches!(why, Why::Running { slots, .. } if slots.is_empty()))
        .await;
    let first = one.scope(async { presses() }).await;
    let (first_id, last) = (first.run_id(), one.scope(async { follows(&first) }).await);
    let first = first_id;
    let slots = until_explained(&looker, first, |why| matches!(why, Why::Slots(_))).await;
    let Why::Slots(limits) = &slots.why else { unreachable!() };
    let [limit] = &limits[..] else { panic!("one limit is waited for: {slots:?}") };
    assert_eq!((&*limit.limit, limit.wanted, limit.slots, limit.taken, limit.ahead), ("press", 1, 1, 1, 0));
    assert_eq!(limit.holders[0].name.as_deref(), Some("the-holder"));
    assert_eq!(limit.holders[0].process.as_ref().map(|process| process.pid), Some(std::process::id()));
    let said = slots.to_string();
    let expected = "task run 'presses-0' waits for a slot of limit 'press' (1 of 1 taken), held by 'the-holder' of \
        another orchestrator of this process since ";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("; it belongs to another orchestrator of this process, last heard of at "), "{said}");

    let second = other.scope(async { takes_in_its_body() }).await;
    let body = until_explained(
        &looker,
        second.run_id(),
        |why| matches!(why, Why::Running { slots, .. } if slots.iter().any(|limit| limit.ahead == 1)),
    );
    let said = body.await.to_string();
    assert!(
        said.contains("; its body waits for a slot of limit 'press' (1 of 1 taken, 1 request ahead of it)"),
        "{said}"
    );
    // Its orchestrator keeps it back until there is room in the queue of the store, and has noted what it waits for.
    let third = one.scope(async { presses() }).await;
    until_in_state(&looker, third.run_id(), "AwaitingConcurrencySlot").await;
    let mut kept_back = vec![third];
    for _ in 0..2 {
        kept_back.push(one.scope(async { presses() }).await);
        until_in_state(&looker, kept_back.last().unwrap().run_id(), "AwaitingConcurrencySlot").await;
    }
    let explained = looker.explain(kept_back[2].run_id()).await.unwrap();
    let Why::Slots(limits) = &explained.why else { panic!("it waits for slots: {explained:?}") };
    let [limit] = &limits[..] else { panic!("one limit is waited for: {explained:?}") };
    assert_eq!((&*limit.limit, limit.wanted, limit.taken, limit.is_about), ("press", 1, 1, true));
    assert_eq!(limit.ahead, 3, "as far as the states tell: those of the same orchestrator");
    assert_eq!(limit.holders[0].name.as_deref(), Some("the-holder"));
    let said = explained.to_string();
    let expected =
        "waits for a slot of limit 'press' (1 of 1 taken, about 3 requests ahead of it), held by 'the-holder'";
    assert!(said.contains(expected), "{said}");
    let upstream = until_explained(&looker, last.run_id(), |why| matches!(why, Why::Upstream(_))).await.to_string();
    assert!(upstream.starts_with("task run 'follows-0' waits for 'presses-0', which is "), "{upstream}");
    for orchestrator in [one, other] {
        soon(orchestrator.shutdown()).await.unwrap();
    }
}

async fn until_in_state(orchestrator: &Orchestrator, run: orchestrator::TaskRunId, state: &str) {
    until(async || orchestrator.task_run(run).await.is_ok_and(|run| run.state.name == state)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_another_orchestrator_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let run = one.scope(async { endless() }).await;
    until_in(&other, run.run_id(), "Running").await;
    soon(other.cancel(run.run_id())).await.unwrap();
    assert_eq!(other.flow_run(run.run_id()).await.unwrap().state.name, "Cancelled");
    assert_eq!(other.task_runs(run.run_id()).await.unwrap()[0].state.name, "Cancelled");
    assert!(soon(run).await.unwrap_err().is_cancelled());
    assert_eq!(requests(folder.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_only_looks_may_cancel_a_task_run() {
    let folder = tempfile::tempdir().unwrap();
    let (one, looks) = looked_at(folder.path()).await;
    let run = one.scope(async { forever() }).await;
    soon(async {
        while looks.task_run(run.run_id()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(looks.cancel(run.run_id())).await.unwrap();
    assert_eq!(looks.task_run(run.run_id()).await.unwrap().state.name, "Cancelled");
    assert!(soon(run).await.unwrap_err().is_cancelled());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_active_cannot_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let run = one.scope(async { quick::configure().run_name("short-one").submit() }).await;
    let id = run.run_id();
    soon(run).await.unwrap();
    for orchestrator in [&one, &other] {
        let error = soon(orchestrator.cancel(id)).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert_eq!(error.to_string(), "flow run 'short-one' is not active: it has ended as Completed");
    }
    let unknown: FlowRunId = "01890000-0000-7000-8000-000000000000".parse().unwrap();
    let error = soon(other.cancel(unknown)).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("there is no flow run"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_ask_for_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let run = one.scope(async { endless() }).await;
    until_in(&other, run.run_id(), "Running").await;
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let (other, id) = (other.clone(), run.run_id());
            tokio::spawn(async move { other.cancel(id).await })
        })
        .collect();
    let mut done = 0;
    for asked in asking {
        match soon(asked).await.unwrap() {
            Ok(()) => done += 1,
            // It was over before this one could ask.
            Err(error) => assert!(error.to_string().ends_with("it has ended as Cancelled"), "{error}"),
        }
    }
    assert!(done > 0);
    assert_eq!(requests(folder.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_another_orchestrator_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let run = one.scope(async { asks() }).await;
    let id = run.run_id();
    until_in(&other, id, "Paused").await;
    let error = soon(other.resume_paused(id, json!({ "approved": "perhaps" }))).await.unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
    assert!(error.to_string().contains("does not go on with {\"approved\":\"perhaps\"}: invalid type"), "{error}");
    let error = soon(other.resume(id).start()).await.unwrap_err();
    assert!(
        error.is_not_resumable()
            && error.to_string().contains("`resume_paused`, or `runs resume` at the command line, lets it on"),
        "{error}"
    );
    soon(other.resume_paused(id, Approval { approved: true })).await.unwrap();
    assert!(soon(run).await.unwrap());
    let error = soon(other.resume_paused(id, ())).await.unwrap_err();
    assert!(error.is_not_paused() && error.to_string().contains("it has ended as Completed"), "{error}");

    let run = one.scope(async { endless() }).await;
    until_in(&other, run.run_id(), "Running").await;
    let error = soon(other.resume_paused(run.run_id(), ())).await.unwrap_err();
    assert!(error.is_not_paused() && error.to_string().contains("is not paused: it is Running"), "{error}");
    assert_eq!(requests(folder.path()), 0);
    soon(one.shutdown()).await.unwrap();
}

/// A request may meet with one pause, with the next, or with none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pause_is_ended_by_one_request_however_they_meet() {
    #[flow]
    async fn asks_again() -> Result<usize, Error> {
        for _ in 0..PAUSES {
            pause_flow_run().await?;
        }
        Ok(PAUSES)
    }
    const PAUSES: usize = 6;
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let run = one.scope(async { asks_again() }).await;
    let id = run.run_id();
    until_in(&other, id, "Paused").await;
    let asking = (0..3).map(|_| {
        let other = other.clone();
        tokio::spawn(async move {
            let mut accepted = 0;
            loop {
                match other.resume_paused(id, ()).await {
                    Ok(()) => accepted += 1,
                    Err(error) if error.to_string().contains("has ended as Completed") => return accepted,
                    Err(error) => assert!(error.is_not_paused(), "{error}"),
                }
            }
        })
    });
    let accepted: Vec<usize> = soon(futures::future::try_join_all(asking)).await.unwrap();
    assert_eq!(accepted.iter().sum::<usize>(), soon(run).await.unwrap(), "{accepted:?}");
    assert_eq!(requests(folder.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_gone_with_their_owner_and_their_run() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let run = one.scope(async { quick() }).await;
    let id = run.run_id();
    soon(run).await.unwrap();
    let file = rusqlite::Connection::open(folder.path().join("orchestrator.db")).unwrap();
    // As if somebody had been killed while it waited for an answer.
    let insert = "INSERT INTO request (owner, run, is_flow, wanted, created, taken, answer)
        SELECT process, ?1, 1, '\"Cancel\"', unixepoch() * 1000000, 1, '\"Done\"' FROM flow_run WHERE id = ?1";
    file.execute(insert, [id.as_uuid().into_bytes()]).unwrap();
    other.remove_runs([id]).await.unwrap();
    assert_eq!(requests(folder.path()), 0);
    let run = one.scope(async { quick() }).await;
    let id = run.run_id();
    soon(run).await.unwrap();
    file.execute(&insert.replace("'\"Done\"'", "NULL"), [id.as_uuid().into_bytes()]).unwrap();
    one.shutdown().await.unwrap();
    assert_eq!(requests(folder.path()), 0);
    assert_eq!(other.check_store().await.unwrap(), []);
}

/// The program of the tests below, run in a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_runs() {
    if std::env::var_os("ELSEWHERE_TEST").is_none() {
        return;
    }
    let (endless, asks) = (endless(), asks());
    until_in(&Orchestrator::current(), endless.run_id(), "Running").await;
    until_in(&Orchestrator::current(), asks.run_id(), "Paused").await;
    println!("\nready {} {}", endless.run_id(), asks.run_id());
    println!("\napproved: {:?}", asks.await.map_err(|error| error.to_string()));
    println!("\ncancelled: {:?}", endless.await.map_err(|error| error.is_cancelled()));
}

fn child(folder: &Path) -> (Child, FlowRunId, FlowRunId) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "elsewhere::child_runs", "--nocapture", "--test-threads=1"]);
    command.env("ELSEWHERE_TEST", "1").env("ORCHESTRATOR_HOME", folder).env_remove("ORCHESTRATOR_LOG");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
    let ready = lines.find_map(|line| line.strip_prefix("ready ").map(str::to_owned)).unwrap();
    let (endless, asks) = ready.split_once(' ').unwrap();
    (child, endless.parse().unwrap(), asks.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_another_process_are_cancelled_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (child, endless, asks) = child(folder.path());
    let orchestrator = open(folder.path()).await;
    soon(orchestrator.resume_paused(asks, Approval { approved: true })).await.unwrap();
    soon(orchestrator.cancel(endless)).await.unwrap();
    assert_eq!(orchestrator.flow_run(endless).await.unwrap().state.name, "Cancelled");
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains("\napproved: Ok(true)\n") && said.contains("\ncancelled: Err(true)\n"), "{said}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_over_a_request_has_not_done_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, endless, asks) = child(folder.path());
    let signal = |name: &str| {
        let kill = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    };
    let orchestrator = open(folder.path()).await;
    signal("STOP");
    let cancelled = tokio::spawn({
        let orchestrator = orchestrator.clone();
        async move { orchestrator.cancel(endless).await }
    });
    let resumed = tokio::spawn({
        let orchestrator = orchestrator.clone();
        async move { orchestrator.resume_paused(asks, Approval { approved: true }).await }
    });
    soon(async {
        while requests(folder.path()) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    signal("KILL");
    child.wait().unwrap();
    let error = soon(cancelled).await.unwrap().unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().contains("is not active: it has ended as Crashed: its process "), "{error}");
    let error = soon(resumed).await.unwrap().unwrap_err();
    assert!(error.is_not_paused() && error.to_string().contains("it has ended as Crashed"), "{error}");
    assert_eq!(requests(folder.path()), 0);
}
