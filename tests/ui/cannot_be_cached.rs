//! Caching asked of types that serde cannot write.
use orchestrator::prelude::*;

#[derive(Clone)]
struct Connection;

#[task(cache_ttl = "1d")]
async fn input(connection: &Connection) -> u32 {
    let _ = connection;
    1
}

#[task(cache_ttl = "1d")]
async fn output(id: u32) -> Connection {
    let _ = id;
    Connection
}

fn main() {}
