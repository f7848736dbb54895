//! `gather`: collections of futures, nested to any depth.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::path::PathBuf;
use std::sync::Arc;

use super::shapes::Collection;
use super::{Collect, owned};
use crate::error::TaskError;
use crate::future::{FlowFuture, MapFuture, TaskFuture};
use crate::run::Run;

/// A nesting of futures that [`gather`] turns into the same nesting of results.
#[diagnostic::on_unimplemented(
    message = "`gather` cannot find the futures in a `{Self}`",
    label = "not a future, nor a collection of futures",
    note = "collections, tuples, options, numbers, text and futures can be nested; wrap any other value in `ready(..)`"
)]
pub trait Gather: 'static {
    /// The nesting, with results in place of futures.
    type Output: Send + Sync + 'static;

    #[doc(hidden)]
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>));
    #[doc(hidden)]
    fn collect(self) -> Result<Self::Output, TaskError>;
}

/// A nesting of futures as one argument; made by [`gather`].
pub struct Gathered<T>(pub(super) Box<dyn Collect<T>>);

impl<T> std::fmt::Debug for Gathered<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gathered")
    }
}

/// Turns futures nested in collections, tuples and options into one argument: the run waits for all of them and gets
/// the same nesting of results.
pub fn gather<G: Gather + Send>(nested: G) -> Gathered<G::Output> {
    Gathered(Box::new(Collection(nested)))
}

impl<T: Clone + Send + Sync + 'static> Gather for TaskFuture<T> {
    type Output = T;

    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        visit(self.as_run());
    }

    fn collect(self) -> Result<T, TaskError> {
        owned(self.into_run())
    }
}

impl<T: Clone + Send + Sync + 'static> Gather for FlowFuture<T> {
    type Output = T;

    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        visit(self.as_run());
    }

    fn collect(self) -> Result<T, TaskError> {
        owned(self.into_run())
    }
}

impl<T: Clone + Send + Sync + 'static> Gather for MapFuture<T> {
    type Output = Vec<T>;

    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        match self.children() {
            Some(children) => children.iter().for_each(|child| visit(child.as_run())),
            None => {
                let expansion = self.expansion();
                visit(&expansion);
                // Once the map is expanded, its runs are what is waited for.
                if let Some(Ok(children)) = expansion.outcome() {
                    let children: &Vec<TaskFuture<T>> = children.downcast_ref().expect("an expansion gives futures");
                    children.iter().for_each(|child| visit(child.as_run()));
                }
            }
        }
    }

    fn collect(self) -> Result<Vec<T>, TaskError> {
        let children = self.into_expanded()?;
        match Arc::try_unwrap(children) {
            Ok(children) => children.into_iter().map(|child| owned(child.into_run())).collect(),
            Err(children) => children.iter().map(|child| owned(child.run())).collect(),
        }
    }
}

macro_rules! sequences {
    ($($name:ident),*) => {$(
        impl<G: Gather> Gather for $name<G> {
            type Output = $name<G::Output>;

            fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
                self.iter().for_each(|item| item.visit(visit));
            }

            fn collect(self) -> Result<Self::Output, TaskError> {
                self.into_iter().map(Gather::collect).collect()
            }
        }
    )*};
}

sequences!(Vec, VecDeque);

impl<G: Gather> Gather for Option<G> {
    type Output = Option<G::Output>;

    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        self.iter().for_each(|item| item.visit(visit));
    }

    fn collect(self) -> Result<Self::Output, TaskError> {
        self.map(Gather::collect).transpose()
    }
}

impl<G: Gather, const N: usize> Gather for [G; N] {
    type Output = [G::Output; N];

    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        self.iter().for_each(|item| item.visit(visit));
    }

    fn collect(self) -> Result<Self::Output, TaskError> {
        let items = self.into_iter().map(Gather::collect).collect::<Result<Vec<_>, _>>()?;
        Ok(items.try_into().unwrap_or_else(|_| unreachable!("an array of N gives N results")))
    }
}

impl<K: Ord + Send + Sync + 'static, G: Gather> Gather for BTreeMap<K, G> {
    type Output = BTreeMap<K, G::Output>;

    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        self.values().for_each(|item| item.visit(visit));
    }

    fn collect(self) -> Result<Self::Output, TaskError> {
        self.into_iter().map(|(key, item)| Ok((key, item.collect()?))).collect()
    }
}

impl<K, G, S> Gather for HashMap<K, G, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    G: Gather,
    S: BuildHasher + Default + Send + Sync + 'static,
{
    type Output = HashMap<K, G::Output, S>;

    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        self.values().for_each(|item| item.visit(visit));
    }

    fn collect(self) -> Result<Self::Output, TaskError> {
        self.into_iter().map(|(key, item)| Ok((key, item.collect()?))).collect()
    }
}

macro_rules! tuples {
    ($($($name:ident $index:tt),+;)*) => {$(
        impl<$($name: Gather),+> Gather for ($($name,)+) {
            type Output = ($($name::Output,)+);

            fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
                $(self.$index.visit(visit);)+
            }

            fn collect(self) -> Result<Self::Output, TaskError> {
                Ok(($(self.$index.collect()?,)+))
            }
        }
    )*};
}

tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
}

/// A value among the futures of a [`gather`]; made by [`ready`].
#[derive(Debug, Clone)]
pub struct Ready<T>(T);

/// Wraps a value of any type, so that it can stand among the futures of a [`gather`].
pub const fn ready<T: Send + Sync + 'static>(value: T) -> Ready<T> {
    Ready(value)
}

impl<T: Send + Sync + 'static> Gather for Ready<T> {
    type Output = T;

    fn visit(&self, _visit: &mut dyn FnMut(&Arc<Run>)) {}

    fn collect(self) -> Result<T, TaskError> {
        Ok(self.0)
    }
}

macro_rules! leaves {
    ($($leaf:ty),*) => {$(
        impl Gather for $leaf {
            type Output = Self;

            fn visit(&self, _visit: &mut dyn FnMut(&Arc<Run>)) {}

            fn collect(self) -> Result<Self, TaskError> {
                Ok(self)
            }
        }
    )*};
}

leaves!(
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    f32,
    f64,
    bool,
    char,
    String,
    &'static str,
    PathBuf
);
