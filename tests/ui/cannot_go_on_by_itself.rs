//! Flows that cannot be called by name, so that nobody can let their runs go on.
use orchestrator::prelude::*;

#[flow(on_crash = "resume")]
async fn secret(#[param(skip)] password: String) {
    drop(password);
}

#[flow(on_crash = "resume")]
async fn any<T: Default + Send + Sync + 'static>(count: u32) {
    drop((T::default(), count));
}

fn main() {}
