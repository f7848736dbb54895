//! What is told of a run: to observers and the log at once, to the journal when it is to be stored.

use std::sync::Arc;
use std::time::Duration;

use super::{Cell, Identity, LISTED, RENAMED, Run, lock};
use crate::backend::Told;
use crate::backend::record::{CacheLook, Event, FlowRun, RunEvent, TaskRun, Times};
use crate::clock::Timestamp;
use crate::engine::machine::may_follow;
use crate::engine::panics;
use crate::error::TaskError;
use crate::journal::{Awaited, Enqueued, Journal};
use crate::observe::{Observed, Observer};
use crate::orchestrator::Inner;
use crate::state::{StateName, Transition};

impl Run {
    /// Tells observers that the run was submitted.
    pub(crate) fn submitted(&self) {
        if !self.visible || !self.scope().orchestrator.observers.watch(self.is_flow(), StateName::Pending) {
            return;
        }
        let (name, transition) = (self.name(), lock(&self.cell).track.current());
        let info = self.info();
        let event = Observed {
            run: &info,
            name: &name,
            named: self.is_named(),
            transition: &transition,
            run_count: 0,
            duration: None,
            error: None,
        };
        self.observe_by(&event, |observer| observer.on_submit(&event));
    }

    /// Whether somebody is shown that the run enters the state.
    pub(crate) fn is_watched(&self, name: StateName) -> bool {
        let is_flow = self.is_flow();
        let is_seen = || self.scope().orchestrator.observers.watch(is_flow, name);
        self.visible && (is_seen() || crate::narrate::is_told(is_flow, name))
    }

    /// Tells observers and the log.
    pub(super) fn show(&self, transition: &Transition, began: Option<Timestamp>, error: Option<&TaskError>) {
        let name = self.name();
        let terminal = transition.name.kind().is_terminal();
        let info = self.info();
        let event = Observed {
            run: &info,
            name: &name,
            named: self.is_named(),
            transition,
            run_count: self.run_count(),
            duration: began.filter(|_| terminal).map(|began| transition.at.since(began)),
            error,
        };
        panics::shield(|| crate::narrate::tell(self, &event));
        self.observe_by(&event, |observer| observer.on_transition(&event));
    }

    fn observe_by(&self, event: &Observed<'_>, show: impl Fn(&dyn Observer)) {
        for observer in self.scope().orchestrator.observers.iter() {
            if panics::shield(|| show(observer)).is_none() {
                panics::shield(|| {
                    tracing::error!(target: "orchestrator", "an observer panicked over '{}'; the run goes on", event.name);
                });
            }
        }
    }

    /// Whether the program chose the run's name.
    fn is_named(&self) -> bool {
        self.flag(RENAMED) || self.overrides.get().is_some_and(|options| options.run_name.is_some())
    }

    /// Gives the journal what happened since it was last given something.
    pub(crate) fn flush(&self) {
        if !self.visible {
            return;
        }
        let journal = &self.scope().orchestrator.journal;
        let enqueued = {
            let mut cell = lock(&self.cell);
            if !cell.track.has_staged() {
                return;
            }
            // Under the lock: whoever finds that the journal knows the run finds it there.
            self.hand_over(&mut cell, journal)
        };
        enqueued.see_to_it(journal);
    }

    /// Gives the journal what happened since it was last given something.
    pub(super) fn hand_over(&self, cell: &mut Cell, journal: &Journal) -> Enqueued {
        if let Some(recent) = journal.recent_runs()
            && !self.may_be_known()
            && recent.put(&self.told(cell))
        {
            cell.track.told_briefly();
            return Enqueued::NOTHING;
        }
        journal.enqueue(self.take_staged(cell, None))
    }

    /// Whether the journal may have been given something of the run beside its states, which is to come after the first of these.
    fn may_be_known(&self) -> bool {
        self.flag(RENAMED) || self.awaits_expansion
    }

    /// What its event would tell of a run of which the journal was given nothing.
    fn told<'r>(&'r self, cell: &'r Cell) -> Told<'r> {
        let Identity { id, def, index, ref tags, ref upstream } = self.identity;
        Told {
            id,
            def,
            given_name: self.bound.as_ref().and_then(|bound| bound.given_name.as_ref()),
            index,
            parent: self.parent.as_ref().map(|parent| parent.id()),
            flow_run: self.flow_run(),
            tags,
            upstream,
            process: self.scope().orchestrator.process,
            states: cell.track.brief(),
            run_count: self.run_count(),
            cache: cell.rare.as_ref().and_then(|rare| rare.looked.as_ref()),
        }
    }

    /// Lets the journal learn what happened so far: a run of which it was given nothing is looked at when there is
    /// something to be stored, or somebody looks. By then it may have ended, and one event tells all.
    pub(crate) fn flush_later(self: &Arc<Self>) {
        // A store in the process is not looked at but by questions, which go through the active runs first.
        if !self.visible || self.scope().orchestrator.journal.is_immediate() {
            return;
        }
        if !lock(&self.cell).track.is_unknown() {
            self.flush();
        } else if !self.raise(LISTED) {
            self.scope().orchestrator.journal.push_untold(self);
        }
    }

    /// What happened so far, if the journal was not given anything: what comes later is the driver's to give.
    pub(crate) fn take_first_event(&self) -> Option<Event> {
        let mut cell = lock(&self.cell);
        cell.track.is_unknown().then(|| self.take_staged(&mut cell, None))
    }

    pub(super) fn take_staged(&self, cell: &mut Cell, further: Option<Transition>) -> Event {
        let (first_seq, transitions) = cell.track.take_staged(further);
        let cache = cell.looked();
        let run_count = self.run_count();
        Event::Run(RunEvent { run: self.info(), first_seq, transitions, run_count, cache })
    }

    /// Gives the journal the result of the run, and the event that says that it completed, while the run itself does not
    /// say so before that is [`reveal`](Self::reveal)ed.
    pub(crate) fn send_completed(&self, result: Event) -> (Awaited, Transition) {
        let Inner { clock, journal, .. } = &*self.scope().orchestrator;
        let at = clock.now();
        let mut cell = lock(&self.cell);
        let at = at.max(cell.track.since().after(Duration::from_micros(1)));
        let transition = Transition::new(StateName::Completed, at);
        let completed = self.take_staged(&mut cell, Some(transition.clone()));
        // Under the lock: whoever finds that the journal knows the run finds it there.
        let enqueued = journal.enqueue_awaited([result, completed]);
        drop(cell);
        (enqueued.see_to_it(journal), transition)
    }

    /// Enters a state that the journal knows already.
    pub(crate) fn reveal(&self, transition: Transition) {
        let mut cell = lock(&self.cell);
        debug_assert!(may_follow(cell.track.name(), transition.name), "only its driver writes the states of a run");
        cell.track.reveal(transition.clone());
        let began = cell.track.started();
        drop(cell);
        if self.is_watched(transition.name) {
            self.show(&transition, began, None);
        }
    }

    /// The run as the history would show it.
    pub(crate) fn to_task_run(&self) -> TaskRun {
        let (state, times) = self.state_and_times();
        let name = self.name().to_string();
        let info = self.info();
        let run = TaskRun::of(&info, name, &info.upstream, state, self.run_count(), times);
        let looked = lock(&self.cell).looked();
        TaskRun { cache: looked.map(|look| CacheLook::clone(&look)), ..run }
    }

    /// The run as the history would show it.
    pub(crate) fn to_flow_run(&self) -> FlowRun {
        let (state, times) = self.state_and_times();
        let parameters = self.scope().parameters.get().cloned().unwrap_or_default();
        let times = Times { started: self.scope().first_started.get().copied().or(times.started), ..times };
        let name = self.name().to_string();
        let info = self.info();
        FlowRun::of(&info, name, &info.upstream, state, self.run_count(), times, parameters)
    }
}
