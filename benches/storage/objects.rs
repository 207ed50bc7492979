//! A store of many objects: filling it, starting on it, listing it, opening its objects, memory and disk.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use stubborn::id::NamespaceKey;
use stubborn::storage::engine::{Batch, Change, Engine as _, Session, Store};
use stubborn::storage::record::{Alarm, Record};
use stubborn::storage::row::{Key, ObjectKey, VIRTUAL_SHARDS};
use stubborn::storage::sqlite::Sqlite;
use stubborn::storage::value;
use stubborn::{Client, Error, Result};

use super::child::{self, Start, Subject};
use super::class;
use super::load::percentile_us;

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Objects that are stored
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    stored: usize,

    /// Objects that are live
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    live: usize,

    /// How often each thing is measured
    #[arg(long, value_name = "N", default_value_t = 200)]
    repeats: usize,

    /// Threads that run objects
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
}

/// Measures, and prints as it goes.
pub async fn run(args: &Args) -> Result<()> {
    let dir = child::scratch("objects")?;
    fill(&dir, args.stored, None)?;
    disk(&dir, args.stored)?;
    let mut server = Server::start("clean", args, Some(&dir)).await?;
    for limit in [1_000, 10_000] {
        list(&server, limit, args.repeats / 4).await?;
    }
    list_all(&server).await?;
    server.process.stop()?;

    forget_pages(&dir)?;
    server = Server::start("with cold files", args, Some(&dir)).await?;
    open(&server, args, "no page of a file in memory", args.repeats).await?;
    list_all(&server).await?;
    open(&server, args, "files in memory", args.repeats * 10).await?;
    server.process.stop()?;

    server = Server::start("again", args, Some(&dir)).await?;
    list_all(&server).await?;
    live(&server, args, "stored, read", http::Method::GET, "object-").await?;
    live(&server, args, "stored, written", http::Method::POST, "object-").await?;
    live(&server, args, "new, written", http::Method::POST, "new-").await?;
    server.process.kill()?;
    server = Server::start("after kill -9 of that", args, Some(&dir)).await?;
    server.process.stop()?;
    server = Server::start("in memory", args, None).await?;
    live(&server, args, "in memory, nothing stored", http::Method::GET, "idle-").await?;
    live(&server, args, "in memory, written", http::Method::POST, "new-").await?;
    server.process.stop()?;

    fill(&dir, args.stored, Some(in_an_hour()))?;
    disk(&dir, args.stored)?;
    server = Server::start("with as many alarms", args, Some(&dir)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("memory with as many alarms pending: {}", mib(server.process.memory()));
    server.process.stop()
}

fn in_an_hour() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64) + 3_600_000
}

/// Writes the records, and the values or the alarms, of so many objects.
fn fill(dir: &Path, objects: usize, alarm_ms: Option<u64>) -> Result<()> {
    let begun = Instant::now();
    let engine = Sqlite::open(dir)?;
    let key = NamespaceKey::new(class::NAMESPACE);
    let space = engine.space(key.fingerprint(), class::NAMESPACE)?;
    let leases = engine.acquire(&(0..VIRTUAL_SHARDS).collect::<Vec<_>>())?;
    let woken = Arc::new((Mutex::new(false), Condvar::new()));
    let bell = woken.clone();
    let store = engine.store(Arc::new(move || {
        *bell.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        bell.1.notify_one();
    }))?;
    let mut on_their_way = 0;
    for number in 0..objects {
        let name = format!("object-{number}");
        let object = ObjectKey { space, id: key.id_from_name(&name) };
        let lease = leases.get(usize::from(object.shard())).copied();
        let lease = lease.ok_or_else(|| Error::failed("a shard has no lease"))?;
        let session = Session::new(number as u64, object, lease);
        let due_ms = alarm_ms.map(|first| first + number as u64);
        let alarm = due_ms.map(Alarm::at);
        let record = Record { name: Some(name), has_data: true, alarm, ..Record::default() };
        let mut batch = Batch::default();
        batch.push(Change::Put(Key::object(&object), record.encode()?));
        batch.push(match due_ms {
            Some(due_ms) => Change::Put(Key::alarm(due_ms, &object), Bytes::new()),
            None => Change::Put(Key::value(&object, b"value"), value::encode(&number)?),
        });
        store.submit(&session, batch);
        on_their_way += 1;
        if on_their_way >= 16_384 || number + 1 == objects {
            let left = if number + 1 == objects { 0 } else { 8_192 };
            on_their_way = settle(&*store, &woken, on_their_way, left)?;
        }
    }
    drop(store);
    engine.close();
    let what = if alarm_ms.is_some() { "alarms" } else { "objects with a value" };
    println!("filled {objects} {what} in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Waits until at most `left` batches are not durable.
fn settle(
    store: &dyn Store,
    woken: &(Mutex<bool>, Condvar),
    mut waiting: usize,
    left: usize,
) -> Result<usize> {
    let mut done = Vec::new();
    while waiting > left {
        let (flag, bell) = woken;
        let mut is_woken = flag.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_woken {
            is_woken = bell.wait(is_woken).unwrap_or_else(PoisonError::into_inner);
        }
        *is_woken = false;
        drop(is_woken);
        store.take_done(&mut done);
        for one in done.drain(..) {
            one.outcome?;
            waiting -= 1;
        }
    }
    Ok(waiting)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?;
    Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>()?)
}

fn disk(dir: &Path, objects: usize) -> Result<()> {
    let mut bytes = 0;
    for file in files(dir)? {
        bytes += file.metadata()?.len();
    }
    println!("on disk: {}, {} bytes an object", mib(bytes), bytes / objects.max(1) as u64);
    Ok(())
}

/// Has the machine forget what it holds of the files: what is read next comes from the disk.
fn forget_pages(dir: &Path) -> Result<()> {
    for path in files(dir)? {
        let file = std::fs::File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| Error::failed(format!("pages can't be dropped: {error}")))?;
    }
    Ok(())
}

/// A server that runs, and a connection to it.
struct Server {
    process: Subject,
    namespace: stubborn::Namespace,
}

impl Server {
    async fn start(how: &str, args: &Args, dir: Option<&Path>) -> Result<Self> {
        let begun = Instant::now();
        let threads = args.threads;
        let start = Start { subject: "ours", dir, threads, files: None, slow: None };
        let mut process = Subject::start(&start)?;
        let address = process.hear()?;
        let ready = begun.elapsed();
        let namespace = Client::connect(&address).await?.namespace(class::NAMESPACE);
        let first = namespace.get_by_name("object-0").fetch(request(http::Method::GET)).await?;
        drop(first.into_body().text().await?);
        let answered = begun.elapsed();
        println!(
            "start ({how}): listens after {:.1} ms, has answered after {:.1} ms; memory {}",
            ready.as_secs_f64() * 1e3,
            answered.as_secs_f64() * 1e3,
            mib(process.memory()),
        );
        Ok(Self { process, namespace })
    }
}

/// Lists pages, one after the other.
async fn list(server: &Server, limit: u32, pages: usize) -> Result<()> {
    let (mut latencies, mut cursor) = (Vec::new(), None);
    for _ in 0..pages.max(3) {
        let begun = Instant::now();
        let page = server.namespace.list(limit, cursor.as_deref()).await?;
        latencies.push(nanoseconds(begun.elapsed()));
        cursor = page.cursor;
    }
    report(&format!("a page of {limit} objects"), latencies, Some(50.0));
    Ok(())
}

async fn list_all(server: &Server) -> Result<()> {
    let (mut count, mut cursor, begun) = (0, None, Instant::now());
    loop {
        let page = server.namespace.list(10_000, cursor.as_deref()).await?;
        count += page.objects.len();
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let (took, memory) = (begun.elapsed().as_secs_f64(), mib(server.process.memory()));
    println!("listed all {count} objects in {took:.2} s; memory {memory}");
    Ok(())
}

/// Opens objects at random that are not in memory, and calls each once more.
async fn open(server: &Server, args: &Args, how: &str, count: usize) -> Result<()> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    // Numbers of a full cycle: no object comes twice, of this call or the one before.
    let mut number = count;
    for _ in 0..count {
        number = (number + 7_368_787) % args.stored;
        let stub = server.namespace.get_by_name(&format!("object-{number}"));
        for latencies in [&mut first, &mut second] {
            let begun = Instant::now();
            let response = stub.fetch(request(http::Method::GET)).await?;
            let sum = response.into_body().text().await?;
            latencies.push(nanoseconds(begun.elapsed()));
            if sum != number.to_string() {
                return Err(Error::failed(format!("object-{number} says {sum}")));
            }
        }
    }
    let goal = (how == "files in memory").then_some(1.0);
    report(&format!("opening one and fetching from it ({how})"), first, goal);
    report("fetching from it again", second, None);
    Ok(())
}

/// Has objects come into memory and stay, and looks at how much that takes.
async fn live(
    server: &Server,
    args: &Args,
    how: &str,
    method: http::Method,
    prefix: &str,
) -> Result<()> {
    // So that what is only made once has been made.
    bring(server, &method, prefix, 0..args.live / 5).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = server.process.memory();
    bring(server, &method, prefix, args.live / 5..args.live / 5 + args.live).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = server.process.memory().saturating_sub(before);
    let each = grown as f64 / args.live as f64;
    let verdict = if each <= 8192.0 { "ok" } else { "MISSED" };
    println!("{} live objects ({how}): {each:.0} bytes each; goal <= 8192: {verdict}", args.live);
    Ok(())
}

async fn bring(
    server: &Server,
    method: &http::Method,
    prefix: &str,
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    let numbers = Rc::new(std::cell::RefCell::new(numbers));
    let one = || async {
        loop {
            let Some(number) = numbers.borrow_mut().next() else { return Ok::<_, Error>(()) };
            let stub = server.namespace.get_by_name(&format!("{prefix}{number}"));
            drop(stub.fetch(request(method.clone())).await?.into_body().text().await?);
        }
    };
    futures::future::try_join_all((0..32).map(|_| one())).await?;
    Ok(())
}

fn request(method: http::Method) -> http::Request<&'static str> {
    let mut request = http::Request::new("");
    *request.method_mut() = method;
    *request.uri_mut() = http::Uri::from_static("http://do/");
    request
}

fn report(what: &str, mut latencies: Vec<u32>, goal_ms: Option<f64>) {
    latencies.sort_unstable();
    let ms = |percent| percentile_us(&latencies, percent) / 1e3;
    let (p50, p99) = (ms(50), ms(99));
    let count = latencies.len();
    print!("{what}: p50 {p50:.3} ms, p99 {p99:.3} ms, of {count}");
    match goal_ms {
        Some(goal) => println!("; goal < {goal} ms: {}", if p50 < goal { "ok" } else { "MISSED" }),
        None => println!(),
    }
}

fn nanoseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}
