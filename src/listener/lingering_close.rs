//! Lingering close: shuts down the server's side, discards bytes that still arrive, then
//! closes.
//!
//! A socket that is closed with unread bytes, or that receives bytes afterwards, answers
//! with a reset. A proxy discards the last replies when it sees the reset before it has
//! read them. HTTP/2 clients do still send: they acknowledge each reply by WINDOW_UPDATE.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{ClientStream, StreamTransport};

/// Maximum duration of a lingering close. Long enough for a retransmission of the last
/// packets; well-behaved clients close at once.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes that are discarded at once.
const BUFFER_BYTES: usize = 4 * 1024;

/// Closes `stream` without a reset.
pub async fn close(mut stream: TcpStream) {
    let closing = async {
        if stream.shutdown().await.is_ok() {
            discard(&mut stream).await;
        }
    };
    // After the timeout the socket is closed anyway.
    let _ = timeout(LINGER, closing).await;
}

impl ClientStream {
    /// Closes the connection without a reset.
    pub(super) async fn close(mut self) {
        let closing = async {
            if self.shutdown().await.is_ok() {
                discard(self.socket()).await;
            }
        };
        let _ = timeout(LINGER, closing).await;
    }

    fn socket(&mut self) -> &mut TcpStream {
        match &mut self.stream {
            StreamTransport::Plain(stream) => stream,
            StreamTransport::Tls(stream) => stream.get_mut().0,
        }
    }
}

/// Reads until the peer closes its side.
async fn discard(stream: &mut TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lingering_close_ends_at_its_time_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let start = tokio::time::Instant::now();
        close(stream).await;
        assert!(start.elapsed() >= LINGER);
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    }
}
