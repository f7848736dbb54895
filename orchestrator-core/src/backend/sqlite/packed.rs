//! How values without a column type of their own are written into one column.
//!
//! States are lines of JSON, such as `["Failed",1763690000000002,"no route"]`, AwaitingRetry with the beginning of the next
//! attempt at the end: a history can be read in any SQLite shell, and grows by appending. References to runs are bytes.

use std::fmt::Write as _;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::backend::record::Pause;
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::state::{State, StateName, Transition};

/// The length of a reference to a run: a letter for its kind, and its id.
const REFERENCE: usize = 17;

/// Writes states in place of what `text` was.
pub(super) fn pack(transitions: impl IntoIterator<Item = Transition>, text: &mut String) {
    text.clear();
    for Transition { name, at, message, scheduled } in transitions {
        text.push_str("[\"");
        text.push_str(name.as_str());
        // Writing to a string cannot fail.
        let _ = write!(text, "\",{}", at.as_micros());
        match message {
            Some(message) => {
                let _ = write!(text, ",{}", serde_json::Value::from(&*message));
            }
            None if scheduled.is_some() => text.push_str(",null"),
            None => {}
        }
        if let Some(scheduled) = scheduled {
            let _ = write!(text, ",{}", scheduled.as_micros());
        }
        text.push_str("]\n");
    }
}

/// States that were written by [`pack`].
pub(super) struct States(pub(super) Vec<State>);

impl FromSql for States {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let lines = serde_json::Deserializer::from_str(value.as_str()?).into_iter();
        let states = lines.map(|line| line.map_err(unreadable).and_then(Packed::unpack));
        states.collect::<FromSqlResult<_>>().map(States)
    }
}

/// The last of such states, and the one before it; `None` what cannot be read.
#[derive(Default)]
pub(super) struct LastStates {
    pub(super) last: Option<State>,
    pub(super) before: Option<State>,
}

impl FromSql for LastStates {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let mut lines = value.as_str().unwrap_or_default().lines();
        let mut next = || {
            let packed: Packed = serde_json::from_str(lines.next_back()?).ok()?;
            packed.unpack().ok()
        };
        Ok(Self { last: next(), before: next() })
    }
}

#[derive(Deserialize)]
struct Packed(String, i64, #[serde(default)] Option<String>, #[serde(default)] Option<i64>);

impl Packed {
    fn unpack(self) -> FromSqlResult<State> {
        let Self(name, at, message, scheduled) = self;
        let (name, at) = (known(&name)?, Timestamp::from_micros(at));
        let (message, scheduled) = (message.map(Into::into), scheduled.map(Timestamp::from_micros));
        Ok(State::from(&Transition { name, at, message, scheduled }))
    }
}

/// The name of a state.
pub(super) struct Name(pub(super) StateName);

impl FromSql for Name {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        known(value.as_str()?).map(Name)
    }
}

/// A reference to a run.
pub(super) struct Reference(pub(super) RunId);

impl Reference {
    pub(super) fn to_bytes(&self) -> [u8; REFERENCE] {
        let mut bytes = [0; REFERENCE];
        bytes[0] = match self.0 {
            RunId::Task(_) => b't',
            RunId::Flow(_) => b'f',
        };
        bytes[1..].copy_from_slice(self.0.as_uuid().as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> FromSqlResult<Self> {
        let uuid = |id| Uuid::from_slice(id).map_err(unreadable);
        match bytes {
            [b't', id @ ..] => Ok(Self(RunId::Task(TaskRunId::from_uuid(uuid(id)?)))),
            [b'f', id @ ..] => Ok(Self(RunId::Flow(FlowRunId::from_uuid(uuid(id)?)))),
            _ => Err(unreadable("a reference to a run begins with t or f")),
        }
    }
}

impl FromSql for Reference {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Self::from_bytes(value.as_blob()?)
    }
}

/// The references to several runs, one after the other.
pub(super) struct References(pub(super) Vec<RunId>);

impl References {
    pub(super) fn to_bytes(runs: &[RunId]) -> Vec<u8> {
        runs.iter().flat_map(|run| Reference(*run).to_bytes()).collect()
    }
}

impl FromSql for References {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let runs = value.as_blob_or_null()?.unwrap_or_default().chunks(REFERENCE);
        runs.map(|bytes| Reference::from_bytes(bytes).map(|run| run.0)).collect::<FromSqlResult<_>>().map(Self)
    }
}

/// The tags of a run.
pub(super) struct Tags(pub(super) Vec<String>);

impl Tags {
    pub(super) fn to_json(tags: &[Box<str>]) -> Option<String> {
        (!tags.is_empty()).then(|| tags.iter().map(|tag| &**tag).collect::<serde_json::Value>().to_string())
    }
}

impl FromSql for Tags {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let json = value.as_str_or_null()?;
        json.map_or_else(|| Ok(Vec::new()), serde_json::from_str).map(Tags).map_err(unreadable)
    }
}

/// A JSON document; SQL's NULL is JSON's.
pub(super) struct Json(pub(super) serde_json::Value);

impl FromSql for Json {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let json = value.as_str_or_null()?;
        json.map_or_else(|| Ok(serde_json::Value::Null), serde_json::from_str).map(Json).map_err(unreadable)
    }
}

/// What a paused flow run waits for.
pub(super) struct Paused(pub(super) Pause);

#[derive(Serialize, Deserialize)]
struct PackedPause {
    since: i64,
    until: Option<i64>,
    message: Option<String>,
    input_schema: Option<serde_json::Value>,
}

impl Paused {
    pub(super) fn to_json(pause: &Pause) -> String {
        let Pause { since, until, message, input_schema } = pause.clone();
        let (since, until) = (since.timestamp_micros(), until.map(|until| until.timestamp_micros()));
        let packed = PackedPause { since, until, message, input_schema };
        serde_json::to_string(&packed).expect("numbers, texts and JSON can be written as JSON")
    }
}

impl FromSql for Paused {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let PackedPause { since, until, message, input_schema } =
            serde_json::from_str(value.as_str()?).map_err(unreadable)?;
        let time = |micros| Timestamp::from_micros(micros).to_datetime();
        Ok(Self(Pause { since: time(since), until: until.map(time), message, input_schema }))
    }
}

fn known(name: &str) -> FromSqlResult<StateName> {
    StateName::parse(name).ok_or_else(|| unreadable(format!("there is no state '{name}'")))
}

pub(super) fn unreadable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> FromSqlError {
    FromSqlError::Other(why.into())
}
