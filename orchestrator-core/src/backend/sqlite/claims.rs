//! Claims on cache keys: a row each, which counts while its owner is present.

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};
use uuid::Uuid;

use super::SqliteBackend;
use super::lease::{self, Lease};
use super::limits::process;
use crate::backend::record::CacheKey;
use crate::backend::{BackendError, ClaimLeases, ClaimRequest, Claimed, OwnerNo};
use crate::clock::Timestamp;
use crate::id::TaskRunId;

impl ClaimLeases for SqliteBackend {
    fn claim(
        &self,
        owner: OwnerNo,
        over: &[(CacheKey, u64)],
        asks: &[ClaimRequest],
        now: Timestamp,
    ) -> Result<Vec<Claimed>, BackendError> {
        let doing = || format!("claim cache keys in the database {}", self.path.display());
        self.lease(doing, |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if !lease::is_present(&transaction, owner)? {
                return Ok(Lease::Ended);
            }
            for (key, ticket) in over {
                let delete = "DELETE FROM cache_claim WHERE key = ?1 AND owner = ?2 AND ticket = ?3";
                transaction.prepare_cached(delete)?.execute(params![key.0, owner.0, ticket.cast_signed()])?;
            }
            let claimed =
                asks.iter().map(|ask| claim(&transaction, owner, ask, now)).collect::<rusqlite::Result<_>>()?;
            transaction.commit()?;
            Ok(Lease::Given(claimed))
        })
    }

    fn claimed(&self, owner: OwnerNo, keys: &[CacheKey]) -> Result<Vec<bool>, BackendError> {
        let doing = || format!("look for claims in the database {}", self.path.display());
        self.lease(doing, |connection| {
            let transaction = connection.transaction()?;
            if !lease::is_present(&transaction, owner)? {
                return Ok(Lease::Ended);
            }
            let by_others = |key: &CacheKey| other(&transaction, owner, key).map(|other| other.is_some());
            keys.iter().map(by_others).collect::<rusqlite::Result<_>>().map(Lease::Given)
        })
    }
}

fn claim(
    transaction: &Transaction<'_>,
    owner: OwnerNo,
    ask: &ClaimRequest,
    now: Timestamp,
) -> rusqlite::Result<Claimed> {
    if let Some(taken) = other(transaction, owner, &ask.key)? {
        return Ok(taken);
    }
    let insert = "INSERT OR REPLACE INTO cache_claim (key, owner, ticket, since, run, run_name)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (ticket, run) = (ask.ticket.cast_signed(), ask.run.as_uuid().into_bytes());
    let values = params![ask.key.0, owner.0, ticket, now.as_micros(), run, &*ask.run_name];
    transaction.prepare_cached(insert)?.execute(values)?;
    let select = "SELECT EXISTS (SELECT 1 FROM cache WHERE key = ?1)";
    let cached = transaction.prepare_cached(select)?.query_row([ask.key.0], |row| row.get(0))?;
    Ok(Claimed::Held { cached })
}

/// The claim of another owner that is present.
fn other(transaction: &Transaction<'_>, owner: OwnerNo, key: &CacheKey) -> rusqlite::Result<Option<Claimed>> {
    let select = "SELECT run, run_name, host, pid, namespace, started, session
        FROM cache_claim CROSS JOIN process ON process.no = cache_claim.owner AND process.ended IS NULL
        WHERE key = ?1 AND owner <> ?2";
    let taken = transaction.prepare_cached(select)?.query_row(params![key.0, owner.0], |row| {
        let run = TaskRunId::from_uuid(Uuid::from_bytes(row.get(0)?));
        Ok(Claimed::Taken { run, run_name: row.get(1)?, process: process(row, 2)? })
    });
    taken.optional()
}
