//! Requests that wait, are given up, and are polled by whoever likes.

use super::*;

#[orchestrator::test(start_paused = true)]
async fn a_wide_request_is_served_though_narrow_ones_keep_coming() {
    static SERVED: AtomicUsize = AtomicUsize::new(0);
    #[task(concurrency = "pool")]
    async fn narrow() {
        tokio::time::sleep(Duration::from_secs(2)).await;
        SERVED.fetch_add(1, Ordering::SeqCst);
    }
    #[task(concurrency = ("pool", slots = 3))]
    async fn wide() -> usize {
        SERVED.load(Ordering::SeqCst)
    }
    Orchestrator::current().limit("pool", 3).await.unwrap();
    // One comes each second and stays for two: never are all three slots free by chance.
    let first: Vec<_> = (0..3).map(|_| narrow()).collect();
    until_running(&first[2]).await;
    let wide = wide();
    until_waiting(&wide).await;
    let mut later = Vec::new();
    for _ in 0..10 {
        later.push(narrow());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((&wide).await.unwrap(), 3, "it was served after those that came before it");
    assert_eq!(states(wide.run_id()).await, WAITED);
    for run in later {
        run.await.unwrap();
    }
}

#[orchestrator::test]
async fn a_request_for_several_names_is_not_starved_by_requests_for_one() {
    #[task(concurrency = ["a", "b"])]
    async fn both() {}
    let orchestrator = Orchestrator::current();
    orchestrator.limit("a", 1).await.unwrap();
    orchestrator.limit("b", 1).await.unwrap();
    let a = concurrency("a", 1).await.unwrap();
    let b = concurrency("b", 1).await.unwrap();
    let both = both();
    until_waiting(&both).await;
    let mut later_a = concurrency("a", 1);
    let mut later_b = concurrency("b", 1);
    assert!((&mut later_a).now_or_never().is_none());
    assert!((&mut later_b).now_or_never().is_none());
    drop(a);
    assert!((&mut later_a).now_or_never().is_none(), "`a` is free, but not for who came later");
    drop(b);
    both.await.unwrap();
    drop((later_a.await.unwrap(), later_b.await.unwrap()));
}

#[orchestrator::test(start_paused = true)]
async fn a_timeout_says_what_was_waited_for_and_who_holds_it() {
    #[task(concurrency = "db")]
    async fn load() {
        std::future::pending::<()>().await;
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("db", 2).await.unwrap();
    orchestrator.limit("door", 0).await.unwrap();
    let load = load();
    until_running(&load).await;
    let own = concurrency("db", 1).await.unwrap();
    let start = Instant::now();
    let error = concurrency(["db", "door"], 1).timeout(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 5);
    assert!(error.is_timed_out() && !error.is_limit(), "{error}");
    let said = error.to_string();
    let rest = said.strip_prefix("waited 5s for a slot of limit 'db' (2 of 2 taken), held by 'load-0' since ").unwrap();
    assert!(rest.contains(" and code outside of any run since "), "{said}");
    assert!(rest.ends_with(" and a slot of limit 'door', which has none"), "{said}");
    assert_eq!(taken("db").await, (2, 0), "the queue was left");
    let error = concurrency("db", 1).timeout(Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().starts_with("did not wait for a slot of limit 'db' (2 of 2 taken), held by"), "{error}");
    drop(own);
    drop(concurrency("db", 1).timeout(Duration::ZERO).await.unwrap());
    drop(concurrency("db", 1).timeout(Duration::MAX).await.unwrap());
}

#[orchestrator::test(start_paused = true)]
async fn a_request_that_times_out_lets_the_next_one_pass() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("pool", 2).await.unwrap();
    let held = concurrency("pool", 1).await.unwrap();
    let wide = concurrency("pool", 2).timeout(Duration::from_secs(3));
    let narrow = async {
        tokio::task::yield_now().await;
        let guard = concurrency("pool", 1).timeout(Duration::from_secs(10)).await.unwrap();
        (Instant::now(), guard)
    };
    let start = Instant::now();
    let (wide, (at, _guard)) = tokio::join!(wide, narrow);
    assert!(wide.unwrap_err().is_timed_out());
    assert_eq!((at - start).as_secs(), 3);
    drop(held);
}

#[orchestrator::test(start_paused = true)]
async fn waiting_for_slots_works_with_what_works_with_futures() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    orchestrator.limit("two", 1).await.unwrap();
    let (one, two) = tokio::join!(concurrency("one", 1), concurrency("two", 1));
    let one = (one.unwrap(), two.unwrap()).0;
    tokio::time::timeout(Duration::from_secs(1), concurrency("one", 1)).await.unwrap_err();
    tokio::select! {
        _ = concurrency("one", 1) => panic!("it is held"),
        guard = concurrency("two", 1) => drop(guard.unwrap()),
    }
    assert_eq!(taken("one").await, (1, 0));
    drop(one);
    fn assert_send<T: Send + Unpin + 'static>(future: T) -> T {
        future
    }
    let names = vec!["one".to_owned(), "two".to_owned()];
    let guard = tokio::spawn(assert_send(concurrency(names, 1))).await.unwrap().unwrap();
    assert_eq!(guard.limits().collect::<Vec<_>>(), ["one", "two"]);
    drop(assert_send(rate_limit("one")));
}

#[orchestrator::test]
async fn the_queue_is_joined_at_the_first_poll_under_the_run_of_the_call() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 1).await.unwrap();
    let held = concurrency("one", 1).await.unwrap();
    let mut made_first = concurrency("one", 1);
    let mut polled_first = concurrency("one", 1);
    assert!((&mut polled_first).now_or_never().is_none());
    assert!((&mut made_first).now_or_never().is_none());
    drop(held);
    let guard = (&mut polled_first).now_or_never().unwrap().unwrap();
    assert!((&mut made_first).now_or_never().is_none());
    drop(guard);
    drop(made_first.await.unwrap());

    // Polled by a task of tokio's, which knows neither orchestrator nor run.
    let mut later = concurrency("one", 1);
    #[task]
    async fn elsewhere() -> Arc<Mutex<orchestrator::Acquiring>> {
        Arc::new(Mutex::new(concurrency("one", 1)))
    }
    let of_a_run = elsewhere().shared().await.unwrap();
    let of_a_run = std::mem::replace(&mut *of_a_run.lock().unwrap(), concurrency("one", 1));
    let guard = tokio::spawn(of_a_run).await.unwrap().unwrap();
    assert!((&mut later).now_or_never().is_none());
    drop(guard);
    drop(tokio::spawn(later).await.unwrap().unwrap());
}

#[orchestrator::test]
async fn ten_thousand_that_wait_and_are_cancelled() {
    #[task(concurrency = "db")]
    async fn query(_n: u32) {
        std::future::pending::<()>().await;
    }
    #[flow]
    async fn holds_and_starts() {
        // Its tasks could wait for it: each is asked whether that is a cycle.
        let _guard = concurrency("other", 1).await.unwrap();
        let runs: Vec<_> = (0..10_000).map(query).collect();
        until_waiting(&runs[9_999]).await;
        assert_eq!(taken("db").await, (2, 9_998));
        // From the middle first: no place in the queue is nearer than another.
        runs[5_000..].iter().chain(&runs[..5_000]).for_each(TaskFuture::cancel);
        for run in &runs {
            run.wait().await;
        }
    }
    let orchestrator = Orchestrator::current();
    orchestrator.limit("other", 1).await.unwrap();
    orchestrator.limit("db", 2).await.unwrap();
    holds_and_starts().await.unwrap();
    assert_eq!(taken("db").await, (0, 0));
    assert_eq!(taken("other").await, (0, 0));
}

/// Calls the orchestrator when it is woken and when it is dropped, and may panic.
struct Reentrant {
    orchestrator: Orchestrator,
    panics: bool,
    woken: AtomicUsize,
}

impl Reentrant {
    fn new(panics: bool) -> Arc<Self> {
        Arc::new(Self { orchestrator: Orchestrator::current(), panics, woken: AtomicUsize::new(0) })
    }

    fn look(&self) {
        assert_eq!(self.orchestrator.limits().now_or_never().unwrap().unwrap().len(), 1);
    }
}

impl Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        self.look();
        self.woken.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "a waker that panics");
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        self.look();
    }
}

fn poll(future: &mut orchestrator::Acquiring, waker: &Waker) -> Poll<Result<SlotGuard, orchestrator::Error>> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

#[orchestrator::test]
async fn wakers_are_code_of_others() {
    let orchestrator = Orchestrator::current();
    orchestrator.limit("one", 0).await.unwrap();
    let (first, second, third) = (Reentrant::new(false), Reentrant::new(true), Reentrant::new(false));
    let mut changed = concurrency("one", 1);
    assert!(poll(&mut changed, &first.into()).is_pending());
    // Dropping the first waker looks at the limits.
    assert!(poll(&mut changed, &Arc::clone(&second).into()).is_pending());
    let mut other = concurrency("one", 1);
    assert!(poll(&mut other, &Arc::clone(&third).into()).is_pending());
    orchestrator.limit("one", 1).await.unwrap();
    assert_eq!(second.woken.load(Ordering::SeqCst), 1);
    assert_eq!(third.woken.load(Ordering::SeqCst), 1, "another waker's panic is no concern of this one");
    drop((changed, second));
    drop(other.await.unwrap());
}

#[orchestrator::test]
async fn slots_belong_to_the_run_of_the_call_while_it_is_there() {
    #[task]
    async fn asks() -> Arc<Mutex<Option<orchestrator::Acquiring>>> {
        Arc::new(Mutex::new(Some(concurrency("db", 1))))
    }
    #[task(concurrency = "db")]
    async fn waits() {}
    let orchestrator = Orchestrator::current();
    orchestrator.limit("db", 1).await.unwrap();
    let holder = async |waiting: &TaskFuture<()>| {
        until_waiting(waiting).await;
        let explained = orchestrator.explain(waiting.run_id()).await.unwrap();
        let orchestrator::Why::Slots(limits) = explained.why else { panic!("{explained:?}") };
        limits[0].holders[0].name.clone()
    };
    // Taken and given back outside of the run's body.
    let run = asks();
    let asked = (&run).await.unwrap().lock().unwrap().take().unwrap();
    let guard = asked.await.unwrap();
    let waiting = waits();
    assert_eq!(holder(&waiting).await.as_deref(), Some("asks-0"));
    drop(guard);
    waiting.await.unwrap();
    drop(run);
    // Nobody has the run any more.
    let asked = asks().await.unwrap().lock().unwrap().take().unwrap();
    settle().await;
    let guard = asked.await.unwrap();
    let waiting = waits();
    let name = holder(&waiting).await;
    assert!(name.is_none() || name.as_deref() == Some("asks-1"), "{name:?}");
    drop(guard);
    waiting.await.unwrap();
    assert_eq!(taken("db").await, (0, 0));
}
