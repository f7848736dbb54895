//! Who is gone, and what is done about it.
//!
//! A process of the same machine is looked at: it is gone if it is no more, or if it was stopped for longer than its
//! lease. An orchestrator that has ended in a process that goes on is gone as well, though it could not say so. One that
//! works is never gone, however late its lease is: it may be busy, and a machine that slept wakes all
//! of them at once. Of a process that cannot be seen from here the lease decides, and only if nothing was heard from it
//! while this one was awake and looking: a clock that was changed, or a sleep of this machine, ends nobody.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::State;
use crate::backend::{BackendError, Owner, OwnerNo};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::process::{Fate, fate};

/// How long an orchestrator that cannot be seen from here has to be silent, beyond its lease: twice the longest time
/// between two heartbeats. The clocks of machines that share a store may differ by as much.
const SILENCE: Duration = Duration::from_secs(10);

/// That nothing is heard of an orchestrator of which nobody here can say whether it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silence {
    /// When its lease was over.
    pub(crate) since: Timestamp,
    /// How long it takes at most to know, if it is looked at meanwhile.
    pub(crate) known_in: Duration,
}

/// The last heartbeat of each orchestrator that cannot be seen from here, and when it was first seen.
#[derive(Debug, Default)]
pub(super) struct Watch(HashMap<OwnerNo, (Option<Timestamp>, Instant)>);

impl Watch {
    /// How long nothing was heard of an orchestrator.
    fn silence(&mut self, owner: &Owner) -> Duration {
        let seen = self.0.entry(owner.no).or_insert((owner.lease_until, Instant::now()));
        if seen.0 != owner.lease_until {
            *seen = (owner.lease_until, Instant::now());
        }
        seen.1.elapsed()
    }

    fn forget_all_but(&mut self, owners: &[Owner]) {
        self.0.retain(|no, _| owners.iter().any(|owner| owner.no == *no));
    }
}

/// How long an orchestrator may be silent that cannot be seen from here; `None`: as long as it likes. Where its lease is
/// not over by the clocks, one of which may be wrong, its length counts as well.
fn longest_silence(owner: &Owner, now: Timestamp) -> Option<Duration> {
    let until = owner.lease_until?;
    if until.after(SILENCE) <= now {
        return Some(SILENCE);
    }
    Some(until.since(owner.heard?) + SILENCE)
}

impl State {
    /// Looks for orchestrators that are gone, and ends them.
    pub(super) fn look(&self) {
        let looked = self.shared().owners().map(|owners| {
            self.watch.lock().unwrap_or_else(PoisonError::into_inner).forget_all_but(&owners);
            // Each by itself: one that cannot be ended keeps nobody else from being.
            owners.iter().filter_map(|owner| self.look_at(owner).err()).next()
        });
        if let Ok(Some(error)) | Err(error) = looked {
            tracing::debug!(target: "orchestrator", "cannot look for processes that went away: {error}");
        }
    }

    /// Looks at an orchestrator, and ends it if it is gone; says whether it has ended.
    pub(super) fn look_at(&self, owner: &Owner) -> Result<bool, BackendError> {
        if self.membership.owner() == Some(owner.no) {
            if owner.ended.is_some() {
                self.membership.fence();
            }
            return Ok(owner.ended.is_some());
        }
        let Some(why) = self.why_gone(owner) else { return Ok(false) };
        if let Some(runs @ 1..) = self.shared().expel(owner, self.clock.now(), &why)? {
            let runs = if runs == 1 { "1 run was".to_owned() } else { format!("{runs} runs were") };
            tracing::warn!(
                target: "orchestrator",
                "{runs} marked as crashed in {}: {why}",
                self.backend.location(),
            );
        }
        Ok(true)
    }

    /// If an orchestrator cannot be seen from here and its lease is over: since when, and how long it takes at most to
    /// know whether it is gone, if it is looked at meanwhile.
    pub(super) fn silence(&self, owner: &Owner) -> Option<Silence> {
        let until = owner.lease_until.filter(|_| owner.ended.is_none() && self.membership.owner() != Some(owner.no))?;
        let now = SystemClock.now();
        if until >= now || fate(&owner.process) != Fate::Unknown {
            return None;
        }
        let watched = self.watch.lock().unwrap_or_else(PoisonError::into_inner).silence(owner);
        let by_its_length = longest_silence(owner, now)?.saturating_sub(watched);
        // Once its lease is over for long enough, it is silent for long enough if it was so for the shorter time.
        let by_the_clock = until.after(SILENCE).since(now).max(SILENCE.saturating_sub(watched));
        Some(Silence { since: until, known_in: by_its_length.min(by_the_clock) })
    }

    /// Why an orchestrator's runs are nobody's any more, if so.
    fn why_gone(&self, owner: &Owner) -> Option<String> {
        let late = owner.lease_until.is_some_and(|until| until < SystemClock.now());
        let what = match fate(&owner.process) {
            _ if owner.ended.is_some() => "ended without saying what became of it".to_owned(),
            Fate::Gone => "went away".to_owned(),
            Fate::Stopped if late => "was stopped for longer than its lease".to_owned(),
            // Another copy of this library in this process knows its own, and renews their leases.
            Fate::Over if late => "has ended it, which could not say so".to_owned(),
            Fate::Alive | Fate::Stopped | Fate::Over => return None,
            Fate::Unknown => {
                let until = owner.lease_until?;
                let silence = self.watch.lock().unwrap_or_else(PoisonError::into_inner).silence(owner);
                if silence < longest_silence(owner, SystemClock.now())? {
                    return None;
                }
                let until = until.to_datetime().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
                format!("was not heard of any more; its lease ended at {until}")
            }
        };
        Some(format!("its process {} on {} {what}", owner.process.pid, owner.process.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::this_process;

    #[test]
    fn a_clock_that_was_ahead_keeps_nobody_for_ever() {
        let now = SystemClock.now();
        let lease = Duration::from_secs(30);
        let silence = |heard: Timestamp| {
            let process = this_process().clone();
            let (no, lease_until) = (OwnerNo(1), Some(heard.after(lease)));
            let owner = Owner { no, process, lease_until, heard: Some(heard), ended: None, why: None };
            longest_silence(&owner, now)
        };
        assert_eq!(silence(now), Some(lease + SILENCE));
        assert_eq!(silence(now.after(Duration::from_secs(86_400))), Some(lease + SILENCE), "a day ahead");
        assert_eq!(silence(Timestamp::from_micros(0)), Some(SILENCE), "its lease is over");
    }
}
