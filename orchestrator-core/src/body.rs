//! What the macros hand over: one value per function, with the few things that depend on its types.
//!
//! What is generic here is compiled for each function or its types, so it stays thin; what does not depend on them lives in
//! the engine.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::record::EncodedValue;
use crate::cache::canonical::{self, EncodeError};
use crate::def::Def;
use crate::error::BodyError;
use crate::future::{FlowFuture, MapFuture, TaskFuture};
use crate::hook::ResultHook;
use crate::input::{Args, Passed, PassedToMap};
use crate::options::Overrides;
use crate::registry::ParamReader;
use crate::submit;

/// A result of any type, shared by its readers.
pub type Erased = Arc<dyn Any + Send + Sync>;

/// An async body, without its types.
pub type BodyFuture = Pin<Box<dyn Future<Output = Result<Erased, BodyFailure>> + Send>>;

/// What the `cache_key` function of a task says of these arguments.
pub type CacheKeyOf<A> = fn(&A) -> Option<String>;

/// Reads the arguments of a flow.
pub type ReadArgs<A> = fn(&mut ParamReader<'_>) -> Option<A>;

/// A function behind `#[task]` or `#[flow]`, with the few things that depend on its types. It is a value, not a trait that
/// each function implements, so that a program has as little as possible for each function to check, compile and link.
pub struct Callable<A: Args, O: 'static> {
    pub(crate) function: Function<A>,
    /// Goes over the parameters of a flow; gives the arguments if they were read.
    pub(crate) read: Option<ReadArgs<A>>,
    /// How the result of a flow is written as JSON.
    pub(crate) output: Encoding<O>,
}

impl<A: Args, O: 'static> std::fmt::Debug for Callable<A, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.function.fmt(f)
    }
}

impl<A: Args, O: Send + Sync + 'static> Callable<A, O> {
    /// A function with what its attribute says, its body, ready to be executed once, how its arguments are written into the
    /// cache key (of a task) or the record (of a flow), and what their type is.
    pub const fn new(
        def: &'static Def,
        call: fn(A) -> Attempt,
        arguments: A::Encodings,
        result: &'static ResultType,
    ) -> Self {
        let function = Function {
            def,
            call,
            arguments,
            run_name: None,
            cache_key: None,
            result,
            on_commit: None,
            on_rollback: None,
        };
        Self { function, read: None, output: Encoding::LeftOut }
    }

    /// A template makes the run's name.
    #[must_use]
    pub const fn run_name(mut self, name: fn(&A) -> String) -> Self {
        self.function.run_name = Some(name);
        self
    }

    /// A function says what the cache key is; `None` is "not cached".
    #[must_use]
    pub const fn cache_key(mut self, key: CacheKeyOf<A>) -> Self {
        self.function.cache_key = Some(key);
        self
    }

    /// The way into a flow, and the one of its results out of it, for those who know nothing of its types.
    #[must_use]
    pub const fn entry(mut self, read: ReadArgs<A>, output: Encoding<O>) -> Self {
        self.read = Some(read);
        self.output = output;
        self
    }

    /// Hooks for the commit of the transaction that a run is part of.
    #[must_use]
    pub const fn on_commit(mut self, hooks: fn() -> Vec<ResultHook>) -> Self {
        self.function.on_commit = Some(hooks);
        self
    }

    /// Hooks that undo what a run did.
    #[must_use]
    pub const fn on_rollback(mut self, hooks: fn() -> Vec<ResultHook>) -> Self {
        self.function.on_rollback = Some(hooks);
        self
    }
}

// What is compiled of these for each function is as good as nothing: all goes on in code for the types.

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
pub fn submit_task<A: Args, O: 'static>(
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
pub fn submit_flow<A: Args, O: 'static>(
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
pub fn submit_map<A: Args, O: Send + Sync + 'static>(
    callable: &'static Callable<A, O>,
    overrides: &Overrides,
    args: impl PassedToMap<A::Mapped>,
) -> MapFuture<O> {
    submit::map_call(&callable.function, overrides, args)
}

/// What the runtime calls of a function with arguments `A`: the runtime's code is compiled once for each list of
/// parameter types, and not once for each function.
pub(crate) struct Function<A: Args> {
    pub(crate) def: &'static Def,
    pub(crate) call: fn(A) -> Attempt,
    pub(crate) arguments: A::Encodings,
    pub(crate) run_name: Option<fn(&A) -> String>,
    pub(crate) cache_key: Option<CacheKeyOf<A>>,
    pub(crate) result: &'static ResultType,
    pub(crate) on_commit: Option<fn() -> Vec<ResultHook>>,
    pub(crate) on_rollback: Option<fn() -> Vec<ResultHook>>,
}

impl<A: Args> std::fmt::Debug for Function<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Function").field(&self.def.key).finish()
    }
}

/// What the runtime knows of the type of results: there is one for all functions that give that type.
#[derive(Debug)]
pub struct ResultType {
    is: fn(&Erased) -> bool,
    /// How they are stored, if they can be.
    codec: Option<Codec>,
}

impl ResultType {
    pub(crate) const fn codec(&'static self) -> Option<&'static Codec> {
        self.codec.as_ref()
    }

    /// Whether a value is of this type.
    pub(crate) fn has(&self, value: &Erased) -> bool {
        (self.is)(value)
    }
}

fn is<T: 'static>(value: &Erased) -> bool {
    value.is::<T>()
}

/// One execution of a body that has not begun.
pub enum Attempt {
    /// An async body.
    Future(BodyFuture),
    /// A sync body, for the blocking pool.
    Blocking(Box<dyn FnOnce() -> Result<Erased, BodyFailure> + Send>),
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Future(_) => "Attempt::Future",
            Self::Blocking(_) => "Attempt::Blocking",
        })
    }
}

impl Attempt {
    /// An attempt that polls `future`.
    pub fn from_future(future: impl Future<Output = Result<Erased, BodyFailure>> + Send + 'static) -> Self {
        Self::Future(Box::pin(future))
    }

    /// An attempt that polls a body which cannot fail, and which borrows nothing.
    pub fn from_plain<T>(body: impl Future<Output = T> + Send + 'static) -> Self
    where
        T: Send + Sync + 'static,
    {
        Self::Future(Box::pin(async move { plain(body.await) }))
    }

    /// An attempt that polls a body which returns a `Result`, and which borrows nothing.
    pub fn from_fallible<T, E>(
        body: impl Future<Output = Result<T, E>> + Send + 'static,
        retry_if: Option<fn(&E) -> bool>,
    ) -> Self
    where
        T: Send + Sync + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        Self::Future(Box::pin(async move { fallible(body.await, retry_if) }))
    }

    /// An attempt that calls `function` on the blocking pool.
    pub fn from_fn(function: impl FnOnce() -> Result<Erased, BodyFailure> + Send + 'static) -> Self {
        Self::Blocking(Box::new(function))
    }
}

/// A body's error, with what `retry_if` said of it.
pub struct BodyFailure {
    pub(crate) error: BodyError,
    pub(crate) retryable: bool,
}

impl std::fmt::Debug for BodyFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyFailure").field("error", &self.error.as_dyn()).finish_non_exhaustive()
    }
}

/// The outcome of a body that cannot fail.
///
/// # Errors
///
/// Never; the signature is that of [`fallible`].
#[inline(never)]
pub fn plain<T: Send + Sync + 'static>(value: T) -> Result<Erased, BodyFailure> {
    Ok(Arc::new(value))
}

/// The outcome of a body that returns a `Result`.
///
/// # Errors
///
/// If the body failed.
// Compiled once for the types, and not once for each function.
#[inline(never)]
pub fn fallible<T, E>(result: Result<T, E>, retry_if: Option<fn(&E) -> bool>) -> Result<Erased, BodyFailure>
where
    T: Send + Sync + 'static,
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    match result {
        Ok(value) => Ok(Arc::new(value)),
        Err(error) => {
            let retryable = retry_if.is_none_or(|condition| ask(condition, &error));
            Err(BodyFailure { error: BodyError::new(error), retryable })
        }
    }
}

/// What `retry_if` says of an error that a fake gave; one of another type is retried.
pub fn retries<E: 'static>(error: &dyn Any, condition: fn(&E) -> bool) -> bool {
    error.downcast_ref().is_none_or(|error| ask(condition, error))
}

/// A condition that panics says no.
fn ask<E>(condition: fn(&E) -> bool, error: &E) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| condition(error))).unwrap_or_else(|_| {
        tracing::error!(target: "orchestrator", "the retry condition panicked; the task is not retried");
        false
    })
}

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

/// How values of a type are written into a cache key or a record; `None`: the type is not `Serialize`.
pub struct Encoders<T>(Option<Writers<T>>);

struct Writers<T> {
    canonical: fn(&T, &mut Vec<u8>) -> Result<(), EncodeError>,
    json: fn(&T) -> Result<serde_json::Value, serde_json::Error>,
}

impl<T> std::fmt::Debug for Encoders<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoders")
    }
}

impl<T> Encoders<T> {
    const NONE: Self = Self(None);

    pub(crate) fn to_json(&self, value: &T) -> Option<Result<serde_json::Value, serde_json::Error>> {
        Some((self.0.as_ref()?.json)(value))
    }
}

impl<T: Serialize> Encoders<T> {
    const SERDE: Self = Self(Some(Writers {
        canonical: |value, out| canonical::encode(value, out),
        json: |value| serde_json::to_value(value),
    }));
}

/// Whether and how values of a type are written.
pub enum Encoding<T: 'static> {
    /// They are left out.
    LeftOut,
    /// With these, if their type is `Serialize`.
    With(&'static Encoders<T>),
}

impl<T> Clone for Encoding<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Encoding<T> {}

impl<T> std::fmt::Debug for Encoding<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LeftOut => "Encoding::LeftOut",
            Self::With(_) => "Encoding::With",
        })
    }
}

impl<T: Serialize + 'static> Probe<T> {
    /// A type that is `Serialize` is written so: this constant shadows the trait's.
    pub const ENCODING: Encoding<T> = Encoding::With(&Encoders::SERDE);
}

/// The answer for types that are not `Serialize`.
pub trait ProbeEncoding<T: 'static> {
    /// How values are written.
    const ENCODING: Encoding<T> = Encoding::With(&Encoders::NONE);
}

impl<T: 'static> ProbeEncoding<T> for Probe<T> {}

/// Writes the arguments of one run, for one of two purposes.
#[derive(Debug)]
pub struct ArgEncoder<'a> {
    purpose: Purpose<'a>,
    /// Whether the arguments after one that cannot be encoded are written.
    goes_on: bool,
    error: Option<ArgError>,
}

#[derive(Debug)]
enum Purpose<'a> {
    /// The canonical form, but for the arguments named.
    Key { out: &'a mut Vec<u8>, exclude: &'a [&'a str] },
    /// A JSON object.
    Record { out: &'a mut serde_json::Map<String, serde_json::Value> },
}

impl<'a> ArgEncoder<'a> {
    pub(crate) fn key(out: &'a mut Vec<u8>, exclude: &'a [&'a str]) -> Self {
        Self { purpose: Purpose::Key { out, exclude }, goes_on: false, error: None }
    }

    /// A mark stands for each argument that cannot be encoded.
    pub(crate) fn identity(out: &'a mut Vec<u8>) -> Self {
        Self { purpose: Purpose::Key { out, exclude: &[] }, goes_on: true, error: None }
    }

    pub(crate) fn record(out: &'a mut serde_json::Map<String, serde_json::Value>) -> Self {
        Self { purpose: Purpose::Record { out }, goes_on: false, error: None }
    }

    /// Writes one argument.
    pub(crate) fn arg<T>(&mut self, name: &str, encoding: Encoding<T>, value: &T) {
        let encoders = match encoding {
            Encoding::LeftOut => return,
            Encoding::With(encoders) => encoders.0.as_ref(),
        };
        if self.error.is_some() && !self.goes_on {
            return;
        }
        let outcome = match (&mut self.purpose, encoders) {
            (Purpose::Key { exclude, .. }, _) if exclude.contains(&name) => Ok(()),
            (Purpose::Key { out, .. }, Some(encoders)) => {
                out.extend_from_slice(&(name.len() as u64).to_le_bytes());
                out.extend_from_slice(name.as_bytes());
                let before = out.len();
                (encoders.canonical)(value, out).inspect_err(|_| {
                    out.truncate(before);
                    out.push(NOT_ENCODED);
                })
            }
            (Purpose::Record { out }, Some(encoders)) => {
                let value = (encoders.json)(value).unwrap_or_else(|error| format!("{NOT_RECORDED}{error}>").into());
                out.insert(name.to_owned(), value);
                Ok(())
            }
            (Purpose::Key { out, .. }, None) => {
                out.push(NOT_ENCODED);
                Err(EncodeError(format!("its type {} is not Serialize", std::any::type_name::<T>())))
            }
            (Purpose::Record { out }, None) => {
                out.insert(name.to_owned(), format!("<{}>", std::any::type_name::<T>()).into());
                Ok(())
            }
        };
        if let Err(error) = outcome {
            self.error.get_or_insert(ArgError { argument: Some(name.to_owned()), why: error.0 });
        }
    }

    pub(crate) fn finish(self) -> Result<(), ArgError> {
        self.error.map_or(Ok(()), Err)
    }
}

/// How a note begins that is recorded in the place of a parameter.
pub(crate) const NOT_RECORDED: &str = "<not recorded: ";

/// In the place of an argument: no tag of the canonical form is like it.
const NOT_ENCODED: u8 = u8::MAX;

/// Why arguments cannot be encoded.
#[derive(Debug)]
pub(crate) struct ArgError {
    /// Which one it is; `None` if the user's code panicked.
    pub(crate) argument: Option<String>,
    pub(crate) why: String,
}

impl std::fmt::Display for ArgError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.argument {
            Some(argument) => write!(f, "argument `{argument}` cannot be encoded: {}", self.why),
            None => f.write_str(&self.why),
        }
    }
}

/// Values that are nested deeper are not read: the stack of a thread has an end. JSON has the same limit.
const DEEPEST: usize = 128;

/// The stored form of results: MessagePack with named fields.
const FORMAT: &str = "msgpack/1";

type EncodeUpTo = fn(&(dyn Any + Send + Sync), usize) -> Result<Option<Vec<u8>>, String>;

/// How results of one type are stored and read back.
#[derive(Debug)]
pub struct Codec {
    type_name: fn() -> &'static str,
    /// `None`: it would be larger than that.
    encode: EncodeUpTo,
    decode: fn(&[u8]) -> Result<Erased, String>,
}

/// Why a stored value is not what was looked for.
#[derive(Debug)]
pub(crate) enum DecodeError {
    OtherFormat(String),
    OtherType(String),
    Unreadable(String),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherFormat(found) => write!(f, "it is stored as {found}, which this version does not read"),
            Self::OtherType(found) => write!(f, "it is of type {found}"),
            Self::Unreadable(why) => write!(f, "it could not be read: {why}"),
        }
    }
}

impl Codec {
    /// The value as bytes.
    pub(crate) fn encode(&self, value: &(dyn Any + Send + Sync)) -> Result<EncodedValue, String> {
        self.encode_up_to(value, usize::MAX).map(|encoded| encoded.expect("no value is larger than that"))
    }

    /// The value as bytes; `None` if there are more than so many.
    pub(crate) fn encode_up_to(
        &self,
        value: &(dyn Any + Send + Sync),
        most: usize,
    ) -> Result<Option<EncodedValue>, String> {
        let encoded = |bytes: Vec<u8>| EncodedValue {
            format: Cow::Borrowed(FORMAT),
            type_name: Cow::Borrowed((self.type_name)()),
            bytes: bytes.into(),
        };
        Ok((self.encode)(value, most)?.map(encoded))
    }

    /// Whether what was stored is what this codec reads.
    pub(crate) fn check(&self, format: &str, type_name: &str) -> Result<(), DecodeError> {
        if format != FORMAT {
            return Err(DecodeError::OtherFormat(format.to_owned()));
        }
        if type_name != (self.type_name)() {
            return Err(DecodeError::OtherType(type_name.to_owned()));
        }
        Ok(())
    }

    /// The value that was stored, if it is of this type and intact.
    pub(crate) fn decode(&self, value: &EncodedValue) -> Result<Erased, DecodeError> {
        self.check(&value.format, &value.type_name)?;
        (self.decode)(&value.bytes).map_err(DecodeError::Unreadable)
    }
}

/// Bytes that do not become more than that.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
    over: bool,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.over |= bytes.len() > self.most - self.bytes.len();
        if self.over {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Stored<T>(PhantomData<T>);

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Stored<T> {
    const TYPE: ResultType = ResultType { is: is::<T>, codec: Some(Self::CODEC) };

    const CODEC: Codec = Codec {
        type_name: std::any::type_name::<T>,
        encode: |value, most| {
            let value = value.downcast_ref::<T>().ok_or("the result is of another type")?;
            let mut bounded = Bounded { bytes: Vec::with_capacity(128.min(most)), most, over: false };
            match rmp_serde::encode::write_named(&mut bounded, value) {
                _ if bounded.over => Ok(None),
                Ok(()) => Ok(Some(bounded.bytes)),
                Err(error) => Err(error.to_string()),
            }
        },
        decode: |bytes| {
            let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
            reader.set_max_depth(DEEPEST);
            let value = T::deserialize(&mut reader).map_err(|error| error.to_string())?;
            Ok(Arc::new(value))
        },
    };
}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Probe<T> {
    /// A type that serde can write and read is stored so: this constant shadows the trait's.
    pub const RESULT: &'static ResultType = &Stored::<T>::TYPE;
}

/// The answer for any other type.
pub trait ProbeResult {
    /// How the type is stored: not at all.
    const RESULT: &'static ResultType;
}

impl<T: 'static> ProbeResult for Probe<T> {
    const RESULT: &'static ResultType = Unstored::<T>::RESULT;
}

/// A type of results of which it is known that they cannot be stored.
#[derive(Debug)]
pub struct Unstored<T>(PhantomData<fn(&T)>);

impl<T: 'static> Unstored<T> {
    /// What is known of it.
    pub const RESULT: &'static ResultType = &ResultType { is: is::<T>, codec: None };
}

/// A type that can be part of a cache key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "not `Serialize`",
    note = "derive `serde::Serialize` for it, or leave the argument out of the key with `#[cache(skip)]`"
)]
pub trait CacheInput {}
impl<T: Serialize> CacheInput for T {}

/// A type that can be kept in the cache.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in the cache",
    label = "not `Serialize + DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or do not ask for caching"
)]
pub trait CacheOutput {}
impl<T: Serialize + DeserializeOwned> CacheOutput for T {}

/// A type that can be persisted.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be persisted",
    label = "not `Serialize + DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or leave out `persist`: the task then runs again when its flow is retried"
)]
pub trait PersistOutput {}
impl<T: Serialize + DeserializeOwned> PersistOutput for T {}

/// A type that can be recorded as a flow's parameter.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be recorded as a flow parameter",
    label = "not `Serialize + DeserializeOwned`",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, or leave it out of the record with `#[param(skip)]`"
)]
pub trait FlowParameter {}
impl<T: Serialize + DeserializeOwned> FlowParameter for T {}

/// A type that can be taken by value.
#[diagnostic::on_unimplemented(
    message = "a task cannot take `{Self}` by value",
    label = "not `Clone + Send + Sync + 'static`",
    note = "each attempt gets its own value: take `&{Self}`, derive `Clone`, or pass an `Arc`"
)]
pub trait ByValue: Clone + Send + Sync + 'static {}
impl<T: Clone + Send + Sync + 'static> ByValue for T {}

/// Fails to compile unless the type can be part of a cache key.
pub const fn assert_cache_input<T: CacheInput + ?Sized>() {}
/// Fails to compile unless the type can be kept in the cache.
pub const fn assert_cache_output<T: CacheOutput>() {}
/// Fails to compile unless the type can be persisted.
pub const fn assert_persist_output<T: PersistOutput>() {}
/// Fails to compile unless the type can be recorded as a flow's parameter.
pub const fn assert_parameter<T: FlowParameter>() {}
/// Fails to compile unless the type can be taken by value.
pub const fn assert_by_value<T: ByValue>() {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Shape {
        name: String,
        sides: Vec<Option<f64>>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    enum Kind {
        Round,
        Other { words: BTreeMap<String, (u8, char)> },
        Nested(Box<Shape>),
    }

    fn stored(bytes: Vec<u8>, codec: &Codec) -> EncodedValue {
        EncodedValue { format: FORMAT.into(), type_name: (codec.type_name)().into(), bytes: bytes.into() }
    }

    fn read<T: Serialize + DeserializeOwned + Send + Sync + 'static>(bytes: &[u8]) {
        let codec = &Stored::<T>::CODEC;
        if let Ok(value) = codec.decode(&stored(bytes.to_vec(), codec)) {
            codec.encode(&*value).expect("what was read can be written");
        }
    }

    fn read_all(bytes: &[u8]) {
        read::<()>(bytes);
        read::<u64>(bytes);
        read::<Option<i8>>(bytes);
        read::<String>(bytes);
        read::<Vec<String>>(bytes);
        read::<HashMap<u32, Vec<u8>>>(bytes);
        read::<Shape>(bytes);
        read::<serde_json::Value>(bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }

        #[test]
        fn so_are_values_that_were_changed(
            words in prop::collection::btree_map(".{0,5}", any::<(u8, char)>(), 0..4),
            sides in prop::collection::vec(any::<Option<f64>>(), 0..4),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let inner = Shape { name: "inner".to_owned(), sides: sides.clone(), kind: Kind::Round };
            let kind = if words.len() % 2 == 0 { Kind::Other { words } } else { Kind::Nested(Box::new(inner)) };
            let codec = &Stored::<Shape>::CODEC;
            let encoded = codec.encode(&Shape { name: "outer".to_owned(), sides, kind }).expect("it is encoded");
            let mut bytes = encoded.bytes.to_vec();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
            read_all(&bytes);
        }
    }

    #[test]
    fn lengths_that_lie_and_deep_nesting_are_refused() {
        // Says that four billion items follow.
        for head in [0xdb, 0xc6, 0xdd, 0xdf] {
            read_all(&[head, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        }
        // Lists in lists.
        read_all(&vec![0x91; 1_000_000]);
    }

    #[test]
    fn a_value_is_bounded_to_the_byte() {
        let codec = &Stored::<String>::CODEC;
        let value = "12345".to_owned();
        let whole = codec.encode(&value).expect("it is encoded").bytes.len();
        assert!(codec.encode_up_to(&value, whole).expect("it is encoded").is_some());
        assert!(codec.encode_up_to(&value, whole - 1).expect("it is encoded").is_none());
        assert!(codec.encode_up_to(&value, 0).expect("it is encoded").is_none());
    }
}
