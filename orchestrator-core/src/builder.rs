//! Making an orchestrator: options, then the environment, then defaults.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::backend::memory::MemoryBackend;
use crate::backend::sqlite::{SqliteBackend, SqliteOptions};
use crate::backend::{BackendError, BackendErrorKind, DatabaseUrl, StateBackend};
use crate::clock::{Clock, SystemClock};
use crate::duration;
use crate::error::{Error, ErrorKind};
use crate::keeper::Role;
use crate::observe::Observer;
use crate::options::{Defaults, Delay, RIGHT_JITTER, is_right_jitter};
use crate::orchestrator::{Orchestrator, Parts};
use crate::recovery::Scope;
use crate::results::{ObjectResults, ResultStore, Results, ResultsAt, Unusable};
use crate::retention::{self, Retention};
use crate::suggest::nearest;
use crate::terminal::short;

/// What is printed where nobody says anything.
const DEFAULT_LOG: &str = "info";

/// How long a lease is where nobody says anything.
const LEASE: Duration = Duration::from_secs(30);
/// A shorter one would be over whenever the machine is busy.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// Options of an [`Orchestrator`]; for [`build`](Self::build) what is not set comes from the environment.
///
/// | variable | meaning | default |
/// | --- | --- | --- |
/// | `ORCHESTRATOR_HOME` | folder of the embedded database | the platform's data folder |
/// | `ORCHESTRATOR_DATABASE_URL` | `memory` or `sqlite:PATH` | `orchestrator.db` in the home |
/// | `ORCHESTRATOR_RETRIES` | retries of tasks that say nothing | 0 |
/// | `ORCHESTRATOR_RETRY_DELAY_SECS` | delay before each retry of tasks and flows that say nothing | 0 |
/// | `ORCHESTRATOR_RETRY_JITTER` | share by which the delays of tasks and flows that say nothing are spread | 0 |
/// | `ORCHESTRATOR_TASK_TIMEOUT_SECS` | timeout of an attempt of a task that says nothing | none |
/// | `ORCHESTRATOR_REFRESH_CACHE` | `true`: ignore what the cache has, and replace it | `false` |
/// | `ORCHESTRATOR_PERSIST` | `true`: flows that say nothing keep the results of their tasks | `false` |
/// | `ORCHESTRATOR_RESULTS` | where large results are kept: a folder, or the URL of a bucket | `results` beside the database |
/// | `ORCHESTRATOR_BLOCKING_THREADS` | sync bodies that run at the same time | 4 for each core, at least 16 |
/// | `ORCHESTRATOR_CANCEL_GRACE_SECS` | time that a sync body is given to notice its cancellation | 30 |
/// | `ORCHESTRATOR_STRICT` | `true`: a run whose history cannot be stored ends as Crashed, and a program that cannot open its database ends | `false` |
/// | `ORCHESTRATOR_LEASE_SECS` | silence after which other processes take this one for gone | 30 |
/// | `ORCHESTRATOR_RESUME_CRASHED` | `false`: leave runs that crashed with their process to others | `true` |
/// | `ORCHESTRATOR_RETENTION` | how long history is kept: an age, a number of runs or both (`30d,10000 runs`), or `off` | `30d` |
/// | `ORCHESTRATOR_LOG_CAPTURE` | which log lines of bodies are kept with their runs | `info` |
/// | `ORCHESTRATOR_LOG`, `RUST_LOG` | what is printed, as filter directives; `off` for nothing | `info` |
///
/// Those that end in `_SECS` take a number of seconds, or a time with its unit such as `500ms`, `15m` or `7d`.
#[derive(Debug, Default)]
#[must_use = "an orchestrator is made by `build`"]
pub struct OrchestratorBuilder {
    database: Option<String>,
    /// That of the environment which says so.
    database_variable: Option<&'static str>,
    home: Option<PathBuf>,
    clock: Option<Arc<dyn Clock>>,
    observers: Vec<Arc<dyn Observer>>,
    retries: Option<u32>,
    retry_delay: Option<Delay>,
    retry_jitter: Option<f64>,
    timeout: Option<Duration>,
    refresh_cache: Option<bool>,
    persist: Option<bool>,
    results: Option<ResultsAt>,
    /// That of the environment which says so.
    results_variable: Option<&'static str>,
    inline_up_to: Option<usize>,
    blocking_threads: Option<usize>,
    cancel_grace: Option<Duration>,
    strict: Option<bool>,
    existing: bool,
    look_only: bool,
    lease: Option<Duration>,
    retention: Option<Retention>,
    resume_crashed: Option<bool>,
    resume_only: Option<Option<&'static str>>,
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
        (self.database, self.database_variable) = (Some(url.into()), None);
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

    /// The delay before each retry of tasks and flows that say nothing.
    pub fn retry_delay(mut self, delay: impl Into<Delay>) -> Self {
        self.retry_delay = Some(delay.into());
        self
    }

    /// The share by which delays of tasks and flows that say nothing are spread.
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

    /// Whether flows that say nothing keep the results of their tasks.
    pub const fn persist(mut self, persist: bool) -> Self {
        self.persist = Some(persist);
        self
    }

    /// Where large results are kept: a folder, `s3://BUCKET/PREFIX` and the like, as
    /// [`ObjectResults::open`](crate::results::ObjectResults::open) takes them; or a store of one's own, in an `Arc`.
    pub fn results(mut self, store: impl Into<ResultsAt>) -> Self {
        self.results = Some(store.into());
        self
    }

    /// Up to how many bytes, encoded, a result is kept in the database itself: 16 KiB if not set.
    pub const fn inline_results_up_to(mut self, bytes: usize) -> Self {
        self.inline_up_to = Some(bytes);
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

    /// Whether a run whose history cannot be stored ends as Crashed. A store that cannot be opened is an error of
    /// [`build`](Self::build) either way.
    pub const fn strict(mut self, strict: bool) -> Self {
        self.strict = Some(strict);
        self
    }

    /// Whether a database that is not there is an error, instead of being made.
    pub const fn existing_only(mut self, existing: bool) -> Self {
        self.existing = existing;
        self
    }

    /// Whether the orchestrator only looks at what others do, and runs nothing itself: others do not know of it, and it
    /// leaves the upkeep of the store to them. It may change settings, such as limits, and remove what others have left.
    /// A database is made by none that only looks, and is opened to be read: it may be one that this process cannot write.
    pub const fn look_only(mut self, look: bool) -> Self {
        self.look_only = look;
        self
    }

    /// For how long this process may be silent before others take it for gone, where they share a store with it and
    /// cannot see for themselves that it works: because it runs on another machine, or is stopped.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// How long history is kept in a store that outlives the process; 30 days if nobody says anything. One that keeps
    /// nothing, such as an age of zero, is refused.
    pub const fn retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Whether this orchestrator sees to runs that crashed with their process: lets those of flows with
    /// `on_crash = "resume"` go on, and calls `on_crashed` hooks that nobody has called. It does so if nobody says anything;
    /// `false` leaves both to others.
    pub const fn resume_crashed(mut self, resume: bool) -> Self {
        self.resume_crashed = Some(resume);
        self
    }

    /// Of crashed runs that go on by themselves, only those of the flow with that key do so here, or none: for programs that
    /// were started for one flow. Of what [`resume_crashed`](Self::resume_crashed) leaves to others, nothing is done either way.
    pub const fn resume_only(mut self, key: Option<&'static str>) -> Self {
        self.resume_only = Some(key);
        self
    }

    /// Whether Ctrl-C and SIGTERM cancel the runs in order. The orchestrator made from the environment does so.
    pub const fn handle_signals(mut self, handle: bool) -> Self {
        self.signals = handle;
        self
    }

    /// Whether to print what happens, if the program has set no `tracing` subscriber. The orchestrator made from the
    /// environment does so. What bodies log goes into the history then, too, even if nothing is to be printed
    /// ([`log("off")`](Self::log)); without it that takes a [`capture_layer`](crate::capture_layer).
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
        let mut builder = self;
        if builder.terminal {
            builder.begin_to_print();
        }
        if let Some(wrong) = builder.complete().into_iter().next() {
            return Err(wrong);
        }
        let url = builder.url()?;
        let options = SqliteOptions::new().create(!builder.existing).look_only(builder.look_only);
        let store = builder.store(&url)?;
        // All of it waits for the store.
        let make = move || {
            let orchestrator = builder.finish(open(&url, &options)?, store);
            crate::recovery::begin(orchestrator.inner());
            Ok(orchestrator)
        };
        match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::task::spawn_blocking(make).await.map_err(|_| Error::new(ErrorKind::ShutDown))?,
            Err(_) => make(),
        }
    }

    /// Makes the orchestrator over a store of one's own. What is not set has its default: the variables above are not looked
    /// at. An option that makes no sense is told, and left at its default.
    #[must_use]
    pub fn build_over(self, backend: Arc<dyn StateBackend>) -> Orchestrator {
        let mut builder = self;
        for wrong in builder.take_wrong() {
            tracing::error!(target: "orchestrator", "{wrong}; going on with the default");
        }
        let url = builder.url().unwrap_or(DatabaseUrl::Memory);
        let store = builder.store_or_default(&url);
        let orchestrator = builder.finish(backend, store);
        crate::recovery::begin(orchestrator.inner());
        orchestrator
    }

    /// The orchestrator of a program that makes none: it must come about, whatever the environment says.
    pub(crate) fn build_anyway(self) -> Orchestrator {
        let mut builder = Self { terminal: true, signals: true, ..self };
        builder.begin_to_print();
        for wrong in builder.complete() {
            tracing::error!(target: "orchestrator", "{wrong}; going on with the default");
        }
        let backend = builder.url().and_then(|url| open(&url, &SqliteOptions::new()).map_err(Error::from)).unwrap_or_else(|error| {
            let mut said = error.to_string();
            if !said.ends_with('?') {
                said.push('.');
            }
            if builder.strict == Some(true) {
                tracing::error!(target: "orchestrator", "{said} The program stops, because ORCHESTRATOR_STRICT is set");
                std::process::exit(1);
            }
            tracing::error!(
                target: "orchestrator",
                "{said} History, cache and results are kept in memory and end with this process, so that nothing of it \
                 can be resumed; ORCHESTRATOR_HOME names another folder, and with ORCHESTRATOR_STRICT=true the program \
                 stops instead"
            );
            Arc::new(MemoryBackend::new())
        });
        let url = builder.url().unwrap_or(DatabaseUrl::Memory);
        let store = builder.store_or_default(&url);
        builder.finish(backend, store)
    }

    /// First of all: what follows may have something to say.
    fn begin_to_print(&self) {
        crate::terminal::install(self.log.as_deref().unwrap_or(DEFAULT_LOG));
        for name in unknown_variables() {
            let for_users = VARIABLES.iter().filter(|known| !known.starts_with(TEST_PREFIX));
            let known = for_users.filter_map(|known| known.strip_prefix(PREFIX));
            let meant = match nearest(name.trim_start_matches(PREFIX), known) {
                Some(meant) => format!("is {PREFIX}{meant} meant?"),
                None => "is it misspelt?".to_owned(),
            };
            tracing::warn!(target: "orchestrator", "the variable {name} means nothing to orchestrator: {meant}");
        }
    }

    fn finish(self, backend: Arc<dyn StateBackend>, store: Arc<dyn ResultStore>) -> Orchestrator {
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let mut observers = self.observers;
        if self.terminal
            && let Some(terminal) = crate::terminal::install(self.log.as_deref().unwrap_or(DEFAULT_LOG))
        {
            observers.extend(terminal.observers());
        }
        let defaults = Defaults::default();
        Orchestrator::from_parts(Parts {
            backend,
            results: Arc::new(Results::new(store, self.inline_up_to)),
            clock,
            defaults: Defaults {
                retries: self.retries.unwrap_or(defaults.retries),
                retry_delay: self.retry_delay.unwrap_or(defaults.retry_delay),
                retry_jitter: self.retry_jitter.unwrap_or(defaults.retry_jitter),
                timeout: self.timeout.or(defaults.timeout),
                refresh_cache: self.refresh_cache.unwrap_or(defaults.refresh_cache),
                persist: self.persist.unwrap_or(defaults.persist),
                cancel_grace: self.cancel_grace.unwrap_or(defaults.cancel_grace),
            },
            observers,
            workers: self.blocking_threads.unwrap_or_else(|| (4 * cores()).max(16)),
            strict: self.strict.unwrap_or(false),
            retention: self.retention.unwrap_or_default(),
            recovers: match (self.resume_crashed, self.resume_only) {
                (Some(false), _) => Scope::Nothing,
                (_, Some(only)) => Scope::Only(only),
                (_, None) => Scope::All,
            },
            signals: self.signals,
            lease: self.lease.unwrap_or(LEASE),
            role: if self.look_only { Role::Looks } else { Role::Works },
        })
    }

    /// Completes the options from the environment; gives what was not understood, which is left at its default.
    fn complete(&mut self) -> Vec<Error> {
        const WHOLE: &str = "a whole number from 0 up";
        const YES_OR_NO: &str = "`true` or `false`";
        let mut wrong = self.take_wrong();
        let environment = &mut Environment { wrong: &mut wrong };
        if self.database.is_none() && self.home.is_none() {
            self.database = environment.get(DATABASE_URL, "`memory` or `sqlite:PATH`");
            self.database_variable = self.database.is_some().then_some(DATABASE_URL);
        }
        let home = || environment.get("ORCHESTRATOR_HOME", "a folder");
        self.home = self.home.take().or_else(home);
        self.retries = self.retries.or_else(|| environment.get("ORCHESTRATOR_RETRIES", WHOLE));
        let delay = || environment.duration("ORCHESTRATOR_RETRY_DELAY_SECS", "", |_| true).map(Delay::Fixed);
        self.retry_delay = self.retry_delay.take().or_else(delay);
        let jitter =
            || environment.checked("ORCHESTRATOR_RETRY_JITTER", RIGHT_JITTER, |jitter| is_right_jitter(*jitter));
        self.retry_jitter = self.retry_jitter.or_else(jitter);
        let timeout =
            || environment.duration("ORCHESTRATOR_TASK_TIMEOUT_SECS", " of more than 0", |timeout| !timeout.is_zero());
        self.timeout = self.timeout.or_else(timeout);
        self.persist = self.persist.or_else(|| environment.get("ORCHESTRATOR_PERSIST", YES_OR_NO));
        if self.results.is_none() {
            self.results = environment.get(RESULTS, "a folder or a URL").map(ResultsAt::Url);
            self.results_variable = self.results.is_some().then_some(RESULTS);
        }
        self.refresh_cache = self.refresh_cache.or_else(|| environment.get("ORCHESTRATOR_REFRESH_CACHE", YES_OR_NO));
        let threads = || {
            let wanted = "a whole number from 1 up";
            environment.checked("ORCHESTRATOR_BLOCKING_THREADS", wanted, |threads| *threads > 0)
        };
        self.blocking_threads = self.blocking_threads.or_else(threads);
        let grace = || environment.duration("ORCHESTRATOR_CANCEL_GRACE_SECS", "", |_| true);
        self.cancel_grace = self.cancel_grace.or_else(grace);
        self.strict = self.strict.or_else(|| environment.get("ORCHESTRATOR_STRICT", YES_OR_NO));
        let lease = || {
            let least = format!(" of at least {SHORTEST_LEASE:?}");
            environment.duration("ORCHESTRATOR_LEASE_SECS", &least, |lease| *lease >= SHORTEST_LEASE)
        };
        self.lease = self.lease.or_else(lease);
        let resume = || environment.get("ORCHESTRATOR_RESUME_CRASHED", YES_OR_NO);
        self.resume_crashed = self.resume_crashed.or_else(resume);
        self.retention = self.retention.or_else(|| environment.retention("ORCHESTRATOR_RETENTION"));
        wrong
    }

    /// Takes out what the program has set and what makes no sense, and says why.
    fn take_wrong(&mut self) -> Vec<Error> {
        let mut wrong = Vec::new();
        if let Some(lease) = self.lease.take_if(|lease| *lease < SHORTEST_LEASE) {
            wrong.push(config(format!("the lease is {lease:?}: expected at least {SHORTEST_LEASE:?}")));
        }
        if let Some(jitter) = self.retry_jitter.take_if(|jitter| !is_right_jitter(*jitter)) {
            wrong.push(config(format!("the retry jitter is {jitter}: expected {RIGHT_JITTER}")));
        }
        if self.timeout.take_if(|timeout| timeout.is_zero()).is_some() {
            wrong.push(config("the timeout of tasks is zero: expected more than that".to_owned()));
        }
        if self.blocking_threads.take_if(|threads| *threads == 0).is_some() {
            wrong.push(config("the number of blocking threads is 0: expected at least 1".to_owned()));
        }
        if let Some((policy, why)) = self.retention.and_then(|policy| Some((policy, policy.wrong()?))) {
            self.retention = None;
            wrong.push(config(format!("the retention is {policy}: {why}")));
        }
        wrong
    }

    /// Where large results are kept.
    fn store(&self, url: &DatabaseUrl) -> Result<Arc<dyn ResultStore>, Error> {
        match &self.results {
            Some(ResultsAt::Store(store)) => Ok(Arc::clone(store)),
            Some(ResultsAt::Url(url)) => match ObjectResults::open(url) {
                Ok(store) => Ok(Arc::new(store)),
                // There is much to look at besides.
                Err(why) if self.look_only => {
                    let why = named(self.results_variable, why);
                    Ok(Arc::new(Unusable { url: url.clone(), why }))
                }
                Err(why) => Err(said_by(self.results_variable, why)),
            },
            None => Ok(Self::beside(url)),
        }
    }

    /// The same where there must be one, whatever was said.
    fn store_or_default(&self, url: &DatabaseUrl) -> Arc<dyn ResultStore> {
        self.store(url).unwrap_or_else(|error| {
            tracing::error!(target: "orchestrator", "{error}; large results are kept beside the database");
            Self::beside(url)
        })
    }

    /// The folder `results` beside the database.
    fn beside(url: &DatabaseUrl) -> Arc<dyn ResultStore> {
        let folder = match url {
            DatabaseUrl::Sqlite(path) => path.parent().map(PathBuf::from).unwrap_or_default(),
            DatabaseUrl::Memory => std::env::temp_dir().join("orchestrator"),
        };
        Arc::new(ObjectResults::folder(folder.join("results")))
    }

    fn url(&self) -> Result<DatabaseUrl, Error> {
        if let Some(url) = &self.database {
            return url.parse().map_err(|why| said_by(self.database_variable, why));
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

/// An error about what a variable says, or the program if there is none.
fn said_by(variable: Option<&str>, why: String) -> Error {
    config(named(variable, why))
}

/// How many threads the process may run at the same time: asked once, since that takes two dozen system calls.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// What is wrong, with the variable that says so, if one does.
fn named(variable: Option<&str>, why: String) -> String {
    match variable {
        Some(name) => format!("{name}: {why}"),
        None => why,
    }
}

const DATABASE_URL: &str = "ORCHESTRATOR_DATABASE_URL";
const RESULTS: &str = "ORCHESTRATOR_RESULTS";

/// What the variables of this library have in common.
const PREFIX: &str = "ORCHESTRATOR_";
const TEST_PREFIX: &str = "ORCHESTRATOR_TEST";

/// The variables that this library reads.
const VARIABLES: &[&str] = &[
    "ORCHESTRATOR_HOME",
    DATABASE_URL,
    "ORCHESTRATOR_RETRIES",
    "ORCHESTRATOR_RETRY_DELAY_SECS",
    "ORCHESTRATOR_RETRY_JITTER",
    "ORCHESTRATOR_TASK_TIMEOUT_SECS",
    "ORCHESTRATOR_REFRESH_CACHE",
    "ORCHESTRATOR_PERSIST",
    RESULTS,
    "ORCHESTRATOR_BLOCKING_THREADS",
    "ORCHESTRATOR_CANCEL_GRACE_SECS",
    "ORCHESTRATOR_STRICT",
    "ORCHESTRATOR_LEASE_SECS",
    "ORCHESTRATOR_RETENTION",
    "ORCHESTRATOR_RESUME_CRASHED",
    "ORCHESTRATOR_LOG",
    "ORCHESTRATOR_LOG_CAPTURE",
    // Read by this repository's tests alone.
    "ORCHESTRATOR_TEST_GOLDEN",
    "ORCHESTRATOR_TEST_KILLS",
    "ORCHESTRATOR_TEST_PROGRAMS",
    "ORCHESTRATOR_TEST_S3_URL",
    "ORCHESTRATOR_TEST_SCHEDULES",
    "ORCHESTRATOR_TEST_SEED",
];

/// Variables that are set and look like ours, but are not.
fn unknown_variables() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with(PREFIX) && !VARIABLES.contains(&name.as_str())).collect()
}

/// Reads variables and collects what is wrong with them.
struct Environment<'a> {
    wrong: &'a mut Vec<Error>,
}

impl Environment<'_> {
    /// A variable, if it is set, not empty, and understood.
    fn get<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        self.checked(name, expected, |_| true)
    }

    /// The same, if it is right besides.
    fn checked<T: FromStr>(&mut self, name: &str, expected: &str, is_right: impl Fn(&T) -> bool) -> Option<T> {
        let read = |text: &str| text.parse().ok().filter(is_right);
        self.read(name, |text| read(text).ok_or_else(|| format!("expected {expected}")))
    }

    /// A duration; `bounds` says which ones are right.
    fn duration(&mut self, name: &str, bounds: &str, is_right: impl Fn(&Duration) -> bool) -> Option<Duration> {
        let read = |text: &str| duration::or_seconds(text).ok().filter(is_right);
        self.read(name, |text| {
            let wrong = || format!("expected a time{bounds} such as `30s`, `15m` or `7d`, or a number of seconds");
            read(text).ok_or_else(wrong)
        })
    }

    /// How long history is kept.
    fn retention(&mut self, name: &str) -> Option<Retention> {
        self.read(name, |text| {
            let policy: Retention = text.parse().map_err(|_| format!("expected {}", retention::RIGHT))?;
            policy.wrong().map_or(Ok(policy), |why| Err(why.to_owned()))
        })
    }

    /// A variable, if it is set, not empty, and read without an error.
    fn read<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = std::env::var_os(name).filter(|text| !text.is_empty())?;
        let value = text.to_str().ok_or_else(|| "expected UTF-8".to_owned()).and_then(read);
        value.map_err(|why| self.wrong.push(config(format!("{name} is '{}': {why}", text.display())))).ok()
    }
}

/// How long another process may hold the database when it is opened.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(url: &DatabaseUrl, options: &SqliteOptions) -> Result<Arc<dyn StateBackend>, BackendError> {
    let path = match url {
        DatabaseUrl::Memory => return Ok(Arc::new(MemoryBackend::new())),
        DatabaseUrl::Sqlite(path) => path,
    };
    let start = Instant::now();
    let mut told = false;
    loop {
        match SqliteBackend::open_with(path, options.clone()) {
            Err(error) if error.kind() == BackendErrorKind::Busy && start.elapsed() < PATIENCE => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(target: "orchestrator", "{error}. It is waited for, {} at most", short(PATIENCE));
                }
            }
            opened => return Ok(Arc::new(opened?)),
        }
    }
}
