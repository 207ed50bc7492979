//! Moves the messages of one WebSocket between its end in this process and a stream of bytes.
//!
//! **Invariant:** each direction waits for its own reader only: a peer that does not read is still read from, until
//! what it sends finds no room.
//! **Invariant:** a peer that breaks a rule is told by the close frame that RFC 6455 has for it; a link that is
//! lost on either side is lost on the other, without a close frame.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{FutureExt, Sink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame as WireClose, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Utf8Bytes};

use super::partial::{Budget, Counted, Partial};
use crate::limits::Limits;
use crate::socket::{CloseFrame, Ending, Message, Reader, Taken, WebSocket, Writer};

/// Speaks RFC 6455, as a server, over `io`, whose upgrade was answered already, until either side has closed or is
/// lost. Pings are answered here. A message that has begun to come has `message_timeout` for each MiB, and what has
/// come of it is held within `budget`.
///
/// # Cancel safety
/// Dropping the future drops `io` and `end`: a lost link to both.
pub async fn pump<S>(end: WebSocket, io: S, limits: &Limits, budget: &Budget)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let message_bytes = limits.socket_message_bytes_max;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(message_bytes))
        .max_frame_size(Some(message_bytes));
    let partial = Partial::new(budget, limits.message_timeout);
    let io = partial.count(io);
    let wire = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let (writer, reader) = end.split();
    let (inward, outward) = (Some(writer), Some(reader));
    let mut pump = Pump { wire, inward, outward, stalled: None, partial };
    let mut closing = None;
    let last = poll_fn(|context| {
        if let Poll::Ready(last) = pump.poll(context) {
            return Poll::Ready(last);
        }
        if pump.outward.is_some() {
            return Poll::Pending;
        }
        // This side has closed: the peer has so long to do so, too.
        let patience = || Box::pin(tokio::time::sleep(limits.peer_timeout));
        closing.get_or_insert_with(patience).as_mut().poll(context).map(|()| Last::Nothing)
    })
    .await;
    let Pump { wire, inward, outward, .. } = pump;
    // Whoever held the other end need not wait for the last of it.
    drop((inward, outward));
    let patience = limits.peer_timeout;
    // Who does not take the last frame in time has lost it. In a box: a socket that is open needs no room for it.
    let _ = tokio::time::timeout(patience, finish(wire, last)).boxed_local().await;
}

/// What is read from the wire at a time. It is kept for each WebSocket, idle or not.
const READ_BUFFER_BYTES: usize = 512;

struct Pump<'a, S> {
    wire: WebSocketStream<Counted<S>>,
    /// None once the peer has closed.
    inward: Option<Writer>,
    /// None once this side has closed.
    outward: Option<Reader>,
    /// What the peer sent and finds no room.
    stalled: Option<Message>,
    /// What has come of a message that is not whole.
    partial: Partial<'a>,
}

/// What is left to do when nothing more is moved.
enum Last {
    /// Both sides have closed, or the link is lost.
    Nothing,
    /// What was sent is to be written, and then the link dropped.
    Flush,
    /// A close frame of ours is out, or has to be: the peer is to answer it.
    Close(Option<CloseFrame>),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pump<'_, S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Last> {
        if let Poll::Ready(last) = self.poll_inward(context) {
            return Poll::Ready(last);
        }
        if let Poll::Ready(last) = self.poll_outward(context) {
            return Poll::Ready(last);
        }
        // What reading brought about (an answer to a ping) leaves with the rest.
        match Pin::new(&mut self.wire).poll_flush(context) {
            Poll::Ready(Err(_)) => Poll::Ready(Last::Nothing),
            _ => Poll::Pending,
        }
    }

    /// Moves what the peer sends, while there is room for it.
    fn poll_inward(&mut self, context: &mut Context<'_>) -> Poll<Last> {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(inward) = &self.inward else {
                match self.outward {
                    Some(_) => return Poll::Pending,
                    // What is still on its way reaches nobody, but for the close behind it.
                    None => return self.poll_close(context),
                }
            };
            if self.stalled.is_some() && inward.poll_room(context).is_pending() {
                return Poll::Pending;
            }
            if let Some(message) = self.stalled.take()
                && inward.push(message).is_err()
            {
                // Nobody receives any more: the other direction tells how that came.
                self.inward = None;
                return Poll::Pending;
            }
            let read = match Pin::new(&mut self.wire).poll_next(context) {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    let late = ready!(self.partial.poll_late(context, READ_BUFFER_BYTES));
                    let frame = CloseFrame::ours(late.code(), late.reason());
                    inward.end(Ending::Broken(frame.clone()));
                    return Poll::Ready(Last::Close(Some(frame)));
                }
            };
            match &read {
                Some(Ok(tungstenite::Message::Ping(bytes) | tungstenite::Message::Pong(bytes))) => {
                    self.partial.passed(bytes.len());
                }
                _ => self.partial.clear(),
            }
            match read {
                Some(Ok(tungstenite::Message::Text(text))) => {
                    self.stalled = Some(Message::text(text.as_str()));
                }
                Some(Ok(tungstenite::Message::Binary(bytes))) => {
                    self.stalled = Some(Message::Binary(bytes));
                }
                Some(Ok(tungstenite::Message::Close(frame))) => {
                    inward.end(read_close(frame));
                    // The library answers by itself.
                    return Poll::Ready(Last::Close(None));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(broken(inward, &error)),
                None => return Poll::Ready(Last::Nothing),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits for the peer's close, and drops what comes before it.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Last> {
        for _ in 0..MESSAGES_PER_TURN {
            match ready!(Pin::new(&mut self.wire).poll_next(context)) {
                Some(Ok(tungstenite::Message::Close(_))) => return Poll::Ready(Last::Close(None)),
                Some(Ok(_)) => self.partial.clear(),
                Some(Err(_)) | None => return Poll::Ready(Last::Nothing),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves what is sent to the peer, while the wire takes it.
    fn poll_outward(&mut self, context: &mut Context<'_>) -> Poll<Last> {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(outward) = &self.outward else { return Poll::Pending };
            match Pin::new(&mut self.wire).poll_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Last::Nothing),
                Poll::Pending => return Poll::Pending,
            }
            let message = match outward.poll_take(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Taken::Message(Message::Text(text))) => {
                    tungstenite::Message::text(text.as_str())
                }
                Poll::Ready(Taken::Message(Message::Binary(bytes))) => {
                    tungstenite::Message::Binary(bytes)
                }
                Poll::Ready(Taken::Ended(Ending::Lost)) => return Poll::Ready(Last::Flush),
                Poll::Ready(Taken::Ended(Ending::Closed(frame) | Ending::Broken(frame))) => {
                    self.outward = None;
                    if self.inward.is_none() {
                        // Reading goes on, for the peer's close.
                        context.waker().wake_by_ref();
                    }
                    write_close(&frame)
                }
            };
            if Pin::new(&mut self.wire).start_send(message).is_err() {
                return Poll::Ready(Last::Nothing);
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Messages of one direction before the other gets its turn.
const MESSAGES_PER_TURN: usize = 32;

/// Tells this side how the peer broke off, and returns what the peer is told.
fn broken(inward: &Writer, error: &tungstenite::Error) -> Last {
    use tungstenite::Error::{Capacity, Protocol, Utf8};
    let code = match error {
        Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Protocol(_) => Some(CloseFrame::PROTOCOL),
        Utf8(_) => Some(CloseFrame::NOT_UTF8),
        Capacity(_) => Some(CloseFrame::TOO_LARGE),
        _ => None,
    };
    let Some(code) = code else {
        inward.end(Ending::Lost);
        return Last::Nothing;
    };
    let frame = CloseFrame::ours(code, &error.to_string());
    inward.end(Ending::Broken(frame.clone()));
    Last::Close(Some(frame))
}

/// Returns how a close frame ends what the peer sends. Behind a close of ours the library looks at none.
fn read_close(frame: Option<WireClose>) -> Ending {
    let Some(frame) = frame else {
        return Ending::Closed(CloseFrame::ours(CloseFrame::NO_CODE, ""));
    };
    let code = u16::from(frame.code);
    match CloseFrame::received(code, frame.reason.as_str()) {
        Ok(frame) if code != CloseFrame::NO_CODE => Ending::Closed(frame),
        _ => Ending::Broken(CloseFrame::ours(
            CloseFrame::PROTOCOL,
            "a close code that may not be sent",
        )),
    }
}

fn write_close(frame: &CloseFrame) -> tungstenite::Message {
    tungstenite::Message::Close(
        (frame.code() != CloseFrame::NO_CODE).then(|| WireClose {
            code: frame.code().into(),
            reason: Utf8Bytes::from(frame.reason()),
        }),
    )
}

/// Writes what is left, and takes leave.
async fn finish<S>(mut wire: WebSocketStream<S>, last: Last)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Last::Nothing = last {
        return;
    }
    if let Last::Close(Some(frame)) = &last {
        let ready = poll_fn(|context| Pin::new(&mut wire).poll_ready(context)).await;
        if ready.is_err() || Pin::new(&mut wire).start_send(write_close(frame)).is_err() {
            return;
        }
    }
    if poll_fn(|context| Pin::new(&mut wire).poll_flush(context)).await.is_err() {
        return;
    }
    let Last::Close(_) = last else { return };
    // A stream that is dropped with bytes unread takes the close frame with it: read on until the peer ends.
    let mut io = wire.into_inner();
    if tokio::io::AsyncWriteExt::shutdown(&mut io).await.is_err() {
        return;
    }
    let mut rest = [0; 512];
    let reading = async { while let Ok(1..) = io.read(&mut rest).await {} };
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// How long a peer that was told a close may take to end its side.
const LINGER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::Message as Wire;

    use super::*;

    type Peer = WebSocketStream<DuplexStream>;

    /// What the peers of one test may hold of messages that are not whole.
    const BUDGET_BYTES: usize = 6 << 20;

    /// Runs `test` with a client of the library's, and the end that the pump drives.
    async fn with_limits<F: Future<Output = ()>>(
        limits: Limits,
        test: impl FnOnce(Peer, WebSocket) -> F,
    ) {
        let (near, far) = duplex(4 << 10);
        let (end, ours) = WebSocket::pair_within(&limits);
        let peer = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let local = tokio::task::LocalSet::new();
        let budget = Budget::new(BUDGET_BYTES);
        local.spawn_local(async move { pump(ours, far, &limits, &budget).await });
        local.run_until(test(peer, end)).await;
    }

    async fn with<F: Future<Output = ()>>(test: impl FnOnce(Peer, WebSocket) -> F) {
        with_limits(Limits::default(), test).await;
    }

    fn close_code(received: Option<tungstenite::Result<Wire>>) -> Option<u16> {
        match received {
            Some(Ok(Wire::Close(frame))) => frame.map(|frame| frame.code.into()),
            other => panic!("{other:?} is no close frame"),
        }
    }

    #[tokio::test]
    async fn an_idle_socket_needs_little_memory() {
        let (end, _) = WebSocket::pair();
        let (near, _far) = duplex(64);
        let limits = Limits::default();
        let budget = Budget::new(BUDGET_BYTES);
        let bytes = size_of_val(&pump(end, near, &limits, &budget));
        assert!(bytes <= 1 << 10, "{bytes}");
    }

    #[tokio::test]
    async fn messages_of_both_kinds_pass_both_ways_in_order() {
        with(|mut peer, end| async move {
            for n in 0..100 {
                end.send(n.to_string()).await.unwrap();
                assert_eq!(peer.next().await.unwrap().unwrap(), Wire::text(n.to_string()));
                peer.send(Wire::binary(vec![n])).await.unwrap();
                assert_eq!(end.receive().await.unwrap(), Message::from(vec![n]));
            }
            let large = "é".repeat(1 << 20);
            let sending = end.send(large.as_str());
            let (sent, received) = tokio::join!(sending, peer.next());
            sent.unwrap();
            assert_eq!(received.unwrap().unwrap(), Wire::text(large));
        })
        .await;
    }

    #[tokio::test]
    async fn both_sides_may_send_more_than_the_stream_holds_before_either_reads() {
        with(|peer, end| async move {
            let (mut out, mut back) = peer.split();
            let chunk = vec![7; 64 << 10];
            for _ in 0..3 {
                end.send(chunk.clone()).await.unwrap();
            }
            let writing = async {
                for _ in 0..32 {
                    out.send(Wire::binary(chunk.clone())).await.unwrap()
                }
            };
            let reading = async {
                for _ in 0..32 {
                    end.receive().await.unwrap();
                }
            };
            tokio::join!(writing, reading);
            for _ in 0..3 {
                assert_eq!(back.next().await.unwrap().unwrap().len(), chunk.len());
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_close_of_either_side_is_answered_with_its_code() {
        with(|mut peer, end| async move {
            end.send("last").await.unwrap();
            end.close(4001, "over").unwrap();
            assert_eq!(peer.next().await.unwrap().unwrap(), Wire::text("last"));
            assert_eq!(close_code(peer.next().await), Some(4001));
            assert!(peer.next().await.is_none());
            assert_eq!(end.receive().await.unwrap_err().code, 4001);
        })
        .await;
        with(|mut peer, end| async move {
            let frame = WireClose { code: 3000.into(), reason: "bye".into() };
            peer.send(Wire::text("last")).await.unwrap();
            peer.close(Some(frame)).await.unwrap();
            assert_eq!(end.receive().await.unwrap().as_text(), Some("last"));
            let closed = end.receive().await.unwrap_err();
            assert_eq!((closed.code, &*closed.reason, closed.was_clean), (3000, "bye", true));
            assert_eq!(close_code(peer.next().await), Some(3000));
        })
        .await;
        with(|mut peer, end| async move {
            peer.close(None).await.unwrap();
            assert_eq!(end.receive().await.unwrap_err().code, CloseFrame::NO_CODE);
        })
        .await;
    }

    #[tokio::test]
    async fn a_link_lost_on_one_side_is_lost_on_the_other_without_a_close_frame() {
        with(|peer, end| async move {
            drop(peer);
            let closed = end.receive().await.unwrap_err();
            assert_eq!((closed.code, closed.was_clean), (1006, false));
        })
        .await;
        with(|mut peer, end| async move {
            end.send("last").await.unwrap();
            drop(end);
            assert_eq!(peer.next().await.unwrap().unwrap(), Wire::text("last"));
            assert!(matches!(peer.next().await, Some(Err(_)) | None));
        })
        .await;
    }

    #[tokio::test]
    async fn a_peer_that_breaks_a_rule_is_told_its_code_and_so_is_the_other_end() {
        let mask = |frame: &[u8]| {
            let mut masked = vec![frame[0], frame[1] | 0x80, 0, 0, 0, 0];
            masked.extend_from_slice(&frame[2..]);
            masked
        };
        let limits = Limits { socket_message_bytes_max: 100, ..Limits::default() };
        for (what, bytes, code) in [
            ("text that is not UTF-8", mask(&[0x81, 1, 0xff]), 1007),
            ("a frame that is not masked", vec![0x81, 1, b'x'], 1002),
            ("an unknown kind of frame", mask(&[0x83, 1, b'x']), 1002),
            ("reserved bits", mask(&[0xc1, 1, b'x']), 1002),
            ("a continuation of nothing", mask(&[0x80, 1, b'x']), 1002),
            ("a ping in pieces", mask(&[0x09, 1, b'x']), 1002),
            ("a large frame", mask(&[&[0x82, 101][..], &[0; 101]].concat()), 1009),
            (
                "a large message of small frames",
                [
                    mask(&[&[0x02, 60][..], &[0; 60]].concat()),
                    mask(&[&[0x80, 60][..], &[0; 60]].concat()),
                ]
                .concat(),
                1009,
            ),
        ] {
            with_limits(limits.clone(), |mut peer, end| async move {
                peer.get_mut().write_all(&bytes).await.unwrap();
                let closed = end.receive().await.unwrap_err();
                assert_eq!((closed.code, closed.was_clean), (code, false), "{what}");
                assert_eq!(close_code(peer.next().await), Some(code), "{what}");
            })
            .await;
        }
    }

    #[tokio::test]
    async fn a_message_in_pieces_arrives_whole_and_pings_are_answered_between_them() {
        with(|mut peer, end| async move {
            let pieces = [&[0x01, 0x82, 0, 0, 0, 0, 0xc3, 0xa9][..], &[0x89, 0x81, 0, 0, 0, 0, 7]];
            peer.get_mut().write_all(&pieces.concat()).await.unwrap();
            assert_eq!(peer.next().await.unwrap().unwrap(), Wire::Pong(vec![7].into()));
            peer.get_mut().write_all(&[0x80, 0x81, 0, 0, 0, 0, b'!']).await.unwrap();
            assert_eq!(end.receive().await.unwrap().as_text(), Some("é!"));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_come_whole_is_given_up_in_time_and_pings_do_not_help() {
        with(|mut peer, end| async move {
            let start = tokio::time::Instant::now();
            let begin = [&[0x02, 0xfe, 0x10, 0, 0, 0, 0, 0][..], &[7; 1000]].concat();
            peer.get_mut().write_all(&begin).await.unwrap();
            let pings = async {
                // Within the frame nothing else may come; a ping comes before the next.
                peer.get_mut().write_all(&[7; 0x1000 - 1000]).await.unwrap();
                loop {
                    peer.get_mut().write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
            };
            let closed = tokio::select! {
                closed = end.receive() => closed.unwrap_err(),
                () = pings => unreachable!(),
            };
            assert_eq!((closed.code, closed.was_clean), (1008, false));
            assert_eq!(start.elapsed().as_secs(), Limits::default().message_timeout.as_secs());
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_pings_for_ever_is_served_for_ever() {
        with(|mut peer, end| async move {
            for _ in 0..1000 {
                peer.send(Wire::Ping(vec![7; 100].into())).await.unwrap();
                peer.flush().await.unwrap();
                assert_eq!(peer.next().await.unwrap().unwrap(), Wire::Pong(vec![7; 100].into()));
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            peer.send(Wire::text("still here")).await.unwrap();
            assert_eq!(end.receive().await.unwrap().as_text(), Some("still here"));
        })
        .await;
    }

    #[tokio::test]
    async fn what_has_come_of_messages_is_held_within_the_budget() {
        with(|mut peer, end| async move {
            let mut head = vec![0x82, 0xff];
            head.extend_from_slice(&(8_u64 << 20).to_be_bytes());
            head.extend_from_slice(&[0; 4]);
            peer.get_mut().write_all(&head).await.unwrap();
            let writing = async {
                // More than the budget, and less than the message.
                let _ = peer.get_mut().write_all(&vec![0; 7 << 20]).await;
                futures::future::pending::<()>().await;
            };
            let closed = tokio::select! {
                closed = end.receive() => closed.unwrap_err(),
                () = writing => unreachable!(),
            };
            assert_eq!((closed.code, closed.was_clean), (1013, false));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_is_heard_where_nobody_receives_any_more() {
        with(|mut peer, end| async move {
            peer.send(Wire::text("heard by nobody")).await.unwrap();
            let start = tokio::time::Instant::now();
            end.close(1000, "").unwrap();
            drop(end);
            peer.send(Wire::text("nor this")).await.unwrap();
            assert_eq!(close_code(peer.next().await), Some(1000));
            assert!(peer.next().await.is_none());
            assert_eq!(start.elapsed().as_secs(), 0);
        })
        .await;
    }

    #[tokio::test]
    async fn the_code_of_an_answered_close_is_one_that_may_be_sent() {
        for (code, told) in
            [(4000_u16, 4000), (1005, 1002), (1006, 1002), (999, 1002), (2000, 1002)]
        {
            with(|mut peer, end| async move {
                end.close(1000, "").unwrap();
                // Past the library, which would answer by itself.
                let mut frame = [0; 4];
                peer.get_mut().read_exact(&mut frame).await.unwrap();
                assert_eq!(frame, [0x88, 2, 3, 0xe8]);
                let [high, low] = code.to_be_bytes();
                let answer = [0x88, 0x82, 0, 0, 0, 0, high, low];
                peer.get_mut().write_all(&answer).await.unwrap();
                assert_eq!(end.receive().await.unwrap_err().code, told, "{code}");
            })
            .await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_answers_a_close_is_dropped_in_time() {
        with(|peer, end| async move {
            end.close(1000, "").unwrap();
            let closed = end.receive().await.unwrap_err();
            assert_eq!(closed.code, 1006);
            drop(peer);
        })
        .await;
    }

    #[tokio::test]
    async fn what_finds_no_room_waits_at_the_peer() {
        let limits = Limits { stream_window_bytes: 1 << 10, ..Limits::default() };
        with_limits(limits, |mut peer, end| async move {
            let mut sent = 0;
            while futures::FutureExt::now_or_never(peer.send(Wire::binary(vec![0; 256]))).is_some()
            {
                sent += 1;
                tokio::task::yield_now().await;
                assert!(sent < 100, "nothing holds the peer back");
            }
            for _ in 0..sent {
                assert_eq!(end.receive().await.unwrap().len(), 256);
            }
        })
        .await;
    }
}
