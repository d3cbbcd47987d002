//! Hand-written HTTP/2 frames that no regular client sends.

use std::{collections::BTreeMap, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Kinds of frames (RFC 9113, section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Codes of errors (RFC 9113, section 7).
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it travels.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short");
    let head = [&length.to_be_bytes()[1..], &[kind, flags]].concat();
    [&head, stream.to_be_bytes().as_slice(), payload].concat()
}

/// A header without compression (RFC 7541, section 6.2.2); both texts below 127 bytes, or
/// the value below 16 KiB.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let mut length = vec![u8::try_from(text.len().min(127)).expect("at most 127")];
        if let Some(mut more) = text.len().checked_sub(127) {
            while more >= 128 {
                length.push(u8::try_from(more % 128 + 128).expect("below 256"));
                more /= 128;
            }
            length.push(u8::try_from(more).expect("below 128"));
        }
        [&length, text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// The headers of a call of SendOtp.
pub fn call() -> Vec<u8> {
    call_of("/otp.v1.OtpService/SendOtp")
}

/// Headers of a call of the method at `path`.
pub fn call_of(path: &str) -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", path),
        header(":authority", "localhost"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat()
}

/// A client that has sent only the HTTP/2 preface and settings.
pub struct Client {
    pub reader: OwnedReadHalf,
    pub writer: OwnedWriteHalf,
}

/// Frames received by a client until the end of its connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The code of the last GOAWAY.
    pub goaway: Option<u32>,
    /// Number of reset streams, by code.
    pub resets: BTreeMap<u32, usize>,
    /// Number of replies, and of those with status 200, the only one of gRPC.
    pub answers: usize,
    pub good_answers: usize,
    /// Number of acknowledged PING and SETTINGS frames.
    pub acknowledged: usize,
    /// The server's PING that has not been acknowledged.
    asked: Option<Vec<u8>>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("it is a TCP socket");
        let (reader, writer) = stream.into_split();
        let mut client = Self { reader, writer };
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        client.writer.write_all(&hello).await.expect("it listens");
        client
    }

    /// Writes `bytes`, unless the server has closed the connection.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok()
    }

    /// Writes each of `parts` after the other while everything that comes back is read,
    /// without any answer to it, and waits for the end.
    pub async fn flood(self, parts: impl Iterator<Item = Vec<u8>> + Send + 'static) -> End {
        let Self { reader, mut writer } = self;
        let writing = tokio::spawn(async move {
            for part in parts {
                if writer.write_all(&part).await.is_err() {
                    break;
                }
            }
            // Kept open, so that the server is the first to close it.
            writer
        });
        let end = read_to_the_end(reader).await;
        drop(writing.await.expect("it only writes"));
        end
    }

    /// Reads until the server closes the connection.
    pub async fn end(self) -> End {
        read_to_the_end(self.reader).await
    }

    /// Like `end`, and acknowledges PING frames as a well-behaved client does.
    pub async fn acknowledging_end(mut self) -> End {
        self.acknowledge_until_end().await
    }

    /// Like `acknowledging_end`, and keeps the client's side of the connection open.
    pub async fn acknowledge_until_end(&mut self) -> End {
        let mut end = End::default();
        while read_one(&mut self.reader, &mut end).await {
            if let Some(ping) = end.asked.take() {
                // If it fails, the connection has ended.
                let _ = self.writer.write_all(&frame(PING, ACK, 0, &ping)).await;
            }
        }
        end
    }

    /// Reads until `enough`.
    pub async fn read_until(&mut self, enough: impl Fn(&End) -> bool) -> End {
        let mut end = End::default();
        while !enough(&end) && read_one(&mut self.reader, &mut end).await {}
        end
    }
}

async fn read_to_the_end(mut reader: impl AsyncRead + Unpin) -> End {
    let mut end = End::default();
    while read_one(&mut reader, &mut end).await {}
    end
}

/// Notes one frame; false at the end.
pub async fn read_one(reader: &mut (impl AsyncRead + Unpin), end: &mut End) -> bool {
    let mut head = [0; 9];
    if reader.read_exact(&mut head).await.is_err() {
        return false;
    }
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("24 bits")];
    if reader.read_exact(&mut payload).await.is_err() {
        return false;
    }
    let number = |at: usize| {
        let bytes = payload[at..at + 4].try_into().expect("four bytes");
        u32::from_be_bytes(bytes)
    };
    match (head[3], head[4]) {
        (GOAWAY, _) => end.goaway = Some(number(4)),
        (RESET, _) => *end.resets.entry(number(0)).or_default() += 1,
        (HEADERS, _) => {
            end.answers += 1;
            // Entry 8 of the static table (RFC 7541, appendix A).
            end.good_answers += usize::from(payload.first() == Some(&0x88));
        }
        (PING | SETTINGS, ACK) => end.acknowledged += 1,
        (PING, _) => end.asked = Some(payload),
        _ => {}
    }
    true
}
