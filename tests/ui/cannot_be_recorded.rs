//! A flow parameter that serde cannot write.
use orchestrator::prelude::*;

#[derive(Clone)]
struct Connection;

#[flow]
async fn report(connection: Connection) {
    let _ = connection;
}

fn main() {}
