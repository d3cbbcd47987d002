//! Clients: some that send raw bytes, and some that follow the contract.

use std::{future::poll_fn, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Full};
use otpd::grpc::v1::{
    GetOtpStatusRequest, GetOtpStatusResponse, SendOtpRequest, VerifyOtpRequest,
    otp_service_client::OtpServiceClient,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{
    Request, Status,
    body::Body,
    codegen::{
        Bytes as Buffer, Service as _,
        http::{self, HeaderName, HeaderValue, header::CONTENT_TYPE},
    },
    transport::{Channel, Endpoint},
};

use crate::bytes::Bytes;

/// Preface of an HTTP/2 client (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Test recipient with a fixed code.
pub const RECIPIENT: &str = "+79990000001";
/// Its code.
pub const CODE: &str = "190263";

/// Length of the head of a frame (RFC 9113, section 4.1).
const HEAD: usize = 9;
const METHODS: [&str; 4] = ["SendOtp", "VerifyOtp", "CancelOtp", "GetOtpStatus"];

/// Violation of the gRPC protocol by a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    None,
    /// The message has no length before its bytes.
    Framing,
    /// The message claims to be compressed.
    Compression,
    /// There is no such method.
    Method,
}

impl Misuse {
    pub fn of(byte: u8) -> Self {
        match byte {
            250.. => Self::Framing,
            245.. => Self::Compression,
            240.. => Self::Method,
            _ => Self::None,
        }
    }
}

/// Sends raw bytes, and reads the response to its end.
pub async fn send_raw(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the server accepts connections");
    // The server may close the connection before it has read everything; then its
    // response may be lost.
    let sent = stream.write_all(bytes).await.is_ok() && stream.shutdown().await.is_ok();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    if sent && read.is_ok() {
        if answer.starts_with(b"HTTP/1.") {
            is_http1(&answer);
        } else {
            is_framed(&answer);
        }
    }
}

/// Checks that a response consists of whole responses of HTTP/1.1.
fn is_http1(answer: &[u8]) {
    let mut left = std::str::from_utf8(answer).expect("headers and JSON are text");
    while !left.is_empty() {
        let (head, rest) = left
            .split_once("\r\n\r\n")
            .expect("a response has a whole head");
        assert!(head.starts_with("HTTP/1."), "{answer:?}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        left = rest.get(length..).expect("a response has a whole body");
    }
}

/// Checks that a response consists of whole frames of HTTP/2.
fn is_framed(mut answer: &[u8]) {
    while let Some((head, rest)) = answer.split_first_chunk::<HEAD>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let length = usize::try_from(length).expect("24 bits fit");
        assert!(length <= rest.len(), "incomplete frame: {answer:x?}");
        answer = &rest[length..];
    }
    assert!(answer.is_empty(), "incomplete frame: {answer:x?}");
}

/// Returns frames with correct heads.
pub fn frames(input: &mut Bytes<'_>) -> Vec<u8> {
    let mut frames = Vec::new();
    while !input.0.is_empty() {
        let [kind, flags, stream, length] = input.array();
        let (payload, rest) = input.0.split_at(input.0.len().min(usize::from(length)));
        input.0 = rest;
        let length = u32::try_from(payload.len()).expect("a payload has at most 255 bytes");
        frames.extend_from_slice(&length.to_be_bytes()[1..]);
        frames.extend_from_slice(&[kind % 12, flags, 0, 0, 0, stream]);
        frames.extend_from_slice(payload);
    }
    frames
}

/// Builds a call from the rest of `input`: the method, headers up to an empty one, and
/// the message. `None` if a header is invalid.
pub fn request(misuse: Misuse, input: &mut Bytes<'_>) -> Option<http::Request<Body>> {
    let method = METHODS[usize::from(input.byte()) % METHODS.len()];
    let method = if misuse == Misuse::Method {
        "Nothing"
    } else {
        method
    };
    let mut request = http::Request::post(format!("/otp.v1.OtpService/{method}"))
        .version(http::Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers");
    for name in ["grpc-timeout", "traceparent", "authorization", "x-other"] {
        let value = input.part();
        if !value.is_empty() {
            let value = HeaderValue::from_bytes(value).ok()?;
            request = request.header(HeaderName::from_static(name), value);
        }
    }
    let message = input.0;
    let length = u32::try_from(message.len()).ok()?.to_be_bytes();
    let flag = u8::from(misuse == Misuse::Compression);
    let body = match misuse {
        Misuse::Framing => message.to_vec(),
        _ => [&[flag], length.as_slice(), message].concat(),
    };
    let body = Body::new(Full::new(Buffer::from(body)));
    Some(request.body(body).expect("its parts are valid"))
}

/// Makes a call, and returns its final status.
pub async fn call(mut channel: Channel, request: http::Request<Body>) -> Status {
    poll_fn(|context| channel.poll_ready(context))
        .await
        .expect("the connection lasts");
    let answer = match channel.call(request).await {
        Ok(answer) => answer,
        // The client applies its own time-out, too, and may be faster than the server.
        Err(error) => return Status::from_error(error.into()),
    };
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    let body = answer.into_body().collect().await.expect("a whole reply");
    body.trailers()
        .and_then(Status::from_header_map)
        .expect("a reply ends with a status")
}

/// Waits until the store of a new server is available.
pub async fn wait(channel: Channel) {
    while status(channel.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Requests a status, as a good caller does.
pub async fn request_status(channel: Channel) {
    let status = status(channel)
        .await
        .expect("a good caller gets a response");
    assert_eq!(status.recipient, RECIPIENT);
}

async fn status(channel: Channel) -> Result<GetOtpStatusResponse, Status> {
    let request = GetOtpStatusRequest {
        recipient: RECIPIENT.to_owned(),
        ..Default::default()
    };
    let mut client = OtpServiceClient::new(channel);
    Ok(client.get_otp_status(request).await?.into_inner())
}

/// Sends and verifies a code, on a new connection.
pub async fn send_and_verify(address: SocketAddr) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("the URL is valid");
    let channel = endpoint
        .connect()
        .await
        .expect("the server accepts connections");
    let mut client = OtpServiceClient::new(channel);
    let request = SendOtpRequest {
        recipient: RECIPIENT.to_owned(),
        ..Default::default()
    };
    let sent = client.send_otp(Request::new(request)).await;
    let sent = sent.expect("a good caller gets a response").into_inner();
    let request = VerifyOtpRequest {
        recipient: RECIPIENT.to_owned(),
        code: CODE.to_owned(),
        challenge_id: sent.challenge_id,
        ..Default::default()
    };
    let verified = client.verify_otp(Request::new(request)).await;
    let verified = verified
        .expect("a good caller gets a response")
        .into_inner();
    assert!(verified.verified, "the correct code verifies");
}
