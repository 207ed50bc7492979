//! What is true of a store on disk alone: its directory, its files, its copies.

mod committer;
mod copies;
mod damage;
mod directory;
mod pages;

/// Opens a file as another program with the same library does.
fn from_outside(file: &std::path::Path) -> rusqlite::Connection {
    let (flags, system) =
        (rusqlite::OpenFlags::default(), stubborn_vfs::sums::file_system().unwrap());
    rusqlite::Connection::open_with_flags_and_vfs(file, flags, system).unwrap()
}
