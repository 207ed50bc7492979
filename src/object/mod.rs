//! What an author writes against: the trait of an object, its state, its surroundings.

mod class;
mod durable_object;
mod env;
mod interface;
mod signal;
mod socket;
mod sql;
mod state;
mod storage;

pub use class::{Class, Instance};
pub use durable_object::{AlarmInfo, DurableObject};
pub use env::{Directory, Env};
pub use interface::{
    Dispatch, Entered, Interface, Line, TypedCall, TypedOutcome, behind, typed_failure,
};
pub use signal::{RequestExt, Signal};
pub use socket::{
    ATTACHMENT_BYTES_MAX, AUTO_RESPONSE_BYTES_MAX, Accepted, SOCKETS_MAX, Socket, TAG_CHARS_MAX,
    TAGS_MAX,
};
pub use sql::Sql;
pub use state::{Control, Identity, State};
pub use storage::{Bookmark, List, Storage};
