//! The database from outside, over pages that a test keeps.

mod features;
mod model;
mod refusals;
mod source;
mod support;
mod transactions;
