//! Calls that their callers give up.
//!
//! **Invariant:** a question id that is used again is in neither side's table: capnp-rpc refuses any other.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use capnp::ErrorKind;
use capnp_rpc::rpc_capnp::{exception, message, return_};
use futures::FutureExt;
use futures::future::join_all;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::support::{LOG, NEVER, Raw, Subject, connect, log, root, run, serve_client, settle};
use crate::demo_capnp::probe;
use crate::limits::Limits;
use crate::vat::frame::Table;
use crate::vat::{Traffic, guard};

const ROUNDS: u64 = 2_000;
const CALLS_PER_ROUND: u64 = 100;

/// A stream that reads along which question ids its writer uses.
struct Tap<S> {
    stream: S,
    written: Vec<u8>,
    question_id_max: Rc<Cell<u32>>,
}

impl<S> Tap<S> {
    fn on(stream: S) -> (Self, Rc<Cell<u32>>) {
        let question_id_max = Rc::new(Cell::new(0));
        (
            Self { stream, written: Vec::new(), question_id_max: question_id_max.clone() },
            question_id_max,
        )
    }

    fn read_along(&mut self) {
        while let Some(table) = Table::parse(&self.written, 1 << 24).unwrap() {
            let end = table.header_bytes + table.body_bytes;
            if self.written.len() < end {
                return;
            }
            let bytes: Vec<u8> = self.written.drain(..end).collect();
            let received = capnp::serialize::read_message(&bytes[..], Default::default()).unwrap();
            if let Ok(message::Call(Ok(call))) = root(&received).which() {
                let question_id = call.get_question_id();
                self.question_id_max.set(self.question_id_max.get().max(question_id));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.written.extend_from_slice(&bytes[..count]);
            self.read_along();
        }
        written
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Serves `client` to the peer of the returned one, and tells which question ids that peer uses.
fn across(served: probe::Client) -> (probe::Client, Rc<Traffic>, Rc<Traffic>, Rc<Cell<u32>>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let server_traffic = serve_client(far, Limits::default(), None, served);
    let (near, question_id_max) = Tap::on(near);
    let (client, client_traffic) = connect(near, Limits::default());
    (client, server_traffic, client_traffic, question_id_max)
}

fn guarded() -> (probe::Client, Rc<Subject>) {
    let subject = Rc::new(Subject::default());
    (guard(capnp_rpc::new_client_from_rc(Rc::clone(&subject))), subject)
}

/// Whether calls are given up that were made on the answers of others.
#[derive(Clone, Copy)]
enum Pipelined {
    Too,
    Not,
}

/// Makes a hundred calls and gives most of them up, each at another moment.
async fn give_up_calls(client: &probe::Client, pipelined: Pipelined) {
    let mut held = Vec::new();
    let mut finished = Vec::new();
    for n in 0..CALLS_PER_ROUND {
        match n % 5 {
            // Before it is delivered.
            0 => drop(log(client, NEVER).now_or_never()),
            // While it runs.
            1 => {
                let mut call = Box::pin(log(client, NEVER));
                assert!((&mut call).now_or_never().is_none());
                held.push(call);
            }
            // After it is complete, and nobody looked.
            2 => {
                let mut call = Box::pin(log(client, n));
                assert!((&mut call).now_or_never().is_none());
                held.push(call);
            }
            // With another one pipelined on it, which waits for it.
            3 if matches!(pipelined, Pipelined::Too) => {
                let echo = client.echo_request().send();
                drop(echo.pipeline.get_listener().heard_request().send());
            }
            _ => {
                let mut call = Box::pin(log(client, n));
                assert!((&mut call).now_or_never().is_none());
                finished.push(call);
            }
        }
    }
    settle().await;
    drop(held);
    join_all(finished).await.into_iter().for_each(|outcome| assert!(outcome.is_ok()));
    settle().await;
}

fn assert_is_clean(traffic: &Traffic) {
    assert_eq!((traffic.calls_in_flight(), traffic.queued_bytes()), (0, 0));
    assert_eq!(traffic.own_calls_in_flight(), 0);
    assert!(traffic.failure().is_none(), "{:?}", traffic.failure());
}

#[test]
fn a_connection_can_cancel_calls_for_ever() {
    run(async {
        let (served, subject) = guarded();
        let (client, server_traffic, client_traffic, question_id_max) = across(served);
        for _ in 0..ROUNDS {
            give_up_calls(&client, Pipelined::Too).await;
            subject.log.borrow_mut().clear();
        }
        assert_eq!(log(&client, 7).await.unwrap(), 7);
        settle().await;
        assert_is_clean(&server_traffic);
        assert_is_clean(&client_traffic);
        assert!(question_id_max.get() < 300, "{}", question_id_max.get());
    });
}

#[test]
fn a_cancelled_call_leaves_nothing_on_its_way_through_another_vat() {
    run(async {
        let (served, subject) = guarded();
        let (middle, inner_server, inner_client, inner_id_max) = across(served);
        log(&middle, 0).await.unwrap();
        let (client, server_traffic, client_traffic, question_id_max) = across(guard(middle));
        for _ in 0..100 {
            // What they are made on is not guarded: it belongs to the vat behind.
            give_up_calls(&client, Pipelined::Not).await;
            subject.log.borrow_mut().clear();
        }
        assert_eq!(log(&client, 7).await.unwrap(), 7);
        settle().await;
        for traffic in [inner_server, inner_client, server_traffic, client_traffic] {
            assert_is_clean(&traffic);
        }
        let ids = (question_id_max.get(), inner_id_max.get());
        assert!(ids.0 < 300 && ids.1 < 300, "{ids:?}");
    });
}

/// Receives a return, and tells whose it is and whether it says that its call was cancelled.
async fn returned(raw: &mut Raw) -> (u32, bool) {
    let received = raw.receive().await;
    let Ok(message::Return(Ok(answer))) = root(&received).which() else { panic!("not a return") };
    (answer.get_answer_id(), matches!(answer.which(), Ok(return_::Canceled(()))))
}

async fn greeted() -> (Raw, Rc<Traffic>, Rc<Subject>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (served, subject) = guarded();
    let traffic = serve_client(far, Limits::default(), None, served);
    let mut raw = Raw { stream: near };
    raw.send(|message| message.init_bootstrap().set_question_id(1000)).await;
    raw.receive().await;
    (raw, traffic, subject)
}

#[test]
fn the_id_of_a_cancelled_call_can_be_used_again_once_its_return_came() {
    run(async {
        let (mut raw, traffic, subject) = greeted().await;
        for n in 0..2_000 {
            raw.log(3, NEVER).await;
            // By turns before the call has begun and after.
            if n % 2 == 0 {
                settle().await;
            }
            raw.finish(3).await;
            // One finish too many is as good as one.
            if n % 3 == 0 {
                raw.finish(3).await;
            }
            assert_eq!(returned(&mut raw).await, (3, true));
        }
        raw.log(3, 1).await;
        assert_eq!(returned(&mut raw).await, (3, false));
        assert_eq!(subject.log.borrow().last(), Some(&1));
        settle().await;
        assert_is_clean(&traffic);
    });
}

#[test]
fn a_call_is_not_cancelled_while_another_needs_its_answer() {
    run(async {
        let (mut raw, traffic, subject) = greeted().await;
        raw.log(0, NEVER).await;
        for id in 1..=2 {
            raw.call(id, LOG, |mut call| {
                call.reborrow().init_target().init_promised_answer().set_question_id(0);
            })
            .await;
        }
        raw.finish(0).await;
        raw.finish(1).await;
        settle().await;
        assert_eq!(traffic.calls_in_flight(), 3);
        raw.log(4, 4).await;
        assert_eq!(returned(&mut raw).await, (4, false));
        raw.finish(2).await;
        let mut ended = Vec::new();
        for _ in 0..3 {
            ended.push(returned(&mut raw).await);
        }
        ended.sort_unstable();
        assert_eq!(ended, [(0, true), (1, true), (2, true)]);
        assert_eq!(*subject.log.borrow(), [NEVER, 4]);
        settle().await;
        assert_is_clean(&traffic);
    });
}

#[test]
fn calls_that_need_each_other_are_cancelled_in_a_row_and_no_row_is_too_long() {
    run(async {
        let (mut raw, traffic, subject) = greeted().await;
        raw.log(0, NEVER).await;
        for id in 1..2_000 {
            raw.call(id, LOG, |mut call| {
                call.reborrow().init_target().init_promised_answer().set_question_id(id - 1);
            })
            .await;
        }
        for id in 64..2_000 {
            let (refused, outcome) = raw.answer().await;
            assert_eq!((refused, outcome.unwrap_err().0), (id, exception::Type::Overloaded));
        }
        for id in 0..64 {
            raw.finish(id).await;
        }
        let mut ended = Vec::new();
        for _ in 0..64 {
            ended.push(returned(&mut raw).await);
        }
        ended.sort_unstable();
        assert_eq!(ended, (0..64).map(|id| (id, true)).collect::<Vec<_>>());
        assert_eq!(*subject.log.borrow(), [NEVER]);
        settle().await;
        assert_is_clean(&traffic);
    });
}

#[test]
fn a_caller_that_releases_results_itself_gets_them() {
    run(async {
        let (mut raw, traffic, _) = greeted().await;
        raw.log(0, 5).await;
        raw.send(|message| {
            let mut finish = message.init_finish();
            finish.set_question_id(0);
            finish.set_release_result_caps(false);
        })
        .await;
        assert_eq!(returned(&mut raw).await, (0, false));
        settle().await;
        assert_is_clean(&traffic);
    });
}

#[test]
fn a_call_that_no_server_has_looked_at_is_taken_back() {
    run(async {
        let subject = Rc::new(Subject::default());
        let plain: probe::Client = capnp_rpc::new_client_from_rc(Rc::clone(&subject));
        let (client, server_traffic, client_traffic, question_id_max) = across(plain);
        log(&client, 0).await.unwrap();
        for _ in 0..1_000 {
            drop(log(&client, 1).now_or_never());
            settle().await;
        }
        assert_eq!(*subject.log.borrow(), [0]);
        assert_is_clean(&server_traffic);
        assert_is_clean(&client_traffic);
        assert!(question_id_max.get() < 5, "{}", question_id_max.get());
    });
}

#[test]
fn calls_that_only_a_stranger_runs_end_the_connection_when_too_many_are_cancelled() {
    run(async {
        let limits = Limits { connection_calls_max: 1, ..Limits::default() };
        let (mut raw, traffic, _) = Raw::greeted(limits).await;
        for id in 0..9 {
            assert!(traffic.failure().is_none());
            raw.log(id, NEVER).await;
            settle().await;
            raw.finish(id).await;
            settle().await;
            assert_eq!((traffic.calls_in_flight(), traffic.queued_bytes()), (0, 0));
        }
        let error = traffic.closed().await;
        assert_eq!(error.kind, ErrorKind::Disconnected);
        assert!(error.extra.contains("more than 8 calls were cancelled"), "{error}");
    });
}
