//! One SendOtp call, sent piece by piece.

use std::{future::poll_fn, task::Poll};

use h2::{SendStream, client::ResponseFuture};
use tokio::net::TcpStream;
use tonic::{
    Status,
    codegen::{Bytes, http},
};

use crate::support::Replica;

/// Call with an incomplete message.
pub struct Call {
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

impl Call {
    /// A call with more metadata, on a connection of its own.
    pub async fn open(replica: &Replica, metadata: &[(&str, &str)]) -> Self {
        Self::open_method(replica, "/otp.v1.OtpService/SendOtp", metadata).await
    }

    /// Opens a call of the method at `path`.
    pub async fn open_method(replica: &Replica, path: &str, metadata: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(replica.address())
            .await
            .expect("it listens");
        let (client, connection) = Box::pin(h2::client::handshake(stream))
            .await
            .expect("it listens");
        tokio::spawn(connection);
        let mut request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("its parts are well formed");
        let mut client = client.ready().await.expect("it listens");
        let (response, body) = client
            .send_request(request, false)
            .expect("it is well formed");
        Self { response, body }
    }

    /// Says more of the message, as soon as the server takes it; true, once it takes no
    /// more.
    pub async fn say(&mut self, bytes: &[u8]) -> bool {
        let mut left = bytes;
        while !left.is_empty() {
            self.body.reserve_capacity(left.len());
            let room = poll_fn(|context| match self.body.poll_reset(context) {
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => self.body.poll_capacity(context),
            })
            .await;
            let Some(Ok(room)) = room else { return true };
            let (now, later) = left.split_at(room.min(left.len()));
            if self
                .body
                .send_data(Bytes::copy_from_slice(now), false)
                .is_err()
            {
                return true;
            }
            left = later;
        }
        false
    }

    /// Says the rest of it.
    pub async fn end(&mut self, bytes: &[u8]) {
        // Refused already, for its headers.
        if !self.say(bytes).await {
            let _ = self.body.send_data(Bytes::new(), true);
        }
    }

    /// The status that the answer ends with.
    pub async fn status(self) -> Status {
        let answer = self.response.await.expect("there is an answer");
        if let Some(status) = Status::from_header_map(answer.headers()) {
            return status;
        }
        let mut body = answer.into_body();
        while let Some(data) = body.data().await {
            data.expect("a whole reply");
        }
        let trailers = body.trailers().await.expect("a whole reply");
        let status = trailers.as_ref().and_then(Status::from_header_map);
        status.expect("a reply ends with a status")
    }
}
