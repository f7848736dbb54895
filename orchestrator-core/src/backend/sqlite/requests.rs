//! Requests to other orchestrators: a row each, until it is withdrawn.

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::SqliteBackend;
use crate::backend::{Answer, BackendError, OwnerNo, Request, RequestNo, Requests, Wanted};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId, TaskRunId};

/// After so long nobody comes for an answer.
const KEPT_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

impl Requests for SqliteBackend {
    fn request(
        &self,
        owner: OwnerNo,
        run: RunId,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Result<Option<RequestNo>, BackendError> {
        let insert = "INSERT INTO request (owner, run, is_flow, wanted, created)
            SELECT no, ?2, ?3, ?4, ?5 FROM process WHERE no = ?1 AND ended IS NULL RETURNING no";
        let (id, is_flow) = (run.as_uuid().into_bytes(), run.as_flow().is_some());
        let wanted = serde_json::to_string(wanted).expect("what is wanted can be written as JSON");
        let values = params![owner.0, id, is_flow, wanted, now.as_micros()];
        self.write_aside(
            || self.writing(),
            |transaction| {
                // Those whose senders were killed.
                let old = "DELETE FROM request WHERE created < ?1";
                transaction.execute(old, [now.as_micros().saturating_sub(KEPT_MICROS)])?;
                let no = transaction.query_row(insert, values, |row| row.get(0)).optional()?;
                transaction.commit().map(|()| no.map(RequestNo))
            },
        )
    }

    fn take_requests(&self, owner: OwnerNo) -> Result<Vec<Request>, BackendError> {
        let any = "SELECT EXISTS (SELECT 1 FROM request WHERE owner = ?1 AND taken = 0)";
        let look = |connection: &Connection| connection.prepare_cached(any)?.query_row([owner.0], |row| row.get(0));
        // Looking keeps nobody from writing.
        if !self.read(|| self.reading(format_args!("requests of other processes")), look)? {
            return Ok(Vec::new());
        }
        let take = "UPDATE request SET taken = 1 WHERE owner = ?1 AND taken = 0 RETURNING no, run, is_flow, wanted";
        self.write_aside(
            || self.writing(),
            |transaction| {
                let mut statement = transaction.prepare_cached(take)?;
                let requests = statement.query_map([owner.0], |row| {
                    let id = Uuid::from_bytes(row.get(1)?);
                    let is_flow = row.get(2)?;
                    let run = if is_flow { FlowRunId::from_uuid(id).into() } else { TaskRunId::from_uuid(id).into() };
                    let wanted = serde_json::from_str(&row.get::<_, String>(3)?).ok();
                    Ok(Request { no: RequestNo(row.get(0)?), run, wanted })
                })?;
                let mut requests = requests.collect::<rusqlite::Result<Vec<_>>>()?;
                drop(statement);
                transaction.commit()?;
                requests.sort_by_key(|request| request.no);
                Ok(requests)
            },
        )
    }

    fn answer(&self, request: RequestNo, answer: &Answer) -> Result<(), BackendError> {
        let update = "UPDATE request SET taken = 1, answer = ?2 WHERE no = ?1";
        let answer = serde_json::to_string(answer).expect("an answer can be written as JSON");
        self.write_aside(
            || self.writing(),
            |transaction| {
                transaction.execute(update, params![request.0, answer])?;
                transaction.commit()
            },
        )
    }

    fn answered(&self, request: RequestNo) -> Result<Option<Answer>, BackendError> {
        let select = "SELECT answer FROM request WHERE no = ?1";
        let answer = self.read(
            || self.reading(format_args!("what became of a request")),
            |connection| {
                let mut statement = connection.prepare_cached(select)?;
                statement.query_row([request.0], |row| row.get::<_, Option<String>>(0)).optional()
            },
        )?;
        Ok(match answer {
            None => Some(Answer::Gone),
            Some(None) => None,
            Some(Some(answer)) => Some(serde_json::from_str(&answer).unwrap_or_else(|error| {
                Answer::Refused(format!("its answer cannot be read, and may be that of a newer version: {error}"))
            })),
        })
    }

    fn withdraw(&self, request: RequestNo) -> Result<(), BackendError> {
        self.write_aside(
            || self.writing(),
            |transaction| {
                transaction.execute("DELETE FROM request WHERE no = ?1", [request.0])?;
                transaction.commit()
            },
        )
    }
}

/// The orchestrator has ended: nothing comes of what it has not answered.
pub(super) fn end(transaction: &Transaction<'_>, owner: OwnerNo) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM request WHERE owner = ?1 AND answer IS NULL", [owner.0]).map(drop)
}
