//! Memory of the whole process while unauthenticated clients open many connections.

use std::{fs, sync::Arc, time::Duration};

use otpd::grpc::v1::GetOtpStatusRequest;
use tokio::{io::AsyncWriteExt as _, task::JoinSet};
use tonic::Code;

use super::{
    call::Call,
    frames::{Client, END_HEADERS, End, HEADERS, PING, call, call_of, frame, header, read_one},
    within_reason,
};
use crate::support::{Database, Kind, Replica, token_digest};

const CONNECTIONS: usize = 70;
const STREAMS: u32 = 256;
/// Memory bound of the whole process, half of the limit in deploy/kubernetes.yaml.
const LIMIT_MIB: u64 = 256;
/// Growth that may remain after an attack.
const REMAINDER_MIB: u64 = 64;
/// Time for an attack, and for the memory to be free again.
const RECOVERY: Duration = Duration::from_mins(1);
/// Time for an attack of which the server does not read everything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Padding of 15.5 KB.
fn padding() -> Vec<u8> {
    header("x-padding", &"x".repeat(1_000)).repeat(15)
}

/// A memory figure of a process in MiB: `VmRSS` is the present value, `VmHWM` the peak.
fn memory(replica: &Replica, name: &str) -> u64 {
    let path = format!("/proc/{}/status", replica.id());
    let status = fs::read_to_string(path).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: u64 = kibibytes
        .and_then(|number| number.parse().ok())
        .expect("proc(5)");
    kibibytes / 1_024
}

/// A server that knows one caller by the token `known`.
async fn serve(database: &Database) -> Replica {
    let configuration = database.configure(&format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]",
        token_digest("known")
    ));
    let settings = [
        ("OTPD_CONFIG", configuration.as_str()),
        // Longer than an attack takes.
        ("OTPD_CONNECTIONS__REQUEST_BODY_TIMEOUT", "5m"),
    ];
    Replica::start_with(database, &settings).await
}

/// Headers of 15.5 KB on every stream of every connection, while the answers are read, or
/// not. Returns once the server has read all of it, or no longer reads.
async fn send_headers(replica: &Replica, reading: bool, headers: Vec<u8>) -> Vec<Client> {
    let headers = Arc::new([headers, padding()].concat());
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = Client::connect(replica.address()).await;
        let headers = Arc::clone(&headers);
        clients.spawn(async move {
            let Client { reader, writer } = &mut client;
            let writing = async {
                for number in 0..STREAMS {
                    let open = frame(HEADERS, END_HEADERS, 2 * number + 1, &headers);
                    if writer.write_all(&open).await.is_err() {
                        return;
                    }
                }
                // Its acknowledgement follows the bytes that were read before it.
                let _ = writer.write_all(&frame(PING, 0, 0, &[7; 8])).await;
            };
            let mut end = End::default();
            let answers = async {
                while reading && end.acknowledged < 2 && read_one(reader, &mut end).await {}
            };
            let both = async { tokio::join!(writing, answers) };
            let patience = if reading { RECOVERY } else { PATIENCE };
            let _ = tokio::time::timeout(patience, both).await;
            client
        });
    }
    clients.join_all().await
}

/// Attacks a server, and meanwhile checks its memory and the replies to another caller.
async fn stays_small<T>(
    replica: &Replica,
    expected: Code,
    attack: impl AsyncFnOnce(&Replica) -> T,
) -> T {
    let before = memory(replica, "VmRSS:");
    let attackers = attack(replica).await;
    assert_eq!(status_code(replica).await, expected, "the answer beside");
    let peak = memory(replica, "VmHWM:");
    println!("{before} MiB before, {peak} MiB at the peak");
    assert!(
        peak <= LIMIT_MIB,
        "{before} MiB before, {peak} MiB at the peak"
    );
    attackers
}

/// The status of a call of a known caller on a new connection.
async fn status_code(replica: &Replica) -> Code {
    let request = GetOtpStatusRequest {
        recipient: "+79991234567".to_owned(),
        ..Default::default()
    };
    let answer = replica.client_of("known").get_otp_status(request).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// Attacks a server without a token; checks its memory during the attack and after it.
async fn strangers_leave_nothing<T>(attack: impl AsyncFnOnce(&Replica) -> T) {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database).await;
    let before = memory(&replica, "VmRSS:");
    drop(stays_small(&replica, Code::Ok, attack).await);
    let recovered = async {
        while memory(&replica, "VmRSS:") > before + REMAINDER_MIB {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let recovered = tokio::time::timeout(RECOVERY, recovered).await;
    let after = memory(&replica, "VmRSS:");
    println!("{after} MiB after");
    assert!(recovered.is_ok(), "{before} MiB before, {after} MiB after");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_unauthenticated_headers_keep_memory_bounded() {
    for reading in [true, false] {
        let attack = async |replica: &Replica| send_headers(replica, reading, call()).await;
        strangers_leave_nothing(attack).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_memory_budget_are_shed() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve(&database).await;
    let headers = [call(), header("authorization", "Bearer known")].concat();
    let attack = async |replica: &Replica| send_headers(replica, true, headers).await;
    let attackers = stays_small(&replica, Code::Unavailable, attack).await;
    // The memory that they held is free after they end.
    drop(attackers);
    let served = async { while status_code(&replica).await != Code::Ok {} };
    within_reason(served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_headers_to_public_services_keep_memory_bounded() {
    for path in [
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let attack = async |replica: &Replica| send_headers(replica, true, call_of(path)).await;
        strangers_leave_nothing(attack).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_messages_to_public_services_keep_memory_bounded() {
    for path in [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        strangers_leave_nothing(async |replica| {
            let mut calls = JoinSet::new();
            for _ in 0..4 * CONNECTIONS {
                let mut call = Call::open_method(replica, path, &[]).await;
                calls.spawn(async move {
                    // The most part of a message of 3 MiB, which never ends.
                    let all = async {
                        call.say(&[0, 0, 0x30, 0, 0]).await;
                        for _ in 0..190 {
                            if call.say(&[0; 16_000]).await {
                                return;
                            }
                        }
                    };
                    let _ = tokio::time::timeout(PATIENCE, all).await;
                    call
                });
            }
            calls.join_all().await
        })
        .await;
    }
}
