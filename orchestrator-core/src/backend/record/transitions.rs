//! The states that an event tells of.

use std::fmt;

use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::state::{StateName, Transition};

/// Transitions of a run, oldest first.
///
/// Most runs have three at most, and nothing to say about them: these are kept in place.
#[derive(Clone, Default)]
pub struct Transitions(Form);

#[derive(Clone)]
enum Form {
    Plain { names: [StateName; MOST], count: u8, at: [Timestamp; MOST] },
    Long(Box<[Transition]>),
}

const MOST: usize = Transitions::IN_PLACE;

impl Default for Form {
    fn default() -> Self {
        Self::Plain { names: [StateName::Pending; MOST], count: 0, at: [Timestamp::from_micros(0); MOST] }
    }
}

impl Transitions {
    /// How many are kept in place, if they have nothing to say.
    pub(crate) const IN_PLACE: usize = 3;

    /// The first so many of these, which have nothing to say: each one's state, and when it was entered.
    pub(crate) const fn plain(names: [StateName; MOST], at: [Timestamp; MOST], count: u8) -> Self {
        Self(Form::Plain { names, count, at })
    }

    /// Adds one that is younger than all others.
    pub fn push(&mut self, transition: Transition) {
        match &mut self.0 {
            Form::Plain { names, count, at } if transition.is_plain() && usize::from(*count) < MOST => {
                let place = usize::from(*count);
                (names[place], at[place]) = (transition.name, transition.at);
                *count += 1;
            }
            Form::Plain { .. } | Form::Long(_) => *self = self.iter().chain([transition]).collect(),
        }
    }

    /// What is kept in place: each one's state, when it was entered, and how many of these there are.
    pub(crate) const fn in_place(&self) -> Option<(&[StateName; MOST], &[Timestamp; MOST], u8)> {
        match &self.0 {
            Form::Plain { names, count, at } => Some((names, at, *count)),
            Form::Long(_) => None,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Plain { count, .. } => usize::from(*count),
            Form::Long(all) => all.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one at that place, counted from 0.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<Transition> {
        match &self.0 {
            Form::Plain { names, count, at } => {
                (place < usize::from(*count)).then(|| Transition::new(names[place], at[place]))
            }
            Form::Long(all) => all.get(place).cloned(),
        }
    }

    /// The oldest.
    #[must_use]
    pub fn first(&self) -> Option<Transition> {
        self.get(0)
    }

    /// The youngest.
    #[must_use]
    pub fn last(&self) -> Option<Transition> {
        self.len().checked_sub(1).and_then(|place| self.get(place))
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Transition> + ExactSizeIterator + '_ {
        (0..self.len()).map(|place| self.get(place).expect("it is in range"))
    }
}

impl Extend<Transition> for Transitions {
    fn extend<I: IntoIterator<Item = Transition>>(&mut self, further: I) {
        let mut further = further.into_iter().peekable();
        while let Some(transition) = further.next() {
            match &self.0 {
                // All that are left at once: a long list is not copied for each.
                Form::Long(_) => {
                    *self = self.iter().chain([transition]).chain(further).collect();
                    return;
                }
                Form::Plain { .. } => self.push(transition),
            }
        }
    }
}

impl FromIterator<Transition> for Transitions {
    fn from_iter<I: IntoIterator<Item = Transition>>(transitions: I) -> Self {
        let all: SmallVec<[Transition; MOST]> = transitions.into_iter().collect();
        if all.len() > MOST || !all.iter().all(Transition::is_plain) {
            return Self(Form::Long(all.into_vec().into()));
        }
        let mut plain = Self::default();
        all.into_iter().for_each(|transition| plain.push(transition));
        plain
    }
}

impl fmt::Debug for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transition() -> impl Strategy<Value = Transition> {
        let name = prop::sample::select(&StateName::ALL[..]);
        let rarely = || prop::bool::weighted(0.2);
        (name, any::<i32>(), rarely(), rarely()).prop_map(|(name, at, says, is_scheduled)| Transition {
            message: says.then(|| "said".into()),
            scheduled: is_scheduled.then(|| Timestamp::from_micros(60)),
            ..Transition::new(name, Timestamp::from_micros(at.into()))
        })
    }

    proptest! {
        /// Whatever the form, it is the list that was put in.
        #[test]
        fn they_are_a_list(
            first in prop::collection::vec(transition(), 0..6),
            pushed in prop::collection::vec(transition(), 0..3),
            further in prop::collection::vec(transition(), 0..6),
        ) {
            let mut transitions: Transitions = first.iter().cloned().collect();
            pushed.iter().cloned().for_each(|transition| transitions.push(transition));
            transitions.extend(further.iter().cloned());
            let expected: Vec<_> = first.into_iter().chain(pushed).chain(further).collect();
            prop_assert_eq!(transitions.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(transitions.iter().rev().collect::<Vec<_>>(), expected.iter().rev().cloned().collect::<Vec<_>>());
            prop_assert_eq!(transitions.first(), expected.first().cloned());
            prop_assert_eq!(transitions.last(), expected.last().cloned());
            prop_assert_eq!((transitions.len(), transitions.is_empty()), (expected.len(), expected.is_empty()));
            prop_assert_eq!(transitions.get(expected.len()), None);
        }
    }
}
