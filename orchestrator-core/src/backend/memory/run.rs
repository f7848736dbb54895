//! What the memory backend knows of one run, and the read models made of it.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::mapref::entry::Entry;

use crate::backend::record::{
    CacheLook, FlowRun, FlowRunQuery, Pause, RunEvent, RunIds, RunInfo, TakeOver, TaskRun, TaskRunQuery, Times,
    Transitions,
};
use crate::backend::{BackendError, BackendErrorKind};
use crate::clock::Timestamp;
use crate::id::{FlowRunId, RunId};
use crate::state::{State, StateName, StateType};

/// What is known of a run.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Absent as long as only an amendment has arrived: such a run is not shown to anyone.
    info: Option<RunInfo>,
    transitions: Transitions,
    /// The sequence number of the transition that is to come next.
    next_seq: u32,
    run_count: u32,
    /// Most runs have none.
    amendment: Option<Box<Amendment>>,
}

/// What became known of a run apart from its submission and states.
#[derive(Debug, Default)]
pub(super) struct Amendment {
    pub(super) name: Option<Arc<str>>,
    pub(super) upstream: Option<RunIds>,
    pub(super) parameters: Option<Box<str>>,
    pub(super) pause: Option<Arc<Pause>>,
    /// Comes with the states.
    cache: Option<Arc<CacheLook>>,
}

/// Whether a run event told of a run for the first time.
pub(super) enum Arrival {
    New,
    Known,
}

impl Run {
    pub(super) fn take_up<K: Eq + Hash>(entry: Entry<'_, K, Self>, event: &RunEvent) -> Arrival {
        if event.transitions.is_empty() {
            return Arrival::Known;
        }
        match entry {
            Entry::Vacant(place) => {
                let run = Self {
                    info: Some(event.run.clone()),
                    transitions: event.transitions.clone(),
                    next_seq: end_seq(event),
                    run_count: event.run_count,
                    ..Self::default()
                };
                place.insert(run).value_mut().looked(event);
                Arrival::New
            }
            Entry::Occupied(mut place) => place.get_mut().go_on(event),
        }
    }

    fn go_on(&mut self, event: &RunEvent) -> Arrival {
        let arrival = if self.info.is_some() { Arrival::Known } else { Arrival::New };
        self.info.get_or_insert_with(|| event.run.clone());
        if self.next_seq < end_seq(event) {
            let stored = self.next_seq.saturating_sub(event.first_seq) as usize;
            self.transitions.extend(event.transitions.iter().skip(stored));
            self.next_seq = end_seq(event);
            self.run_count = event.run_count;
            self.looked(event);
        }
        arrival
    }

    fn looked(&mut self, event: &RunEvent) {
        if let Some(look) = &event.cache {
            self.amend().cache = Some(Arc::clone(look));
        }
    }

    /// Lets a run that has ended go on, unless somebody else was quicker.
    pub(super) fn take_over(&mut self, take_over: &TakeOver) -> bool {
        let ended = self.transitions.last().is_some_and(|last| last.name.kind().is_terminal());
        let (true, Some(info)) = (ended && self.next_seq == take_over.seq, &mut self.info) else { return false };
        info.process = take_over.process;
        self.transitions.push(take_over.running.clone());
        self.next_seq += 1;
        self.run_count += 1;
        true
    }

    pub(super) fn matches(&self, query: &FlowRunQuery, now: Timestamp) -> bool {
        let (Some(info), Some(first), Some(last)) = (&self.info, self.transitions.first(), self.transitions.last())
        else {
            return false;
        };
        query.flow_name().is_none_or(|name| info.function() == name)
            && query.wanted_state().is_none_or(|state| state.takes(last.name))
            && query.period().is_none_or(|period| now.since(first.at) <= period)
            && query.enclosing().is_none_or(|flow_run| info.flow_run == Some(flow_run))
            && !(query.is_active() && last.name.kind().is_terminal())
            && !(query.is_of_roots() && info.parent.is_some())
    }

    pub(super) fn matches_task(&self, query: &TaskRunQuery, now: Timestamp) -> bool {
        let (Some(info), Some(first), Some(last)) = (&self.info, self.transitions.first(), self.transitions.last())
        else {
            return false;
        };
        query.flow_run().is_none_or(|flow_run| info.flow_run == Some(flow_run))
            && query.wanted_name().is_none_or(|name| info.function() == name || self.name(info) == name)
            && query.wanted_state().is_none_or(|state| state.takes(last.name))
            && query.period().is_none_or(|period| now.since(first.at) <= period)
    }

    pub(super) fn shown_name(&self) -> Option<String> {
        self.transitions.first()?;
        self.info.as_ref().map(|info| self.name(info))
    }

    pub(super) fn state_name(&self) -> Option<StateName> {
        self.info.as_ref()?;
        self.transitions.last().map(|last| last.name)
    }

    pub(super) fn flow_run(&self) -> Option<FlowRunId> {
        self.info.as_ref()?.flow_run
    }

    pub(super) fn created(&self) -> Option<Timestamp> {
        self.transitions.first().map(|first| first.at)
    }

    pub(super) fn amend(&mut self) -> &mut Amendment {
        self.amendment.get_or_insert_default()
    }

    pub(super) fn states(&self) -> Vec<State> {
        self.transitions.iter().map(|transition| State::from(&transition)).collect()
    }

    fn name(&self, info: &RunInfo) -> String {
        let name = self.amendment.as_ref().and_then(|amendment| amendment.name.as_deref());
        name.map_or_else(|| info.name(), str::to_owned)
    }

    fn upstream(&self, info: &RunInfo) -> Vec<RunId> {
        let upstream = self.amendment.as_ref().and_then(|amendment| amendment.upstream.as_deref());
        upstream.unwrap_or(&info.upstream).to_vec()
    }

    fn parameters(&self) -> serde_json::Result<serde_json::Value> {
        let json = self.amendment.as_ref().and_then(|amendment| amendment.parameters.as_deref());
        json.map_or_else(|| Ok(serde_json::Value::Null), serde_json::from_str)
    }

    fn pause(&self) -> Option<Pause> {
        let paused = self.transitions.last().is_some_and(|last| last.name.kind() == StateType::Paused);
        let pause = self.amendment.as_ref().and_then(|amendment| amendment.pause.as_deref());
        pause.filter(|_| paused).cloned()
    }

    fn times(&self, created: Timestamp) -> Times {
        let started = self.transitions.iter().find(|transition| transition.name.kind() == StateType::Running);
        // When it entered the terminal states that it is in: a run that was resumed has not ended.
        let ended = self.transitions.iter().rev().take_while(|transition| transition.name.kind().is_terminal()).last();
        Times { created, started: started.map(|start| start.at), ended: ended.map(|end| end.at) }
    }

    pub(super) fn to_task_run(&self) -> Option<TaskRun> {
        let (info, first, last) = (self.info.as_ref()?, self.transitions.first()?, self.transitions.last()?);
        let (state, times) = (State::from(&last), self.times(first.at));
        let run = TaskRun::of(info, self.name(info), &self.upstream(info), state, self.run_count, times);
        let cache = self.amendment.as_ref().and_then(|amendment| amendment.cache.as_deref()).cloned();
        Some(TaskRun { cache, ..run })
    }

    pub(super) fn to_flow_run(&self, id: FlowRunId) -> Option<Result<FlowRun, BackendError>> {
        let (info, first, last) = (self.info.as_ref()?, self.transitions.first()?, self.transitions.last()?);
        let parameters = match self.parameters() {
            Ok(parameters) => parameters,
            Err(error) => {
                let doing = format!("read the parameters of flow run {id}");
                return Some(Err(BackendError::new(BackendErrorKind::Corrupt, doing).because(error)));
            }
        };
        let (state, times) = (State::from(&last), self.times(first.at));
        let run = FlowRun::of(info, self.name(info), &self.upstream(info), state, self.run_count, times, parameters);
        Some(Ok(FlowRun { pause: self.pause(), ..run }))
    }
}

fn end_seq(event: &RunEvent) -> u32 {
    event.first_seq.saturating_add(u32::try_from(event.transitions.len()).unwrap_or(u32::MAX))
}
