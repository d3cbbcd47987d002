//! Codec of messages. Unlike the codec of tonic, it reports a message that cannot be decoded
//! as an error of the caller, with the field if it is known.

use std::marker::PhantomData;

use prost::{Message, bytes::Buf};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstCodec;

use crate::service::ServiceError;

/// Initial size of the buffers of a request and of its reply, which grow if they must. Few
/// messages are longer. The 8 KiB of tonic's default are more than the allocator keeps for
/// immediate reuse, and were a third of all bytes that a call allocated.
const BUFFER_BYTES: usize = 512;
/// Number of encoded bytes from which on a stream yields them: tonic's default. A reply is one
/// message.
const YIELD_THRESHOLD: usize = 32 * 1024;

/// `application/grpc+proto` with errors in the terms of the contract.
#[derive(Clone, Copy, Debug)]
pub struct OtpCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for OtpCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for OtpCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = OtpDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(buffer_settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        OtpDecoder(PhantomData)
    }
}

/// Decoder of one message type.
#[derive(Clone, Copy, Debug)]
pub struct OtpDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for OtpDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        decode(buffer).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffer_settings()
    }
}

fn buffer_settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_THRESHOLD)
}

/// Decodes a message.
///
/// # Errors
/// `REQUEST_INVALID` with the field, if it is known.
pub(super) fn decode<M: Message + Default>(buffer: impl Buf) -> Result<M, Status> {
    M::decode(buffer).map_err(|error| {
        let problem = error.to_string();
        Status::from(ServiceError::request(field_of(&problem), problem.clone()))
    })
}

/// Name in errors about a message in which no field is at fault.
pub(super) const UNNAMED: &str = "request";

/// Fields of requests.
const FIELDS: [&str; 15] = [
    "recipient",
    "purpose",
    "channel",
    "locale",
    "region",
    "client_ip",
    "request_id",
    "variables",
    "code",
    "challenge_id",
    "reset_failures",
    "receipt",
    "receipt.audience",
    "receipt.nonce",
    "receipt.include_recipient",
];

/// Returns the field with this name, in the form of the contract or of JSON; otherwise
/// `request`.
pub(super) fn field_named(name: &str) -> &'static str {
    let is_named = |field: &&&str| {
        let letters = field.bytes().filter(|letter| *letter != b'_');
        let named = name.bytes().filter(|letter| *letter != b'_');
        letters.eq(named.map(|letter| letter.to_ascii_lowercase()))
    };
    FIELDS.iter().find(is_named).copied().unwrap_or(UNNAMED)
}

/// Returns the field that prost names as `Message.field` in the text of an error, with the field
/// that contains its message; otherwise `request`.
fn field_of(problem: &str) -> &'static str {
    let parts = problem.split(": ").filter_map(|part| part.split_once('.'));
    let names: Vec<&str> = parts.map(|(_, name)| name).collect();
    let innermost = (0..names.len()).rev().find_map(|last| {
        let path = names[..=last].join(".");
        FIELDS.iter().find(|field| **field == path)
    });
    innermost.copied().unwrap_or(UNNAMED)
}
