//! Memory that the threads of a team share.

#![expect(unsafe_code, reason = "the borrow checker cannot see a barrier")]

use std::cell::UnsafeCell;
use std::ops::Range;

use super::panel::{Panel, PanelBuffer};

/// Values that each have one thread as their owner. In some phases of a step the owner writes them, in others all
/// threads read them. [`super::access`] says when.
#[derive(Debug)]
pub struct Shared<T>(Box<[UnsafeCell<T>]>);

// SAFETY: a shared reference gives access only through a `View`. Whoever makes one promises that no thread writes a
// value while another uses it.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// These values.
    pub fn new(values: Vec<T>) -> Self {
        Self(values.into_iter().map(UnsafeCell::new).collect())
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Keeps the first `count` values.
    pub fn truncate(&mut self, count: usize) {
        let mut values = std::mem::take(&mut self.0).into_vec();
        values.truncate(count);
        self.0 = values.into();
    }

    /// All values, for the only user of them.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut T> {
        self.0.iter_mut().map(UnsafeCell::get_mut)
    }
}

/// One thread's view of shared values, for one phase.
pub struct View<'p, T> {
    values: &'p Shared<T>,
    own: Range<usize>,
    published: bool,
}

impl<'p, T> View<'p, T> {
    /// A view that reads all values if they are `published`, and otherwise reads and writes those in `own`.
    ///
    /// # Safety
    /// As long as the view lives, every other view of these values agrees on `published`. Unless they are published, no
    /// other view has a value of `own` as its own. All accesses by earlier views that do not fit this one happened
    /// before, with a barrier in between if they were another thread's.
    #[inline(always)]
    pub unsafe fn new(values: &'p Shared<T>, own: Range<usize>, published: bool) -> Self {
        Self { values, own, published }
    }

    /// Value `q`, which is published or this thread's own.
    #[inline(always)]
    pub fn get(&self, q: usize) -> &T {
        assert!(self.published || self.own.contains(&q));
        // SAFETY: a published value is written by nobody while this view lives, see `new`. An own value is written only
        // through `get_mut` of this view, which the borrow of `self` excludes.
        unsafe { &*self.values.0[q].get() }
    }

    /// Value `q`, which is this thread's own and not published.
    #[inline(always)]
    pub fn get_mut(&mut self, q: usize) -> &mut T {
        assert!(!self.published && self.own.contains(&q));
        // SAFETY: no other view uses an own value that is not published, see `new`. This view does not either as long
        // as it is borrowed.
        unsafe { &mut *self.values.0[q].get() }
    }

    /// Value `first` and those after it, which are this thread's own and not published.
    #[inline(always)]
    pub fn several_mut<const N: usize>(&mut self, first: usize) -> [&mut T; N] {
        assert!(!self.published && self.own.start <= first && first + N <= self.own.end);
        // SAFETY: as for `get_mut`; these are different values.
        std::array::from_fn(|n| unsafe { &mut *self.values.0[first + n].get() })
    }
}

impl View<'_, PanelBuffer> {
    /// The rows of `images` in all the matrices, which are published: side by side they are one matrix.
    #[inline(always)]
    pub fn panels(&self, images: &Range<usize>) -> impl Iterator<Item = Panel<'_>> + Clone {
        let images = images.clone();
        (0..self.values.len()).map(move |q| self.get(q).rows(images.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic]
    fn a_value_of_another_thread_cannot_be_read_before_it_is_published() {
        let values = Shared::new(vec![1, 2]);
        // SAFETY: the only view.
        let view = unsafe { View::new(&values, 0..1, false) };
        assert_eq!(view.get(0), &1);
        view.get(1);
    }

    #[test]
    #[should_panic]
    fn a_published_value_cannot_be_written() {
        let values = Shared::new(vec![1, 2]);
        // SAFETY: the only view.
        let mut view = unsafe { View::new(&values, 0..2, true) };
        assert_eq!(view.get(1), &2);
        view.get_mut(0);
    }
}
