//! Listings: what is stored, under what waits to be.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::ObjectStorage;
use crate::error::Result;
use crate::storage::engine::Order;
use crate::storage::pending::Span;
use crate::storage::row::{Key, KeyRange, Table};

impl ObjectStorage {
    /// Visits the values whose keys lie in `span`, in order, until `visit` breaks.
    ///
    /// # Errors
    /// Why the storage is broken; where the store can't be read.
    pub fn visit(
        &self,
        span: &Span,
        order: Order,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<()> {
        let (waiting, is_cleared) = {
            let state = self.usable()?;
            (state.pending.within(span, order), state.pending.is_cleared())
        };
        let mut merge =
            Merge { waiting: waiting.into_iter().peekable(), order, visit, ended: false };
        if !is_cleared && !span.is_empty() {
            let bound = |bound: &Bound<Vec<u8>>| bound.clone();
            let (from, to) = (bound(&span.from), bound(&span.to));
            let range = KeyRange::within(
                Table::Value,
                &self.session.object,
                from.as_ref().map(Vec::as_slice),
                to.as_ref().map(Vec::as_slice),
            );
            self.store.scan(&range, order, &mut |key, value| merge.stored(key, value))?;
        }
        merge.rest();
        Ok(())
    }
}

/// Merges what waits with what is stored, in order.
struct Merge<'a> {
    waiting: std::iter::Peekable<std::vec::IntoIter<(Vec<u8>, Option<Bytes>)>>,
    order: Order,
    visit: &'a mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ended: bool,
}

impl Merge<'_> {
    fn stored(&mut self, key: &Key, value: Bytes) -> ControlFlow<()> {
        let key = key.after_object();
        while let Some((next, _)) = self.waiting.peek() {
            let comes_first = match self.order {
                Order::Ascending => next.as_slice() <= key,
                Order::Descending => next.as_slice() >= key,
            };
            if !comes_first {
                break;
            }
            let is_same = next.as_slice() == key;
            self.one_waiting()?;
            if is_same {
                return ControlFlow::Continue(());
            }
        }
        self.show(key, value)
    }

    fn rest(&mut self) {
        while !self.ended && self.waiting.peek().is_some() {
            let _ = self.one_waiting();
        }
    }

    fn one_waiting(&mut self) -> ControlFlow<()> {
        match self.waiting.next() {
            Some((key, Some(value))) => self.show(&key, value),
            _ => ControlFlow::Continue(()),
        }
    }

    fn show(&mut self, key: &[u8], value: Bytes) -> ControlFlow<()> {
        let flow = (self.visit)(key, value);
        self.ended = flow.is_break();
        flow
    }
}
