//! Futures of runs at scale: many at once, many waiters, deep nesting, other threads and runtimes.

use std::sync::atomic::{AtomicBool, Ordering};

use orchestrator::prelude::*;

use crate::door::{last_message, soon};

#[orchestrator::test]
async fn tasks_submit_themselves_to_any_depth() {
    #[task]
    async fn down(n: u32) -> Result<u32, TaskError> {
        if n == 0 { Ok(0) } else { Ok(down(n - 1).await? + 1) }
    }
    assert_eq!(down(1000).await.unwrap(), 1000);
}

#[orchestrator::test]
async fn a_failure_climbs_through_thousands_of_runs() {
    static INNERMOST: std::sync::Mutex<Option<TaskFuture<u32>>> = std::sync::Mutex::new(None);
    #[task]
    async fn down(n: u32) -> Result<u32, TaskError> {
        let next = if n == 1 { broken() } else { down(n - 1) };
        *INNERMOST.lock().unwrap() = Some(next.clone());
        Ok(next.await? + 1)
    }
    #[task]
    async fn broken() -> Result<u32, String> {
        Err("out of paper".into())
    }
    let run = down(20_000);
    let error = (&run).await.unwrap_err();
    assert_eq!(error.first_cause().task_name(), "broken");
    assert_eq!(
        error.to_string(),
        "task run 'down-0' failed: task run 'down-1' failed: task run 'down-2' failed: … (19997 more) …: \
         task run 'broken-0' failed: out of paper"
    );
    assert_eq!(
        last_message(run.run_id()).await,
        "task run 'down-1' failed: task run 'down-2' failed: task run 'down-3' failed: … (19996 more) …: \
         task run 'broken-0' failed: out of paper"
    );
    drop((run, error));
    // The last reference to the innermost run is the last one to all those around it.
    drop(INNERMOST.lock().unwrap().take());
}

#[orchestrator::test]
async fn a_failure_that_bodies_wrap_is_told_in_a_line() {
    #[derive(Debug)]
    struct Wrapped(TaskError);
    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "below: {}", self.0)
        }
    }
    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    #[task]
    async fn down(n: u32) -> Result<u32, Wrapped> {
        match n {
            0 => panic!("the bottom"),
            n => down(n - 1).await.map_err(Wrapped),
        }
    }
    let error = down(5000).await.unwrap_err();
    let said = error.to_string();
    assert!(said.starts_with("task run 'down-0' failed: below: task run 'down-1' failed: below: task"), "{said}");
    assert!(said.contains("… (4997 more) …: task run 'down-5000' failed: panicked: the bottom at "), "{said}");
    assert!(said.len() < 1000, "{said}");
    assert_eq!(error.first_cause().run_name(), "down-5000");
}

#[tokio::test]
async fn sync_bodies_that_wait_for_sync_bodies_need_no_room_in_the_pool() {
    #[task]
    fn down(n: u32) -> Result<u32, TaskError> {
        if n == 0 { Ok(0) } else { Ok(futures::executor::block_on(down(n - 1))? + 1) }
    }
    #[task]
    fn wide(n: u32) -> Result<u32, TaskError> {
        let runs: Vec<_> = (0..n).map(|_| down(2)).collect();
        futures::executor::block_on(async {
            let mut sum = 0;
            for run in runs {
                sum += run.await?;
            }
            Ok(sum)
        })
    }
    let orchestrator = Orchestrator::builder().database_url("memory").blocking_threads(1).build().await.unwrap();
    orchestrator
        .scope(async {
            assert_eq!(down(600).await.unwrap(), 600);
            let many: Vec<_> = (0..4).map(|_| wide(5)).collect();
            for run in many {
                assert_eq!(run.await.unwrap(), 10);
            }
        })
        .await;
}

#[orchestrator::test]
async fn a_body_that_awaits_what_depends_on_it_is_told_so() {
    static LATER: std::sync::Mutex<Option<TaskFuture<u32>>> = std::sync::Mutex::new(None);
    #[task]
    async fn outer() -> Result<u32, TaskError> {
        inner().await
    }
    #[task]
    async fn inner() -> Result<u32, TaskError> {
        let later = LATER.lock().unwrap().take().unwrap();
        later.await
    }
    #[task]
    async fn after(n: u32) -> u32 {
        n
    }
    let run = outer();
    let middle = after(&run);
    *LATER.lock().unwrap() = Some(after(&middle));
    let error = run.await.unwrap_err();
    assert_eq!(
        error.first_cause().to_string(),
        "task run 'inner-0' was refused: it would wait for ever: 'after-1' is awaited in the body of 'inner-0', and \
         'after-1' waits for 'after-0', 'after-0' waits for 'outer-0', 'outer-0' waits for 'inner-0'"
    );
    assert_eq!(middle.await.unwrap_err().first_cause().task_name(), "inner");
}

#[orchestrator::test]
async fn a_body_that_awaits_a_run_with_a_part_that_depends_on_it_is_told_so() {
    use std::sync::Mutex;
    static FIRST: Mutex<Option<TaskFuture<u32>>> = Mutex::new(None);
    static WHOLE: Mutex<Option<FlowFuture<u32>>> = Mutex::new(None);
    static STARTED: AtomicBool = AtomicBool::new(false);
    #[task]
    async fn first() -> Result<u32, orchestrator::FlowError> {
        while !STARTED.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let whole = WHOLE.lock().unwrap().take().unwrap();
        whole.await
    }
    #[task]
    async fn part(n: u32) -> u32 {
        n
    }
    #[flow]
    async fn whole() -> Result<u32, TaskError> {
        let first = FIRST.lock().unwrap().take().unwrap();
        let part = part(first);
        STARTED.store(true, Ordering::SeqCst);
        part.await
    }
    let one = first();
    *FIRST.lock().unwrap() = Some(one.clone());
    let run = whole();
    *WHOLE.lock().unwrap() = Some(run.clone());
    let error = one.await.unwrap_err().to_string();
    assert!(error.contains("'part-0' waits for 'first-0'"), "{error}");
    assert_eq!(run.await.unwrap_err().first_cause().task_name(), "first");
}

#[orchestrator::test]
async fn a_map_awaited_by_one_of_its_runs_is_an_error() {
    static MAP: std::sync::Mutex<Option<MapFuture<u32>>> = std::sync::Mutex::new(None);
    #[task]
    async fn member(n: u32) -> Result<u32, TaskError> {
        let map = MAP.lock().unwrap().take();
        match map {
            Some(map) => map.await.map(|all| all.len() as u32),
            None => Ok(n),
        }
    }
    let map = member::map(0..3);
    *MAP.lock().unwrap() = Some(map.clone());
    let outcomes = map.settled().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1);
    let said = outcomes[0].as_ref().unwrap_err().to_string();
    assert!(said.contains("'member-0' is awaited in the body of 'member-0', which is the same run"), "{said}");
}

#[orchestrator::test]
async fn a_run_that_would_wait_for_what_depends_on_its_caller_is_refused() {
    static LATER: std::sync::Mutex<Option<TaskFuture<u32>>> = std::sync::Mutex::new(None);
    #[task]
    async fn outer() -> Result<u32, TaskError> {
        let later = LATER.lock().unwrap().take().unwrap();
        after(later).await
    }
    #[task]
    async fn after(n: u32) -> u32 {
        n
    }
    let run = outer();
    *LATER.lock().unwrap() = Some(after(&run));
    let error = run.await.unwrap_err();
    assert_eq!(
        error.first_cause().to_string(),
        "task run 'after-1' was refused: it would wait for ever for 'after-0': 'after-0' waits for 'outer-0', of \
         which it is a part"
    );
}

#[orchestrator::test]
async fn code_that_a_body_gave_away_may_wait_for_its_run() {
    static RUN: std::sync::Mutex<Option<TaskFuture<u32>>> = std::sync::Mutex::new(None);
    static HEARD: std::sync::Mutex<Option<tokio::task::JoinHandle<u32>>> = std::sync::Mutex::new(None);
    #[task]
    async fn watched() -> u32 {
        let own = RUN.lock().unwrap().take().unwrap();
        let heard = tokio::spawn(async move { own.await.unwrap() + 1 }.in_current_run());
        *HEARD.lock().unwrap() = Some(heard);
        1
    }
    let run = watched();
    *RUN.lock().unwrap() = Some(run.clone());
    assert_eq!(run.await.unwrap(), 1);
    let heard = HEARD.lock().unwrap().take().unwrap();
    assert_eq!(heard.await.unwrap(), 2);
}

#[orchestrator::test]
async fn join_all_keeps_the_order_and_fails_at_once() {
    #[task]
    async fn after(steps: u32) -> Result<u32, String> {
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        if steps == 7 { Err("seven".into()) } else { Ok(steps) }
    }
    #[task]
    async fn endless() -> u32 {
        std::future::pending().await
    }
    assert_eq!(orchestrator::join_all([after(90), after(10), after(30)]).await.unwrap(), [90, 10, 30]);
    assert_eq!(orchestrator::join_all(Vec::<TaskFuture<u32>>::new()).await.unwrap(), Vec::<u32>::new());
    let endless = endless();
    let error = orchestrator::join_all([endless.clone(), after(7)]).await.unwrap_err();
    assert_eq!(error.to_string(), "task run 'after-3' failed: seven");
    assert_eq!(endless.state().name, "Running", "the others go on");
    endless.cancel();
}

#[orchestrator::test]
async fn outcomes_come_as_they_are_ready_and_name_their_runs() {
    use futures::StreamExt;
    #[task]
    async fn after(steps: u32) -> Result<u32, String> {
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        if steps == 30 { Err("thirty".into()) } else { Ok(steps) }
    }
    let runs = [after(90), after(10), after(30)];
    let stream = orchestrator::as_completed(runs.clone()).indexed();
    let outcomes: Vec<_> = stream.map(|(place, outcome)| (place, outcome.ok())).collect().await;
    assert_eq!(outcomes, [(1, Some(10)), (2, None), (0, Some(90))]);
    let again: Vec<_> = orchestrator::as_completed(runs).collect().await;
    assert_eq!(again.len(), 3, "runs that have ended come at once");
    assert_eq!(orchestrator::as_completed(Vec::<TaskFuture<u32>>::new()).count().await, 0);
}

#[orchestrator::test(start_paused = true)]
async fn a_timeout_on_waiting_leaves_the_run_alone() {
    use std::time::Duration;
    #[task]
    async fn slow() -> u32 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        7
    }
    let mut run = slow();
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut run).await.is_err());
    assert!(tokio::time::timeout(Duration::from_secs(1), run.wait()).await.is_err());
    let joined = orchestrator::join_all([run.clone(), run.clone()]);
    assert!(tokio::time::timeout(Duration::from_secs(1), joined).await.is_err());
    assert_eq!(run.state().name, "Running");
    tokio::select! {
        outcome = &mut run => panic!("not yet: {outcome:?}"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    assert_eq!(soon(run).await.unwrap(), 7);
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_future_is_awaited_anywhere() {
    #[task]
    async fn gated() -> String {
        while !GATE.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        "here".to_owned()
    }
    static GATE: AtomicBool = AtomicBool::new(false);
    let run = gated();
    let (one, two, three, unawaited) = (run.clone(), run.clone(), run.clone(), run.clone());
    drop(unawaited);
    let task = tokio::spawn(one);
    let thread = std::thread::spawn(move || futures::executor::block_on(two));
    let runtime =
        std::thread::spawn(move || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(three));
    GATE.store(true, Ordering::SeqCst);
    assert_eq!(task.await.unwrap().unwrap(), "here");
    assert_eq!(thread.join().unwrap().unwrap(), "here");
    assert_eq!(runtime.join().unwrap().unwrap(), "here");
    assert_eq!(*run.shared().await.unwrap(), "here");
}

#[orchestrator::test]
async fn a_thousand_wait_for_one() {
    use futures::FutureExt;
    #[task]
    async fn one() -> u32 {
        let gate = GATE.lock().unwrap().take().unwrap();
        gate.await.unwrap()
    }
    #[task]
    async fn takes(n: u32, own: u32) -> u32 {
        n + own
    }
    static GATE: std::sync::Mutex<Option<tokio::sync::oneshot::Receiver<u32>>> = std::sync::Mutex::new(None);
    let (open, gate) = tokio::sync::oneshot::channel();
    *GATE.lock().unwrap() = Some(gate);
    let run = one();
    let mut waiters: Vec<_> = (0..1000).map(|_| tokio::spawn(run.clone())).collect();
    let dependants: Vec<_> = (0..1000).map(|own| takes(&run, own)).collect();
    let mut joins: Vec<_> = (0..1000).map(|_| orchestrator::join_all([run.clone()])).collect();
    tokio::task::yield_now().await;
    assert!(joins.iter_mut().all(|join| join.now_or_never().is_none()));
    waiters.drain(..500).for_each(|waiter| waiter.abort());
    joins.truncate(10);
    tokio::task::yield_now().await;
    open.send(1).unwrap();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap(), 1);
    }
    for join in joins {
        assert_eq!(join.await.unwrap(), [1]);
    }
    let sum: u32 = orchestrator::join_all(dependants).await.unwrap().into_iter().sum();
    assert_eq!(sum, 1000 + 999 * 1000 / 2);
}

#[orchestrator::test]
async fn whoever_stops_waiting_leaves_nothing_with_the_runs() {
    use std::sync::Arc;
    use std::task::{Context, Wake, Waker};

    use futures::{FutureExt, StreamExt};
    struct Woken;
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {}
    }
    #[task]
    async fn endless(n: u32) -> u32 {
        std::future::pending::<()>().await;
        n
    }
    let mut map = endless::map(0..3);
    let runs = map.children().unwrap().to_vec();
    let woken = Arc::new(Woken);
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    for _ in 0..3 {
        let mut settled = map.clone().settled();
        let mut stream = map.clone().as_completed();
        let mut joined = orchestrator::join_all(runs.clone());
        assert!(settled.poll_unpin(&mut cx).is_pending());
        assert!(stream.poll_next_unpin(&mut cx).is_pending());
        assert!(joined.poll_unpin(&mut cx).is_pending());
        assert!(map.poll_unpin(&mut cx).is_pending());
        map = map.clone();
    }
    drop(waker);
    // The map itself has not been polled since it was cloned, and everybody else is gone.
    assert_eq!(Arc::strong_count(&woken), 1);
    map.cancel();
}

#[orchestrator::test]
async fn the_first_one_wins_a_race() {
    #[task]
    async fn after(steps: u32) -> u32 {
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
        steps
    }
    let (slow, fast) = (after(500), after(5));
    let first = tokio::select! {
        slow = &slow => slow,
        fast = fast => fast,
    };
    assert_eq!(first.unwrap(), 5);
    assert_eq!(slow.await.unwrap(), 500);
}
