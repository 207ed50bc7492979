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
