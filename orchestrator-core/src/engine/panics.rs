//! Where a body panicked: the place is known only to the panic hook, so ours notes it while a body is running.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

use crate::context::Place;

thread_local! {
    static IN_BODY: Cell<u32> = const { Cell::new(0) };
    static IN_ENGINE: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes the place of panics in bodies, which are reported with the run, and passes all others on.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_BODY.try_with(Cell::get).unwrap_or(0) == 0 {
                previous(info);
                return;
            }
            let place = info.location().map(ToString::to_string);
            let _ = PLACE.try_with(|slot| *slot.borrow_mut() = place);
        }));
    });
}

/// Runs a part of a body; a panic becomes the sentence that describes it.
pub(crate) fn catch<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    IN_BODY.set(IN_BODY.get() + 1);
    let outcome = panic::catch_unwind(AssertUnwindSafe(body));
    IN_BODY.set(IN_BODY.get() - 1);
    outcome.map_err(|payload| {
        let said = describe(&*payload);
        discard(payload);
        said
    })
}

/// Runs code of the user's that nobody asked for an answer, such as a destructor or a waker; a panic is logged.
pub(crate) fn contain(what: &str, code: impl FnOnce()) {
    if let Err(said) = catch(code) {
        shield(|| tracing::error!(target: "orchestrator", "{what} {said}"));
    }
}

/// Whether this is called by code of the user's.
pub(crate) fn is_in_body() -> bool {
    IN_BODY.try_with(Cell::get).unwrap_or(0) > 0
}

/// Drops what may be the last of a value of the user's.
pub(crate) fn let_go<T>(value: T) {
    contain("a destructor", || drop(value));
}

/// Runs code of the user's that is shown something, such as a `tracing` subscriber; a panic is told by the panic hook.
/// `None`: it panicked.
pub(crate) fn shield<R>(code: impl FnOnce() -> R) -> Option<R> {
    panic::catch_unwind(AssertUnwindSafe(code)).map_err(discard).ok()
}

/// Runs a part of the engine; a panic is told by the panic hook. `None`: it panicked.
pub(crate) fn engine<R>(part: impl FnOnce() -> R) -> Option<R> {
    let outer = IN_ENGINE.replace(true);
    let outcome = shield(part);
    IN_ENGINE.set(outer);
    outcome
}

/// Whether what is being dropped is dropped because a part of the engine panicked.
pub(crate) fn is_of_engine() -> bool {
    std::thread::panicking() && IN_ENGINE.try_with(Cell::get).unwrap_or(false)
}

/// Drops what a panic carries, unless that panics as well.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(another) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(another);
    }
}

const IN_THE_BODY: &str = "a destructor in the body";

/// A future of the user's that is polled, and dropped, in the context of its run; a panic becomes the sentence that
/// describes it.
pub(crate) struct Contained<F> {
    place: Place,
    future: Option<F>,
}

impl<F> Contained<F> {
    pub(crate) const fn new(place: Place, future: F) -> Self {
        Self { place, future: Some(future) }
    }
}

impl<F: Future + Unpin> Future for Contained<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { place, future } = &mut *self;
        place.within(|| {
            let polled = future.as_mut().expect("a future that is ready is not polled");
            let outcome = match catch(|| Pin::new(polled).poll(cx)) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(output)) => Ok(output),
                Err(said) => Err(said),
            };
            contain(IN_THE_BODY, || *future = None);
            Poll::Ready(outcome)
        })
    }
}

impl<F> Drop for Contained<F> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            self.place.within(|| contain(IN_THE_BODY, || drop(future)));
        }
    }
}

fn describe(payload: &(dyn Any + Send)) -> String {
    let said = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with a value that is no text");
    match PLACE.take() {
        Some(place) => format!("panicked: {said} at {place}"),
        None => format!("panicked: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        install_hook();
        let line = line!() + 1;
        let said = catch(|| panic!("no {}", "luck")).expect_err("it panicked");
        assert!(said.starts_with("panicked: no luck at "), "{said}");
        assert!(said.contains(&format!("panics.rs:{line}:")), "{said}");
        assert_eq!(catch(|| 1), Ok(1));
        assert_eq!(
            catch(|| panic::panic_any(7)).expect_err("it panicked").split(" at ").next(),
            Some("panicked: with a value that is no text")
        );
    }
}
