//! A call of the peer's: what its message, the gate and whoever answers it share.
//!
//! capnp-rpc drops the future of a call that the peer cancels, never answers the call, and so keeps its
//! number for ever, as the peer must. The gate therefore keeps the peer's *finish* to itself and tells
//! whoever answers the call, which then ends it.
//!
//! **Invariant:** a call is cancelled only when the peer let go of it and of every unanswered call that
//! needs its answer.
//! **Invariant:** a call that is answered, or cancelled, needs no other: no chain of calls is kept.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use capnp::Error;
use capnp::private::capability::ParamsHook;

thread_local! {
    /// Which call the parameters being read belong to. It holds a value only inside of `Caller::of`: the
    /// traits of capnp-rpc leave no other way from parameters to their message.
    static ASKED: RefCell<Asked> = const { RefCell::new(Asked::Not) };
}

/// What [`Caller::of`] wants to know.
enum Asked {
    Not,
    Whose,
    This(Rc<Call>),
}

/// A call of the peer's that is not answered.
#[derive(Default)]
pub(super) struct Call {
    holder: Cell<Holder>,
    let_go: Cell<bool>,
    /// How many unanswered calls need the answer of this one.
    needed_by: Cell<usize>,
    needs: RefCell<Vec<Rc<Call>>>,
    /// How many calls, this one included, have to be answered one after the other.
    depth: usize,
    waker: RefCell<Option<Waker>>,
}

/// Who has the parameters of a call.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Holder {
    /// It is still on its way to capnp-rpc.
    #[default]
    Network,
    /// It waits inside of capnp-rpc for the answer of another, or its server has not looked at it.
    Library,
    /// Somebody who answers it soon after it was cancelled.
    Owner,
    /// A server that can only be stopped by dropping its future.
    Stranger,
}

impl Call {
    /// Makes a call that needs the answers of `needs`.
    pub(super) fn new(needs: Vec<Rc<Call>>) -> Rc<Self> {
        for call in &needs {
            call.needed_by.set(call.needed_by.get() + 1);
        }
        let depth = Self::depth_above(&needs);
        Rc::new(Self { needs: RefCell::new(needs), depth, ..Self::default() })
    }

    /// Returns the depth of a call that needs the answers of `needs`.
    pub(super) fn depth_above(needs: &[Rc<Call>]) -> usize {
        needs.iter().map(|call| call.depth).max().unwrap_or(0) + 1
    }

    /// Notes that the message was looked into, and fails where nobody is to answer it any more.
    pub(super) fn note_read(self: &Rc<Self>) -> Result<(), Error> {
        let is_asked = ASKED.with_borrow_mut(|asked| {
            let is_asked = matches!(asked, Asked::Whose);
            if is_asked {
                *asked = Asked::This(Rc::clone(self));
            }
            is_asked
        });
        match self.holder.get() {
            _ if is_asked => {}
            Holder::Network => self.holder.set(Holder::Library),
            Holder::Library if self.is_cancelled() => return Err(cancelled()),
            Holder::Library => self.holder.set(Holder::Stranger),
            Holder::Owner | Holder::Stranger => {}
        }
        Ok(())
    }

    /// Returns whether a finish must wait for the answer, which is sure to come.
    pub(super) fn holds_finish(&self) -> bool {
        self.holder.get() != Holder::Stranger
    }

    /// Notes that the peer let go of it.
    pub(super) fn let_go(&self) {
        self.let_go.set(true);
        self.tell();
    }

    /// Notes that it is answered: it needs no other call any more.
    pub(super) fn settle(&self) {
        let mut unneeded = self.needs.take();
        while let Some(call) = unneeded.pop() {
            call.needed_by.set(call.needed_by.get() - 1);
            if call.is_cancelled() {
                unneeded.append(&mut call.needs.take());
                call.wake();
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.let_go.get() && self.needed_by.get() == 0
    }

    fn tell(&self) {
        if self.is_cancelled() {
            self.settle();
            self.wake();
        }
    }

    fn wake(&self) {
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Whoever made a call: it may stop waiting for the answer.
///
/// Who asks for a caller must answer soon after it has left, by dropping the call's results, and so that its
/// promise ends; [`until_left`](Self::until_left) does both for a future that owns the results.
pub struct Caller(Option<Rc<Call>>);

impl Caller {
    /// Returns the caller whose parameters these are.
    ///
    /// Callers of this vat never leave: the promise that they hold is dropped instead.
    pub fn of(params: &dyn ParamsHook) -> Self {
        ASKED.set(Asked::Whose);
        // What is wrong with the parameters is found by who needs them.
        let _ = params.get();
        match ASKED.replace(Asked::Not) {
            Asked::This(call) => {
                call.holder.set(Holder::Owner);
                Self(Some(call))
            }
            _ => Self(None),
        }
    }

    /// Returns whether nobody waits for the answer any more.
    pub fn has_left(&self) -> bool {
        self.0.as_ref().is_some_and(|call| call.is_cancelled())
    }

    /// Runs `answer` until it has ended or the caller has left; then it is dropped.
    ///
    /// # Errors
    /// The error of `answer`, or that the call was cancelled.
    ///
    /// # Cancel safety
    /// Dropping the future drops `answer`.
    pub async fn until_left<T>(
        self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(call) = self.0 else { return answer.await };
        let mut answer = pin!(answer);
        poll_fn(|context| {
            if call.is_cancelled() {
                return Poll::Ready(Err(cancelled()));
            }
            let polled = answer.as_mut().poll(context);
            if polled.is_pending() {
                let mut waker = call.waker.borrow_mut();
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
            }
            polled
        })
        .await
    }
}

/// Returns how a call ends whose caller has left. Nobody reads it.
pub fn cancelled() -> Error {
    Error::failed("the caller cancelled the call".into())
}
