//! A method cannot be a task.
use orchestrator::prelude::*;

struct Client;

impl Client {
    #[task]
    async fn fetch(&self, id: u32) -> u32 {
        id
    }
}

fn main() {}
