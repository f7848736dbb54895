//! How a run's look into the cache is written into its row: the key as bytes, the reason as a line of JSON such as
//! `["Expired",1763690000000002]`.

use chrono::{DateTime, Utc};
use rusqlite::types::{FromSql, FromSqlResult, ValueRef};
use serde_json::{Value, json};
use uuid::Uuid;

use super::packed::unreadable;
use crate::backend::record::CacheReason;
use crate::clock::Timestamp;
use crate::id::TaskRunId;

pub(super) struct Reason(pub(super) CacheReason);

impl Reason {
    pub(super) fn to_json(reason: &CacheReason) -> String {
        let mut packed = vec![Value::from(reason.name())];
        match reason {
            CacheReason::Found { run, created, expires } | CacheReason::Awaited { run, created, expires } => {
                let expires = expires.map(|expires| expires.timestamp_micros());
                packed.extend([id(*run), created.timestamp_micros().into(), json!(expires)]);
            }
            CacheReason::Staged { run } | CacheReason::Persisted { run } => packed.push(id(*run)),
            CacheReason::Expired { at } => packed.push(at.timestamp_micros().into()),
            CacheReason::Unkeyed { argument, why } => packed.extend([json!(argument), why.as_str().into()]),
            CacheReason::OtherType { found } => packed.push(json!(found)),
            CacheReason::OtherFormat { found } => packed.push(found.as_str().into()),
            CacheReason::Unreadable { why } => packed.push(why.as_str().into()),
            CacheReason::Absent | CacheReason::Refreshed | CacheReason::Declined => {}
        }
        Value::Array(packed).to_string()
    }

    fn read(name: &str, rest: &[Value]) -> Option<CacheReason> {
        Some(match (name, rest) {
            ("Found", [id, created, expires]) => {
                CacheReason::Found { run: run(id)?, created: time(created)?, expires: maybe_time(expires)? }
            }
            ("Awaited", [id, created, expires]) => {
                CacheReason::Awaited { run: run(id)?, created: time(created)?, expires: maybe_time(expires)? }
            }
            ("Staged", [id]) => CacheReason::Staged { run: run(id)? },
            ("Persisted", [id]) => CacheReason::Persisted { run: run(id)? },
            ("Absent", []) => CacheReason::Absent,
            ("Expired", [at]) => CacheReason::Expired { at: time(at)? },
            ("Refreshed", []) => CacheReason::Refreshed,
            ("Declined", []) => CacheReason::Declined,
            ("Unkeyed", [argument, why]) => CacheReason::Unkeyed { argument: maybe_text(argument)?, why: text(why)? },
            ("OtherType", [found]) => CacheReason::OtherType { found: maybe_text(found)? },
            ("OtherFormat", [found]) => CacheReason::OtherFormat { found: text(found)? },
            ("Unreadable", [why]) => CacheReason::Unreadable { why: text(why)? },
            _ => return None,
        })
    }
}

impl FromSql for Reason {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let packed: Vec<Value> = serde_json::from_str(value.as_str()?).map_err(unreadable)?;
        let reason = match &packed[..] {
            [Value::String(name), rest @ ..] => Self::read(name, rest),
            _ => None,
        };
        reason.map(Reason).ok_or_else(|| unreadable("what a run found in the cache is not one of the known reasons"))
    }
}

fn id(run: TaskRunId) -> Value {
    run.as_uuid().simple().to_string().into()
}

fn run(value: &Value) -> Option<TaskRunId> {
    Uuid::parse_str(value.as_str()?).ok().map(TaskRunId::from_uuid)
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_i64().map(|micros| Timestamp::from_micros(micros).to_datetime())
}

fn maybe_time(value: &Value) -> Option<Option<DateTime<Utc>>> {
    if value.is_null() { Some(None) } else { time(value).map(Some) }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn maybe_text(value: &Value) -> Option<Option<String>> {
    if value.is_null() { Some(None) } else { text(value).map(Some) }
}
