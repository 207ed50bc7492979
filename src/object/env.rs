//! What surrounds an object: the namespaces it may call.

use std::rc::Rc;

use crate::error::Result;
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
}

impl Env {
    /// Makes an environment whose namespaces `directory` finds.
    pub(crate) fn new(directory: Rc<dyn Directory>) -> Self {
        Self { directory }
    }

    /// Returns the namespace called `name`. Its stubs have the semantics that they have outside.
    ///
    /// # Errors
    /// *no such namespace*, naming those that exist.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        self.directory.namespace(name)
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}
