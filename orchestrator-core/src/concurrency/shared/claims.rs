//! Claims on cache keys that processes share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use super::{Broker, shut_down};
use crate::backend::record::CacheKey;
use crate::backend::{ClaimRequest, Claimed};
use crate::error::Error;
use crate::run::Run;

/// The end of another process's claim.
#[derive(Debug)]
pub(crate) struct Landing(oneshot::Receiver<Result<(), Error>>);

impl Landing {
    /// Ready when nobody else has the claim any more.
    pub(crate) async fn landed(self) {
        // Whoever asks for the claim then is told what is wrong.
        let _ = self.0.await;
    }
}

impl Broker {
    /// Asks for the claim on a key; gives the number of the request.
    pub(crate) async fn claim(&self, key: CacheKey, run: &Arc<Run>) -> Result<(u64, Claimed), Error> {
        static TICKETS: AtomicU64 = AtomicU64::new(0);
        let Some(id) = run.id().as_task() else { return Ok((0, Claimed::Held { cached: false })) };
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let request = ClaimRequest { key, ticket, run: id, run_name: run.name() };
        self.start();
        self.desk.order(|orders| orders.claims.push((request, answer)));
        // What was granted to nobody is given back.
        let mut unclaimed = Unclaimed { broker: self, key, ticket, armed: true };
        let claimed = answered.await.map_err(|_| shut_down())?;
        unclaimed.armed = false;
        claimed.map(|claimed| (ticket, claimed))
    }

    /// The claim is over as soon as the store has what was pushed into the journal so far.
    pub(crate) fn give_back_claim(&self, key: CacheKey, ticket: u64, pushed: u64) {
        self.desk.order(|orders| orders.claims_over.push((key, ticket, pushed)));
    }

    /// When the claim of another process is over.
    pub(crate) fn landing(&self, key: CacheKey) -> Landing {
        let (answer, answered) = oneshot::channel();
        self.start();
        self.desk.order(|orders| orders.landings.entry(key).or_default().push(answer));
        Landing(answered)
    }
}

/// A claim that was asked for by a future that may be dropped.
struct Unclaimed<'b> {
    broker: &'b Broker,
    key: CacheKey,
    ticket: u64,
    armed: bool,
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.broker.desk.order(|orders| {
                let before = orders.claims.len();
                orders.claims.retain(|(request, _)| request.ticket != self.ticket);
                if orders.claims.len() == before {
                    orders.claims_over.push((self.key, self.ticket, 0));
                }
            });
        }
    }
}
