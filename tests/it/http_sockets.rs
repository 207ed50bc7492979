//! WebSockets at the gateway, byte by byte: clients that break the rules, that do not read, and a server that stops.
//!
//! **Invariant:** after each attack another client is served in full.

use std::time::Duration;

use stubborn::Limits;
use stubborn::gateway::GatewaySettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::http::{PATIENCE, Wire, start};
use crate::support::run;

/// A client of a room, which says and hears frames.
struct Member(Wire);

/// A frame of the server's: what it is, and what is in it.
type Frame = (u8, Vec<u8>);

impl Member {
    async fn join(address: &str, room: &str) -> Self {
        let mut wire = Wire::open(address).await;
        wire.say(format!(
            "GET /ROOM/{room}/?from=ann HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await;
        let head = wire.hear_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101") && !head.contains("permessage"), "{head}");
        Self(wire)
    }

    /// Sends a frame, masked with zeros.
    async fn say(&mut self, kind: u8, bytes: &[u8]) {
        let mut frame = vec![kind];
        match bytes.len() {
            small @ 0..126 => frame.push(0x80 | small as u8),
            large => {
                frame.push(0xff);
                frame.extend_from_slice(&(large as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(bytes);
        self.0.say(frame).await;
    }

    /// Hears the next frame; none where the connection is over.
    async fn hear(&mut self) -> Option<Frame> {
        let wire = &mut self.0.0;
        let hearing = async {
            let kind = wire.read_u8().await.ok()?;
            let length = match wire.read_u8().await.ok()? {
                126 => u64::from(wire.read_u16().await.ok()?),
                127 => wire.read_u64().await.ok()?,
                small => u64::from(small),
            };
            let mut bytes = vec![0; length as usize];
            wire.read_exact(&mut bytes).await.ok()?;
            Some((kind, bytes))
        };
        tokio::time::timeout(PATIENCE, hearing).await.expect("the server says something")
    }

    /// Hears frames until a close; returns its code.
    async fn hear_close(&mut self) -> Option<u16> {
        loop {
            let (kind, bytes) = self.hear().await?;
            if kind == 0x88 {
                return bytes.first_chunk().map(|code| u16::from_be_bytes(*code));
            }
        }
    }

    /// Hears frames until one says `text`.
    async fn hear_text(&mut self, text: &str) {
        while !self
            .hear()
            .await
            .is_some_and(|(_, bytes)| String::from_utf8_lossy(&bytes).contains(text))
        {}
    }
}

#[test]
fn who_breaks_a_rule_of_web_sockets_is_told_which_and_others_talk_on() {
    run(async {
        let limits = Limits { socket_message_bytes_max: 8 << 10, ..Limits::default() };
        let (_server, address) = start(limits, GatewaySettings::default()).await;
        let mut good = Member::join(&address, "rules").await;
        for (what, bytes, code) in [
            ("text that is not UTF-8", &[0x81, 0x81, 0, 0, 0, 0, 0xff][..], 1007),
            ("a frame that is not masked", &[0x81, 1, b'x'], 1002),
            ("compression that was not agreed", &[0xc1, 0x81, 0, 0, 0, 0, b'x'], 1002),
            ("an unknown kind", &[0x83, 0x80, 0, 0, 0, 0], 1002),
            ("a large control frame", &[0x89, 0xfe, 0, 200, 0, 0, 0, 0], 1002),
            ("a close code that may not be sent", &[0x88, 0x82, 0, 0, 0, 0, 3, 0xed], 1002),
            ("a frame that is too large", &[0x82, 0xfe, 0x20, 1, 0, 0, 0, 0], 1009),
            ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1002),
        ] {
            let mut bad = Member::join(&address, "rules").await;
            // A whole frame, however it is read.
            bad.0.say([bytes, &[b'x'; 300]].concat()).await;
            assert_eq!(bad.hear_close().await, Some(code), "{what}");
            good.say(0x81, what.as_bytes()).await;
            good.hear_text(what).await;
        }
        let mut pieces = Member::join(&address, "rules").await;
        for n in 0..4_u8 {
            pieces.say(n.min(1) ^ 1, &[b'x'; 4 << 10]).await;
        }
        assert_eq!(pieces.hear_close().await, Some(1009), "a large message of small frames");
    });
}

#[test]
fn a_member_that_stops_reading_is_let_go_and_others_hear_everything() {
    run(async {
        let limits = Limits { socket_queue_bytes_max: 256 << 10, ..Limits::default() };
        let (_server, address) = start(limits, GatewaySettings::default()).await;
        let mut deaf = Member::join(&address, "deaf").await;
        let mut good = Member::join(&address, "deaf").await;
        let text = "x".repeat(1 << 10);
        // More than the kernel buffers on loopback, and the queue.
        for n in 0..12_000 {
            good.say(0x81, format!("{n:05} {text}").as_bytes()).await;
            if n % 100 == 99 {
                good.hear_text(&format!("{n:05} ")).await;
            }
        }
        while let Some((kind, _)) = deaf.hear().await {
            if kind == 0x88 {
                break;
            }
        }
        good.say(0x81, b"the last").await;
        good.hear_text("the last").await;
    });
}

#[test]
fn a_server_that_stops_says_so_to_every_web_socket() {
    run(async {
        let (server, address) = start(Limits::default(), GatewaySettings::default()).await;
        let mut members = Vec::new();
        for n in 0..20 {
            let mut member = Member::join(&address, &format!("stops-{n}")).await;
            member.hear_text("here").await;
            members.push(member);
        }
        let stopping = tokio::spawn(server.stop());
        for mut member in members {
            assert_eq!(member.hear_close().await, Some(1001));
            member.say(0x88, &1001_u16.to_be_bytes()).await;
            assert!(member.hear().await.is_none());
            let _ = member.0.0.shutdown().await;
        }
        tokio::time::timeout(Duration::from_secs(10), stopping).await.unwrap().unwrap();
    });
}
