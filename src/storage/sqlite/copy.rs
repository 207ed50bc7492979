//! Copies a store: a backup while a server runs on it, and the way back.
//!
//! **Invariant:** a copy has its files' names only when all of it is on disk.
//! **Invariant:** nothing is written over: the target is empty or not there.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::directory::{self, file_name};
use super::fault::{Context as _, of_io};
use super::file;
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
    set.iter().try_for_each(|(path, connection)| verify::quick(connection, path))?;
    copy(&set, to, progress)
}

fn copy(
    set: &[(PathBuf, Connection)],
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    prepare(to)?;
    let mut all = 0;
    for (path, connection) in set {
        // A transaction of the reader's own holds the file's state while it is copied. It begins with a read.
        connection.execute_batch("BEGIN").about(path)?;
        let sql = "SELECT page_count FROM pragma_page_count(), (SELECT count(*) FROM meta)";
        let pages: u64 =
            connection.query_row(sql, [], |row| row.get::<_, u32>(0)).about(path)?.into();
        all += pages;
    }
    progress(0, all);
    let mut done = 0;
    for (index, (path, connection)) in set.iter().enumerate() {
        let part = part(to, index);
        directory::new_file(&part)?;
        done = copy_file((path, connection), &part, done, &mut |done| progress(done, all))?;
        directory::sync(&part)?;
    }
    directory::sync(to)?;
    for index in 0..set.len() {
        let (from, to) = (part(to, index), to.join(name(index)));
        fs::rename(&from, &to).map_err(of_io("rename", &from))?;
    }
    directory::sync(to)
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

/// Makes the target if it is not there, and refuses one that holds anything.
fn prepare(to: &Path) -> Result<()> {
    if to.exists() {
        return match directory::names(to)?.first() {
            None => Ok(()),
            Some(name) => Err(Error::failed(format!(
                "{} is not empty (it holds {name}): choose a new directory",
                to.display()
            ))),
        };
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(to).map_err(of_io("create", to))?;
    match to.parent().filter(|path| !path.as_os_str().is_empty()) {
        Some(parent) => directory::sync(parent),
        None => Ok(()),
    }
}

fn name(index: usize) -> String {
    file_name(u32::try_from(index).unwrap_or(u32::MAX))
}

fn part(to: &Path, index: usize) -> PathBuf {
    to.join(format!("{}.part", name(index)))
}

/// Pages copied between two calls of `progress`: 4 MiB.
const PAGES_AT_ONCE: i32 = 512;
