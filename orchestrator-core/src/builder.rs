//! Making an orchestrator: options, then the environment, then defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::memory::MemoryBackend;
use crate::backend::sqlite::SqliteBackend;
use crate::backend::{BackendError, DatabaseUrl, StateBackend};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind};
use crate::observe::Observer;
use crate::options::{Defaults, Delay};
use crate::orchestrator::{Orchestrator, Parts};

/// What is printed where nobody says anything.
const DEFAULT_LOG: &str = "info";

/// Options of an [`Orchestrator`]; what is not set comes from the environment.
///
/// | variable | meaning | default |
/// | --- | --- | --- |
/// | `ORCHESTRATOR_HOME` | folder of the embedded database | the platform's data folder |
/// | `ORCHESTRATOR_DATABASE_URL` | `memory` or `sqlite:PATH` | `orchestrator.db` in the home |
/// | `ORCHESTRATOR_RETRIES` | retries of tasks that say nothing | 0 |
/// | `ORCHESTRATOR_RETRY_DELAY_SECS` | delay before each of them | 0 |
/// | `ORCHESTRATOR_RETRY_JITTER` | share by which delays are spread | 0 |
/// | `ORCHESTRATOR_TASK_TIMEOUT_SECS` | timeout of an attempt of a task that says nothing | none |
/// | `ORCHESTRATOR_REFRESH_CACHE` | `true`: ignore what the cache has, and replace it | `false` |
/// | `ORCHESTRATOR_BLOCKING_THREADS` | sync bodies that run at the same time | 4 for each core, at least 16 |
/// | `ORCHESTRATOR_CANCEL_GRACE_SECS` | time that a sync body is given to notice its cancellation | 30 |
/// | `ORCHESTRATOR_STRICT` | `true`: a run whose history cannot be stored fails | `false` |
/// | `ORCHESTRATOR_LOG`, `RUST_LOG` | what is printed, as filter directives; `off` for nothing | `info` |
#[derive(Debug, Default)]
#[must_use = "an orchestrator is made by `build`"]
pub struct OrchestratorBuilder {
    database: Option<String>,
    home: Option<PathBuf>,
    clock: Option<Arc<dyn Clock>>,
    observers: Vec<Arc<dyn Observer>>,
    retries: Option<u32>,
    retry_delay: Option<Delay>,
    retry_jitter: Option<f64>,
    timeout: Option<Duration>,
    refresh_cache: Option<bool>,
    blocking_threads: Option<usize>,
    cancel_grace: Option<Duration>,
    strict: Option<bool>,
    signals: bool,
    terminal: bool,
    log: Option<String>,
}

impl OrchestratorBuilder {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Where history and cache are kept: `memory`, or `sqlite:PATH`.
    pub fn database_url(mut self, url: impl Into<String>) -> Self {
        self.database = Some(url.into());
        self
    }

    /// The folder of the embedded database; it is created if needed.
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.home = Some(folder.into());
        self
    }

    /// Where the time is read.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Something that sees every transition after it happened.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Retries of tasks that say nothing.
    pub const fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }

    /// The delay before each retry of tasks that say nothing.
    pub fn retry_delay(mut self, delay: impl Into<Delay>) -> Self {
        self.retry_delay = Some(delay.into());
        self
    }

    /// The share by which delays of tasks that say nothing are spread.
    pub const fn retry_jitter(mut self, factor: f64) -> Self {
        self.retry_jitter = Some(factor);
        self
    }

    /// The timeout of an attempt of tasks that say nothing.
    pub const fn task_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whether tasks that say nothing ignore what the cache has, and replace it.
    pub const fn refresh_cache(mut self, refresh: bool) -> Self {
        self.refresh_cache = Some(refresh);
        self
    }

    /// How many sync bodies run at the same time.
    pub const fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = Some(threads);
        self
    }

    /// How long a sync body is given to notice its cancellation before its thread is abandoned.
    pub const fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = Some(grace);
        self
    }

    /// Whether a run whose history cannot be stored fails, and a store that cannot be opened is an error.
    pub const fn strict(mut self, strict: bool) -> Self {
        self.strict = Some(strict);
        self
    }

    /// Whether Ctrl-C and SIGTERM cancel the runs in order. The orchestrator made from the environment does so.
    pub const fn handle_signals(mut self, handle: bool) -> Self {
        self.signals = handle;
        self
    }

    /// Whether to print what happens, if the program has set no `tracing` subscriber. The orchestrator made from the
    /// environment does so.
    pub const fn terminal(mut self, print: bool) -> Self {
        self.terminal = print;
        self
    }

    /// What is printed where the environment says nothing: filter directives such as `warn`; `info` if not set.
    pub fn log(mut self, directives: impl Into<String>) -> Self {
        self.log = Some(directives.into());
        self
    }

    /// Opens the store and makes the orchestrator.
    ///
    /// # Errors
    ///
    /// If an option or a variable is not understood, or if the store cannot be opened.
    pub async fn build(self) -> Result<Orchestrator, Error> {
        let builder = self.settled()?;
        let url = builder.url()?;
        let backend = match tokio::runtime::Handle::try_current() {
            Ok(_) => {
                tokio::task::spawn_blocking(move || open(&url)).await.map_err(|_| Error::new(ErrorKind::ShutDown))?
            }
            Err(_) => open(&url),
        };
        Ok(builder.finish(backend?))
    }

    /// Makes the orchestrator over a store of one's own.
    #[must_use]
    pub fn build_over(self, backend: Arc<dyn StateBackend>) -> Orchestrator {
        self.finish(backend)
    }

    /// The orchestrator of a program that makes none: it must come about, whatever the environment says.
    pub(crate) fn from_environment() -> Orchestrator {
        let builder = Self { terminal: true, signals: true, ..Self::default() };
        // First of all: what follows may have something to say.
        crate::terminal::install(DEFAULT_LOG);
        let builder = match builder.settled() {
            Ok(builder) => builder,
            Err(error) => {
                tracing::error!(target: "orchestrator", "{error}; going on with the defaults");
                Self { terminal: true, signals: true, ..Self::default() }
            }
        };
        let backend = builder.url().and_then(|url| open(&url).map_err(Error::from)).unwrap_or_else(|error| {
            tracing::error!(
                target: "orchestrator",
                "{error}. History and cache are kept in memory and end with this process; \
                 set ORCHESTRATOR_HOME to a folder that can be written, or ORCHESTRATOR_DATABASE_URL=memory"
            );
            if builder.strict == Some(true) {
                // A strict program does not run without its history.
                std::process::exit(1);
            }
            Arc::new(MemoryBackend::new())
        });
        builder.finish(backend)
    }

    fn finish(self, backend: Arc<dyn StateBackend>) -> Orchestrator {
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let mut observers = self.observers;
        if self.terminal
            && let Some(terminal) = crate::terminal::install(self.log.as_deref().unwrap_or(DEFAULT_LOG))
        {
            observers.extend(terminal.observers());
        }
        if !backend.in_process() {
            match crate::process::end_orphans(&*backend, &*clock) {
                Ok(0) => {}
                Ok(runs) => tracing::warn!(
                    target: "orchestrator",
                    "{runs} runs of processes that went away are marked as crashed in {}",
                    backend.location(),
                ),
                Err(error) => tracing::warn!(
                    target: "orchestrator",
                    "cannot look for runs of processes that went away: {error}",
                ),
            }
        }
        let defaults = Defaults::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Orchestrator::from_parts(Parts {
            backend,
            clock,
            defaults: Defaults {
                retries: self.retries.unwrap_or(defaults.retries),
                retry_delay: self.retry_delay.unwrap_or(defaults.retry_delay),
                retry_jitter: self.retry_jitter.unwrap_or(defaults.retry_jitter),
                timeout: self.timeout.or(defaults.timeout),
                refresh_cache: self.refresh_cache.unwrap_or(defaults.refresh_cache),
                cancel_grace: self.cancel_grace.unwrap_or(defaults.cancel_grace),
            },
            observers,
            workers: self.blocking_threads.unwrap_or_else(|| (4 * cores).max(16)),
            strict: self.strict.unwrap_or(false),
            signals: self.signals,
        })
    }

    /// The options, completed from the environment.
    fn settled(mut self) -> Result<Self, Error> {
        let seconds = |value: Option<f64>, name: &str| match value {
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .map(Some)
                .map_err(|_| config(format!("{name} is {seconds}: expected a number of seconds, not negative"))),
            None => Ok(None),
        };
        if self.database.is_none() && self.home.is_none() {
            self.database = variable("ORCHESTRATOR_DATABASE_URL", "`memory` or `sqlite:PATH`")?;
        }
        if self.home.is_none() {
            self.home = variable("ORCHESTRATOR_HOME", "a folder")?;
        }
        self.retries = or(self.retries, || variable("ORCHESTRATOR_RETRIES", "a whole number"))?;
        let delay = seconds(variable("ORCHESTRATOR_RETRY_DELAY_SECS", "a number")?, "ORCHESTRATOR_RETRY_DELAY_SECS")?;
        self.retry_delay = self.retry_delay.or(delay.map(Delay::Fixed));
        self.retry_jitter = or(self.retry_jitter, || variable("ORCHESTRATOR_RETRY_JITTER", "a number"))?;
        if let Some(jitter) = self.retry_jitter.filter(|jitter| !(jitter.is_finite() && *jitter >= 0.0)) {
            return Err(config(format!("the retry jitter is {jitter}: expected a number from 0 up")));
        }
        let timeout =
            seconds(variable("ORCHESTRATOR_TASK_TIMEOUT_SECS", "a number")?, "ORCHESTRATOR_TASK_TIMEOUT_SECS")?;
        self.timeout = self.timeout.or(timeout);
        self.refresh_cache = or(self.refresh_cache, || variable("ORCHESTRATOR_REFRESH_CACHE", "`true` or `false`"))?;
        self.blocking_threads =
            or(self.blocking_threads, || variable("ORCHESTRATOR_BLOCKING_THREADS", "a whole number"))?;
        if self.blocking_threads == Some(0) {
            return Err(config("the number of blocking threads is 0: expected at least 1".to_owned()));
        }
        let grace = seconds(variable("ORCHESTRATOR_CANCEL_GRACE_SECS", "a number")?, "ORCHESTRATOR_CANCEL_GRACE_SECS")?;
        self.cancel_grace = self.cancel_grace.or(grace);
        self.strict = or(self.strict, || variable("ORCHESTRATOR_STRICT", "`true` or `false`"))?;
        Ok(self)
    }

    fn url(&self) -> Result<DatabaseUrl, Error> {
        if let Some(url) = &self.database {
            return url.parse().map_err(config);
        }
        let home = match &self.home {
            Some(home) => home.clone(),
            None => directories::ProjectDirs::from("", "", "orchestrator")
                .map(|folders| folders.data_dir().to_owned())
                .ok_or_else(|| config("this user has no home folder: set ORCHESTRATOR_HOME".to_owned()))?,
        };
        Ok(DatabaseUrl::Sqlite(home.join("orchestrator.db")))
    }
}

fn config(said: String) -> Error {
    Error::new(ErrorKind::Config(said))
}

fn or<T>(set: Option<T>, otherwise: impl FnOnce() -> Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match set {
        Some(value) => Ok(Some(value)),
        None => otherwise(),
    }
}

/// An environment variable, if it is set and not empty.
fn variable<T: std::str::FromStr>(name: &str, expected: &str) -> Result<Option<T>, Error> {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|_| config(format!("{name} is '{text}': expected {expected}"))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(config(format!("{name} is no text: expected {expected}"))),
    }
}

fn open(url: &DatabaseUrl) -> Result<Arc<dyn StateBackend>, BackendError> {
    Ok(match url {
        DatabaseUrl::Memory => Arc::new(MemoryBackend::new()),
        DatabaseUrl::Sqlite(path) => Arc::new(SqliteBackend::open(path)?),
    })
}
