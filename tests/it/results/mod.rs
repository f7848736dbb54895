//! Where persisted results are, and when: stored before anybody learns that a run completed, large ones as objects.

mod damage;
mod removal;
mod stores;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use orchestrator::FlowRunId;
use orchestrator::prelude::*;

use crate::door::{Calls, states, tasks};
use crate::warnings::warnings;

/// More bytes than a result in the database itself has by default.
const LARGE: usize = 20_000;

async fn open(folder: &Path) -> Orchestrator {
    Orchestrator::builder().home(folder).build().await.unwrap()
}

fn database(folder: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.join("orchestrator.db")).unwrap()
}

/// How many results the file has in itself, and how many as objects.
fn rows(folder: &Path) -> (u32, u32) {
    let select = "SELECT count(value), count(location) FROM result";
    database(folder).query_row(select, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

/// The files beneath a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn objects(folder: &Path) -> Vec<PathBuf> {
    files(&folder.join("results"))
}

#[task(persist = true)]
async fn small(n: u32) -> u32 {
    n + 1
}

#[flow]
async fn only_small(n: u32) -> Result<u32, TaskError> {
    small(n).await
}

#[tokio::test]
async fn what_has_completed_is_stored() {
    #[flow]
    async fn looks(folder: PathBuf) -> Result<(), TaskError> {
        for n in 1..=20 {
            let run = small(n);
            (&run).await?;
            // Straight from the file: no question that this orchestrator is asked makes it store anything.
            assert_eq!(rows(&folder), (n, 0), "the result is there when its run has completed");
            let select = "SELECT state FROM task_run WHERE id = ?1";
            let state: String =
                database(&folder).query_row(select, [run.run_id().as_uuid().as_bytes()], |row| row.get(0)).unwrap();
            assert_eq!(state, "Completed");
        }
        Ok(())
    }
    let folder = tempfile::tempdir().unwrap();
    let orchestrator = open(folder.path()).await;
    orchestrator.scope(async { looks(folder.path().to_owned()).await.unwrap() }).await;
    assert_eq!(objects(folder.path()), [] as [PathBuf; 0]);
}

static LARGE_CALLS: Calls = Calls::new();
static LARGE_ENDS: Calls = Calls::new();

#[task]
async fn large(n: usize) -> String {
    LARGE_CALLS.one();
    "x".repeat(LARGE + n)
}

#[task(persist = false)]
async fn ends_well_at_last() -> Result<(), String> {
    if LARGE_ENDS.one() == 1 { Err("not yet".into()) } else { Ok(()) }
}

#[flow(persist)]
async fn large_results(count: usize) -> Result<usize, TaskError> {
    let mut bytes = 0;
    for n in 0..count {
        bytes += large(n).await?.len();
    }
    bytes += small(7).await? as usize;
    ends_well_at_last().await?;
    Ok(bytes)
}

#[tokio::test]
async fn large_results_are_objects_that_a_later_process_finds() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).await;
    let id: FlowRunId = first
        .scope(async {
            let run = large_results(3);
            (&run).await.unwrap_err();
            run.run_id()
        })
        .await;
    first.shutdown().await.unwrap();
    assert_eq!(rows(folder.path()), (1, 3));
    let objects = objects(folder.path());
    assert_eq!(objects.len(), 3);
    for object in &objects {
        assert_eq!(object.parent().unwrap(), folder.path().join("results").join(id.to_string()));
        assert!(std::fs::metadata(object).unwrap().len() > LARGE as u64);
    }

    let later = open(folder.path()).await;
    let resumed = later.resume(id).await.unwrap();
    assert_eq!(LARGE_CALLS.get(), 3, "nothing was computed again");
    let (names, history) = later.scope(async { (tasks(resumed.id).await, states(resumed.id).await) }).await;
    assert_eq!(history, ["Pending", "Running", "Failed", "Running", "Completed"]);
    assert_eq!(
        names[5..],
        ["large-0: Cached", "large-1: Cached", "large-2: Cached", "small-0: Cached", "ends_well_at_last-0: Completed"]
    );
    assert_eq!(self::objects(folder.path()), objects, "each is written once");
    assert_eq!(rows(folder.path()), (1, 3));
    assert_eq!(later.check_store().await.unwrap(), []);
    later.shutdown().await.unwrap();
}
