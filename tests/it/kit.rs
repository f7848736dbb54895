//! The test kit: fakes, the log of events, assertions on states.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use orchestrator::prelude::*;
use orchestrator::testing::{EventLog, assert_states, fails, gives};
use tokio::sync::Notify;

use crate::door::Calls;

/// A type that is neither `Serialize` nor `Clone`.
#[derive(Debug)]
struct Client {
    host: String,
}

#[task(retries = 2, retry_delay_secs = 60)]
async fn fetch(repo: String) -> Result<u64, std::io::Error> {
    Err(std::io::Error::other(format!("no network for {repo}")))
}

#[task]
async fn version() -> u32 {
    1
}

#[task(cache_ttl = "1h")]
async fn fetch_with(#[cache(skip)] client: &Client, repo: String) -> Result<String, String> {
    Err(format!("{} does not know {repo}", client.host))
}

#[task]
fn join(first: &str, rest: &[String], last: Option<u32>) -> String {
    format!("{first} {rest:?} {last:?}")
}

#[task]
fn total(stars: &[u64]) -> u64 {
    stars.iter().sum()
}

#[flow(name = "github-stars")]
async fn github_stars(repos: Vec<String>) -> Result<u64, TaskError> {
    total(fetch::map(repos)).await
}

#[flow]
async fn report(repos: Vec<String>) -> Result<String, orchestrator::FlowError> {
    let stars = github_stars(repos).await?;
    Ok(format!("{stars} stars"))
}

fn repos<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).into()
}

/// What a panic says.
fn said(panic: Box<dyn std::any::Any + Send>) -> String {
    *panic.downcast::<String>().unwrap()
}

#[orchestrator::test]
async fn closures_are_inferred_whatever_the_parameters() {
    let orch = Orchestrator::current();
    orch.replace::<version>(|()| 7);
    assert_eq!(version().await.unwrap(), 7);
    orch.replace::<version>(|_| fails("down"));
    assert_eq!(version().await.unwrap_err().to_string(), "task run 'version-1' failed: down");

    orch.replace::<fetch>(|repo| repo.len() as u64);
    assert_eq!(fetch("four").await.unwrap(), 4);
    orch.replace::<fetch>(|_| 5);
    assert_eq!(fetch("four").await.unwrap(), 5);
    orch.replace::<fetch>(|repo| Ok(repo.len() as u64 + 2));
    assert_eq!(fetch("four").await.unwrap(), 6);
    orch.replace::<fetch>(|repo| if repo == "a" { gives(1) } else { fails(format!("no {repo}")) });
    assert_eq!(fetch("a").await.unwrap(), 1);
    let error = fetch::configure().retries(0).submit("b").await.unwrap_err();
    assert_eq!(error.to_string(), "task run 'fetch-4' failed: no b");

    let client = Arc::new(Client { host: "github".into() });
    orch.replace::<fetch_with>(|(client, repo)| format!("{}/{repo}", client.host));
    assert_eq!(fetch_with(Arc::clone(&client), "x").await.unwrap(), "github/x");
    orch.replace::<fetch_with>(|(_, _)| -> String { unreachable!("the answer is in the cache") });
    assert_eq!(fetch_with(client, "x").await.unwrap(), "github/x", "the cache is as it was");

    orch.replace::<join>(|(first, rest, last)| {
        let last = last.map_or(0, |last| last + 1);
        format!("{} {} {last}", first.to_uppercase(), rest.iter().map(String::len).sum::<usize>())
    });
    assert_eq!(join("a", vec!["bc".to_owned(), "d".to_owned()], Some(1)).await.unwrap(), "A 3 2");

    orch.replace::<github_stars>(|repos| repos.len() as u64);
    assert_eq!(report(repos(["a", "b"])).await.unwrap(), "2 stars");
    orch.replace::<report>(|_| fails(anyhow::anyhow!("no report")));
    assert!(report(repos([])).await.unwrap_err().to_string().ends_with("failed: no report"));
}

#[orchestrator::test(start_paused = true)]
async fn a_fake_replaces_the_body_alone() {
    let orch = Orchestrator::current();
    let calls = AtomicU32::new(0);
    orch.replace::<fetch>(move |repo| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Err(std::io::Error::other("no answer")),
        _ => Ok(repo.len() as u64),
    });
    let start = tokio::time::Instant::now();
    let run = fetch("rust");
    assert_eq!((&run).await.unwrap(), 4);
    assert_eq!(start.elapsed().as_secs(), 60);
    assert_states(&run, ["Pending", "Running", "AwaitingRetry", "Retrying", "Completed"]).await;

    orch.restore::<fetch>();
    let error = fetch("rust").await.unwrap_err();
    assert_eq!(error.to_string(), "task run 'fetch-1' failed: no network for rust");
    assert!(error.downcast_ref::<std::io::Error>().is_some());

    orch.replace_async::<fetch>(|_| std::future::pending::<u64>());
    let slow = fetch::configure().timeout(Duration::from_secs(5)).retries(0).submit("rust");
    assert!((&slow).await.unwrap_err().is_timed_out());
    assert_states(&slow, ["Pending", "Running", "TimedOut"]).await;

    orch.replace::<fetch>(|_| -> u64 { panic!("not today") });
    let error = fetch::configure().retries(0).submit("rust").await.unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("not today at tests/it/kit.rs:"), "{error}");
}

#[orchestrator::test]
async fn fakes_reach_maps_calls_with_options_and_calls_in_other_runs() {
    #[task]
    async fn outer(repo: String) -> Result<u64, TaskError> {
        fetch(repo).await
    }
    let orch = Orchestrator::current();
    orch.replace::<fetch>(|repo| repo.len() as u64);
    assert_eq!(fetch::map(repos(["a", "bc"])).await.unwrap(), [1, 2]);
    assert_eq!(fetch::configure().run_name("x").submit_map(repos(["a", "bc"])).await.unwrap(), [1, 2]);
    assert_eq!(outer("abc").await.unwrap(), 3);
    assert_eq!(report(repos(["a", "bc"])).await.unwrap(), "3 stars");
    let other = Orchestrator::in_memory();
    other.scope(fetch::configure().retries(0).submit("a")).await.unwrap();
    let own = other.scope(async { fetch::configure().retries(0).submit("a") }).await;
    own.await.unwrap_err();
}

#[orchestrator::test]
async fn an_attempt_keeps_the_body_with_which_it_began() {
    let orch = Orchestrator::current();
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (Arc::clone(&begun), Arc::clone(&go));
    orch.replace_async::<fetch>(move |repo| {
        let (begun, go) = signals.clone();
        async move {
            begun.notify_one();
            go.notified().await;
            repo.len() as u64
        }
    });
    let first = fetch("abc");
    begun.notified().await;
    orch.replace::<fetch>(|_| 100);
    let second = fetch("abc");
    assert_eq!((&second).await.unwrap(), 100);
    assert_eq!(first.state().name, "Running");
    go.notify_one();
    assert_eq!(first.await.unwrap(), 3);
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_of_a_sync_task_runs_on_the_blocking_pool() {
    let orch = Orchestrator::current();
    orch.replace::<total>(|stars| {
        // A thread of the runtime could not wait for another run.
        let more = tokio::runtime::Handle::current().block_on(version()).unwrap();
        assert_eq!(RunContext::current().attempt(), 1);
        stars.iter().sum::<u64>() + u64::from(more)
    });
    assert_eq!(total(vec![1, 2]).await.unwrap(), 4);
    orch.replace_async::<total>(|stars| async move { stars.len() as u64 });
    assert_eq!(total(vec![1, 2]).await.unwrap(), 2);
}

#[orchestrator::test(start_paused = true)]
async fn retry_conditions_judge_the_errors_of_fakes() {
    #[derive(Debug)]
    enum Trouble {
        Busy,
        Gone,
    }
    impl std::fmt::Display for Trouble {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{self:?}")
        }
    }
    impl std::error::Error for Trouble {}
    fn is_busy(trouble: &Trouble) -> bool {
        matches!(trouble, Trouble::Busy)
    }
    #[task(retries = 1, retry_if = is_busy)]
    async fn ask() -> Result<u32, Trouble> {
        Ok(1)
    }
    let orch = Orchestrator::current();
    for (fake, states) in [
        ((|| Trouble::Gone) as fn() -> Trouble, ["Pending", "Running", "Failed"].as_slice()),
        (|| Trouble::Busy, &["Pending", "Running", "Retrying", "Failed"]),
    ] {
        orch.replace::<ask>(move |()| Err(fake()));
        let run = ask();
        (&run).await.unwrap_err();
        assert_states(&run, states.iter().copied()).await;
    }
    orch.replace::<ask>(|()| fails("another error"));
    let run = ask();
    (&run).await.unwrap_err();
    assert_states(&run, ["Pending", "Running", "Retrying", "Failed"]).await;
}

#[expect(private_bounds, reason = "tasks are as visible as the user says, whatever their types are")]
mod pipeline {
    use orchestrator::prelude::*;

    /// A type that only this module knows.
    struct Secret(u32);

    #[task]
    pub(super) async fn open(secret: &Secret) -> u32 {
        secret.0
    }

    #[flow]
    pub(super) async fn opened(code: u32) -> Result<u32, TaskError> {
        open(Secret(code)).await
    }

    #[orchestrator::test]
    async fn a_task_may_be_more_visible_than_its_types() {
        Orchestrator::current().replace::<open>(|secret| secret.0 + 1);
        assert_eq!(opened(1).await.unwrap(), 2);
    }
}

#[orchestrator::test]
async fn functions_of_other_modules_are_replaced_by_their_paths() {
    Orchestrator::current().replace::<pipeline::opened>(|code| code * 10);
    assert_eq!(pipeline::opened(4).await.unwrap(), 40);
}

#[orchestrator::test]
async fn each_attempt_is_given_its_own_arguments() {
    #[derive(Debug)]
    struct Counted(Arc<Calls>);
    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.one();
            Self(Arc::clone(&self.0))
        }
    }
    #[task(retries = 2)]
    async fn take(counted: Counted, text: &str) -> Result<(), String> {
        let _ = (counted, text);
        Ok(())
    }
    let clones = Arc::new(Calls::new());
    Orchestrator::current().replace::<take>(|(_counted, text)| Err(text.to_string()));
    let error = take(Counted(Arc::clone(&clones)), "no").await.unwrap_err();
    assert_eq!(error.to_string(), "task run 'take-0' failed: no");
    assert_eq!(clones.get(), 2, "the last attempt was given the original");
}

#[orchestrator::test]
async fn what_a_fake_holds_is_dropped_when_it_is_taken_away() {
    let held = Arc::new(5);
    let orch = Orchestrator::current();
    let fake = Arc::clone(&held);
    orch.replace::<version>(move |()| *fake);
    assert_eq!(version().await.unwrap(), 5);
    assert_eq!(Arc::strong_count(&held), 2);
    orch.replace::<version>(|()| 6);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[orchestrator::test(start_paused = true)]
async fn the_log_has_every_event_in_order() {
    let log = EventLog::current();
    let orch = Orchestrator::current();
    orch.replace::<fetch>(|repo| match RunContext::current().attempt() {
        1 => Err(std::io::Error::other("no answer")),
        _ => Ok(repo.len() as u64),
    });
    report(repos(["rust"])).await.unwrap();
    log.assert_eq(
        "
        report-0: Pending
        report-0: Running
        github-stars-0: Pending
        github-stars-0: Running
        fetch-0: Pending
        total-0: Pending
        fetch-0: Running
        fetch-0: AwaitingRetry (attempt 1 of 3 failed: no answer; the next starts in 1m 00s)
        fetch-0: Retrying
        fetch-0: Completed
        total-0: Running
        total-0: Completed
        github-stars-0: Completed
        report-0: Completed
        ",
    );
    log.assert_by_run(
        "
        report-0: Pending, Running, Completed
        github-stars-0: Pending, Running, Completed
        fetch-0: Pending, Running, AwaitingRetry, Retrying, Completed
        total-0: Pending, Running, Completed
        ",
    );
    log.assert_contains("fetch-0: Pending\n\n total-0: Running");

    log.clear();
    orch.replace::<fetch>(|_| fails("down"));
    report::configure().run_name("weekly").submit(repos(["a"])).await.unwrap_err();
    let by_run = log.by_run();
    assert!(by_run.starts_with("weekly: Pending, Running, Failed\ngithub-stars-0: Pending"), "{by_run}");
    log.assert_contains(
        "
        total-0: NotReady (upstream task run 'fetch-0' failed: down)
        github-stars-0: Failed (task run 'total-0' did not start: upstream task run 'fetch-0' failed: down)
        ",
    );

    log.clear();
    orch.replace::<github_stars>(|_| fails("no stars"));
    report(repos(["a"])).await.unwrap_err();
    log.assert_contains("report-2: Failed (flow run 'github-stars-0' failed: no stars)");

    log.clear();
    log.assert_eq("");
    assert_eq!(log.by_run(), "");
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_by_run_does_not_depend_on_threads() {
    Orchestrator::current().replace::<fetch>(|repo| repo.len() as u64);
    github_stars(vec!["rust".to_owned(); 50]).await.unwrap();
    let fetches: String = (0..50).map(|n| format!("fetch-{n}: Pending, Running, Completed\n")).collect();
    EventLog::current().assert_by_run(&format!(
        "github-stars-0: Pending, Running, Completed\n{fetches}total-0: Pending, Running, Completed"
    ));
}

#[tokio::test]
async fn an_orchestrator_of_ones_own_has_a_log_if_given_one() {
    let log = EventLog::new();
    let orch = Orchestrator::builder().database_url("memory").observer(log.observer()).build().await.unwrap();
    orch.scope(async {
        version::configure().run_name("named").submit().await.unwrap();
        assert!(catch_unwind(|| EventLog::current()).is_err(), "that log is not the orchestrator's");
    })
    .await;
    log.assert_eq("named: Pending\nnamed: Running\nnamed: Completed");
}

#[orchestrator::test]
async fn a_mismatch_is_shown_as_a_diff() {
    let log = EventLog::current();
    Orchestrator::current().replace::<version>(|()| fails("down"));
    let run = version::configure().retries(1).submit();
    (&run).await.unwrap_err();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        log.assert_eq(
            "
            version-0: Pending
            version-0: Running
            version-0: Completed
            ",
        );
    }));
    assert_eq!(
        said(panic.unwrap_err()),
        "\
the events are not as expected (- expected, + happened):
  version-0: Pending
  version-0: Running
- version-0: Completed
+ version-0: Retrying (attempt 1 of 2 failed: down)
+ version-0: Failed (down)"
    );
    let panic = catch_unwind(AssertUnwindSafe(|| log.assert_by_run("version-0: Pending, Running")));
    assert_eq!(
        said(panic.unwrap_err()),
        "\
the states of the runs are not as expected (- expected, + happened):
- version-0: Pending, Running
+ version-0: Pending, Running, Retrying, Failed"
    );
    let panic = catch_unwind(AssertUnwindSafe(|| log.assert_contains("version-0: Running\nversion-0: Pending")));
    assert_eq!(
        said(panic.unwrap_err()),
        "\
the events do not contain `version-0: Pending` after the lines before it; what happened:
  version-0: Pending
  version-0: Running
  version-0: Retrying (attempt 1 of 2 failed: down)
  version-0: Failed (down)"
    );
    let panic = AssertUnwindSafe(assert_states(&run, ["Pending", "Running", "Completed"])).catch_unwind().await;
    assert_eq!(
        said(panic.unwrap_err()).split("\nasserted at tests/it/kit.rs:").next(),
        Some(
            "\
the states of task run 'version-0' are not as expected (- expected, + happened):
  Pending
  Running
- Completed
+ Retrying
+ Failed
its last message: down"
        )
    );
}

/// The program of the test below, run in a process of its own.
#[orchestrator::test]
async fn child_with_a_wrong_expectation() {
    if std::env::var_os("KIT_TEST").is_some() {
        let run = version();
        (&run).await.unwrap();
        println!("line {}", line!() + 1);
        assert_states(&run, ["Pending", "Completed"]).await;
    }
}

#[test]
fn a_failed_assertion_is_told_with_its_own_line() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kit::child_with_a_wrong_expectation", "--nocapture"]).env("KIT_TEST", "1");
    let output = command.output().unwrap();
    assert!(!output.status.success());
    let (out, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let line: u32 = out.split_once("line ").unwrap().1.lines().next().unwrap().parse().unwrap();
    assert!(said.contains(&format!("panicked at tests/it/kit.rs:{line}:")), "{said}");
    assert!(said.contains("\n  Pending\n+ Running\n  Completed\n"), "{said}");
}
