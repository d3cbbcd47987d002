//! Malformed frames: the contract's error if a message cannot be read, gRPC's own if the
//! transport is misused, and no effect on other calls on the same connection.

use std::future::poll_fn;

use http_body_util::{BodyExt as _, Full};
use otpd::grpc::v1::SendOtpRequest;
use prost::Message as _;
use tokio::task::JoinSet;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        Bytes, Service as _,
        http::{self, header::CONTENT_TYPE},
    },
    transport::Channel,
};

use crate::support::{Database, Kind, Refusal, Replica, framed, with_bystanders};

/// The longest message that is read.
const LIMIT: usize = 64 * 1024;

/// Wire types of protobuf.
const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

/// The fields of each RPC's request that are texts.
const TEXTS: [(&str, &[(u8, &str)]); 4] = [
    (
        "SendOtp",
        &[
            (1, "recipient"),
            (2, "purpose"),
            (4, "locale"),
            (5, "region"),
            (6, "client_ip"),
            (7, "request_id"),
        ],
    ),
    (
        "VerifyOtp",
        &[
            (1, "recipient"),
            (2, "purpose"),
            (3, "code"),
            (4, "challenge_id"),
            (5, "region"),
            (6, "client_ip"),
            (7, "request_id"),
        ],
    ),
    (
        "CancelOtp",
        &[
            (1, "recipient"),
            (2, "purpose"),
            (3, "region"),
            (4, "challenge_id"),
        ],
    ),
    (
        "GetOtpStatus",
        &[
            (1, "recipient"),
            (2, "purpose"),
            (3, "region"),
            (4, "challenge_id"),
        ],
    ),
];

/// A request as it travels.
#[derive(Clone, Debug)]
struct Call {
    path: String,
    encoding: Option<&'static str>,
    body: Vec<u8>,
}

impl Call {
    /// A call of `method` with exactly this body.
    fn raw(method: &str, body: Vec<u8>) -> Self {
        Self {
            path: format!("/otp.v1.OtpService/{method}"),
            encoding: None,
            body,
        }
    }

    /// A call of `method` with exactly this message.
    fn message(method: &str, message: &[u8]) -> Self {
        Self::raw(method, framed(message))
    }

    /// Makes the call and returns the status that its answer ended with.
    async fn make(self, mut channel: Channel) -> Status {
        let mut request = http::Request::post(self.path)
            .version(http::Version::HTTP_2)
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers");
        if let Some(encoding) = self.encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let body = Body::new(Full::new(Bytes::from(self.body)));
        let request = request.body(body).expect("its parts are well formed");
        poll_fn(|context| channel.poll_ready(context))
            .await
            .expect("the connection stays");
        let answer = channel.call(request).await.expect("there is an answer");
        if let Some(status) = Status::from_header_map(answer.headers()) {
            return status;
        }
        let body = answer.into_body().collect().await.expect("a whole reply");
        body.trailers()
            .and_then(Status::from_header_map)
            .expect("a reply ends with a status")
    }
}

/// The byte that leads a field.
fn tag(number: u8, wire_type: u8) -> u8 {
    number << 3 | wire_type
}

/// Messages that are no protobuf of the contract, and the field to be named.
fn unreadable_messages() -> Vec<(Call, &'static str)> {
    let mut calls = Vec::new();
    for (method, fields) in TEXTS {
        for &(number, name) in fields {
            let text = tag(number, LENGTH_DELIMITED);
            for message in [
                // No UTF-8; the second one is half of a surrogate pair.
                [text, 2, 0xff, 0xfe].as_slice(),
                &[text, 3, 0xed, 0xa0, 0x80],
                // Cut off within the text.
                &[text, 100, b'+'],
                &[text, 0xff, 0xff, 0xff, 0xff, 0x0f],
                &[tag(number, VARINT), 1],
            ] {
                calls.push((Call::message(method, message), name));
            }
        }
        let groups = [tag(15, 3)].repeat(1_000);
        for message in [
            [0xff; 20].as_slice(),
            // Cut off within a tag, field number 0, wire types that do not exist.
            &[0x80],
            &[tag(0, LENGTH_DELIMITED), 0],
            &[tag(15, 6)],
            &[tag(15, 7)],
            // Unknown fields: cut off, an end without a start, starts without an end.
            &[tag(15, LENGTH_DELIMITED), 100],
            &[tag(15, 4)],
            &groups,
        ] {
            calls.push((Call::message(method, message), "request"));
        }
    }
    for (method, message, field) in [
        (
            "SendOtp",
            [tag(3, LENGTH_DELIMITED), 1, 0].as_slice(),
            "channel",
        ),
        ("SendOtp", &[tag(3, VARINT), 0x80], "channel"),
        ("SendOtp", &[tag(8, VARINT), 1], "variables"),
        (
            "SendOtp",
            &[tag(8, LENGTH_DELIMITED), 4, 0x0a, 2, 0xff, 0xfe],
            "variables",
        ),
        (
            "SendOtp",
            &[tag(8, LENGTH_DELIMITED), 4, 0x12, 2, 0xff, 0xfe],
            "variables",
        ),
        (
            "SendOtp",
            &[tag(8, LENGTH_DELIMITED), 2, 0x0a, 100],
            "variables",
        ),
        (
            "CancelOtp",
            &[tag(5, LENGTH_DELIMITED), 1, 0],
            "reset_failures",
        ),
    ] {
        calls.push((Call::message(method, message), field));
    }
    calls
}

/// Messages longer than any that is read.
fn long_messages() -> Vec<(Call, &'static str)> {
    let mut calls = Vec::new();
    for (method, _) in TEXTS {
        calls.push(Call::message(method, &vec![0; LIMIT + 1]));
        // Many times the window of the connection: unread bytes must not use it up.
        calls.push(Call::message(method, &vec![0; 1024 * 1024]));
        calls.push(Call::raw(method, vec![0, 0xff, 0xff, 0xff, 0xff]));
    }
    calls.into_iter().map(|call| (call, "request")).collect()
}

/// Misuse of the transport, for which gRPC itself prescribes the status.
fn misuse() -> Vec<(Call, Code)> {
    let good = SendOtpRequest {
        recipient: "+79990000001".to_owned(),
        ..Default::default()
    };
    let good = framed(&good.encode_to_vec());
    let compressed: Vec<u8> = [&[1], &good[1..]].concat();
    let unknown_flag: Vec<u8> = [&[2], &good[1..]].concat();
    let elsewhere = |path: &str| Call {
        path: path.to_owned(),
        ..Call::raw("", good.clone())
    };
    vec![
        // "Compression in gRPC": a compressed flag without an encoding "MUST fail
        // with INTERNAL".
        (Call::raw("SendOtp", compressed), Code::Internal),
        (Call::raw("SendOtp", unknown_flag), Code::Internal),
        (Call::raw("SendOtp", Vec::new()), Code::Internal),
        (Call::raw("SendOtp", good[..3].to_vec()), Code::Internal),
        (
            Call::raw("SendOtp", good[..good.len() - 1].to_vec()),
            Code::Internal,
        ),
        (
            Call {
                encoding: Some("gzip"),
                ..Call::raw("SendOtp", good.clone())
            },
            Code::Unimplemented,
        ),
        (Call::raw("NoSuchMethod", good.clone()), Code::Unimplemented),
        (elsewhere("/otp.v2.OtpService/SendOtp"), Code::Unimplemented),
        (elsewhere("/"), Code::Unimplemented),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_are_rejected_without_affecting_others() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let channel = replica.channel();
    let invalid = [unreadable_messages(), long_messages()].concat();

    let (refusals, misuses) = with_bystanders(&replica, &channel, async {
        let mut refusals = JoinSet::new();
        // Several times at once, so that they meet each other and the good ones.
        for (call, field) in [invalid.as_slice(); 3].concat() {
            let channel = channel.clone();
            refusals.spawn(async move { (call.clone(), field, call.make(channel).await) });
        }
        let mut misuses = JoinSet::new();
        for (call, code) in misuse() {
            let channel = channel.clone();
            misuses.spawn(async move { (call.clone(), code, call.make(channel).await) });
        }
        (refusals.join_all().await, misuses.join_all().await)
    })
    .await;

    for (call, field, status) in refusals {
        let shown = format!("{} {:x?}", call.path, &call.body[..call.body.len().min(20)]);
        assert_eq!(status.code(), Code::InvalidArgument, "{shown}: {status:?}");
        let refusal = Refusal::of(&status);
        assert_eq!(
            (refusal.reason.as_str(), refusal.field.as_str()),
            ("REQUEST_INVALID", field),
            "{shown}: {status:?}"
        );
        assert!(!refusal.remedy.is_empty(), "{shown}");
    }
    for (call, code, status) in misuses {
        assert_eq!(status.code(), code, "{call:x?}: {status:?}");
    }
    let codes = "SELECT COUNT(*) FROM otp_record WHERE state = 'live'";
    assert_eq!(database.number(codes).await, 0, "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_message_is_rejected_for_its_missing_recipient() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    for (method, _) in TEXTS {
        let status = Call::message(method, &[]).make(replica.channel()).await;
        let refusal = Refusal::of(&status);
        assert_eq!(
            (
                refusal.code,
                refusal.reason.as_str(),
                refusal.field.as_str()
            ),
            (Code::InvalidArgument, "RECIPIENT_INVALID", "recipient"),
            "{method}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn largest_message_with_unknown_fields_is_accepted() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let request = SendOtpRequest {
        recipient: "+79991234567".to_owned(),
        ..Default::default()
    };
    let mut message = request.encode_to_vec();
    // A later version's field: its tag and a length of three bytes, then padding.
    let padding = LIMIT - message.len() - 4;
    message.push(tag(15, LENGTH_DELIMITED));
    prost::encoding::encode_varint(padding as u64, &mut message);
    message.resize(LIMIT, 0);
    let status = Call::message("SendOtp", &message)
        .make(replica.channel())
        .await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
    replica.wait_for_line("[OTP] OTP queued").await;
}
