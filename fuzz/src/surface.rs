//! A live server under hostile bytes.

mod client;
mod server;

use std::cell::OnceCell;

use tonic::Code;

use crate::bytes::Bytes;
use client::{Misuse, PREFACE};
use server::Server;

/// How often everything is tried that a good caller does, on a connection of its own.
const EVERY: u64 = 64;

thread_local! {
    // Never taken down: a process has no good moment for it.
    static SERVER: OnceCell<&'static Server> = const { OnceCell::new() };
}

/// Whatever bytes come, the server lets go of their connection, speaks HTTP/2 to its end,
/// and answers others: on a connection that stays after each input, and from the first
/// byte of a new one to a verified code every 64 inputs.
///
/// The first byte of the input says what the others are.
pub fn surface(data: &[u8]) {
    SERVER.with(|server| {
        let server = server.get_or_init(|| Box::leak(Box::new(Server::start())));
        let mut input = Bytes(data);
        match input.byte() % 4 {
            // Bytes of no protocol at all.
            0 => server.run(client::throw(server.address, input.0)),
            // Bytes where frames should be.
            1 => server.run(client::throw(server.address, &[PREFACE, input.0].concat())),
            // Frames of any kind, each as long as it says.
            2 => {
                let frames = client::frames(&mut input);
                server.run(client::throw(server.address, &[PREFACE, &frames].concat()));
            }
            // A call of any message, with any headers.
            _ => call(server, &mut input),
        }
        server.run(client::ask(server.channel.clone()));
        if server.count().is_multiple_of(EVERY) {
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
    // Nobody asks for what otpd has no word for, and nothing of it breaks.
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
