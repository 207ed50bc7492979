//! What an object may write before the store has caught up.

use super::*;
use crate::error::Kind;

/// A handler that writes and yields for ever filled the memory while the disk hung.
#[tokio::test(start_paused = true)]
async fn an_object_writes_no_more_when_the_store_is_twice_too_far_behind() {
    let mut world = World::new(Memory::held());
    world.backlog_bytes_max = 10_000;
    let live = world.start();
    let put = |n: usize| {
        let value = Some(Bytes::from(vec![7; 1_000]));
        live.storage.set(format!("{n}").as_bytes(), value, Confirm::No)
    };
    let mut written = 0;
    let error = loop {
        match put(written) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        live.storage.flush().unwrap();
    };
    assert_eq!(error.kind, Kind::Overloaded);
    assert!((10..25).contains(&written), "{written}");
    let alarm = live.storage.set_alarm(Some(7), Confirm::Yes);
    assert_eq!(alarm.unwrap_err().kind, Kind::Overloaded);
    let sql = live.storage.with_sql(Confirm::Yes, |sql| sql.exec("CREATE TABLE t (k)", ()));
    assert_eq!(sql.unwrap_err().kind, Kind::Overloaded);
    assert_eq!(live.storage.clear(Confirm::Yes).unwrap_err().kind, Kind::Overloaded);
    // What it wrote is still there, and it goes on when the store has caught up.
    assert_eq!(live.keys().len(), written);
    world.engine.commit(written);
    assert_eq!(live.hear(), None);
    put(written).unwrap();
}

/// The database that it read hid its pages, and the object was reset.
#[tokio::test(start_paused = true)]
async fn a_visitor_of_rows_cannot_delete_everything() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.sql("CREATE TABLE t (k); INSERT INTO t VALUES (1), (2), (3)");
    live.turn();
    let (mut visited, mut refused) = (0, 0);
    let each = live.storage.with_sql(Confirm::Yes, |sql| {
        sql.each("SELECT k FROM t", (), |_| {
            visited += 1;
            let error = live.storage.clear(Confirm::Yes).unwrap_err();
            refused += usize::from(error.message.contains("while a statement runs"));
            Ok(std::ops::ControlFlow::Continue(()))
        })
    });
    each.unwrap();
    assert_eq!((visited, refused), (3, 3));
    live.storage.clear(Confirm::Yes).unwrap();
    live.turn();
    assert_eq!(live.sql("SELECT count(*) FROM sqlite_schema")[0][0], 0.into());
}
