//! Messages of the contract in JSON.

use std::fmt::Debug;

use otpd::grpc::{connect::decode_json, v1};
use prost::Message;
use serde::de::DeserializeOwned;

use crate::{bytes::Bytes, request};

/// Checks that an accepted text is a request with the promises of [`request`](crate::request()),
/// and that the error of a refused one shows nothing of it.
pub fn json(data: &[u8]) {
    let mut input = Bytes(data);
    let choice = input.byte();
    match choice & 3 {
        0 => read::<v1::SendOtpRequest>(choice, input.0),
        1 => read::<v1::VerifyOtpRequest>(choice, input.0),
        2 => read::<v1::CancelOtpRequest>(choice, input.0),
        _ => read::<v1::GetOtpStatusRequest>(choice, input.0),
    }
}

fn read<M: Message + DeserializeOwned + Debug>(choice: u8, text: &[u8]) {
    match decode_json::<M>(text) {
        Ok(message) => {
            // An object whose every value has the type of the contract.
            assert!(
                serde_json::from_slice::<serde_json::Value>(text).is_ok_and(|it| it.is_object())
            );
            let message = [&[choice][..], &message.encode_to_vec()].concat();
            request::request(&message);
        }
        Err(error) => request::is_refused(error, &String::from_utf8_lossy(text)),
    }
}
