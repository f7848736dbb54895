//! `resume`: a flow run that did not complete goes on under the same id.

use std::future::IntoFuture;
use std::path::Path;
use std::sync::Mutex;

use orchestrator::prelude::*;
use orchestrator::{CacheReason, FlowRunId, FlowRunQuery, TransactionError};
use tokio::sync::Notify;

use crate::door::{Calls, states, tasks};

async fn open(folder: &Path) -> Orchestrator {
    Orchestrator::builder().home(folder).build().await.unwrap()
}

static FETCHED: Calls = Calls::new();
static LOADED: Calls = Calls::new();

#[task(persist)]
async fn fetch_once(n: u32) -> u32 {
    FETCHED.one();
    n * 10
}

/// Fails until it is called the second time.
#[task]
async fn load_at_last(sum: u32) -> Result<u32, String> {
    if LOADED.one() == 1 { Err("no route".into()) } else { Ok(sum) }
}

#[flow(run_name = "sum-of-{upto}")]
async fn sum_up(upto: u32) -> Result<u32, TaskError> {
    let all = fetch_once::map(0..upto).await?;
    load_at_last(all.iter().sum::<u32>()).await
}

#[orchestrator::test(start_paused = true)]
async fn a_failed_run_goes_on_with_what_it_has() {
    let orchestrator = Orchestrator::current();
    let run = sum_up(3);
    (&run).await.unwrap_err();
    let before = orchestrator.flow_run(run.run_id()).await.unwrap();
    let resumed = orchestrator.resume(run.run_id()).await.unwrap();
    assert_eq!((FETCHED.get(), LOADED.get()), (3, 2));
    assert_eq!(states(&run).await, ["Pending", "Running", "Failed", "Running", "Completed"]);
    let history = orchestrator.states(run.run_id()).await.unwrap();
    assert_eq!(history[3].message.as_deref(), Some("resumed after it had ended as Failed"));
    let after = orchestrator.flow_run(run.run_id()).await.unwrap();
    assert_eq!(resumed, after);
    assert_eq!((&after.name, after.run_count), (&before.name, 2));
    assert_eq!((after.created, after.start_time), (before.created, before.start_time));
    assert!(after.end_time > before.end_time);
    assert_eq!(after.parameters, before.parameters);
    assert_eq!(
        tasks(run.run_id()).await,
        [
            "fetch_once-0: Completed",
            "fetch_once-1: Completed",
            "fetch_once-2: Completed",
            "load_at_last-0: Failed",
            "fetch_once-0: Cached",
            "fetch_once-1: Cached",
            "fetch_once-2: Cached",
            "load_at_last-0: Completed"
        ]
    );
    let runs = orchestrator.task_runs(run.run_id()).await.unwrap();
    assert_eq!(runs[4].cache.as_ref().unwrap().reason, CacheReason::Persisted { run: runs[0].id });
    assert_eq!(orchestrator.flow_runs(&FlowRunQuery::new()).await.unwrap().len(), 1);
}

/// Three orchestrators over one file, one after the other.
#[tokio::test]
async fn a_run_of_an_earlier_program_goes_on() {
    static PARTS: Calls = Calls::new();
    static FAILS: Calls = Calls::new();
    #[task]
    async fn part_of_many(n: u32) -> Result<u32, String> {
        if n == 3 && FAILS.one() < 3 {
            return Err("the disk is full".into());
        }
        PARTS.one();
        Ok(n)
    }
    #[flow(persist)]
    async fn over_a_file(name: String) -> Result<String, TaskError> {
        let mut parts = Vec::new();
        for n in 0..5 {
            parts.push(part_of_many(n).await?);
        }
        Ok(format!("{name}{}", parts.len()))
    }
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    let id = orchestrator
        .scope(async {
            let run = over_a_file("x");
            (&run).await.unwrap_err();
            run.run_id()
        })
        .await;
    orchestrator.shutdown().await.unwrap();

    let orchestrator = open(folder.path()).await;
    let error = orchestrator.resume(id).await.unwrap_err();
    assert!(error.as_flow().is_some_and(|error| error.first_cause().task_name() == "part_of_many"), "{error}");
    assert!(!error.is_not_resumable());
    orchestrator.shutdown().await.unwrap();

    let orchestrator = open(folder.path()).await;
    let started = orchestrator.resume(id).start().await.unwrap();
    assert_eq!(started.run_id(), id);
    assert_eq!(started.wait().await.name, "Completed");
    assert_eq!(started.result(), Some(serde_json::json!("x5")));
    assert_eq!(PARTS.get(), 5, "none of them ran twice");
    let run = orchestrator.flow_run(id).await.unwrap();
    assert_eq!((run.run_count, run.state.name.as_str()), (3, "Completed"));
    let states: Vec<_> = orchestrator.states(id).await.unwrap().into_iter().map(|state| state.name).collect();
    assert_eq!(states, ["Pending", "Running", "Failed", "Running", "Failed", "Running", "Completed"]);
    let again = orchestrator.resume(id).await.unwrap_err();
    assert!(again.is_not_resumable());
    assert_eq!(again.to_string(), format!("flow run '{}' has completed: there is nothing to resume", run.name));
    orchestrator.shutdown().await.unwrap();
}

static MEASURED: Calls = Calls::new();
static GATES: [Calls; 2] = [Calls::new(), Calls::new()];
/// What the flow runs saw, attempt after attempt.
static SEEN: Mutex<Vec<(usize, Vec<usize>)>> = Mutex::new(Vec::new());

/// Gives another number whenever its body runs.
#[task]
async fn measured_once(n: u32) -> usize {
    let _ = n;
    MEASURED.one()
}

/// Fails the first and the third time.
#[task(persist = false)]
async fn gate_of(root: usize) -> Result<(), String> {
    if GATES[root].one() % 2 == 1 { Err("it is closed".into()) } else { Ok(()) }
}

#[flow]
async fn equal_calls() -> Result<Vec<usize>, TaskError> {
    let mut all = Vec::new();
    for n in [7, 8, 7, 7] {
        all.push(measured_once(n).await?);
    }
    Ok(all)
}

#[flow(persist)]
async fn nested_and_equal(root: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut all = Vec::new();
    for step in 0..3 {
        all.extend(equal_calls().await?);
        SEEN.lock().unwrap().push((root, all.clone()));
        if step < 2 && GATES[root].get() < 3 + step {
            gate_of(root).await?;
        }
    }
    Ok(())
}

/// Two roots in one file, whose results are stored in turns, each of which goes on twice: equal calls in subflows, which
/// have other ids each time, find the results of the same calls.
#[tokio::test]
async fn equal_calls_in_subflows_of_several_roots_find_their_own_results() {
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    let ids = orchestrator
        .scope(async {
            let runs = [nested_and_equal(0), nested_and_equal(1)];
            for run in &runs {
                run.await.unwrap_err();
            }
            runs.map(|run| run.run_id())
        })
        .await;
    orchestrator.shutdown().await.unwrap();
    for round in 0..2 {
        let orchestrator = open(folder.path()).await;
        let ended = futures::future::join_all(ids.map(|id| orchestrator.resume(id).into_future())).await;
        assert!(ended.iter().all(|run| run.is_ok() == (round == 1)), "{ended:?}");
        assert_eq!(orchestrator.check_store().await.unwrap(), []);
        orchestrator.shutdown().await.unwrap();
    }
    assert_eq!(MEASURED.get(), 2 * 3 * 4, "no body ran twice");
    let seen = std::mem::take(&mut *SEEN.lock().unwrap());
    for root in 0..2 {
        let last = seen.iter().rfind(|(of, _)| *of == root).unwrap().1.clone();
        assert_eq!(last.len(), 12);
        let mut different = last.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), 12, "each call has a result of its own");
        for (_, earlier) in seen.iter().filter(|(of, _)| *of == root) {
            assert_eq!(last[..earlier.len()], earlier[..], "every attempt sees the same");
        }
    }
}

static ENDLESS: Notify = Notify::const_new();

#[task]
async fn endless_until_resumed() {
    if RESUMED.get() == 0 {
        ENDLESS.notify_one();
        std::future::pending::<()>().await;
    }
}

static RESUMED: Calls = Calls::new();

#[flow]
async fn cancelled_at_first() -> Result<u32, TaskError> {
    let attempt = RunContext::current().attempt();
    endless_until_resumed().await?;
    Ok(attempt)
}

#[orchestrator::test]
async fn a_cancelled_run_goes_on_and_counts_its_attempts() {
    let orchestrator = Orchestrator::current();
    let run = cancelled_at_first();
    ENDLESS.notified().await;
    let error = orchestrator.resume(&run).await.unwrap_err();
    assert!(error.is_not_resumable());
    let name = orchestrator.flow_run(run.run_id()).await.unwrap().name;
    assert_eq!(
        error.to_string(),
        format!("flow run '{name}' cannot be resumed: it is active in this process, as Running")
    );
    orchestrator.cancel(run.run_id()).await.unwrap();
    RESUMED.one();
    let resumed = orchestrator.resume(&run).start().await.unwrap();
    (&resumed).await.unwrap();
    assert_eq!(resumed.result(), Some(serde_json::json!(2)), "the second time that the body was started");
    assert_eq!(states(&run).await, ["Pending", "Running", "Cancelling", "Cancelled", "Running", "Completed"]);
}

#[orchestrator::test]
async fn the_retries_are_there_again() {
    static FAILS: Calls = Calls::new();
    #[flow(retries = 1)]
    async fn fails_thrice() -> Result<u32, String> {
        if FAILS.one() < 4 { Err(format!("no {}", FAILS.get())) } else { Ok(RunContext::current().attempt()) }
    }
    let orchestrator = Orchestrator::current();
    let run = fails_thrice();
    (&run).await.unwrap_err();
    let resumed = orchestrator.resume(&run).start().await.unwrap();
    resumed.wait().await;
    assert_eq!(resumed.result(), Some(serde_json::json!(4)));
    assert_eq!(states(&run).await, ["Pending", "Running", "Retrying", "Failed", "Running", "Retrying", "Completed"]);
    let history = orchestrator.states(&run).await.unwrap();
    assert_eq!(history[5].message.as_deref(), Some("attempt 1 of 2 failed: no 3"));
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_who_resume_wins() {
    for folder in [None, Some(tempfile::tempdir().unwrap())] {
        let open = async || match &folder {
            None => Orchestrator::current(),
            Some(folder) => open(folder.path()).await,
        };
        let first = open().await;
        let id = first
            .scope(async {
                let run = fails_at_first();
                (&run).await.unwrap_err();
                run.run_id()
            })
            .await;
        let all: Vec<_> = [open().await, open().await, open().await, first].into_iter().collect();
        let resumers: Vec<_> = (0..12).map(|n| tokio::spawn(all[n % 4].resume(id).into_future())).collect();
        let mut won = 0;
        for resumer in resumers {
            match resumer.await.unwrap() {
                Ok(run) => {
                    won += 1;
                    assert_eq!(run.run_count, 2);
                }
                Err(error) => assert!(error.is_not_resumable(), "{error}"),
            }
        }
        assert_eq!(won, 1);
        assert_eq!(all[0].states(id).await.unwrap().len(), 5);
        for orchestrator in all.iter().filter(|_| folder.is_some()) {
            orchestrator.shutdown().await.unwrap();
        }
    }
}

#[flow]
async fn fails_at_first() -> Result<(), String> {
    if RunContext::current().attempt() == 1 { Err("once".into()) } else { Ok(()) }
}

#[orchestrator::test]
async fn what_is_part_of_another_run_is_resumed_with_that() {
    #[flow]
    async fn a_part_that_fails(n: u32) -> Result<(), String> {
        Err(format!("no {n}"))
    }
    #[flow]
    async fn with_a_part() -> Result<(), orchestrator::FlowError> {
        a_part_that_fails(1).await
    }
    #[task]
    async fn task_with_a_part() -> Result<(), orchestrator::FlowError> {
        a_part_that_fails(2).await
    }
    let orchestrator = Orchestrator::current();
    let whole = with_a_part();
    let part = whole.clone().await.unwrap_err().first_cause().run_id().unwrap();
    let said = orchestrator.resume(part).await.unwrap_err().to_string();
    let name = orchestrator.flow_run(whole.run_id()).await.unwrap().name;
    assert!(
        said.ends_with(&format!("is part of flow run '{name}': resume that one, {}, instead", whole.run_id())),
        "{said}"
    );
    let task = task_with_a_part();
    let part = (&task).await.unwrap_err().first_cause().run_id().unwrap();
    let said = orchestrator.resume(part).await.unwrap_err().to_string();
    assert!(said.ends_with("it is part of task run 'task_with_a_part-0', which belongs to no flow run"), "{said}");
    let said = orchestrator.resume(task.run_id()).await.unwrap_err().to_string();
    assert!(said.contains("is a task run: what is resumed is the flow run that it belongs to"), "{said}");
}

#[orchestrator::test]
async fn what_cannot_be_resumed_says_what_to_do() {
    #[flow]
    async fn with_a_client(#[param(skip)] client: String, n: u32) -> Result<(), String> {
        Err(format!("{client} {n}"))
    }
    #[flow]
    async fn generic_over<T: Clone + Send + Sync + serde::Serialize + serde::de::DeserializeOwned + 'static>(
        it: T,
    ) -> Result<T, String> {
        let _ = it;
        Err("no".into())
    }
    #[task]
    async fn fails() -> Result<u32, String> {
        Err("no".into())
    }
    #[flow]
    async fn never_began(n: u32) -> u32 {
        n
    }
    let orchestrator = Orchestrator::current();
    let refused = async |id: FlowRunId| {
        let error = orchestrator.resume(id).await.unwrap_err();
        assert!(error.is_not_resumable(), "{error}");
        let name = orchestrator.flow_run(id).await.unwrap().name;
        (error.is_unknown_flow(), error.to_string().replace(&name, "NAME"))
    };
    let client = with_a_client("c", 1_u32);
    client.wait().await;
    let (is_unknown, said) = refused(client.run_id()).await;
    assert!(!is_unknown, "{said}");
    assert!(said.starts_with("flow run 'NAME' cannot be resumed: flow 'with_a_client' can only be called in the program: its parameter `client` (String)"), "{said}");
    assert!(said.ends_with("; call it again with the same parameters instead"), "{said}");
    let generic = generic_over(1_u8);
    generic.wait().await;
    let (is_unknown, said) = refused(generic.run_id()).await;
    assert!(is_unknown, "{said}");
    assert!(said.starts_with("flow run 'NAME' cannot be resumed: there is no flow 'it::resume::generic_over' in this program: it was renamed or moved, it has type parameters"), "{said}");
    let begun = never_began(fails());
    begun.wait().await;
    let (_, said) = refused(begun.run_id()).await;
    assert_eq!(
        said,
        "flow run 'NAME' cannot be resumed: it never began, so that its parameters are not on record; call the flow again"
    );
    let unknown = orchestrator.resume("01890000-0000-7000-8000-000000000000".parse::<FlowRunId>().unwrap()).await;
    assert!(unknown.unwrap_err().is_not_found());
}

#[orchestrator::test]
async fn a_pause_without_input_is_ended_and_one_with_input_is_not() {
    static ASKED: Notify = Notify::const_new();
    #[flow]
    async fn asks_twice() -> Result<bool, orchestrator::Error> {
        ASKED.notify_one();
        pause_flow_run().await?;
        ASKED.notify_one();
        pause_for_input::<bool>().await
    }
    let orchestrator = Orchestrator::current();
    let run = asks_twice();
    let paused = async || {
        ASKED.notified().await;
        while run.state().name != "Paused" {
            tokio::task::yield_now().await;
        }
    };
    paused().await;
    let resumed = orchestrator.resume(&run).start().await.unwrap();
    paused().await;
    let error = orchestrator.resume(&run).await.unwrap_err();
    assert!(error.is_invalid_input(), "{error}");
    orchestrator.resume_paused(&run, true).await.unwrap();
    (&resumed).await.unwrap();
    assert_eq!(resumed.result(), Some(serde_json::json!(true)));
    assert_eq!(states(&run).await, ["Pending", "Running", "Paused", "Running", "Paused", "Running", "Completed"]);
}

#[tokio::test]
async fn a_run_that_is_active_elsewhere_stays_there() {
    static BEGUN: Notify = Notify::const_new();
    static LET_GO: Notify = Notify::const_new();
    #[flow]
    async fn busy_elsewhere() {
        BEGUN.notify_one();
        LET_GO.notified().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (open(folder.path()).await, open(folder.path()).await);
    let run = there.scope(async { busy_elsewhere() }).await;
    BEGUN.notified().await;
    // Whatever is asked of it, it has told its history before.
    let name = there.flow_run(run.run_id()).await.unwrap().name;
    let error = here.resume(&run).await.unwrap_err();
    assert!(error.is_not_resumable());
    let pid = std::process::id();
    assert!(
        error
            .to_string()
            .starts_with(&format!("flow run '{name}' cannot be resumed: it is Running in process {pid} on ")),
        "{error}"
    );
    LET_GO.notify_one();
    run.await.unwrap();
    here.shutdown().await.unwrap();
    there.shutdown().await.unwrap();
}

#[orchestrator::test(start_paused = true)]
async fn equal_calls_subflows_maps_and_tasks_in_tasks_find_their_own() {
    static BODIES: Calls = Calls::new();
    static FAILS: Calls = Calls::new();
    #[task]
    async fn numbered_call(n: u32) -> (u32, usize) {
        (n, BODIES.one())
    }
    #[task(persist = false)]
    async fn calls_a_task(n: u32) -> Result<(u32, usize), TaskError> {
        numbered_call(n).await
    }
    #[flow]
    async fn part_with_calls(n: u32) -> Result<Vec<(u32, usize)>, TaskError> {
        Ok(vec![numbered_call(n).await?, numbered_call(n).await?])
    }
    #[flow(persist)]
    async fn all_shapes() -> Result<Vec<(u32, usize)>, Box<dyn std::error::Error + Send + Sync>> {
        let mut seen = Vec::new();
        let equal = [numbered_call(1), numbered_call(1), numbered_call(2)];
        for call in orchestrator::join_all(equal).await? {
            seen.push(call);
        }
        seen.extend(numbered_call::map(vec![5, 6, 5]).await?);
        seen.extend(part_with_calls(7).await?);
        seen.extend(part_with_calls(7).await?);
        seen.push(calls_a_task(8).await?);
        if FAILS.get() > 0 {
            // A call that there was not before, and one that there is no more.
            seen.push(numbered_call(9).await?);
        } else {
            numbered_call(10).await?;
        }
        if FAILS.one() < 2 {
            return Err("not yet".into());
        }
        Ok(seen)
    }
    let orchestrator = Orchestrator::current();
    let run = all_shapes();
    (&run).await.unwrap_err();
    assert_eq!(BODIES.get(), 12);
    let resumed = orchestrator.resume(&run).start().await.unwrap();
    resumed.wait().await;
    assert_eq!(
        resumed.result().unwrap(),
        serde_json::json!([
            [1, 1],
            [1, 2],
            [2, 3],
            [5, 4],
            [6, 5],
            [5, 6],
            [7, 7],
            [7, 8],
            [7, 9],
            [7, 10],
            [8, 11],
            [9, 13]
        ])
    );
    assert_eq!(BODIES.get(), 13);
}

#[orchestrator::test]
async fn staged_work_is_void() {
    static PAID: Calls = Calls::new();
    static STAGED: Notify = Notify::const_new();
    #[task(persist)]
    async fn pay_once() -> usize {
        PAID.one()
    }
    #[flow]
    async fn pays_in_a_transaction() -> Result<usize, TransactionError> {
        transaction(async {
            let paid = pay_once().await.map_err(|_| ()).unwrap_or_default();
            if paid == 1 {
                STAGED.notify_one();
                std::future::pending::<()>().await;
            }
            Ok(paid)
        })
        .await
    }
    let orchestrator = Orchestrator::current();
    let run = pays_in_a_transaction();
    STAGED.notified().await;
    orchestrator.cancel(&run).await.unwrap();
    let resumed = orchestrator.resume(&run).start().await.unwrap();
    resumed.wait().await;
    assert_eq!(resumed.result(), Some(serde_json::json!(2)));
    assert_eq!(tasks(run.run_id()).await, ["pay_once-0: RolledBack", "pay_once-0: Completed"]);
}

#[orchestrator::test]
async fn a_resumed_run_is_told_to_observers_and_hooks() {
    static HOOKS: Calls = Calls::new();
    fn on_running(run: &FlowRun, state: &State) {
        HOOKS.one();
        assert_eq!((run.run_count as usize, state.name.as_str()), (HOOKS.get(), "Running"));
    }
    #[flow(on_running = on_running)]
    async fn observed_flow() -> Result<(), String> {
        if RunContext::current().attempt() == 1 { Err("once".into()) } else { Ok(()) }
    }
    let orchestrator = Orchestrator::current();
    let run = observed_flow();
    run.wait().await;
    orchestrator.resume(&run).await.unwrap();
    assert_eq!(HOOKS.get(), 2);
    orchestrator::testing::EventLog::current().assert_eq(
        "
        observed_flow-0: Pending
        observed_flow-0: Running
        observed_flow-0: Failed (once)
        observed_flow-0: Running (resumed after it had ended as Failed)
        observed_flow-0: Completed
        ",
    );
}
