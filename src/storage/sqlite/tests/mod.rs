//! What is true of a store on disk alone: its directory, its files, its copies.

mod committer;
mod copies;
mod damage;
mod directory;
mod pages;
