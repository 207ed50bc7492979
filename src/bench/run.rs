//! Runs a benchmark: starts the servers, lets the subjects take turns, gathers what was found.

use std::io::Write;

use super::args::Args;
use super::load::{self, Sample};
use super::plan::{self, Cell};
use super::process::{self, Process};
use super::progress::Progress;
use super::report::{FOREIGN_CORES_MAX, Report, Row};
use super::stock::Stock;
use super::stubborn::{OtherShard, SameShard};
use super::subject::Subject;
use super::tcp::Tcp;
use crate::error::{Error, Result};

/// Measures, and prints what was found; or, told to, serves a subject until standard input closes.
///
/// It wants a `LocalRuntime` with nothing else to do. `command` are the arguments that lead here when this
/// program is started again; `more` are subjects beside those of the library.
///
/// # Errors
/// *invalid request* for a subject that does not exist; the first error of any call.
///
/// # Cancel safety
/// Dropping the future ends the servers, and prints nothing.
pub async fn run(args: &Args, command: &[&str], more: Vec<Box<dyn Subject>>) -> Result<()> {
    let mut subjects: Vec<Box<dyn Subject>> =
        vec![Box::new(SameShard), Box::<OtherShard>::default(), Box::new(Stock), Box::new(Tcp)];
    subjects.extend(more);
    // Before any other thread starts: they are bound like the one that starts them.
    if args.pin {
        pin(args, &subjects)?;
    }
    if let Some(name) = &args.serve {
        return find(&subjects, name)?.serve().await;
    }
    let report = measure(args, command, &subjects).await?;
    write!(std::io::stdout(), "{report}")?;
    if let Some(path) = &args.json {
        std::fs::write(path, format!("{:#}\n", report.to_json()))
            .map_err(|error| Error::failed(format!("can't write {}: {error}", path.display())))?;
    }
    Ok(())
}

/// Binds the client to core 1 and a server of one thread to core 0. One of more threads has as many cores.
fn pin(args: &Args, subjects: &[Box<dyn Subject>]) -> Result<()> {
    match &args.serve {
        None => process::pin(1),
        Some(name) if find(subjects, name)?.threads() == 1 => process::pin(0),
        Some(name) => process::unpin(find(subjects, name)?.threads()),
    }
}

fn find<'a>(subjects: &'a [Box<dyn Subject>], name: &str) -> Result<&'a dyn Subject> {
    let found = subjects.iter().find(|subject| subject.name() == name);
    found.map(|subject| &**subject).ok_or_else(|| {
        let names: Vec<&str> = subjects.iter().map(|subject| subject.name()).collect();
        Error::invalid_request(format!("no subject `{name}`; there are {}", names.join(", ")))
    })
}

/// A subject whose server runs.
struct Served<'a> {
    subject: &'a dyn Subject,
    process: Process,
    samples: Vec<Vec<Sample>>,
}

async fn measure(args: &Args, command: &[&str], subjects: &[Box<dyn Subject>]) -> Result<Report> {
    let cells = plan::cells(args.effort(), &args.connections, &args.in_flight, &args.body_bytes);
    let chosen: Vec<&dyn Subject> = match &*args.subjects {
        [] => subjects.iter().map(|subject| &**subject).collect(),
        names => names.iter().map(|name| find(subjects, name)).collect::<Result<_>>()?,
    };
    let mut served = Vec::new();
    for subject in chosen {
        let process = Process::start(subject, command, args.pin)?;
        served.push(Served { subject, process, samples: vec![Vec::new(); cells.len()] });
    }
    let progress = Progress::new(args.repeats as usize * cells.len() * served.len());
    for repeat in 1..=args.repeats {
        progress.repeat(repeat, args.repeats);
        for (index, cell) in cells.iter().enumerate() {
            for one in &mut served {
                measure_once(args, one, index, *cell, &progress).await?;
            }
        }
    }
    drop(progress);
    let mut report = Report::default();
    for (index, cell) in cells.iter().enumerate() {
        let samples = served.iter().filter_map(|one| Some((one.subject, one.samples.get(index)?)));
        report.rows.extend(samples.map(|(subject, of)| Row::of(*cell, subject.name(), of)));
    }
    for one in served {
        one.process.stop().await;
    }
    Ok(report)
}

async fn measure_once(
    args: &Args,
    one: &mut Served<'_>,
    index: usize,
    cell: Cell,
    progress: &Progress,
) -> Result<()> {
    let what = format!("{}: {cell}", one.subject.name());
    progress.next(&what);
    let mut quietest: Option<Sample> = None;
    for _ in 0..=args.retries {
        let sample = load::measure(one.subject, &one.process, cell, args.timing()).await;
        let sample =
            sample.map_err(|error| Error { message: format!("{what}: {error}"), ..error })?;
        let is_better = |best: &Sample| sample.foreign_cores < best.foreign_cores;
        if quietest.as_ref().is_none_or(is_better) {
            quietest = Some(sample);
        }
        if sample.foreign_cores <= FOREIGN_CORES_MAX {
            break;
        }
    }
    if let Some(samples) = one.samples.get_mut(index) {
        samples.extend(quietest);
    }
    progress.done();
    Ok(())
}
