//! Peers that take too long.
//!
//! **Invariant:** each deadline is tested just before it passes, and at it.

use std::time::Duration;

use capnp::ErrorKind;
use futures::FutureExt;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::support::{NEVER, Raw, encoded, log, pair, run, settle};
use crate::limits::Limits;
use crate::vat::Traffic;

const SECOND: Duration = Duration::from_secs(1);

/// Checks that the connection dies `after` the time at which it is called (a timer ticks in
/// milliseconds, as `settle` does), and why.
async fn check_death(traffic: &Traffic, after: Duration, reason: &str) {
    let begun = Instant::now();
    let error = traffic.closed().await;
    assert_eq!(error.kind, ErrorKind::Disconnected);
    assert!(error.extra.contains(reason), "{error}");
    let took = begun.elapsed();
    assert!(
        (after - SECOND / 10..after + SECOND / 10).contains(&took),
        "it took {took:?} instead of {after:?}"
    );
}

#[test]
fn a_peer_that_says_nothing_is_let_go() {
    run(async {
        let (mut raw, traffic, _) = Raw::new(Limits::default(), 4096);
        check_death(&traffic, 10 * SECOND, "no whole message arrived within 10s").await;
        // The peer is told, and the stream is closed.
        let mut rest = Vec::new();
        raw.stream.read_to_end(&mut rest).await.unwrap();
        let text = String::from_utf8_lossy(&rest);
        assert!(text.contains("no whole message arrived"), "{text}");
    });
}

#[test]
fn half_a_first_message_does_not_count() {
    run(async {
        let (mut raw, traffic, _) = Raw::new(Limits::default(), 4096);
        sleep(9 * SECOND).await;
        raw.stream.write_all(&[0; 7]).await.unwrap();
        check_death(&traffic, SECOND, "no whole message arrived").await;
    });
}

#[test]
fn a_message_that_began_must_end() {
    run(async {
        let (mut raw, traffic, _) = Raw::greeted(Limits::default()).await;
        sleep(100 * SECOND).await;
        let bytes = encoded(|message| message.init_finish().set_question_id(7));
        let (begin, end) = bytes.split_at(9);
        raw.stream.write_all(begin).await.unwrap();
        sleep(29 * SECOND).await;
        raw.stream.write_all(end).await.unwrap();
        // A byte now and then does not help.
        raw.stream.write_all(begin).await.unwrap();
        settle().await;
        let death = check_death(&traffic, 30 * SECOND, "did not end within 30s");
        let trickle = async {
            for byte in end {
                sleep(8 * SECOND).await;
                if raw.stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
        };
        futures::join!(death, trickle);
    });
}

#[test]
fn a_connection_without_calls_is_let_go_when_idle_and_one_with_calls_is_not() {
    run(async {
        let idle_timeout = Some(60 * SECOND);
        let (mut raw, traffic, _) =
            Raw::greeted(Limits { idle_timeout, ..Limits::default() }).await;
        sleep(59 * SECOND).await;
        raw.log(0, NEVER).await;
        sleep(1000 * SECOND).await;
        assert!(traffic.failure().is_none(), "a call is in flight");
        raw.finish(0).await;
        settle().await;
        check_death(&traffic, 60 * SECOND, "for 60s").await;
    });
}

#[test]
fn a_connection_that_waits_for_its_peer_is_not_idle() {
    run(async {
        let pair = pair(Limits { idle_timeout: Some(60 * SECOND), ..Limits::default() });
        let hanging = log(&pair.client, NEVER).shared();
        assert!(hanging.clone().now_or_never().is_none());
        sleep(1000 * SECOND).await;
        assert!(pair.client_traffic.failure().is_none());
        assert!(pair.server_traffic.failure().is_none());
        drop(hanging);
        settle().await;
        check_death(&pair.server_traffic, 60 * SECOND, "for 60s").await;
    });
}

#[test]
fn a_peer_that_does_not_read_is_not_read_from_and_then_let_go() {
    run(async {
        let limits = Limits { connection_output_bytes_max: 10_000, ..Limits::default() };
        let (mut raw, traffic, subject) = Raw::new(limits, 1000);
        raw.send(|message| message.init_bootstrap().set_question_id(1000)).await;
        raw.receive().await;
        let flood = async {
            for id in 0..5000 {
                raw.log(id, id.into()).await;
            }
        };
        // A thousand bytes of pipe, ten thousand of output: the peer is stopped long before its end.
        assert!(tokio::time::timeout(5 * SECOND, flood).await.is_err());
        let begun = subject.log.borrow().len();
        assert!(begun < 500, "{begun} calls were taken");
        assert!((10_000..20_000).contains(&traffic.output_bytes()), "{}", traffic.output_bytes());
        check_death(&traffic, 5 * SECOND, "for 10s").await;
        let error = traffic.failure().unwrap();
        assert!(error.extra.contains("the peer took none of"), "{error}");
        assert_eq!(traffic.output_bytes(), 0);
        assert_eq!(traffic.calls_in_flight(), 0);
    });
}

#[test]
fn a_slow_peer_that_reads_again_is_read_from_again() {
    run(async {
        let limits = Limits { connection_output_bytes_max: 10_000, ..Limits::default() };
        let (raw, traffic, subject) = Raw::new(limits, 1000);
        let (mut reader, mut writer) = tokio::io::split(raw.stream);
        let bootstrap = encoded(|message| message.init_bootstrap().set_question_id(1000));
        writer.write_all(&bootstrap).await.unwrap();
        let (mut other, ..) = Raw::new(Limits::default(), 4096);
        other.log(0, 0).await;
        let write = async {
            for id in 0..1000_u32 {
                let bytes = encoded(|message| {
                    let mut call = message.init_call();
                    call.set_question_id(id);
                    call.set_interface_id(
                        <crate::demo_capnp::probe::Client as capnp::traits::HasTypeId>::TYPE_ID,
                    );
                    call.reborrow().init_target().set_imported_cap(0);
                    call.init_params()
                        .get_content()
                        .init_as::<crate::demo_capnp::probe::log_params::Builder<'_>>()
                        .set_n(id.into());
                });
                writer.write_all(&bytes).await.unwrap();
            }
        };
        let read = async {
            let mut buffer = [0; 500];
            while subject.log.borrow().len() < 1000 {
                sleep(SECOND / 10).await;
                assert!(reader.read(&mut buffer).await.unwrap() > 0);
            }
        };
        futures::join!(write, read);
        assert_eq!(*subject.log.borrow(), (0..1000).collect::<Vec<_>>());
        assert!(traffic.failure().is_none());
    });
}

#[test]
fn the_first_reason_is_kept_and_every_call_learns_it() {
    run(async {
        let (near, far) = tokio::io::duplex(4096);
        let limits = Limits { peer_timeout: 3 * SECOND, ..Limits::default() };
        let (client, traffic) = super::support::connect(near, limits);
        let calls = join_all((0..100).map(|_| log(&client, 1))).await;
        let reason = traffic.failure().unwrap();
        assert_eq!(reason.kind, ErrorKind::Disconnected);
        assert!(reason.extra.ends_with("for 3s"), "{reason}");
        for outcome in calls {
            assert_eq!(outcome.unwrap_err().kind, ErrorKind::Disconnected);
        }
        drop(far);
        settle().await;
        assert_eq!(traffic.closed().await.extra, reason.extra);
        assert_eq!(log(&client, 2).await.unwrap_err().extra, reason.extra);
    });
}
