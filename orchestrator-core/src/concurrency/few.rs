//! Lists that have one element as a rule: they are moved, and let go of, with every slot.

use std::ops::{Deref, DerefMut};

/// A list; one element needs no memory elsewhere.
#[derive(Debug, Clone)]
pub(super) enum Few<T> {
    One(T),
    Other(Vec<T>),
}

impl<T> Few<T> {
    pub(super) fn push(&mut self, element: T) {
        match self {
            Self::Other(none) if none.is_empty() => *self = Self::One(element),
            Self::Other(all) => all.push(element),
            Self::One(_) => {
                let Self::One(first) = std::mem::take(self) else { unreachable!("it was one just now") };
                *self = Self::Other(vec![first, element]);
            }
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::Other(Vec::new())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::One(element) => std::slice::from_ref(element),
            Self::Other(all) => all,
        }
    }
}

impl<T> DerefMut for Few<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::One(element) => std::slice::from_mut(element),
            Self::Other(all) => all,
        }
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut all = Self::default();
        elements.into_iter().for_each(|element| all.push(element));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_one_and_several() {
        for count in 0..4 {
            let mut few: Few<usize> = (0..count).collect();
            assert_eq!(&*few, &*(0..count).collect::<Vec<_>>());
            assert_eq!(matches!(few, Few::One(_)), count == 1);
            few.iter_mut().for_each(|element| *element += 1);
            assert_eq!(few.iter().sum::<usize>(), count * (count + 1) / 2);
        }
    }
}
