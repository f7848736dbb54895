//! Who is told when a run ends.

use std::sync::Arc;

use slab::Slab;

use super::{Run, VisitResult};

/// Who is told when a run ends.
pub(crate) enum Waiter {
    /// A task that polls one of the run's futures.
    Task(std::task::Waker),
    /// A run that takes this one's result.
    Dependant(Arc<Run>),
    /// Somebody who waits for several runs, who is told which one ended.
    Group(Arc<dyn Group>, u32),
    /// Nobody, but the failures of the runs in the result are nobody's concern.
    Tolerant(VisitResult),
}

/// Somebody who waits for several runs.
pub(crate) trait Group: Send + Sync {
    fn ended(&self, index: usize, completed: bool);
}

/// The waiters of one run, of which most have one at most.
#[derive(Default)]
pub(super) enum Waiters {
    #[default]
    None,
    /// The run has ended, and nobody can wait for it any more.
    Told,
    /// Its place is 0.
    One(Waiter),
    Many(Box<Slab<Waiter>>),
}

impl Waiters {
    /// Whether the run has ended.
    pub(super) const fn are_told(&self) -> bool {
        matches!(self, Self::Told)
    }

    /// Gives the waiter back if the run has ended.
    pub(super) fn insert(&mut self, waiter: Waiter) -> Result<usize, Waiter> {
        if self.are_told() {
            return Err(waiter);
        }
        Ok(match std::mem::take(self) {
            Self::None | Self::Told => {
                *self = Self::One(waiter);
                0
            }
            Self::One(first) => {
                let mut all = Slab::with_capacity(4);
                all.insert(first);
                let place = all.insert(waiter);
                *self = Self::Many(Box::new(all));
                place
            }
            Self::Many(mut all) => {
                let place = all.insert(waiter);
                *self = Self::Many(all);
                place
            }
        })
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Waiter> {
        match self {
            Self::One(waiter) if place == 0 => Some(waiter),
            Self::None | Self::Told | Self::One(_) => None,
            Self::Many(all) => all.get_mut(place),
        }
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Waiter> {
        match self {
            Self::One(_) if place == 0 => match std::mem::take(self) {
                Self::One(waiter) => Some(waiter),
                Self::None | Self::Told | Self::Many(_) => None,
            },
            Self::None | Self::Told | Self::One(_) => None,
            Self::Many(all) => all.try_remove(place),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        let (one, many) = match self {
            Self::None | Self::Told => (None, None),
            Self::One(waiter) => (Some(waiter), None),
            Self::Many(all) => (None, Some(all)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|all| all.iter().map(|(_, waiter)| waiter)))
    }

    pub(super) fn for_each(self, mut tell: impl FnMut(Waiter)) {
        match self {
            Self::None | Self::Told => {}
            Self::One(waiter) => tell(waiter),
            Self::Many(all) => all.into_iter().for_each(|(_, waiter)| tell(waiter)),
        }
    }
}
