//! Pipelines in processes of their own that are killed, again and again, at random moments.
//!
//! The seeds are printed; `ORCHESTRATOR_TEST_SEED` repeats one, `ORCHESTRATOR_TEST_KILLS` says how many kills there are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "seeds and numbers are for those who read the log")]

mod child;
mod kills;
mod limits;
mod pipeline;
mod witness;
