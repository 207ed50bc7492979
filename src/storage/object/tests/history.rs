//! Which bookmarks can be gone back to, and that each leads to what it was made of.

use super::*;

const HOUR_MS: u64 = 3_600_000;

/// Lets time pass, as the clock of the world sees it.
async fn pass(ms: u64) {
    tokio::time::advance(Duration::from_millis(ms)).await;
}

fn now(world: &World) -> u64 {
    world.clock.unix_ms()
}

/// One was named by the last write: made of an object that had not changed for long, it was refused at once.
#[tokio::test(start_paused = true)]
async fn a_bookmark_of_now_can_be_gone_back_to_however_long_nothing_was_written() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.put("a", 1);
    live.turn();
    pass(5 * HOUR_MS).await;
    let bookmark = live.storage.bookmark().unwrap();
    live.put("a", 2);
    live.turn();
    pass(HOUR_MS / 2).await;
    let undo = live.storage.restore(bookmark).unwrap();
    live.turn();
    pass(HOUR_MS / 4).await;
    let back = world.start();
    assert_eq!(back.get("a"), Some(1));
    back.turn();
    back.storage.restore(undo).unwrap();
    back.turn();
    assert_eq!(world.start().get("a"), Some(2));
}

/// What lay between was forgotten while the object was busy, and it went back to something that never was.
#[tokio::test(start_paused = true)]
async fn what_the_next_start_goes_back_to_is_kept_until_then() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.put("a", 1);
    live.put("b", 1);
    live.turn();
    let bookmark = live.storage.bookmark().unwrap();
    live.put("a", 2);
    live.turn();
    live.storage.restore(bookmark).unwrap();
    live.turn();
    for n in 3..8 {
        pass(HOUR_MS).await;
        live.put("b", n);
        live.turn();
    }
    let back = world.start();
    assert_eq!((back.get("a"), back.get("b")), (Some(1), Some(1)));
}

/// It led to values of several moments.
#[tokio::test(start_paused = true)]
async fn nothing_is_gone_back_to_behind_what_was_written_without_history() {
    let mut world = World::new(Memory::new());
    let live = world.start();
    live.put("a", 1);
    live.put("b", 1);
    live.turn();
    let kept = live.storage.bookmark().unwrap();
    live.put("b", 2);
    live.turn();
    pass(60_000).await;
    let retention = world.retention.take();
    let unkept = world.start();
    unkept.put("a", 2);
    unkept.turn();
    let rows = |live: &Live| {
        let mut count = 0;
        let range = KeyRange::object(crate::storage::row::Table::History, &OBJECT);
        let mut visit = |_: &Key, _: Bytes| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        };
        live.store.scan(&range, Order::Ascending, &mut visit).unwrap();
        count
    };
    assert_eq!(rows(&unkept), 0, "history that is of no use any more is gone");
    pass(60_000).await;
    world.retention = retention;
    let live = world.start();
    let first = live.storage.bookmark().unwrap();
    for n in 3..5 {
        live.put("a", n);
        live.turn();
        pass(60_000).await;
    }
    for refused in [kept, now(&world) - 200_000] {
        let error = live.storage.restore(refused).unwrap_err();
        assert!(error.message.contains("can be gone back to"), "{error:?}");
        assert!(live.storage.bookmark_at(refused).is_err());
    }
    live.storage.restore(first).unwrap();
    live.turn();
    let back = world.start();
    assert_eq!((back.get("a"), back.get("b")), (Some(2), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn everything_is_deleted_with_and_without_history_and_with_it_comes_back() {
    for retention in [None, Some(Duration::from_secs(3600))] {
        let mut world = World::new(Memory::new());
        world.retention = retention;
        let live = world.start();
        live.put("a", 1);
        live.sql("CREATE TABLE t (k); INSERT INTO t VALUES (7)");
        live.turn();
        let bookmark = live.storage.bookmark().ok();
        // What is written behind it in the same turn stays.
        live.put("a", 2);
        live.sql("INSERT INTO t VALUES (8)");
        live.storage.clear(Confirm::Yes).unwrap();
        live.put("b", 3);
        live.sql("CREATE TABLE u (k)");
        live.turn();
        let tables = "SELECT group_concat(name) FROM sqlite_schema";
        let next = world.start();
        assert_eq!((next.keys(), next.record().unwrap().has_data), (vec!["b".to_owned()], true));
        assert_eq!(next.sql(tables), [["u".to_owned().into()]]);
        next.storage.clear(Confirm::Yes).unwrap();
        next.turn();
        assert!(next.record().is_none_or(|record| !record.has_data));
        let next = world.start();
        assert_eq!(next.sql("PRAGMA page_count"), [[0.into()]]);
        if let Some(bookmark) = bookmark {
            next.storage.restore(bookmark).unwrap();
            next.turn();
            let back = world.start();
            assert_eq!((back.get("a"), back.keys().len()), (Some(1), 1));
            assert_eq!(back.sql("SELECT k FROM t"), [[7.into()]]);
        }
    }
}
