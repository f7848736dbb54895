//! Results in a bucket. `tests/s3/run` starts a server, says where it is, and runs these.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod reachable;
mod unreachable;
#[path = "../shared/warnings.rs"]
mod warnings;

use std::path::Path;
use std::sync::{Arc, Mutex};

use orchestrator::FlowRunId;
use orchestrator::prelude::*;
use orchestrator::results::ResultsAt;

use warnings::warnings;

const LARGE: usize = 20_000;

/// Where results go: a bucket, and a prefix of this test's own.
fn url(test: &str) -> String {
    let url = std::env::var("ORCHESTRATOR_TEST_S3_URL").expect("`tests/s3/run` says where the server is");
    format!("{url}/{test}")
}

async fn open(folder: &Path, results: impl Into<ResultsAt>) -> Orchestrator {
    Orchestrator::builder().home(folder).results(results).build().await.unwrap()
}

/// How many objects have a row.
fn rows(folder: &Path) -> u32 {
    let connection = rusqlite::Connection::open(folder.join("orchestrator.db")).unwrap();
    connection.query_row("SELECT count(location) FROM result", [], |row| row.get(0)).unwrap()
}

static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How often the task was called for that test.
fn calls(test: &str) -> usize {
    CALLS.lock().unwrap().iter().filter(|call| *call == test).count()
}

#[task(persist)]
async fn page(test: String, n: usize) -> String {
    CALLS.lock().unwrap().push(test);
    "p".repeat(LARGE + n)
}

/// Fails when it has its pages.
#[flow]
async fn pages(test: String, count: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    for n in 0..count {
        assert_eq!(*page(test.clone(), n).await?, "p".repeat(LARGE + n));
    }
    Err("to be resumed".into())
}

async fn failed(orchestrator: &Orchestrator, test: &str, count: usize) -> FlowRunId {
    orchestrator
        .scope(async {
            let run = pages(test.to_owned(), count);
            (&run).await.unwrap_err();
            run.run_id()
        })
        .await
}
