//! What one activation consists of beside the author's object: its gates and its storage.

use std::cell::OnceCell;
use std::rc::Rc;

use crate::gate::{Entrance, Outbox};
use crate::storage::object::ObjectStorage;

/// What one activation consists of beside the author's object.
#[derive(Default)]
pub struct Interior {
    /// Tells the activation from all others of its thread.
    pub number: u64,
    /// What may run in it.
    pub entrance: Rc<Entrance>,
    /// What it has said and not let out.
    pub outbox: Rc<Outbox>,
    storage: OnceCell<Rc<ObjectStorage>>,
}

impl Interior {
    /// Makes that of activation `number`. Its storage comes later.
    pub fn new(number: u64) -> Rc<Self> {
        Rc::new(Self { number, ..Self::default() })
    }

    /// Gives it its storage.
    pub fn set_storage(&self, storage: Rc<ObjectStorage>) {
        let given = self.storage.set(storage);
        debug_assert!(given.is_ok(), "an activation has one storage");
    }

    /// Returns its storage; none before it was opened.
    pub fn storage(&self) -> Option<&Rc<ObjectStorage>> {
        self.storage.get()
    }

    /// Returns whether nothing that it said or wrote is on its way.
    pub fn is_settled(&self) -> bool {
        self.outbox.held() == 0 && self.storage().is_none_or(|storage| storage.is_durable())
    }
}
