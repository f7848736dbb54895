//! The arguments of one function as a tuple: first waiting, then resolved, then given to the body.

use std::sync::Arc;

use super::map::{IntoMapInput, MapArg};
use super::{Held, Input, IntoInput};
use crate::body::{ArgEncoder, ByValue, Encoding};
use crate::error::TaskError;
use crate::run::Run;

/// A parameter: what it holds, and how a further attempt gets it again.
pub trait Param: Sized + Send + 'static {
    /// The type behind the parameter: `Vec<T>` for `&[T]`.
    type Value: Send + Sync + 'static;
    /// What a fake is given for it.
    type Given: Send + 'static;

    #[doc(hidden)]
    fn hold(held: HeldValue<Self::Value>) -> Self;

    /// The argument for this attempt, leaving one for the next.
    #[must_use]
    fn again(&mut self) -> Self;

    /// The argument, borrowed.
    fn lend(&self) -> &Self::Value;

    /// The argument as a fake takes it.
    fn give(self) -> Self::Given;
}

/// A resolved argument.
pub struct HeldValue<T>(Held<T>);

impl<T> std::fmt::Debug for HeldValue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeldValue")
    }
}

/// A parameter taken by reference: all readers borrow from one value.
pub struct Ref<T>(Held<T>);

/// A parameter taken by value: each attempt gets its own, the last one the original.
pub struct Own<T> {
    held: Held<T>,
    // Known where the argument is made, so that using it demands nothing of `T`: a type that is not `Clone` is then
    // one error, at the parameter.
    clone: fn(&T) -> T,
}

impl<T> Ref<T> {
    /// The argument.
    pub fn get(&self) -> &T {
        self.0.get()
    }
}

impl<T> Own<T> {
    /// The argument, borrowed.
    pub fn get(&self) -> &T {
        self.held.get()
    }

    /// The argument.
    // Compiled once for the type, and not once for each function.
    #[inline(never)]
    pub fn take(self) -> T {
        match self.held {
            Held::Owned(value) => value,
            Held::Shared(value) => Arc::try_unwrap(value).unwrap_or_else(|shared| (self.clone)(&shared)),
            Held::Element(vec, index) => (self.clone)(&vec[index]),
        }
    }
}

impl<T> std::fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ref")
    }
}

impl<T> std::fmt::Debug for Own<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Own")
    }
}

impl<T: Send + Sync + 'static> Param for Ref<T> {
    type Value = T;
    type Given = Borrowed<T>;

    fn hold(held: HeldValue<T>) -> Self {
        Self(held.0)
    }

    fn again(&mut self) -> Self {
        match &self.0 {
            Held::Shared(value) => return Self(Held::Shared(Arc::clone(value))),
            Held::Element(vec, index) => return Self(Held::Element(Arc::clone(vec), *index)),
            Held::Owned(_) => {}
        }
        // An empty vector stands in for the moment in which the value moves into its `Arc`.
        let Held::Owned(value) = std::mem::replace(&mut self.0, Held::Element(Arc::default(), 0)) else {
            unreachable!("the other kinds returned above")
        };
        let value = Arc::new(value);
        self.0 = Held::Shared(Arc::clone(&value));
        Self(Held::Shared(value))
    }

    fn lend(&self) -> &T {
        self.get()
    }

    fn give(self) -> Borrowed<T> {
        Borrowed(self.0)
    }
}

impl<T: ByValue> Param for Own<T> {
    type Value = T;
    type Given = T;

    fn hold(held: HeldValue<T>) -> Self {
        Self { held: held.0, clone: T::clone }
    }

    fn again(&mut self) -> Self {
        Self { held: Held::Owned((self.clone)(self.held.get())), clone: self.clone }
    }

    fn lend(&self) -> &T {
        self.get()
    }

    fn give(self) -> T {
        self.take()
    }
}

/// An argument that a task takes by reference, as its fake gets it: it derefs to what the task would borrow.
pub struct Borrowed<T>(Held<T>);

impl<T> std::ops::Deref for Borrowed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.get()
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Borrowed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: std::fmt::Display> std::fmt::Display for Borrowed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

/// A value that is there as the argument for the parameter `P`.
pub(crate) fn held<P: Param>(value: P::Value) -> P {
    P::hold(HeldValue(Held::Owned(value)))
}

/// All parameters of a function.
pub trait Args: Sized + Send + 'static {
    /// The arguments as passed.
    type Pending: Send + 'static;
    /// The arguments as passed to `map`.
    type Mapped: Send + 'static;
    /// Whether and how each is written.
    type Encodings: Copy + Send + Sync + 'static;
    /// What a fake is given: nothing, the one argument, or a tuple.
    type Given: Send + 'static;

    #[doc(hidden)]
    fn visit(pending: &Self::Pending, visit: &mut dyn FnMut(&Arc<Run>));
    #[doc(hidden)]
    fn resolve(pending: Self::Pending) -> Result<Self, TaskError>;
    /// The arguments for this attempt, leaving some for the next.
    #[must_use]
    fn again(&mut self) -> Self;
    #[doc(hidden)]
    fn visit_mapped(mapped: &Self::Mapped, visit: &mut dyn FnMut(&Arc<Run>));
    /// The number of elements that each collection has.
    #[doc(hidden)]
    fn lengths(mapped: &mut Self::Mapped) -> Vec<Option<usize>>;
    /// The arguments of the next run.
    #[doc(hidden)]
    fn next(mapped: &mut Self::Mapped) -> Self::Pending;
    /// Writes those that are not left out.
    #[doc(hidden)]
    fn encode(&self, encodings: &Self::Encodings, names: &[&str], encoder: &mut ArgEncoder<'_>);
    /// The arguments as a fake takes them.
    fn give(self) -> Self::Given;
}

/// What a caller passed for all parameters, as a tuple, where `P` are the arguments that are made of it. That is done here and
/// not in the function that is called, so that it is compiled once for the types, and not once for each function.
pub trait Passed<P> {
    #[doc(hidden)]
    fn into_pending(self) -> P;
}

/// The same for `map`.
pub trait PassedToMap<M> {
    #[doc(hidden)]
    fn into_mapped(self) -> M;
}

macro_rules! args {
    ($($param:ident $passed:ident $index:tt),*) => {
        #[allow(unused_variables, clippy::unused_unit, reason = "the tuple without elements uses none of its arguments")]
        #[allow(unused_parens, reason = "one parameter is given as it is, not as a tuple of one")]
        impl<$($param: Param),*> Args for ($($param,)*) {
            type Pending = ($(Input<$param::Value>,)*);
            type Mapped = ($(MapArg<$param::Value>,)*);
            type Encodings = ($(Encoding<$param::Value>,)*);
            type Given = ($($param::Given),*);

            fn visit(pending: &Self::Pending, visit: &mut dyn FnMut(&Arc<Run>)) {
                $(pending.$index.visit(visit);)*
            }

            fn resolve(pending: Self::Pending) -> Result<Self, TaskError> {
                Ok(($($param::hold(HeldValue(pending.$index.resolve()?)),)*))
            }

            fn again(&mut self) -> Self {
                ($(self.$index.again(),)*)
            }

            fn visit_mapped(mapped: &Self::Mapped, visit: &mut dyn FnMut(&Arc<Run>)) {
                $(mapped.$index.visit(visit);)*
            }

            fn lengths(mapped: &mut Self::Mapped) -> Vec<Option<usize>> {
                vec![$(mapped.$index.len()),*]
            }

            fn next(mapped: &mut Self::Mapped) -> Self::Pending {
                ($(mapped.$index.next(),)*)
            }

            fn encode(&self, encodings: &Self::Encodings, names: &[&str], encoder: &mut ArgEncoder<'_>) {
                $(encoder.arg(names[$index], encodings.$index, self.$index.lend());)*
            }

            fn give(self) -> Self::Given {
                ($(self.$index.give()),*)
            }
        }

        #[allow(clippy::unused_unit, reason = "the tuple without elements has none")]
        impl<$($param, $passed: IntoInput<$param>),*> Passed<($(Input<$param>,)*)> for ($($passed,)*) {
            fn into_pending(self) -> ($(Input<$param>,)*) {
                ($(self.$index.into_input(),)*)
            }
        }

        #[allow(clippy::unused_unit, reason = "the tuple without elements has none")]
        impl<$($param, $passed: IntoMapInput<$param>),*> PassedToMap<($(MapArg<$param>,)*)> for ($($passed,)*) {
            fn into_mapped(self) -> ($(MapArg<$param>,)*) {
                ($(self.$index.into_map_input(),)*)
            }
        }
    };
}

args!();
args!(A AA 0);
args!(A AA 0, B BB 1);
args!(A AA 0, B BB 1, C CC 2);
args!(A AA 0, B BB 1, C CC 2, D DD 3);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6, H HH 7);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6, H HH 7, I II 8);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6, H HH 7, I II 8, J JJ 9);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6, H HH 7, I II 8, J JJ 9, K KK 10);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6, H HH 7, I II 8, J JJ 9, K KK 10, L LL 11);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6, H HH 7, I II 8, J JJ 9, K KK 10, L LL 11, M MM 12);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6, H HH 7, I II 8, J JJ 9, K KK 10, L LL 11, M MM 12, N NN 13);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6, H HH 7, I II 8, J JJ 9, K KK 10, L LL 11, M MM 12, N NN 13, O OO 14);
args!(A AA 0, B BB 1, C CC 2, D DD 3, E EE 4, F FF 5, G GG 6, H HH 7, I II 8, J JJ 9, K KK 10, L LL 11, M MM 12, N NN 13, O OO 14, P PP 15);
