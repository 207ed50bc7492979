//! Durable increments a second: the server over loopback, beside floors that the same disk gives.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use stubborn::{Client, Error, Result, Stub};

use super::child::{self, Start, Subject};
use super::class;
use super::load::{self, Sample};
use super::report::{Report, Row};

/// What is measured, and how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Numbers of objects
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 64, 1000])]
    objects: Vec<usize>,

    /// Increments in flight; one object is also measured with 1
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [16, 64, 1024])]
    in_flight: Vec<usize>,

    /// Connections that those in flight are spread over
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,

    /// By how much every sync takes longer, in microseconds
    #[arg(long, value_name = "US", value_delimiter = ',', default_values_t = [0, 1000, 5000])]
    sync_us: Vec<u32>,

    /// How often everything is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeats: usize,

    /// How long each measurement takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500)]
    lasts_ms: u64,

    /// Threads that run objects
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,

    /// Measure stores of so many files, too (beside what a new store gets)
    #[arg(long, value_name = "N", value_delimiter = ',')]
    files: Vec<u32>,

    /// Leave the floors out
    #[arg(long)]
    no_floors: bool,

    /// Write the report as JSON to FILE, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One combination that everything is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// By how much syncs take longer, in microseconds.
    pub sync_us: u32,
    /// Objects.
    pub objects: usize,
    /// Increments in flight.
    pub in_flight: usize,
}

/// Measures, and prints what was found.
pub async fn run(args: &Args) -> Result<()> {
    let library = child::shim()?;
    let mut report = Report::default();
    for sync_us in &args.sync_us {
        let mut disk = Disk::start(args, *sync_us, &library).await?;
        for repeat in 1..=args.repeats {
            eprintln!("syncs + {sync_us} us: repeat {repeat} of {}", args.repeats);
            for cell in cells(args, *sync_us) {
                disk.measure(args, cell, &mut report).await?;
            }
        }
        for served in disk.served {
            served.process.stop()?;
        }
    }
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{:#}\n", report.to_json()))?;
    }
    Ok(())
}

fn cells(args: &Args, sync_us: u32) -> Vec<Cell> {
    let mut cells = Vec::new();
    for objects in args.objects.iter().copied() {
        let alone = (objects == 1).then_some(1);
        for in_flight in alone.into_iter().chain(args.in_flight.iter().copied()) {
            let cell = Cell { sync_us, objects, in_flight };
            if !cells.contains(&cell) {
                cells.push(cell);
            }
        }
    }
    cells
}

/// All subjects on a disk whose syncs take so long.
struct Disk {
    floors: Subject,
    served: Vec<Served>,
}

struct Served {
    name: String,
    process: Subject,
    /// Of each connection.
    stubs: Vec<Vec<Stub>>,
}

impl Disk {
    async fn start(args: &Args, sync_us: u32, library: &Path) -> Result<Self> {
        let slow = Some((library, sync_us));
        let mut kinds = vec![("ours".to_owned(), None)];
        kinds.extend(args.files.iter().map(|files| (format!("ours, {files} files"), Some(*files))));
        if !args.no_floors {
            kinds.push(("log + rpc".to_owned(), None));
        }
        let mut served = Vec::new();
        for (name, files) in kinds {
            let is_ours = name.starts_with("ours");
            let subject = if is_ours { "ours" } else { "logged" };
            let dir = child::scratch(&name.replace([' ', ',', '+'], "-"))?;
            let dir = Some(dir.as_path());
            let mut process =
                Subject::start(&Start { subject, dir, threads: args.threads, files, slow })?;
            let (address, mut stubs) = (process.hear()?, Vec::new());
            let most = args.objects.iter().copied().max().unwrap_or(1);
            for _ in 0..args.connections {
                let client = Client::connect(&address).await?;
                let name = if is_ours { class::NAMESPACE } else { class::LOGGED };
                let namespace = client.namespace(name);
                let named = |number| namespace.get_by_name(&format!("counter-{number}"));
                stubs.push((0..most).map(named).collect::<Vec<_>>());
            }
            let all = stubs.iter().flatten().map(load::increment);
            futures::future::try_join_all(all).await?;
            served.push(Served { name, process, stubs });
        }
        let dir = child::scratch("floors")?;
        let floors = Start { subject: "floors", dir: Some(&dir), threads: 1, files: None, slow };
        Ok(Self { floors: Subject::start(&floors)?, served })
    }

    async fn measure(&mut self, args: &Args, cell: Cell, report: &mut Report) -> Result<()> {
        let lasts = Duration::from_millis(args.lasts_ms);
        let Cell { objects, in_flight, .. } = cell;
        for served in &self.served {
            let disk = floor(&mut self.floors, &format!("sync {}", SYNC_MS))?;
            let some = |stubs: &Vec<Stub>| stubs.get(..objects).unwrap_or_default().to_vec();
            let stubs = Rc::new(served.stubs.iter().map(some).collect());
            let sample = load::measure(&stubs, in_flight, &served.process, WARM_UP, lasts).await?;
            report.add(Row::of(cell, &served.name, sample, disk));
        }
        let mut floors = Vec::new();
        if !args.no_floors {
            floors.push(("log", format!("log {in_flight} {}", args.lasts_ms)));
            floors.push((
                "file per object",
                format!("files {objects} {in_flight} {}", args.lasts_ms),
            ));
            if in_flight == 1 {
                floors.push(("fdatasync", format!("sync {}", args.lasts_ms)));
                floors.push(("fsync", format!("fsync {}", args.lasts_ms)));
            }
        }
        for (name, what) in floors {
            let disk = floor(&mut self.floors, &format!("sync {}", SYNC_MS))?;
            let sample = floor(&mut self.floors, &what)?;
            report.add(Row::of(cell, name, sample, disk));
        }
        Ok(())
    }
}

fn floor(floors: &mut Subject, what: &str) -> Result<Sample> {
    let said = floors.ask(what)?;
    serde_json::from_str(&said).map_err(|_| Error::failed(format!("a floor said {said}")))
}

/// How long the disk's own syncs are measured beside each figure.
const SYNC_MS: u64 = 120;
const WARM_UP: Duration = Duration::from_millis(150);
