//! Random batches, reads and restarts, against the simplest store there is.

use std::sync::Arc;

use proptest::prelude::*;

use super::arbitrary::{self, Model};
use super::world::{Kind, World, all_durable};
use crate::storage::engine::{Change, Order, Session};
use crate::storage::row::KeyRange;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        object: u64,
        changes: Vec<Change>,
    },
    /// All that was submitted becomes durable.
    Finish,
    /// What is durable is told of, as far as it is by now.
    Look,
    /// The store is closed and opened.
    Reopen,
    /// The store is found by another start after a crash, with nothing pending.
    Crash,
    Scan {
        range: KeyRange,
        order: Order,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let submit = (0..3_u64).prop_flat_map(|object| {
        let changes = arbitrary::changes(arbitrary::object(object));
        changes.prop_map(move |changes| Step::Submit { object, changes })
    });
    let scan = (arbitrary::range(), arbitrary::order());
    prop_oneof![
        12 => submit,
        2 => Just(Step::Finish),
        4 => Just(Step::Look),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
        10 => scan.prop_map(|(range, order)| Step::Scan { range, order }),
    ]
}

fn sessions(world: &World) -> Vec<Arc<Session>> {
    (0..3).map(|number| world.session(number, arbitrary::object(number))).collect()
}

fn check(kind: Kind, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut world, mut model) = (World::new(kind), Model::default());
    let mut sessions_now = sessions(&world);
    let mut thread = world.thread();
    for step in steps {
        match step {
            Step::Submit { object, changes } => {
                model.apply(&changes);
                thread.submit(&sessions_now[object as usize], changes);
            }
            Step::Finish => all_durable(&thread.finish()),
            Step::Look => thread.look(),
            Step::Reopen | Step::Crash => {
                all_durable(&thread.finish());
                drop(thread);
                world = match step {
                    Step::Reopen => world.reopen(),
                    _ => world.crash(),
                };
                (thread, sessions_now) = (world.thread(), sessions(&world));
            }
            Step::Scan { range, order } => {
                let found = thread.scan(&range, order);
                prop_assert_eq!(found, model.scan(&range, order), "{:?} {:?}", range, order);
            }
        }
    }
    for key in arbitrary::keys() {
        prop_assert_eq!(thread.get(&key), model.get(&key), "{:?}", key);
    }
    all_durable(&thread.finish());
    for key in arbitrary::keys() {
        prop_assert_eq!(thread.get(&key), model.get(&key), "durable: {:?}", key);
    }
    Ok(())
}

proptest! {
    #![proptest_config(arbitrary::config(200))]

    #[test]
    fn a_store_in_memory_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        check(Kind::Memory, steps.clone())?;
        check(Kind::Held, steps)?;
    }
}

proptest! {
    #![proptest_config(arbitrary::config(12))]

    #[test]
    fn a_store_on_disk_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        check(Kind::Disk(1), steps.clone())?;
        check(Kind::Disk(2), steps)?;
    }
}
