//! Ends the runs of an orchestrator that is gone: all of them by one statement each table, however many there are.

use rusqlite::{Transaction, params};

use super::write::STATES_IN_ROW;
use crate::backend::OwnerNo;
use crate::clock::Timestamp;
use crate::state::StateName;

/// The last that is known of the orchestrator `?1`, apart from its heartbeat: a state of a run of it, or a line that one
/// logged. It is looked for among what has not ended and what is newest.
pub(super) const LAST_KNOWN: &str = "SELECT max(at) FROM (
        SELECT max(created, state_at) AS at FROM flow_run WHERE process = ?1 AND end_time IS NULL
        UNION ALL SELECT max(created, state_at) FROM task_run WHERE process = ?1 AND end_time IS NULL
        UNION ALL SELECT max(created, state_at)
            FROM (SELECT process, created, state_at FROM flow_run ORDER BY id DESC LIMIT 1000) WHERE process = ?1
        UNION ALL SELECT max(created, state_at)
            FROM (SELECT process, created, state_at FROM task_run ORDER BY id DESC LIMIT 1000) WHERE process = ?1
        UNION ALL SELECT at FROM (SELECT run, at FROM log ORDER BY no DESC LIMIT 1000) AS line WHERE ?1 IN (
            SELECT process FROM flow_run WHERE id = line.run UNION ALL SELECT process FROM task_run WHERE id = line.run
        )
    )";

/// Puts down when something was heard last of an orchestrator that is gone, before its runs are ended.
pub(super) fn note_last_known(transaction: &Transaction<'_>, owner: OwnerNo) -> rusqlite::Result<()> {
    let update = format!(
        "UPDATE process SET heard = nullif(max(coalesce(heard, 0), coalesce(({LAST_KNOWN}), 0)), 0) WHERE no = ?1"
    );
    transaction.execute(&update, [owner.0]).map(drop)
}

/// Marks the runs of an orchestrator that have not ended as Crashed, and says how many there were.
pub(super) fn end(
    transaction: &Transaction<'_>,
    owner: OwnerNo,
    at: Timestamp,
    message: &str,
) -> rusqlite::Result<usize> {
    // Detached tasks may be active when their flow run has ended; a trigger tells of all others.
    let interrupted = "INSERT INTO interrupted (flow_run, at)
        SELECT DISTINCT flow_run, ?2 FROM task_run WHERE process = ?1 AND end_time IS NULL AND flow_run IS NOT NULL
        ON CONFLICT (flow_run) DO UPDATE SET at = max(at, excluded.at)";
    transaction.execute(interrupted, params![owner.0, at.as_micros()])?;
    // A run that has kept something new since it was last resumed does not crash in vain: it is counted anew.
    // Who stored the last of its results says it: nobody else stores any while the run is his.
    let advanced = "UPDATE flow_run SET resumed = 0
        WHERE process = ?1 AND end_time IS NULL AND resumed > 0 AND ?1 = (
            SELECT task_run.process FROM result_span
                JOIN result ON result.no = result_span.last JOIN task_run ON task_run.id = result.run
            WHERE result_span.root = flow_run.id ORDER BY result_span.first DESC LIMIT 1
        )";
    transaction.execute(advanced, [owner.0])?;
    let flows = end_in(transaction, "flow_run", owner, at, message)?;
    Ok(flows + end_in(transaction, "task_run", owner, at, message)?)
}

fn end_in(
    transaction: &Transaction<'_>,
    table: &str,
    owner: OwnerNo,
    at: Timestamp,
    message: &str,
) -> rusqlite::Result<usize> {
    // Later than the run's last state, as every state is.
    let time = "max(?2, state_at + 1)";
    let line = crashed_line(time, "?3");
    let rest = format!(",{}]\n", serde_json::Value::from(message));
    let unfinished = "process = ?1 AND end_time IS NULL";
    let long = format!(
        "INSERT INTO history (run, first_seq, states)
        SELECT id, next_seq, {line} FROM {table} WHERE {unfinished} AND next_seq >= {STATES_IN_ROW}"
    );
    transaction.execute(&long, params![owner.0, at.as_micros(), rest])?;
    let crash = format!(
        "INSERT INTO crash (run, is_flow)
        SELECT id, {} FROM {table} WHERE {unfinished} AND function IN (SELECT no FROM function WHERE on_crashed)
        ON CONFLICT (run) DO NOTHING",
        i32::from(table == "flow_run"),
    );
    transaction.execute(&crash, [owner.0])?;
    let update = format!(
        "UPDATE {table} SET
            states = iif(next_seq < {STATES_IN_ROW}, states || {line}, states), next_seq = next_seq + 1,
            state = ?4, state_at = {time}, message = ?5, end_time = {time}
        WHERE {unfinished}"
    );
    transaction.execute(&update, params![owner.0, at.as_micros(), rest, StateName::Crashed.as_str(), message])
}

/// What `pack` would write of a crash, in SQL: when it was, and the rest of the line.
pub(super) fn crashed_line(time: &str, rest: &str) -> String {
    format!("'[\"Crashed\",' || {time} || {rest}")
}
