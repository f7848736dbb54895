//! The attributes of the orchestrator: [`macro@task`], [`macro@flow`] and [`macro@test`].
//!
//! Use them through the crate `orchestrator`, which re-exports them. This crate checks the user's function and emits
//! one call into the runtime; it must not contain any behaviour of a run.
//!
//! The way of an attribute: `args` reads its options by the table in `options`, `model` holds the function, `validate`
//! says what is wrong with the two, `expand` emits the items, `def` and `checks` parts of them.

mod args;
mod checks;
mod code;
mod def;
mod duration;
mod expand;
mod fingerprint;
mod hooks;
mod mistakes;
mod model;
mod names;
mod options;
mod root;
mod suggest;
mod template;
mod test_attr;
#[cfg(test)]
mod tests;
mod validate;
mod value;

use proc_macro::TokenStream;

use crate::model::Kind;

/// Makes a function a task: a call submits a run and gives its future.
///
/// The function may be async, or sync, in which case it runs on the blocking pool. It may return any type or a
/// `Result`; an alias of `Result` has a name that ends in `Result`. Parameters `&T`, `&[T]`, `&str` and `&Path` borrow
/// from the shared argument; a parameter by value is `Clone`, since each attempt gets its own.
///
/// For a function `fetch`, the attribute defines
///
/// - `fetch(..)`, which submits a run and returns a `TaskFuture`,
/// - `fetch::map(..)`, which submits a run for each element and returns a `MapFuture`,
/// - `fetch::configure()`, the same task with options changed at the call,
/// - `fetch::body(..)`, the function as it was written.
///
/// # Options
///
/// | option | meaning | default |
/// | --- | --- | --- |
/// | `name = "fetch"` | the task's name in states, logs and history | the function's name |
/// | `run_name = "fetch-{repo}"` | the name of each run; fields are parameters that are `Display` | made by the runtime |
/// | `description = ".."` | what the task does, for people | the doc comment |
/// | `version = "1"` | the version that is recorded with each run | none |
/// | `tags = ["a", "b"]` | the tags of each run; a limit `tag:a` applies to it | none |
/// | `retries = 3` | how often a failed attempt is followed by another one | the orchestrator's, 0 at first |
/// | `retry_delay_secs = 10` | the time before each retry: one duration, a list whose last one repeats, or `exponential(base, max)` | the orchestrator's, none at first |
/// | `retry_jitter = 0.5` | spreads each delay, by at most this fraction of it upwards | the orchestrator's, 0 at first |
/// | `retry_if = path` | a `fn(&E) -> bool` that says whether an error is worth another attempt | every error is |
/// | `timeout_secs = 60` | the longest that one attempt may take | the orchestrator's, no limit at first |
/// | `cache_ttl = "1d"` | caches results for that long, which is more than nothing | not cached |
/// | `cache_policy = inputs` | what a cached result depends on: a sum of `inputs`, `task_source`, `run_id` and `flow_parameters`; `- "client"` leaves an argument out; or `default`, or `none` | `default`, which is `inputs + task_source`, for tasks that are cached |
/// | `cache_key = path` | a function of references to the arguments that gives `Option<String>`, the key; `None`: not cached | made from the policy |
/// | `refresh_cache` | runs the body even if there is a cached result, and replaces that | the orchestrator's, `false` at first |
/// | `persist` | keeps the result for the flow run: when the flow is retried, the same call is answered with it | the flow's |
/// | `concurrency = "db"` | the limits that an attempt takes slots of: a name, `("db", slots = 2)`, or a list of these; `limit = 10` in the parentheses also makes the limit where there is none: one that is there stays as it is, as somebody may have set it, and a warning tells of another number once | none |
/// | `on_running = hook` | hooks for each attempt that begins; each of these options takes a function, or a list such as `[a, b]` | none |
/// | `on_completion = hook` | hooks for the end as Completed, which a cached result is too | none |
/// | `on_failure = hook` | hooks for the end as Failed, after the last attempt | none |
/// | `on_cancellation = hook` | hooks for the end as Cancelled | none |
/// | `on_crashed = hook` | hooks for the end as Crashed | none |
/// | `on_commit = hook` | hooks for the commit of the transaction that the run is part of; a run outside of any commits when it has completed | none |
/// | `on_rollback = hook` | hooks that undo what the run did, when its transaction is rolled back | none |
/// | `crate = "path"` | where the crate `orchestrator` is found | `::orchestrator` |
///
/// Durations are numbers of seconds, with or without a fraction, or texts such as `"500ms"`, `"1h30m"` and `"1d"`; the
/// units are `ms`, `s`, `m`, `h`, `d` and `w`.
///
/// `task_source` is the text of this function, without comments and attributes. A change in what it calls does not change it, so
/// that the cached result still answers: change the function too, or remove the result
/// (`orchestrator cache clear --task pipeline::fetch`). Where there is a `cache_key` the text does not count: let the key name a
/// version.
///
/// The runs of a `map` ask for the slots of `concurrency` in any order, and get them in the order in which they ask; the
/// results are in the order of the elements.
///
/// A hook is a function, sync or async, of `(&TaskRun, &State)`; `on_commit` and `on_rollback` take a reference to the
/// run's result. It returns nothing, or a `Result<(), E>`. Hooks are called one after the other, sync ones on the
/// blocking pool. One that fails or panics is reported in the log, and the others are called all the same. A run has
/// ended, for those who await it, when its hooks have.
///
/// `#[cache(skip)]` on a parameter leaves its argument out of the cache key, so that its type need not be `Serialize`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(Kind::Task, options.into(), function.into()).into()
}

/// Makes a function a flow: a call starts a flow run and gives its future.
///
/// Runs that are submitted while the body runs belong to the flow run, which ends when all of them have ended. What
/// the function may look like is the same as for [`macro@task`]. For a function `report`, the attribute defines
///
/// - `report(..)`, which starts a run and returns a `FlowFuture`,
/// - `report::configure()`, the same flow with options changed at the call,
/// - `report::body(..)`, the function as it was written.
///
/// # Options
///
/// | option | meaning | default |
/// | --- | --- | --- |
/// | `name = "report"` | the flow's name in states, logs and history | the function's name |
/// | `run_name = "report-{day}"` | the name of each run; fields are parameters that are `Display` | made by the runtime |
/// | `description = ".."` | what the flow does, for people | the doc comment |
/// | `version = "1"` | the version that is recorded with each run | none |
/// | `tags = ["a", "b"]` | the tags of each run | none |
/// | `retries = 3` | how often a failed attempt is followed by another one | 0 |
/// | `retry_delay_secs = 10` | the time before each retry: one duration, a list whose last one repeats, or `exponential(base, max)` | the orchestrator's, none at first |
/// | `timeout_secs = 60` | the longest that one attempt may take | no limit |
/// | `persist` | keeps the results of all tasks whose result types can be stored, so that a retry does not run them again; tasks and flows inside may say `persist = false` | that of the flow around it, or else the orchestrator's, `false` at first |
/// | `max_concurrent_tasks = 8` | how many tasks of one flow run may run at the same time; tasks that its tasks or its subflows call do not count | no limit |
/// | `on_running = hook` | hooks for each attempt that begins; each of these options takes a function, or a list such as `[a, b]` | none |
/// | `on_completion = hook` | hooks for the end as Completed | none |
/// | `on_failure = hook` | hooks for the end as Failed, after the last attempt | none |
/// | `on_cancellation = hook` | hooks for the end as Cancelled | none |
/// | `on_crash = "resume"` | a run whose process went away goes on by itself when the program starts again | it stays Crashed |
/// | `crash_budget = 3` | how many times in a row it does so | 3 |
/// | `on_crashed = hook` | hooks for the end as Crashed | none |
/// | `crate = "path"` | where the crate `orchestrator` is found | `::orchestrator` |
///
/// Durations are written as for [`macro@task`].
///
/// A hook is a function, sync or async, of `(&FlowRun, &State)`; see [`macro@task`].
///
/// The parameters are recorded, so their types are `Serialize` and `DeserializeOwned`; `#[param(skip)]` on a parameter
/// leaves it out of the record and frees its type of that.
#[proc_macro_attribute]
pub fn flow(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(Kind::Flow, options.into(), function.into()).into()
}

/// Makes an async function a test with an orchestrator of its own, in memory.
///
/// # Options
///
/// | option | meaning | default |
/// | --- | --- | --- |
/// | `start_paused = true` | the clock stands still and jumps to the next timer when nothing else can run; delays, times to live, leases and rate limits follow it | `false` |
/// | `flavor = "multi_thread"` | the kind of runtime: `"current_thread"` or `"multi_thread"` | `"current_thread"` |
/// | `worker_threads = 2` | the number of threads of a `"multi_thread"` runtime | one for each processor |
/// | `crate = "path"` | where the crate `orchestrator` is found | `::orchestrator` |
///
/// Other attributes, such as `#[should_panic]` and `#[ignore]`, mean what they mean on `#[test]`.
#[proc_macro_attribute]
pub fn test(options: TokenStream, function: TokenStream) -> TokenStream {
    test_attr::expand(options.into(), function.into()).into()
}
