//! Calls that are not let in.
//!
//! **Invariant:** a refused call never reaches the subject, and never harms its connection.

use std::rc::Rc;
use std::sync::Arc;

use capnp::ErrorKind;
use capnp::traits::ImbueMut;
use capnp_rpc::rpc_capnp::{exception, message, return_};
use futures::FutureExt;
use futures::future::join_all;

use super::support::{Ear, LOG, NEVER, NOTIFY, Raw, connect, log, pair, root, run, serve, settle};
use crate::demo_capnp::probe;
use crate::limits::Limits;
use crate::vat::Account;

fn one_call() -> Limits {
    Limits { connection_calls_max: 1, ..Limits::default() }
}

/// Calls `log` on the answer of question `on`.
async fn pipeline(raw: &mut Raw, id: u32, on: u32) {
    raw.call(id, LOG, |mut call| {
        call.reborrow().init_target().init_promised_answer().set_question_id(on);
    })
    .await;
}

#[test]
fn a_call_too_many_is_refused_with_everything_pipelined_on_it() {
    run(async {
        let (mut raw, traffic, subject) = Raw::greeted(one_call()).await;
        raw.log(0, NEVER).await;
        raw.log(1, 1).await;
        pipeline(&mut raw, 2, 1).await;
        pipeline(&mut raw, 3, 2).await;
        for id in 1..=3 {
            let (answered, outcome) = raw.answer().await;
            let (kind, reason) = outcome.unwrap_err();
            assert_eq!((answered, kind), (id, exception::Type::Overloaded));
            let is_first = reason.contains("connection_calls_max") && reason.contains('1');
            assert_eq!(is_first, id == 1, "{reason}");
        }
        assert_eq!(*subject.log.borrow(), [NEVER]);
        assert_eq!(traffic.calls_in_flight(), 1);
        assert!(traffic.failure().is_none());
    });
}

#[test]
fn a_question_id_can_be_used_again_after_its_call_was_refused() {
    run(async {
        let (mut raw, traffic, subject) = Raw::greeted(one_call()).await;
        raw.log(0, NEVER).await;
        raw.log(1, 1).await;
        raw.log(2, 2).await;
        assert!(raw.answer().await.1.is_err());
        assert!(raw.answer().await.1.is_err());
        // Cancels the one that hangs, which then counts no more.
        raw.finish(0).await;
        // One peer finishes what was refused, another uses the id again at once.
        raw.finish(1).await;
        raw.log(1, 10).await;
        assert_eq!(raw.answer().await, (1, Ok(())));
        raw.finish(1).await;
        raw.log(2, 20).await;
        assert_eq!(raw.answer().await, (2, Ok(())));
        raw.finish(2).await;
        pipeline(&mut raw, 3, 2).await;
        let (kind, _) = raw.answer().await.1.unwrap_err();
        assert_eq!(kind, exception::Type::Failed, "it is capnp-rpc that knows no answer 2");
        assert_eq!(*subject.log.borrow(), [NEVER, 10, 20]);
        assert!(traffic.failure().is_none());
    });
}

#[test]
fn a_call_beyond_the_queued_bytes_is_refused() {
    run(async {
        let limits = Limits { connection_queued_bytes_max: 13_000, ..Limits::default() };
        let pair = pair(limits);
        log(&pair.client, 0).await.unwrap();
        let hanging = join_all((0..2).map(|_| log(&pair.client, NEVER))).shared();
        assert!(hanging.clone().now_or_never().is_none());
        let mut request = pair.client.log_request();
        request.get().set_payload(&[0; 900]);
        let Err(error) = request.send().promise.await else { panic!("it was let in") };
        assert_eq!(error.kind, ErrorKind::Overloaded);
        assert!(error.extra.contains("13000 bytes (connection_queued_bytes_max)"), "{error}");
        log(&pair.client, 1).await.unwrap();
        assert_eq!(pair.server_traffic.calls_in_flight(), 2);
        assert!(pair.server_traffic.queued_bytes() > 100);
        drop(hanging);
        settle().await;
        assert_eq!(pair.server_traffic.queued_bytes(), 0);
    });
}

#[test]
fn the_bytes_of_all_connections_are_bounded_together() {
    run(async {
        let account = Arc::new(Account::new(12_700));
        let connection = || {
            let (near, far) = tokio::io::duplex(4096);
            serve(far, Limits::default(), Some(Arc::clone(&account)));
            connect(near, Limits::default()).0
        };
        let (one, other) = (connection(), connection());
        log(&one, 0).await.unwrap();
        log(&other, 0).await.unwrap();
        assert_eq!(account.reserved(), 0);
        let hanging = join_all((0..3).map(|_| log(&one, NEVER))).shared();
        assert!(hanging.clone().now_or_never().is_none());
        settle().await;
        let error = log(&other, 1).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Overloaded);
        assert!(error.extra.contains("12700 bytes (server_queued_bytes_max)"), "{error}");
        drop(hanging);
        settle().await;
        log(&other, 1).await.unwrap();
        assert_eq!(account.reserved(), 0);
    });
}

#[test]
fn what_came_with_a_refused_call_is_given_back() {
    run(async {
        let pair = pair(one_call());
        let hanging = log(&pair.client, NEVER).shared();
        assert!(hanging.clone().now_or_never().is_none());
        let ear = Ear::default();
        let dropped = Rc::clone(&ear.dropped);
        let mut request = pair.client.echo_request();
        request.get().set_listener(capnp_rpc::new_client(ear));
        let answer = request.send();
        let pipelined = answer.pipeline.get_listener().heard_request().send().promise;
        let Err(error) = answer.promise.await else { panic!("it was let in") };
        assert_eq!(error.kind, ErrorKind::Overloaded);
        let Err(error) = pipelined.await else { panic!("it was let in") };
        assert_eq!(error.kind, ErrorKind::Overloaded);
        settle().await;
        assert!(dropped.get());
        assert!(pair.client_traffic.failure().is_none());
    });
}

#[test]
fn results_are_sent_to_nobody_but_the_caller() {
    run(async {
        let (mut raw, traffic, subject) = Raw::greeted(Limits::default()).await;
        raw.call(0, LOG, |mut call| call.reborrow().get_send_results_to().set_yourself(())).await;
        let (id, outcome) = raw.answer().await;
        let (kind, reason) = outcome.unwrap_err();
        assert_eq!((id, kind), (0, exception::Type::Unimplemented), "{reason}");
        raw.log(1, 1).await;
        assert_eq!(raw.answer().await, (1, Ok(())));
        assert_eq!(*subject.log.borrow(), [1]);
        assert!(traffic.failure().is_none());
    });
}

#[test]
fn a_call_of_ours_that_ends_in_a_refused_one_fails() {
    run(async {
        let (mut raw, traffic, _) = Raw::greeted(Limits::default()).await;
        // Hands over a listener (export 7), which the subject calls.
        raw.call(0, NOTIFY, |mut call| {
            let mut payload = call.reborrow().init_params();
            payload.reborrow().init_cap_table(1).get(0).set_sender_hosted(7);
            let mut table = Vec::new();
            let mut content = payload.get_content();
            content.imbue_mut(&mut table);
            let mut params = content.init_as::<probe::notify_params::Builder<'_>>();
            params.set_listener(capnp_rpc::new_client(Ear::default()));
            params.set_count(1);
        })
        .await;
        let received = raw.receive().await;
        let Ok(message::Call(Ok(called))) = root(&received).which() else { panic!("not a call") };
        let called = called.get_question_id();
        // It answers with the results of a call on us, as a tail call does.
        raw.call(1, LOG, |mut call| call.reborrow().get_send_results_to().set_yourself(())).await;
        raw.send(|message| {
            let mut answer = message.init_return();
            answer.set_answer_id(called);
            answer.set_take_from_other_question(1);
        })
        .await;
        assert_eq!(raw.answer().await.0, 1);
        let mut outcome = None;
        while outcome.is_none() {
            let received = raw.receive().await;
            if let Ok(message::Return(Ok(answer))) = root(&received).which() {
                assert_eq!(answer.get_answer_id(), 0);
                outcome = Some(matches!(answer.which(), Ok(return_::Exception(_))));
            }
        }
        assert_eq!(outcome, Some(true));
        assert!(traffic.failure().is_none());
        assert_eq!(traffic.own_calls_in_flight(), 0);
    });
}

#[test]
fn refused_calls_that_are_never_finished_end_the_connection() {
    run(async {
        let (mut raw, traffic, _) = Raw::greeted(one_call()).await;
        raw.log(0, NEVER).await;
        for id in 1..=9 {
            raw.log(id, 1).await;
        }
        let error = traffic.closed().await;
        assert_eq!(error.kind, ErrorKind::Failed);
        assert!(error.extra.contains("more than 8 refused calls"), "{error}");
    });
}
