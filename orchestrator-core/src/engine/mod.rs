//! The engine: one plain function decides ([`machine`]), one future carries out ([`driver`]), one part of it runs the
//! user's body once ([`attempt`]), what must hold before a body runs stands in one list ([`rules`]), and what happens after
//! the last attempt in one function ([`wind_down`]).

mod abandoned;
pub(crate) mod attempt;
mod driver;
mod inputs;
pub(crate) mod launcher;
pub(crate) mod machine;
pub(crate) mod panics;
pub(crate) mod plain;
pub(crate) mod rules;
pub(crate) mod unyielding;
mod wind_down;

pub use abandoned::abandoned_bodies;
pub(crate) use inputs::{record_parameters, resolve};
pub(crate) use launcher::Launcher;
pub(crate) use wind_down::{End, Watch};

use std::sync::Arc;

use smallbox::SmallBox;

use crate::body::{ArgEncoder, ArgError, Attempt, Codec, Erased};
use crate::error::TaskError;
use crate::hook::ResultHooks;
use crate::run::Run;
use crate::testing::Fakes;

/// One submitted call, without its types.
pub(crate) trait Call: Send {
    /// Names each run that must have ended before [`resolve`](Self::resolve).
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>));
    /// Takes the results of the upstream runs.
    fn resolve(&mut self) -> Result<(), TaskError>;
    /// The body, or what a test put in its place, ready to be executed once; the last attempt is given the arguments
    /// themselves.
    fn attempt(&mut self, last: bool, fakes: &Fakes) -> Attempt;
    /// The run's name, if a template makes it.
    fn run_name(&self) -> Option<String>;
    /// What the `cache_key` function says, if there is one.
    fn cache_key(&self) -> Option<Option<String>>;
    /// Writes the arguments.
    fn encode(&self, encoder: ArgEncoder<'_>) -> Result<(), ArgError>;
    /// The hooks for the end of the run's transaction.
    fn result_hooks(&self) -> ResultHooks;
    /// How results are stored.
    fn codec(&self) -> Option<&'static Codec>;
    /// Whether `value` is of the type that the body gives.
    fn gives(&self, value: &Erased) -> bool;
}

/// A call until the first poll of its run. With one argument, or none, it is part of the run, and has no allocation of its own that
/// one thread would make and another one free.
pub(crate) type OwnedCall = SmallBox<dyn Call, [usize; 6]>;

/// Gives a run to the runtime.
pub(crate) fn start(run: &Arc<Run>) {
    let launcher = run.scope().launcher.as_ref().expect("a run without a runtime is refused before it starts");
    launcher.launch(Arc::clone(run));
}
