//! A task with type parameters has many bodies, and no fake.
use orchestrator::prelude::*;

#[task]
async fn first<T: Clone + Send + Sync + 'static>(all: Vec<T>) -> Option<T> {
    all.into_iter().next()
}

fn main() {
    Orchestrator::in_memory().replace::<first>(|_all| Some(1));
}
