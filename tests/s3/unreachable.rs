//! The server is not there any more.

use std::time::{Duration, Instant};

use orchestrator::ResultStore;
use orchestrator::results::{Bytes, Doing};

use super::*;

#[tokio::test]
#[ignore = "needs a server that has ended: tests/s3/run"]
async fn a_run_goes_on_and_says_what_it_could_not_store() {
    let folder = tempfile::tempdir().unwrap();
    let url = url("unreachable");
    let orchestrator = open(folder.path(), &*url).await;
    let (said, _guard) = warnings();
    let start = Instant::now();
    failed(&orchestrator, "unreachable", 2).await;
    assert!(start.elapsed() < Duration::from_secs(60), "nobody waits for ever: {:?}", start.elapsed());
    let warned = said.take();
    let expected = format!(" is not persisted: cannot write the object {url}/");
    assert!(warned.contains(&expected), "{warned}");
    assert_eq!(rows(folder.path()), 0);
}

#[tokio::test]
#[ignore = "needs a server that has ended: tests/s3/run"]
async fn a_strict_run_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let url = url("strict");
    let builder = Orchestrator::builder().home(folder.path()).results(&*url).strict(true);
    let orchestrator = builder.build().await.unwrap();
    let error = orchestrator.scope(async { pages("strict".to_owned(), 1).await.unwrap_err() }).await.to_string();
    let expected = format!("its result was not stored: cannot write the object {url}/");
    assert!(error.contains(&expected), "{error}");
}

/// Claims to be the bucket.
#[derive(Debug)]
struct Stand(String);

impl ResultStore for Stand {
    fn put<'a>(&'a self, _name: &'a str, _bytes: Bytes) -> Doing<'a, bool> {
        Box::pin(async { Ok(true) })
    }

    fn get<'a>(&'a self, _name: &'a str) -> Doing<'a, Option<Bytes>> {
        Box::pin(async { Ok(None) })
    }

    fn delete<'a>(&'a self, _name: &'a str) -> Doing<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn list<'a>(&'a self, _folder: &'a str) -> Doing<'a, Vec<String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn location(&self) -> String {
        self.0.clone()
    }
}

#[tokio::test]
#[ignore = "needs a server that has ended: tests/s3/run"]
async fn what_cannot_be_read_at_the_moment_is_computed_again_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let url = url("stays");
    let first = open(folder.path(), Arc::new(Stand(url.clone()))).await;
    let id = failed(&first, "stays", 1).await;
    first.shutdown().await.unwrap();
    assert_eq!((calls("stays"), rows(folder.path())), (1, 1));

    let later = open(folder.path(), &*url).await;
    let (said, _guard) = warnings();
    later.resume(id).await.unwrap_err();
    let warned = said.take();
    let expected = format!("'page-0' runs again, its persisted result is of no use: cannot read the object {url}/");
    assert!(warned.contains(&expected), "{warned}");
    assert_eq!((calls("stays"), rows(folder.path())), (2, 1), "what was stored may be read another time");
    let error = later.check_store().await.unwrap_err().to_string();
    assert!(error.contains(&url), "{error}");
}
