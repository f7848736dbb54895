//! The result store over the `object_store` crate: folders and buckets.

use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, OnceLock};

use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{Bytes, Doing, ResultStore};
use crate::backend::{BackendError, BackendErrorKind};

/// What a URL of a result store looks like.
const WANTED: &str =
    "expected a folder, `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`";

/// In the name of a file that was not written to its end.
const UNFINISHED: char = '#';

/// Results in a folder or in a bucket.
#[derive(Debug)]
pub struct ObjectResults {
    place: Place,
    /// For people.
    location: String,
}

#[derive(Debug)]
enum Place {
    /// The folder is made when the first object comes.
    Folder { path: PathBuf, opened: OnceLock<Arc<LocalFileSystem>> },
    /// A bucket, and where in it.
    Bucket { store: Arc<dyn ObjectStore>, prefix: Path },
}

/// A store, and where in it an object is.
type Found = (Arc<dyn ObjectStore>, Path);

impl ObjectResults {
    /// Results in a folder, which is made when it is needed.
    #[must_use]
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // The same folder has one name, wherever a process was started.
        let path = std::path::absolute(&path).unwrap_or(path);
        let location = path.display().to_string();
        Self { place: Place::Folder { path, opened: OnceLock::new() }, location }
    }

    /// Results in any store that the `object_store` crate knows, beneath that prefix. `location` is for people.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, prefix: &str, location: impl Into<String>) -> Self {
        Self { place: Place::Bucket { store, prefix: Path::from(prefix) }, location: location.into() }
    }

    /// The store that a URL names: a folder, `file:///FOLDER`, or, with the feature in parentheses, `s3://BUCKET/PREFIX` (`s3`),
    /// `gs://BUCKET/PREFIX` (`gcs`) or `az://CONTAINER/PREFIX` (`azure`). Credentials, region and endpoint of a bucket
    /// come from the variables that its own programs read, such as `AWS_ACCESS_KEY_ID`, `AWS_REGION` and
    /// `AWS_ENDPOINT_URL`.
    ///
    /// # Errors
    ///
    /// If the text is no such URL, if its feature is not there, or if the store's own variables are not understood. The
    /// store itself is not asked yet.
    pub fn open(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            let path = url.strip_prefix("file:").unwrap_or(url);
            return if path.is_empty() {
                Err(format!("the result store '{url}' names no folder: {WANTED}"))
            } else {
                Ok(Self::folder(path))
            };
        };
        if scheme == "file" {
            let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
            return if path.is_empty() {
                Err(format!("the result store '{url}' names no folder: {WANTED}"))
            } else {
                Ok(Self::folder(path))
            };
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let store = match scheme {
            "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss" if bucket.is_empty() => {
                return Err(format!("the result store '{url}' names no bucket: {WANTED}"));
            }
            "s3" | "s3a" => s3(url, bucket)?,
            "gs" => gcs(url, bucket)?,
            "az" | "azure" | "abfs" | "abfss" => azure(url)?,
            _ => return Err(format!("'{url}' is not a result store: {WANTED}")),
        };
        let prefix = Path::parse(prefix.trim_end_matches('/'))
            .map_err(|error| format!("the result store '{url}' has a prefix that cannot be used: {error}"))?;
        Ok(Self { place: Place::Bucket { store, prefix }, location: url.trim_end_matches('/').to_owned() })
    }

    /// The store, and where in it the object is; makes the folder only if `create`.
    fn find(&self, name: &str, create: bool) -> Result<Option<Found>, BackendError> {
        match &self.place {
            Place::Bucket { store, prefix } => {
                Ok(Some((Arc::clone(store), name.split('/').fold(prefix.clone(), |path, part| path.join(part)))))
            }
            Place::Folder { path, opened } => {
                if opened.get().is_none() {
                    if !create && !path.is_dir() {
                        return Ok(None);
                    }
                    let store = open_folder(path).map_err(|why| {
                        let doing = format!("use the folder {} for results", path.display());
                        BackendError::new(BackendErrorKind::Unavailable, doing).because(why)
                    })?;
                    let _ = opened.set(Arc::new(store));
                }
                let store = opened.get().map(Arc::clone);
                Ok(store.map(|store| (store as Arc<dyn ObjectStore>, Path::from(name))))
            }
        }
    }

    fn error(&self, doing: &str, name: &str, error: Error) -> BackendError {
        let for_good = matches!(
            error,
            Error::PermissionDenied { .. }
                | Error::Unauthenticated { .. }
                | Error::InvalidPath { .. }
                | Error::NotSupported { .. }
                | Error::NotImplemented { .. }
                | Error::UnknownConfigurationKey { .. }
        );
        // There is no bucket of that name.
        let nowhere = doing == "write" && matches!(error, Error::NotFound { .. });
        let kind = if for_good || nowhere { BackendErrorKind::Unavailable } else { BackendErrorKind::Other };
        BackendError::new(kind, format!("{doing} the object {}/{name}", self.location)).because(error)
    }
}

fn open_folder(path: &FilePath) -> Result<LocalFileSystem, Box<dyn std::error::Error + Send + Sync>> {
    std::fs::create_dir_all(path)?;
    Ok(LocalFileSystem::new_with_prefix(path)?.with_automatic_cleanup(true).with_fsync(true))
}

impl ResultStore for ObjectResults {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Doing<'a, bool> {
        Box::pin(async move {
            let Some((store, path)) = self.find(name, true)? else { return Ok(false) };
            let put = |mode: PutMode| store.put_opts(&path, PutPayload::from(bytes.clone()), PutOptions::from(mode));
            match put(PutMode::Create).await {
                Ok(_) => Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
                // Some stores cannot be asked that: names are never used twice, so a look before is as good.
                Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => match store.head(&path).await {
                    Ok(_) => Ok(false),
                    Err(Error::NotFound { .. }) => {
                        put(PutMode::Overwrite).await.map(|_| true).map_err(|error| self.error("write", name, error))
                    }
                    Err(error) => Err(self.error("write", name, error)),
                },
                Err(error) => Err(self.error("write", name, error)),
            }
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> Doing<'a, Option<Bytes>> {
        Box::pin(async move {
            let Some((store, path)) = self.find(name, false)? else { return Ok(None) };
            let read = match store.get(&path).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            match read {
                Ok(bytes) => Ok(Some(bytes)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.error("read", name, error)),
            }
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Doing<'a, ()> {
        Box::pin(async move {
            let Some((store, path)) = self.find(name, false)? else { return Ok(()) };
            if let (Place::Folder { path, .. }, true) = (&self.place, name.contains(UNFINISHED)) {
                let path = path.join(name);
                let _ = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
                return Ok(());
            }
            match store.delete(&path).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.error("delete", name, error)),
            }
        })
    }

    fn list<'a>(&'a self, folder: &'a str) -> Doing<'a, Vec<String>> {
        Box::pin(async move {
            let names = match &self.place {
                Place::Folder { path, .. } => {
                    let (path, name) = (path.join(folder), folder.to_owned());
                    let listed = tokio::task::spawn_blocking(move || files(&path, &name)).await;
                    listed
                        .unwrap_or_else(|error| Err(error.into()))
                        .map_err(|source| Error::Generic { store: "folder", source: source.into() })
                }
                Place::Bucket { store, prefix } => {
                    let folder = folder.split('/').fold(prefix.clone(), |path, part| path.join(part));
                    let from = if prefix.as_ref().is_empty() { 0 } else { prefix.as_ref().len() + 1 };
                    let name = |object: object_store::ObjectMeta| object.location.as_ref()[from..].to_owned();
                    store.list(Some(&folder)).map_ok(name).try_collect().await
                }
            };
            names.map_err(|error| self.error("list", folder, error))
        })
    }

    fn size<'a>(&'a self) -> Doing<'a, Option<(u64, u64)>> {
        Box::pin(async move {
            // A bucket would have to be listed, which takes long and costs something.
            let Place::Folder { path, .. } = &self.place else { return Ok(None) };
            let path = path.clone();
            let sized =
                tokio::task::spawn_blocking(move || size(&path)).await.unwrap_or_else(|error| Err(error.into()));
            sized
                .map(Some)
                .map_err(|source| self.error("list", "", Error::Generic { store: "folder", source: source.into() }))
        })
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}

/// How many files there are in a folder and those inside it, and their bytes in all.
fn size(path: &FilePath) -> std::io::Result<(u64, u64)> {
    let (mut objects, mut bytes) = (0, 0);
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            // They come and go.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => (objects, bytes) = (objects + 1, bytes + found.len()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok((objects, bytes))
}

/// The names of the files in a folder, those included that were not written to their end: they are not hidden, as they are
/// from those who read.
fn files(path: &FilePath, folder: &str) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let name =
        |entry: std::io::Result<std::fs::DirEntry>| Ok(format!("{folder}/{}", entry?.file_name().to_string_lossy()));
    entries.map(name).collect()
}

#[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
fn missing(url: &str, feature: &str) -> String {
    format!("the result store '{url}' needs the feature `{feature}` of orchestrator")
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
mod buckets {
    use super::{Arc, Error, ObjectStore};

    /// Runs do not wait for a store for minutes: ours tries again by itself.
    pub(super) fn patience() -> object_store::RetryConfig {
        object_store::RetryConfig {
            max_retries: 3,
            retry_timeout: std::time::Duration::from_secs(20),
            ..object_store::RetryConfig::default()
        }
    }

    pub(super) fn built<S: ObjectStore>(url: &str, store: Result<S, Error>) -> Result<Arc<dyn ObjectStore>, String> {
        let store = store.map_err(|error| format!("the result store '{url}' cannot be used: {error}"))?;
        Ok(Arc::new(store))
    }
}

#[cfg(feature = "s3")]
fn s3(url: &str, bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
    let builder = object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket);
    buckets::built(url, builder.with_retry(buckets::patience()).build())
}

#[cfg(not(feature = "s3"))]
fn s3(url: &str, _bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
    Err(missing(url, "s3"))
}

#[cfg(feature = "gcs")]
fn gcs(url: &str, bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
    let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
    buckets::built(url, builder.with_retry(buckets::patience()).build())
}

#[cfg(not(feature = "gcs"))]
fn gcs(url: &str, _bucket: &str) -> Result<Arc<dyn ObjectStore>, String> {
    Err(missing(url, "gcs"))
}

#[cfg(feature = "azure")]
fn azure(url: &str) -> Result<Arc<dyn ObjectStore>, String> {
    let builder = object_store::azure::MicrosoftAzureBuilder::from_env().with_url(url);
    buckets::built(url, builder.with_retry(buckets::patience()).build())
}

#[cfg(not(feature = "azure"))]
fn azure(url: &str) -> Result<Arc<dyn ObjectStore>, String> {
    Err(missing(url, "azure"))
}
