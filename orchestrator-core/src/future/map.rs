//! The future of a `map`: one task run per element.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::join::{Join, Members};
use super::stream::AsCompleted;
use super::wait::{Wait, WaitState};
use super::{ByClone, TaskFuture};
use crate::body::Erased;
use crate::error::TaskError;
use crate::input::{owned, result_of};
use crate::run::{Run, Stop, Waiter};

/// The results of a `map`, to come: one task run per element. The runs start in any order, under a limit too, where whoever
/// asked first gets its slots first.
///
/// Awaiting gives `Result<Vec<T>, TaskError>`, in the order of the elements, and an error as soon as one run fails;
/// the other runs go on. [`settled`](Self::settled) waits for all and keeps every outcome,
/// [`as_completed`](Self::as_completed) gives results as they come.
pub struct MapFuture<T> {
    runs: Runs<T>,
    progress: Progress<T>,
}

pub(super) enum Runs<T> {
    Known(Arc<Vec<TaskFuture<T>>>),
    /// A run that gives the futures once it has what to map over.
    Later(Arc<Run>, PhantomData<fn() -> T>),
}

enum Progress<T> {
    New,
    Expanding(Wait),
    Joining(Members<T, Join>),
}

impl<T> MapFuture<T> {
    pub(crate) fn known(children: Vec<TaskFuture<T>>) -> Self {
        Self { runs: Runs::Known(Arc::new(children)), progress: Progress::New }
    }

    pub(crate) const fn later(expansion: Arc<Run>) -> Self {
        Self { runs: Runs::Later(expansion, PhantomData), progress: Progress::New }
    }
}

impl<T: Send + Sync + 'static> MapFuture<T> {
    /// The runs' futures, in the order of the elements; `None` while the collection to map over is not there yet.
    #[must_use]
    pub fn children(&self) -> Option<&[TaskFuture<T>]> {
        match &self.runs {
            Runs::Known(children) => Some(children),
            Runs::Later(run, _) => match run.outcome()? {
                Ok(result) => result.downcast_ref::<Vec<TaskFuture<T>>>().map(Vec::as_slice),
                Err(_) => None,
            },
        }
    }

    /// The run that expands the map, where the runs were not known at the call.
    pub(crate) fn expansion(&self) -> Arc<Run> {
        match &self.runs {
            Runs::Later(run, _) => Arc::clone(run),
            Runs::Known(_) => unreachable!("asked only where `children` is `None`"),
        }
    }

    /// The runs' futures, once the expansion has ended.
    pub(crate) fn into_expanded(self) -> Result<Arc<Vec<TaskFuture<T>>>, TaskError> {
        match self.runs {
            Runs::Known(children) => Ok(children),
            Runs::Later(run, _) => result_of(run),
        }
    }

    /// Asks every run of the map to end.
    pub fn cancel(&self) {
        match (&self.runs, self.children()) {
            (_, Some(children)) => children.iter().for_each(TaskFuture::cancel),
            (Runs::Later(run, _), None) => run.cancel(Stop::Request),
            (Runs::Known(_), None) => {}
        }
    }

    /// Says that the runs may fail: their failures do not fail what started them, which still waits for them.
    pub fn tolerate(self) -> Self {
        if let Runs::Later(expansion, _) = &self.runs {
            expansion.observe();
            // Runs that are not known yet are told when they are; the only error is that they are known.
            let _ = expansion.add_waiter(Waiter::Tolerant(visit_children::<T>));
        }
        self.children().unwrap_or_default().iter().for_each(|child| child.as_run().observe());
        self
    }

    /// Waits for all runs and keeps every outcome, in the order of the elements.
    ///
    /// Where nothing could be mapped, because the collections differ in length or the collection's own run failed,
    /// that error is the only element.
    pub fn settled(self) -> Settled<T> {
        Settled(self)
    }

    /// The outcomes as they come.
    pub fn as_completed(self) -> AsCompleted<T> {
        AsCompleted::of(self.runs)
    }

    /// Ready with the place of the first failure, or at the end of all.
    fn poll_join(&mut self, cx: &mut Context<'_>, stop_at_failure: bool) -> Poll<Result<Option<usize>, TaskError>> {
        loop {
            let children = match &mut self.progress {
                Progress::New => match &self.runs {
                    Runs::Known(children) => Arc::clone(children),
                    Runs::Later(run, _) => {
                        self.progress = Progress::Expanding(Wait::new(Arc::clone(run)));
                        continue;
                    }
                },
                Progress::Expanding(wait) => {
                    std::task::ready!(wait.poll(cx))?;
                    result_of(Arc::clone(wait.run()))?
                }
                Progress::Joining(members) => {
                    let outcome = std::task::ready!(members.group().poll(cx, stop_at_failure));
                    if members.group().is_over() {
                        members.all_ended();
                    }
                    members.runs().iter().for_each(|child| child.as_run().observe());
                    return Poll::Ready(Ok(outcome));
                }
            };
            let join = Join::over(children.len());
            self.progress = Progress::Joining(Members::of(children, join)?);
        }
    }
}

/// Visits the runs that the expansion of a map has submitted.
pub(super) fn visit_children<T: Send + Sync + 'static>(result: &Erased, visit: &mut dyn FnMut(&Arc<Run>)) {
    let children: &Vec<TaskFuture<T>> = result.downcast_ref().expect("an expansion gives futures");
    children.iter().for_each(|child| visit(child.as_run()));
}

impl<T> Clone for MapFuture<T> {
    fn clone(&self) -> Self {
        let runs = match &self.runs {
            Runs::Known(children) => Runs::Known(Arc::clone(children)),
            Runs::Later(run, output) => Runs::Later(Arc::clone(run), *output),
        };
        Self { runs, progress: Progress::New }
    }
}

impl<T> std::fmt::Debug for MapFuture<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.runs {
            Runs::Known(children) => write!(f, "MapFuture({} runs)", children.len()),
            Runs::Later(..) => f.write_str("MapFuture(not expanded)"),
        }
    }
}

/// # Cancel safety
///
/// Dropping the future does nothing to the runs.
impl<T: ByClone> Future for MapFuture<T> {
    type Output = Result<Vec<T>, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let failed = std::task::ready!(self.poll_join(cx, true))?;
        let children = self.children().unwrap_or_default();
        Poll::Ready(match failed {
            Some(place) => Err(children[place]
                .as_run()
                .outcome()
                .and_then(|outcome| outcome.as_ref().err().cloned())
                .expect("a failed run has an error")),
            None => children.iter().map(|child| owned(child.run())).collect(),
        })
    }
}

impl<T: ByClone> IntoFuture for &MapFuture<T> {
    type Output = Result<Vec<T>, TaskError>;
    type IntoFuture = MapFuture<T>;

    fn into_future(self) -> MapFuture<T> {
        self.clone()
    }
}

/// Every outcome of a map; made by [`MapFuture::settled`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Settled<T>(MapFuture<T>);

impl<T: ByClone> Future for Settled<T> {
    type Output = Vec<Result<T, TaskError>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match std::task::ready!(self.0.poll_join(cx, false)) {
            Err(error) => vec![Err(error)],
            Ok(_) => self.0.children().unwrap_or_default().iter().map(|child| owned(child.run())).collect(),
        })
    }
}

/// Waits for all of the runs and gives their results in order, or an error as soon as one of them fails; the other runs
/// go on.
///
/// # Cancel safety
///
/// Dropping the future does nothing to the runs.
pub fn join_all<T>(futures: impl IntoIterator<Item = TaskFuture<T>>) -> JoinAll<T> {
    JoinAll(MapFuture::known(futures.into_iter().collect()))
}

/// The results of several runs, in order; made by [`join_all`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct JoinAll<T>(MapFuture<T>);

impl<T: ByClone> Future for JoinAll<T> {
    type Output = Result<Vec<T>, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T: Send + Sync + 'static> MapFuture<T> {
    /// Waits until every run of the map has ended, however it ended.
    pub async fn wait(&self) {
        if self.children().is_none() {
            WaitState::new(self.expansion()).await;
        }
        for child in self.children().unwrap_or_default() {
            child.wait().await;
        }
    }
}
