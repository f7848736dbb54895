//! A body that cannot move between threads.
use orchestrator::prelude::*;

use std::rc::Rc;

#[task]
async fn count() -> usize {
    let shared = Rc::new(1);
    std::future::ready(()).await;
    *shared
}

fn main() {}
