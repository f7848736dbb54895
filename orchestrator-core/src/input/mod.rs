//! Arguments on their way from the call to the body: values, shared values, and results of other runs.

pub(crate) mod args;
mod gather;
mod map;
mod shapes;

use std::any::Any;
use std::sync::{Arc, OnceLock, PoisonError};

use crate::error::TaskError;
use crate::run::Run;
use crate::sync::{Mutex, MutexGuard};

pub(crate) use args::{Args, Passed, PassedToMap};
pub use args::{Borrowed, Own, Ref};
pub use gather::{Gather, Gathered, Ready, gather, ready};
pub use map::{IntoMapInput, Unmapped, unmapped};

/// Something that a parameter of type `T` accepts: a `T`, an `Arc<T>`, a future of a `T`, or a collection of futures.
///
/// A future passed as an argument *is* the dependency: the run waits for it, and starts with its result.
#[diagnostic::on_unimplemented(
    message = "this parameter takes a `{T}`, or the future of a `{T}`",
    label = "got `{Self}`",
    note = "pass the value itself rather than a reference, or a future of it; what is nested more deeply goes through `gather(..)`"
)]
pub trait IntoInput<T> {
    /// The value or future in the form that runs take.
    fn into_input(self) -> Input<T>;
}

/// An argument that may have to wait for other runs.
pub struct Input<T>(pub(crate) InputKind<T>);

pub(crate) enum InputKind<T> {
    Value(T),
    Shared(Arc<T>),
    /// The result of a run whose output is a `T`.
    Run(Arc<Run>),
    /// One element of a run's result, a `Vec<T>`.
    Element {
        run: Arc<Run>,
        vec: Arc<Vec<T>>,
        index: usize,
    },
    /// Put together from several runs.
    Collect(Box<dyn Collect<T>>),
    /// Put together once, for several runs.
    Once(Arc<CollectOnce<T>>),
}

/// An argument that is put together from results of runs.
pub(crate) trait Collect<T>: Send {
    /// Names each run that must have ended before [`collect`](Self::collect).
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>));
    /// Takes the results.
    fn collect(self: Box<Self>) -> Result<T, TaskError>;
}

/// An argument that one caller puts together and several take.
pub(crate) struct CollectOnce<T> {
    source: Mutex<Option<Box<dyn Collect<T>>>>,
    value: OnceLock<Result<Arc<T>, TaskError>>,
}

impl<T: Send + Sync + 'static> CollectOnce<T> {
    /// Names each run that must have ended before the value is put together; none once somebody is at it.
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        if let Some(collect) = &*self.source() {
            collect.visit(visit);
        }
    }

    /// The value. A second reader waits until it is put together, by code of others, for which the source is not locked. (It waits on a
    /// lock that the checker of `interleavings` knows nothing of.)
    fn get(&self) -> Result<Arc<T>, TaskError> {
        let make = || {
            let source = self.source().take();
            source.expect("it did not panic when another run put it together").collect().map(Arc::new)
        };
        self.value.get_or_init(make).clone()
    }

    fn source(&self) -> MutexGuard<'_, Option<Box<dyn Collect<T>>>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A resolved argument.
pub(crate) enum Held<T> {
    Owned(T),
    Shared(Arc<T>),
    Element(Arc<Vec<T>>, usize),
}

impl<T> Held<T> {
    pub(crate) fn get(&self) -> &T {
        match self {
            Self::Owned(value) => value,
            Self::Shared(value) => value,
            Self::Element(vec, index) => &vec[*index],
        }
    }
}

impl<T> std::fmt::Debug for Input<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            InputKind::Value(_) => "Input::Value",
            InputKind::Shared(_) => "Input::Shared",
            InputKind::Run(_) | InputKind::Element { .. } => "Input::Run",
            InputKind::Collect(_) | InputKind::Once(_) => "Input::Collect",
        })
    }
}

impl<T: Send + Sync + 'static> Input<T> {
    pub(crate) fn collect(collect: impl Collect<T> + 'static) -> Self {
        Self(InputKind::Collect(Box::new(collect)))
    }

    /// Names each run that the argument waits for.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        match &self.0 {
            InputKind::Value(_) | InputKind::Shared(_) => {}
            InputKind::Run(run) | InputKind::Element { run, .. } => visit(run),
            InputKind::Collect(collect) => collect.visit(visit),
            InputKind::Once(once) => once.visit(visit),
        }
    }

    /// The value, now that every run it waits for has ended.
    pub(crate) fn resolve(self) -> Result<Held<T>, TaskError> {
        match self.0 {
            InputKind::Value(value) => Ok(Held::Owned(value)),
            InputKind::Shared(value) => Ok(Held::Shared(value)),
            InputKind::Run(run) => result_of(run).map(Held::Shared),
            InputKind::Element { vec, index, .. } => Ok(Held::Element(vec, index)),
            InputKind::Collect(collect) => collect.collect().map(Held::Owned),
            InputKind::Once(once) => once.get().map(Held::Shared),
        }
    }

    /// Makes the argument one that can be given to several runs.
    pub(crate) fn share(self) -> Self {
        Self(match self.0 {
            InputKind::Value(value) => InputKind::Shared(Arc::new(value)),
            InputKind::Collect(collect) => {
                InputKind::Once(Arc::new(CollectOnce { source: Mutex::new(Some(collect)), value: OnceLock::new() }))
            }
            kind @ (InputKind::Shared(_) | InputKind::Run(_) | InputKind::Element { .. } | InputKind::Once(_)) => kind,
        })
    }

    /// Another handle on an argument made by [`share`](Self::share).
    pub(crate) fn another(&self) -> Self {
        Self(match &self.0 {
            InputKind::Shared(value) => InputKind::Shared(Arc::clone(value)),
            InputKind::Run(run) => InputKind::Run(Arc::clone(run)),
            InputKind::Element { run, vec, index } => {
                InputKind::Element { run: Arc::clone(run), vec: Arc::clone(vec), index: *index }
            }
            InputKind::Once(once) => InputKind::Once(Arc::clone(once)),
            InputKind::Value(_) | InputKind::Collect(_) => unreachable!("`share` leaves no value that has one owner"),
        })
    }
}

/// The result of a run that has ended, typed.
///
/// Takes the handle, so that the last reader of a result is also its last owner.
pub(crate) fn result_of<T: Send + Sync + 'static>(run: Arc<Run>) -> Result<Arc<T>, TaskError> {
    let erased: Arc<dyn Any + Send + Sync> =
        run.outcome().expect("resolved only after every upstream run ended").clone()?;
    drop(run);
    Ok(erased.downcast().unwrap_or_else(|_| unreachable!("a future's type is that of its run's output")))
}

/// The result by value: the original for its last owner, a clone for everyone else.
pub(crate) fn owned<T: Clone + Send + Sync + 'static>(run: Arc<Run>) -> Result<T, TaskError> {
    result_of::<T>(run).map(Arc::unwrap_or_clone)
}
