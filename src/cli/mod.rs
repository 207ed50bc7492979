//! The command line of the program `stubborn`.
//!
//! **Invariant:** the results of a command, and nothing else, are its standard output.
//! **Invariant:** exit statuses say what to do: 0 done, 1 the object or its server said no, 2 the command is
//! wrong, 3 nobody answered.

mod args;
mod failure;
mod fetch;
mod id;
mod input;
mod listing;
mod output;
mod program;
mod progress;
mod serve;
mod storage;
mod store;

pub use program::run;
