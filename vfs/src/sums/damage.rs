//! Which page it was that could not be read.

use std::cell::RefCell;
use std::fmt;

/// A page that was not handed to SQLite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, as SQLite knows it: its whole path.
    pub file: String,
    /// Where the page begins, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// Its checksum is not that of its bytes, or of another place.
    Sum,
    /// It is a page of another file.
    File,
    /// The file ends before the page does.
    End,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, wrong, .. } = self;
        match wrong {
            Wrong::Sum => write!(f, "the page at offset {offset} does not match its checksum"),
            Wrong::File => write!(f, "the page at offset {offset} is of another file"),
            Wrong::End => write!(f, "it ends before the page at offset {offset} does"),
        }
    }
}

/// Takes the last damage that this thread came across: what its last `SQLITE_IOERR_DATA` was about.
pub fn take_damage() -> Option<Damage> {
    LAST.with_borrow_mut(Option::take)
}

/// Notes damage for [`take_damage`].
pub(super) fn note(damage: Damage) {
    // A thread that ends may have lost its notes already: nobody asks for them any more.
    let _lost = LAST.try_with(|last| last.replace(Some(damage)));
}

thread_local! {
    static LAST: RefCell<Option<Damage>> = const { RefCell::new(None) };
}
