//! Pauses inside a flow: who waits, who goes on, and what the history says of it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use orchestrator::prelude::*;
use orchestrator::{Error, FlowError, FlowRunId, FlowRunQuery, Observed, Observer};

use crate::door::{states, tasks};

const RESUMED: [&str; 5] = ["Pending", "Running", "Paused", "Running", "Completed"];
const CANCELLED: [&str; 5] = ["Pending", "Running", "Paused", "Cancelling", "Cancelled"];

async fn until_state(id: FlowRunId, name: &str) -> FlowRun {
    loop {
        let run = Orchestrator::current().flow_run(id).await;
        if let Ok(run) = run.as_ref()
            && run.state.name == name
        {
            return run.clone();
        }
        tokio::task::yield_now().await;
    }
}

async fn until_paused(id: FlowRunId) -> FlowRun {
    until_state(id, "Paused").await
}

async fn resume(id: FlowRunId) {
    Orchestrator::current().resume_paused(id, ()).await.unwrap();
}

/// Lets everything happen that needs no time.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[task]
async fn quick(n: u32) -> u32 {
    n
}

#[flow]
async fn pauses_once() -> Result<u32, Error> {
    pause_flow_run().message("are the numbers right?").await?;
    Ok(1)
}

#[orchestrator::test(start_paused = true)]
async fn a_flow_waits_until_it_is_resumed() {
    let run = pauses_once();
    let id = run.run_id();
    let paused = until_paused(id).await;
    let pause = paused.pause.unwrap();
    assert_eq!(paused.state.message.as_deref(), Some("are the numbers right?"));
    assert_eq!(pause.message.as_deref(), Some("are the numbers right?"));
    assert!(pause.since <= paused.state.timestamp);
    assert_eq!((pause.until.unwrap() - pause.since).num_seconds(), 3600);
    assert_eq!(pause.input_schema, None);
    resume(id).await;
    let going = Orchestrator::current().flow_run(id).await.unwrap();
    assert_ne!(going.state.name, "Paused");
    assert_eq!(run.await.unwrap(), 1);
    assert_eq!(states(id).await, RESUMED);
    let ended = Orchestrator::current().flow_run(id).await.unwrap();
    assert_eq!((ended.run_count, ended.pause), (1, None));
    let messages: Vec<_> =
        Orchestrator::current().states(id).await.unwrap().into_iter().map(|state| state.message).collect();
    assert_eq!(messages[3].as_deref(), Some("resumed"));
}

#[derive(serde::Deserialize, serde::Serialize, schemars::JsonSchema, Clone, Debug, PartialEq)]
struct Approval {
    approved: bool,
    note: Option<String>,
}

#[flow]
async fn asks() -> Result<Approval, Error> {
    pause_for_input::<Approval>().await
}

#[orchestrator::test(start_paused = true)]
async fn an_input_is_checked_before_anything_goes_on() {
    let orchestrator = Orchestrator::current();
    let run = asks();
    let id = run.run_id();
    let paused = until_paused(id).await;
    assert_eq!(paused.state.message.as_deref(), Some("waits for an input"));
    let schema = paused.pause.clone().unwrap().input_schema.unwrap();
    assert_eq!(schema["properties"]["approved"]["type"], "boolean");
    assert_eq!(schema["required"], serde_json::json!(["approved"]));

    let wrong = orchestrator.resume_paused(id, serde_json::json!({ "approved": "yes" })).await.unwrap_err();
    assert!(wrong.is_invalid_input());
    let name = &paused.name;
    assert_eq!(
        wrong.to_string(),
        format!(
            "flow run '{name}' does not go on with {{\"approved\":\"yes\"}}: invalid type: string \"yes\", expected a \
             boolean; it takes an object with `approved` (boolean), `note` (string, optional)"
        )
    );
    assert!(orchestrator.resume_paused(id, ()).await.unwrap_err().is_invalid_input());
    settle().await;
    assert_eq!(orchestrator.flow_run(id).await.unwrap(), paused);

    let approval = Approval { approved: true, note: Some("fine".to_owned()) };
    orchestrator.resume_paused(id, &approval).await.unwrap();
    assert_eq!(run.await.unwrap(), approval);
    assert_eq!(states(id).await, RESUMED);
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_that_nobody_resumes_is_an_error() {
    #[flow]
    async fn patient() -> Result<(), TaskError> {
        pause_flow_run().timeout(Duration::from_secs(60)).await?;
        Ok(())
    }
    let run = patient();
    let id = run.run_id();
    let started = tokio::time::Instant::now();
    let error = run.await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 60);
    assert!(error.downcast_ref::<TaskError>().is_some_and(TaskError::is_timed_out));
    let name = Orchestrator::current().flow_run(id).await.unwrap().name;
    assert_eq!(error.to_string(), format!("flow run '{name}' failed: flow run '{name}' was not resumed within 60s"));
    assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Running", "Failed"]);
    let messages = Orchestrator::current().states(id).await.unwrap();
    assert_eq!(messages[3].message.as_deref(), Some("the pause was not resumed within 60s"));
}

#[orchestrator::test(start_paused = true)]
async fn the_time_of_a_pause_is_up_even_if_nobody_polls_it() {
    #[flow]
    async fn lets_go_of_its_pause() -> Result<(u32, bool), TaskError> {
        let mut pause = std::pin::pin!(pause_flow_run().timeout(Duration::from_secs(60)));
        assert!(pause.as_mut().now_or_never().is_none());
        // Does not start before the pause is over.
        let n = quick(5).await?;
        Ok((n, pause.await.unwrap_err().is_timed_out()))
    }
    let started = tokio::time::Instant::now();
    let run = lets_go_of_its_pause();
    let id = run.run_id();
    let ended = tokio::time::timeout(Duration::from_secs(3600), run).await;
    assert_eq!(ended.expect("the pause ends by itself").unwrap(), (5, true));
    assert_eq!(started.elapsed().as_secs(), 60);
    assert_eq!(states(id).await, RESUMED);
    let messages = Orchestrator::current().states(id).await.unwrap();
    assert_eq!(messages[3].message.as_deref(), Some("the pause was not resumed within 60s"));
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_can_last_for_ever() {
    #[flow]
    async fn forever() -> Result<(), Error> {
        pause_flow_run().timeout(Duration::MAX).await
    }
    let run = forever();
    let id = run.run_id();
    assert_eq!(until_paused(id).await.pause.unwrap().until, None);
    tokio::time::sleep(Duration::from_secs(1_000_000)).await;
    resume(id).await;
    run.await.unwrap();
}

#[orchestrator::test(start_paused = true)]
async fn an_attempt_that_is_repeated_pauses_again() {
    #[flow(retries = 2)]
    async fn again() -> Result<u32, Error> {
        let context = RunContext::current();
        pause_flow_run().timeout(Duration::from_secs(1)).await?;
        Ok(context.attempt())
    }
    let run = again();
    let id = run.run_id();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    resume(id).await;
    assert_eq!(run.await.unwrap(), 2);
    let expected = ["Pending", "Running", "Paused", "Running", "Retrying", "Paused", "Running", "Completed"];
    assert_eq!(states(id).await, expected);
}

#[orchestrator::test(start_paused = true)]
async fn what_has_started_goes_on_and_nothing_else_starts() {
    #[task]
    async fn long() -> Vec<u32> {
        tokio::time::sleep(Duration::from_secs(10)).await;
        vec![1, 2]
    }
    #[task]
    async fn parent() -> Result<u32, TaskError> {
        tokio::time::sleep(Duration::from_secs(5)).await;
        quick(1).await
    }
    #[task(retries = 1)]
    async fn fails_once() -> Result<(), String> {
        tokio::time::sleep(Duration::from_secs(5)).await;
        if RunContext::current().attempt() == 1 { Err("no".into()) } else { Ok(()) }
    }
    #[task(cache_ttl = "1h")]
    async fn known(n: u32) -> u32 {
        n
    }
    #[flow]
    async fn inner() -> u32 {
        7
    }
    #[flow]
    async fn outer() -> Result<(), Error> {
        known(1).await?;
        let (list, nested, retried) = (long(), parent(), fails_once());
        settle().await;
        let pause = tokio::spawn(pause_flow_run());
        settle().await;
        let (late, cached, computed, sub) = (quick(2), known(1), known(2), inner());
        let mapped = quick::map(&list);
        assert_eq!(cached.await?, 1);
        pause.await.unwrap()?;
        assert_eq!((late.await?, computed.await?, sub.await?, nested.await?), (2, 2, 7, 1));
        assert_eq!(mapped.await?, [1, 2]);
        retried.await?;
        Ok(())
    }
    let run = outer();
    let id = run.run_id();
    tokio::time::sleep(Duration::from_secs(50)).await;
    let meanwhile = [
        "known-0: Completed",
        "long-0: Completed",
        "parent-0: Running",
        "fails_once-0: Completed",
        "quick-0: Pending",
        "known-1: Cached",
        "known-2: Pending",
        "quick-1: Pending",
        "quick-2: Pending",
        "quick-3: Pending",
    ];
    assert_eq!(tasks(id).await, meanwhile);
    let query = FlowRunQuery::new().flow("inner");
    assert_eq!(Orchestrator::current().flow_runs(&query).await.unwrap()[0].state.name, "Pending");
    resume(id).await;
    run.await.unwrap();
    assert_eq!(states(id).await, RESUMED);
    assert!(tasks(id).await.iter().all(|task| task.ends_with("Completed") || task.ends_with("Cached")));
}

#[orchestrator::test(start_paused = true)]
async fn a_run_that_waits_for_a_slot_does_not_start_in_a_pause_and_lets_others_go_first() {
    #[task(concurrency = "one")]
    async fn holds(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    #[flow]
    async fn paused() -> Result<(), Error> {
        let run = holds(1);
        settle().await;
        pause_flow_run().await?;
        run.await?;
        Ok(())
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    let first = holds(5);
    settle().await;
    let run = paused();
    let id = run.run_id();
    until_paused(id).await;
    assert_eq!(tasks(id).await, ["holds-0: AwaitingConcurrencySlot"]);
    first.await.unwrap();
    settle().await;
    assert_eq!(tasks(id).await, ["holds-0: AwaitingConcurrencySlot"]);
    assert_eq!(orchestrator.limits().await.unwrap()[0].taken, 0, "others can have it");
    holds(1).await.unwrap();
    resume(id).await;
    run.await.unwrap();
    let task = orchestrator.task_runs(id).await.unwrap()[0].id;
    assert_eq!(states(task).await, ["Pending", "AwaitingConcurrencySlot", "Running", "Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn what_waits_for_the_end_of_a_pause_can_be_cancelled() {
    #[flow]
    async fn outer() -> Result<(), Error> {
        let pause = tokio::spawn(pause_flow_run());
        settle().await;
        let late = quick(1);
        settle().await;
        late.cancel();
        assert!((&late).await.unwrap_err().is_cancelled());
        assert_eq!(states(late.run_id()).await, ["Pending", "Cancelling", "Cancelled"]);
        pause.await.unwrap()
    }
    let run = outer();
    let id = run.run_id();
    while tasks(id).await != ["quick-0: Cancelled"] {
        tokio::task::yield_now().await;
    }
    resume(id).await;
    run.await.unwrap();
}

#[orchestrator::test(start_paused = true)]
async fn several_pauses_are_resumed_oldest_first_and_all_of_them_have_to_be_over() {
    static ORDER: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    async fn one(n: u32, seconds: u64) -> Result<(), Error> {
        let timeout = Duration::from_secs(seconds);
        let outcome = pause_flow_run().message(format!("number {n}")).timeout(timeout).await;
        ORDER.lock().unwrap().push(n);
        outcome
    }
    #[flow]
    async fn three() -> Result<(), Error> {
        let (first, second, third) = tokio::join!(one(1, 100), one(2, 50), one(3, 100));
        assert!(second.unwrap_err().is_timed_out());
        first.and(third)
    }
    let run = three();
    let id = run.run_id();
    let asked = |run: FlowRun| run.pause.and_then(|pause| pause.message).unwrap_or_default();
    assert_eq!(asked(until_paused(id).await), "number 1");
    resume(id).await;
    assert_eq!(asked(until_paused(id).await), "number 2");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(asked(until_paused(id).await), "number 3");
    assert_eq!(states(id).await, RESUMED[..3]);
    resume(id).await;
    run.await.unwrap();
    assert_eq!(states(id).await, RESUMED);
    assert_eq!(*ORDER.lock().unwrap(), [1, 2, 3]);
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_in_a_subflow_is_its_own() {
    #[flow]
    async fn outer() -> Result<u32, Error> {
        let inner = pauses_once();
        settle().await;
        assert_eq!(inner.state().name, "Paused");
        assert_eq!(quick(1).await?, 1, "the caller is not paused");
        resume(inner.run_id()).await;
        Ok(inner.await?)
    }
    let run = outer();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 1);
    assert_eq!(states(id).await, ["Pending", "Running", "Completed"]);
}

#[orchestrator::test(start_paused = true)]
async fn a_task_pauses_the_flow_that_it_belongs_to_and_its_timeout_counts() {
    #[task(timeout_secs = 10, retries = 1)]
    async fn asks_twice() -> Result<u32, TaskError> {
        pause_flow_run().await?;
        Ok(RunContext::current().attempt())
    }
    #[flow]
    async fn outer() -> Result<u32, TaskError> {
        asks_twice().await
    }
    let run = outer();
    let id = run.run_id();
    until_paused(id).await;
    assert_eq!(tasks(id).await, ["asks_twice-0: Running"]);
    tokio::time::sleep(Duration::from_secs(11)).await;
    resume(id).await;
    assert_eq!(run.await.unwrap(), 2);
    let expected = ["Pending", "Running", "Paused", "Running", "Paused", "Running", "Completed"];
    assert_eq!(states(id).await, expected);
    let history = Orchestrator::current().states(id).await.unwrap();
    assert_eq!(history[3].message.as_deref(), Some("the pause was dropped"));
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_that_is_dropped_is_over() {
    #[flow]
    async fn impatient() -> Result<(), Error> {
        tokio::select! {
            outcome = pause_flow_run() => outcome,
            () = tokio::time::sleep(Duration::from_secs(1)) => Ok(()),
        }?;
        let late = tokio::time::timeout(Duration::from_secs(1), pause_flow_run()).await;
        assert!(late.is_err());
        quick(1).await?;
        Ok(())
    }
    let run = impatient();
    let id = run.run_id();
    run.await.unwrap();
    let expected = ["Pending", "Running", "Paused", "Running", "Paused", "Running", "Completed"];
    assert_eq!(states(id).await, expected);
}

#[orchestrator::test(start_paused = true)]
async fn a_paused_flow_can_be_cancelled() {
    #[task]
    async fn asks_inside() -> Result<(), Error> {
        pause_flow_run().await
    }
    #[flow]
    async fn by_its_task() -> Result<(), Error> {
        let late = asks_inside();
        settle().await;
        let waits = quick(1);
        late.await?;
        waits.await?;
        Ok(())
    }
    let orchestrator = Orchestrator::current();
    let (one, two) = (pauses_once(), by_its_task());
    for run in [one.run_id(), two.run_id()] {
        until_paused(run).await;
    }
    settle().await;
    orchestrator.cancel(one.run_id()).await.unwrap();
    orchestrator.shutdown().await.unwrap();
    for run in [one.run_id(), two.run_id()] {
        assert_eq!(states(run).await, CANCELLED);
    }
    assert!(one.await.unwrap_err().is_cancelled());
    assert_eq!(tasks(two.run_id()).await, ["asks_inside-0: Cancelled", "quick-0: Cancelled"]);
}

#[orchestrator::test(start_paused = true)]
async fn cancelling_the_task_that_paused_lets_the_flow_go_on() {
    #[task]
    async fn asks_inside() -> Result<(), Error> {
        pause_flow_run().await
    }
    #[flow]
    async fn goes_on() -> Result<u32, Error> {
        let asking = asks_inside();
        settle().await;
        asking.cancel();
        Ok(quick(3).await?)
    }
    let run = goes_on();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 3);
    assert_eq!(states(id).await, RESUMED);
}

#[orchestrator::test(start_paused = true)]
async fn the_timeout_of_the_flow_counts_while_it_is_paused() {
    #[flow(timeout_secs = 5)]
    async fn limited() -> Result<(), Error> {
        pause_flow_run().await
    }
    let run = limited();
    let id = run.run_id();
    assert!(run.await.unwrap_err().is_timed_out());
    assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Running", "TimedOut"]);
}

#[orchestrator::test(start_paused = true)]
async fn there_is_nothing_to_pause_outside_of_a_flow() {
    #[task]
    async fn alone() -> Result<(), Error> {
        pause_flow_run().await
    }
    let error = pause_flow_run().await.unwrap_err();
    assert!(error.is_not_paused());
    assert_eq!(error.to_string(), "there is nothing to pause: the code is not part of a flow run");
    let error = alone().await.unwrap_err();
    assert!(error.to_string().ends_with("task run 'alone-0' is not part of a flow run"), "{error}");
}

#[orchestrator::test(start_paused = true)]
async fn what_cannot_be_resumed_is_told_apart() {
    let orchestrator = Orchestrator::current();
    let unknown = FlowRunId::new(orchestrator::Timestamp::from_micros(1));
    assert!(orchestrator.resume_paused(unknown, ()).await.unwrap_err().is_not_found());

    let task = quick(1);
    let error = orchestrator.resume_paused(&task, ()).await.unwrap_err();
    assert!(error.is_not_paused() && error.to_string().contains("is a task run"), "{error}");
    task.await.unwrap();

    #[flow]
    async fn busy() {
        std::future::pending::<()>().await;
    }
    let run = busy();
    let name = until_state(run.run_id(), "Running").await.name;
    let error = orchestrator.resume_paused(run.run_id(), ()).await.unwrap_err();
    assert!(error.is_not_paused());
    assert_eq!(error.to_string(), format!("flow run '{name}' is not paused: it is Running"));
    run.cancel();
    run.wait().await;
    let error = orchestrator.resume_paused(run.run_id(), ()).await.unwrap_err();
    assert!(error.is_not_paused());
    assert_eq!(error.to_string(), format!("flow run '{name}' is not paused: it has ended as Cancelled"));

    let run = pauses_once();
    let name = until_paused(run.run_id()).await.name;
    let error = orchestrator.resume_paused(run.run_id(), 3).await.unwrap_err();
    assert!(error.is_invalid_input());
    assert_eq!(error.to_string(), format!("flow run '{name}' takes no input to go on, and was given 3"));
    orchestrator.resume_paused(run.run_id(), serde_json::Value::Null).await.unwrap();
    run.await.unwrap();

    #[derive(schemars::JsonSchema)]
    struct Panics;
    impl<'de> serde::Deserialize<'de> for Panics {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("no input will do")
        }
    }
    #[flow]
    async fn picky() -> Result<(), Error> {
        pause_for_input::<Panics>().await.map(drop)
    }
    let run = picky();
    until_paused(run.run_id()).await;
    let error = orchestrator.resume_paused(run.run_id(), 1).await.unwrap_err();
    assert!(error.is_invalid_input() && error.to_string().contains("panicked: no input will do"), "{error}");
    assert_eq!(run.state().name, "Paused");
    run.cancel();
}

#[orchestrator::test(start_paused = true)]
async fn what_an_attempt_leaves_behind_pauses_nothing() {
    static LATE: Mutex<Vec<Error>> = Mutex::new(Vec::new());
    #[flow(retries = 1)]
    async fn forgetful() -> Result<(), String> {
        if RunContext::current().attempt() == 2 {
            return Ok(());
        }
        let left = async {
            for _ in 0..2 {
                let error = pause_flow_run().await.unwrap_err();
                LATE.lock().unwrap().push(error);
            }
        };
        tokio::spawn(left.in_current_run());
        settle().await;
        Err("the first attempt".to_owned())
    }
    let run = forgetful();
    let id = run.run_id();
    run.await.unwrap();
    settle().await;
    assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Running", "Retrying", "Completed"]);
    let late = LATE.lock().unwrap();
    assert!(late.iter().all(Error::is_not_paused));
    assert!(late[0].to_string().ends_with("is not paused any more: the attempt that paused it is over"), "{}", late[0]);
    assert!(late[1].to_string().contains("cannot be paused"), "{}", late[1]);
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_body_can_pause_and_is_told_of_its_cancellation() {
    #[flow]
    fn sync_flow() -> Result<(), Error> {
        futures::executor::block_on(pause_flow_run())
    }
    let (resumed, cancelled) = (sync_flow(), sync_flow());
    for run in [resumed.run_id(), cancelled.run_id()] {
        until_paused(run).await;
    }
    resume(resumed.run_id()).await;
    (&resumed).await.unwrap();
    assert_eq!(states(resumed.run_id()).await, RESUMED);
    cancelled.cancel();
    // Its thread comes back at once: otherwise this would take the whole grace.
    assert!((&cancelled).await.unwrap_err().is_cancelled());
    assert_eq!(states(cancelled.run_id()).await, CANCELLED);
}

#[orchestrator::test(start_paused = true)]
async fn a_pause_is_resumed_or_times_out_but_not_both() {
    #[flow]
    async fn limited() -> Result<bool, Error> {
        match pause_flow_run().timeout(Duration::from_secs(10)).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_timed_out() => Ok(false),
            Err(error) => Err(error),
        }
    }
    let orchestrator = Orchestrator::current();
    let mut seen = [0, 0];
    for round in 0..40 {
        let run = limited();
        let id = run.run_id();
        until_paused(id).await;
        // Both timers fire at the same moment; who was there first differs.
        let late = Duration::from_secs(10) - Duration::from_millis(round % 3);
        tokio::time::sleep(late).await;
        let accepted = orchestrator.resume_paused(id, ()).await;
        assert!(accepted.as_ref().err().is_none_or(Error::is_not_paused));
        assert_eq!(run.await.unwrap(), accepted.is_ok());
        assert_eq!(states(id).await, RESUMED);
        seen[usize::from(accepted.is_ok())] += 1;
    }
    assert!(seen[1] > 0, "{seen:?}");
}

#[test]
fn a_pause_is_resumed_from_another_runtime() {
    let orchestrator = Orchestrator::in_memory();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let resumer = std::thread::spawn({
        let orchestrator = orchestrator.clone();
        move || {
            let id: FlowRunId = receive.recv().unwrap();
            runtime().block_on(async {
                while let Err(error) = orchestrator.resume_paused(id, ()).await {
                    assert!(error.is_not_paused() || error.is_not_found(), "{error}");
                }
            });
        }
    });
    runtime().block_on(orchestrator.scope(async {
        let run = pauses_once();
        send.send(run.run_id()).unwrap();
        assert_eq!((&run).await.unwrap(), 1);
        assert_eq!(states(run.run_id()).await, RESUMED);
    }));
    resumer.join().unwrap();
}

/// Notes the states of flow runs as they are shown.
#[derive(Debug, Default)]
struct Watcher(Mutex<Vec<(orchestrator::RunId, String)>>);

impl Observer for Watcher {
    fn on_transition(&self, event: &Observed<'_>) {
        self.0.lock().unwrap().push((event.run.id, event.transition.name.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn many_pauses_from_many_threads_are_all_over_in_the_end() {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    #[task(retries = 1, timeout_secs = 60)]
    async fn asks_a_little(n: u32) -> Result<u32, Error> {
        STARTED.fetch_add(1, Ordering::SeqCst);
        for round in 0..4 {
            match (n + round) % 4 {
                0 => pause_flow_run().await?,
                1 => drop(pause_flow_run().timeout(Duration::from_micros(50)).await),
                2 => drop(pause_flow_run().now_or_never()),
                _ => tokio::task::yield_now().await,
            }
        }
        quick(n).await.map_err(Error::from)
    }
    #[flow]
    async fn crowd(n: u32) -> Result<u32, Error> {
        let all = asks_a_little::map(0..n);
        let own = pause_flow_run();
        let (all, own) = tokio::join!(all, own);
        own?;
        Ok(all?.into_iter().sum())
    }
    let watcher = Arc::new(Watcher::default());
    let orchestrator = Orchestrator::builder().database_url("memory").observer(watcher.clone()).build().await.unwrap();
    orchestrator
        .scope(async {
            for _ in 0..10 {
                let run = crowd(40);
                let id = run.run_id();
                let resumers: Vec<_> = (0..2)
                    .map(|_| {
                        let (orchestrator, run) = (orchestrator.clone(), run.clone());
                        tokio::spawn(async move {
                            while !run.state().is_terminal() {
                                let resumed = orchestrator.resume_paused(id, ()).await;
                                assert!(
                                    resumed.err().is_none_or(|error| error.is_not_paused() || error.is_not_found())
                                );
                                tokio::task::yield_now().await;
                            }
                        })
                    })
                    .collect();
                assert_eq!(run.await.unwrap(), (0..40).sum::<u32>());
                for resumer in resumers {
                    resumer.await.unwrap();
                }
                let history = states(id).await;
                assert_eq!(history.last().unwrap(), "Completed");
                let shown = watcher.0.lock().unwrap();
                let shown = shown.iter().filter(|(run, _)| *run == id.into());
                // The first state is not shown.
                assert!(shown.map(|(_, name)| name).eq(&history[1..]), "{history:?}");
            }
        })
        .await;
    assert_eq!(STARTED.load(Ordering::SeqCst), 400);
}

#[orchestrator::test(start_paused = true)]
async fn errors_of_runs_pass_through_as_they_were() {
    #[task]
    async fn fails() -> Result<(), String> {
        Err("no luck".to_owned())
    }
    #[flow]
    async fn passes_on() -> Result<(), FlowError> {
        let inner: Result<(), Error> = fails().await.map_err(Error::from);
        Ok(inner?)
    }
    let error = passes_on().await.unwrap_err();
    assert_eq!(error.first_cause().run_name(), "fails-0");
}

/// The program of the test below, run in a process of its own.
#[tokio::test]
async fn child_asks() {
    if std::env::var_os("PAUSE_TEST").is_none() {
        return;
    }
    let first = pauses_once();
    until_paused(first.run_id()).await;
    resume(first.run_id()).await;
    first.await.unwrap();
    let second = asks();
    until_paused(second.run_id()).await;
    println!("\nready");
    let _ = second.await;
}

#[cfg(unix)]
#[tokio::test]
async fn another_process_sees_what_is_asked_and_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let open = || async { Orchestrator::builder().home(folder.path()).build().await.unwrap() };
    let child = || -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "pause::child_asks", "--nocapture", "--test-threads=1"]);
        command.env("PAUSE_TEST", "1").env("ORCHESTRATOR_HOME", folder.path());
        command.env_remove("RUST_LOG").env_remove("ORCHESTRATOR_LOG");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
        lines.find(|line| line == "ready").unwrap();
        child
    };
    let query = FlowRunQuery::new().flow("asks");
    for (signal, end) in [("TERM", "Cancelled"), ("KILL", "Crashed")] {
        let process = child();
        let pid = process.id();
        let orchestrator = open().await;
        let run = orchestrator.flow_runs(&query.clone().state(StateType::Paused)).await.unwrap().remove(0);
        let schema = run.pause.unwrap().input_schema.unwrap();
        assert_eq!(schema["properties"]["approved"]["type"], "boolean");
        let error = orchestrator.resume_paused(run.id, ()).await.unwrap_err();
        assert!(error.is_invalid_input(), "{error}");
        assert!(Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap().success());
        let said = String::from_utf8(process.wait_with_output().unwrap().stderr).unwrap();
        let asked =
            format!("- Paused: waits for an input; `resume_paused` lets flow run {} go on within 1h 00m", run.id);
        for line in ["WARN ", "- Paused: are the numbers right?; `", "INFO ", "- Goes on: resumed", &asked] {
            assert!(said.contains(line), "{line}: {said}");
        }
        let ended = open().await.flow_run(run.id).await.unwrap();
        assert_eq!((&*ended.state.name, ended.pause), (end, None));
    }
}

#[orchestrator::test(start_paused = true)]
async fn a_cancellation_that_comes_too_late_does_not_keep_the_flow_paused() {
    struct CancelsItsFlow(FlowRunId);
    impl Drop for CancelsItsFlow {
        fn drop(&mut self) {
            Orchestrator::current().cancel(self.0).now_or_never().unwrap().unwrap();
        }
    }
    #[task]
    async fn asks_inside() -> Result<(), Error> {
        pause_flow_run().await
    }
    #[flow(timeout_secs = 5)]
    async fn limited() -> Result<(), TaskError> {
        let _cancels = CancelsItsFlow(RunContext::current().flow_run_id().unwrap());
        asks_inside().await
    }
    let run = limited();
    let id = run.run_id();
    assert!(run.await.unwrap_err().is_timed_out());
    assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Running", "TimedOut"]);
}

#[test]
fn a_runtime_that_is_shut_down_ends_a_paused_flow_as_crashed() {
    let orchestrator = Orchestrator::in_memory();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let run = first.block_on(orchestrator.scope(async {
        let run = pauses_once();
        until_paused(run.run_id()).await;
        run
    }));
    drop(first);
    runtime().block_on(orchestrator.scope(async {
        let id = run.run_id();
        // The body is dropped first, and the pause with it.
        assert_eq!(states(id).await, ["Pending", "Running", "Paused", "Running", "Crashed"]);
        let error = Orchestrator::current().resume_paused(id, ()).await.unwrap_err();
        assert!(error.is_not_paused() && error.to_string().ends_with("it has ended as Crashed"), "{error}");
        assert!(run.await.unwrap_err().is_crashed());
    }));
}

#[orchestrator::test(start_paused = true)]
async fn a_cancellation_that_comes_after_the_result_leaves_the_flow_completed() {
    #[flow]
    async fn cancels_itself() -> Result<u32, Error> {
        let pause = pause_flow_run();
        tokio::pin!(pause);
        assert!(pause.as_mut().now_or_never().is_none());
        let id = RunContext::current().flow_run_id().unwrap();
        Orchestrator::current().cancel(id).now_or_never().unwrap()?;
        Ok(1)
    }
    let run = cancels_itself();
    let id = run.run_id();
    assert_eq!(run.await.unwrap(), 1);
    assert_eq!(states(id).await, RESUMED);
}

#[orchestrator::test(start_paused = true)]
async fn what_a_task_leaves_behind_pauses_nothing_while_it_waits_for_its_retry() {
    static LATE: Mutex<Vec<Error>> = Mutex::new(Vec::new());
    #[task(retries = 1, retry_delay_secs = 60)]
    async fn forgets() -> Result<(), String> {
        if RunContext::current().attempt() == 2 {
            return Ok(());
        }
        let left = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let error = pause_flow_run().await.unwrap_err();
            LATE.lock().unwrap().push(error);
        };
        tokio::spawn(left.in_current_run());
        Err("the first attempt".to_owned())
    }
    #[flow]
    async fn waits_for_it() -> Result<(), TaskError> {
        forgets().await
    }
    let run = waits_for_it();
    let id = run.run_id();
    run.await.unwrap();
    assert_eq!(states(id).await, ["Pending", "Running", "Completed"]);
    let said = LATE.lock().unwrap()[0].to_string();
    assert!(said.ends_with("attempt 1 of 'forgets-0', which asks for it, is over"), "{said}");
}
