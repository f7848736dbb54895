//! Fakes: closures that are called in the place of the body of a task or flow. All else of a run stays as it is.

use std::any::Any;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::body::{Attempt, BodyFailure, Erased};
use crate::def::Def;
use crate::error::BodyError;
use crate::input::Args;
use crate::options::Configurable;
use crate::orchestrator::Orchestrator;

/// Puts fakes in the place of tasks and flows.
///
/// A task is named by the type that `#[task]` makes beside the function. From then on each attempt that begins under
/// this orchestrator calls the fake instead of the body, wherever the task is called: by the test, in a flow, by `map`,
/// by `configure().submit`. Everything else of the run is as ever: retries, timeout, cache, limits, states. What belongs
/// to a run, such as [`RunContext::current`](crate::RunContext::current), is there in a fake as well, and a fake that
/// panics is a body that panics.
///
/// A fake takes nothing (`|()|`), the one argument (`|repo|`), or a tuple (`|(client, repo)|`). What the task takes by
/// value comes as that value, what it takes by reference as a [`Borrowed`](crate::testing::Borrowed). It gives what the
/// task gives, or only the value of a success: see [`FakeOutcome`].
///
/// Tasks with type parameters have no fakes: they have many bodies.
pub trait Replace<A: Args, O, E, R> {
    /// Calls `fake` in the place of the body of `F` from now on; a fake that was there before is taken away.
    ///
    /// The fake of a sync function is called on the blocking pool, as its body is.
    fn replace<F: Function<A, O, E>>(&self, fake: impl Fn(A::Given) -> R + Send + Sync + 'static)
    where
        R: FakeOutcome<O, E>;

    /// Like [`replace`](Self::replace), with a fake that waits: `|repo| async move { .. }`.
    fn replace_async<F: Function<A, O, E>>(&self, fake: impl Fn(A::Given) -> R + Send + Sync + 'static)
    where
        R: Future + Send + 'static,
        R::Output: FakeOutcome<O, E>;
}

impl<A: Args, O, E, R> Replace<A, O, E, R> for Orchestrator {
    fn replace<F: Function<A, O, E>>(&self, fake: impl Fn(A::Given) -> R + Send + Sync + 'static)
    where
        R: FakeOutcome<O, E>,
    {
        let def = F::DEF;
        let fake = Arc::new(fake);
        let replacement: Replacement<A> = Arc::new(move |args| {
            let fake = Arc::clone(&fake);
            let call = move || fake(args.give()).into_outcome(F::retries);
            if def.is_async { Attempt::from_future(async move { call() }) } else { Attempt::from_fn(call) }
        });
        self.inner().testing.fakes.put(def, Some(Box::new(replacement)));
    }

    fn replace_async<F: Function<A, O, E>>(&self, fake: impl Fn(A::Given) -> R + Send + Sync + 'static)
    where
        R: Future + Send + 'static,
        R::Output: FakeOutcome<O, E>,
    {
        let fake = Arc::new(fake);
        let replacement: Replacement<A> = Arc::new(move |args| {
            let fake = Arc::clone(&fake);
            Attempt::from_future(async move {
                let future = fake(args.give());
                drop(fake);
                future.await.into_outcome(F::retries)
            })
        });
        self.inner().testing.fakes.put(F::DEF, Some(Box::new(replacement)));
    }
}

impl Orchestrator {
    /// Takes away the fake that [`Replace`] put in the place of a task or flow: attempts that begin from now on call
    /// the body again.
    pub fn restore<F: Configurable>(&self) {
        self.inner().testing.fakes.put(F::DEF, None);
    }
}

/// A task or flow with arguments `A`, the result `O` and errors `E` that a fake can take the place of: the type that
/// `#[task]` or `#[flow]` makes beside a function without type parameters.
#[diagnostic::on_unimplemented(
    message = "no fake can take the place of `{Self}`",
    label = "not a task or flow without type parameters",
    note = "a task with type parameters has many bodies: put a fake in the place of a task that calls it"
)]
pub trait Function<A, O, E>: Configurable {
    /// Whether an error that a fake gave is retried, as far as `retry_if` decides on it.
    #[doc(hidden)]
    fn retries(_error: &dyn Any) -> bool {
        true
    }
}

/// What a fake may give in the place of a task that gives an `O`, or a `Result<O, E>`: the same, or the `O` alone, or
/// what [`gives`] and [`fails`] make, for errors that a test cannot.
///
/// A fake that only panics says what it would give: `|_| -> u64 { panic!("no") }`. A condition in `retry_if` is asked
/// about errors of the type that the task itself gives; others are retried.
#[diagnostic::on_unimplemented(
    message = "this fake gives a `{Self}`, but the task gives a `{O}`",
    label = "the fake is to give a `{O}`, or a `Result<{O}, {E}>`",
    note = "for another error there is `testing::fails`; a fake with an `async` block is for `replace_async`; one that only panics says what it gives: `|_| -> T {{ panic!() }}`"
)]
pub trait FakeOutcome<O, E> {
    #[doc(hidden)]
    fn into_outcome(self, retries: fn(&dyn Any) -> bool) -> Result<Erased, BodyFailure>;
}

impl<O: Send + Sync + 'static, E> FakeOutcome<O, E> for O {
    fn into_outcome(self, _retries: fn(&dyn Any) -> bool) -> Result<Erased, BodyFailure> {
        Ok(Arc::new(self))
    }
}

impl<O, E> FakeOutcome<O, E> for Result<O, E>
where
    O: Send + Sync + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    fn into_outcome(self, retries: fn(&dyn Any) -> bool) -> Result<Erased, BodyFailure> {
        match self {
            Ok(value) => Ok(Arc::new(value)),
            Err(error) => Err(BodyFailure { retryable: retries(&error), error: BodyError::new(error) }),
        }
    }
}

impl<O: Send + Sync + 'static, E> FakeOutcome<O, E> for Given<O> {
    fn into_outcome(self, _retries: fn(&dyn Any) -> bool) -> Result<Erased, BodyFailure> {
        match self.0 {
            Ok(value) => Ok(Arc::new(value)),
            Err(error) => Err(BodyFailure { retryable: true, error }),
        }
    }
}

/// What a fake gives where its error is not of the task's own type; made by [`gives`] and [`fails`].
#[must_use = "a fake gives this"]
pub struct Given<O>(Result<O, BodyError>);

impl<O> std::fmt::Debug for Given<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_ok() { "Given(a value)" } else { "Given(an error)" })
    }
}

/// The success of a fake that [`fails`] at other times.
pub fn gives<O>(value: O) -> Given<O> {
    Given(Ok(value))
}

/// The failure of a fake, with any error: that of a library whose errors a test cannot make, say.
///
/// ```
/// use orchestrator_core::testing::{Given, fails, gives};
///
/// fn flaky(call: u32) -> Given<u64> {
///     if call == 0 { fails("no answer") } else { gives(5) }
/// }
/// # let _ = flaky(0);
/// ```
pub fn fails<O>(error: impl Into<Box<dyn StdError + Send + Sync>> + 'static) -> Given<O> {
    Given(Err(BodyError::new(error)))
}

/// A fake that makes an attempt of the arguments `A`.
type Replacement<A> = Arc<dyn Fn(A) -> Attempt + Send + Sync>;

/// The fakes of one orchestrator, by function.
#[derive(Default)]
pub(crate) struct Fakes {
    /// Whether there ever was one: all that a run looks at where nobody tests.
    any: AtomicBool,
    /// A [`Replacement`] of the function's own arguments for each address of a [`Def`].
    table: RwLock<HashMap<usize, Box<dyn Any + Send + Sync>>>,
}

impl Fakes {
    /// The fake of a function.
    pub(crate) fn of<A: Args>(&self, def: &'static Def) -> Option<Replacement<A>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.get(&std::ptr::from_ref(def).addr())?.downcast_ref().cloned()
    }

    fn put(&self, def: &'static Def, fake: Option<Box<dyn Any + Send + Sync>>) {
        let address = std::ptr::from_ref(def).addr();
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = match fake {
            Some(fake) => table.insert(address, fake),
            None => table.remove(&address),
        };
        drop(table);
        self.any.store(true, Ordering::Relaxed);
        // What a fake holds is dropped outside of the lock.
        drop(before);
    }
}
