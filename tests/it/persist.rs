//! `persist`: a flow that is retried does not run again what it has results of.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use orchestrator::prelude::*;
use orchestrator::{CacheReason, FlowRunId, TransactionError};

use crate::door::{Calls, last_message, states, tasks};

/// Fails in the flow's first attempt.
fn stumble(calls: &Calls) -> Result<(), String> {
    if calls.one() == 1 { Err("stumbled".into()) } else { Ok(()) }
}

/// A number that no other call has given.
fn unique() -> usize {
    static NUMBERS: Calls = Calls::new();
    NUMBERS.one()
}

async fn runs(flow: FlowRunId) -> Vec<TaskRun> {
    Orchestrator::current().task_runs(flow).await.unwrap()
}

#[orchestrator::test]
async fn a_retry_takes_what_was_persisted() {
    static FIRST: Calls = Calls::new();
    static SECOND: Calls = Calls::new();
    #[task(persist)]
    async fn first(n: u32) -> usize {
        FIRST.one() + n as usize
    }
    #[task]
    async fn second(n: usize) -> Result<usize, String> {
        stumble(&SECOND)?;
        Ok(n)
    }
    #[flow(retries = 1)]
    async fn two() -> Result<usize, TaskError> {
        second(first(10)).await
    }
    let run = two();
    assert_eq!((&run).await.unwrap(), 11);
    assert_eq!((FIRST.get(), SECOND.get()), (1, 2));
    assert_eq!(states(&run).await, ["Pending", "Running", "Retrying", "Completed"]);
    let runs = runs(run.run_id()).await;
    assert_eq!(states(runs[2].id).await, ["Pending", "Cached"]);
    assert_eq!(last_message(runs[2].id).await, format!("its result was persisted by run {}", runs[0].id));
    let look = runs[2].cache.clone().unwrap();
    assert_eq!((look.hit, look.reason), (true, CacheReason::Persisted { run: runs[0].id }));
    assert_eq!(runs[0].cache, None, "there was nothing to find");

    assert_eq!(two().await.unwrap(), 12, "another flow run has results of its own");
}

#[orchestrator::test]
async fn without_it_everything_runs_again() {
    static FIRST: Calls = Calls::new();
    static SECOND: Calls = Calls::new();
    static PERSISTED: Calls = Calls::new();
    #[task]
    async fn first() -> usize {
        FIRST.one()
    }
    #[flow(retries = 1)]
    async fn two() -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        let n = first().await?;
        stumble(&SECOND)?;
        Ok(n)
    }
    assert_eq!(two().await.unwrap(), 2);
    assert_eq!(FIRST.get(), 2);

    #[flow(retries = 1)]
    async fn asked_at_the_call() -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        let n = first().await?;
        stumble(&PERSISTED)?;
        Ok(n)
    }
    assert_eq!(asked_at_the_call::configure().persist(true).submit().await.unwrap(), 3);
}

#[orchestrator::test]
async fn of_equal_calls_each_gets_the_result_of_its_own_predecessor() {
    static ATTEMPTS: Calls = Calls::new();
    static SEEN: Mutex<Vec<Vec<usize>>> = Mutex::new(Vec::new());
    #[task(persist)]
    async fn any(n: u32) -> usize {
        let _ = n;
        unique()
    }
    #[flow(retries = 2)]
    async fn equal() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let runs: Vec<_> = [1, 1, 2, 1].into_iter().map(any).collect();
        let mut seen = Vec::new();
        for run in &runs {
            seen.push(run.await?);
        }
        SEEN.lock().unwrap().push(seen);
        if ATTEMPTS.one() < 3 { Err("again".into()) } else { Ok(()) }
    }
    equal().await.unwrap();
    let seen = SEEN.lock().unwrap();
    assert_eq!((&seen[1], &seen[2]), (&seen[0], &seen[0]));
    let mut different = seen[0].clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 4, "in one attempt all of them ran");
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_many_threads_too() {
    static ATTEMPTS: Calls = Calls::new();
    static SEEN: Mutex<Vec<Vec<usize>>> = Mutex::new(Vec::new());
    #[task]
    async fn any(n: u32) -> usize {
        let _ = n;
        unique()
    }
    #[flow(retries = 1, persist)]
    async fn equal() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let runs: Vec<_> = (0..500).map(|n| any(n % 3)).collect();
        let mut seen = Vec::new();
        for run in &runs {
            seen.push(run.await?);
        }
        SEEN.lock().unwrap().push(seen);
        Ok(stumble(&ATTEMPTS)?)
    }
    equal().await.unwrap();
    let seen = SEEN.lock().unwrap();
    assert_eq!(seen[0], seen[1]);
}

#[orchestrator::test]
async fn inputs_that_cannot_be_encoded_go_by_their_place() {
    static ATTEMPTS: Calls = Calls::new();
    static SEEN: Mutex<Vec<Vec<String>>> = Mutex::new(Vec::new());
    #[derive(Clone)]
    struct Opaque(u32);
    #[task(persist)]
    async fn opened(opaque: &Opaque, suffix: f64) -> String {
        format!("{}{suffix}: {}", opaque.0, unique())
    }
    #[flow(retries = 1)]
    async fn open() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // What can be encoded is compared all the same, in whatever order the calls come.
        let last = if ATTEMPTS.get() == 0 { 3.0 } else { 4.0 };
        let runs = [opened(Opaque(1), 1.0), opened(Opaque(2), f64::NAN), opened(Opaque(3), last)];
        let mut seen = Vec::new();
        for run in &runs {
            seen.push(run.await?);
        }
        SEEN.lock().unwrap().push(seen);
        Ok(stumble(&ATTEMPTS)?)
    }
    open().await.unwrap();
    let seen = SEEN.lock().unwrap();
    assert_eq!(seen[0][..2], seen[1][..2]);
    assert!(seen[0][0].starts_with("11: ") && seen[0][1].starts_with("2NaN: "), "{seen:?}");
    assert!(seen[1][2].starts_with("34: "), "the input is another one: {seen:?}");
}

#[orchestrator::test]
async fn a_persisting_flow_asks_its_tasks() {
    static ATTEMPTS: Calls = Calls::new();
    static PLAIN: Calls = Calls::new();
    static OPAQUE: Calls = Calls::new();
    static REFUSED: Calls = Calls::new();
    #[derive(Clone)]
    struct Opaque;
    #[task]
    async fn plain() -> usize {
        PLAIN.one()
    }
    #[task]
    async fn opaque() -> Opaque {
        OPAQUE.one();
        Opaque
    }
    #[task(persist = false)]
    async fn refuses() -> usize {
        REFUSED.one()
    }
    #[flow(persist, retries = 1)]
    async fn all() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        plain().await?;
        opaque().await?;
        refuses().await?;
        plain::configure().persist(false).submit().await?;
        Ok(stumble(&ATTEMPTS)?)
    }
    let run = all();
    (&run).await.unwrap();
    assert_eq!((PLAIN.get(), OPAQUE.get(), REFUSED.get()), (3, 2, 2));
    assert_eq!(
        tasks(run.run_id()).await[4..],
        ["plain-2: Cached", "opaque-1: Completed", "refuses-1: Completed", "plain-3: Completed"]
    );
}

#[orchestrator::test]
async fn subflows_find_what_their_predecessors_kept() {
    static ATTEMPTS: Calls = Calls::new();
    static INNER: Calls = Calls::new();
    #[task]
    async fn work(n: u32) -> usize {
        INNER.one() * 100 + n as usize
    }
    #[flow]
    async fn part(n: u32) -> Result<usize, TaskError> {
        work(n).await
    }
    #[flow(persist = false)]
    async fn forgetful(n: u32) -> Result<usize, TaskError> {
        work(n).await
    }
    #[task]
    async fn nested(n: u32) -> Result<usize, TaskError> {
        work(n).await
    }
    #[flow(persist, retries = 1)]
    async fn whole() -> Result<Vec<usize>, Box<dyn std::error::Error + Send + Sync>> {
        // Equal subflows one after the other, another one, and a task that calls a task.
        let all =
            vec![part(1).await?, part(1).await?, part(2).await?, nested::configure().persist(false).submit(3).await?];
        forgetful(4).await?;
        stumble(&ATTEMPTS)?;
        Ok(all)
    }
    assert_eq!(whole().await.unwrap(), [101, 201, 302, 403]);
    assert_eq!(INNER.get(), 6, "only in `forgetful` it ran again");
}

#[orchestrator::test(start_paused = true)]
async fn subflows_that_only_an_unrecorded_parameter_tells_apart_go_by_their_place() {
    static STUMBLES: Calls = Calls::new();
    #[derive(Clone)]
    struct Opaque(u32);
    #[task(persist = false)]
    async fn made(tag: u32, millis: u64) -> Opaque {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Opaque(tag)
    }
    #[task]
    async fn tag_of(opaque: Opaque) -> (u32, usize) {
        (opaque.0, unique())
    }
    #[flow(persist)]
    async fn part(#[param(skip)] opaque: Opaque) -> Result<(u32, usize), TaskError> {
        tag_of(opaque).await
    }
    #[flow(persist, retries = 1)]
    async fn whole() -> Result<[(u32, usize); 2], Box<dyn std::error::Error + Send + Sync>> {
        static FIRST: Mutex<Vec<[(u32, usize); 2]>> = Mutex::new(Vec::new());
        // In the second attempt the inputs arrive the other way round.
        let again = RunContext::current().attempt() == 2;
        let (one, other) = if again { (0, 300) } else { (300, 0) };
        let (one, other) = (part(made(1, one)), part(made(2, other)));
        let got = [one.await?, other.await?];
        FIRST.lock().unwrap().push(got);
        stumble(&STUMBLES)?;
        assert_eq!(FIRST.lock().unwrap()[0], got, "what was kept is found");
        Ok(got)
    }
    assert_eq!(whole().await.unwrap().map(|(tag, _)| tag), [1, 2]);
}

#[orchestrator::test]
async fn what_a_map_kept_is_found_when_more_was_to_do() {
    static ATTEMPTS: Calls = Calls::new();
    static CALLS: Calls = Calls::new();
    #[task]
    async fn half(n: u32) -> Result<u32, String> {
        CALLS.one();
        if n == 2 && ATTEMPTS.get() == 0 {
            ATTEMPTS.one();
            return Err("not yet".into());
        }
        Ok(n / 2)
    }
    #[task(persist = false)]
    async fn listed() -> Vec<u32> {
        (0..10).collect()
    }
    #[flow(persist, retries = 1)]
    async fn mapped() -> Result<Vec<u32>, TaskError> {
        half::map(listed()).await
    }
    assert_eq!(mapped().await.unwrap(), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    assert_eq!(CALLS.get(), 11);
}

#[orchestrator::test]
async fn a_refresh_of_the_cache_does_not_undo_what_the_flow_run_has() {
    static ATTEMPTS: Calls = Calls::new();
    static CALLS: Calls = Calls::new();
    #[task(persist, cache_ttl = "1h", refresh_cache)]
    async fn refreshed() -> usize {
        CALLS.one()
    }
    #[flow(retries = 1)]
    async fn flow() -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        let n = refreshed().await?;
        stumble(&ATTEMPTS)?;
        Ok(n)
    }
    assert_eq!(flow().await.unwrap(), 1);
    assert_eq!(flow().await.unwrap(), 2, "another flow run refreshes");
    let unrefreshed = refreshed::configure().refresh_cache(false);
    assert_eq!(unrefreshed.submit().await.unwrap(), 2, "it is in the cache as well");
}

#[orchestrator::test]
async fn what_is_rolled_back_was_never_kept() {
    static ATTEMPTS: Calls = Calls::new();
    static KEPT: Calls = Calls::new();
    static UNDONE: Calls = Calls::new();
    fn undo(_: &usize) {}
    #[task(on_rollback = undo)]
    async fn undone() -> usize {
        UNDONE.one()
    }
    #[task]
    async fn kept() -> usize {
        KEPT.one()
    }
    #[flow(persist, retries = 2)]
    async fn pays() -> Result<(usize, usize), Box<dyn std::error::Error + Send + Sync>> {
        let kept = transaction(async { Ok::<_, TransactionError>(kept().await.ok().unwrap_or_default()) }).await?;
        let undone = transaction(async {
            let undone = undone().await?;
            if ATTEMPTS.one() == 1 {
                return Err("rolled back".into());
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(undone)
        })
        .await?;
        if ATTEMPTS.get() == 2 {
            return Err("once more".into());
        }
        Ok((kept, undone))
    }
    assert_eq!(pays().await.unwrap(), (1, 2));
    assert_eq!((KEPT.get(), UNDONE.get()), (1, 2), "what was committed stands, what was rolled back ran again");
}

#[orchestrator::test]
async fn hooks_are_called_and_no_slot_is_taken() {
    static ATTEMPTS: Calls = Calls::new();
    static COMPLETED: Calls = Calls::new();
    fn completed(_: &TaskRun, _: &State) {
        COMPLETED.one();
    }
    #[task(persist, concurrency = "door", on_completion = completed)]
    async fn through() -> u32 {
        1
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("door", 1).await.unwrap();
    #[flow(retries = 1)]
    async fn flow() -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
        if ATTEMPTS.get() == 1 {
            Orchestrator::current().limit("door", 0).await?;
        }
        let n = through().await?;
        stumble(&ATTEMPTS)?;
        Ok(n)
    }
    assert_eq!(flow().await.unwrap(), 1);
    assert_eq!(COMPLETED.get(), 2);
}

#[tokio::test]
async fn a_file_keeps_results_and_one_that_is_damaged_is_computed_again() {
    static ATTEMPTS: Calls = Calls::new();
    static CALLS: Calls = Calls::new();
    static FOLDER: Mutex<Option<std::path::PathBuf>> = Mutex::new(None);
    #[task]
    async fn table(n: u32) -> HashMap<u32, usize> {
        HashMap::from([(n, CALLS.one())])
    }
    fn damage() {
        let folder = FOLDER.lock().unwrap().clone().unwrap();
        let connection = rusqlite::Connection::open(folder.join("orchestrator.db")).unwrap();
        assert_eq!(connection.query_row("SELECT count(*) FROM result", [], |row| row.get::<_, u32>(0)).unwrap(), 3);
        let flip = "UPDATE result SET value = CAST(value || x'00' AS BLOB) WHERE no = 2";
        assert_eq!(connection.execute(flip, []).unwrap(), 1);
    }
    #[flow(persist, retries = 2)]
    async fn tables() -> Result<Vec<usize>, Box<dyn std::error::Error + Send + Sync>> {
        let mut all = Vec::new();
        for n in 0..3 {
            all.extend(table(n).await?.into_values());
        }
        match ATTEMPTS.one() {
            1 => Err("once more, when nothing may be stored yet".into()),
            2 => {
                let run = RunContext::current().flow_run_id().unwrap();
                // What was sent is stored before this answers.
                Orchestrator::current().task_runs(run).await?;
                damage();
                Err("once more".into())
            }
            _ => Ok(all),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    *FOLDER.lock().unwrap() = Some(folder.path().to_owned());
    let orchestrator = Orchestrator::builder().home(folder.path()).build().await.unwrap();
    let all = orchestrator.scope(async { tables().await.unwrap() }).await;
    assert_eq!(all, [1, 4, 3], "the second one was not what had been stored");
    assert_eq!(CALLS.get(), 4);
    orchestrator.shutdown().await.unwrap();
}
