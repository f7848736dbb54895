//! `configure().submit(..)` and `submit_map(..)`: methods for each number of parameters, so that a program has none of its own
//! for each function.

use super::{Configured, OfFlow, OfTask};
use crate::body::{Callable, submit_flow, submit_map, submit_task};
use crate::future::{FlowFuture, MapFuture, TaskFuture};
use crate::input::args::Param;
use crate::input::{IntoInput, IntoMapInput};

macro_rules! submit {
    ($($param:ident $arg:ident),*) => {
        impl<O: 'static, $($param: Param),*> Configured<OfTask, Callable<($($param,)*), O>> {
            /// Submits a run with these options.
            #[must_use = "the run goes on, but nobody learns of its outcome: await it, pass it on, or `.tolerate()` its failure"]
            #[allow(clippy::too_many_arguments, reason = "as many as the function takes")]
            pub fn submit(&self, $($arg: impl IntoInput<$param::Value>),*) -> TaskFuture<O> {
                submit_task(self.callable, &self.overrides, ($($arg,)*))
            }
        }

        impl<O: 'static, $($param: Param),*> Configured<OfFlow, Callable<($($param,)*), O>> {
            /// Starts a run with these options.
            #[must_use = "the run goes on, but nobody learns of its outcome: await it, pass it on, or `.tolerate()` its failure"]
            #[allow(clippy::too_many_arguments, reason = "as many as the function takes")]
            pub fn submit(&self, $($arg: impl IntoInput<$param::Value>),*) -> FlowFuture<O> {
                submit_flow(self.callable, &self.overrides, ($($arg,)*))
            }
        }
    };
}

/// A task without parameters has nothing to map over.
macro_rules! submit_and_map {
    ($($param:ident $arg:ident),+) => {
        submit!($($param $arg),+);

        impl<O: Send + Sync + 'static, $($param: Param),+> Configured<OfTask, Callable<($($param,)+), O>> {
            /// Submits one run with these options for each element of the arguments that are collections.
            #[must_use = "the runs go on, but nobody learns of their outcome: await them, pass them on, or `.tolerate()` their failures"]
            #[allow(clippy::too_many_arguments, reason = "as many as the function takes")]
            pub fn submit_map(&self, $($arg: impl IntoMapInput<$param::Value>),+) -> MapFuture<O> {
                submit_map(self.callable, &self.overrides, ($($arg,)+))
            }
        }
    };
}

submit!();
submit_and_map!(A a);
submit_and_map!(A a, B b);
submit_and_map!(A a, B b, C c);
submit_and_map!(A a, B b, C c, D d);
submit_and_map!(A a, B b, C c, D d, E e);
submit_and_map!(A a, B b, C c, D d, E e, F f);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g, H h);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g, H h, I i);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k, L l);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k, L l, M m);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k, L l, M m, N n);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k, L l, M m, N n, P p);
submit_and_map!(A a, B b, C c, D d, E e, F f, G g, H h, I i, J j, K k, L l, M m, N n, P p, Q q);
