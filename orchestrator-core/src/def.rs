//! What an attribute says about a function: one static per task or flow, written by the macros.

use std::time::Duration;

use crate::backend::record::OnCrash;
use crate::hook::Hooks;

/// A task or flow as declared: everything here is known at compile time.
///
/// What is said of few functions stands in [`Rare`], which those of which nothing of it is said share: a program has one of
/// these for each task, and 24 bytes for each reference in it besides. It is read as if it stood here.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the fields are the options of the attributes, documented there")]
pub struct Def {
    pub kind: DefKind,
    pub name: &'static str,
    pub key: &'static str,
    pub description: &'static str,
    pub tags: &'static [&'static str],
    pub parameters: &'static [&'static str],
    pub fingerprint: u128,
    pub retries: Option<u32>,
    pub is_async: bool,
    pub rare: &'static Rare,
}

impl std::ops::Deref for Def {
    type Target = Rare;

    fn deref(&self) -> &'static Rare {
        self.rare
    }
}

/// What is said of few tasks and flows.
///
/// An option that is `None` takes the orchestrator's default.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the fields are the options of the attributes, documented there")]
pub struct Rare {
    pub version: Option<&'static str>,
    pub retry_delay: Option<RetryDelay>,
    pub retry_jitter: Option<f64>,
    pub timeout: Option<Duration>,
    pub cache_ttl: Option<Duration>,
    pub cache_policy: Option<CachePolicy>,
    pub has_cache_key: bool,
    pub refresh_cache: Option<bool>,
    pub persist: Option<bool>,
    pub concurrency: &'static [Want],
    pub max_concurrent_tasks: Option<usize>,
    pub hooks: Hooks,
    /// How often a flow run may go on by itself after a crash; `None` if it is not to.
    pub crash_budget: Option<u32>,
}

impl Rare {
    /// Nothing.
    pub const NONE: Self = Self {
        version: None,
        retry_delay: None,
        retry_jitter: None,
        timeout: None,
        cache_ttl: None,
        cache_policy: None,
        has_cache_key: false,
        refresh_cache: None,
        persist: None,
        concurrency: &[],
        max_concurrent_tasks: None,
        hooks: Hooks::NONE,
        crash_budget: None,
    };

    /// What is to be done if a run crashes with its process.
    pub(crate) const fn on_crash(&self) -> OnCrash {
        OnCrash { hooks: !self.hooks.on_crashed.is_empty(), budget: self.crash_budget }
    }

    /// Whether the attribute itself asks for caching.
    pub(crate) const fn declares_cache(&self) -> bool {
        self.cache_ttl.is_some() || self.cache_policy.is_some() || self.has_cache_key
    }
}

impl Def {
    /// A task with no option set.
    #[must_use]
    pub const fn task(name: &'static str, key: &'static str) -> Self {
        Self::new(DefKind::Task, name, key)
    }

    /// A flow with no option set.
    #[must_use]
    pub const fn flow(name: &'static str, key: &'static str) -> Self {
        Self::new(DefKind::Flow, name, key)
    }

    const fn new(kind: DefKind, name: &'static str, key: &'static str) -> Self {
        Self {
            kind,
            name,
            key,
            description: "",
            tags: &[],
            parameters: &[],
            fingerprint: 0,
            retries: None,
            is_async: true,
            rare: &Rare::NONE,
        }
    }
}

/// Whether a function is a task or a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefKind {
    /// `#[task]`.
    Task,
    /// `#[flow]`.
    Flow,
}

/// How long to wait before each retry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RetryDelay {
    /// The same time before each.
    Fixed(Duration),
    /// One time for each; the last one repeats.
    List(&'static [Duration]),
    /// `base`, `2 * base`, `4 * base` and so on, never more than `max`.
    Exponential {
        /// The first delay.
        base: Duration,
        /// The longest delay.
        max: Duration,
    },
}

/// What a cache key is made of, besides the task's own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// The arguments.
    pub inputs: bool,
    /// The fingerprint of the function's source tokens.
    pub task_source: bool,
    /// The flow run's id: hits only within one flow run.
    pub run_id: bool,
    /// The parameters of the enclosing flow run.
    pub flow_parameters: bool,
    /// Arguments that are left out of the inputs.
    pub exclude: &'static [&'static str],
}

impl CachePolicy {
    /// Never cached.
    pub const NONE: Self =
        Self { inputs: false, task_source: false, run_id: false, flow_parameters: false, exclude: &[] };

    /// The inputs and the source: what `cache_ttl` alone means.
    pub const DEFAULT: Self = Self { inputs: true, task_source: true, ..Self::NONE };

    pub(crate) const fn is_none(&self) -> bool {
        !(self.inputs || self.task_source || self.run_id || self.flow_parameters)
    }
}

/// Slots of one limit that a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// The limit's name.
    pub limit: &'static str,
    /// How many slots.
    pub slots: u32,
    /// Declares the limit with that many slots if there is none of that name yet.
    pub declare: Option<u32>,
}
