//! Options at the call site, and the defaults beneath them.
//!
//! An option is looked up in three places: the call (`fetch::configure()`), the attribute, the orchestrator.

mod submit;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::def::{CachePolicy, Def, RetryDelay};
use crate::future::{Awaitable, Upstream};

/// Options of one call; without any it is a null pointer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides(Option<Arc<CallOptions>>);

/// What `fetch::configure()` changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallOptions {
    pub(crate) retries: Option<u32>,
    pub(crate) retry_delay: Option<Delay>,
    pub(crate) retry_jitter: Option<f64>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) cache_ttl: Option<Duration>,
    pub(crate) cache_policy: Option<CachePolicy>,
    pub(crate) refresh_cache: Option<bool>,
    pub(crate) persist: Option<bool>,
    pub(crate) concurrency: Option<Vec<(String, u32)>>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) run_name: Option<Arc<str>>,
    pub(crate) wait_for: Vec<Upstream>,
    pub(crate) wait_for_settled: Vec<Upstream>,
}

impl Overrides {
    /// No option changed.
    pub(crate) const NONE: Self = Self(None);

    /// The same, which a call that changes no option borrows: nothing is made and dropped there.
    pub(crate) const PLAIN: &'static Self = &Self::NONE;

    pub(crate) fn get(&self) -> Option<&CallOptions> {
        self.0.as_deref()
    }

    /// Takes out what a call waits for: to have completed, and to have ended.
    pub(crate) fn take_waits(&mut self) -> Option<(Vec<Upstream>, Vec<Upstream>)> {
        let options = self.get()?;
        if options.wait_for.is_empty() && options.wait_for_settled.is_empty() {
            return None;
        }
        let options = self.edit();
        Some((std::mem::take(&mut options.wait_for), std::mem::take(&mut options.wait_for_settled)))
    }

    fn edit(&mut self) -> &mut CallOptions {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

/// How long to wait before each retry, as told at run time.
#[derive(Debug, Clone, PartialEq)]
pub enum Delay {
    /// The same time before each retry.
    Fixed(Duration),
    /// One time for each retry; the last one repeats.
    List(Vec<Duration>),
    /// `base`, doubled for each further retry, never more than `max`.
    Exponential {
        /// The first delay.
        base: Duration,
        /// The longest delay.
        max: Duration,
    },
}

impl Delay {
    /// The delay before the retry with that number, counted from 0.
    #[must_use]
    pub fn before(&self, retry: u32) -> Duration {
        match self {
            Self::Fixed(delay) => *delay,
            Self::List(delays) => nth(delays, retry),
            Self::Exponential { base, max } => doubled(*base, *max, retry),
        }
    }
}

impl RetryDelay {
    /// The delay before the retry with that number, counted from 0.
    #[must_use]
    pub fn before(&self, retry: u32) -> Duration {
        match self {
            Self::Fixed(delay) => *delay,
            Self::List(delays) => nth(delays, retry),
            Self::Exponential { base, max } => doubled(*base, *max, retry),
        }
    }
}

fn nth(delays: &[Duration], retry: u32) -> Duration {
    let index = usize::try_from(retry).unwrap_or(usize::MAX).min(delays.len().saturating_sub(1));
    delays.get(index).copied().unwrap_or_default()
}

fn doubled(base: Duration, max: Duration, retry: u32) -> Duration {
    let factor = 1_u32.checked_shl(retry).unwrap_or(u32::MAX);
    base.checked_mul(factor).unwrap_or(Duration::MAX).min(max)
}

impl From<Duration> for Delay {
    fn from(delay: Duration) -> Self {
        Self::Fixed(delay)
    }
}

impl From<Vec<Duration>> for Delay {
    fn from(delays: Vec<Duration>) -> Self {
        Self::List(delays)
    }
}

impl<const N: usize> From<[Duration; N]> for Delay {
    fn from(delays: [Duration; N]) -> Self {
        Self::List(delays.into())
    }
}

/// What runs take where neither the call nor the attribute says anything.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Defaults {
    pub(crate) retries: u32,
    pub(crate) retry_delay: Delay,
    pub(crate) retry_jitter: f64,
    pub(crate) timeout: Option<Duration>,
    pub(crate) refresh_cache: bool,
    /// Whether flows that say nothing keep the results of their tasks.
    pub(crate) persist: bool,
    pub(crate) cancel_grace: Duration,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            retries: 0,
            retry_delay: Delay::Fixed(Duration::ZERO),
            retry_jitter: 0.0,
            timeout: None,
            refresh_cache: false,
            persist: false,
            cancel_grace: Duration::from_secs(30),
        }
    }
}

/// The type beside a task or flow that has its name.
pub trait Configurable {
    /// What the attribute says.
    const DEF: &'static Def;
}

/// What is [`Configured`] is a task.
#[derive(Debug)]
pub enum OfTask {}

/// What is [`Configured`] is a flow.
#[derive(Debug)]
pub enum OfFlow {}

/// A task or flow with options changed at the call site; made by `fetch::configure()`.
///
/// Each method replaces what the attribute says. `submit` and `submit_map` can be called any number of times.
#[must_use = "options take effect when something is submitted"]
pub struct Configured<K, C: 'static> {
    callable: &'static C,
    overrides: Overrides,
    kind: PhantomData<fn() -> K>,
}

impl<K, C> Clone for Configured<K, C> {
    fn clone(&self) -> Self {
        Self { callable: self.callable, overrides: self.overrides.clone(), kind: PhantomData }
    }
}

impl<K, C: std::fmt::Debug> std::fmt::Debug for Configured<K, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Configured").field(&self.callable).field(&self.overrides).finish()
    }
}

impl<K, C> Configured<K, C> {
    #[doc(hidden)]
    pub const fn new(callable: &'static C) -> Self {
        Self { callable, overrides: Overrides::NONE, kind: PhantomData }
    }

    fn set(mut self, change: impl FnOnce(&mut CallOptions)) -> Self {
        change(self.overrides.edit());
        self
    }

    /// How often to try again after a failure; 0 switches retries off.
    pub fn retries(self, retries: u32) -> Self {
        self.set(|options| options.retries = Some(retries))
    }

    /// How long to wait before each retry: a [`Duration`], a list of them, or a [`Delay`].
    pub fn retry_delay(self, delay: impl Into<Delay>) -> Self {
        self.set(|options| options.retry_delay = Some(delay.into()))
    }

    /// Spreads each delay at random, up to that fraction above it: a number from 0 up. With another one the run fails before
    /// it begins.
    pub fn retry_jitter(self, factor: f64) -> Self {
        self.set(|options| options.retry_jitter = Some(factor))
    }

    /// How long one attempt may take, which is more than nothing: with a time of zero the run fails before it begins.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|options| options.timeout = Some(timeout))
    }

    /// Keeps the result in the cache for that long after completion, which is more than nothing: with a time of zero the run
    /// fails before it begins.
    pub fn cache_ttl(self, ttl: Duration) -> Self {
        self.set(|options| options.cache_ttl = Some(ttl))
    }

    /// What the cache key is made of; [`CachePolicy::NONE`] switches caching off.
    pub fn cache_policy(self, policy: CachePolicy) -> Self {
        self.set(|options| options.cache_policy = Some(policy))
    }

    /// Whether to ignore what the cache has, and replace it.
    pub fn refresh_cache(self, refresh: bool) -> Self {
        self.set(|options| options.refresh_cache = Some(refresh))
    }

    /// Whether results are kept for the flow run, so that its next attempt does not compute them again. For a flow: those
    /// of all its tasks that say nothing themselves and whose result types can be stored.
    pub fn persist(self, persist: bool) -> Self {
        self.set(|options| options.persist = Some(persist))
    }

    /// Asks for one slot of each of the named limits.
    pub fn concurrency<S: Into<String>>(self, limits: impl IntoNames<S>) -> Self {
        let wants = limits.into_names().map(|name| (name.into(), 1)).collect();
        self.set(|options| options.concurrency = Some(wants))
    }

    /// Asks for several slots of one limit.
    pub fn concurrency_slots(self, limit: impl Into<String>, slots: u32) -> Self {
        self.set(|options| options.concurrency = Some(vec![(limit.into(), slots)]))
    }

    /// Tags of the run, instead of those of the attribute.
    pub fn tags<S: Into<String>>(self, tags: impl IntoIterator<Item = S>) -> Self {
        self.set(|options| options.tags = Some(tags.into_iter().map(Into::into).collect()))
    }

    /// The run's name.
    pub fn run_name(self, name: impl AsRef<str>) -> Self {
        self.set(|options| options.run_name = Some(name.as_ref().into()))
    }

    /// Starts only after that run has completed.
    pub fn wait_for(self, upstream: &impl Awaitable) -> Self {
        self.set(|options| options.wait_for.extend(upstream.upstreams()))
    }

    /// Starts only after that run has ended, however it ended.
    pub fn wait_for_settled(self, upstream: &impl Awaitable) -> Self {
        self.set(|options| options.wait_for_settled.extend(upstream.upstreams()))
    }
}

/// One name, or several.
pub trait IntoNames<S> {
    /// The names.
    fn into_names(self) -> impl Iterator<Item = S>;
}

impl<'a> IntoNames<&'a str> for &'a str {
    fn into_names(self) -> impl Iterator<Item = &'a str> {
        std::iter::once(self)
    }
}

impl IntoNames<String> for String {
    fn into_names(self) -> impl Iterator<Item = String> {
        std::iter::once(self)
    }
}

impl<S, const N: usize> IntoNames<S> for [S; N] {
    fn into_names(self) -> impl Iterator<Item = S> {
        self.into_iter()
    }
}

impl<S> IntoNames<S> for Vec<S> {
    fn into_names(self) -> impl Iterator<Item = S> {
        self.into_iter()
    }
}

impl<S: Clone> IntoNames<S> for &[S] {
    fn into_names(self) -> impl Iterator<Item = S> {
        self.iter().cloned()
    }
}

/// What a jitter has to be.
pub(crate) const RIGHT_JITTER: &str = "a number from 0 up";

pub(crate) fn is_right_jitter(jitter: f64) -> bool {
    jitter.is_finite() && jitter >= 0.0
}

/// The options of one run, looked up where they are needed.
#[derive(Clone, Copy)]
pub(crate) struct Effective<'a> {
    pub(crate) def: &'static Def,
    pub(crate) call: Option<&'a CallOptions>,
    pub(crate) defaults: &'a Defaults,
}

impl Effective<'_> {
    pub(crate) fn retries(&self) -> u32 {
        self.call.and_then(|call| call.retries).or(self.def.retries).unwrap_or(match self.def.kind {
            crate::def::DefKind::Task => self.defaults.retries,
            crate::def::DefKind::Flow => 0,
        })
    }

    pub(crate) fn retry_delay(&self, retry: u32) -> Duration {
        match (self.call.and_then(|call| call.retry_delay.as_ref()), self.def.retry_delay) {
            (Some(delay), _) => delay.before(retry),
            (None, Some(delay)) => delay.before(retry),
            (None, None) => self.defaults.retry_delay.before(retry),
        }
    }

    pub(crate) fn retry_jitter(&self) -> f64 {
        self.call.and_then(|call| call.retry_jitter).or(self.def.retry_jitter).unwrap_or(self.defaults.retry_jitter)
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        let own = self.call.and_then(|call| call.timeout).or(self.def.timeout);
        match self.def.kind {
            crate::def::DefKind::Task => own.or(self.defaults.timeout),
            crate::def::DefKind::Flow => own,
        }
    }

    /// What the cache key is made of; `None`: not cached.
    pub(crate) fn cache_policy(&self) -> Option<CachePolicy> {
        let call = self.call.filter(|call| call.cache_policy.is_some() || call.cache_ttl.is_some());
        if call.is_none() && !self.def.declares_cache() {
            return None;
        }
        let policy = call.and_then(|call| call.cache_policy).or(self.def.cache_policy).unwrap_or(CachePolicy::DEFAULT);
        (!policy.is_none()).then_some(policy)
    }

    pub(crate) fn cache_ttl(&self) -> Option<Duration> {
        self.call.and_then(|call| call.cache_ttl).or(self.def.cache_ttl)
    }

    /// What is wrong with the options of the call, if anything is.
    pub(crate) fn wrong(&self) -> Option<String> {
        let call = self.call?;
        let is_nothing = |time: Option<Duration>| time.is_some_and(|time| time.is_zero());
        if is_nothing(call.cache_ttl) {
            let instead = "`cache_policy(CachePolicy::NONE)` switches caching off";
            return Some(format!("its `cache_ttl` is zero, but has to be more than that; {instead}"));
        }
        if is_nothing(call.timeout) {
            return Some("its `timeout` is zero, but has to be more than that".to_owned());
        }
        let jitter = call.retry_jitter.filter(|jitter| !is_right_jitter(*jitter))?;
        Some(format!("its `retry_jitter` is {jitter}, but has to be {RIGHT_JITTER}"))
    }

    pub(crate) fn refresh_cache(&self) -> bool {
        self.call.and_then(|call| call.refresh_cache).or(self.def.refresh_cache).unwrap_or(self.defaults.refresh_cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_kind_of_delay_gives_its_series() {
        let cases: [(Delay, [u64; 5]); 4] = [
            (Delay::Fixed(s(3)), [3, 3, 3, 3, 3]),
            (Delay::List(vec![s(1), s(5)]), [1, 5, 5, 5, 5]),
            (Delay::List(vec![]), [0, 0, 0, 0, 0]),
            (Delay::Exponential { base: s(2), max: s(10) }, [2, 4, 8, 10, 10]),
        ];
        for (delay, expected) in cases {
            let series: Vec<_> = (0..5).map(|retry| delay.before(retry).as_secs()).collect();
            assert_eq!(series, expected, "{delay:?}");
        }
        assert_eq!(Delay::Exponential { base: s(2), max: s(10) }.before(4_000_000_000), s(10));
    }
}
