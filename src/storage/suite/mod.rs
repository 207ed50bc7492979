//! What every store must do, as one set of cases that runs on each of them.

pub(crate) mod arbitrary;
mod cases;
mod property;
pub(crate) mod world;
