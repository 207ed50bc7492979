//! Copies a store: a backup while a server runs on it, and the way back.
//!
//! **Invariant:** a copy has its files' names only when all of it is on disk.
//! **Invariant:** nothing is written over: the target is empty or not there, and locked meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::directory::{self, LOCK, Lock, file_name};
use super::fault::{Context as _, of_io};
use super::file;
use super::meta::FILES_MAX;
use super::read_only::open_set;
use super::verify;
use crate::error::{Error, Result};

/// Copies the store in `directory` into `to`, which is empty or not there, while a server may run on it.
///
/// Each file of the copy is as the store was at one moment. `progress` hears how many pages of how many are done.
///
/// # Errors
/// *failed* where the store can't be read or `to` can't be written; `to` then holds no store.
pub fn backup(directory: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let set = open_set(directory, file::open_read_only)?;
    copy(&set, to, progress)
}

/// Copies the backup in `backup` into `to`, which is empty or not there, for a server to be started on.
///
/// # Errors
/// *failed* where the backup is damaged, incomplete or of a newer format, or where `to` can't be written.
pub fn restore(backup: &Path, to: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let set = open_set(backup, file::open_backup)?;
    verify::whole(&set)?;
    copy(&set, to, progress)
}

fn copy(
    set: &[(PathBuf, Connection)],
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    directory::make(to)?;
    check_free(to)?;
    let _lock = Lock::take(to)?;
    check_free(to)?;
    remove_parts(to)?;
    let copied = copy_all(set, to, progress);
    if copied.is_err()
        && let Err(error) = remove_parts(to)
    {
        tracing::warn!(%error, "a copy that failed has left something behind; the next one removes it");
    }
    copied
}

fn copy_all(
    set: &[(PathBuf, Connection)],
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let mut counts = Vec::new();
    for (path, connection) in set {
        counts.push(pages(connection).about(path)?);
    }
    let (mut done, mut all) = (0, counts.iter().sum());
    progress(done, all);
    // The first file last: it has the namespaces, also those of objects that came while the others were copied.
    for (index, ((path, connection), counted)) in set.iter().zip(counts).enumerate().rev() {
        // A transaction of the reader's own holds the file's state while it is copied, and no longer, as its log grows
        // meanwhile. It begins with a read.
        connection.execute_batch("BEGIN").about(path)?;
        all = all - counted + pages(connection).about(path)?;
        let part = part(to, index);
        directory::new_file(&part)?;
        done = copy_file((path, connection), &part, done, &mut |done| progress(done, all))?;
        connection.execute_batch("COMMIT").about(path)?;
        directory::sync(&part)?;
    }
    directory::sync(to)?;
    for index in 0..set.len() {
        if let Err(error) = directory::rename(&part(to, index), &to.join(name(index))) {
            // Nothing of a copy that is not whole has a file's name.
            (0..index).for_each(|index| drop(fs::remove_file(to.join(name(index)))));
            return Err(error);
        }
    }
    directory::sync(to)
}

/// Returns how many pages a file has.
fn pages(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT page_count FROM pragma_page_count(), (SELECT count(*) FROM meta)";
    connection.query_row(sql, [], |row| row.get::<_, u32>(0)).map(u64::from)
}

fn copy_file(
    (path, connection): (&Path, &Connection),
    part: &Path,
    before: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<u64> {
    let mut target = file::open_copy(part, connection)?;
    let copied = {
        let backup = Backup::new(connection, &mut target).about(path)?;
        loop {
            // It may be the copy that fails, as well: the message of SQLite says no more.
            let step = backup.step(PAGES_AT_ONCE).about(part)?;
            let pages = backup.progress();
            let copied = pages.pagecount - pages.remaining;
            progress(before + u64::try_from(copied).unwrap_or_default());
            match step {
                StepResult::Done => break u64::try_from(pages.pagecount).unwrap_or_default(),
                StepResult::More => {}
                _ => {
                    let part = part.display();
                    let message = format!("{part} is locked by another program; try again");
                    return Err(Error::failed(message).with_retryable(true));
                }
            }
        }
    };
    file::close(target, part)?;
    Ok(before + copied)
}

/// Refuses a target that holds anything but what a copy that was cut short has left.
fn check_free(to: &Path) -> Result<()> {
    let names = directory::names(to)?;
    match names.iter().find(|name| *name != LOCK && !is_part(name)) {
        None => Ok(()),
        Some(name) => Err(Error::failed(format!(
            "{} is not empty (it holds {name}): choose a new directory",
            to.display()
        ))),
    }
}

/// Removes what a copy that did not get to its end has left. Call it with the lock held.
fn remove_parts(to: &Path) -> Result<()> {
    for name in directory::names(to)?.iter().filter(|name| is_part(name)) {
        let path = to.join(name);
        fs::remove_file(&path).map_err(of_io("remove", &path))?;
    }
    Ok(())
}

fn is_part(name: &str) -> bool {
    let named = name.strip_suffix(PART);
    named.is_some_and(|named| (0..FILES_MAX).any(|index| file_name(index) == named))
}

fn name(index: usize) -> String {
    file_name(u32::try_from(index).unwrap_or(u32::MAX))
}

fn part(to: &Path, index: usize) -> PathBuf {
    to.join(format!("{}{PART}", name(index)))
}

/// Pages copied between two calls of `progress`: 4 MiB.
const PAGES_AT_ONCE: i32 = 512;
/// What the name of a file ends with while it is copied.
const PART: &str = ".part";
