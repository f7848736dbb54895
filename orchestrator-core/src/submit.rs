//! From a call to a run: identity, place in the tree, upstream runs, and the moment to start.

use std::cell::RefCell;
use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::Arc;

use smallbox::smallbox;
use smallvec::SmallVec;
use tokio::runtime::Handle;

use crate::backend::record::{Event, FlowRun, RunIds, SharedList};
use crate::body::{ArgEncoder, ArgError, Attempt, BodyFailure, Codec, Erased, Function};
use crate::clock::Timestamp;
use crate::context::{Part, Place};
use crate::def::{Def, DefKind};
use crate::engine::{self, Call, OwnedCall, panics};
use crate::error::{BodyError, Cause, FailureKind, TaskError};
use crate::future::{MapFuture, TaskFuture};
use crate::future::{Upstream, cycle};
use crate::hook::{ResultHook, ResultHooks};
use crate::id::{FlowRunId, RunId, TaskRunId};
use crate::input::{Args, Passed, PassedToMap};
use crate::options::Overrides;
use crate::orchestrator::{Inner, Orchestrator};
use crate::persist::{self, Identified, KeptBefore};
use crate::recovery;
use crate::run::{Bound, Identity, Origin, Resumed, Run, Upstreams};
use crate::scope::Scope;
use crate::state::StateName;
use crate::testing::Fakes;
use crate::transaction;

/// A call by a body. Not inlined: there are many calls, and few lists of parameter types.
#[inline(never)]
pub(crate) fn submit_call<A: Args>(
    function: &'static Function<A>,
    overrides: &Overrides,
    args: impl Passed<A::Pending>,
) -> Arc<Run> {
    submit(function.def, overrides.clone(), Typed::pending(function, args.into_pending()), Manner::Call)
}

/// A call whose arguments are there.
pub(crate) fn with_args<A: Args>(function: &'static Function<A>, args: A) -> OwnedCall {
    smallbox!(Typed { function, args: Arguments::Ready(args) })
}

/// One run of a task for each element.
#[inline(never)]
pub(crate) fn map_call<A: Args, T: Send + Sync + 'static>(
    function: &'static Function<A>,
    overrides: &Overrides,
    args: impl PassedToMap<A::Mapped>,
) -> MapFuture<T> {
    let mut args = args.into_mapped();
    let mut ready = true;
    A::visit_mapped(&args, &mut |run| ready &= matches!(run.outcome(), Some(Ok(_))));
    if ready && let Ok(length) = mapped_length::<A>(function.def, &mut args) {
        return MapFuture::known(fan_out(function, overrides, &mut args, length, Manner::Call));
    }
    let expansion = Expansion::<A, T> {
        function,
        args: Some(args),
        overrides: overrides.clone(),
        place: Place::current(),
        output: PhantomData,
    };
    MapFuture::later(submit(function.def, Overrides::NONE, smallbox!(expansion), Manner::Expansion))
}

fn fan_out<A: Args, T>(
    function: &'static Function<A>,
    overrides: &Overrides,
    args: &mut A::Mapped,
    length: usize,
    manner: Manner,
) -> Vec<TaskFuture<T>> {
    let submit = |args| submit(function.def, overrides.clone(), Typed::pending(function, args), manner);
    (0..length).map(|_| TaskFuture::new(submit(A::next(args)))).collect()
}

/// How a run comes to be submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A body calls it.
    Call,
    /// A `map` does whose elements were not known at the call: at some time.
    Later,
    /// It is that `map`, which people do not see.
    Expansion,
}

/// The number of runs that a `map` makes, if its collections agree.
fn mapped_length<A: Args>(def: &'static Def, args: &mut A::Mapped) -> Result<usize, String> {
    agreed_length(def, &A::lengths(args))
}

fn agreed_length(def: &'static Def, lengths: &[Option<usize>]) -> Result<usize, String> {
    let name = |index: usize| match def.parameters.get(index) {
        Some(name) => format!("`{name}`"),
        None => format!("argument {}", index + 1),
    };
    let mut collections = lengths.iter().enumerate().filter_map(|(index, length)| Some((index, (*length)?)));
    let Some((first, length)) = collections.next() else {
        return Err(format!("cannot map '{}': every argument is unmapped, there is nothing to map over", def.name));
    };
    match collections.find(|(_, other)| *other != length) {
        Some((second, other)) => Err(format!(
            "cannot map '{}' over collections of different lengths: {} has {length} elements, {} has {other}",
            def.name,
            name(first),
            name(second),
        )),
        None => Ok(length),
    }
}

/// The call of a function with arguments `A`.
struct Typed<A: Args> {
    function: &'static Function<A>,
    args: Arguments<A>,
}

/// The arguments of one run, first waiting, then resolved.
enum Arguments<A: Args> {
    Pending(A::Pending),
    Ready(A),
    Spent,
}

impl<A: Args> Typed<A> {
    fn pending(function: &'static Function<A>, args: A::Pending) -> OwnedCall {
        smallbox!(Self { function, args: Arguments::Pending(args) })
    }

    fn args(&self) -> &A {
        match &self.args {
            Arguments::Ready(args) => args,
            Arguments::Pending(_) | Arguments::Spent => {
                unreachable!("asked between resolution and the last attempt only")
            }
        }
    }
}

impl<A: Args> Call for Typed<A> {
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        if let Arguments::Pending(args) = &self.args {
            A::visit(args, visit);
        }
    }

    fn resolve(&mut self) -> Result<(), TaskError> {
        self.args = match std::mem::replace(&mut self.args, Arguments::Spent) {
            Arguments::Pending(args) => Arguments::Ready(A::resolve(args)?),
            there @ (Arguments::Ready(_) | Arguments::Spent) => there,
        };
        Ok(())
    }

    fn attempt(&mut self, last: bool, fakes: &Fakes) -> Attempt {
        let args = match &mut self.args {
            Arguments::Ready(args) if !last => args.again(),
            there @ (Arguments::Ready(_) | Arguments::Pending(_) | Arguments::Spent) => {
                match std::mem::replace(there, Arguments::Spent) {
                    Arguments::Ready(args) => args,
                    Arguments::Pending(_) | Arguments::Spent => unreachable!("no attempt follows the last"),
                }
            }
        };
        match fakes.of::<A>(self.function.def) {
            None => (self.function.call)(args),
            Some(fake) => fake(args),
        }
    }

    fn run_name(&self) -> Option<String> {
        self.function.run_name.map(|name| name(self.args()))
    }

    fn cache_key(&self) -> Option<Option<String>> {
        self.function.cache_key.map(|key| key(self.args()))
    }

    fn encode(&self, mut encoder: ArgEncoder<'_>) -> Result<(), ArgError> {
        let Function { def, arguments, .. } = self.function;
        self.args().encode(arguments, def.parameters, &mut encoder);
        encoder.finish()
    }

    fn codec(&self) -> Option<&'static Codec> {
        self.function.result.codec()
    }

    fn result_hooks(&self) -> ResultHooks {
        let made = |hooks: Option<fn() -> Vec<ResultHook>>| hooks.map(|hooks| hooks()).unwrap_or_default();
        ResultHooks { on_commit: made(self.function.on_commit), on_rollback: made(self.function.on_rollback) }
    }

    fn gives(&self, value: &Erased) -> bool {
        self.function.result.has(value)
    }
}

/// The run behind a `map` whose elements were not known at the call: its result is the futures of the runs.
struct Expansion<A: Args, T> {
    function: &'static Function<A>,
    args: Option<A::Mapped>,
    overrides: Overrides,
    place: Place,
    output: PhantomData<fn() -> T>,
}

impl<A: Args, T: Send + Sync + 'static> Call for Expansion<A, T> {
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        if let Some(args) = &self.args {
            A::visit_mapped(args, visit);
        }
    }

    fn resolve(&mut self) -> Result<(), TaskError> {
        let mut failed = None;
        self.visit(&mut |run| {
            if let (None, Some(Err(error))) = (&failed, run.outcome()) {
                failed = Some(error.clone());
            }
        });
        failed.map_or(Ok(()), Err)
    }

    fn attempt(&mut self, _last: bool, _fakes: &Fakes) -> Attempt {
        let mut args = self.args.take().expect("an expansion is attempted once");
        let (overrides, mut place) = (self.overrides.clone(), std::mem::take(&mut self.place));
        let function = self.function;
        Attempt::from_future(async move {
            let length = mapped_length::<A>(function.def, &mut args)
                .map_err(|said| BodyFailure { error: BodyError::new(said), retryable: false })?;
            let children: Vec<TaskFuture<T>> =
                place.within(|| fan_out(function, &overrides, &mut args, length, Manner::Later));
            Ok(Arc::new(children) as Erased)
        })
    }

    fn run_name(&self) -> Option<String> {
        None
    }

    fn cache_key(&self) -> Option<Option<String>> {
        None
    }

    fn encode(&self, encoder: ArgEncoder<'_>) -> Result<(), ArgError> {
        encoder.finish()
    }

    fn codec(&self) -> Option<&'static Codec> {
        None
    }

    fn result_hooks(&self) -> ResultHooks {
        ResultHooks::default()
    }

    fn gives(&self, _value: &Erased) -> bool {
        false
    }
}

/// A call that waits for further runs, until it is resolved: a chain of waits must not live as long as its runs.
struct Awaiting {
    call: OwnedCall,
    completed: Vec<Upstream>,
    settled: Vec<Upstream>,
}

impl Awaiting {
    /// Moves what the options wait for into the call.
    fn take_from(mut overrides: Overrides, call: OwnedCall) -> (Overrides, OwnedCall) {
        match overrides.take_waits() {
            None => (overrides, call),
            Some((completed, settled)) => (overrides, smallbox!(Self { call, completed, settled })),
        }
    }
}

impl Call for Awaiting {
    fn visit(&self, visit: &mut dyn FnMut(&Arc<Run>)) {
        self.call.visit(visit);
        self.completed.iter().chain(&self.settled).for_each(|upstream| upstream.visit(visit));
    }

    fn resolve(&mut self) -> Result<(), TaskError> {
        self.settled.clear();
        let mut failed = None;
        for upstream in self.completed.drain(..) {
            upstream.visit(&mut |upstream| {
                if let (None, Some(Err(error))) = (&failed, upstream.outcome()) {
                    failed = Some(error.clone());
                }
            });
        }
        failed.map_or(Ok(()), Err)?;
        self.call.resolve()
    }

    fn attempt(&mut self, last: bool, fakes: &Fakes) -> Attempt {
        self.call.attempt(last, fakes)
    }

    fn run_name(&self) -> Option<String> {
        self.call.run_name()
    }

    fn cache_key(&self) -> Option<Option<String>> {
        self.call.cache_key()
    }

    fn encode(&self, encoder: ArgEncoder<'_>) -> Result<(), ArgError> {
        self.call.encode(encoder)
    }

    fn codec(&self) -> Option<&'static Codec> {
        self.call.codec()
    }

    fn result_hooks(&self) -> ResultHooks {
        self.call.result_hooks()
    }

    fn gives(&self, value: &Erased) -> bool {
        self.call.gives(value)
    }
}

/// Makes a run, and starts it if there is nothing to wait for.
pub(crate) fn submit(def: &'static Def, overrides: Overrides, call: OwnedCall, manner: Manner) -> Arc<Run> {
    let Place { part, transaction } = Place::current();
    let (orchestrator, parent, attempt) = match part {
        Part::Nothing => (None, None, 0),
        Part::Scope(orchestrator) => (Some(orchestrator), None, 0),
        Part::Run { run, attempt, .. } => (None, Some(run), attempt),
    };
    let root = parent.is_none().then(|| {
        let orchestrator = orchestrator.unwrap_or_else(|| Orchestrator::current().into_inner());
        orchestrator.root_scope(Handle::try_current().ok())
    });
    let (overrides, mut call) = Awaiting::take_from(overrides, call);
    let upstreams = upstreams(&*call);
    if let (Some(_), Some(root), None, Manner::Call, []) =
        (def.crash_budget, &root, &transaction, manner, &upstreams[..])
        && let Some(run) = root.orchestrator.recovery.adopt(def, &mut *call)
    {
        // Arguments have destructors of their own.
        panics::let_go(call);
        let (name, id) = (run.name(), run.id());
        panics::shield(|| {
            let flow = def.name;
            tracing::info!(target: "orchestrator", "this call of flow '{flow}' goes on with flow run '{name}', {id}");
        });
        return run;
    }
    let stale = parent.as_ref().is_some_and(|parent| parent.run_count() != attempt);
    // What an attempt has left behind has no place in the next one.
    let manner = if stale && manner == Manner::Call { Manner::Later } else { manner };
    let run = make(def, overrides, call, manner, Around { root, parent, transaction }, &upstreams);
    run.submitted();
    if run.scope().launcher.is_none() {
        refuse(&run, "there is no tokio runtime here: call it under #[tokio::main], or inside `block_on`".to_owned());
        return run;
    }
    if run.parent.as_ref().is_some_and(|parent| parent.run_count() != attempt) {
        run.disown();
        refuse(&run, format!("attempt {attempt} of the run that called it is over"));
        return run;
    }
    if !run.adopt() {
        run.disown();
        let said = match &run.parent {
            Some(parent) => format!("the run '{}' that called it has ended", parent.name()),
            None => run.scope().orchestrator.why_closed(),
        };
        refuse(&run, said);
        return run;
    }
    if let Some(transaction) = run.transaction() {
        transaction.enter(&run);
    }
    if let Some(said) = run.options().wrong() {
        refuse(&run, said);
        return run;
    }
    if let Some(parent) = run.above()
        && let Some(said) = upstreams.iter().find_map(|upstream| cycle::closed_by_child(parent, upstream))
    {
        refuse(&run, said);
        return run;
    }
    wait_for_all(&run, &upstreams);
    if let Some(by) = run.parent.as_ref().and_then(|parent| parent.stopped_by()) {
        run.cancel_tree(by);
    }
    if upstreams.is_empty() {
        start(&run);
    } else if run.upstream_ended() {
        launch(&run);
    } else {
        run.flush_later();
        if let Some(launcher) = &run.scope().launcher {
            launcher.push_on();
        }
    }
    run
}

fn wait_for_all(run: &Arc<Run>, upstreams: &[Arc<Run>]) {
    for upstream in upstreams {
        run.wait_for(upstream);
    }
}

/// What a call is made in.
struct Around {
    /// Where there is no parent.
    root: Option<Arc<Scope>>,
    parent: Option<Arc<Run>>,
    transaction: Option<Arc<transaction::Shared>>,
}

fn make(
    def: &'static Def,
    overrides: Overrides,
    call: OwnedCall,
    manner: Manner,
    around: Around,
    upstreams: &[Arc<Run>],
) -> Arc<Run> {
    let Around { root, parent, transaction } = around;
    let outer = parent.as_ref().map(|parent| parent.scope()).or(root.as_ref()).expect("there is one of the two");
    let orchestrator = &outer.orchestrator;
    let created = orchestrator.clock.now();
    let options = overrides.get();
    let visible = manner != Manner::Expansion;
    let index = if visible { outer.next_index(def) } else { 0 };
    let tags = tags(def, options.and_then(|options| options.tags.as_deref()), outer);
    let (id, given_name, scope) = match def.kind {
        DefKind::Task => (RunId::Task(TaskRunId::new(created)), None, None),
        DefKind::Flow if !visible => (RunId::Flow(FlowRunId::new(created)), None, None),
        DefKind::Flow => {
            let id = FlowRunId::new(created);
            // The id is new, and so nothing is kept under it yet; inside of a flow run it is that one's that count.
            let kept = if outer.flow.is_some() { Arc::clone(&outer.kept) } else { KeptBefore::of(id) };
            let scope = Scope::new(
                Arc::clone(orchestrator),
                outer.launcher.clone(),
                Some(id),
                tags.clone(),
                def.max_concurrent_tasks,
                (options.and_then(|options| options.persist).or(def.persist).unwrap_or(outer.persist), kept),
                Arc::default(),
            );
            (RunId::Flow(id), Some(crate::names::generate().into()), Some(scope))
        }
    };
    let given_name = options.and_then(|options| options.run_name.clone()).or(given_name);
    let identity = Identity { id, def, index, tags, upstream: ids(upstreams) };
    let within = (&**outer, parent.as_ref());
    let identified = if visible { Identified::of(def, options, &*call, within, manner == Manner::Call) } else { None };
    let is_parents = parent.as_ref().is_some_and(|parent| parent.own_scope().is_some());
    let scope = scope.or_else(|| (!is_parents).then(|| Arc::clone(outer)));
    let bound = Bound::of(given_name, transaction, identified);
    let origin = Origin { bound, overrides, scope, parent, visible, created, resumed: None };
    let upstreams = match upstreams {
        [] => Upstreams::None,
        runs => Upstreams::Runs { with_expansion: runs.iter().any(|run| !run.visible) },
    };
    Run::new(identity, origin, upstreams, call)
}

/// Lets a flow run go on that was taken over.
pub(crate) fn go_on(
    orchestrator: &Arc<Inner>,
    handle: Handle,
    (def, call): (&'static Def, OwnedCall),
    record: &FlowRun,
    resumed: Resumed,
) -> Arc<Run> {
    let created = Timestamp::from_micros(record.created.timestamp_micros());
    let tags: SharedList<Box<str>> = record.tags.iter().map(|tag| tag.as_str().into()).collect();
    let outer = orchestrator.root_scope(Some(handle));
    let scope = Scope::new(
        Arc::clone(orchestrator),
        outer.launcher.clone(),
        Some(record.id),
        tags.clone(),
        def.max_concurrent_tasks,
        (def.persist.unwrap_or(outer.persist), KeptBefore::of(record.id)),
        Arc::default(),
    );
    // What the store remembers of its results may be older than what another process has added.
    panics::shield(|| orchestrator.backend.let_go_of_results(record.id));
    scope.kept.may_be_there();
    let _ = scope.parameters.set(record.parameters.clone());
    if let Some(started) = record.start_time {
        let _ = scope.first_started.set(Timestamp::from_micros(started.timestamp_micros()));
    }
    let identity = Identity { id: record.id.into(), def, index: 0, tags, upstream: record.upstream.clone().into() };
    let origin = Origin {
        bound: Bound::of(Some(record.name.as_str().into()), None, None),
        overrides: Overrides::NONE,
        scope: Some(scope),
        parent: None,
        visible: true,
        created,
        resumed: Some(Box::new(resumed)),
    };
    let run = Run::new(identity, origin, Upstreams::None, call);
    if run.adopt() {
        run.upstream_ended();
        launch(&run);
    } else {
        // It may be resumed another time.
        run.disown();
        recovery::uncount(orchestrator, record.id);
        let said = format!("{}; it can be resumed another time", orchestrator.why_closed());
        refuse_as((StateName::Crashed, FailureKind::Crashed), &run, said);
    }
    run
}

/// The tags of a run: its own and those of the flow, sorted.
fn tags(def: &'static Def, changed: Option<&[String]>, scope: &Scope) -> SharedList<Box<str>> {
    if changed.map_or(def.tags.is_empty(), <[_]>::is_empty) {
        return scope.tags.clone();
    }
    let mut tags: Vec<Box<str>> = scope.tags.to_vec();
    match changed {
        Some(changed) => tags.extend(changed.iter().map(|tag| tag.as_str().into())),
        None => tags.extend(def.tags.iter().map(|tag| (*tag).into())),
    }
    tags.sort_unstable();
    tags.dedup();
    tags.into()
}

/// Every run that a call takes a result of or waits for, each once, in argument order.
fn upstreams(call: &dyn Call) -> SmallVec<[Arc<Run>; 4]> {
    let mut all: SmallVec<[Arc<Run>; 4]> = SmallVec::new();
    call.visit(&mut |run: &Arc<Run>| all.push(Arc::clone(run)));
    if all.len() > 1 {
        let mut seen = HashSet::with_capacity(all.len());
        all.retain(|run| seen.insert(Arc::as_ptr(run)));
    }
    all
}

fn ids(upstreams: &[Arc<Run>]) -> RunIds {
    match upstreams {
        [] => RunIds::default(),
        [run] if run.visible => RunIds::one(run.id()),
        several => {
            let ids: SmallVec<[RunId; 4]> = several.iter().filter(|run| run.visible).map(|run| run.id()).collect();
            ids[..].into()
        }
    }
}

/// Ends a run without starting it, unless somebody has started it.
fn refuse(run: &Arc<Run>, said: String) {
    refuse_as((StateName::Failed, FailureKind::Refused), run, said);
}

fn refuse_as((state, kind): (StateName, FailureKind), run: &Arc<Run>, said: String) {
    // Whoever cancelled the run meanwhile has started it, and it ends by itself.
    if !run.takes_back() {
        return;
    }
    // Arguments have destructors of their own.
    panics::let_go(run.take_call());
    let error = run.error(kind, Cause::Said(said.clone()));
    run.conclude(state, Some(said.into()), Some(&error));
    Arc::clone(run).end(Err(error)).wake();
}

crate::sync::thread_local! {
    /// Runs to launch, while this thread launches one: a chain of runs that ends at once must not become a chain of
    /// calls.
    static LAUNCHING: RefCell<Option<Vec<Arc<Run>>>> = const { RefCell::new(None) };
}

/// Starts a run whose upstream runs have all ended, or that is to be cancelled. Does nothing if it was started.
pub(crate) fn launch(run: &Arc<Run>) {
    if run.is_launched() {
        return;
    }
    let queued = LAUNCHING.with_borrow_mut(|queue| match queue {
        Some(queue) => {
            queue.push(Arc::clone(run));
            true
        }
        None => {
            *queue = Some(Vec::new());
            false
        }
    });
    if queued {
        return;
    }
    launch_now(run);
    while let Some(run) = LAUNCHING.with_borrow_mut(|queue| match queue.as_mut().and_then(Vec::pop) {
        Some(run) => Some(run),
        None => {
            *queue = None;
            None
        }
    }) {
        launch_now(&run);
    }
}

fn start(run: &Arc<Run>) {
    persist::launched(run);
    engine::start(run);
}

fn launch_now(run: &Arc<Run>) {
    if !run.launch() {
        return;
    }
    if run.is_cancelled() || !run.has_further_upstreams() {
        start(run);
        return;
    }
    let call = run.take_call();
    let upstreams = upstreams(&*call);
    run.put_call(call);
    if run.visible {
        run.scope().orchestrator.journal.push(Event::Upstream { run: run.id(), upstream: ids(&upstreams) });
    }
    run.rearm();
    run.unlaunch();
    wait_for_all(run, &upstreams);
    if run.upstream_ended() || run.is_cancelled() {
        launch(run);
    }
}
