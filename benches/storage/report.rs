//! What was found: medians of the repeats, ratios, goals; as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::commits::Cell;
use super::load::Sample;

/// What was found, as it comes.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

/// Everything about one subject in one cell.
#[derive(Serialize)]
pub struct Row {
    cell: Cell,
    subject: String,
    samples: Vec<Sample>,
    /// The disk's own syncs, right before each sample.
    disk: Vec<Sample>,
}

/// What is to be reached.
#[derive(Serialize)]
struct Goal {
    cell: Cell,
    what: &'static str,
    measured: f64,
    wanted: String,
    met: bool,
}

impl Row {
    /// Makes the row of one measurement, with what the disk did right before.
    pub fn of(cell: Cell, subject: &str, sample: Sample, disk: Sample) -> Self {
        Self { cell, subject: subject.to_owned(), samples: vec![sample], disk: vec![disk] }
    }

    fn rates(&self) -> Vec<f64> {
        sorted(self.samples.iter().map(|sample| sample.per_s))
    }

    fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(&sorted(self.samples.iter().map(of)))
    }

    fn disk(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(&sorted(self.disk.iter().map(of)))
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// Adds one measurement to those of its subject and cell.
    pub fn add(&mut self, row: Row) {
        let same = |known: &&mut Row| known.cell == row.cell && known.subject == row.subject;
        match self.rows.iter_mut().find(same) {
            Some(known) => {
                known.samples.extend(row.samples);
                known.disk.extend(row.disk);
            }
            None => self.rows.push(row),
        }
    }

    /// Returns everything, with the goals.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "rows": self.rows, "goals": self.goals() })
    }

    fn find(&self, cell: Cell, subject: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.cell == cell && row.subject == subject)
    }

    /// Returns the median of the ratios of the repeats: both were measured a moment apart.
    fn ratio(&self, cell: Cell, subject: &str, beside: &str) -> Option<f64> {
        let (row, beside) = (self.find(cell, subject)?, self.find(cell, beside)?);
        let pairs = row.samples.iter().zip(&beside.samples);
        Some(median(&sorted(pairs.map(|(one, other)| one.per_s / other.per_s))))
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = Vec::new();
        for row in &self.rows {
            if !cells.contains(&row.cell) {
                cells.push(row.cell);
            }
        }
        cells
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for cell in self.cells() {
            if cell.objects == 1
                && cell.in_flight == 1
                && let Some(row) = self.find(cell, "ours")
            {
                let pairs = row.samples.iter().zip(&row.disk);
                let measured = median(&sorted(pairs.map(|(one, disk)| one.p50_us / disk.p50_us)));
                let (what, wanted) = ("one object, sequential: of one sync (p50)", "<= 1.30");
                goals.push(Goal {
                    cell,
                    what,
                    measured,
                    wanted: wanted.to_owned(),
                    met: measured <= 1.3,
                });
            }
            let mut at_least = |what, least: f64, ratio: Option<f64>| {
                if let Some(measured) = ratio {
                    let wanted = format!(">= {least:.2}");
                    goals.push(Goal { cell, what, measured, wanted, met: measured >= least });
                }
            };
            if cell.in_flight == 64 {
                at_least("64 in flight: of the bare log", 0.5, self.ratio(cell, "ours", "log"));
            }
            if cell.objects == 1000 && cell.sync_us == 1000 {
                at_least(
                    "1,000 objects: of one file each",
                    5.0,
                    self.ratio(cell, "ours", "file per object"),
                );
            }
        }
        goals
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goals = self.goals();
        for cell in self.cells() {
            let Cell { sync_us, objects, in_flight } = cell;
            writeln!(f, "{objects} objects, {in_flight} in flight, syncs + {sync_us} us")?;
            writeln!(
                f,
                "  {:<17}{:>9}{:>17}{:>10}{:>10}{:>9}{:>7}{:>10}{:>15}",
                "",
                "commits/s",
                "min-max",
                "p50 us",
                "p99 us",
                "cpu us",
                "/log",
                "/log+rpc",
                "sync p50/p99 us"
            )?;
            for row in self.rows.iter().filter(|row| row.cell == cell) {
                self.write_row(f, row)?;
            }
            for Goal { what, measured, wanted, met, .. } in
                goals.iter().filter(|goal| goal.cell == cell)
            {
                let verdict = if *met { "ok" } else { "MISSED" };
                writeln!(f, "  goal: {what} {measured:.2} {wanted}  {verdict}")?;
            }
            writeln!(f)?;
        }
        f.write_str("All are medians of the repeats; ratios are of the same repeat. The log and the files are\n")?;
        f.write_str("written in their own process; log + rpc is that log behind our server. Cpu: the server's.")
    }
}

impl Report {
    fn write_row(&self, f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
        let rates = row.rates();
        let bound = |rate: Option<&f64>| short(rate.copied().unwrap_or(f64::NAN));
        let spread = format!("[{}-{}]", bound(rates.first()), bound(rates.last()));
        let ratio = |beside| {
            let ratio = self.ratio(row.cell, &row.subject, beside);
            ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"))
        };
        let cpu = row.median(|sample| sample.cpu_us.unwrap_or(f64::NAN));
        let cpu = if cpu.is_nan() { String::new() } else { format!("{cpu:.1}") };
        let disk = format!("{:.0}/{:.0}", row.disk(|one| one.p50_us), row.disk(|one| one.p99_us));
        writeln!(
            f,
            "  {:<17}{:>9}{spread:>17}{:>10.0}{:>10.0}{cpu:>9}{:>7}{:>10}{disk:>15}",
            row.subject,
            short(median(&rates)),
            row.median(|sample| sample.p50_us),
            row.median(|sample| sample.p99_us),
            ratio("log"),
            ratio("log + rpc"),
        )
    }
}

/// Writes a rate with three digits or more.
fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2}M", rate / 1e6),
        rate if rate >= 1e5 => format!("{:.0}k", rate / 1e3),
        rate if rate >= 1e3 => format!("{:.1}k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}
