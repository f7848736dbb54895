//! Every shape that stands for a `T`, a collection of `T`, or a tolerated failure of `T`.
//!
//! The identity and these concrete shapes coexist for the compiler; a container of another generic `IntoInput` would
//! not, which is why deeper nesting goes through [`gather`](super::gather).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::gather::{Gather, Gathered, ready};
use super::{Collect, Input, InputKind, IntoInput, owned};
use crate::error::{FlowError, TaskError};
use crate::future::{FlowFuture, MapFuture, TaskFuture};
use crate::run::Run;

impl<T> IntoInput<T> for T {
    fn into_input(self) -> Input<T> {
        Input(InputKind::Value(self))
    }
}

impl<T> IntoInput<T> for Arc<T> {
    fn into_input(self) -> Input<T> {
        Input(InputKind::Shared(self))
    }
}

impl IntoInput<String> for &str {
    fn into_input(self) -> Input<String> {
        Input(InputKind::Value(self.to_owned()))
    }
}

impl IntoInput<PathBuf> for &Path {
    fn into_input(self) -> Input<PathBuf> {
        Input(InputKind::Value(self.to_owned()))
    }
}

impl<T> IntoInput<T> for TaskFuture<T> {
    fn into_input(self) -> Input<T> {
        Input(InputKind::Run(self.into_run()))
    }
}

impl<T> IntoInput<T> for &TaskFuture<T> {
    fn into_input(self) -> Input<T> {
        Input(InputKind::Run(self.run()))
    }
}

impl<T> IntoInput<T> for FlowFuture<T> {
    fn into_input(self) -> Input<T> {
        Input(InputKind::Run(self.into_run()))
    }
}

impl<T> IntoInput<T> for &FlowFuture<T> {
    fn into_input(self) -> Input<T> {
        Input(InputKind::Run(self.run()))
    }
}

impl<T: Send + Sync + 'static> IntoInput<T> for Gathered<T> {
    fn into_input(self) -> Input<T> {
        Input(InputKind::Collect(self.0))
    }
}

/// One run whose outcome is turned into something else.
struct Mapped<T> {
    run: Arc<Run>,
    turn: fn(Arc<Run>) -> Result<T, TaskError>,
}

impl<T> Collect<T> for Mapped<T> {
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        visit(&self.run);
    }

    fn collect(self: Box<Self>) -> Result<T, TaskError> {
        (self.turn)(self.run)
    }
}

macro_rules! turned {
    ($($from:ident => $to:ty : $turn:expr;)*) => {$(
        impl<T: Clone + Send + Sync + 'static> IntoInput<$to> for $from<T> {
            fn into_input(self) -> Input<$to> {
                Input::collect(Mapped { run: self.into_run(), turn: $turn })
            }
        }

        impl<T: Clone + Send + Sync + 'static> IntoInput<$to> for &$from<T> {
            fn into_input(self) -> Input<$to> {
                self.clone().into_input()
            }
        }
    )*};
}

turned! {
    TaskFuture => Option<T> : |run| owned(run).map(Some);
    TaskFuture => Result<T, TaskError> : |run| Ok(owned(run));
    FlowFuture => Result<T, FlowError> : |run| Ok(owned(run).map_err(FlowError::from));
}

/// A collection that knows how to take itself apart.
pub(super) struct Collection<G>(pub(super) G);

impl<G: Gather + Send> Collect<G::Output> for Collection<G> {
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        self.0.visit(visit);
    }

    fn collect(self: Box<Self>) -> Result<G::Output, TaskError> {
        self.0.collect()
    }
}

macro_rules! collections {
    ($($(#[$doc:meta])* [$($generics:tt)*] $from:ty => $to:ty;)*) => {$(
        impl<$($generics)*> IntoInput<$to> for $from {
            fn into_input(self) -> Input<$to> {
                Input::collect(Collection(self))
            }
        }
    )*};
}

collections! {
    [T: Clone + Send + Sync + 'static] Vec<TaskFuture<T>> => Vec<T>;
    [T: Clone + Send + Sync + 'static] Vec<FlowFuture<T>> => Vec<T>;
    [T: Clone + Send + Sync + 'static] MapFuture<T> => Vec<T>;
    [K: Ord + Send + Sync + 'static, T: Clone + Send + Sync + 'static] BTreeMap<K, TaskFuture<T>> => BTreeMap<K, T>;
    [K: Hash + Eq + Send + Sync + 'static, T: Clone + Send + Sync + 'static, S: BuildHasher + Default + Send + Sync + 'static]
        HashMap<K, TaskFuture<T>, S> => HashMap<K, T, S>;
}

impl<T: Clone + Send + Sync + 'static> IntoInput<Vec<T>> for &MapFuture<T> {
    fn into_input(self) -> Input<Vec<T>> {
        self.clone().into_input()
    }
}

impl<T: Clone + Send + Sync + 'static> IntoInput<Vec<T>> for Vec<&TaskFuture<T>> {
    fn into_input(self) -> Input<Vec<T>> {
        self.into_iter().cloned().collect::<Vec<_>>().into_input()
    }
}

impl<T: Clone + Send + Sync + 'static> IntoInput<Vec<T>> for &[TaskFuture<T>] {
    fn into_input(self) -> Input<Vec<T>> {
        self.to_vec().into_input()
    }
}

impl<T: Clone + Send + Sync + 'static> IntoInput<Vec<T>> for &Vec<TaskFuture<T>> {
    fn into_input(self) -> Input<Vec<T>> {
        self.clone().into_input()
    }
}

impl<T: Clone + Send + Sync + 'static, const N: usize> IntoInput<Vec<T>> for [TaskFuture<T>; N] {
    fn into_input(self) -> Input<Vec<T>> {
        Vec::from(self).into_input()
    }
}

impl<T: Clone + Send + Sync + 'static, const N: usize> IntoInput<[T; N]> for [TaskFuture<T>; N] {
    fn into_input(self) -> Input<[T; N]> {
        Input::collect(Collection(self))
    }
}

impl<T, const N: usize> IntoInput<Vec<T>> for [T; N] {
    fn into_input(self) -> Input<Vec<T>> {
        Input(InputKind::Value(Vec::from(self)))
    }
}

/// Runs whose failures are values to the reader.
struct Settled(Vec<Arc<Run>>);

impl<T: Clone + Send + Sync + 'static> Collect<Vec<Result<T, TaskError>>> for Settled {
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        self.0.iter().for_each(visit);
    }

    fn collect(self: Box<Self>) -> Result<Vec<Result<T, TaskError>>, TaskError> {
        Ok(self.0.into_iter().map(owned).collect())
    }
}

impl<T: Clone + Send + Sync + 'static> IntoInput<Vec<Result<T, TaskError>>> for Vec<TaskFuture<T>> {
    fn into_input(self) -> Input<Vec<Result<T, TaskError>>> {
        Input::collect(Settled(self.into_iter().map(TaskFuture::into_run).collect()))
    }
}

/// A map whose failures are values to the reader; the map itself may not have been expanded yet.
struct SettledMap<T>(MapFuture<T>);

impl<T: Clone + Send + Sync + 'static> Collect<Vec<Result<T, TaskError>>> for SettledMap<T> {
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        Gather::visit(&self.0, visit);
    }

    fn collect(self: Box<Self>) -> Result<Vec<Result<T, TaskError>>, TaskError> {
        Ok(self.0.into_expanded()?.iter().map(|child| owned(child.run())).collect())
    }
}

impl<T: Clone + Send + Sync + 'static> IntoInput<Vec<Result<T, TaskError>>> for MapFuture<T> {
    fn into_input(self) -> Input<Vec<Result<T, TaskError>>> {
        Input::collect(SettledMap(self))
    }
}

impl<T: Clone + Send + Sync + 'static> IntoInput<Vec<Result<T, TaskError>>> for &MapFuture<T> {
    fn into_input(self) -> Input<Vec<Result<T, TaskError>>> {
        self.clone().into_input()
    }
}

/// Tuples of values and futures: every mix but the one without a future, which is the identity.
macro_rules! tuples {
    ($($($kind:ident $name:ident),+;)*) => {$(
        impl<$($name: Clone + Send + Sync + 'static),+> IntoInput<($($name,)+)> for ($(tuples!(@type $kind $name),)+) {
            #[allow(non_snake_case, reason = "the elements are named after their types")]
            fn into_input(self) -> Input<($($name,)+)> {
                let ($($name,)+) = self;
                Input::collect(Collection(($(tuples!(@part $kind $name),)+)))
            }
        }
    )*};
    (@type f $name:ident) => { TaskFuture<$name> };
    (@type v $name:ident) => { $name };
    (@part f $name:ident) => { $name };
    (@part v $name:ident) => { ready($name) };
}

tuples! {
    f A, f B; f A, v B; v A, f B;
    f A, f B, f C; f A, f B, v C; f A, v B, f C; f A, v B, v C; v A, f B, f C; v A, f B, v C; v A, v B, f C;
    f A, f B, f C, f D; f A, f B, f C, v D; f A, f B, v C, f D; f A, f B, v C, v D; f A, v B, f C, f D;
    f A, v B, f C, v D; f A, v B, v C, f D; f A, v B, v C, v D; v A, f B, f C, f D; v A, f B, f C, v D;
    v A, f B, v C, f D; v A, f B, v C, v D; v A, v B, f C, f D; v A, v B, f C, v D; v A, v B, v C, f D;
}
