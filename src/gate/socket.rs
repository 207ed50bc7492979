//! A WebSocket that leaves an object, whose other end its author reads.

use std::rc::Rc;

use super::outbox::Outbox;
use crate::limits::Limits;
use crate::socket::{CloseFrame, Ending, Reader, Taken, WebSocket, Writer};

/// Returns the far end of `end`, and the task that moves messages, on the object's own thread: out of the object
/// each when what was written before it is durable.
///
/// Where the task is dropped, or the outbox breaks, both ends see a lost link.
pub fn leaving_socket(
    end: WebSocket,
    limits: &Limits,
    outbox: Rc<Outbox>,
) -> (WebSocket, impl Future<Output = ()> + 'static) {
    let (near, far) = WebSocket::pair_within(limits);
    let ((to_object, from_object), (to_peer, from_peer)) = (end.split(), near.split());
    let task = async move {
        let out = carry(from_object, to_peer, Some(outbox));
        futures::future::join(out, carry(from_peer, to_object, None)).await;
    };
    (far, task)
}

/// Moves what comes from `from` to `to`, until either is over.
async fn carry(from: Reader, to: Writer, outbox: Option<Rc<Outbox>>) {
    loop {
        let taken = tokio::select! { biased;
            taken = from.take() => taken,
            () = to.over() => return,
        };
        if let Some(outbox) = &outbox
            && !outbox.is_open()
            && outbox.opened().await.is_err()
        {
            return;
        }
        match taken {
            Taken::Message(message) => {
                let bytes = message.len();
                if to.send(message).await.is_err() {
                    let text = format!("a message of {bytes} bytes");
                    return to.end(Ending::Broken(CloseFrame::ours(CloseFrame::TOO_LARGE, &text)));
                }
            }
            Taken::Ended(ending) => return to.end(ending),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn messages_leave_in_order_and_not_before_what_was_written_is_durable() {
        let outbox = Rc::new(Outbox::default());
        let (client, server) = WebSocket::pair();
        let (peer, task) = leaving_socket(client, &Limits::default(), outbox.clone());
        let mut task = Box::pin(task);
        server.send("free").await.unwrap();
        assert_eq!((&mut task).now_or_never(), None);
        assert_eq!(peer.receive().await.unwrap().as_text(), Some("free"));
        outbox.lock(1);
        server.send("held").await.unwrap();
        server.close(4000, "bye").unwrap();
        peer.send("in").await.unwrap();
        assert_eq!((&mut task).now_or_never(), None);
        assert!(peer.receive().now_or_never().is_none());
        assert_eq!(server.receive().await.unwrap().as_text(), Some("in"));
        outbox.durable(1);
        assert_eq!((&mut task).now_or_never(), None);
        assert_eq!(peer.receive().await.unwrap().as_text(), Some("held"));
        assert_eq!(peer.receive().await.unwrap_err().code, 4000);
        task.await;
        assert_eq!(server.receive().await.unwrap_err().code, 4000);
    }

    #[tokio::test]
    async fn nothing_leaves_a_broken_outbox_and_both_ends_are_lost() {
        let outbox = Rc::new(Outbox::default());
        let (client, server) = WebSocket::pair();
        let (peer, task) = leaving_socket(client, &Limits::default(), outbox.clone());
        outbox.lock(1);
        server.send("held").await.unwrap();
        outbox.break_with(&Error::failed("the disk is gone"));
        let mut task = Box::pin(task);
        let _ = (&mut task).now_or_never();
        assert_eq!(peer.receive().await.unwrap_err().code, 1006);
    }
}
