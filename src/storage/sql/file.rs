//! The file that SQLite thinks a database is: pages that were changed, over pages that come from elsewhere.
//!
//! SQLite knows file systems by their names, for the process, and hands over no more than a file's name. A
//! database, in contrast, belongs to one thread. So the name of a file is a number, and each thread has a table
//! of its databases by their numbers; a file looks its database up at every call. A connection that strayed
//! to another thread would find nothing there, and fail.
//!
//! **Invariant:** numbers are never used twice in a process.
//! **Invariant:** all pages from `kept` to `size` are in `dirty`: whatever lies below `kept` is as the source has it.
//! **Invariant:** `size` counts whole pages; SQLite writes no less.
//! **Invariant:** no more pages wait in `dirty` than may; SQLite can undo what it wrote even then.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use stubborn_vfs::{Code, File, Kind, Open, Vfs};

use super::pages::{PAGE_BYTES, Pages};
use crate::error::{Error, Result};

/// The pages of one database.
pub(super) struct PageFile {
    source: Rc<dyn Pages>,
    /// Pages that may wait to be taken.
    dirty_max: usize,
    /// Whether one was refused for that.
    refused: Cell<bool>,
    state: RefCell<State>,
    /// Whether the source is at work.
    reading: Cell<bool>,
    failure: RefCell<Option<Error>>,
}

struct State {
    /// How many pages the source has.
    committed: u32,
    /// How many of them have not been truncated away since the last take.
    kept: u32,
    /// How many pages there are.
    size: u32,
    dirty: BTreeMap<u32, Bytes>,
}

impl PageFile {
    fn new(source: Rc<dyn Pages>, dirty_max: usize) -> Result<Self> {
        let count = source.count()?;
        let state = State { committed: count, kept: count, size: count, dirty: BTreeMap::new() };
        let (refused, reading, failure) = Default::default();
        Ok(Self { source, dirty_max, refused, state: RefCell::new(state), reading, failure })
    }

    /// Returns how many pages there are.
    pub(super) fn size(&self) -> u32 {
        self.state.borrow().size
    }

    /// Returns whether there is something to take.
    pub(super) fn is_dirty(&self) -> bool {
        let state = self.state.borrow();
        !state.dirty.is_empty() || state.size < state.committed
    }

    /// Returns what has changed since the last time; none for a page that is no longer there.
    pub(super) fn take(&self) -> Vec<(u32, Option<Bytes>)> {
        let state = &mut *self.state.borrow_mut();
        let written = std::mem::take(&mut state.dirty);
        let mut changes: Vec<_> = written.into_iter().map(|(no, page)| (no, Some(page))).collect();
        changes.extend((state.size..state.committed).map(|number| (number, None)));
        state.committed = state.size;
        state.kept = state.size;
        changes
    }

    /// Returns why nothing works any more, if so.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.borrow().clone()
    }

    /// Returns whether a page was refused since the last call because too many wait.
    pub(super) fn take_refused(&self) -> bool {
        self.refused.take()
    }

    /// Breaks it. The first reason stays.
    pub(super) fn fail(&self, error: Error) {
        self.failure.borrow_mut().get_or_insert(error);
    }

    /// Returns whether SQLite is waiting for the source.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.get()
    }

    /// Breaks it with `message`, for SQLite.
    fn broken(&self, code: Code, message: String) -> Code {
        self.fail(Error::failed(message));
        code
    }

    fn page(&self, number: u32) -> Result<Bytes, Code> {
        let state = self.state.borrow();
        if let Some(page) = state.dirty.get(&number) {
            return Ok(page.clone());
        }
        assert!(number < state.kept, "a page above those of the source was written");
        drop(state);
        self.reading.set(true);
        let page = self.source.page(number);
        self.reading.set(false);
        let damaged = |what: &str| {
            self.broken(Code::IOERR_READ, format!("page {number} of the sql database {what}"))
        };
        match page {
            Ok(Some(page)) if page.len() == PAGE_BYTES => Ok(page),
            Ok(Some(page)) => Err(damaged(&format!("has {} bytes", page.len()))),
            Ok(None) => Err(damaged("is missing")),
            Err(error) => {
                let message = format!("page {number} of the sql database: {}", error.message);
                self.fail(Error { message, ..error });
                Err(Code::IOERR_READ)
            }
        }
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Code> {
        if self.failure.borrow().is_some() {
            return Err(Code::IOERR_READ);
        }
        let mut got = 0;
        while let Some(rest) = buffer.get_mut(got..).filter(|rest| !rest.is_empty()) {
            let (number, start) = place(offset + got as u64).ok_or(Code::IOERR_READ)?;
            if number >= self.size() {
                break;
            }
            let page = self.page(number)?;
            let from = page.get(start..).unwrap_or_default();
            let count = from.len().min(rest.len());
            if let (Some(to), Some(from)) = (rest.get_mut(..count), from.get(..count)) {
                to.copy_from_slice(from);
            }
            got += count;
        }
        Ok(got)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Code> {
        let (Some((number, 0)), PAGE_BYTES) = (place(offset), bytes.len()) else {
            let message = format!("sqlite wrote {} bytes at {offset}", bytes.len());
            return Err(self.broken(Code::IOERR_WRITE, message));
        };
        if !self.has_room(number) {
            return self.undone(number, bytes);
        }
        let state = &mut *self.state.borrow_mut();
        if number >= state.size {
            state.resize(number + 1);
        }
        state.dirty.insert(number, Bytes::copy_from_slice(bytes));
        Ok(())
    }

    /// Returns whether page `number` may wait too.
    fn has_room(&self, number: u32) -> bool {
        let state = self.state.borrow();
        let new = match number.checked_sub(state.size) {
            Some(gap) => gap as usize + 1,
            None if state.dirty.contains_key(&number) => 0,
            None => 1,
        };
        new == 0 || state.dirty.len() + new <= self.dirty_max
    }

    /// Refuses a page too many, unless it is as the source has it. When SQLite undoes a transaction, it writes
    /// all pages that the transaction meant to change, those too that it has not written.
    fn undone(&self, number: u32, bytes: &[u8]) -> Result<(), Code> {
        if number < self.state.borrow().kept && self.page(number)? == bytes {
            return Ok(());
        }
        self.refused.set(true);
        Err(Code::FULL)
    }

    fn truncate(&self, bytes: u64) -> Result<(), Code> {
        match place(bytes) {
            Some((pages, 0)) => {
                self.state.borrow_mut().resize(pages);
                Ok(())
            }
            _ => {
                let message = format!("sqlite truncated to {bytes} bytes");
                Err(self.broken(Code::IOERR_TRUNCATE, message))
            }
        }
    }
}

impl State {
    /// Drops the pages from `size` on, or adds pages of zeros up to it.
    fn resize(&mut self, size: u32) {
        let zeros = Bytes::from_static(&[0; PAGE_BYTES]);
        self.dirty.extend((self.size..size).map(|number| (number, zeros.clone())));
        drop(self.dirty.split_off(&size));
        self.size = size;
        self.kept = self.kept.min(size);
    }
}

/// Returns the page that `offset` is in, and where in it.
fn place(offset: u64) -> Option<(u32, usize)> {
    const BYTES: u64 = PAGE_BYTES as u64;
    Some((u32::try_from(offset / BYTES).ok()?, (offset % BYTES) as usize))
}

thread_local! {
    static FILES: RefCell<HashMap<u64, Rc<PageFile>>> = RefCell::default();
}

/// A page file that SQLite can open, for as long as this lives.
pub(super) struct Registered {
    number: u64,
    file: Rc<PageFile>,
}

impl Registered {
    /// Makes the file of `source` known to SQLite. Up to `dirty_max` pages may wait to be taken.
    pub(super) fn new(source: Rc<dyn Pages>, dirty_max: usize) -> Result<Self> {
        static SYSTEM: OnceLock<Result<(), stubborn_vfs::RegisterError>> = OnceLock::new();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let registered = SYSTEM.get_or_init(|| stubborn_vfs::register(SYSTEM_NAME, System));
        registered.as_ref().map_err(|error| Error::failed(error.to_string()))?;
        let file = Rc::new(PageFile::new(source, dirty_max)?);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        FILES.with_borrow_mut(|files| files.insert(number, file.clone()));
        Ok(Self { number, file })
    }

    /// Returns the name to open it by.
    pub(super) fn name(&self) -> String {
        self.number.to_string()
    }

    /// Returns the file.
    pub(super) fn file(&self) -> &Rc<PageFile> {
        &self.file
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // When the thread ends, the table may have gone first.
        let _gone = FILES.try_with(|files| files.borrow_mut().remove(&self.number));
    }
}

/// The name of the file system, for SQLite.
pub(super) const SYSTEM_NAME: &str = "stubborn-pages";

struct System;

impl Vfs for System {
    type File = Number;

    fn open(&self, request: &Open<'_>) -> Result<Number, Code> {
        let number = request.name.filter(|_| request.kind == Kind::Main);
        let number = Number(number.and_then(|name| name.parse().ok()).ok_or(Code::CANTOPEN)?);
        number.with(Code::CANTOPEN, |_| Ok(number))
    }
}

/// An open file: the number of a database of this thread.
#[derive(Clone, Copy)]
struct Number(u64);

impl Number {
    fn with<T>(
        self,
        failure: Code,
        act: impl FnOnce(&PageFile) -> Result<T, Code>,
    ) -> Result<T, Code> {
        let file = FILES.try_with(|files| files.borrow().get(&self.0).cloned());
        let file: Rc<PageFile> = file.ok().flatten().ok_or(failure)?;
        act(&file)
    }
}

impl File for Number {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Code> {
        self.with(Code::IOERR_READ, |file| file.read(offset, buffer))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Code> {
        self.with(Code::IOERR_WRITE, |file| file.write(offset, bytes))
    }

    fn truncate(&mut self, bytes: u64) -> Result<(), Code> {
        self.with(Code::IOERR_TRUNCATE, |file| file.truncate(bytes))
    }

    fn size(&mut self) -> Result<u64, Code> {
        self.with(Code::IOERR_FSTAT, |file| Ok(u64::from(file.size()) * PAGE_BYTES as u64))
    }
}
