//! A network between client and server that delays, cuts and swallows.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::Random;

/// What the network does with what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Carries pieces of random sizes with random delays of up to 0.8 ms, from this seed.
    Gusty(u64),
    /// Carries everything after this delay each way.
    Far(Duration),
    /// Carries nothing any more, and says nothing.
    Swallow,
    /// Closes both sides.
    Cut,
}

/// A proxy to one server.
pub(crate) struct Network {
    address: String,
    weather: watch::Sender<Weather>,
    _accepting: Arc<tokio::task::AbortHandle>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self._accepting.abort();
    }
}

impl Network {
    /// Starts a proxy to `server`.
    pub(crate) async fn to(server: &str, weather: Weather) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, receiver) = watch::channel(weather);
        let server = server.to_owned();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&server).await else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                tokio::spawn(carry(near_in, far_out, receiver.clone(), 1));
                tokio::spawn(carry(far_in, near_out, receiver.clone(), 2));
            }
        });
        Self { address, weather: sender, _accepting: Arc::new(accepting.abort_handle()) }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn change(&self, weather: Weather) {
        self.weather.send(weather).unwrap();
    }
}

/// Carries one direction. Pieces queue behind a channel, so that a delay is a delay and no bandwidth.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    way: u64,
) {
    let (pieces, mut arriving) =
        tokio::sync::mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1 << 14);
    let arrival = tokio::spawn(async move {
        while let Some((at, piece)) = arriving.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let mut random = None;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let now = *weather.borrow_and_update();
        let read = match now {
            Weather::Cut => break,
            Weather::Swallow => {
                if weather.changed().await.is_err() {
                    break;
                }
                continue;
            }
            Weather::Gusty(seed) => {
                let random = random.get_or_insert_with(|| Random::seeded(seed * 2 + way));
                1 + random.below(16 << 10) as usize
            }
            Weather::Far(_) => buffer.len(),
        };
        let size = tokio::select! { biased;
            changed = weather.changed() => { if changed.is_err() { break } continue }
            size = from.read(&mut buffer[..read]) => size,
        };
        let Ok(size @ 1..) = size else { break };
        let delay = match now {
            Weather::Far(delay) => delay,
            _ => Duration::from_micros(random.as_mut().map_or(0, |random| random.below(800))),
        };
        let piece = buffer[..size].to_vec();
        if matches!(now, Weather::Gusty(_)) {
            tokio::time::sleep(delay).await;
            let _ = pieces.send((tokio::time::Instant::now(), piece)).await;
        } else if pieces.send((tokio::time::Instant::now() + delay, piece)).await.is_err() {
            break;
        }
    }
    if *weather.borrow() == Weather::Cut {
        arrival.abort();
    }
}
