//! What the thread of a file does with batches of which not all can be written, and with a file that others write.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::from_outside;
use crate::error::Result;
use crate::id::ObjectId;
use crate::storage::engine::{Batch, Change, Done, Engine as _, Lease, Session, Store as _};
use crate::storage::row::{Key, ObjectKey, Space};
use crate::storage::sqlite::checkpoint::Requests;
use crate::storage::sqlite::committer::Committer;
use crate::storage::sqlite::file;
use crate::storage::sqlite::health::Health;
use crate::storage::sqlite::queue::{Outlet, Queue, Submission, Work};
use crate::storage::sqlite::{ReadOnly, Sqlite};
use crate::storage::suite::world::{Scratch, put};

/// A store of one file whose batches are written when the test says so, together.
struct Bench {
    scratch: Scratch,
    queue: Arc<Queue>,
    outlet: Arc<Outlet>,
    health: Arc<Health>,
    committer: Committer,
}

impl Bench {
    fn of(scratch: Scratch) -> Self {
        let path = scratch.path().join("store-00.db");
        let health = Health::open(&path).unwrap();
        let connection = file::open_writer(&path).unwrap();
        let (queue, requests): (Arc<Queue>, Arc<Requests>) = Default::default();
        let committer =
            Committer::new(0, connection, queue.clone(), requests, health.clone()).unwrap();
        Self { scratch, queue, outlet: Outlet::new(Arc::new(|| {})), health, committer }
    }

    /// Has a batch of an object wait, as that session's.
    fn push(&self, session: &Arc<Session>, changes: Vec<Change>) {
        let mut batch = Batch::default();
        changes.into_iter().for_each(|change| batch.push(change));
        let (ticket, batch) = (session.next_ticket(), Arc::new(batch));
        let submission = Submission::new(session.clone(), ticket, batch, self.outlet.clone());
        assert!(self.queue.push(Work::Batch(submission)).is_ok());
    }

    /// Writes all that waits and closes the file.
    fn finish(self) -> (Scratch, Vec<Done>) {
        self.queue.close();
        self.committer.run();
        (self.scratch, self.outlet.take())
    }
}

/// Makes a closed store of one file with some objects, each with rows on pages of its own.
fn made(objects: u64) -> (Scratch, Vec<Lease>) {
    let scratch = Scratch::new();
    let engine = Sqlite::open_with(scratch.path(), 1).unwrap();
    let leases: Vec<Lease> =
        (0..objects).map(|number| engine.acquire(&[object(number).shard()]).unwrap()[0]).collect();
    engine.close();
    let bench = Bench::of(scratch);
    for (number, lease) in (0..objects).zip(&leases) {
        let rows = (0..40).map(|n| put(row(number, n), vec![mark(number); 2000]));
        bench.push(&Session::new(number, object(number), *lease), rows.collect());
    }
    let (scratch, done) = bench.finish();
    assert!(done.iter().all(|one| one.outcome.is_ok()));
    (scratch, leases)
}

fn object(number: u64) -> ObjectKey {
    let id = ObjectId::from_bytes([u8::try_from(number).unwrap(); 32]);
    ObjectKey { space: Space(0), id }
}

fn row(number: u64, n: u8) -> Key {
    Key::value(&object(number), &[n])
}

fn mark(number: u64) -> u8 {
    200 + u8::try_from(number).unwrap()
}

/// Makes the leaves that hold little but rows of an object unreadable.
fn damage(file: PathBuf, number: u64) {
    let mut bytes = fs::read(&file).unwrap();
    let mut damaged = 0;
    for page in bytes.chunks_mut(8192) {
        if page[0] == 10 && page.iter().filter(|byte| **byte == mark(number)).count() > 4000 {
            page[..8].fill(0xee);
            damaged += 1;
        }
    }
    assert!(damaged > 2);
    fs::write(file, bytes).unwrap();
}

fn outcome(done: &[Done], session: u64) -> &Result<()> {
    &done.iter().find(|one| one.session == session).unwrap().outcome
}

#[test]
fn a_damaged_page_of_one_object_fails_no_batch_of_another() {
    for count in [2, 12] {
        let (scratch, leases) = made(count);
        // All but the last, which is enough to give up on a group as a whole.
        let last = count - 1;
        (0..last).for_each(|number| damage(scratch.path().join("store-00.db"), number));
        let bench = Bench::of(scratch);
        let sessions: Vec<_> = (0..count)
            .map(|number| Session::new(number, object(number), leases[number as usize]))
            .collect();
        for n in [20, 21] {
            for (number, session) in (0..count).zip(&sessions) {
                bench.push(session, vec![put(row(number, n), vec![7; 2000])]);
            }
        }
        let (scratch, done) = bench.finish();
        assert_eq!(done.len() as u64, 2 * count);
        for number in 0..last {
            let error = outcome(&done, number).clone().unwrap_err();
            assert!(error.message.contains("store-00.db"), "{error}");
        }
        let of_last: Vec<_> = done.iter().filter(|one| one.session == last).collect();
        assert!(of_last.len() == 2 && of_last.iter().all(|one| one.outcome.is_ok()), "{of_last:?}");
        let look = ReadOnly::open(scratch.path()).unwrap();
        for n in [20, 21] {
            assert_eq!(look.get(&row(last, n)), Ok(Some(vec![7; 2000].into())));
        }
    }
}

#[test]
fn a_lease_that_another_process_has_taken_over_writes_nothing_any_more() {
    let (scratch, leases) = made(2);
    let bench = Bench::of(scratch);
    let other = from_outside(&bench.scratch.path().join("store-00.db"));
    other.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    let taken: ObjectKey = object(0);
    let sql = "UPDATE shard SET epoch = epoch + 5 WHERE shard = ?1";
    assert_eq!(other.execute(sql, [taken.shard()]).unwrap(), 1);
    drop(other);
    for number in [0, 1] {
        let session = Session::new(number, object(number), leases[number as usize]);
        bench.push(&session, vec![put(row(number, 1), "late")]);
    }
    let (_scratch, done) = bench.finish();
    let error = outcome(&done, 0).clone().unwrap_err();
    assert!(error.message.contains("has another owner"), "{error}");
    assert_eq!(outcome(&done, 1), &Ok(()));
}

#[test]
fn a_file_whose_checkpoint_failed_takes_nothing_and_keeps_its_log() {
    let (scratch, leases) = made(1);
    let bench = Bench::of(scratch);
    // Something that is in the log alone.
    let other = from_outside(&bench.scratch.path().join("store-00.db"));
    other.execute("REPLACE INTO meta VALUES ('seals', x'00')", []).unwrap();
    drop(other);
    bench.health.lose(&"the disk is gone");
    assert!(!bench.health.sync());
    bench.push(&Session::new(0, object(0), leases[0]), vec![put(row(0, 1), "late")]);
    let (scratch, done) = bench.finish();
    let error = outcome(&done, 0).clone().unwrap_err().message;
    let words = ["store-00.db", "the disk is gone", "restart the server"];
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
    let log = scratch.path().join("store-00.db-wal");
    assert!(log.metadata().unwrap().len() > 8192);
    // The next start goes on from it.
    Sqlite::open(scratch.path()).unwrap().close();
    assert!(!log.exists());
}
