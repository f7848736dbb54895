//! What the macros hand over: one value per function, with the few things that depend on its types.
//!
//! What is generic here is compiled for each function or its types, so it stays thin; what does not depend on them lives in
//! the engine.

mod attempt;
mod calls;
mod checks;
mod codec;
mod encoding;
mod probe;

use std::any::Any;
use std::sync::Arc;

use crate::def::Def;
use crate::hook::ResultHook;
use crate::input::Args;
use crate::registry::ParamReader;

pub use attempt::{Attempt, BodyFailure, BodyFuture, fallible, plain, retries};
pub use calls::{call_flow, call_map, call_task};
pub(crate) use calls::{submit_flow, submit_map, submit_task};
pub use checks::{
    ByValue, CacheInput, CacheOutput, FlowParameter, IntoBodyError, PersistOutput, assert_by_value, assert_cache_input,
    assert_cache_output, assert_parameter, assert_persist_output,
};
pub(crate) use codec::DecodeError;
pub use codec::{Codec, ProbeResult, ResultType, Unstored};
pub use encoding::{ArgEncoder, Encoders, Encoding, ProbeEncoding};
pub(crate) use encoding::{ArgError, NOT_RECORDED};
pub use probe::{Fallible, Probe, ProbeDefault};

/// A result of any type, shared by its readers.
pub type Erased = Arc<dyn Any + Send + Sync>;

/// What the `cache_key` function of a task says of these arguments.
pub type CacheKeyOf<A> = fn(&A) -> Option<String>;

/// Reads the arguments of a flow.
pub type ReadArgs<A> = fn(&mut ParamReader<'_>) -> Option<A>;

/// A function behind `#[task]` or `#[flow]`, with the few things that depend on its types. It is a value, not a trait that
/// each function implements, so that a program has as little as possible for each function to check, compile and link.
pub struct Callable<A: Args, O: 'static> {
    pub(crate) function: Function<A>,
    /// Goes over the parameters of a flow; gives the arguments if they were read.
    pub(crate) read: Option<ReadArgs<A>>,
    /// How the result of a flow is written as JSON.
    pub(crate) output: Encoding<O>,
}

impl<A: Args, O: 'static> std::fmt::Debug for Callable<A, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.function.fmt(f)
    }
}

impl<A: Args, O: Send + Sync + 'static> Callable<A, O> {
    /// A function with what its attribute says, its body, ready to be executed once, how its arguments are written into the
    /// cache key (of a task) or the record (of a flow), and what their type is.
    pub const fn new(
        def: &'static Def,
        call: fn(A) -> Attempt,
        arguments: A::Encodings,
        result: &'static ResultType,
    ) -> Self {
        let function = Function {
            def,
            call,
            arguments,
            run_name: None,
            cache_key: None,
            result,
            on_commit: None,
            on_rollback: None,
        };
        Self { function, read: None, output: Encoding::LeftOut }
    }

    /// A template makes the run's name.
    #[must_use]
    pub const fn run_name(mut self, name: fn(&A) -> String) -> Self {
        self.function.run_name = Some(name);
        self
    }

    /// A function says what the cache key is; `None` is "not cached".
    #[must_use]
    pub const fn cache_key(mut self, key: CacheKeyOf<A>) -> Self {
        self.function.cache_key = Some(key);
        self
    }

    /// The way into a flow, and the one of its results out of it, for those who know nothing of its types.
    #[must_use]
    pub const fn entry(mut self, read: ReadArgs<A>, output: Encoding<O>) -> Self {
        self.read = Some(read);
        self.output = output;
        self
    }

    /// Hooks for the commit of the transaction that a run is part of.
    #[must_use]
    pub const fn on_commit(mut self, hooks: fn() -> Vec<ResultHook>) -> Self {
        self.function.on_commit = Some(hooks);
        self
    }

    /// Hooks that undo what a run did.
    #[must_use]
    pub const fn on_rollback(mut self, hooks: fn() -> Vec<ResultHook>) -> Self {
        self.function.on_rollback = Some(hooks);
        self
    }
}

/// What the runtime calls of a function with arguments `A`: the runtime's code is compiled once for each list of
/// parameter types, and not once for each function.
pub(crate) struct Function<A: Args> {
    pub(crate) def: &'static Def,
    pub(crate) call: fn(A) -> Attempt,
    pub(crate) arguments: A::Encodings,
    pub(crate) run_name: Option<fn(&A) -> String>,
    pub(crate) cache_key: Option<CacheKeyOf<A>>,
    pub(crate) result: &'static ResultType,
    pub(crate) on_commit: Option<fn() -> Vec<ResultHook>>,
    pub(crate) on_rollback: Option<fn() -> Vec<ResultHook>>,
}

impl<A: Args> std::fmt::Debug for Function<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Function").field(&self.def.key).finish()
    }
}
