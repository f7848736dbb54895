//! A result to be persisted that serde cannot write.
use orchestrator::prelude::*;

#[derive(Clone)]
struct Connection;

#[task(persist)]
async fn connect(address: String) -> Connection {
    let _ = address;
    Connection
}

#[task(persist)]
async fn takes_anything(connection: &Connection) -> u32 {
    let _ = connection;
    1
}

fn main() {}
