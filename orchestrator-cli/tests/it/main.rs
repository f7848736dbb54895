//! The program as a person or a script uses it: a child process over a database whose content is known.

mod crashed;
mod following;
#[path = "../shared/program.rs"]
mod program;
mod reading;
mod shapes;
mod transcripts;
mod trouble;
mod world;
