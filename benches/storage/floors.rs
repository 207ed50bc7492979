//! What nothing durable can beat: a bare loop of syncs, a bare log with group commit, a SQLite file per object.
//!
//! One process is all of them: it is told a line at a time what to measure, and answers with a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use stubborn::{Error, Result};

use super::Serve;
use super::load::Sample;

/// The bytes of one commit in a bare log.
const RECORD: [u8; 150] = [0x5a; 150];
/// Threads of the pool that writes files of objects.
const POOL: usize = 64;

/// Measures what standard input asks for: `sync MS`, `fsync MS`, `log IN_FLIGHT MS`, `files OBJECTS IN_FLIGHT MS`.
pub fn serve(serve: &Serve) -> Result<()> {
    let dir = serve.dir.as_deref().ok_or_else(|| Error::failed("floors need a directory"))?;
    let mut files = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| {
            let word = words.get(index).ok_or_else(|| Error::failed("a number is missing"))?;
            Ok::<usize, Error>(word.parse::<usize>()?)
        };
        let ms = |index: usize| Ok::<_, Error>(Duration::from_millis(number(index)? as u64));
        let sample = match words.first() {
            Some(&"sync") => syncs(dir, File::sync_data, ms(1)?)?,
            Some(&"fsync") => syncs(dir, File::sync_all, ms(1)?)?,
            Some(&"log") => log(dir, number(1)?, ms(2)?)?,
            Some(&"files") => {
                let objects = number(1)?;
                while files.len() < objects {
                    files.push(Arc::new(Mutex::new(object_file(dir, files.len())?)));
                }
                per_object(files.get(..objects).unwrap_or_default(), number(2)?, ms(3)?)?
            }
            _ => return Ok(()),
        };
        let text =
            serde_json::to_string(&sample).map_err(|error| Error::failed(error.to_string()))?;
        writeln!(std::io::stdout(), "{text}")?;
    }
    Ok(())
}

/// Appends and syncs, one after the other.
fn syncs(dir: &Path, sync: fn(&File) -> std::io::Result<()>, lasts: Duration) -> Result<Sample> {
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join("sync.log"))?;
    let (start, mut latencies) = (Instant::now(), Vec::new());
    while start.elapsed() < lasts {
        let begun = Instant::now();
        file.write_all(&RECORD)?;
        sync(&file)?;
        latencies.push(nanoseconds(begun.elapsed()));
    }
    Ok(Sample::of(latencies, start.elapsed()))
}

fn nanoseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

/// One record on its way into a log, and whom to tell.
pub struct Entry {
    begun: Instant,
    told: Told,
}

enum Told {
    Driver(std::sync::mpsc::SyncSender<Vec<Instant>>),
    Caller(tokio::sync::oneshot::Sender<()>),
}

impl Entry {
    /// Makes one that tells `told` when it is synced.
    pub fn of(told: tokio::sync::oneshot::Sender<()>) -> Self {
        Self { begun: Instant::now(), told: Told::Caller(told) }
    }
}

/// A log with one thread that appends what waits and syncs once for all of it.
#[derive(Clone)]
pub struct Log {
    queue: Arc<(Mutex<Vec<Entry>>, Condvar)>,
}

impl Log {
    /// Starts one.
    pub fn start(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let log = Self { queue: Arc::default() };
        let queue = log.queue.clone();
        let commit = move || {
            let (mut group, mut bytes) = (Vec::new(), Vec::new());
            loop {
                let (waiting, filled) = &*queue;
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                while waiting.is_empty() {
                    waiting = filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                std::mem::swap(&mut *waiting, &mut group);
                drop(waiting);
                bytes.clear();
                group.iter().for_each(|_| bytes.extend_from_slice(&RECORD));
                if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
                    return;
                }
                tell(&mut group);
            }
        };
        std::thread::Builder::new().name("log".to_owned()).spawn(commit)?;
        Ok(log)
    }

    /// Appends an entry; it is told of when it is synced.
    pub fn append(&self, entry: Entry) {
        self.append_all([entry]);
    }

    fn append_all(&self, entries: impl IntoIterator<Item = Entry>) {
        let (waiting, filled) = &*self.queue;
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = waiting.is_empty();
        waiting.extend(entries);
        drop(waiting);
        if was_empty {
            filled.notify_one();
        }
    }
}

fn tell(group: &mut Vec<Entry>) {
    let mut driver = None;
    for entry in group.drain(..) {
        match entry.told {
            Told::Caller(told) => drop(told.send(())),
            Told::Driver(told) => {
                driver.get_or_insert_with(|| (told, Vec::new())).1.push(entry.begun);
            }
        }
    }
    if let Some((told, begun)) = driver {
        let _ = told.send(begun);
    }
}

/// Keeps `in_flight` records on their way into a log.
fn log(dir: &Path, in_flight: usize, lasts: Duration) -> Result<Sample> {
    let log = Log::start(&dir.join("bare.log"))?;
    let (told, synced) = std::sync::mpsc::sync_channel(in_flight);
    let entries = |count: usize| {
        let told = told.clone();
        let begun = Instant::now();
        (0..count).map(move |_| Entry { begun, told: Told::Driver(told.clone()) })
    };
    let (start, mut latencies) = (Instant::now(), Vec::new());
    log.append_all(entries(in_flight));
    while start.elapsed() < lasts {
        let begun: Vec<Instant> = synced.recv().map_err(|_| Error::failed("the log ended"))?;
        log.append_all(entries(begun.len()));
        latencies.extend(begun.into_iter().map(|begun| nanoseconds(begun.elapsed())));
    }
    Ok(Sample::of(latencies, start.elapsed()))
}

/// Makes the file of an object; from then on each of its commits is synced.
fn object_file(dir: &Path, number: usize) -> Result<Connection> {
    let path = dir.join(format!("object-{number}.db"));
    let sql = "PRAGMA synchronous = OFF; PRAGMA journal_mode = WAL;
        CREATE TABLE kv (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
        INSERT INTO kv VALUES ('value', 0); PRAGMA synchronous = FULL;";
    let opened = Connection::open(path).and_then(|connection| {
        connection.execute_batch(sql)?;
        Ok(connection)
    });
    opened.map_err(of_sqlite)
}

fn of_sqlite(error: rusqlite::Error) -> Error {
    Error::failed(error.to_string())
}

/// Increments numbers in files of their own, from a pool of threads.
fn per_object(
    files: &[Arc<Mutex<Connection>>],
    in_flight: usize,
    lasts: Duration,
) -> Result<Sample> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let threads = in_flight.min(POOL).min(files.len());
    let start = Instant::now();
    let work = || {
        let mut latencies = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let index = next.fetch_add(1, Ordering::Relaxed) % files.len();
            let Some(file) = files.get(index) else { break };
            let connection = file.lock().unwrap_or_else(PoisonError::into_inner);
            let sql = "UPDATE kv SET value = value + 1 WHERE key = 'value'";
            connection
                .prepare_cached(sql)
                .and_then(|mut one| one.execute([]))
                .map_err(of_sqlite)?;
            latencies.push(nanoseconds(begun.elapsed()));
        }
        Ok::<_, Error>(latencies)
    };
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        std::thread::sleep(lasts);
        stop.store(true, Ordering::Relaxed);
        for one in running {
            let ended = one.join().map_err(|_| Error::failed("a writer panicked"))?;
            latencies.extend(ended?);
        }
        Ok::<_, Error>(())
    })?;
    // What a pool of threads does not take up waits: more in flight only wait longer.
    Ok(Sample::of(latencies, start.elapsed()))
}
