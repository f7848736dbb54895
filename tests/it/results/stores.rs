//! Stores of one's own, in all their moods.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use orchestrator::backend::{BackendError, BackendErrorKind};
use orchestrator::results::{Bytes, Doing, ResultsAt};
use orchestrator::{ResultStore, TaskRunId};
use tokio::sync::Semaphore;

use super::*;

/// Keeps objects in memory.
#[derive(Debug)]
struct Shelf {
    name: &'static str,
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// How many objects may be put.
    open: Semaphore,
    /// How many objects that are here may be told to be here.
    told: Semaphore,
    /// So many requests to put an object fail.
    failures: AtomicUsize,
    /// Objects of runs that the database there does not know are not taken.
    known_in: Option<PathBuf>,
    panics: bool,
    puts: Calls,
}

impl Shelf {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            objects: Mutex::default(),
            open: Semaphore::new(1_000),
            told: Semaphore::new(1_000),
            known_in: None,
            failures: AtomicUsize::new(0),
            panics: false,
            puts: Calls::new(),
        }
    }

    fn len(&self) -> usize {
        self.objects.lock().unwrap().len()
    }
}

impl ResultStore for Shelf {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Doing<'a, bool> {
        self.puts.one();
        Box::pin(async move {
            self.open.acquire().await.unwrap().forget();
            assert!(!self.panics, "this shelf panics");
            let fails = |left: usize| left.checked_sub(1);
            if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
                let doing = format!("write the object {}/{name}", self.name);
                return Err(BackendError::new(BackendErrorKind::Other, doing).because("the shelf is full"));
            }
            if let Some(folder) = &self.known_in {
                let run: TaskRunId = name.split('/').nth(1).unwrap()[..36].parse().unwrap();
                let select = "SELECT count(*) FROM task_run WHERE id = ?1";
                let known: u32 =
                    database(folder).query_row(select, [run.as_uuid().as_bytes()], |row| row.get(0)).unwrap();
                assert_eq!(known, 1, "the run of an object is known");
            }
            let new = self.objects.lock().unwrap().insert(name.to_owned(), bytes).is_none();
            self.told.acquire().await.unwrap().forget();
            Ok(new)
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> Doing<'a, Option<Bytes>> {
        Box::pin(async move { Ok(self.objects.lock().unwrap().get(name).cloned()) })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Doing<'a, ()> {
        Box::pin(async move {
            self.objects.lock().unwrap().remove(name);
            Ok(())
        })
    }

    fn list<'a>(&'a self, folder: &'a str) -> Doing<'a, Vec<String>> {
        Box::pin(async move {
            let objects = self.objects.lock().unwrap();
            Ok(objects.keys().filter(|name| name.starts_with(&format!("{folder}/"))).cloned().collect())
        })
    }

    fn location(&self) -> String {
        self.name.to_owned()
    }
}

async fn open_with(folder: &Path, store: impl Into<ResultsAt>) -> Orchestrator {
    Orchestrator::builder().home(folder).results(store).build().await.unwrap()
}

#[task(persist)]
async fn long_text(n: usize) -> String {
    "z".repeat(LARGE + n)
}

#[flow]
async fn one_text(n: usize) -> Result<usize, TaskError> {
    Ok(long_text(n).await?.len())
}

#[flow]
async fn text_and_failure(n: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    long_text(n).await?;
    Err("after that".into())
}

/// The flow has been called and has failed; gives its id.
async fn failed(orchestrator: &Orchestrator, n: usize) -> FlowRunId {
    orchestrator
        .scope(async {
            let run = text_and_failure(n);
            (&run).await.unwrap_err();
            run.run_id()
        })
        .await
}

#[tokio::test]
async fn a_run_has_not_completed_while_its_object_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf { open: Semaphore::new(0), ..Shelf::new("shelf") });
    let orchestrator = open_with(folder.path(), Arc::clone(&shelf)).await;
    orchestrator
        .scope(async {
            let run = one_text(1);
            while shelf.puts.get() == 0 {
                tokio::task::yield_now().await;
            }
            let task = Orchestrator::current().task_runs(run.run_id()).await.unwrap().remove(0);
            assert_eq!(task.state.name, "Running");
            assert_eq!(rows(folder.path()), (0, 0));
            shelf.open.add_permits(1);
            assert_eq!(run.await.unwrap(), LARGE + 1);
        })
        .await;
    assert_eq!((rows(folder.path()), shelf.len()), ((0, 1), 1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_tried_again_and_then_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf { failures: AtomicUsize::new(2), ..Shelf::new("shelf") });
    let orchestrator = open_with(folder.path(), Arc::clone(&shelf)).await;
    let (said, _guard) = warnings();
    assert_eq!(orchestrator.scope(async { one_text(0).await.unwrap() }).await, LARGE);
    assert_eq!((shelf.puts.get(), rows(folder.path()), said.take()), (3, (0, 1), String::new()));

    // Its own result a run has all the same.
    shelf.failures.store(1_000, Ordering::SeqCst);
    assert_eq!(orchestrator.scope(async { one_text(1).await.unwrap() }).await, LARGE + 1);
    let warned = said.take();
    let expected = "the result of Task run 'long_text-0' is not persisted: cannot write the object shelf/";
    assert!(warned.contains(expected) && warned.contains("the shelf is full"), "{warned}");
    assert_eq!(rows(folder.path()), (0, 1));
    let puts = shelf.puts.get();
    orchestrator.scope(async { one_text(2).await.unwrap() }).await;
    assert_eq!(shelf.puts.get() - puts, 1, "one that failed is not asked again and again");
    orchestrator.scope(async { one_text(3).await.unwrap() }).await;
    assert_eq!(said.take(), "", "as much was said");
    orchestrator.shutdown().await.unwrap();
    assert_eq!(said.take(), "2 more results were not persisted of 'long_text': the shelf is full");
}

#[tokio::test(start_paused = true)]
async fn a_strict_orchestrator_completes_no_run_whose_result_it_could_not_store() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf { failures: AtomicUsize::new(1_000), ..Shelf::new("shelf") });
    let builder = Orchestrator::builder().home(folder.path()).strict(true);
    let orchestrator = builder.results(Arc::clone(&shelf)).build().await.unwrap();
    let error = orchestrator.scope(async { one_text(0).await.unwrap_err() }).await.to_string();
    for part in ["long_text-0", "its result was not stored", "the object shelf/", "the shelf is full"] {
        assert!(error.contains(part), "{error}");
    }
}

#[flow]
async fn in_a_transaction(n: usize) -> Result<usize, TaskError> {
    transaction(async { Ok(long_text(n).await?.len()) }).await
}

#[tokio::test(start_paused = true)]
async fn a_strict_orchestrator_commits_nothing_whose_results_it_could_not_store() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf { failures: AtomicUsize::new(1_000), ..Shelf::new("shelf") });
    let builder = |strict| Orchestrator::builder().home(folder.path()).strict(strict).results(Arc::clone(&shelf));
    let orchestrator = builder(true).build().await.unwrap();
    let run = orchestrator
        .scope(async {
            let run = in_a_transaction(0);
            let error = (&run).await.unwrap_err();
            for part in ["was rolled back", "the result of Task run 'long_text-0' was not stored", "the shelf is full"]
            {
                assert!(error.to_string().contains(part), "{error}");
            }
            run.run_id()
        })
        .await;
    let tasks = orchestrator.task_runs(run).await.unwrap();
    assert_eq!((&*tasks[0].state.name, rows(folder.path())), ("RolledBack", (0, 0)));
    orchestrator.shutdown().await.unwrap();

    let lenient = builder(false).build().await.unwrap();
    let (said, _guard) = warnings();
    assert_eq!(lenient.scope(async { in_a_transaction(1).await.unwrap() }).await, LARGE + 1);
    assert!(said.take().contains("the result of Task run 'long_text-0' is not persisted"));
    lenient.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_object_comes_after_the_run_that_it_is_of() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf { known_in: Some(folder.path().to_owned()), ..Shelf::new("shelf") });
    let orchestrator = open_with(folder.path(), Arc::clone(&shelf)).await;
    for n in 0..4 {
        orchestrator.scope(async { one_text(n).await.unwrap() }).await;
        orchestrator.scope(async { in_a_transaction(n).await.unwrap() }).await;
    }
    assert_eq!((rows(folder.path()), shelf.len()), ((0, 8), 8));
    orchestrator.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_somebody_is_at_work_on_is_left_whatever_clocks_say() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf { told: Semaphore::new(0), ..Shelf::new("shelf") });
    let orchestrator = open_with(folder.path(), Arc::clone(&shelf)).await;
    let run = orchestrator.scope(async { one_text(0) }).await;
    while shelf.len() == 0 {
        tokio::task::yield_now().await;
    }
    // The flow run crashed at a time that is still to come: the clock was put back.
    let interrupted = "INSERT INTO interrupted (flow_run, at) VALUES (?1, ?2)";
    database(folder.path()).execute(interrupted, (run.run_id().as_uuid().as_bytes(), i64::MAX)).unwrap();
    let left = || {
        let count = "SELECT count(*) FROM interrupted";
        database(folder.path()).query_row(count, [], |row| row.get::<_, u32>(0)).unwrap()
    };
    let deadline = Instant::now() + Duration::from_secs(40);
    while left() > 0 {
        assert!(Instant::now() < deadline, "nobody has swept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(shelf.len(), 1, "its record is on its way");
    shelf.told.add_permits(1);
    assert_eq!(run.await.unwrap(), LARGE);
    assert_eq!(orchestrator.check_store().await.unwrap(), []);
    orchestrator.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_store_that_panics_takes_no_run_along() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf { panics: true, ..Shelf::new("shelf") });
    let orchestrator = open_with(folder.path(), shelf).await;
    let (said, _guard) = warnings();
    assert_eq!(orchestrator.scope(async { one_text(0).await.unwrap() }).await, LARGE);
    let warned = said.take();
    assert!(warned.contains("is not persisted: cannot use the result store shelf: it panicked"), "{warned}");
}

#[tokio::test]
async fn an_object_that_is_in_another_store_stays_there() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Arc::new(Shelf::new("old")), Arc::new(Shelf::new("new")));
    let first = open_with(folder.path(), Arc::clone(&old)).await;
    let id = failed(&first, 0).await;
    first.shutdown().await.unwrap();

    let second = open_with(folder.path(), Arc::clone(&new)).await;
    let (said, _guard) = warnings();
    second.resume(id).await.unwrap_err();
    let warned = said.take();
    assert!(warned.contains("runs again") && warned.contains("it was put into old, and is not here"), "{warned}");
    let findings = second.check_store().await.unwrap();
    assert!(findings.len() == 1 && findings[0].what.contains("it was put into old"), "{findings:?}");
    second.remove_runs([id]).await.unwrap();
    second.shutdown().await.unwrap();
    assert_eq!((old.len(), new.len()), (1, 0));

    // Whoever has that store deletes it.
    let third = open_with(folder.path(), Arc::clone(&old)).await;
    third.apply_retention("1 runs".parse().unwrap()).await.unwrap();
    assert_eq!(old.len(), 0);
    third.shutdown().await.unwrap();
}

#[tokio::test]
async fn objects_that_were_moved_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Arc::new(Shelf::new("old")), Arc::new(Shelf::new("new")));
    let first = open_with(folder.path(), Arc::clone(&old)).await;
    let id = failed(&first, 0).await;
    first.shutdown().await.unwrap();
    new.objects.lock().unwrap().append(&mut old.objects.lock().unwrap());
    let second = open_with(folder.path(), Arc::clone(&new)).await;
    second.resume(id).await.unwrap_err();
    assert_eq!(new.puts.get(), 0, "nothing was computed again");
    second.shutdown().await.unwrap();
}

#[tokio::test]
async fn up_to_which_size_a_result_is_in_the_database_can_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf::new("shelf"));
    let builder = || Orchestrator::builder().home(folder.path()).results(Arc::clone(&shelf));
    let none = builder().inline_results_up_to(0).build().await.unwrap();
    none.scope(async { only_small(1).await.unwrap() }).await;
    none.shutdown().await.unwrap();
    assert_eq!(rows(folder.path()), (0, 1));
    let all = builder().inline_results_up_to(usize::MAX).build().await.unwrap();
    all.scope(async { one_text(0).await.unwrap() }).await;
    all.shutdown().await.unwrap();
    assert_eq!((rows(folder.path()), shelf.len()), ((1, 1), 1));
}

#[tokio::test]
async fn a_url_that_names_no_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    // Who looks makes no database.
    Orchestrator::builder().home(folder.path()).build().await.unwrap().shutdown().await.unwrap();
    for (url, said) in [
        (
            "ftp://somewhere",
            "'ftp://somewhere' is not a result store: expected a folder, `file:///FOLDER`, `s3://BUCKET",
        ),
        ("s3://", "names no bucket"),
        ("file://", "names no folder"),
    ] {
        let error = Orchestrator::builder().home(folder.path()).results(url).build().await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        let looks = Orchestrator::builder().home(folder.path()).results(url).look_only(true).build().await;
        looks.unwrap().shutdown().await.unwrap();
    }
}
