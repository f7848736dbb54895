//! Waiting for runs to end.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::map::visit_children;
use super::{FlowFuture, MapFuture, TaskFuture, cycle, shared};
use crate::error::TaskError;
use crate::run::{Run, VisitResult, Waiter};
use crate::state::State;

/// One waiting place at one run.
pub(crate) struct Wait {
    run: Arc<Run>,
    place: Option<usize>,
}

impl Wait {
    pub(crate) const fn new(run: Arc<Run>) -> Self {
        Self { run, place: None }
    }

    pub(crate) const fn run(&self) -> &Arc<Run> {
        &self.run
    }

    pub(crate) fn into_run(self) -> Arc<Run> {
        Arc::clone(&self.run)
    }

    /// Ready when the run has ended; an error if it never will, because it is the one that waits.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TaskError>> {
        if self.run.has_ended() {
            self.run.observe();
            return Poll::Ready(Ok(()));
        }
        if self.place.is_none()
            && let Some(error) = cycle::closed_by(&self.run)
        {
            return Poll::Ready(Err(error));
        }
        let waiting = match self.place {
            Some(place) => self.run.update_waker(place, cx.waker()).is_some(),
            None => match self.run.add_waiter(Waiter::Task(cx.waker().clone())) {
                Ok(place) => {
                    self.place = Some(place);
                    true
                }
                Err(_) => false,
            },
        };
        if waiting {
            return Poll::Pending;
        }
        self.place = None;
        self.run.observe();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.run.remove_waiter(place);
        }
    }
}

/// A wait for the end of a run, whatever it is; made by `wait`.
///
/// In the body of a run for which the awaited one waits itself, this is ready at once, with a state that is not
/// [terminal](State::is_terminal): it would wait for ever.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct WaitState(Wait);

impl std::fmt::Debug for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.run.fmt(f)
    }
}

impl WaitState {
    pub(crate) const fn new(run: Arc<Run>) -> Self {
        Self(Wait::new(run))
    }
}

impl Future for WaitState {
    type Output = State;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<State> {
        match self.0.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(self.0.run().state()),
        }
    }
}

/// A wait for a result without taking it; made by `shared`.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Shared<T, E> {
    wait: Wait,
    output: PhantomData<fn() -> (T, E)>,
}

impl<T, E> Shared<T, E> {
    pub(super) const fn new(run: Arc<Run>) -> Self {
        Self { wait: Wait::new(run), output: PhantomData }
    }
}

impl<T: Send + Sync + 'static, E: From<TaskError>> Future for Shared<T, E> {
    type Output = Result<Arc<T>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.wait.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(shared(self.wait.run()).map_err(E::from)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        }
    }
}

/// A run, or the runs that another run will have submitted.
#[derive(Debug, Clone)]
pub struct Upstream(pub(crate) UpstreamKind);

#[derive(Debug, Clone)]
pub(crate) enum UpstreamKind {
    Run(Arc<Run>),
    /// The expansion of a `map`, and how to find the runs in its result.
    Expansion(Arc<Run>, VisitResult),
}

impl Upstream {
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        match &self.0 {
            UpstreamKind::Run(run) => visit(run),
            UpstreamKind::Expansion(run, children) => {
                visit(run);
                if let Some(Ok(result)) = run.outcome() {
                    children(result, visit);
                }
            }
        }
    }
}

/// Anything that can be waited for: a future of a run, a map, or a collection of these.
pub trait Awaitable {
    /// The runs to wait for.
    fn upstreams(&self) -> Vec<Upstream>;
}

impl<T> Awaitable for TaskFuture<T> {
    fn upstreams(&self) -> Vec<Upstream> {
        vec![Upstream(UpstreamKind::Run(self.run()))]
    }
}

impl<T> Awaitable for FlowFuture<T> {
    fn upstreams(&self) -> Vec<Upstream> {
        vec![Upstream(UpstreamKind::Run(self.run()))]
    }
}

impl<T: Send + Sync + 'static> Awaitable for MapFuture<T> {
    fn upstreams(&self) -> Vec<Upstream> {
        match self.children() {
            Some(children) => children.iter().flat_map(Awaitable::upstreams).collect(),
            None => vec![Upstream(UpstreamKind::Expansion(self.expansion(), visit_children::<T>))],
        }
    }
}

impl<A: Awaitable + ?Sized> Awaitable for &A {
    fn upstreams(&self) -> Vec<Upstream> {
        (**self).upstreams()
    }
}

impl<A: Awaitable> Awaitable for [A] {
    fn upstreams(&self) -> Vec<Upstream> {
        self.iter().flat_map(Awaitable::upstreams).collect()
    }
}

impl<A: Awaitable> Awaitable for Vec<A> {
    fn upstreams(&self) -> Vec<Upstream> {
        self.as_slice().upstreams()
    }
}

impl<A: Awaitable, const N: usize> Awaitable for [A; N] {
    fn upstreams(&self) -> Vec<Upstream> {
        self.as_slice().upstreams()
    }
}

macro_rules! tuples {
    ($($($name:ident $index:tt),+;)*) => {$(
        impl<$($name: Awaitable),+> Awaitable for ($($name,)+) {
            fn upstreams(&self) -> Vec<Upstream> {
                let mut all = Vec::new();
                $(all.extend(self.$index.upstreams());)+
                all
            }
        }
    )*};
}

tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
}

/// Waits until every one of the runs has ended, however it ended.
///
/// Except for those that wait for the very run in whose body this is called: waiting for them would never end, and they
/// are passed over.
///
/// # Cancel safety
///
/// Dropping the wait does nothing to the runs.
pub async fn wait_all(futures: impl Awaitable) {
    let upstreams = futures.upstreams();
    drop(futures);
    for upstream in upstreams {
        match upstream.0 {
            UpstreamKind::Run(run) => {
                WaitState::new(run).await;
            }
            UpstreamKind::Expansion(run, children) => {
                WaitState::new(Arc::clone(&run)).await;
                let mut runs = Vec::new();
                if let Some(Ok(result)) = run.outcome() {
                    children(result, &mut |run| runs.push(Arc::clone(run)));
                }
                for run in runs {
                    WaitState::new(run).await;
                }
            }
        }
    }
}
