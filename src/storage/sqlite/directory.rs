//! The directory of a store: who holds it, which files are in it, and how they come to be.
//!
//! **Invariant:** a set of files appears as a whole: a crash while it is made leaves nothing, or what the next
//! start completes.
//! **Invariant:** nothing is written into a directory that holds anything else.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use super::fault::of_io;
use super::file;
use super::meta::{FILES_MAX, FORMAT, Meta};
use crate::entropy::Entropy;
use crate::error::{Error, Result};

/// Returns the name of a file of a store.
pub(super) fn file_name(index: u32) -> String {
    format!("store-{index:02}.db")
}

/// The right to serve a directory. Ends when it is dropped, or with the process.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Closing the file would not do: a process that is being started by another thread still has it open.
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::flock(&self.file, FlockOperation::Unlock) {
            tracing::debug!(%error, "the lock of a directory could not be released before it is closed");
        }
    }
}

impl Lock {
    /// Takes the lock of a directory.
    pub fn take(directory: &Path) -> Result<Self> {
        let path = directory.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(of_io("write", &path))?;
        if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(of_io("lock", &path)(error.into()));
            }
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(of_io("read", &path))?;
            return Err(Error::failed(format!(
                "{} is in use by another server or copy, process {}: stop that one, or choose another directory",
                directory.display(),
                holder.trim()
            )));
        }
        let pid = std::process::id();
        file.set_len(0).map_err(of_io("write", &path))?;
        file.rewind().map_err(of_io("write", &path))?;
        writeln!(file, "{pid}").map_err(of_io("write", &path))?;
        Ok(Self { file })
    }
}

/// Makes the directory if it is not there, and makes sure that it is free or holds a store.
pub(super) fn prepare(directory: &Path) -> Result<()> {
    make(directory)?;
    let names = names(directory)?;
    let foreign = names.iter().find(|name| !is_ours(name));
    match foreign {
        Some(foreign) if !names.iter().any(|name| index_of(name).is_some()) => {
            Err(Error::failed(format!(
                "{} holds no store but other things ({foreign}): choose an empty directory",
                directory.display()
            )))
        }
        _ => Ok(()),
    }
}

/// Makes a directory that only its owner may use, and those above it, where they are not there; so that a power cut
/// does not take it away again with all that is in it.
pub(super) fn make(directory: &Path) -> Result<()> {
    if directory.exists() {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    make(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(of_io("create", directory)(error))
        }
        _ => sync(parent),
    }
}

/// Returns the files of the store in a directory, in order; none where there is no store.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut indices: Vec<u32> =
        names(directory)?.iter().filter_map(|name| index_of(name)).collect();
    indices.sort_unstable();
    for (place, index) in indices.iter().enumerate() {
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        if place != *index {
            let missing = directory.join(file_name(place));
            return Err(Error::failed(format!(
                "{} is missing: put it back, or restore a backup",
                missing.display()
            )));
        }
    }
    Ok(indices.into_iter().map(|index| directory.join(file_name(index))).collect())
}

/// Makes the files of a new store. Call it with the lock held.
pub(super) fn create(directory: &Path, files: u32) -> Result<()> {
    let permissions = fs::Permissions::from_mode(0o700);
    fs::set_permissions(directory, permissions).map_err(of_io("protect", directory))?;
    let files = files.clamp(1, FILES_MAX);
    let store = Entropy::system().bytes();
    for index in 0..files {
        let path = directory.join(format!("{}{NEW}", file_name(index)));
        new_file(&path)?;
        file::create(&path, &Meta { format: FORMAT, files, index, store })?;
        sync(&path)?;
    }
    // All are there before one has its name, so that those with names tell what is missing.
    sync(directory)?;
    for index in 0..files {
        take_name(directory, &file_name(index))?;
    }
    sync(directory)
}

/// Completes, or undoes, a creation that was cut short. Call it with the lock held.
pub(super) fn finish_creation(directory: &Path) -> Result<()> {
    let names = names(directory)?;
    let began = names.iter().any(|name| index_of(name).is_some());
    let left: Vec<&String> = names.iter().filter(|name| is_new(name)).collect();
    for name in &left {
        let named = name.strip_suffix(NEW).filter(|named| index_of(named).is_some());
        match named {
            Some(named) if began && !names.iter().any(|name| name == named) => {
                take_name(directory, named)?;
            }
            _ => {
                let path = directory.join(name);
                fs::remove_file(&path).map_err(of_io("remove", &path))?;
            }
        }
    }
    if left.is_empty() { Ok(()) } else { sync(directory) }
}

/// Gives a file another name, which no file has.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    let renamed = rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    match renamed {
        // Not all file systems can tell; nobody else is at work here.
        Err(Errno::INVAL | Errno::NOSYS) if !to.exists() => {
            fs::rename(from, to).map_err(of_io("rename", from))
        }
        renamed => renamed.map_err(|error| of_io("rename", from)(error.into())),
    }
}

/// Makes an empty file that only its owner may read.
pub(super) fn new_file(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map(drop).map_err(of_io("create", path))
}

/// Makes what is in a file, or which files are in a directory, survive a power cut.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(of_io("sync", path))
}

/// Returns the names of all that is in a directory.
pub(super) fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).map_err(of_io("read", directory))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<std::io::Result<_>>().map_err(of_io("read", directory))
}

fn take_name(directory: &Path, name: &str) -> Result<()> {
    let (from, to) = (directory.join(format!("{name}{NEW}")), directory.join(name));
    fs::rename(&from, &to).map_err(of_io("rename", &from))
}

/// Returns which file of a store has this name; none where it is not one's name.
fn index_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("store-")?.strip_suffix(".db")?;
    let index = digits.parse().ok().filter(|index| *index < FILES_MAX)?;
    (file_name(index) == name).then_some(index)
}

/// Returns whether a name is of a file that is being made, or of what SQLite puts beside one.
fn is_new(name: &str) -> bool {
    name.starts_with("store-") && name.contains(".db.new")
}

fn is_ours(name: &str) -> bool {
    name == LOCK || name == "lost+found" || is_new(name) || index_of(name).is_some()
}

/// The name of the file that is locked.
pub(super) const LOCK: &str = "lock";
/// What the name of a file ends with while a store is made.
const NEW: &str = ".new";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_set_are_files_of_it() {
        assert_eq!(index_of("store-00.db"), Some(0));
        assert_eq!(index_of("store-15.db"), Some(15));
        for name in ["store-16.db", "store-0.db", "store-000.db", "store-00.db-wal", "store-+1.db"]
        {
            assert_eq!(index_of(name), None, "{name}");
        }
    }
}
