//! Objects go with the runs that they belong to, and what a crash left goes too.

use std::time::{Duration, Instant};

use orchestrator::{FlowRunQuery, TaskRunId};

use super::*;

#[task(persist)]
async fn page(n: usize) -> String {
    "p".repeat(LARGE + n)
}

#[flow]
async fn pages(count: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    page::map(0..count).await?;
    part(1).await?;
    Err("to be resumed".into())
}

#[flow]
async fn part(n: usize) -> Result<(), TaskError> {
    page(n).await.map(drop)
}

async fn failed(orchestrator: &Orchestrator) -> FlowRunId {
    orchestrator
        .scope(async {
            let run = pages(2);
            (&run).await.unwrap_err();
            run.run_id()
        })
        .await
}

#[tokio::test]
async fn objects_go_with_their_runs() {
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    let (first, second, third) =
        (failed(&orchestrator).await, failed(&orchestrator).await, failed(&orchestrator).await);
    assert_eq!(objects(folder.path()).len(), 9);
    orchestrator.remove_runs([second]).await.unwrap();
    assert_eq!((rows(folder.path()), objects(folder.path()).len()), ((0, 6), 6));
    orchestrator.apply_retention("1 runs".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((rows(folder.path()), objects(folder.path()).len()), ((0, 3), 3));
    orchestrator.flow_run(first).await.unwrap_err();
    orchestrator.flow_run(third).await.unwrap();
    assert_eq!(orchestrator.check_store().await.unwrap(), []);
    orchestrator.shutdown().await.unwrap();
}

/// A history with something to remove: runs, an object that no record refers to, and what somebody held who has ended.
async fn with_leftovers(folder: &Path) {
    let orchestrator = open(folder).await;
    failed(&orchestrator).await;
    failed(&orchestrator).await;
    orchestrator.shutdown().await.unwrap();
    let by_hand = database(folder);
    for sql in [
        "DELETE FROM result WHERE rowid = (SELECT min(rowid) FROM result WHERE location IS NOT NULL)",
        "INSERT INTO cache_claim SELECT x'00', no, 1, 1, x'00', 'r' FROM process LIMIT 1",
        "INSERT INTO slot_holder SELECT 'db', no, 1, 1, 1, NULL, NULL FROM process LIMIT 1",
    ] {
        assert_eq!(by_hand.execute(sql, []).unwrap(), 1);
    }
}

/// How much is there of each of them.
fn leftovers(folder: &Path) -> [u32; 5] {
    let by_hand = database(folder);
    let count =
        |table| by_hand.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u32>(0)).unwrap();
    let [runs, results, claims, holders] = ["flow_run", "result", "cache_claim", "slot_holder"].map(count);
    [runs, results, claims, holders, u32::try_from(objects(folder).len()).unwrap()]
}

#[tokio::test]
async fn whoever_only_looks_deletes_nothing() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    with_leftovers(folder.path()).await;
    with_leftovers(other.path()).await;
    let before = leftovers(folder.path());
    assert_eq!(before, [4, 5, 1, 1, 6]);
    let builder = || Orchestrator::builder().retention("1 runs".parse().unwrap());
    let looks = builder().home(folder.path()).look_only(true).build().await.unwrap();
    assert_eq!(looks.flow_runs(&FlowRunQuery::new()).await.unwrap().len(), 4);
    looks.limits().await.unwrap();
    looks.check_store().await.unwrap();
    // By when somebody who works has done it, who began later.
    let works = builder().home(other.path()).build().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while objects(other.path()).len() == 6 {
        assert!(Instant::now() < deadline, "the object is deleted");
        tokio::task::yield_now().await;
    }
    assert_eq!(leftovers(folder.path()), before);
    looks.shutdown().await.unwrap();
    works.shutdown().await.unwrap();
    assert_eq!(leftovers(folder.path()), before);
}

#[tokio::test]
async fn what_cannot_be_deleted_now_is_deleted_another_time() {
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    let id = failed(&orchestrator).await;
    // For a while the folder is a file.
    let (results, away) = (folder.path().join("results"), folder.path().join("away"));
    std::fs::rename(&results, &away).unwrap();
    std::fs::write(&results, "").unwrap();
    let (said, _guard) = warnings();
    orchestrator.remove_runs([id]).await.unwrap();
    let warned = said.take();
    assert!(warned.contains("results of runs that were removed are not deleted yet"), "{warned}");
    std::fs::remove_file(&results).unwrap();
    std::fs::rename(&away, &results).unwrap();
    assert_eq!((rows(folder.path()), objects(folder.path()).len()), ((0, 0), 3));
    orchestrator.apply_retention("30d".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(objects(folder.path()), [] as [PathBuf; 0]);
    orchestrator.shutdown().await.unwrap();
}

/// Holds on until its runtime is shut down, the first time.
#[task]
async fn hold() -> Result<(), String> {
    static CALLS: Calls = Calls::new();
    if CALLS.one() > 1 {
        return Err("held once".into());
    }
    std::future::pending().await
}

#[flow]
async fn held() -> Result<(), TaskError> {
    page(0).await?;
    hold().await
}

#[test]
fn what_a_crash_left_is_deleted_when_the_run_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (run, page) = runtime.block_on(async {
        let orchestrator = open(folder.path()).await;
        let run = orchestrator.scope(async { held() }).await;
        loop {
            let tasks = orchestrator.task_runs(run.run_id()).await.unwrap();
            if tasks.len() == 2 && tasks[1].state.name == "Running" {
                return (run, tasks[0].id);
            }
            tokio::task::yield_now().await;
        }
    });
    drop(runtime);
    let id = run.run_id();
    let theirs = objects(folder.path());
    assert_eq!(theirs.len(), 1);
    // Between an object and its record; while an object was written; what somebody else is at work on; what is not ours.
    let results = folder.path().join("results").join(id.to_string());
    let digest = "0".repeat(32);
    let later = given_at(u64::MAX >> 17);
    let lost = [results.join(format!("{page}-{digest}")), results.join(format!("{page}-{digest}#1"))];
    let kept = [results.join(format!("{later}-{digest}")), results.join("notes.txt")];
    for path in lost.iter().chain(&kept) {
        std::fs::write(path, "x").unwrap();
    }

    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let orchestrator = open(folder.path()).await;
        let run = orchestrator.flow_run(id).await.unwrap();
        assert_eq!(run.state.name, "Crashed");
        orchestrator.resume(id).await.unwrap_err();
        let deadline = Instant::now() + Duration::from_secs(20);
        while lost.iter().any(|path| path.exists()) {
            assert!(Instant::now() < deadline, "they are still there: {:?}", objects(folder.path()));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        orchestrator.shutdown().await.unwrap();
    });
    let mut left: Vec<_> = theirs.into_iter().chain(kept).collect();
    left.sort_unstable();
    assert_eq!(objects(folder.path()), left);
}

/// An id that was given at that time, in milliseconds.
fn given_at(millis: u64) -> TaskRunId {
    let text = format!("{millis:012x}-7000-8000-000000000000");
    format!("{}-{}", &text[..8], &text[8..]).parse().unwrap()
}
