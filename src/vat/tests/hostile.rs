//! Peers that do not speak the protocol.
//!
//! **Invariant:** whatever the bytes, the connection ends with a reason and nothing else ends.

use capnp::ErrorKind;
use tokio::io::AsyncWriteExt;

use super::support::{Raw, connect, encoded, log, pair, run, serve, settle};
use crate::limits::Limits;

/// Sends `bytes` to a server, closes, and returns why the connection died.
async fn reason_after(bytes: &[u8]) -> capnp::Error {
    let (mut raw, traffic, _) = Raw::new(Limits::default(), 1 << 20);
    raw.stream.write_all(bytes).await.unwrap();
    drop(raw);
    traffic.closed().await
}

#[test]
fn a_message_beyond_the_limit_ends_the_connection_and_both_ends_learn_why() {
    run(async {
        let pair = pair(Limits { message_bytes_max: 10_000, ..Limits::default() });
        log(&pair.client, 1).await.unwrap();
        let mut request = pair.client.log_request();
        request.get().set_payload(&[0; 12_000]);
        let Err(error) = request.send().promise.await else { panic!("it was let in") };
        assert!(error.extra.contains("exceeds the limit of 10000 bytes"), "{error}");
        let error = pair.server_traffic.closed().await;
        assert_eq!(error.kind, ErrorKind::Failed);
        assert!(error.extra.starts_with("a message of 12"), "{error}");
        assert!(pair.client_traffic.failure().is_some());
    });
}

#[test]
fn a_segment_table_that_claims_too_much_ends_the_connection() {
    run(async {
        let error = reason_after(&[0xff; 8]).await;
        assert_eq!(error.kind, ErrorKind::Failed);
        assert!(error.extra.contains("segments exceeds the limit of 512"), "{error}");
        let error = reason_after(&[0, 0, 0, 0, 1, 0, 8, 0]).await;
        assert!(
            error.extra.contains("a message of 4194312 bytes exceeds the limit of 4194304 bytes"),
            "{error}"
        );
        let error = reason_after(&[0; 8]).await;
        assert!(error.extra.contains("0 bytes"), "{error}");
    });
}

#[test]
fn a_message_cut_short_is_a_lost_connection() {
    run(async {
        let whole = encoded(|message| message.init_bootstrap().set_question_id(0));
        for length in 0..=whole.len() {
            let error = reason_after(&whole[..length]).await;
            assert_eq!(error.kind, ErrorKind::Disconnected);
            let is_cut = error.extra.contains("in the middle of a message");
            assert_eq!(is_cut, length > 0 && length < whole.len(), "{length}: {error}");
        }
    });
}

#[test]
fn no_bytes_make_the_server_panic() {
    run(async {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let whole = encoded(|message| {
            let mut call = message.init_call();
            call.set_question_id(3);
            call.reborrow().init_target().init_promised_answer().set_question_id(2);
            call.init_params().init_cap_table(2).get(0).set_sender_hosted(1);
        });
        for round in 0..2000_u32 {
            let mut bytes = whole.repeat(3);
            for _ in 0..1 + round % 8 {
                let at = random() as usize % bytes.len();
                bytes[at] = if round % 2 == 0 { random() as u8 } else { bytes[at] ^ 1 };
            }
            reason_after(&bytes).await;
        }
        for length in 0..300 {
            let bytes: Vec<u8> = (0..length).map(|_| random() as u8 & 0x83).collect();
            reason_after(&bytes).await;
        }
    });
}

#[test]
fn a_server_that_dies_is_a_lost_connection_for_every_call() {
    run(async {
        let (near, far) = tokio::io::duplex(4096);
        let (client, traffic) = connect(near, Limits::default());
        let call = log(&client, 1);
        drop(far);
        assert_eq!(call.await.unwrap_err().kind, ErrorKind::Disconnected);
        assert_eq!(traffic.closed().await.kind, ErrorKind::Disconnected);
        assert_eq!(log(&client, 2).await.unwrap_err().kind, ErrorKind::Disconnected);
    });
}

#[test]
fn a_system_that_is_dropped_closes_its_connection() {
    run(async {
        let (near, far) = tokio::io::duplex(4096);
        let (server, _) = serve(far, Limits::default(), None);
        let (reader, writer) = tokio::io::split(near);
        let side = capnp_rpc::rpc_twoparty_capnp::Side::Client;
        let limits = std::rc::Rc::new(Limits::default());
        let (network, traffic) = crate::vat::Network::new(reader, writer, side, limits, None);
        drop(capnp_rpc::RpcSystem::new(Box::new(network), None));
        settle().await;
        assert_eq!(traffic.failure().unwrap().extra, "the connection was dropped");
        assert_eq!(server.closed().await.extra, "the peer closed the connection");
    });
}
