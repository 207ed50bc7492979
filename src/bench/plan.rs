//! What is measured: which bodies, how many connections, how many calls in flight.

use std::fmt;

use serde::Serialize;

/// One combination that every subject is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Connections, of one client.
    pub connections: usize,
    /// Calls in flight on each connection.
    pub in_flight: usize,
    /// Bytes of each body, both ways.
    pub body_bytes: usize,
}

impl Cell {
    /// Lowers the calls in flight until their bodies are within the bound: beyond, memory is measured.
    fn bounded(self) -> Self {
        let calls_max = BYTES_IN_FLIGHT_MAX / (self.body_bytes.max(1) * self.connections.max(1));
        Self { in_flight: self.in_flight.min(calls_max).max(1), ..self }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, in_flight, body_bytes } = *self;
        let plural = if connections == 1 { "" } else { "s" };
        write!(f, "{connections} connection{plural} x {in_flight} in flight, ")?;
        match body_bytes {
            bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} B"),
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// What tells within 20 s whether something is badly wrong.
    Quick,
    /// What a change is judged by, within three minutes.
    Usual,
    /// Everything.
    Full,
}

/// Lists the cells of `effort`. Where the last three are not empty, they say which values a cell may have.
pub fn cells(
    effort: Effort,
    connections: &[usize],
    in_flight: &[usize],
    body_bytes: &[usize],
) -> Vec<Cell> {
    let is_asked = !(connections.is_empty() && in_flight.is_empty() && body_bytes.is_empty());
    let or = |asked: &[usize], all: &[usize]| if asked.is_empty() { all } else { asked }.to_vec();
    let mut cells = Vec::new();
    for body_bytes in or(body_bytes, BODY_BYTES) {
        for connections in or(connections, CONNECTIONS) {
            for in_flight in or(in_flight, IN_FLIGHT) {
                let cell = Cell { connections, in_flight, body_bytes };
                let bounded = cell.bounded();
                if (is_asked || is_part_of(effort, cell)) && !cells.contains(&bounded) {
                    cells.push(bounded);
                }
            }
        }
    }
    cells
}

fn is_part_of(effort: Effort, cell: Cell) -> bool {
    let Cell { connections, in_flight, body_bytes } = cell;
    match effort {
        Effort::Quick => {
            let is_small = body_bytes == 100;
            connections == 1 && (is_small || body_bytes == 64 << 10 && in_flight == 64)
        }
        Effort::Usual => match body_bytes {
            100 => true,
            1024 => connections == 1 && in_flight == 64,
            _ => connections == 1 && in_flight <= 64,
        },
        Effort::Full => true,
    }
}

const CONNECTIONS: &[usize] = &[1, 8];
const IN_FLIGHT: &[usize] = &[1, 64, 1024];
const BODY_BYTES: &[usize] = &[100, 1 << 10, 64 << 10, 1 << 20];

/// The bytes of all bodies on their way to the server at a time.
const BYTES_IN_FLIGHT_MAX: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_have_fewer_calls_in_flight_and_no_cell_comes_twice() {
        let cells = cells(Effort::Full, &[], &[], &[]);
        for (index, cell) in cells.iter().enumerate() {
            let bytes = cell.connections * cell.in_flight * cell.body_bytes;
            assert!(bytes <= BYTES_IN_FLIGHT_MAX, "{cell}");
            assert!(!cells[..index].contains(cell), "{cell}");
        }
        assert!(cells.contains(&Cell { connections: 8, in_flight: 4, body_bytes: 1 << 20 }));
        assert!(cells.contains(&Cell { connections: 8, in_flight: 1024, body_bytes: 100 }));
    }

    #[test]
    fn every_effort_is_part_of_the_greater_ones_and_what_is_asked_for_is_all() {
        let of = |effort| cells(effort, &[], &[], &[]);
        let (quick, usual, full) = (of(Effort::Quick), of(Effort::Usual), of(Effort::Full));
        assert!(quick.iter().all(|cell| usual.contains(cell)), "{quick:?} {usual:?}");
        assert!(usual.iter().all(|cell| full.contains(cell)));
        let asked = cells(Effort::Quick, &[3], &[5], &[7]);
        assert_eq!(asked, [Cell { connections: 3, in_flight: 5, body_bytes: 7 }]);
        assert_eq!(asked[0].to_string(), "3 connections x 5 in flight, 7 B");
    }
}
