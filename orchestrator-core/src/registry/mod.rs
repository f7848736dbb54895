//! The tasks and flows of the program, collected by the linker, and flows called by name with parameters in JSON.

mod parameters;

use std::fmt;

use serde_json::{Map, Value};

use crate::backend::record::FlowRun;
use crate::body::{Callable, Encoding, Erased};
use crate::context::Place;
use crate::def::Def;
use crate::engine::{OwnedCall, panics};
use crate::error::{Error, ErrorKind};
use crate::future::StartedFlow;
use crate::input::Args;
use crate::options::Overrides;
use crate::orchestrator::Orchestrator;
use crate::submit::{self, Manner};
use crate::suggest;

pub use parameters::{
    Decoder, FlowParameter, ParamReader, ParameterError, ProbeDecode, ProbeDecodeFallback, ProbeSchema,
};

/// An error names so many flows at most.
const NAMED: usize = 20;

/// A task or flow that the linker collected.
#[derive(Clone, Copy)]
pub struct Registered {
    def: &'static Def,
    flow: Option<Entry>,
}

/// A flow for those who know nothing of its types.
pub(crate) type Entry = &'static dyn Untyped;

/// How a flow is called with values that its caller knows nothing of.
pub(crate) trait Untyped: Sync {
    fn read(&'static self, reader: &mut ParamReader<'_>) -> Option<OwnedCall>;
    /// The result of the flow as JSON, if its type is `Serialize`.
    fn to_json(&self, result: &Erased) -> Option<Value>;
}

impl<A: Args, O: 'static> Untyped for Callable<A, O> {
    fn read(&'static self, reader: &mut ParamReader<'_>) -> Option<OwnedCall> {
        self.read?(reader).map(|args| submit::with_args(&self.function, args))
    }

    fn to_json(&self, result: &Erased) -> Option<Value> {
        let Encoding::With(encoders) = self.output else { return None };
        let result = result.downcast_ref::<O>()?;
        panics::catch(|| encoders.to_json(result)).ok()??.ok()
    }
}

impl Registered {
    /// A task.
    #[must_use]
    pub const fn task(def: &'static Def) -> Self {
        Self { def, flow: None }
    }

    /// A flow.
    #[must_use]
    pub const fn flow<A: Args, O: 'static>(callable: &'static Callable<A, O>) -> Self {
        Self { def: callable.function.def, flow: Some(callable) }
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registered").field(&self.def.key).finish()
    }
}

inventory::collect!(Registered);

/// The tasks and flows in this program that are not generic, in no particular order.
pub fn registered() -> impl Iterator<Item = &'static Def> {
    inventory::iter::<Registered>.into_iter().map(|registered| registered.def)
}

/// The flows in this program that are not generic, by name.
///
/// ```
/// for flow in orchestrator_core::flows() {
///     println!("{}: {}", flow.name, flow.description);
///     for parameter in &flow.parameters {
///         println!("  {}: {}", parameter.name, parameter.type_name);
///     }
/// }
/// ```
pub fn flows() -> impl Iterator<Item = FlowInfo> {
    let mut flows: Vec<_> = Flow::all().map(|flow| flow.info()).collect();
    flows.sort_by_key(|flow| (flow.name, flow.key));
    flows.into_iter()
}

/// A flow of this program.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FlowInfo {
    /// Its display name.
    pub name: &'static str,
    /// The name of its function.
    pub function: &'static str,
    /// Where the function stands: its module path and name.
    pub key: &'static str,
    /// What it does.
    pub description: &'static str,
    /// The version that it declares.
    pub version: Option<&'static str>,
    /// Its parameters, in order.
    pub parameters: Vec<FlowParameter>,
}

impl FlowInfo {
    /// Why the flow cannot be called by name; `None` if it can.
    #[must_use]
    pub fn not_callable(&self) -> Option<String> {
        let skipped = self.parameters.iter().find(|parameter| parameter.skipped)?;
        Some(format!(
            "flow '{}' can only be called in the program: its parameter `{}` ({}) is left out of the record with \
             `#[param(skip)]`, so that nothing but a call can give it",
            self.name, skipped.name, skipped.type_name
        ))
    }
}

/// Why there is no flow that a run was a run of.
pub(crate) enum NoFlow {
    /// None of this program has its key.
    Unknown(String),
    /// Several have.
    Ambiguous(String),
}

/// A flow of this program, with the way into it.
#[derive(Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) def: &'static Def,
    pub(crate) entry: Entry,
}

impl Flow {
    fn all() -> impl Iterator<Item = Self> {
        let flows = inventory::iter::<Registered>.into_iter();
        flows.filter_map(|registered| Some(Self { def: registered.def, entry: registered.flow? }))
    }

    /// Those whose runs go on by themselves after a crash.
    pub(crate) fn resuming() -> impl Iterator<Item = Self> {
        Self::all().filter(|flow| flow.def.crash_budget.is_some())
    }

    fn function(self) -> &'static str {
        self.def.key.rsplit("::").next().unwrap_or(self.def.key)
    }

    pub(crate) fn info(self) -> FlowInfo {
        let mut reader = ParamReader::describe();
        self.entry.read(&mut reader);
        let Def { name, key, description, .. } = *self.def;
        let (version, parameters) = (self.def.version, reader.described());
        FlowInfo { name, function: self.function(), key, description, version, parameters }
    }

    /// The flow that a person means: by the name of its function, its display name, or its key.
    fn named(name: &str) -> Result<Self, Error> {
        let mut found: Vec<_> = Self::all().filter(|flow| flow.def.key == name).collect();
        if found.is_empty() {
            found = Self::all().filter(|flow| flow.def.name == name || flow.function() == name).collect();
        }
        match &found[..] {
            [flow] => Ok(*flow),
            [] => Err(unknown(name)),
            several => {
                let keys = several.iter().map(|flow| format!("'{}'", flow.def.key)).collect::<Vec<_>>().join(", ");
                Err(Error::new(ErrorKind::NotFound(format!(
                    "'{name}' is the name of {} flows: say which by its full name, one of {keys}",
                    several.len()
                ))))
            }
        }
    }

    pub(crate) fn of_def(def: &'static Def) -> Option<Self> {
        Self::all().find(|flow| std::ptr::eq(flow.def, def))
    }

    /// The flow that a run was a run of.
    pub(crate) fn of_run(run: &FlowRun) -> Result<Self, NoFlow> {
        let mut found: Vec<_> = Self::all().filter(|flow| flow.def.key == run.flow_key).collect();
        if found.len() > 1 {
            // Functions of one name in different blocks have the same key.
            let recorded = run.parameters.as_object();
            found.retain(|flow| {
                let info = flow.info();
                let names = info.parameters.iter().filter(|parameter| !parameter.skipped);
                flow.def.name == run.flow_name
                    && recorded.is_some_and(|recorded| names.clone().all(|known| recorded.contains_key(known.name)))
            });
        }
        match &found[..] {
            [flow] => Ok(*flow),
            [] => Err(NoFlow::Unknown(format!(
                "there is no flow '{}' in this program: it was renamed or moved, it has type parameters, or another \
                 program ran it",
                run.flow_key
            ))),
            several => Err(NoFlow::Ambiguous(format!(
                "there are {} flows '{}' in this program, and nothing tells which of them it was",
                several.len(),
                run.flow_key
            ))),
        }
    }

    /// A call of the flow with these parameters.
    pub(crate) fn call(self, parameters: &Map<String, Value>) -> Result<OwnedCall, Error> {
        if let Some(why) = self.info().not_callable() {
            return Err(Error::new(ErrorKind::NotCallable(why)));
        }
        let mut reader = ParamReader::read(parameters);
        let call = self.entry.read(&mut reader);
        match (call, reader.errors()) {
            (Some(call), errors) if errors.is_empty() => Ok(call),
            (call, errors) => {
                // Arguments have destructors of their own.
                panics::let_go(call);
                Err(Error::new(ErrorKind::Parameters { flow: self.def.name, errors }))
            }
        }
    }
}

/// A flow with its parameters, read and found right; made by [`prepare_call`], run by [`Orchestrator::run_prepared`].
pub struct PreparedCall {
    flow: Flow,
    /// Taken when it is run. Arguments have destructors of their own.
    call: Option<OwnedCall>,
}

impl PreparedCall {
    /// The flow's key: its function's module path and name.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        self.flow.def.key
    }
}

impl fmt::Debug for PreparedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedCall").field(&self.key()).finish()
    }
}

impl Drop for PreparedCall {
    fn drop(&mut self) {
        panics::let_go(self.call.take());
    }
}

/// Reads the parameters of a flow for [`Orchestrator::run_prepared`], before there is an orchestrator.
///
/// # Errors
///
/// Those of [`Orchestrator::run_flow`].
pub fn prepare_call(name: &str, parameters: Value) -> Result<PreparedCall, Error> {
    let flow = Flow::named(name)?;
    let call = flow.call(&object(parameters, flow)?)?;
    Ok(PreparedCall { flow, call: Some(call) })
}

fn object(parameters: Value, flow: Flow) -> Result<Map<String, Value>, Error> {
    match parameters {
        Value::Object(parameters) => Ok(parameters),
        Value::Null => Ok(Map::new()),
        other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(Error::new(ErrorKind::Input(format!(
                "the parameters of flow '{}' are a JSON object, such as {{\"name\": 1}}, and not {other}",
                flow.def.name
            ))))
        }
    }
}

fn unknown(name: &str) -> Error {
    let mut known: Vec<_> = Flow::all().map(|flow| flow.def.name).collect();
    known.sort_unstable();
    known.dedup();
    let names = Flow::all().flat_map(|flow| [flow.function(), flow.def.name, flow.def.key]);
    let meant = suggest::nearest(name, names).map(|near| format!("did you mean '{near}'? ")).unwrap_or_default();
    let list = match &known[..] {
        [] => "this program has none".to_owned(),
        known => {
            let more = known.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("the flows of this program are {}{more}", known[..known.len().min(NAMED)].join(", "))
        }
    };
    let text = format!("there is no flow '{name}': {meant}{list}");
    Error::new(ErrorKind::NotFound(text))
}

impl Orchestrator {
    /// Calls a flow by name, with its parameters as a JSON object: the way in for whatever does not know the flow's types,
    /// such as a command line.
    ///
    /// The name is that of the function, the flow's display name, or its full name with the module path. The run is a root
    /// run, wherever this is called. A parameter that is an `Option` may be left out. `null` stands for no parameters.
    ///
    /// # Errors
    ///
    /// No run was made then. If there is no such flow, or several of them ([`Error::is_not_found`]); if parameters are
    /// missing, unknown or not of their types ([`Error::as_parameters`] has all of them); if the flow can only be called
    /// in the program, because a parameter is left out of the record with `#[param(skip)]`.
    pub fn run_flow(&self, flow: &str, parameters: Value) -> Result<StartedFlow, Error> {
        prepare_call(flow, parameters).map(|call| self.run_prepared(call))
    }

    /// Calls a flow whose parameters have been read, as [`run_flow`](Self::run_flow) does.
    #[must_use = "it goes on if this is dropped, and nobody hears of its end"]
    pub fn run_prepared(&self, call: PreparedCall) -> StartedFlow {
        let (flow, mut call) = (call.flow, call);
        let call = call.call.take().expect("it is taken here alone");
        let mut place = Place::under(self.inner());
        let run = place.within(|| submit::submit(flow.def, Overrides::NONE, call, Manner::Call));
        StartedFlow::new(run, Some(flow.entry))
    }
}
