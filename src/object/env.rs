//! What surrounds an object: the namespaces it may call.

use std::rc::Rc;

use super::interface::behind;
use crate::error::Result;
use crate::gate::Outbox;
use crate::stub::Namespace;

/// Where namespaces are found.
pub trait Directory {
    /// Returns the namespace called `name`.
    ///
    /// # Errors
    /// *no such namespace*, naming those that exist.
    fn namespace(&self, name: &str) -> Result<Namespace>;
}

/// What surrounds an object. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    directory: Rc<dyn Directory>,
    outbox: Rc<Outbox>,
}

impl Env {
    /// Makes an environment whose namespaces `directory` finds, and whose calls leave by `outbox`.
    pub(crate) fn new(directory: Rc<dyn Directory>, outbox: Rc<Outbox>) -> Self {
        Self { directory, outbox }
    }

    /// Returns the namespace called `name`. Its stubs have the semantics that they have outside; calls on them
    /// leave when what the object wrote before them is durable.
    ///
    /// # Errors
    /// *no such namespace*, naming those that exist.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let outbox = self.outbox.clone();
        let lead = move |reference| behind(&outbox, reference);
        Ok(self.directory.namespace(name)?.led(self.outbox.clone(), Rc::new(lead)))
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}
