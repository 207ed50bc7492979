//! The options of a socket that carries a connection.
//!
//! **Invariant:** a peer that vanishes without a word is noticed within `peer_timeout`, whether or not
//! bytes are on their way to it (keepalive sees an idle peer, the user timeout an unresponsive one).

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// Prepares `stream` to carry a connection: no delay, and death of the peer noticed in `peer_timeout`.
///
/// # Errors
/// Where the system refuses an option.
pub fn configure(stream: &tokio::net::TcpStream, peer_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    // One third of silence, then two probes of a third each. The system counts in whole seconds.
    let third = (peer_timeout / 3).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new().with_time(third);
    #[cfg(target_os = "linux")]
    let keepalive = keepalive.with_interval(third).with_retries(2);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(peer_timeout))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_notices_a_vanished_peer_within_the_timeout() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        configure(&stream, Duration::from_secs(9)).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            let probes = socket.tcp_keepalive_retries().unwrap();
            let worst = socket.tcp_keepalive_time().unwrap()
                + socket.tcp_keepalive_interval().unwrap() * probes;
            assert!(worst <= Duration::from_secs(9), "{worst:?}");
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(9)));
        }
    }
}
