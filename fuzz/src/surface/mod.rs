//! Live server under hostile bytes.

mod client;
mod server;

use std::cell::OnceCell;

use tonic::Code;

use crate::bytes::Bytes;
use client::{Misuse, PREFACE};
use server::Server;

/// Number of inputs between complete runs of a good caller on a new connection.
const COMPLETE_RUN_INTERVAL: u64 = 64;

thread_local! {
    // Never shut down, because a fuzzing process does not end in an orderly way.
    static SERVER: OnceCell<&'static Server> = const { OnceCell::new() };
}

/// Checks that the server, for any bytes, closes their connection, speaks HTTP/2 or HTTP/1.1 to
/// its end, and serves other callers: on a lasting connection after each input, and on a new
/// one, from its first byte to a verified code, every 64 inputs.
///
/// The first byte of the input selects the kind of the others.
pub fn surface(data: &[u8]) {
    SERVER.with(|server| {
        let server = server.get_or_init(|| Box::leak(Box::new(Server::start())));
        let mut input = Bytes(data);
        match input.byte() % 4 {
            // Bytes of no protocol.
            0 => server.run(client::send_raw(server.address, input.0)),
            // Bytes instead of frames.
            1 => server.run(client::send_raw(
                server.address,
                &[PREFACE, input.0].concat(),
            )),
            // Frames of any kind, with correct lengths.
            2 => {
                let frames = client::frames(&mut input);
                server.run(client::send_raw(
                    server.address,
                    &[PREFACE, &frames].concat(),
                ));
            }
            // A call with any message and any headers.
            _ => call(server, &mut input),
        }
        server.run(client::request_status(server.channel.clone()));
        if server.count().is_multiple_of(COMPLETE_RUN_INTERVAL) {
            server.run(client::send_and_verify(server.address));
        }
    });
}

fn call(server: &Server, input: &mut Bytes<'_>) {
    let misuse = Misuse::of(input.byte());
    let Some(request) = client::request(misuse, input) else {
        return;
    };
    let status = server.run(client::call(server.channel.clone(), request));
    // No call asks for a method that otpd does not have, so none may break it.
    let code = status.code();
    assert!(
        !matches!(code, Code::Unknown | Code::DataLoss),
        "{status:?}"
    );
    if misuse == Misuse::None {
        assert_ne!(code, Code::Internal, "{status:?}");
        assert!(code != Code::Unimplemented, "{status:?}");
    }
    assert!(status.message().len() < 1024, "{status:?}");
}
