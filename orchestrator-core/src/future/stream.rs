//! Outcomes as they come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;

use super::join::{Members, Queue};
use super::map::Runs;
use super::wait::Wait;
use super::{ByClone, TaskFuture};
use crate::error::TaskError;
use crate::input::{owned, result_of};

/// The outcomes of the runs as they come, as a stream.
///
/// ```
/// # use orchestrator_core::{TaskError, TaskFuture};
/// use futures::StreamExt;
/// use orchestrator_core::as_completed;
///
/// # async fn first(runs: Vec<TaskFuture<u32>>) -> Option<Result<u32, TaskError>> {
/// let mut outcomes = as_completed(runs);
/// outcomes.next().await
/// # }
/// ```
///
/// # Cancel safety
///
/// Dropping the stream does nothing to the runs.
pub fn as_completed<T>(futures: impl IntoIterator<Item = TaskFuture<T>>) -> AsCompleted<T> {
    AsCompleted::of(Runs::Known(Arc::new(futures.into_iter().collect())))
}

/// The outcomes of several runs as they come; made by [`as_completed`] and
/// [`MapFuture::as_completed`](super::MapFuture::as_completed).
///
/// # Cancel safety
///
/// Dropping the stream does nothing to the runs.
#[must_use = "streams do nothing unless polled"]
pub struct AsCompleted<T>(Stage<T>);

enum Stage<T> {
    Known(Arc<Vec<TaskFuture<T>>>),
    Expanding(Wait),
    /// How many are still to come.
    Coming(Members<T, Queue>, usize),
    Over,
}

impl<T> std::fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Stage::Known(runs) => write!(f, "AsCompleted({} runs)", runs.len()),
            Stage::Expanding(_) => f.write_str("AsCompleted(not expanded)"),
            Stage::Coming(_, left) => write!(f, "AsCompleted({left} runs)"),
            Stage::Over => f.write_str("AsCompleted(over)"),
        }
    }
}

impl<T> AsCompleted<T> {
    pub(super) fn of(runs: Runs<T>) -> Self {
        Self(match runs {
            Runs::Known(runs) => Stage::Known(runs),
            Runs::Later(run, _) => Stage::Expanding(Wait::new(run)),
        })
    }

    /// Gives with each outcome the place of its run among the runs.
    pub const fn indexed(self) -> Indexed<T> {
        Indexed(self)
    }
}

impl<T: ByClone> AsCompleted<T> {
    /// Waits at the runs, once they are known.
    fn poll_members(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TaskError>> {
        let runs = match &mut self.0 {
            Stage::Known(runs) => Arc::clone(runs),
            Stage::Expanding(wait) => {
                ready!(wait.poll(cx))?;
                result_of(Arc::clone(wait.run()))?
            }
            Stage::Coming(..) | Stage::Over => return Poll::Ready(Ok(())),
        };
        let left = runs.len();
        self.0 = Stage::Coming(Members::of(runs, Queue::default())?, left);
        Poll::Ready(Ok(()))
    }

    fn poll_indexed(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, Result<T, TaskError>)>> {
        if let Err(error) = ready!(self.poll_members(cx)) {
            self.0 = Stage::Over;
            return Poll::Ready(Some((0, Err(error))));
        }
        let Stage::Coming(members, left) = &mut self.0 else { return Poll::Ready(None) };
        if *left == 0 {
            members.all_ended();
            self.0 = Stage::Over;
            return Poll::Ready(None);
        }
        let place = ready!(members.group().poll(cx));
        *left -= 1;
        let run = &members.runs()[place];
        run.as_run().observe();
        Poll::Ready(Some((place, owned(run.run()))))
    }
}

impl<T: ByClone> Stream for AsCompleted<T> {
    type Item = Result<T, TaskError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_indexed(cx).map(|next| next.map(|(_, outcome)| outcome))
    }
}

/// The outcomes of several runs as they come, with the places of the runs; made by [`AsCompleted::indexed`].
///
/// Where nothing could be mapped, that error is the only outcome and has the place 0.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Indexed<T>(AsCompleted<T>);

impl<T: ByClone> Stream for Indexed<T> {
    type Item = (usize, Result<T, TaskError>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_indexed(cx)
    }
}
