//! End-to-end tests through the public API: what a user can observe.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "child processes of tests talk to their parents")]
#![expect(clippy::async_yields_async, reason = "runs are submitted in one place and awaited in another")]
#![expect(clippy::type_complexity, reason = "deep nesting is what some tests are about")]

mod answers;
mod cache;
mod cache_looks;
mod cancel;
mod crashes;
mod dependencies;
mod docs;
mod door;
mod elsewhere;
mod environment;
mod explain;
mod failures;
mod faults;
mod fence;
mod flows;
mod futures;
mod golden;
mod hooks;
mod interrupted;
mod journal;
mod kit;
mod launcher;
mod leaks;
mod limits;
mod macros;
mod map;
mod mistakes;
mod options;
mod outcomes;
mod output;
mod panics;
mod pause;
mod persist;
mod power;
mod process;
mod questions;
mod random;
mod registry;
mod results;
mod resume;
mod shared_limits;
mod shared_processes;
mod states;
mod store;
mod transactions;
#[path = "../shared/warnings.rs"]
mod warnings;
