//! Failures: nothing is silently dropped, and causes are kept.

use orchestrator::prelude::*;

use crate::door::{Calls, at_some_time, states, tasks};

#[task]
async fn broken() -> Result<u32, String> {
    Err("out of paper".into())
}

#[task]
async fn fine(n: u32) -> u32 {
    n
}

#[orchestrator::test]
async fn a_failure_that_nobody_awaited_fails_the_flow() {
    #[flow]
    async fn careless() -> u32 {
        drop(broken());
        1
    }
    let run = careless();
    let error = (&run).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("nobody awaited a run that did not complete: task run 'broken-0' failed: out of paper"),
        "{error}"
    );
    assert_eq!(error.first_cause().task_name(), "broken");
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Failed"]);
}

#[orchestrator::test]
async fn a_skipped_run_that_nobody_awaited_fails_the_flow_with_the_first_cause() {
    #[flow]
    async fn careless() {
        drop(fine(broken()));
    }
    let run = careless();
    let id = run.run_id();
    let error = run.await.unwrap_err();
    assert_eq!(error.first_cause().task_name(), "broken");
    assert_eq!(tasks(id).await, ["broken-0: Failed", "fine-0: NotReady"]);
}

#[orchestrator::test]
async fn a_failure_that_was_handled_does_not() {
    #[flow]
    async fn careful() -> u32 {
        broken().await.unwrap_or(5)
    }
    assert_eq!(careful().await.unwrap(), 5);
}

#[orchestrator::test]
async fn a_failure_in_a_nested_task_that_nobody_awaited_fails_the_task() {
    #[task]
    async fn outer() -> u32 {
        drop(broken());
        1
    }
    let error = outer().await.unwrap_err();
    assert_eq!(error.task_name(), "outer");
    assert_eq!(error.first_cause().task_name(), "broken");
}

#[orchestrator::test]
async fn nothing_that_was_submitted_is_dropped() {
    static CALLS: Calls = Calls::new();
    #[task]
    fn slow(_n: u32) {
        CALLS.one();
    }
    #[flow]
    async fn careless() {
        for n in 0..200 {
            drop(slow(n));
        }
    }
    let run = careless();
    let id = run.run_id();
    run.await.unwrap();
    assert_eq!(CALLS.get(), 200);
    assert!(tasks(id).await.iter().all(|task| task.ends_with(": Completed")));
}

#[orchestrator::test]
async fn the_bodys_own_error_can_be_had() {
    #[derive(Debug, PartialEq)]
    struct Odd(u32);
    impl std::fmt::Display for Odd {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{} is odd", self.0)
        }
    }
    impl std::error::Error for Odd {}
    #[task]
    async fn typed() -> Result<(), Odd> {
        Err(Odd(3))
    }
    #[task]
    async fn wrapped() -> anyhow::Result<()> {
        Err(anyhow::Error::new(Odd(5)).context("while counting"))
    }
    #[task]
    async fn boxed() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err(Odd(7).into())
    }
    assert_eq!(typed().await.unwrap_err().downcast_ref::<Odd>(), Some(&Odd(3)));
    assert_eq!(boxed().await.unwrap_err().downcast_ref::<Odd>(), Some(&Odd(7)));
    let error = wrapped().await.unwrap_err();
    assert_eq!(error.downcast_ref::<Odd>(), Some(&Odd(5)));
    assert_eq!(error.to_string(), "task run 'wrapped-0' failed: while counting: 5 is odd");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "while counting");
}

#[orchestrator::test]
async fn retry_if_decides_by_the_error() {
    static CALLS: Calls = Calls::new();
    fn transient(error: &std::io::Error) -> bool {
        error.kind() == std::io::ErrorKind::TimedOut
    }
    #[task(retries = 5, retry_if = transient)]
    async fn fetch() -> Result<(), std::io::Error> {
        Err(std::io::Error::from(match CALLS.one() {
            1 => std::io::ErrorKind::TimedOut,
            _ => std::io::ErrorKind::NotFound,
        }))
    }
    let run = fetch();
    (&run).await.unwrap_err();
    assert_eq!(CALLS.get(), 2);
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Retrying", "Failed"]);
}

#[orchestrator::test]
async fn a_condition_that_panics_says_no() {
    static CALLS: Calls = Calls::new();
    fn careless(_error: &String) -> bool {
        panic!("never mind")
    }
    #[task(retries = 5, retry_if = careless)]
    async fn fetch() -> Result<(), String> {
        CALLS.one();
        Err("no".into())
    }
    assert_eq!(fetch().await.unwrap_err().to_string(), "task run 'fetch-0' failed: no");
    assert_eq!(CALLS.get(), 1);
}

#[orchestrator::test]
async fn by_value_arguments_are_fresh_for_each_attempt() {
    #[task(retries = 2)]
    async fn eats(mut list: Vec<u32>, #[cache(skip)] other: &str) -> Result<u32, String> {
        let last = list.pop();
        match (RunContext::current().attempt(), other) {
            (3, "x") => last.ok_or_else(|| "empty".to_owned()),
            _ => Err("again".into()),
        }
    }
    assert_eq!(eats(vec![7], "x").await.unwrap(), 7);
}

#[orchestrator::test(start_paused = true)]
async fn a_sync_body_that_overruns_is_marked_on_time_and_its_late_result_ignored() {
    use std::sync::mpsc;
    static RELEASE: std::sync::Mutex<Option<mpsc::Receiver<()>>> = std::sync::Mutex::new(None);
    let (release, gate) = mpsc::channel();
    *RELEASE.lock().unwrap() = Some(gate);
    #[task(timeout_secs = 0.05)]
    fn stubborn() -> u32 {
        let gate = RELEASE.lock().unwrap().take().unwrap();
        let _ = gate.recv();
        1
    }
    // The clock does not move on by itself while a thread of the pool is busy.
    tokio::time::resume();
    let run = stubborn();
    let error = (&run).await.unwrap_err();
    assert!(error.is_timed_out());
    release.send(()).unwrap();
    tokio::task::spawn_blocking(|| ()).await.unwrap();
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "TimedOut"]);
}

#[test]
fn a_call_without_a_runtime_tells_what_is_missing() {
    let orchestrator = Orchestrator::in_memory();
    #[flow]
    async fn lonely() -> u32 {
        1
    }
    let error = futures::executor::block_on(orchestrator.scope(async { lonely().await })).unwrap_err();
    assert!(error.to_string().contains("there is no tokio runtime here"), "{error}");
}

#[orchestrator::test]
async fn a_shut_down_orchestrator_refuses_runs() {
    let orchestrator = Orchestrator::in_memory();
    let (going, state) = orchestrator
        .scope(async {
            #[task]
            async fn endless() {
                std::future::pending::<()>().await;
            }
            let going = endless();
            tokio::task::yield_now().await;
            Orchestrator::current().shutdown().await.unwrap();
            let state = going.state().name;
            assert!(fine(1).await.unwrap_err().to_string().contains("the orchestrator is shut down"));
            (going, state)
        })
        .await;
    assert_eq!(state, "Cancelled");
    assert!(going.await.unwrap_err().is_cancelled());
    orchestrator.shutdown().await.unwrap();
}

#[orchestrator::test]
async fn an_error_that_panics_when_it_is_told_is_still_the_users() {
    #[derive(Debug)]
    struct Unspeakable;
    impl std::fmt::Display for Unspeakable {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no words")
        }
    }
    impl std::error::Error for Unspeakable {}
    #[task]
    async fn speechless() -> Result<(), Unspeakable> {
        Err(Unspeakable)
    }
    let run = speechless();
    let error = (&run).await.unwrap_err();
    assert!(error.to_string().contains("an error whose `Display` panicked: no words"), "{error}");
    assert_eq!(states(run.run_id()).await, ["Pending", "Running", "Failed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_overran_starts_nothing_more() {
    use std::sync::mpsc;
    static GATE: std::sync::Mutex<Option<mpsc::Receiver<()>>> = std::sync::Mutex::new(None);
    static TOLD: std::sync::Mutex<Option<mpsc::Sender<(bool, String)>>> = std::sync::Mutex::new(None);
    let (release, gate) = mpsc::channel();
    let (sender, told) = mpsc::channel();
    *GATE.lock().unwrap() = Some(gate);
    *TOLD.lock().unwrap() = Some(sender);
    #[task(timeout_secs = 0.05, retries = 1)]
    fn overruns() -> u32 {
        let Some(gate) = GATE.lock().unwrap().take() else { return 2 };
        let _ = gate.recv();
        let late = broken();
        let is_cancelled = RunContext::current().is_cancelled();
        TOLD.lock().unwrap().take().unwrap().send((is_cancelled, late.state().message.unwrap())).unwrap();
        1
    }
    let orchestrator = Orchestrator::builder().database_url("memory").build().await.unwrap();
    orchestrator
        .scope(async {
            assert_eq!(overruns().await.unwrap(), 2, "the second attempt is not disturbed by the first");
            release.send(()).unwrap();
            let (is_cancelled, said) = tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
            assert!(is_cancelled);
            assert_eq!(said, "attempt 1 of the run that called it is over");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_overran_starts_nothing_during_the_delay_either() {
    use std::sync::mpsc;
    static GATE: std::sync::Mutex<Option<mpsc::Receiver<()>>> = std::sync::Mutex::new(None);
    static TOLD: std::sync::Mutex<Option<mpsc::Sender<String>>> = std::sync::Mutex::new(None);
    let (release, gate) = mpsc::channel();
    let (sender, told) = mpsc::channel();
    *GATE.lock().unwrap() = Some(gate);
    *TOLD.lock().unwrap() = Some(sender);
    #[task(timeout_secs = 0.05, retries = 1, retry_delay_secs = 0.5)]
    fn overruns() -> u32 {
        let Some(gate) = GATE.lock().unwrap().take() else { return 2 };
        let _ = gate.recv();
        let late = broken();
        TOLD.lock().unwrap().take().unwrap().send(late.state().name).unwrap();
        1
    }
    let orchestrator = Orchestrator::builder().database_url("memory").build().await.unwrap();
    orchestrator
        .scope(async {
            let run = overruns();
            at_some_time(|| run.state().name == "AwaitingRetry").await;
            release.send(()).unwrap();
            let late = tokio::task::spawn_blocking(move || told.recv().unwrap()).await.unwrap();
            assert_eq!(late, "Failed", "it is refused");
            assert_eq!((&run).await.unwrap(), 2, "the second attempt is not disturbed by the first");
        })
        .await;
}
