//! Calls: what a function that the macros emit does.
//!
//! What is compiled of these for each function is as good as nothing: all goes on in code for the types.

use super::Callable;
use crate::future::{FlowFuture, MapFuture, TaskFuture};
use crate::input::{Args, Passed, PassedToMap};
use crate::options::Overrides;
use crate::submit;

/// Submits one run of a task.
#[inline]
pub fn call_task<A: Args, O: 'static>(
    callable: &'static Callable<A, O>,
    args: impl Passed<A::Pending>,
) -> TaskFuture<O> {
    submit_task(callable, Overrides::PLAIN, args)
}

/// Submits one run of a task with options of the call.
#[inline]
pub(crate) fn submit_task<A: Args, O: 'static>(
    callable: &'static Callable<A, O>,
    overrides: &Overrides,
    args: impl Passed<A::Pending>,
) -> TaskFuture<O> {
    TaskFuture::new(submit::submit_call(&callable.function, overrides, args))
}

/// Submits one run of a flow.
#[inline]
pub fn call_flow<A: Args, O: 'static>(
    callable: &'static Callable<A, O>,
    args: impl Passed<A::Pending>,
) -> FlowFuture<O> {
    submit_flow(callable, Overrides::PLAIN, args)
}

/// Submits one run of a flow with options of the call.
#[inline]
pub(crate) fn submit_flow<A: Args, O: 'static>(
    callable: &'static Callable<A, O>,
    overrides: &Overrides,
    args: impl Passed<A::Pending>,
) -> FlowFuture<O> {
    FlowFuture::new(submit::submit_call(&callable.function, overrides, args))
}

/// Submits one run of a task for each element.
#[inline]
pub fn call_map<A: Args, O: Send + Sync + 'static>(
    callable: &'static Callable<A, O>,
    args: impl PassedToMap<A::Mapped>,
) -> MapFuture<O> {
    submit_map(callable, Overrides::PLAIN, args)
}

/// Submits one run of a task for each element, with options of the call.
#[inline]
pub(crate) fn submit_map<A: Args, O: Send + Sync + 'static>(
    callable: &'static Callable<A, O>,
    overrides: &Overrides,
    args: impl PassedToMap<A::Mapped>,
) -> MapFuture<O> {
    submit::map_call(&callable.function, overrides, args)
}
