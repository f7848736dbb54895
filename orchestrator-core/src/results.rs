//! Where large results are kept: objects that are written once and whole, each with a name that no other one has.
//!
//! A small result is a part of its record in the database. For a large one the record has the name, the size and a digest
//! of an object in a [`ResultStore`]: a folder, or with the features `s3`, `gcs` and `azure` a bucket. The object is
//! there before its record is; what is read back is compared with the record, so that an object that was cut short,
//! or that somebody put there, is never taken for a result.

mod object;

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use crate::backend::record::{EncodedValue, StoredValue};
use crate::backend::{BackendError, BackendErrorKind};
use crate::body::{Codec, Erased};
use crate::engine::panics;
use crate::id::{FlowRunId, TaskRunId};
use crate::orchestrator::Inner;

/// The bytes of an object; a clone shares them.
pub use bytes::Bytes;
pub use object::ObjectResults;

/// Results of more bytes than that are objects, if nothing else is said.
pub(crate) const INLINE_UP_TO: usize = 16 << 10;
/// Values that take more bytes than that are read away from the threads of the runtime.
const LARGE: usize = 256 << 10;
/// Delays before an object is given to its store again.
const TRY_AGAIN: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1)];
/// So many objects are deleted at a time.
const SWEEP: usize = 256;

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

    /// Where the store is, for people: a folder, or the URL of a bucket.
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
    pub(crate) store: Arc<dyn ResultStore>,
    /// Encoded values of that many bytes are left to the database.
    pub(crate) inline_up_to: usize,
}

/// Why what was put away cannot be taken out again.
fn damaged(doing: String, why: impl fmt::Display) -> BackendError {
    BackendError::new(BackendErrorKind::Damaged, doing).because(why.to_string())
}

impl Results {
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
        let stored =
            StoredValue { location: name(flow_run, run, &digest), size: bytes.len() as u64, digest, format, type_name };
        self.write(&stored, bytes).await.map_err(|error| error.to_string())?;
        Ok(stored)
    }

    async fn write(&self, stored: &StoredValue, bytes: Bytes) -> Result<(), BackendError> {
        let mut delays = TRY_AGAIN.iter();
        loop {
            let Err(error) = self.write_once(stored, bytes.clone()).await else { return Ok(()) };
            match delays.next().filter(|_| error.is_transient()) {
                Some(delay) => tokio::time::sleep(*delay).await,
                None => return Err(error),
            }
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
        let place = self.place(&stored.location);
        let doing = || format!("read the object {place}");
        codec.check(&stored.format, &stored.type_name).map_err(|why| damaged(doing(), why))?;
        let bytes = self.contained(|store| store.get(&stored.location)).await?;
        let bytes = bytes.ok_or_else(|| damaged(doing(), "it is not there any more"))?;
        if bytes.len() as u64 != stored.size {
            return Err(damaged(doing(), format_args!("it has {} bytes instead of {}", bytes.len(), stored.size)));
        }
        let decode = move || {
            if blake3::hash(&bytes).as_bytes() != &stored.digest {
                return Err("its bytes are not those that were stored".to_owned());
            }
            let value = EncodedValue { format: stored.format, type_name: stored.type_name, bytes };
            panics::catch(|| codec.decode(&value).map_err(|why| why.to_string())).flatten()
        };
        let decoded = if stored.size <= LARGE as u64 {
            decode()
        } else {
            let decoded = tokio::task::spawn_blocking(decode).await;
            decoded
                .map_err(|_| BackendError::new(BackendErrorKind::Other, doing()).because("the runtime was shut down"))?
        };
        decoded.map_err(|why| damaged(doing(), why))
    }

    /// Deletes an object that no record refers to; if that fails, it is left.
    pub(crate) async fn let_go(&self, name: &str) {
        if let Err(error) = self.contained(|store| store.delete(name)).await {
            tracing::debug!(target: "orchestrator", "an object is left behind: {error}");
        }
    }

    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.store.location())
    }

    /// A store of the user's may panic, which must not take a run along.
    async fn contained<'a, T>(
        &'a self,
        ask: impl FnOnce(&'a dyn ResultStore) -> Doing<'a, T>,
    ) -> Result<T, BackendError> {
        let answer = AssertUnwindSafe(async { ask(&*self.store).await }).catch_unwind().await;
        answer.unwrap_or_else(|_| {
            let doing = format!("use the result store {}", self.store.location());
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

/// Deletes the objects that no record refers to any more, as far as they are known; gives their number.
///
/// # Errors
///
/// If the database or the store could not be asked; what is left is found again.
pub(crate) async fn sweep(orchestrator: &Arc<Inner>) -> Result<usize, BackendError> {
    let mut swept = 0;
    loop {
        let inner = Arc::clone(orchestrator);
        let names = blocking(orchestrator, move || inner.backend.unreferenced_objects(SWEEP)).await?;
        if names.is_empty() {
            return Ok(swept);
        }
        for name in &names {
            orchestrator.results.contained(|store| store.delete(name)).await?;
        }
        swept += names.len();
        let inner = Arc::clone(orchestrator);
        blocking(orchestrator, move || inner.backend.objects_deleted(&names)).await?;
    }
}

async fn blocking<T: Send + 'static>(
    orchestrator: &Inner,
    ask: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    if orchestrator.backend.in_process() {
        return ask();
    }
    let gone = || BackendError::new(BackendErrorKind::Other, "ask the database: the runtime was shut down");
    tokio::task::spawn_blocking(ask).await.unwrap_or_else(|_| Err(gone()))
}
