//! Waiting and waking under a checker that chooses, again and again, which thread goes on.
//!
//! Each test is a small program that runs thousands of times, each time with another schedule. It fails if an assertion
//! does, or if all that is left waits for ever. The whole engine takes part: the checker polls the drivers of the runs. It
//! chooses at each operation of what is in `sync`; what weaker memory orderings allow beyond that is not explored, and what
//! needs a timer or a thread of its own, such as timeouts and sync bodies, has no place here.
//!
//! A failure is printed with its seed, which `SHUTTLE_RANDOM_SEED` repeats, or with the whole schedule, for
//! `shuttle::replay`.
//!
//! Run them with `cargo test -p orchestrator-core --features interleavings interleavings`. Other unit tests fail under
//! that feature: the checker's locks work in its own threads only.

mod flights;
mod inputs;
mod runs;
mod slots;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
use smallbox::smallbox;

use crate::body::{ArgEncoder, ArgError, Attempt, BodyFailure, Codec, Erased};
use crate::def::Def;
use crate::engine::Call;
use crate::error::{BodyError, TaskError};
use crate::future::TaskFuture;
use crate::hook::ResultHooks;
use crate::options::Overrides;
use crate::orchestrator::Orchestrator;
use crate::run::Run;
use crate::submit::{Manner, submit};
use crate::testing::Fakes;

/// How many schedules each test tries with each scheduler; `ORCHESTRATOR_TEST_SCHEDULES` asks for more.
fn schedules() -> usize {
    std::env::var("ORCHESTRATOR_TEST_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

/// Runs a program under many schedules.
fn explore(program: impl Fn() + Send + Sync + Clone + 'static) {
    // Runs want a runtime, but are driven by the checker. The launcher has ways of its own where there are several workers.
    let one = tokio::runtime::Builder::new_current_thread().build();
    let several = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    for runtime in [one, several] {
        let runtime = runtime.expect("a runtime without drivers");
        let _entered = runtime.enter();
        let mut config = Config::new();
        config.stack_size = 1024 * 1024;
        Runner::new(RandomScheduler::new(schedules()), config.clone()).run(program.clone());
        // Few changes of thread at odd moments, rather than many everywhere.
        Runner::new(PctScheduler::new(3, schedules()), config).run(program.clone());
    }
}

/// Runs a program under an orchestrator of its own.
fn explore_runs<F: Future<Output = ()> + 'static>(program: impl Fn(Orchestrator) -> F + Send + Sync + Clone + 'static) {
    explore(move || {
        let orchestrator = Orchestrator::in_memory();
        let limits = shuttle::future::block_on(async {
            orchestrator.scope(program(orchestrator.clone())).await;
            orchestrator.shutdown().await.expect("all is stored");
            orchestrator.limits().await.expect("they are in memory")
        });
        assert!(limits.iter().all(|limit| (limit.taken, limit.waiting) == (0, 0)), "{limits:?}");
    });
}

/// A task of these tests: waits for runs, then does what `body` says, with the number of the attempt.
struct Plain<B> {
    after: Vec<Arc<Run>>,
    key: Option<String>,
    body: B,
}

fn failure(said: &str) -> BodyFailure {
    BodyFailure { error: BodyError::new(said.to_owned()), retryable: true }
}

impl<B, F> Call for Plain<B>
where
    B: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<u32, &'static str>> + Send + 'static,
{
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        self.after.iter().for_each(visit);
    }

    fn resolve(&mut self) -> Result<(), TaskError> {
        let after = std::mem::take(&mut self.after);
        assert!(after.iter().all(|run| run.has_ended()), "all upstream runs have ended");
        after.iter().find_map(|run| run.outcome()?.as_ref().err().cloned()).map_or(Ok(()), Err)
    }

    fn attempt(&mut self, _last: bool, _fakes: &Fakes) -> Attempt {
        let body = (self.body)();
        Attempt::from_future(async move { body.await.map(|value| Arc::new(value) as Erased).map_err(failure) })
    }

    fn run_name(&self) -> Option<String> {
        None
    }

    fn cache_key(&self) -> Option<Option<String>> {
        self.key.clone().map(Some)
    }

    fn encode(&self, encoder: ArgEncoder<'_>) -> Result<(), ArgError> {
        encoder.finish()
    }

    fn codec(&self) -> Option<&'static Codec> {
        None
    }

    fn result_hooks(&self) -> ResultHooks {
        ResultHooks::default()
    }

    fn gives(&self, value: &Erased) -> bool {
        value.is::<u32>()
    }
}

/// A task without options.
static TASK: Def = Def::task("task", "interleavings::task");

/// Submits a run that waits for others.
fn call<B, F>(def: &'static Def, after: &[&TaskFuture<u32>], body: B) -> TaskFuture<u32>
where
    B: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<u32, &'static str>> + Send + 'static,
{
    let after = after.iter().map(|future| future.run()).collect();
    let key = def.has_cache_key.then(|| "key".to_owned());
    TaskFuture::new(submit(def, Overrides::NONE, smallbox!(Plain { after, key, body }), Manner::Call))
}

/// Lets the others go on.
async fn pass() {
    struct Pass(bool);
    impl Future for Pass {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
    Pass(false).await;
}

/// How many are inside at a time.
#[derive(Default, Clone)]
struct Inside(Arc<(AtomicUsize, AtomicUsize)>);

struct Entered(Inside, usize);

impl Inside {
    fn enter(&self, count: usize) -> Entered {
        let now = self.0.0.fetch_add(count, Ordering::Relaxed) + count;
        self.0.1.fetch_max(now, Ordering::Relaxed);
        Entered(self.clone(), count)
    }

    /// The most that there ever were.
    fn most(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}
