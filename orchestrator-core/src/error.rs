//! Why a run did not complete, and why the runtime could not do what it was asked.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::backend::BackendError;
use crate::engine::panics;
use crate::id::RunId;
use crate::registry::ParameterError;
use crate::transaction::TransactionError;

/// Why a task run did not complete.
///
/// Cheap to clone. [`Display`](fmt::Display) names the run and tells the whole chain of causes in one line;
/// [`source`](StdError::source) leads to the body's own error.
#[derive(Clone)]
pub struct TaskError(pub(crate) Arc<Failure>);

/// Why a flow run did not complete; see [`TaskError`].
#[derive(Clone)]
pub struct FlowError(pub(crate) Arc<Failure>);

/// What both public errors share.
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) run: Option<FailedRun>,
    pub(crate) cause: Cause,
    /// How many runs failed before this one because of each other, and the first of them.
    before: u32,
    first: Option<TaskError>,
}

/// The run that an error speaks of.
#[derive(Clone, Debug)]
pub(crate) struct FailedRun {
    pub(crate) id: RunId,
    pub(crate) name: Arc<str>,
    pub(crate) function: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailureKind {
    /// The body returned an error.
    Failed,
    /// The body panicked.
    Panicked,
    /// The last attempt overran its timeout.
    TimedOut,
    /// The run was cancelled.
    Cancelled,
    /// An upstream run did not complete.
    NotReady,
    /// The runtime under the run went away.
    Crashed,
    /// The run asked for something that cannot be: an unknown limit, collections of different lengths.
    Refused,
}

pub(crate) enum Cause {
    /// A sentence.
    Said(String),
    /// The body's own error.
    Body(BodyError),
    /// The failure that began it all, in a run whose result this one would have taken.
    Upstream(TaskError),
    /// A child's failure that nobody looked at.
    Unobserved(TaskError),
    /// A failure for which a transaction was rolled back, and what went wrong with that.
    AndRollback(TaskError, TransactionError),
    /// A sentence about several failures, and the first of them.
    Several(String, TaskError),
}

impl Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Said(_) => None,
            Self::Body(error) => Some(error.as_dyn()),
            Self::Upstream(error) | Self::Unobserved(error) | Self::Several(_, error) => Some(error),
            // Of the same run: its own cause is the next one.
            Self::AndRollback(error, _) => error.0.source(),
        }
    }

    /// The failure of the run that began this one, if another run did.
    fn run(&self) -> Option<&Arc<Failure>> {
        let mut current = self.source();
        while let Some(error) = current {
            if let Some(error) = error.downcast_ref::<TaskError>() {
                return Some(&error.0);
            }
            if let Some(error) = error.downcast_ref::<FlowError>() {
                return Some(&error.0);
            }
            current = error.source();
        }
        None
    }
}

/// The error that a body returned, as it was.
pub(crate) enum BodyError {
    Std(Box<dyn StdError + Send + Sync>),
    Anyhow(anyhow::Error),
}

impl BodyError {
    pub(crate) fn new<E: Into<Box<dyn StdError + Send + Sync>> + 'static>(error: E) -> Self {
        let mut slot = Some(error);
        // An `anyhow::Error` would hide the error inside it from `downcast_ref` once it is boxed.
        if let Some(error) = (&mut slot as &mut dyn Any).downcast_mut::<Option<anyhow::Error>>().and_then(Option::take)
        {
            return Self::Anyhow(error);
        }
        Self::Std(slot.expect("the slot was filled above and is not an anyhow error").into())
    }

    pub(crate) fn as_dyn(&self) -> &(dyn StdError + Send + Sync + 'static) {
        match self {
            Self::Std(error) => &**error,
            Self::Anyhow(error) => &**error,
        }
    }

    pub(crate) fn downcast_ref<E: StdError + Send + Sync + 'static>(&self) -> Option<&E> {
        match self {
            Self::Std(error) => error.downcast_ref(),
            Self::Anyhow(error) => error.downcast_ref(),
        }
    }
}

impl Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.source()
    }

    /// The cause alone, in one line: what a state's message says.
    pub(crate) fn reason(&self) -> String {
        match &self.cause {
            Cause::Said(text) | Cause::Several(text, _) => text.clone(),
            Cause::Body(error) => chain(error.as_dyn()),
            Cause::Upstream(error) => format!("upstream {error}"),
            Cause::Unobserved(error) => format!("nobody awaited a run that did not complete: {error}"),
            Cause::AndRollback(error, transaction) => {
                let failures = transaction.failures();
                format!("{}; the rollback of its transaction is incomplete: {failures}", error.0.reason())
            }
        }
    }

    /// One line, however long the chain of causes is: of a long one the last runs are told, and the first.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = Told::one_more();
        if let Some(first) = &self.first
            && told.before >= LAST
            && told.before + self.before >= LONGEST
        {
            return write!(f, "… ({} more) …: {first}", self.before);
        }
        if let Some(run) = &self.run {
            let kind = match run.id {
                RunId::Task(_) => "task",
                RunId::Flow(_) => "flow",
            };
            write!(f, "{kind} run '{}' ", run.name)?;
            f.write_str(match self.kind {
                FailureKind::Failed | FailureKind::Panicked => "failed",
                FailureKind::TimedOut => "timed out",
                FailureKind::Cancelled => "was cancelled",
                FailureKind::NotReady => "did not start",
                FailureKind::Crashed => "crashed",
                FailureKind::Refused => "was refused",
            })?;
            f.write_str(": ")?;
        }
        f.write_str(&self.reason())
    }
}

/// A chain of so many runs is told in full.
const LONGEST: u32 = 8;
/// How many runs are told at the end of a longer one.
const LAST: u32 = 3;

thread_local! {
    /// How many runs of a chain are being told on this thread: the text of each is part of the next one's, by way of
    /// whatever errors bodies wrap around them.
    static TELLING: Cell<u32> = const { Cell::new(0) };
    /// Causes to drop, while this thread drops one: a chain of causes must not become a chain of calls.
    static DROPPING: RefCell<Option<Vec<Causes>>> = const { RefCell::new(None) };
}

/// What a failure refers to: its cause and the first one.
type Causes = (Cause, Option<TaskError>);

struct Told {
    before: u32,
}

impl Told {
    fn one_more() -> Self {
        let before = TELLING.get();
        TELLING.set(before + 1);
        Self { before }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        TELLING.set(self.before);
    }
}

impl Drop for Failure {
    fn drop(&mut self) {
        if self.first.is_none() {
            return;
        }
        let cause = std::mem::replace(&mut self.cause, Cause::Said(String::new()));
        let mut next = Some((cause, self.first.take()));
        let queued = DROPPING.try_with(|queue| match &mut *queue.borrow_mut() {
            Some(queue) => {
                queue.extend(next.take());
                true
            }
            queue => {
                *queue = Some(Vec::new());
                false
            }
        });
        if queued != Ok(false) {
            return;
        }
        // Errors of bodies are dropped here, so nothing is borrowed meanwhile.
        while let Some(causes) = next {
            if let Err(said) = panics::catch(|| drop(causes)) {
                tracing::error!(target: "orchestrator", "the destructor of an error {said}");
            }
            next = DROPPING.with_borrow_mut(|queue| {
                let next = queue.as_mut().and_then(Vec::pop);
                if next.is_none() {
                    *queue = None;
                }
                next
            });
        }
    }
}

/// An error and its sources in one line; a source that its parent quotes already is not repeated.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = said(error);
    let mut current = error;
    while let Some(next) = current.source().filter(|_| !tells_its_chain(current)) {
        let next_said = said(next);
        if !text.contains(&next_said) {
            text.push_str(": ");
            text.push_str(&next_said);
        }
        current = next;
    }
    text
}

/// What an error says of itself; its `Display` is code of others, and may panic.
fn said(error: &(dyn StdError + 'static)) -> String {
    panics::catch(|| error.to_string()).unwrap_or_else(|panicked| format!("an error whose `Display` {panicked}"))
}

fn tells_its_chain(error: &(dyn StdError + 'static)) -> bool {
    error.is::<TaskError>() || error.is::<FlowError>() || error.is::<Error>() || error.is::<TransactionError>()
}

macro_rules! run_error {
    ($name:ident, $other:ident, $what:literal) => {
        impl $name {
            /// Whether the last attempt overran its timeout.
            #[must_use]
            pub fn is_timed_out(&self) -> bool {
                self.0.kind == FailureKind::TimedOut
            }

            /// Whether the run was cancelled.
            #[must_use]
            pub fn is_cancelled(&self) -> bool {
                self.0.kind == FailureKind::Cancelled
            }

            /// Whether the body was never called because an upstream run did not complete.
            #[must_use]
            pub fn is_not_ready(&self) -> bool {
                self.0.kind == FailureKind::NotReady
            }

            /// Whether the body panicked.
            #[must_use]
            pub fn is_panic(&self) -> bool {
                self.0.kind == FailureKind::Panicked
            }

            /// Whether the process, machine or runtime under the run went away.
            #[must_use]
            pub fn is_crashed(&self) -> bool {
                self.0.kind == FailureKind::Crashed
            }

            /// The run's own error, if it is an `E` (or, in an `anyhow::Error`, wraps one).
            #[must_use]
            pub fn downcast_ref<E: StdError + Send + Sync + 'static>(&self) -> Option<&E> {
                let mut failure = &self.0;
                loop {
                    match &failure.cause {
                        Cause::Body(error) => return error.downcast_ref(),
                        Cause::Upstream(error) | Cause::Unobserved(error) | Cause::Several(_, error) => {
                            failure = &error.0;
                        }
                        Cause::AndRollback(error, transaction) => {
                            let transaction: &(dyn StdError + 'static) = transaction;
                            if let Some(found) = transaction.downcast_ref() {
                                return Some(found);
                            }
                            failure = &error.0;
                        }
                        Cause::Said(_) => return None,
                    }
                }
            }

            /// The failure that started it all: the last run in the chain of causes.
            #[must_use]
            pub fn first_cause(&self) -> TaskError {
                self.0.first.clone().unwrap_or_else(|| TaskError(Arc::clone(&self.0)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.describe(f)
            }
        }

        impl fmt::Debug for $name {
            /// The same line as [`Display`](fmt::Display): it is what `unwrap` and `main` show.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.describe(f)
            }
        }

        impl StdError for $name {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                self.0.source()
            }
        }

        impl From<$other> for $name {
            fn from(error: $other) -> Self {
                Self(error.0)
            }
        }
    };
}

run_error!(TaskError, FlowError, "task");
run_error!(FlowError, TaskError, "flow");

impl TaskError {
    pub(crate) fn new(kind: FailureKind, run: Option<FailedRun>, cause: Cause) -> Self {
        // `source` is code of others.
        let (before, first) = match panics::catch(|| cause.run()).unwrap_or_default() {
            Some(next) => (next.before + 1, Some(next.first.clone().unwrap_or_else(|| Self(Arc::clone(next))))),
            None => (0, None),
        };
        Self(Arc::new(Failure { kind, run, cause, before, first }))
    }

    /// The run that did not complete; `None` if no run was ever made, as for collections of different lengths.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        self.0.run.as_ref().map(|run| run.id)
    }

    /// The task's display name; empty if no run was ever made.
    #[must_use]
    pub fn task_name(&self) -> &str {
        self.0.run.as_ref().map_or("", |run| run.function)
    }

    /// The run's name; empty if no run was ever made.
    #[must_use]
    pub fn run_name(&self) -> &str {
        self.0.run.as_ref().map_or("", |run| &run.name)
    }
}

impl FlowError {
    /// The run that did not complete; `None` if no run was ever made.
    #[must_use]
    pub fn run_id(&self) -> Option<RunId> {
        self.0.run.as_ref().map(|run| run.id)
    }

    /// The flow's display name; empty if no run was ever made.
    #[must_use]
    pub fn flow_name(&self) -> &str {
        self.0.run.as_ref().map_or("", |run| run.function)
    }

    /// The run's name; empty if no run was ever made.
    #[must_use]
    pub fn run_name(&self) -> &str {
        self.0.run.as_ref().map_or("", |run| &run.name)
    }
}

/// Why the runtime could not do what it was asked.
#[derive(Clone)]
pub struct Error(Arc<ErrorKind>);

pub(crate) enum ErrorKind {
    Task(TaskError),
    Flow(FlowError),
    Backend(BackendError),
    NotFound(String),
    Limit(String),
    NotPaused(String),
    NotResumable(String),
    /// Nor is it resumable.
    UnknownFlow(String),
    NotCallable(String),
    NotRemovable(String),
    Input(String),
    Parameters {
        flow: &'static str,
        errors: Vec<ParameterError>,
    },
    TimedOut(String),
    Config(String),
    ShutDown,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self(Arc::new(kind))
    }

    /// Whether the thing asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(*self.0, ErrorKind::NotFound(_))
    }

    /// Whether a limit is unknown, too small, or waited for by its own holder.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(*self.0, ErrorKind::Limit(_))
    }

    /// Whether something took longer than it was given, such as a pause that nobody resumed, or slots that nobody gave
    /// back.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        match &*self.0 {
            ErrorKind::TimedOut(_) => true,
            ErrorKind::Task(error) => error.is_timed_out(),
            ErrorKind::Flow(error) => error.is_timed_out(),
            ErrorKind::Backend(_)
            | ErrorKind::NotFound(_)
            | ErrorKind::Limit(_)
            | ErrorKind::NotPaused(_)
            | ErrorKind::NotResumable(_)
            | ErrorKind::UnknownFlow(_)
            | ErrorKind::NotCallable(_)
            | ErrorKind::NotRemovable(_)
            | ErrorKind::Input(_)
            | ErrorKind::Parameters { .. }
            | ErrorKind::Config(_)
            | ErrorKind::ShutDown => false,
        }
    }

    /// Whether there is no pause: of a flow run that is to be resumed, or because a flow run cannot be paused.
    #[must_use]
    pub fn is_not_paused(&self) -> bool {
        matches!(*self.0, ErrorKind::NotPaused(_))
    }

    /// Whether a flow run cannot be resumed: it has completed, it is active, it is part of another run, somebody else was
    /// quicker, or its flow is not in this program.
    #[must_use]
    pub fn is_not_resumable(&self) -> bool {
        matches!(*self.0, ErrorKind::NotResumable(_) | ErrorKind::UnknownFlow(_))
    }

    /// Whether a flow run cannot be resumed because its flow is not in this program: the program that has it can do so.
    #[must_use]
    pub fn is_unknown_flow(&self) -> bool {
        matches!(*self.0, ErrorKind::UnknownFlow(_))
    }

    /// Whether a run cannot be removed: it has not ended, or is part of another.
    #[must_use]
    pub fn is_not_removable(&self) -> bool {
        matches!(*self.0, ErrorKind::NotRemovable(_))
    }

    /// Whether the input for a paused flow run, or a parameter of a flow, is not what it takes.
    #[must_use]
    pub fn is_invalid_input(&self) -> bool {
        matches!(*self.0, ErrorKind::Input(_) | ErrorKind::Parameters { .. })
    }

    /// What is wrong with each of the parameters that a flow was given, if that is what it is.
    #[must_use]
    pub fn as_parameters(&self) -> Option<&[ParameterError]> {
        if let ErrorKind::Parameters { errors, .. } = &*self.0 { Some(errors) } else { None }
    }

    /// Why a flow run that was waited for did not complete, if that is what it is.
    #[must_use]
    pub fn as_flow(&self) -> Option<&FlowError> {
        if let ErrorKind::Flow(error) = &*self.0 { Some(error) } else { None }
    }

    /// Whether the state backend failed.
    #[must_use]
    pub fn is_backend(&self) -> bool {
        matches!(*self.0, ErrorKind::Backend(_))
    }

    /// The state backend's own error, if that is what it is.
    #[must_use]
    pub fn as_backend(&self) -> Option<&BackendError> {
        match &*self.0 {
            ErrorKind::Backend(error) => Some(error),
            ErrorKind::Task(_)
            | ErrorKind::Flow(_)
            | ErrorKind::NotFound(_)
            | ErrorKind::Limit(_)
            | ErrorKind::NotPaused(_)
            | ErrorKind::NotResumable(_)
            | ErrorKind::UnknownFlow(_)
            | ErrorKind::NotCallable(_)
            | ErrorKind::NotRemovable(_)
            | ErrorKind::Input(_)
            | ErrorKind::Parameters { .. }
            | ErrorKind::TimedOut(_)
            | ErrorKind::Config(_)
            | ErrorKind::ShutDown => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            ErrorKind::Task(error) => error.fmt(f),
            ErrorKind::Flow(error) => error.fmt(f),
            ErrorKind::Backend(error) => error.fmt(f),
            ErrorKind::NotFound(text)
            | ErrorKind::Limit(text)
            | ErrorKind::NotPaused(text)
            | ErrorKind::NotResumable(text)
            | ErrorKind::UnknownFlow(text)
            | ErrorKind::NotCallable(text)
            | ErrorKind::NotRemovable(text)
            | ErrorKind::Input(text)
            | ErrorKind::TimedOut(text)
            | ErrorKind::Config(text) => f.write_str(text),
            ErrorKind::Parameters { flow, errors } => {
                write!(f, "flow '{flow}' cannot be called with these parameters: ")?;
                errors.iter().enumerate().try_for_each(|(index, error)| {
                    let comma = if index > 0 { "; " } else { "" };
                    write!(f, "{comma}{error}")
                })
            }
            ErrorKind::ShutDown => f.write_str("the orchestrator is shut down"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            ErrorKind::Task(error) => error.source(),
            ErrorKind::Flow(error) => error.source(),
            ErrorKind::Backend(error) => error.source(),
            ErrorKind::NotFound(_)
            | ErrorKind::Limit(_)
            | ErrorKind::NotPaused(_)
            | ErrorKind::NotResumable(_)
            | ErrorKind::UnknownFlow(_)
            | ErrorKind::NotCallable(_)
            | ErrorKind::NotRemovable(_)
            | ErrorKind::Input(_)
            | ErrorKind::Parameters { .. }
            | ErrorKind::TimedOut(_)
            | ErrorKind::Config(_)
            | ErrorKind::ShutDown => None,
        }
    }
}

impl From<TaskError> for Error {
    fn from(error: TaskError) -> Self {
        Self::new(ErrorKind::Task(error))
    }
}

impl From<FlowError> for Error {
    fn from(error: FlowError) -> Self {
        Self::new(ErrorKind::Flow(error))
    }
}

/// So that bodies that return `Result<_, TaskError>` can use `?` on what the runtime says. The error of a run is given
/// back as it was.
impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        match &*error.0 {
            ErrorKind::Task(error) => error.clone(),
            ErrorKind::Flow(error) => error.clone().into(),
            ErrorKind::Backend(_)
            | ErrorKind::NotFound(_)
            | ErrorKind::Limit(_)
            | ErrorKind::NotPaused(_)
            | ErrorKind::NotResumable(_)
            | ErrorKind::UnknownFlow(_)
            | ErrorKind::NotCallable(_)
            | ErrorKind::NotRemovable(_)
            | ErrorKind::Input(_)
            | ErrorKind::Parameters { .. }
            | ErrorKind::TimedOut(_)
            | ErrorKind::Config(_)
            | ErrorKind::ShutDown => {
                let kind = if error.is_timed_out() { FailureKind::TimedOut } else { FailureKind::Failed };
                Self::new(kind, None, Cause::Body(BodyError::new(error)))
            }
        }
    }
}

impl From<Error> for FlowError {
    fn from(error: Error) -> Self {
        TaskError::from(error).into()
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        Self::new(ErrorKind::Backend(error))
    }
}

/// What flows without `anyhow` return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::TaskRunId;

    fn failed(name: &str, cause: Cause, kind: FailureKind) -> TaskError {
        let id = TaskRunId::new(Timestamp::from_micros(1)).into();
        TaskError::new(kind, Some(FailedRun { id, name: name.into(), function: "fetch" }), cause)
    }

    #[test]
    fn the_chain_is_told_once_and_the_first_cause_is_found() {
        let io = std::io::Error::other("disk on fire");
        let first = failed("fetch-3", Cause::Body(BodyError::new(io)), FailureKind::Failed);
        assert_eq!(first.to_string(), "task run 'fetch-3' failed: disk on fire");
        let third = failed("load-0", Cause::Upstream(first.clone()), FailureKind::NotReady);
        assert_eq!(
            third.to_string(),
            "task run 'load-0' did not start: upstream task run 'fetch-3' failed: disk on fire"
        );
        assert_eq!(third.first_cause().run_id(), first.run_id());
        let wrapped = anyhow::Error::new(third).context("reading the table");
        let flow = failed("otter", Cause::Body(BodyError::new(wrapped)), FailureKind::Failed);
        assert_eq!(flow.first_cause().run_id(), first.run_id());
        assert!(flow.to_string().ends_with(
            "reading the table: task run 'load-0' did not start: upstream task run 'fetch-3' failed: disk on fire"
        ));
    }

    #[test]
    fn what_the_runtime_says_can_be_the_error_of_a_body() {
        let of_run = failed("fetch-3", Cause::Said("no".to_owned()), FailureKind::Panicked);
        let back = TaskError::from(Error::from(of_run.clone()));
        assert!(back.is_panic() && back.run_id() == of_run.run_id());
        assert_eq!(FlowError::from(Error::from(FlowError::from(of_run.clone()))).run_id(), of_run.run_id());
        let late = TaskError::from(Error::new(ErrorKind::TimedOut("nobody came".to_owned())));
        assert!(late.is_timed_out() && late.downcast_ref::<Error>().is_some_and(Error::is_timed_out));
        assert_eq!((late.run_id(), late.to_string().as_str()), (None, "nobody came"));
    }

    #[test]
    fn the_bodys_own_error_is_found_inside_anyhow_too() {
        let error = anyhow::Error::new(std::io::Error::other("gone")).context("reading");
        let error = failed("a-0", Cause::Body(BodyError::new(error)), FailureKind::Failed);
        assert!(error.downcast_ref::<std::io::Error>().is_some());
        let text = failed("a-0", Cause::Body(BodyError::new(String::from("no luck"))), FailureKind::Failed);
        assert_eq!(text.to_string(), "task run 'a-0' failed: no luck");
    }
}
