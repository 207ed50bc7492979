//! Pages that can't be had, or make no sense.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::super::database::Database;
use super::super::limits::Limits;
use super::super::pages::Pages;
use super::support::{Map, empty, rows, run};
use crate::error::{Error, Result};

fn filled() -> Rc<Map> {
    let (pages, database) = empty();
    run(&database, "CREATE TABLE t (k INTEGER PRIMARY KEY, v); CREATE INDEX i ON t (v)");
    for _ in 0..200 {
        run(&database, "INSERT INTO t (v) VALUES (randomblob(700))");
    }
    pages.take(&database);
    pages
}

#[test]
fn a_read_that_fails_breaks_the_database_for_good() {
    let pages = filled();
    let before = pages.pages.borrow().clone();
    let mut broken = 0;
    for reads in 0..60 {
        let database = pages.open_with(Limits { cache_bytes: 20 << 10, ..Limits::default() });
        pages.reads_left.set(Some(reads));
        let insert = database.exec("INSERT INTO t (v) VALUES (randomblob(700))", ());
        let update = database.exec("UPDATE t SET v = randomblob(700) WHERE k % 50 = 0", ());
        pages.reads_left.set(None);
        let Some(failure) = database.page_failure() else {
            assert!(insert.is_ok() && update.is_ok());
            continue;
        };
        broken += 1;
        assert!(failure.message.contains("the disk is on fire"), "{failure}");
        assert_eq!(update.unwrap_err(), failure);
        assert_eq!(database.exec("SELECT 1", ()).unwrap_err(), failure);
        assert_eq!(database.savepoint().unwrap_err(), failure);
        assert!(!database.is_dirty());
        assert_eq!(database.take_dirty(), []);
    }
    assert!(broken > 5, "{broken}");
    assert_eq!(*pages.pages.borrow(), before);
}

#[test]
fn pages_that_make_no_sense_are_found_out() {
    let damage = |number: u32, page: Option<Bytes>| {
        let pages = filled();
        match page {
            Some(page) => drop(pages.pages.borrow_mut().insert(number, page)),
            None => {
                // What is last now has another number.
                let last = pages.pages.borrow_mut().remove(&number).unwrap();
                pages.pages.borrow_mut().insert(999, last);
            }
        }
        let database = pages.open();
        let error = database.exec("SELECT sum(length(v)) FROM t NOT INDEXED", ()).unwrap_err();
        assert_eq!(database.page_failure().unwrap(), error);
        error.message
    };
    assert!(damage(1, Some(vec![0xff; 4096].into())).contains("is damaged"));
    assert_eq!(damage(1, None), "page 1 of the sql database is missing");
    assert_eq!(damage(1, Some(Bytes::from_static(b"x"))), "page 1 of the sql database has 1 bytes");
}

#[test]
fn a_database_whose_first_page_is_wrong_does_not_open() {
    let open = |pages: Rc<Map>| Database::open(pages, Limits::default()).unwrap_err().message;
    let pages = filled();
    pages.pages.borrow_mut().insert(0, vec![7; 4096].into());
    assert_eq!(open(pages), "opening the sql database: file is not a database");
    let pages = filled();
    pages.reads_left.set(Some(0));
    assert_eq!(open(pages), "page 0 of the sql database: the disk is on fire");
}

#[test]
fn an_sql_error_breaks_nothing() {
    let pages = filled();
    let database = pages.open();
    for sql in [
        "SELECT * FROM nothing",
        "INSERT INTO t (k) VALUES (1)",
        "SELECT abs(-9223372036854775808)",
    ] {
        assert!(database.exec(sql, ()).is_err());
    }
    assert!(database.page_failure().is_none());
    assert_eq!(rows(&database, "SELECT count(*) FROM t"), ["200"]);
}

/// Pages that ask their own database, or panic.
struct Selfish {
    pages: Rc<Map>,
    own: RefCell<Weak<Database>>,
    asked: RefCell<Option<Error>>,
    panics: Cell<bool>,
}

impl Pages for Selfish {
    fn page(&self, number: u32) -> Result<Option<Bytes>> {
        assert!(!self.panics.get(), "pages that panic");
        if let Some(own) = self.own.borrow().upgrade() {
            *self.asked.borrow_mut() = own.exec("SELECT 1", ()).err();
        }
        self.pages.page(number)
    }

    fn count(&self) -> Result<u32> {
        self.pages.count()
    }
}

#[test]
fn pages_that_ask_their_own_database_or_panic_do_no_harm() {
    let (own, asked, panics) = Default::default();
    let pages = Rc::new(Selfish { pages: filled(), own, asked, panics });
    let limits = Limits { cache_bytes: 20 << 10, ..Limits::default() };
    let database = Rc::new(Database::open(pages.clone(), limits).unwrap());
    *pages.own.borrow_mut() = Rc::downgrade(&database);
    assert_eq!(rows(&database, "SELECT count(*) FROM t NOT INDEXED"), ["200"]);
    let asked = pages.asked.take().unwrap().message;
    assert_eq!(asked, "the sql database can't be used by its own pages");
    pages.panics.set(true);
    let error = database.exec("SELECT sum(length(v)) FROM t NOT INDEXED", ()).unwrap_err();
    assert!(error.message.contains("could not be read or written"), "{error}");
    assert_eq!(database.page_failure(), Some(error.clone()));
    pages.panics.set(false);
    assert_eq!(database.exec("SELECT 1", ()).unwrap_err(), error);
}
