//! Processes that are killed, again and again, at random moments, or suspended, or have no room on the disk.
//!
//! The seeds are printed; `ORCHESTRATOR_TEST_SEED` repeats one, `ORCHESTRATOR_TEST_KILLS` says how many kills there are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "seeds and numbers are for those who read the log")]

mod child;
mod code_stats;
mod full;
mod kills;
mod limits;
mod migration;
mod pipeline;
mod witness;
