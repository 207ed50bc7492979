//! Typed calls without a server: parameters that are damaged, results that are handed out early.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use capnp::any_pointer;
use capnp::capability::{DispatchCallResult, Promise};
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::private::capability::{ClientHook, ParamsHook, PipelineHook, RequestHook, ResultsHook};
use capnp::traits::{Imbue, ImbueMut};
use futures::channel::oneshot;

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

/// The references left as they were where the results were handed out before the handler returned.
#[tokio::test]
async fn results_that_are_handed_out_early_wait_for_their_references_to_settle() {
    for settles in [true, false] {
        let (settling, settled) = oneshot::channel::<()>();
        let (returning, returned) = oneshot::channel::<()>();
        let settled = async move {
            settled.await.map_err(|_| capnp::Error::failed("given up".into()))?;
            Ok(capnp::capability::Client::new(nobody()))
        };
        let promise: capnp::capability::Client = capnp_rpc::new_future_client(settled);
        let handler = Cell::new(Some((promise, returned)));
        let dispatch = Dispatch(Box::new(move |_, _, _, mut results| {
            let (promise, returned) = handler.take().expect("it is called once");
            let handler = async move {
                results.get().set_as_capability(promise.hook);
                results.set_pipeline()?;
                let _ = returned.await;
                Ok(())
            };
            DispatchCallResult::new(Promise::from_future(handler), false)
        }));
        let handed = Handed::default();
        let noted = handed.noted.clone();
        let call = TypedCall::new(1, 2, Given::of(&with_reference(0)), Box::new(handed));
        let limits = Limits { settle_timeout: Duration::from_millis(50), ..Limits::default() };
        let entered = call.enter(Some(&dispatch), 1, &limits, &Rc::default());
        let mut handler = entered.map(|entered| entered.handler).expect("it enters");
        assert!((&mut handler).now_or_never().is_none());
        assert_eq!(*noted.borrow(), []);
        if !settles {
            drop(returning);
            assert!(handler.await.is_err_and(|error| error.extra.contains("unresolved")));
            assert_eq!(*noted.borrow(), [("done", false)]);
            continue;
        }
        settling.send(()).unwrap();
        assert!((&mut handler).now_or_never().is_none());
        assert_eq!(*noted.borrow(), [("early", true)]);
        drop(returning);
        handler.await.unwrap();
        assert_eq!(*noted.borrow(), [("early", true), ("done", true)]);
    }
}
