//! A server with the shape of GitHub's API and bad manners, for trying things out without a network.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Json, Router, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// How many requests it answers within one second; further ones get 429.
const REQUESTS_PER_SECOND: usize = 8;

/// A running server; it ends with the program.
pub(crate) struct Server {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
}

/// What the server was asked so far.
#[derive(Default)]
struct Log {
    /// When the requests of the last second came.
    recent: VecDeque<Instant>,
    requests: usize,
    in_progress: usize,
    most_in_progress: usize,
    most_in_a_second: usize,
    unavailable: usize,
    too_many: usize,
}

impl Server {
    pub(crate) async fn start() -> io::Result<Self> {
        let log = Arc::new(Mutex::default());
        let app = Router::new().route("/repos/{owner}/{name}", get(repository)).with_state(Arc::clone(&log));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, log })
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn report(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "the demo server got {} requests, at most {} at the same time and {} in one second; \
             it answered {} with 503 and {} with 429",
            log.requests, log.most_in_progress, log.most_in_a_second, log.unavailable, log.too_many
        )
    }
}

/// Answers like GitHub, but slowly, and one request in four not at all. The numbers are made up.
async fn repository(
    State(log): State<Arc<Mutex<Log>>>,
    Path((owner, name)): Path<(String, String)>,
) -> Result<Json<Value>, StatusCode> {
    let verdict = log.lock().unwrap_or_else(PoisonError::into_inner).begin(Instant::now());
    let full_name = format!("{owner}/{name}");
    let hash = blake3::hash(full_name.as_bytes());
    let [low, high, slowness, ..] = *hash.as_bytes();
    tokio::time::sleep(Duration::from_millis(400 + 3 * u64::from(slowness))).await;
    log.lock().unwrap_or_else(PoisonError::into_inner).in_progress -= 1;
    verdict?;
    if name == "missing" {
        return Err(StatusCode::NOT_FOUND);
    }
    Ok(Json(json!({ "full_name": full_name, "stargazers_count": u16::from_le_bytes([low, high]) })))
}

impl Log {
    /// Notes a request, and says whether it is one to be answered.
    fn begin(&mut self, now: Instant) -> Result<(), StatusCode> {
        self.requests += 1;
        self.in_progress += 1;
        self.most_in_progress = self.most_in_progress.max(self.in_progress);
        while self.recent.front().is_some_and(|then| now - *then >= Duration::from_secs(1)) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.most_in_a_second = self.most_in_a_second.max(self.recent.len());
        if self.recent.len() > REQUESTS_PER_SECOND {
            self.too_many += 1;
            return Err(StatusCode::TOO_MANY_REQUESTS);
        }
        if self.requests % 4 == 2 {
            self.unavailable += 1;
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        Ok(())
    }
}
