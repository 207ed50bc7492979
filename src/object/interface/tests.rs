//! Typed calls without a server: parameters that are damaged, results that are handed out early.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use capnp::any_pointer;
use capnp::capability::{DispatchCallResult, Promise};
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::private::capability::{ClientHook, ParamsHook, PipelineHook, RequestHook, ResultsHook};
use capnp::traits::{Imbue, ImbueMut};

use super::*;

/// Parameters as they came, with their references.
struct Given {
    message: Reader<Vec<Vec<u8>>>,
    references: Vec<Option<Box<dyn ClientHook>>>,
}

impl Given {
    fn of(words: &[u64]) -> Box<dyn ParamsHook> {
        let bytes = words.iter().copied().flat_map(u64::to_le_bytes).collect();
        let message = Reader::new(vec![bytes], ReaderOptions::new());
        Box::new(Self { message, references: vec![Some(nobody())] })
    }
}

impl ParamsHook for Given {
    fn get(&self) -> capnp::Result<any_pointer::Reader<'_>> {
        let mut root: any_pointer::Reader<'_> = self.message.get_root()?;
        root.imbue(&self.references);
        Ok(root)
    }
}

fn nobody() -> Box<dyn ClientHook> {
    capnp_rpc::new_broken_cap(capnp::Error::failed("nobody".into())).hook
}

/// Results that are handed on. It is noted when, and whether every reference in them was settled.
#[derive(Default)]
struct Handed {
    message: Builder<HeapAllocator>,
    references: Vec<Option<Box<dyn ClientHook>>>,
    noted: Rc<RefCell<Vec<(&'static str, bool)>>>,
}

impl Handed {
    fn note(&self, what: &'static str) {
        let mut references = self.references.iter().flatten();
        let settled = references.all(|reference| reference.when_more_resolved().is_none());
        self.noted.borrow_mut().push((what, settled && !self.references.is_empty()));
    }
}

impl ResultsHook for Handed {
    fn get(&mut self) -> capnp::Result<any_pointer::Builder<'_>> {
        let mut root: any_pointer::Builder<'_> = self.message.get_root()?;
        root.imbue_mut(&mut self.references);
        Ok(root)
    }

    fn set_pipeline(&mut self) -> capnp::Result<()> {
        self.note("early");
        Ok(())
    }

    fn allow_cancellation(&self) {}

    fn tail_call(self: Box<Self>, _: Box<dyn RequestHook>) -> Promise<(), capnp::Error> {
        unreachable!("nobody asks for it")
    }

    fn direct_tail_call(
        self: Box<Self>,
        _: Box<dyn RequestHook>,
    ) -> (Promise<(), capnp::Error>, Box<dyn PipelineHook>) {
        unreachable!("nobody asks for it")
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        self.note("done");
    }
}

/// A struct of two pointers: a reference, and `other`.
fn with_reference(other: u64) -> [u64; 3] {
    [2 << 48, 3, other]
}

/// The references in them were then not led through the outbox.
#[test]
fn parameters_that_are_damaged_anywhere_reach_no_handler() {
    let nowhere = (1000 << 2 | 1) | (8 << 3 | 2) << 32;
    for (other, enters) in [(0, true), (nowhere, false)] {
        let entered = Rc::new(Cell::new(false));
        let note = entered.clone();
        let dispatch = Dispatch(Box::new(move |_, _, _, _| {
            note.set(true);
            DispatchCallResult::new(Promise::ok(()), false)
        }));
        let call =
            TypedCall::new(1, 2, Given::of(&with_reference(other)), Box::<Handed>::default());
        let outcome = call.enter(Some(&dispatch), 1, &Limits::default(), &Rc::default());
        assert_eq!((outcome.is_ok(), entered.get()), (enters, enters));
    }
}
