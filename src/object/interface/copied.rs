//! Content with references in it, copied so that the references can be exchanged.

use capnp::any_pointer;
use capnp::private::capability::{ClientHook, ParamsHook, ResponseHook};
use capnp::traits::{Imbue, ImbueMut};

/// A copy of content that has references in it.
pub struct Copied {
    message: capnp::message::Builder<capnp::message::HeapAllocator>,
    references: Vec<Option<Box<dyn ClientHook>>>,
}

impl Copied {
    /// Copies `from`, with whatever `exchange` returns for its references; where that is none, they stay.
    pub fn of(
        from: any_pointer::Reader<'_>,
        exchange: impl Fn(&dyn ClientHook) -> Option<Box<dyn ClientHook>>,
    ) -> capnp::Result<Self> {
        let (message, references) = (capnp::message::Builder::new_default(), Vec::new());
        let mut copied = Self { message, references };
        let mut root: any_pointer::Builder<'_> = copied.message.get_root()?;
        root.imbue_mut(&mut copied.references);
        root.set_as(from)?;
        for reference in copied.references.iter_mut().flatten() {
            if let Some(other) = exchange(&**reference) {
                *reference = other;
            }
        }
        Ok(copied)
    }

    /// Returns the references in it.
    pub fn references_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn ClientHook>> {
        self.references.iter_mut().flatten()
    }

    /// Returns the copy.
    pub fn get(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        let mut root: any_pointer::Reader<'_> = self.message.get_root_as_reader()?;
        root.imbue(&self.references);
        Ok(root)
    }
}

impl ParamsHook for Copied {
    fn get(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        Copied::get(self)
    }
}

impl ResponseHook for Copied {
    fn get(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        Copied::get(self)
    }
}
