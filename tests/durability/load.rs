//! Rounds of load, kill and start, and what must be there each time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use stubborn::{Client, Stub};

use crate::ledger::LEDGER;
use crate::number;
use crate::process::{Disk, Folder, Process};
use crate::support::{self, Random};

/// Calls that are under way at a time.
const IN_FLIGHT: usize = 24;
const KINDS: [&str; 5] = ["count", "put", "move", "sql", "alarm"];
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client knows of the operations of one object.
#[derive(Default)]
struct Known {
    /// It was told that they were done.
    acknowledged: BTreeSet<String>,
    /// It asked for them and heard nothing.
    uncertain: BTreeSet<String>,
}

/// Kills a server again and again, and checks after each start what it has.
pub(crate) fn rounds(disk: Disk) {
    let rounds = number("STUBBORN_ROUNDS", 12);
    let seed = number("STUBBORN_SEED", 1);
    for objects in [1, 200] {
        let half = rounds.div_ceil(2);
        support::run(async {
            let folder = Folder::new(&format!("{disk:?}-{objects}"));
            let known = RefCell::new(BTreeMap::<u64, Known>::new());
            let (mut slowest, mut acknowledged) = (Duration::ZERO, 0);
            for round in 0..half {
                let seed = seed * 1_000 + round;
                let mut server = Process::start(&folder, disk, seed);
                slowest = slowest.max(server.took);
                let client = server.connect().await;
                check(&client, &known, objects).await;
                acknowledged += load(&mut server, &client, &known, objects, seed).await;
                if disk == Disk::LosesPower {
                    folder.lose_power();
                }
            }
            let server = Process::start(&folder, disk, seed);
            slowest = slowest.max(server.took);
            check(&server.connect().await, &known, objects).await;
            println!(
                "    {half} rounds, {objects} objects: {acknowledged} acknowledged, none lost; slowest \
                 start {slowest:?}"
            );
            assert!(slowest < PATIENCE, "{slowest:?}");
        });
    }
}

fn stub(client: &Client, object: u64) -> Stub {
    client.namespace(LEDGER).get_by_name(&format!("ledger-{object}"))
}

/// Calls until a random number was acknowledged, then kills the server under the rest; returns that number.
async fn load(
    server: &mut Process,
    client: &Client,
    known: &RefCell<BTreeMap<u64, Known>>,
    objects: u64,
    seed: u64,
) -> u64 {
    let random = RefCell::new(Random::seeded(seed));
    let until = 20 + random.borrow_mut().below(400);
    let (acknowledged, next) = (Cell::new(0), Cell::new(0_u64));
    let server = RefCell::new(server);
    let stubs: Vec<Stub> = (0..objects).map(|object| stub(client, object)).collect();
    let callers = (0..IN_FLIGHT).map(|_| async {
        while acknowledged.get() < until {
            next.set(next.get() + 1);
            let (object, kind, data) = {
                let mut random = random.borrow_mut();
                let kind = KINDS[random.below(KINDS.len() as u64) as usize];
                (random.below(objects), kind, random.below(1 << 20))
            };
            let op = format!("{seed}-{}", next.get());
            let url = format!("http://do/{kind}/{op}/{data}");
            known.borrow_mut().entry(object).or_default().uncertain.insert(op.clone());
            let Ok(answer) = stubs[object as usize].fetch(url).await else { return };
            assert_eq!(answer.status(), 200);
            let mut known = known.borrow_mut();
            let known = known.entry(object).or_default();
            known.uncertain.remove(&op);
            known.acknowledged.insert(op);
            acknowledged.set(acknowledged.get() + 1);
            if acknowledged.get() == until {
                server.borrow_mut().kill();
            }
        }
    });
    let all = join_all(callers);
    tokio::time::timeout(PATIENCE, all).await.expect("calls are answered, or fail");
    assert!(acknowledged.get() >= until, "calls failed before the server was killed");
    acknowledged.get()
}

/// Checks all objects that were called: nothing acknowledged is missing, nothing is there that nobody asked for,
/// and alarms that were set have rung.
async fn check(client: &Client, known: &RefCell<BTreeMap<u64, Known>>, objects: u64) {
    let calls = known.borrow().keys().copied().collect::<Vec<_>>();
    assert!(calls.len() <= objects as usize);
    for batch in calls.chunks(50) {
        join_all(batch.iter().map(|object| check_one(client, known, *object))).await;
    }
}

async fn check_one(client: &Client, known: &RefCell<BTreeMap<u64, Known>>, object: u64) {
    let stub = stub(client, object);
    let rung = async {
        loop {
            let answer = stub.fetch("http://do/check").await.unwrap();
            let text = answer.into_body().text().await.unwrap();
            let fields: Vec<String> = text.splitn(3, ';').map(str::to_owned).collect();
            assert_eq!(fields[0], "", "object {object}");
            if fields[1] == "0" {
                return fields[2].clone();
            }
        }
    };
    let ops = tokio::time::timeout(PATIENCE, rung).await.expect("an alarm that was set rings");
    let there: BTreeSet<String> = ops.split_whitespace().map(str::to_owned).collect();
    let mut known = known.borrow_mut();
    let known = known.entry(object).or_default();
    let lost: Vec<_> = known.acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "object {object} lost {lost:?}");
    let asked: BTreeSet<_> = known.acknowledged.union(&known.uncertain).cloned().collect();
    let invented: Vec<_> = there.difference(&asked).collect();
    assert!(invented.is_empty(), "object {object} made up {invented:?}");
    // From now on it is known which were made: none of them comes or goes later.
    *known = Known { acknowledged: there, uncertain: BTreeSet::new() };
}
