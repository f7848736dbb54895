//! What becomes of runs whose process was killed: their hooks are called once, and flow runs go on by themselves.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use orchestrator::backend::StateBackend;
use orchestrator::backend::sqlite::SqliteBackend;
use orchestrator::prelude::*;
use orchestrator::{FlowRunId, FlowRunQuery};

use crate::door::{Calls, Notes, soon};
use crate::process::{Process, command, is_child, is_set};

/// In processes that have it set, runs go on until they are killed.
const HOLD: &str = "CRASHES_TEST_HOLD";
/// The flow that the child process calls.
const CALL: &str = "CRASHES_TEST_CALL";

async fn open(folder: &Path) -> Orchestrator {
    Orchestrator::builder().home(folder).build().await.unwrap()
}

/// One that leaves everything as it is.
async fn open_to_look(folder: &Path) -> Orchestrator {
    Orchestrator::builder().home(folder).resume_crashed(false).build().await.unwrap()
}

pub(crate) fn child(folder: &Path, call: Option<&str>, hold: bool) -> std::process::Command {
    let mut command = command("crashes::child_crashes", folder);
    if let Some(call) = call {
        command.env(CALL, call);
    }
    if hold {
        command.env(HOLD, "1");
    }
    command
}

/// A process that was killed while it ran that flow; gives the run.
pub(crate) fn killed(folder: &Path, flow: &str) -> FlowRunId {
    let mut process = Process::start(&mut child(folder, Some(flow), true));
    let id = process.says("holding ").parse().unwrap();
    process.kill();
    id
}

async fn states(orchestrator: &Orchestrator, id: FlowRunId) -> Vec<String> {
    orchestrator.states(id).await.unwrap().into_iter().map(|state| state.name).collect()
}

#[task]
async fn stepped(n: u32) -> u32 {
    println!("step {n}");
    n
}

/// What comes before it is stored when it says so.
#[task]
async fn holds() {
    if is_set(HOLD) {
        let flow = RunContext::current().flow_run_id().unwrap();
        Orchestrator::current().flow_run(flow).await.unwrap();
        println!("holding {flow}");
        std::future::pending::<()>().await;
    }
}

async fn steps(upto: u32) -> Result<u32, TaskError> {
    let sum = stepped::map(0..upto).await?.into_iter().sum();
    holds().await?;
    Ok(sum)
}

#[flow(persist, on_crash = "resume", run_name = "steps-to-{upto}")]
pub(crate) async fn goes_on(upto: u32) -> Result<u32, TaskError> {
    steps(upto).await
}

#[flow(persist, on_crash = "resume", crash_budget = 1)]
async fn goes_on_once(upto: u32) -> Result<u32, TaskError> {
    steps(upto).await
}

static ADVANCED: Calls = Calls::new();

#[task]
async fn advance(n: u32) -> u32 {
    ADVANCED.one();
    n
}

/// Each process that holds gets one step further.
#[flow(persist, on_crash = "resume", crash_budget = 1)]
async fn advances(upto: u32) -> Result<u32, TaskError> {
    let mut sum = 0;
    for n in 0..upto {
        sum += advance(n).await?;
        if ADVANCED.get() > 0 {
            holds().await?;
        }
    }
    Ok(sum)
}

#[flow(on_crash = "resume", crash_budget = 1)]
async fn waits_for_words() -> Result<u32, TaskError> {
    holds().await?;
    std::future::pending().await
}

#[flow(on_crashed = note_flow)]
async fn is_told() -> Result<(), TaskError> {
    told_too().await
}

#[task(on_crashed = [note_task, note_task_later])]
async fn told_too() -> Result<(), TaskError> {
    holds().await
}

static NOTES: Notes = Notes::new();

fn note_flow(run: &FlowRun, state: &State) {
    NOTES.add(format!("{} {} {}", run.flow_name, run.state.name, state.message.as_deref().unwrap_or_default()));
}

fn note_task(run: &TaskRun, state: &State) {
    NOTES.add(format!("{} {}", run.name, state.name));
}

async fn note_task_later(run: &TaskRun, _: &State) {
    tokio::task::yield_now().await;
    NOTES.add(format!("{} later", run.name));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_crashes() {
    if !is_child() {
        return;
    }
    // The orchestrator of a program that makes none.
    let orchestrator = Orchestrator::current();
    println!("built");
    let flow = std::env::var(CALL).unwrap_or_default();
    let run = match &*flow {
        "goes_on" => goes_on(4),
        "goes_on_once" => goes_on_once(4),
        "advances" => advances(5),
        "waits_for_words" => waits_for_words(),
        "is_told" => return is_told().await.unwrap(),
        _ => return std::future::pending().await,
    };
    println!("run {}", run.run_id());
    println!("result {}", run.await.unwrap());
    orchestrator.shutdown().await.unwrap();
}

const WENT_ON: [&str; 5] = ["Pending", "Running", "Crashed", "Running", "Completed"];

#[tokio::test]
async fn the_same_call_in_the_next_process_goes_on_with_the_crashed_run() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on");
    let said = Process::start(&mut child(folder.path(), Some("goes_on"), false)).rest();
    assert!(said.iter().any(|line| line.ends_with(&format!("run {id}"))), "{said:?}");
    assert!(said.iter().any(|line| line.ends_with("result 6")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("step ")), "what was kept is not computed again: {said:?}");
    let orchestrator = open_to_look(folder.path()).await;
    assert_eq!(states(&orchestrator, id).await, WENT_ON);
    assert_eq!(orchestrator.flow_runs(&FlowRunQuery::new()).await.unwrap().len(), 1);
    // There is nothing more to go on with.
    let said = Process::start(&mut child(folder.path(), Some("goes_on"), false)).rest();
    assert!(!said.iter().any(|line| line.ends_with(&format!("run {id}"))), "{said:?}");
    assert_eq!(orchestrator.flow_runs(&FlowRunQuery::new()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_crashed_run_goes_on_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on");
    let looker = Orchestrator::builder().home(folder.path()).look_only(true).build().await.unwrap();
    let said = looker.explain(id).await.unwrap().to_string();
    let budget = "; it goes on by itself when its program is started, unless its flow was renamed or takes other parameters since: 0 of 3 times in a row are used";
    assert!(said.ends_with(budget), "{said}");
    drop(looker);
    let orchestrator = open(folder.path()).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while orchestrator.flow_run(id).await.unwrap().state.name != "Completed" {
        assert!(Instant::now() < deadline, "it completes");
        tokio::task::yield_now().await;
    }
    assert_eq!(states(&orchestrator, id).await, WENT_ON);
    let history = orchestrator.states(id).await.unwrap();
    assert_eq!(history[3].message.as_deref(), Some("resumed after it had ended as Crashed, by itself: 1 of 3 times"));

    // The call of a program that took a moment for something else, and one with other parameters.
    let (same, other, again) = orchestrator.scope(async { (goes_on(4), goes_on(5), goes_on(4)) }).await;
    assert_eq!(same.run_id(), id);
    assert_eq!((soon(same).await.unwrap(), soon(&other).await.unwrap()), (6, 10));
    assert!(other.run_id() != id && again.run_id() != id, "it answers one call");
    assert_eq!(soon(again).await.unwrap(), 6);
    soon(orchestrator.shutdown()).await.unwrap();
}

/// The thread that asked first what time it is.
#[derive(Debug, Default, Clone)]
struct AskedBy(Arc<OnceLock<ThreadId>>);

impl orchestrator::Clock for AskedBy {
    fn now(&self) -> orchestrator::Timestamp {
        self.0.get_or_init(|| thread::current().id());
        orchestrator::SystemClock.now()
    }
}

#[tokio::test]
async fn what_goes_on_is_looked_for_where_nobody_is_held_up() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on");
    let asked = AskedBy::default();
    let orchestrator = Orchestrator::builder().home(folder.path()).clock(asked.clone()).build().await.unwrap();
    assert_ne!(*asked.0.get().unwrap(), thread::current().id());
    assert_eq!(soon(orchestrator.resume(id)).await.unwrap().run_count, 2);
}

#[tokio::test]
async fn who_resumes_a_run_that_goes_on_by_itself_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on");
    let orchestrator = open(folder.path()).await;
    assert_eq!(soon(orchestrator.resume(id)).await.unwrap().run_count, 2);
    assert_eq!(states(&orchestrator, id).await, WENT_ON);
    assert!(soon(orchestrator.resume(id)).await.unwrap_err().is_not_resumable());
}

#[tokio::test]
async fn a_run_that_gets_further_each_time_does_not_crash_too_often() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "advances");
    for _ in 0..3 {
        let mut next = Process::start(&mut child(folder.path(), None, true));
        assert_eq!(next.says("holding "), id.to_string());
        next.kill();
    }
    let said = Process::start(&mut child(folder.path(), Some("advances"), false)).rest();
    assert!(said.iter().any(|line| line.ends_with(&format!("run {id}"))), "{said:?}");
    assert!(said.iter().any(|line| line.ends_with("result 10")), "{said:?}");
}

#[tokio::test]
async fn a_run_that_crashes_again_and_again_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on");
    for times in 1..=2 {
        let log = folder.path().join(format!("stderr-{times}"));
        let mut next = child(folder.path(), None, true);
        let mut next = Process::start(next.stderr(std::fs::File::create(&log).unwrap()));
        assert_eq!(next.says("holding "), id.to_string());
        next.kill();
        let said = std::fs::read_to_string(log).unwrap();
        let told = said.contains("crashed 2 times in a row") && said.contains("`ORCHESTRATOR_RESUME_CRASHED=false`");
        assert_eq!(told, times == 2, "{said}");
    }
}

#[tokio::test]
async fn a_run_that_crashes_too_often_is_left_until_somebody_resumes_it() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on_once");
    let mut second = Process::start(&mut child(folder.path(), None, true));
    assert_eq!(second.says("holding "), id.to_string());
    second.kill();
    let looker = Orchestrator::builder().home(folder.path()).look_only(true).build().await.unwrap();
    let explained = looker.explain(id).await.unwrap();
    assert!(explained.on_crash.unwrap().is_exhausted(), "{explained:?}");
    let budget = "; it does not go on by itself any more: its crash_budget of 1 time in a row is used up";
    assert!(explained.to_string().ends_with(budget), "{explained}");
    let third =
        child(folder.path(), Some("goes_on_once"), false).stderr(std::process::Stdio::piped()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&third.stdout), String::from_utf8_lossy(&third.stderr));
    assert!(said.contains("has crashed 2 times in a row, which is more than its crash_budget of 1"), "{said}");
    assert!(said.contains(&format!("the command `resume {id}`")), "{said}");
    assert!(
        said.contains("result 6") && !said.contains(&format!("run {id}")),
        "the call made a run of its own: {said}"
    );

    let orchestrator = open(folder.path()).await;
    assert_eq!(states(&orchestrator, id).await, ["Pending", "Running", "Crashed", "Running", "Crashed"]);
    let run = soon(orchestrator.resume(id)).await.unwrap();
    assert_eq!((run.run_count, run.state.name.as_str()), (3, "Completed"));
    soon(orchestrator.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_program_that_ends_in_order_leaves_what_it_was_not_asked_for_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "waits_for_words");
    for times in 1..5 {
        let orchestrator = open(folder.path()).await;
        soon(orchestrator.shutdown()).await.unwrap();
        let history = open_to_look(folder.path()).await.states(id).await.unwrap();
        assert_eq!(history.iter().filter(|state| state.name == "Crashed").count(), times + 1);
        let last = history.last().unwrap();
        assert!(
            last.is_terminal() && last.message.as_deref().unwrap().ends_with("it goes on another time"),
            "{last:?}"
        );
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_signal_leaves_what_the_program_was_not_asked_for_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "waits_for_words");
    let orchestrator = open_to_look(folder.path()).await;
    for (times, signal) in ["-INT", "-TERM"].into_iter().enumerate() {
        let mut next = Process::start(&mut child(folder.path(), None, true));
        assert_eq!(next.says("holding "), id.to_string());
        next.signal(signal);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !orchestrator.flow_run(id).await.unwrap().state.is_terminal() {
            assert!(Instant::now() < deadline, "it ends");
            tokio::task::yield_now().await;
        }
        let history = orchestrator.states(id).await.unwrap();
        let crashed = history.iter().filter(|state| state.name == "Crashed").count();
        let last = history.last().unwrap();
        assert_eq!((last.name.as_str(), crashed), ("Crashed", times + 2));
        assert!(last.message.as_deref().unwrap().ends_with("it goes on another time"), "{last:?}");
        next.kill();
    }
}

#[tokio::test]
async fn crashed_runs_can_be_left_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on");
    let orchestrator = open_to_look(folder.path()).await;
    assert_eq!(states(&orchestrator, id).await, ["Pending", "Running", "Crashed"]);
    let own = orchestrator.scope(async { goes_on(4) }).await;
    assert_ne!(own.run_id(), id);
    soon(own).await.unwrap();
    assert_eq!(soon(orchestrator.resume(id)).await.unwrap().run_count, 2);
}

#[tokio::test]
async fn of_several_processes_one_goes_on_with_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on");
    let mut processes: Vec<Process> = (0..3).map(|_| Process::start(&mut child(folder.path(), None, true))).collect();
    for process in &mut processes {
        process.says("built");
    }
    let orchestrator = open_to_look(folder.path()).await;
    assert_eq!(states(&orchestrator, id).await, ["Pending", "Running", "Crashed", "Running"]);
    assert_eq!(orchestrator.flow_run(id).await.unwrap().run_count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_of_a_killed_process_are_called_once() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path(), "is_told");
    // Somebody who does not see to it marks the runs as crashed.
    drop(open_to_look(folder.path()).await);
    let (one, other) = tokio::join!(open(folder.path()), open(folder.path()));
    let store = SqliteBackend::open(folder.path().join("orchestrator.db")).unwrap();
    let mut notes = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while notes.len() < 3 || !store.shared().unwrap().uncalled().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "all hooks are called: {notes:?}");
        notes.extend(NOTES.take());
        tokio::task::yield_now().await;
    }
    soon(one.shutdown()).await.unwrap();
    soon(other.shutdown()).await.unwrap();
    soon(open(folder.path()).await.shutdown()).await.unwrap();
    notes.extend(NOTES.take());
    notes.sort_unstable();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[0].starts_with("is_told Crashed its process ") && notes[0].ends_with(" went away"), "{notes:?}");
    assert_eq!(notes[1..], ["told_too-0 Crashed", "told_too-0 later"]);
}

#[flow]
async fn quick() {}

/// Says of the only process that has not ended that it is on another machine, and until when its lease is.
fn move_away(folder: &Path, lease_until: i64) {
    let by_hand = rusqlite::Connection::open(folder.join("orchestrator.db")).unwrap();
    let update = "UPDATE process SET host = 'elsewhere', heard = ?1 - 30000000, lease_until = ?1
        WHERE no = (SELECT min(no) FROM process WHERE ended IS NULL)";
    assert_eq!(by_hand.execute(update, [lease_until]).unwrap(), 1);
}

#[tokio::test]
async fn whoever_resumes_a_run_of_a_process_that_is_not_heard_of_waits_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let id = killed(folder.path(), "goes_on");
    let now = || chrono::Utc::now().timestamp_micros();
    move_away(folder.path(), now() - 60_000_000);
    let orchestrator = open(folder.path()).await;
    let looks = orchestrator.whereabouts(id).await.unwrap().unwrap();
    assert!(looks.lease_over.is_some_and(|over| looks.known_at.is_some_and(|known| known > over)), "{looks:?}");
    let resuming = tokio::spawn(orchestrator.resume(id).start());
    for _ in 0..10 {
        assert_eq!(orchestrator.flow_run(id).await.unwrap().state.name, "Running");
    }
    assert!(!resuming.is_finished());
    move_away(folder.path(), now() + 3_600_000_000);
    let refused = soon(resuming).await.unwrap().unwrap_err();
    assert!(refused.is_not_resumable(), "{refused}");
    let said = refused.to_string();
    assert!(said.contains(" on elsewhere, last heard of at "), "{said}");
    assert!(said.ends_with("; if that is gone, it can be resumed when its lease is over"), "{said}");
    let looks = orchestrator.whereabouts(id).await.unwrap().unwrap();
    assert_eq!((looks.lease_over, looks.known_at), (None, None));
    let ended = orchestrator.scope(async { quick() }).await;
    ended.wait().await;
    let other = open_to_look(folder.path()).await;
    assert_eq!(other.whereabouts(ended.run_id()).await.unwrap(), None, "it has ended");
    assert!(other.whereabouts(id).await.unwrap().is_some_and(|of| of.host == "elsewhere"));
    soon(other.shutdown()).await.unwrap();
    soon(orchestrator.shutdown()).await.unwrap();
}
