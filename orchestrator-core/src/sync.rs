//! The locks, atomics and wakers on which waiting and waking depend.
//!
//! They are those of the standard library, of tokio and of futures. In the tests of `interleavings`, and nowhere else, they
//! are those of a checker, which chooses at each of them which thread goes on.

#[cfg(not(all(test, feature = "interleavings")))]
mod real {
    use std::future::Future;

    use tokio::runtime::Handle;

    pub(crate) use futures::task::AtomicWaker;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread_local;
    pub(crate) use tokio::sync::Notify;

    pub(crate) fn spawn(handle: &Handle, future: impl Future<Output = ()> + Send + 'static) {
        handle.spawn(future);
    }
}

#[cfg(not(all(test, feature = "interleavings")))]
pub(crate) use real::*;

#[cfg(all(test, feature = "interleavings"))]
mod checked {
    use std::cell::RefCell;
    use std::future::Future;
    use std::sync::atomic::Ordering;
    use std::task::Waker;

    use shuttle::thread::{AccessError, LocalKey};
    use tokio::runtime::Handle;
    use tokio::sync::futures::Notified;

    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};

    /// Lets any other thread go on before what follows.
    fn step() {
        AtomicBool::new(false).load(Ordering::Relaxed);
    }

    /// Each method is one step of the real one.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicWaker(futures::task::AtomicWaker);

    impl AtomicWaker {
        pub(crate) const fn new() -> Self {
            Self(futures::task::AtomicWaker::new())
        }

        pub(crate) fn register(&self, waker: &Waker) {
            step();
            self.0.register(waker);
        }

        pub(crate) fn take(&self) -> Option<Waker> {
            step();
            self.0.take()
        }
    }

    /// Each method is one step of the real one.
    #[derive(Debug, Default)]
    pub(crate) struct Notify(tokio::sync::Notify);

    impl Notify {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notified(&self) -> Notified<'_> {
            step();
            self.0.notified()
        }

        pub(crate) fn notify_waiters(&self) {
            step();
            self.0.notify_waiters();
        }
    }

    /// A cell of each thread of the checker, with the methods of the real one that are used.
    pub(crate) struct Local<T: 'static>(pub(crate) &'static LocalKey<RefCell<T>>);

    impl<T> Local<T> {
        pub(crate) fn try_with<R>(&self, look: impl FnOnce(&RefCell<T>) -> R) -> Result<R, AccessError> {
            self.0.try_with(look)
        }

        pub(crate) fn with_borrow<R>(&self, look: impl FnOnce(&T) -> R) -> R {
            self.0.with(|cell| look(&cell.borrow()))
        }

        pub(crate) fn with_borrow_mut<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
            self.0.with(|cell| change(&mut cell.borrow_mut()))
        }
    }

    macro_rules! local {
        ($(#[$attribute:meta])* static $name:ident: RefCell<$held:ty> = const { $init:expr };) => {
            $(#[$attribute])* static $name: crate::sync::Local<$held> = {
                shuttle::thread_local! { static KEY: RefCell<$held> = const { $init }; }
                crate::sync::Local(&KEY)
            };
        };
    }
    pub(crate) use local as thread_local;

    pub(crate) fn spawn(_handle: &Handle, future: impl Future<Output = ()> + Send + 'static) {
        drop(shuttle::future::spawn(future));
    }
}

#[cfg(all(test, feature = "interleavings"))]
pub(crate) use checked::*;
