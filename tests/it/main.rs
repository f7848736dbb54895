//! End-to-end tests through the public API: what a user can observe.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cache;
mod cancel;
mod dependencies;
mod door;
mod failures;
mod flows;
mod limits;
mod map;
mod mistakes;
mod states;
mod store;
