//! The input gate as the rooms around an object share it: whose code runs, and who waits to run.
//!
//! **Invariant:** whoever was kept from running is woken when that may have changed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::input::{InputGate, Owner, SectionId};

/// Whose code runs where nothing else is said: the constructor's, or a task that the object does not know.
pub const NOBODY: Owner = 0;

/// Says what may run in one object in memory.
#[derive(Default)]
pub struct Entrance {
    gate: RefCell<InputGate>,
    owner: Cell<Owner>,
    section: Cell<Option<SectionId>>,
    /// Who waits until the gate is open.
    outside: RefCell<Vec<Waker>>,
    /// Who waits until an owner's code may run.
    inside: RefCell<BTreeMap<Owner, Vec<Waker>>>,
}

impl Entrance {
    /// Returns whether an event may enter.
    pub fn is_open(&self) -> bool {
        self.gate.borrow().is_open()
    }

    /// Returns whether code of `owner` may run.
    pub fn admits(&self, owner: Owner) -> bool {
        self.gate.borrow().admits(owner)
    }

    /// Wakes `waker` when an event may enter.
    pub fn wait(&self, waker: &Waker) {
        add(&mut self.outside.borrow_mut(), waker);
    }

    /// Wakes `waker` when code of `owner` may run, or another section of it.
    pub fn wait_as(&self, owner: Owner, waker: &Waker) {
        add(self.inside.borrow_mut().entry(owner).or_default(), waker);
    }

    /// Runs `code` as that of `owner`.
    pub fn run_as<T>(&self, owner: Owner, code: impl FnOnce() -> T) -> T {
        let _restored =
            Restored { entrance: self, owner: self.owner.replace(owner), section: None };
        code()
    }

    /// Begins a critical section of whose code runs, inside of the section that runs, if one does. None where
    /// it would nest too deep.
    pub fn begin(self: &Rc<Self>) -> Option<Section> {
        let owner = self.owner.get();
        let id = self.gate.borrow_mut().begin(owner, self.section.get())?;
        Some(Section { entrance: self.clone(), owner, id })
    }

    /// Wakes those who may run now: whose section is the first one, or everybody. With many who wait for a section
    /// each, the rest would wake for nothing every time that one ends.
    fn changed(&self) {
        let first = self.gate.borrow().first();
        let woken = match first {
            Some(owner) => self.inside.borrow_mut().remove(&owner).unwrap_or_default(),
            None => {
                let inside = self.inside.take().into_values().flatten();
                inside.chain(self.outside.take()).collect()
            }
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

fn add(waiting: &mut Vec<Waker>, waker: &Waker) {
    if !waiting.iter().any(|known| known.will_wake(waker)) {
        waiting.push(waker.clone());
    }
}

/// A critical section; it ends when this is dropped.
pub struct Section {
    entrance: Rc<Entrance>,
    owner: Owner,
    id: SectionId,
}

impl Section {
    /// Waits until the section runs.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn entered(&self) {
        poll_fn(|context| match self.entrance.gate.borrow().runs(self.id) {
            true => Poll::Ready(()),
            false => {
                self.entrance.wait_as(self.owner, context.waker());
                Poll::Pending
            }
        })
        .await;
    }

    /// Runs `code` as the section's: what it begins is inside of the section.
    ///
    /// # Cancel safety
    /// Dropping the future drops `code`.
    pub async fn run<T>(&self, code: impl Future<Output = T>) -> T {
        let mut code = pin!(code);
        poll_fn(|context| {
            let entrance = &*self.entrance;
            let section = Some(entrance.section.replace(Some(self.id)));
            let _restored = Restored { entrance, owner: entrance.owner.get(), section };
            code.as_mut().poll(context)
        })
        .await
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        self.entrance.gate.borrow_mut().end(self.id);
        self.entrance.changed();
    }
}

/// Puts back whose code ran before, also where the code panics.
struct Restored<'a> {
    entrance: &'a Entrance,
    owner: Owner,
    section: Option<Option<SectionId>>,
}

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        self.entrance.owner.set(self.owner);
        if let Some(section) = self.section {
            self.entrance.section.set(section);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::task::Wake;

    use futures::FutureExt;
    use futures::channel::oneshot;

    use super::*;

    #[test]
    fn a_section_begun_inside_a_section_is_its_child() {
        let entrance = Rc::new(Entrance::default());
        let outer = entrance.run_as(1, || entrance.begin()).unwrap();
        let other = entrance.run_as(2, || entrance.begin()).unwrap();
        let inside = outer.run(async {
            let inner = entrance.begin().unwrap();
            inner.entered().await;
            inner.run(async { entrance.begin().unwrap().entered().await }).await;
        });
        assert_eq!(entrance.run_as(1, || inside.now_or_never()), Some(()));
        assert_eq!(other.entered().now_or_never(), None);
        drop(outer);
        assert_eq!(other.entered().now_or_never(), Some(()));
        assert!(entrance.admits(2) && !entrance.admits(1));
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_a_section_ends_or_is_given_up() {
        let entrance = Rc::new(Entrance::default());
        let first = entrance.run_as(1, || entrance.begin()).unwrap();
        let second = entrance.run_as(2, || entrance.begin()).unwrap();
        let (told, entered) = oneshot::channel();
        let waiting = async {
            second.entered().await;
            told.send(()).unwrap();
        };
        let ending = async {
            tokio::task::yield_now().await;
            drop(first);
            entered.await.unwrap();
        };
        tokio::join!(waiting, ending);
        assert!(!entrance.is_open());
        drop(second);
        assert!(entrance.is_open());
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Everybody was woken each time: the cost of many handlers that each want a section grew with their cube.
    #[test]
    fn the_end_of_a_section_wakes_the_owner_of_the_next_alone() {
        let entrance = Rc::new(Entrance::default());
        let mut sections: Vec<_> =
            (1..=4).map(|owner| entrance.run_as(owner, || entrance.begin()).unwrap()).collect();
        let [next, later, inside, event] = [2, 3, 5, 0].map(|owner| {
            let woken = Arc::new(Woken::default());
            let waker = woken.clone().into();
            match owner {
                0 => entrance.wait(&waker),
                owner => entrance.wait_as(owner, &waker),
            }
            woken
        });
        let woken = || [&next, &later, &inside, &event].map(|woken| woken.0.load(Relaxed));
        sections.remove(0);
        assert_eq!(woken(), [1, 0, 0, 0]);
        // Given up while it waited.
        sections.remove(1);
        assert_eq!(woken(), [1, 0, 0, 0]);
        sections.clear();
        assert_eq!(woken(), [1, 1, 1, 1]);
    }

    #[test]
    fn a_panic_inside_leaves_nothing_of_its_section_running() {
        let entrance = Rc::new(Entrance::default());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            entrance.run_as(7, || {
                let section = entrance.begin().unwrap();
                section.run(async { panic!("asked to") }).now_or_never()
            })
        }));
        assert!(panicked.is_err() && entrance.is_open());
        let section = entrance.begin().unwrap();
        assert!(entrance.admits(NOBODY));
        drop(section);
    }
}
