//! Arguments of `map`: collections, one element per run, and broadcast values.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Input, InputKind, IntoInput, result_of};
use crate::future::{MapFuture, TaskFuture};
use crate::run::Run;

/// Something that `map` accepts for a parameter of type `T`: a collection of inputs, a [`MapFuture`], the future of a
/// `Vec<T>`, or [`unmapped`] of one input for all runs.
#[diagnostic::on_unimplemented(
    message = "`map` takes a collection of `{T}` here, or futures of it",
    label = "got `{Self}`",
    note = "to give the same value to every run, wrap it: `unmapped(value)`"
)]
pub trait IntoMapInput<T> {
    /// The elements in the form that `map` takes.
    fn into_map_input(self) -> MapArg<T>;
}

/// One argument of `map`.
pub struct MapArg<T>(MapKind<T>);

enum MapKind<T> {
    /// An input for each run.
    Each(VecDeque<Input<T>>),
    /// The same input for every run.
    All(Input<T>),
    /// A run whose result tells the elements, and how.
    Later(Arc<Run>, fn(Arc<Run>) -> VecDeque<Input<T>>),
}

impl<T> std::fmt::Debug for MapArg<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MapArg")
    }
}

impl<T: Send + Sync + 'static> MapArg<T> {
    /// Names the runs that must end before the elements are known.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        if let MapKind::Later(run, _) = &self.0 {
            visit(run);
        }
    }

    /// The number of elements; `None` for a broadcast value. Every visited run has completed.
    pub(crate) fn len(&mut self) -> Option<usize> {
        if let MapKind::Later(run, elements) = &self.0 {
            self.0 = MapKind::Each(elements(Arc::clone(run)));
        }
        match &self.0 {
            MapKind::Each(items) => Some(items.len()),
            MapKind::All(_) | MapKind::Later(..) => None,
        }
    }

    /// The input of the next run.
    pub(crate) fn next(&mut self) -> Input<T> {
        match &mut self.0 {
            MapKind::Each(items) => items.pop_front().expect("lengths were compared before"),
            MapKind::All(input) => input.another(),
            MapKind::Later(..) => unreachable!("`len` told the elements before"),
        }
    }
}

/// A value that `map` gives to every run; made by [`unmapped`].
#[derive(Debug, Clone)]
pub struct Unmapped<I>(I);

/// Gives the same value, or the result of the same future, to every run of a `map`.
///
/// ```
/// # use orchestrator_core::unmapped;
/// let _ = unmapped("the same for all");
/// ```
pub const fn unmapped<I>(input: I) -> Unmapped<I> {
    Unmapped(input)
}

impl<T: Send + Sync + 'static, I: IntoInput<T>> IntoMapInput<T> for Unmapped<I> {
    fn into_map_input(self) -> MapArg<T> {
        MapArg(MapKind::All(self.0.into_input().share()))
    }
}

impl<T, I> IntoMapInput<T> for I
where
    I: IntoIterator,
    I::Item: IntoInput<T>,
{
    fn into_map_input(self) -> MapArg<T> {
        MapArg(MapKind::Each(self.into_iter().map(IntoInput::into_input).collect()))
    }
}

impl<T: Send + Sync + 'static> IntoMapInput<T> for TaskFuture<Vec<T>> {
    fn into_map_input(self) -> MapArg<T> {
        MapArg(MapKind::Later(self.into_run(), |run| {
            let vec: Arc<Vec<T>> = result_of(Arc::clone(&run)).expect("`map` expands only what completed");
            (0..vec.len())
                .map(|index| Input(InputKind::Element { run: Arc::clone(&run), vec: Arc::clone(&vec), index }))
                .collect()
        }))
    }
}

impl<T: Send + Sync + 'static> IntoMapInput<T> for &TaskFuture<Vec<T>> {
    fn into_map_input(self) -> MapArg<T> {
        self.clone().into_map_input()
    }
}

impl<T: Send + Sync + 'static> IntoMapInput<T> for MapFuture<T> {
    fn into_map_input(self) -> MapArg<T> {
        fn inputs<T: Send + Sync + 'static>(children: &[TaskFuture<T>]) -> VecDeque<Input<T>> {
            children.iter().map(|child| Input(InputKind::Run(child.run()))).collect()
        }
        MapArg(match self.children() {
            Some(children) => MapKind::Each(inputs(children)),
            None => MapKind::Later(self.expansion(), |run| {
                let children: Arc<Vec<TaskFuture<T>>> = result_of(run).expect("`map` expands only what completed");
                inputs(&children)
            }),
        })
    }
}

impl<T: Send + Sync + 'static> IntoMapInput<T> for &MapFuture<T> {
    fn into_map_input(self) -> MapArg<T> {
        self.clone().into_map_input()
    }
}
