//! The alarm of a probe: when it rings, how often, and what it is told.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Value, json};

use super::{check, json_of, request, send, served, served_by};
use crate::clock::Clock;
use crate::storage::memory::Memory;
use crate::{Client, Server};

/// Sets the alarm of the probe `name`; returns what it is set to.
async fn set(client: &Client, name: &str, query: &str) -> u64 {
    json_of(client, ("PROBE", name), &format!("/alarm?{query}")).await.as_u64().unwrap()
}

/// Waits until the alarm of the probe `name` has rung `count` times, resets between them included.
async fn rung(client: &Client, name: &str, count: usize) -> Vec<Value> {
    loop {
        let path = format!("/alarms?wait={count}");
        match send(client, ("PROBE", name), request("GET", &path, "")).await {
            Ok(answer) => {
                let text = answer.into_body().text().await.unwrap();
                let fired: Vec<Value> = serde_json::from_str(&text).unwrap();
                assert_eq!(fired.len(), count, "{name}: {text}");
                return fired;
            }
            Err(error) => assert!(error.reset, "{name}: {error}"),
        }
    }
}

/// Checks one run of the handler; returns when it was.
fn check_run(fired: &Value, scheduled_ms: u64, retries: u64) -> u64 {
    let fired_ms = fired["fired_ms"].as_u64().unwrap();
    let told = json!({"scheduled_ms": scheduled_ms, "fired_ms": fired_ms, "retry_count": retries,
                      "is_retry": retries > 0});
    assert_eq!(*fired, told);
    assert!(fired_ms >= scheduled_ms, "early: {fired}");
    fired_ms
}

#[test]
fn an_alarm_rings_once_by_the_clock_of_the_server() {
    served_by(Server::builder().clock(Clock::starting_at(1_000_000)), async |client| {
        let scheduled = set(&client, "now", "in_ms=0").await;
        let soon = set(&client, "soon", "in_ms=20").await;
        let past = set(&client, "past", "in_ms=-500000").await;
        assert!((1_000_000..1_100_000).contains(&scheduled), "{scheduled}");
        for (name, scheduled) in [("now", scheduled), ("soon", soon), ("past", past)] {
            let fired = rung(&client, name, 1).await;
            let fired_ms = check_run(&fired[0], scheduled, 0);
            assert!((1_000_000..1_100_000).contains(&fired_ms), "{fired_ms}");
            assert_eq!(json_of(&client, ("PROBE", name), "/alarm").await, Value::Null, "{name}");
        }
    });
}

#[test]
fn an_alarm_is_told_replaced_and_cleared() {
    served(async |client| {
        let rows = [
            ("GET", "/alarm", "", 200, "null"),
            ("GET", "/alarm?fail=1", "", 400, "?in_ms="),
            ("GET", "/alarm?in_ms=x", "", 400, "in_ms=\"x\""),
            ("GET", "/alarms", "", 200, "[]"),
            ("GET", "/alarms?wait=1&ms=1", "", 200, "[]"),
        ];
        check(&client, "PROBE", &rows).await;
        let first = set(&client, "tested", "in_ms=60000").await;
        let second = set(&client, "tested", "in_ms=90000").await;
        assert!(second >= first + 30_000);
        let second = second.to_string();
        let rows = [
            ("GET", "/alarm", "", 200, second.as_str()),
            ("GET", "/alarm?clear", "", 200, "null"),
            ("GET", "/alarm", "", 200, "null"),
        ];
        check(&client, "PROBE", &rows).await;
        set(&client, "tested", "in_ms=60000").await;
        let rows = [("GET", "/delete-all", "", 200, "deleted"), ("GET", "/alarm", "", 200, "null")];
        check(&client, "PROBE", &rows).await;
    });
}

#[test]
fn an_alarm_that_fails_or_resets_its_object_rings_again_and_one_set_anew_instead() {
    served(async |client| {
        let again = async |name: &'static str, plan: &str| {
            let scheduled = set(&client, name, &format!("in_ms=0&{plan}")).await;
            let fired = rung(&client, name, 2).await;
            let first = check_run(&fired[0], scheduled, 0);
            let second = check_run(&fired[1], scheduled, 1);
            assert!((2_000..10_000).contains(&(second - first)), "{name}: {first} {second}");
            assert_eq!(json_of(&client, ("PROBE", name), "/alarm").await, Value::Null, "{name}");
        };
        let anew = async |name: &'static str, plan: &str| {
            let scheduled = set(&client, name, &format!("in_ms=0&again_ms=10&{plan}")).await;
            let fired = rung(&client, name, 2).await;
            let first = check_run(&fired[0], scheduled, 0);
            let scheduled = fired[1]["scheduled_ms"].as_u64().unwrap();
            assert!(scheduled >= first + 10, "{fired:?}");
            check_run(&fired[1], scheduled, 0);
        };
        let retried = [("fails", "fail=1"), ("resets", "abort")];
        let retried = retried.map(|(name, plan)| again(name, plan));
        let replaced = [("anew", ""), ("fails-anew", "fail=1")];
        let replaced = replaced.map(|(name, plan)| anew(name, plan));
        tokio::join!(join_all(retried), join_all(replaced));
    });
}

#[test]
fn an_alarm_that_was_due_while_no_server_ran_rings_at_the_next_start() {
    let store = Memory::new();
    let (mut crashed, mut scheduled) = (None, 0);
    let clock = Clock::starting_at(1_000_000);
    served_by(Server::builder().store(Arc::new(store.clone())).clock(clock), async |client| {
        scheduled = set(&client, "tested", "in_ms=600000&fail=1").await;
        crashed = Some(store.after_crash());
    });
    let builder = Server::builder().store(Arc::new(crashed.unwrap()));
    served_by(builder.clock(Clock::starting_at(2_000_000)), async |client| {
        let fired = rung(&client, "tested", 2).await;
        check_run(&fired[0], scheduled, 0);
        check_run(&fired[1], scheduled, 1);
    });
}
