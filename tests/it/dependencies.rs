//! Dependencies inferred from arguments, in every shape.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use orchestrator::prelude::*;
use orchestrator::{RunId, ready};

#[task]
async fn number(n: u32) -> u32 {
    n
}

#[task]
async fn broken(_n: u32) -> Result<u32, std::io::Error> {
    Err(std::io::Error::other("broken"))
}

#[task]
async fn sum(numbers: &[u32]) -> u32 {
    numbers.iter().sum()
}

#[task]
async fn pair(both: (u32, u32)) -> u32 {
    both.0 * 10 + both.1
}

#[task]
async fn maybe(n: Option<u32>) -> u32 {
    n.unwrap_or(7)
}

#[task]
async fn by_name(numbers: &HashMap<String, u32>) -> u32 {
    numbers.values().sum()
}

#[task]
async fn attempts(all: &[Result<u32, TaskError>]) -> usize {
    all.iter().filter(|one| one.is_ok()).count()
}

#[task]
fn text_and_path(text: &str, path: &Path) -> String {
    format!("{text} {}", path.display())
}

#[task]
async fn triple(all: (String, u32, bool)) -> String {
    format!("{all:?}")
}

async fn upstream_of<T>(run: &TaskFuture<T>) -> Vec<RunId> {
    Orchestrator::current().task_run(run.run_id()).await.unwrap().upstream
}

#[orchestrator::test]
async fn every_shape_resolves() {
    let one = number(1);
    assert_eq!(sum(vec![&one, &number(2)]).await.unwrap(), 3);
    assert_eq!(sum([number(3), number(4)]).await.unwrap(), 7);
    assert_eq!(sum([5, 6]).await.unwrap(), 11);
    assert_eq!(sum(number::map(0..4)).await.unwrap(), 6);
    assert_eq!(pair((number(1), 2)).await.unwrap(), 12);
    assert_eq!(pair((3, number(4))).await.unwrap(), 34);
    assert_eq!(pair((number(5), number(6))).await.unwrap(), 56);
    assert_eq!(pair((7, 8)).await.unwrap(), 78);
    assert_eq!(maybe(None).await.unwrap(), 7);
    assert_eq!(maybe(Some(2)).await.unwrap(), 2);
    assert_eq!(maybe(&one).await.unwrap(), 1);
    assert_eq!(by_name(HashMap::from([("a".to_owned(), number(1)), ("b".to_owned(), number(2))])).await.unwrap(), 3);
    assert_eq!(attempts(vec![number(1), broken(2)]).await.unwrap(), 1);
    assert_eq!(attempts(broken::map(0..3)).await.unwrap(), 0);
    assert_eq!(text_and_path("see", Path::new("x/y")).await.unwrap(), "see x/y");
    assert_eq!(triple(("a".to_owned(), number(2), true)).await.unwrap(), r#"("a", 2, true)"#);
    assert_eq!(sum(Arc::new(vec![1, 2])).await.unwrap(), 3);
}

#[orchestrator::test]
async fn gather_goes_to_any_depth() {
    #[task]
    async fn deep(nested: Vec<BTreeMap<u8, (Option<u32>, Vec<u32>)>>) -> String {
        format!("{nested:?}")
    }
    let nested = vec![
        BTreeMap::from([(1, (Some(number(1)), vec![number(2), number(3)]))]),
        BTreeMap::from([(2, (None, vec![]))]),
    ];
    let run = deep(gather(nested));
    assert_eq!((&run).await.unwrap(), "[{1: (Some(1), [2, 3])}, {2: (None, [])}]");
    assert_eq!(upstream_of(&run).await.len(), 3);
    #[task]
    async fn mixed(all: Vec<(String, u32)>) -> usize {
        all.len()
    }
    assert_eq!(mixed(gather(vec![("a".to_owned(), number(1)), ("b".to_owned(), number(2))])).await.unwrap(), 2);
    #[derive(Clone)]
    struct Own;
    #[task]
    async fn wrapped(_own: (Own, u32)) {}
    wrapped(gather((ready(Own), number(1)))).await.unwrap();
}

#[orchestrator::test]
async fn edges_name_each_upstream_once_in_order() {
    let (a, b) = (number(1), number(2));
    let run = sum(vec![&b, &a, &b]);
    assert_eq!((&run).await.unwrap(), 5);
    assert_eq!(upstream_of(&run).await, [RunId::from(b.run_id()), RunId::from(a.run_id())]);
}

#[orchestrator::test]
async fn values_by_reference_are_not_copied() {
    #[task]
    async fn table() -> Vec<u8> {
        vec![1; 1000]
    }
    #[task]
    async fn address(table: &[u8]) -> usize {
        table.as_ptr().addr()
    }
    let table = table();
    let own = table.shared().await.unwrap().as_ptr().addr();
    assert!(address::map(vec![&table; 50].into_iter().cloned()).await.unwrap().iter().all(|seen| *seen == own));
}

#[orchestrator::test]
async fn the_last_reader_is_given_the_original() {
    #[task]
    async fn table() -> Vec<u8> {
        vec![1; 1000]
    }
    #[task]
    async fn address(table: Vec<u8>) -> usize {
        table.as_ptr().addr()
    }
    let made = table();
    let own = made.shared().await.unwrap().as_ptr().addr();
    let copy = address(&made).await.unwrap();
    assert_ne!(copy, own, "the future still holds the original");
    assert_eq!(address(made).await.unwrap(), own);
}

#[orchestrator::test]
async fn wait_for_orders_without_passing_anything() {
    static ORDER: std::sync::Mutex<Vec<u32>> = std::sync::Mutex::new(Vec::new());
    #[task]
    async fn note(n: u32) {
        tokio::task::yield_now().await;
        ORDER.lock().unwrap().push(n);
    }
    let all = note::map(0..3);
    let last = note::configure().wait_for(&all).submit(9);
    (&last).await.unwrap();
    assert_eq!(ORDER.lock().unwrap().last(), Some(&9));
    assert_eq!(upstream_of(&last).await.len(), 3);
    let failed = broken(1);
    let skipped = number::configure().wait_for(&failed).submit(1);
    assert!(skipped.await.unwrap_err().is_not_ready());
    assert_eq!(number::configure().wait_for_settled(&failed).submit(2).await.unwrap(), 2);
}

#[orchestrator::test]
async fn a_result_parameter_takes_failures() {
    #[task]
    async fn tolerant(outcome: Result<u32, TaskError>) -> String {
        outcome.map_or_else(|error| error.to_string(), |n| n.to_string())
    }
    assert_eq!(tolerant(broken(1)).await.unwrap(), "task run 'broken-0' failed: broken");
    assert_eq!(tolerant(number(1)).await.unwrap(), "1");
}

#[orchestrator::test]
async fn a_flow_future_is_an_input_too() {
    #[flow]
    async fn inner(n: u32) -> u32 {
        n + 1
    }
    #[flow]
    async fn outer() -> Result<u32, TaskError> {
        number(inner(1)).await
    }
    assert_eq!(outer().await.unwrap(), 2);
}

#[orchestrator::test]
async fn a_run_that_would_wait_for_itself_is_an_error() {
    #[flow]
    async fn outer(depth: u32) -> Result<u32, TaskError> {
        static OWN: std::sync::Mutex<Option<FlowFuture<u32>>> = std::sync::Mutex::new(None);
        if depth == 0 {
            let own = outer(1);
            *OWN.lock().unwrap() = Some(own.clone());
            tokio::task::yield_now().await;
            return own.await.map_err(TaskError::from);
        }
        while OWN.lock().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        let own = OWN.lock().unwrap().take().unwrap();
        number(own).await
    }
    let error = outer(0).await.unwrap_err();
    assert!(error.to_string().contains("it would wait for ever for"), "{error}");
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_chain_and_its_drop() {
    #[task]
    async fn next(n: u32) -> u32 {
        n + 1
    }
    let mut last = next(0);
    for _ in 0..20_000 {
        last = next(last);
    }
    assert_eq!(last.await.unwrap(), 20_001);
}

#[test]
fn a_waiting_chain_outlives_its_runtime() {
    #[task]
    async fn endless() -> u32 {
        std::future::pending().await
    }
    #[task]
    async fn next(n: u32) -> u32 {
        n + 1
    }
    let orchestrator = Orchestrator::in_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let last = runtime.block_on(orchestrator.scope(async {
        let mut last = next(endless());
        for _ in 0..100_000 {
            last = next(last);
        }
        last
    }));
    runtime.shutdown_background();
    while !last.state().is_terminal() {
        std::thread::yield_now();
    }
    assert!(["Crashed", "NotReady"].contains(&last.state().name.as_str()), "{:?}", last.state());
}

#[orchestrator::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_chain_of_waits_does_not_outlive_its_runs() {
    #[task]
    async fn unit(_n: u32) {}
    let mut last = unit(0);
    for n in 1..100_000 {
        last = unit::configure().wait_for(&last).submit(n);
    }
    last.await.unwrap();
}

#[orchestrator::test]
async fn a_failure_whose_only_consumer_was_cancelled_fails_the_flow() {
    #[task]
    async fn late() -> Result<u32, String> {
        tokio::task::yield_now().await;
        Err("late".into())
    }
    #[flow]
    async fn careless() {
        let source = late();
        let consumer = number(&source);
        consumer.cancel();
    }
    let error = careless().await.unwrap_err();
    assert_eq!(error.first_cause().task_name(), "late");
}
