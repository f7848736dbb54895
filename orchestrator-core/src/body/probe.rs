//! What is asked of types at compile time.

use std::marker::PhantomData;

/// The success type of a `Result`, whatever alias it hides behind.
#[diagnostic::on_unimplemented(
    message = "the name of this return type ends in `Result`, but it is no `Result<T, E>`",
    label = "not a `Result`",
    note = "rename the type, or return `Result<{Self}, std::convert::Infallible>`"
)]
pub trait Fallible {
    /// What the result holds on success.
    type Ok;
    /// What the result holds on failure.
    type Error;
}

impl<T, E> Fallible for Result<T, E> {
    type Ok = T;
    type Error = E;
}

/// Asks at compile time what a type can do, without demanding it.
#[derive(Debug)]
pub struct Probe<T: ?Sized>(PhantomData<fn(&T)>);

impl<T: ?Sized> Probe<T> {
    /// A probe of the type.
    pub const NEW: Self = Self(PhantomData);
}

/// The answer for types that are not a `Result`.
pub trait ProbeDefault {
    /// Whether the type is a `Result`.
    const IS_RESULT: bool = false;
}

impl<T: ?Sized> ProbeDefault for Probe<T> {}

impl<T, E> Probe<Result<T, E>> {
    /// A `Result` is one: this constant shadows the trait's.
    pub const IS_RESULT: bool = true;
}
