//! Where large results are kept: objects that are written once and whole, each with a name that no other one has.
//!
//! A small result is a part of its record in the database. For a large one the record has the name, the size and a digest
//! of an object in a [`ResultStore`]: a folder, or with the features `s3`, `gcs` and `azure` a bucket. The object is
//! there before its record is; what is read back is compared with the record, so that an object that was cut short,
//! or that somebody put there, is never taken for a result.

mod object;
mod sweep;
mod unusable;

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;

use crate::backend::record::{EncodedValue, StoredValue};
use crate::backend::{BackendError, BackendErrorKind};
use crate::body::{Codec, Erased};
use crate::engine::panics;
use crate::id::{FlowRunId, TaskRunId};
use crate::persist::Unkept;

/// The bytes of an object; a clone shares them.
pub use bytes::Bytes;
pub use object::ObjectResults;
pub(crate) use sweep::{Sweeper, check};
pub(crate) use unusable::Unusable;

/// Results of more bytes than that are objects, if nothing else is said.
pub(crate) const INLINE_UP_TO: usize = 16 << 10;
/// Values that take more bytes than that are read away from the threads of the runtime.
const LARGE: usize = 256 << 10;
/// Delays before an object is given to its store again.
const TRY_AGAIN: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1)];

/// What a store is doing; ready with its outcome.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, BackendError>> + Send + 'a>>;

/// Keeps objects under names. Names are relative paths of ASCII letters, digits, `-` and `/`.
///
/// Its methods are called on the threads of the runtime, which they must not block.
pub trait ResultStore: fmt::Debug + Send + Sync + 'static {
    /// Stores an object, all of it or nothing; says no, and changes nothing, if there is one of that name.
    ///
    /// # Errors
    ///
    /// If the object could not be stored; [`BackendError::is_transient`] says whether trying again may help.
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Doing<'a, bool>;

    /// The object of that name, if there is one.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn get<'a>(&'a self, name: &'a str) -> Doing<'a, Option<Bytes>>;

    /// Deletes the object of that name; one that is not there is none that is left.
    ///
    /// # Errors
    ///
    /// If the object may still be there.
    fn delete<'a>(&'a self, name: &'a str) -> Doing<'a, ()>;

    /// The names of all objects whose names begin with that and a `/`; also of what is left of objects that were not
    /// written whole, if there is such a thing.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn list<'a>(&'a self, folder: &'a str) -> Doing<'a, Vec<String>>;

    /// How many objects there are, and how many bytes they have in all; `None` where finding out would take long, or is not
    /// implemented.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    fn size<'a>(&'a self) -> Doing<'a, Option<(u64, u64)>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Where the store is: a folder, or the URL of a bucket. It tells stores apart, in all processes: objects are deleted
    /// only where they were put.
    fn location(&self) -> String;
}

/// Where the results of an orchestrator go: a URL or a store.
#[derive(Debug, Clone)]
pub enum ResultsAt {
    /// What [`ObjectResults::open`] takes.
    Url(String),
    /// A store.
    Store(Arc<dyn ResultStore>),
}

impl From<&str> for ResultsAt {
    fn from(url: &str) -> Self {
        Self::Url(url.to_owned())
    }
}

impl From<String> for ResultsAt {
    fn from(url: String) -> Self {
        Self::Url(url)
    }
}

impl<S: ResultStore> From<Arc<S>> for ResultsAt {
    fn from(store: Arc<S>) -> Self {
        Self::Store(store)
    }
}

impl From<Arc<dyn ResultStore>> for ResultsAt {
    fn from(store: Arc<dyn ResultStore>) -> Self {
        Self::Store(store)
    }
}

/// The store of an orchestrator, and what goes there.
#[derive(Debug)]
pub(crate) struct Results {
    store: Arc<dyn ResultStore>,
    /// Where it is.
    location: Arc<str>,
    /// Encoded values of that many bytes are left to the database.
    pub(crate) inline_up_to: usize,
    /// Whether the last object was not written.
    failing: AtomicBool,
    /// What could not be kept, here or in the database.
    pub(crate) unkept: Unkept,
}

/// The store of large results of an orchestrator; made by [`Orchestrator::results_info`](crate::Orchestrator::results_info).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultsInfo {
    /// Where it is.
    pub location: String,
    /// How many objects there are, if that is quickly found out.
    pub objects: Option<u64>,
    /// How many bytes they have in all.
    pub bytes: Option<u64>,
}

/// Why what was put away cannot be taken out again.
fn damaged(doing: String, why: impl fmt::Display) -> BackendError {
    BackendError::new(BackendErrorKind::Damaged, doing).because(why.to_string())
}

impl Results {
    pub(crate) fn new(store: Arc<dyn ResultStore>, inline_up_to: Option<usize>) -> Self {
        let location = store.location().into();
        let (inline_up_to, failing) = (inline_up_to.unwrap_or(INLINE_UP_TO), AtomicBool::new(false));
        Self { store, location, inline_up_to, failing, unkept: Unkept::default() }
    }

    pub(crate) async fn info(&self) -> Result<ResultsInfo, BackendError> {
        let (objects, bytes) = self.store.size().await?.unzip();
        Ok(ResultsInfo { location: self.store.location(), objects, bytes })
    }

    /// Puts a value away; it is encoded and hashed away from the threads of the runtime.
    pub(crate) async fn put(
        &self,
        flow_run: Option<FlowRunId>,
        run: TaskRunId,
        codec: &'static Codec,
        value: Erased,
    ) -> Result<StoredValue, String> {
        let encode = move || {
            let encoded = panics::catch(|| codec.encode(&*value)).flatten();
            encoded.map(|encoded| (*blake3::hash(&encoded.bytes).as_bytes(), encoded))
        };
        let encoded = tokio::task::spawn_blocking(encode).await.map_err(|_| "the runtime was shut down".to_owned())?;
        let (digest, EncodedValue { format, type_name, bytes }) = encoded?;
        let (location, size) = (name(flow_run, run, &digest), bytes.len() as u64);
        let stored = StoredValue { store: Arc::clone(&self.location), location, size, digest, format, type_name };
        self.write(&stored, bytes).await.map_err(|error| error.to_string())?;
        Ok(stored)
    }

    async fn write(&self, stored: &StoredValue, bytes: Bytes) -> Result<(), BackendError> {
        // A store that failed before is given one try an object, so that runs do not wait for it again and again.
        let tries = if self.failing.load(Ordering::Relaxed) { &TRY_AGAIN[..0] } else { &TRY_AGAIN[..] };
        let mut delays = tries.iter();
        loop {
            let outcome = self.write_once(stored, bytes.clone()).await;
            if outcome.as_ref().is_err_and(BackendError::is_transient)
                && let Some(delay) = delays.next()
            {
                tokio::time::sleep(*delay).await;
                continue;
            }
            self.failing.store(outcome.is_err(), Ordering::Relaxed);
            return outcome;
        }
    }

    async fn write_once(&self, stored: &StoredValue, bytes: Bytes) -> Result<(), BackendError> {
        let name = &*stored.location;
        if self.contained(|store| store.put(name, bytes.clone())).await? {
            return Ok(());
        }
        // An answer that was lost on its way, or something foreign.
        let there = self.contained(|store| store.get(name)).await?;
        if there.is_some_and(|there| blake3::hash(&there).as_bytes() == &stored.digest) {
            return Ok(());
        }
        self.contained(|store| store.delete(name)).await?;
        match self.contained(|store| store.put(name, bytes)).await? {
            true => Ok(()),
            false => Err(BackendError::new(BackendErrorKind::Busy, format!("write the object {}", self.place(name)))),
        }
    }

    /// The value that was put away, if it is still what it was.
    pub(crate) async fn get(&self, stored: StoredValue, codec: &'static Codec) -> Result<Erased, BackendError> {
        let doing = self.reading(&stored);
        codec.check(&stored.format, &stored.type_name).map_err(|why| damaged(doing.clone(), why))?;
        let bytes = self.read(&stored).await?;
        let size = stored.size;
        let decode = move || {
            verify(&bytes, &stored)?;
            let value = EncodedValue { format: stored.format, type_name: stored.type_name, bytes };
            panics::catch(|| codec.decode(&value).map_err(|why| why.to_string())).flatten()
        };
        away(size, decode).await.map_err(|error| error.described(doing))
    }

    /// Whether it was put into another store than this one.
    pub(crate) fn is_elsewhere(&self, stored: &StoredValue) -> bool {
        stored.store != self.location
    }

    /// Whether what was put away is still what it was.
    pub(crate) async fn check(&self, stored: StoredValue) -> Result<(), BackendError> {
        let doing = self.reading(&stored);
        let bytes = self.read(&stored).await?;
        away(stored.size, move || verify(&bytes, &stored)).await.map_err(|error| error.described(doing))
    }

    async fn read(&self, stored: &StoredValue) -> Result<Bytes, BackendError> {
        let bytes = self.contained(|store| store.get(&stored.location)).await?;
        let bytes = bytes.ok_or_else(|| {
            let elsewhere = self.is_elsewhere(stored);
            // Where it was put it may well be.
            let kind = if elsewhere { BackendErrorKind::Unavailable } else { BackendErrorKind::Damaged };
            let why = match elsewhere {
                true => format!("it was put into {}, and is not here", stored.store),
                false => "it is not there any more".to_owned(),
            };
            BackendError::new(kind, self.reading(stored)).because(why)
        })?;
        if bytes.len() as u64 != stored.size {
            let why = format!("it has {} bytes instead of {}", bytes.len(), stored.size);
            return Err(damaged(self.reading(stored), why));
        }
        Ok(bytes)
    }

    fn reading(&self, stored: &StoredValue) -> String {
        format!("read the object {}", self.place(&stored.location))
    }

    /// Deletes an object that no record refers to; if that fails, it is left.
    pub(crate) async fn let_go(&self, name: &str) {
        if let Err(error) = self.contained(|store| store.delete(name)).await {
            tracing::warn!(target: "orchestrator", "an object is left that is of no use: {error}");
        }
    }

    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.location)
    }

    /// A store of the user's may panic, which must not take a run along.
    async fn contained<'a, T>(
        &'a self,
        ask: impl FnOnce(&'a dyn ResultStore) -> Doing<'a, T>,
    ) -> Result<T, BackendError> {
        let answer = AssertUnwindSafe(async { ask(&*self.store).await }).catch_unwind().await;
        answer.unwrap_or_else(|_| {
            let doing = format!("use the result store {}", self.location);
            Err(BackendError::new(BackendErrorKind::Unavailable, doing).because("it panicked"))
        })
    }
}

/// The name of the object with what a run gave: what belongs to one flow run is in one folder.
fn name(flow_run: Option<FlowRunId>, run: TaskRunId, digest: &[u8; 32]) -> String {
    let digest = blake3::Hash::from_bytes(*digest).to_hex();
    match flow_run {
        Some(flow_run) => format!("{flow_run}/{run}-{}", &digest[..32]),
        None => format!("none/{run}-{}", &digest[..32]),
    }
}

fn verify(bytes: &[u8], stored: &StoredValue) -> Result<(), String> {
    if blake3::hash(bytes).as_bytes() == &stored.digest {
        Ok(())
    } else {
        Err("its bytes are not those that were stored".to_owned())
    }
}

/// Why a value was not read from its bytes.
enum Unread {
    Damaged(String),
    ShutDown,
}

impl Unread {
    fn described(self, doing: String) -> BackendError {
        match self {
            Self::Damaged(why) => damaged(doing, why),
            Self::ShutDown => BackendError::new(BackendErrorKind::Other, doing).because("the runtime was shut down"),
        }
    }
}

/// Does what takes long for large values, and then away from the threads of the runtime.
async fn away<T: Send + 'static>(
    size: u64,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Unread> {
    let done = if size <= LARGE as u64 {
        work()
    } else {
        tokio::task::spawn_blocking(work).await.map_err(|_| Unread::ShutDown)?
    };
    done.map_err(Unread::Damaged)
}
