//! What a benchmark found: medians, ratios, and whether the goals are met, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::load::Sample;
use super::plan::Cell;

/// What a benchmark found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What was measured, cell by cell.
    pub rows: Vec<Row>,
}

/// What was found of one subject in one cell: medians of the repeats.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The cell.
    pub cell: Cell,
    /// The subject.
    pub subject: String,
    /// Calls answered in a second.
    pub calls_per_s: f64,
    /// The slowest repeat, in calls a second.
    pub calls_per_s_min: f64,
    /// The fastest repeat, in calls a second.
    pub calls_per_s_max: f64,
    /// The latency that half of the calls are below, in microseconds.
    pub p50_us: f64,
    /// The latency that 99 of 100 calls are below, in microseconds.
    pub p99_us: f64,
    /// The server's CPU time of one call, in microseconds.
    pub server_us: f64,
    /// The client's CPU time of one call, in microseconds.
    pub client_us: f64,
    /// How many cores were busy with something else.
    pub foreign_cores: f64,
}

/// A ratio that is to be reached in a cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// The cell.
    pub cell: Cell,
    /// Whose calls a second.
    pub subject: &'static str,
    /// Beside whose.
    pub beside: &'static str,
    /// At least this.
    pub least: f64,
    /// What was measured.
    pub measured: f64,
    /// Whether that is enough.
    pub met: bool,
}

impl Row {
    /// Sums up the repeats of one subject in one cell.
    pub(super) fn of(cell: Cell, subject: &str, samples: &[Sample]) -> Self {
        let sorted = |value: fn(&Sample) -> f64| {
            let mut values: Vec<f64> = samples.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let median = |value| {
            let values = sorted(value);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let rates = sorted(|sample| sample.calls_per_s);
        Self {
            cell,
            subject: subject.to_owned(),
            calls_per_s: median(|sample| sample.calls_per_s),
            calls_per_s_min: rates.first().copied().unwrap_or(f64::NAN),
            calls_per_s_max: rates.last().copied().unwrap_or(f64::NAN),
            p50_us: median(|sample| sample.p50_us),
            p99_us: median(|sample| sample.p99_us),
            server_us: median(|sample| sample.server_us),
            client_us: median(|sample| sample.client_us),
            foreign_cores: median(|sample| sample.foreign_cores),
        }
    }
}

impl Report {
    /// Returns the goals of all cells, as far as both of their subjects were measured.
    pub fn goals(&self) -> Vec<Goal> {
        self.cells().into_iter().flat_map(|cell| self.goals_of(cell)).collect()
    }

    /// Returns the report as JSON, with its goals.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "rows": self.rows,
            "goals": self.goals(),
        })
    }

    fn goals_of(&self, cell: Cell) -> Vec<Goal> {
        let of_stock = if cell.in_flight == 1 { 0.8 } else { 1.0 };
        let wanted = [
            Some(("same-shard", "stock", of_stock)),
            (cell.in_flight > 1).then_some(("same-shard", "grpc", 1.5)),
            Some(("other-shard", "same-shard", 0.6)),
        ];
        let goal = |(subject, beside, least)| {
            let measured = self.ratio(cell, subject, beside)?;
            Some(Goal { cell, subject, beside, least, measured, met: measured >= least })
        };
        wanted.into_iter().flatten().filter_map(goal).collect()
    }

    fn ratio(&self, cell: Cell, subject: &str, beside: &str) -> Option<f64> {
        let rate = |name| {
            let row = self.rows.iter().find(|row| row.cell == cell && row.subject == name)?;
            Some(row.calls_per_s)
        };
        Some(rate(subject)? / rate(beside)?)
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = self.rows.iter().map(|row| row.cell).collect();
        cells.dedup();
        cells
    }
}

impl fmt::Display for Report {
    /// Writes tables of at most 100 columns, one for each cell, and its goals below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cell in self.cells() {
            writeln!(f, "{cell}")?;
            write_line(f, &HEADINGS.map(str::to_owned))?;
            for row in self.rows.iter().filter(|row| row.cell == cell) {
                self.write_row(f, row)?;
            }
            for goal in self.goals_of(cell) {
                let Goal { subject, beside, least, measured, met, .. } = goal;
                let verdict = if met { "ok" } else { "MISSED" };
                let what = format!("{subject} / {beside}");
                writeln!(f, "  goal: {what:<25} {measured:>5.2} >= {least:.2}  {verdict}")?;
            }
            writeln!(f)?;
        }
        f.write_str("All are medians of the repeats. Server and client: CPU time of one call.\n")?;
        let busy = self.rows.iter().map(|row| row.foreign_cores).fold(0.0, f64::max);
        if busy > FOREIGN_CORES_MAX {
            writeln!(f, "Up to {busy:.1} cores were busy with something else: don't trust this.")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_row(&self, f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
        let spread = format!("[{}-{}]", short(row.calls_per_s_min), short(row.calls_per_s_max));
        let ratio = |beside: &str| match self.ratio(row.cell, &row.subject, beside) {
            Some(ratio) => format!("{ratio:.2}"),
            None => String::new(),
        };
        let cells = [
            row.subject.clone(),
            short(row.calls_per_s),
            spread,
            format!("{:.1}", row.p50_us),
            format!("{:.1}", row.p99_us),
            format!("{:.2}", row.server_us),
            format!("{:.2}", row.client_us),
            ratio("stock"),
            ratio("grpc"),
        ];
        write_line(f, &cells)
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, cells: &[String; 9]) -> fmt::Result {
    let [name, rate, spread, p50, p99, server, client, stock, grpc] = cells;
    write!(f, "  {name:<13} {rate:>8} {spread:>15} {p50:>9} {p99:>9} {server:>9} {client:>9}")?;
    writeln!(f, " {stock:>7} {grpc:>7}")
}

const HEADINGS: [&str; 9] =
    ["", "calls/s", "min-max", "p50 us", "p99 us", "server us", "client us", "/stock", "/grpc"];

/// Writes a rate with three digits or more.
fn short(rate: f64) -> String {
    match rate {
        rate if rate >= 1e5 => format!("{:.0}k", rate / 1e3),
        rate if rate >= 1e4 => format!("{:.1}k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

/// How much of the machine others may take before the figures tell more of them.
pub(super) const FOREIGN_CORES_MAX: f64 = 0.15;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(in_flight: usize, rates: &[(&str, f64)]) -> Report {
        let cell = Cell { connections: 8, in_flight, body_bytes: 1 << 20 };
        let sample = |calls_per_s| Sample {
            calls_per_s,
            p50_us: 123_456.7,
            p99_us: 234_567.8,
            server_us: 123.45,
            client_us: 123.45,
            foreign_cores: 0.0,
        };
        let row = |(subject, rate): &(&str, f64)| {
            let samples = [sample(*rate), sample(rate * 2.0), sample(rate / 2.0)];
            Row::of(cell, subject, &samples)
        };
        Report { rows: rates.iter().map(row).collect() }
    }

    #[test]
    fn goals_are_those_of_the_cell_and_of_what_was_measured() {
        let rates = [("same-shard", 90e3), ("other-shard", 60e3), ("stock", 100e3), ("grpc", 50e3)];
        let verdicts = |report: Report| -> Vec<_> {
            report.goals().iter().map(|goal| (goal.beside, goal.least, goal.met)).collect()
        };
        assert_eq!(verdicts(report(1, &rates)), [("stock", 0.8, true), ("same-shard", 0.6, true)]);
        assert_eq!(
            verdicts(report(64, &rates)),
            [("stock", 1.0, false), ("grpc", 1.5, true), ("same-shard", 0.6, true)]
        );
        assert_eq!(verdicts(report(64, &rates[2..])), []);
    }

    #[test]
    fn the_median_counts_and_the_table_fits_100_columns() {
        let report = report(1024, &[("same-shard", 123_456.0), ("other-shard", 9_999.0)]);
        assert_eq!(report.rows[0].calls_per_s, 123_456.0);
        let text = report.to_string();
        assert!(text.contains("[61.7k-247k]"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert_eq!(report.to_json()["rows"][1]["subject"], "other-shard");
    }
}
