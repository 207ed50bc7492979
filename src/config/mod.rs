//! What a server is told by its file and its flags; `docs/configuration.md` describes the file.
//!
//! **Invariant:** flags beat the file, the file beats the defaults.
//! **Invariant:** a mistake in the file is told with the file, the key and the value; nothing that is
//! not understood is skipped.

mod file;
mod gateway;
mod limits;
mod settings;
mod units;

pub use gateway::HttpAddress;
pub use settings::{Flags, Settings};
