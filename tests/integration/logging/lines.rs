//! The lines found by `logs | grep OTP`.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

use otpd::grpc::v1::{CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest};
use serde_json::Value;

use crate::support::{Database, Kind, Replica, Typed, otpd};

const PHONE: &str = "+79991234567";
const MASKED: &str = "+7999***4567";

fn send() -> SendOtpRequest {
    SendOtpRequest {
        recipient: PHONE.to_owned(),
        ..Default::default()
    }
}

async fn sent(replica: &Replica) -> (String, String) {
    let sent = replica.client().send_otp(send()).await.expect("it is sent");
    let challenge_id = sent.into_inner().challenge_id;
    let code = replica.code(&challenge_id).await;
    (challenge_id, code)
}

async fn verify(replica: &Replica, code: &str) {
    let request = VerifyOtpRequest {
        recipient: PHONE.to_owned(),
        code: code.to_owned(),
        ..Default::default()
    };
    // A refusal has its line in the log, too.
    let _ = replica.client().verify_otp(request).await;
}

/// The log's lines from "[OTP" on, which follows the time and the level; those that
/// come at start and end are left out.
fn requests_lines(log: &str) -> Vec<&str> {
    log.lines()
        .filter_map(|line| line.find("[OTP").map(|start| &line[start..]))
        .filter(|line| {
            ![
                "Development environment",
                "Store available",
                "Shutting down",
                "Stopped",
            ]
            .iter()
            .any(|other| line.contains(other))
        })
        .collect()
}

/// The lines of messages on their way, which do not wait for those of requests.
fn is_of_message(line: &str) -> bool {
    [
        "[OTP] Generated OTP: ",
        "[OTP] Message accepted by provider ",
    ]
    .iter()
    .any(|start| line.starts_with(start))
}

/// Expected log lines of requests, given the two challenges.
fn expected_lines(first: &str, second: &str) -> Vec<String> {
    let line = |start: &str, end: &str| format!("{start} recipient={MASKED}{end}");
    let received = |lines: &str, rpc: &str| {
        line(
            &format!("{lines} Request received rpc={rpc} caller=development"),
            " purpose=default",
        )
    };
    let asked = received("[OTP]", "SendOtp");
    let typed = received("[OTP VERIFY]", "VerifyOtp");
    let mut expected = vec![
        typed.clone(),
        line("[OTP VERIFY] no active code", ""),
        asked.clone(),
        line(
            "[OTP] OTP queued",
            &format!(" channel=sms challenge_id={first}"),
        ),
        asked.clone(),
        line(
            "[OTP] Request refused rpc=SendOtp caller=development",
            " reason=RESEND_TOO_SOON cause=…",
        ),
        typed.clone(),
        line(
            "[OTP VERIFY] Request refused rpc=VerifyOtp caller=development",
            " reason=CODE_MALFORMED cause=…",
        ),
        "[OTP VERIFY] Request refused rpc=VerifyOtp caller=development reason=CODE_MALFORMED cause=…".to_owned(),
    ];
    for remaining in (0..5).rev() {
        expected.push(typed.clone());
        let end = format!(" attempts_remaining={remaining}");
        expected.push(line("[OTP VERIFY] wrong code", &end));
    }
    expected.extend([
        typed.clone(),
        line("[OTP VERIFY] attempts exhausted", ""),
        typed.clone(),
        line("[OTP VERIFY] OTP expired", ""),
        asked.clone(),
        line(
            "[OTP] OTP queued",
            &format!(" channel=sms challenge_id={second}"),
        ),
        asked,
        line(
            "[OTP] OTP queued again",
            &format!(" channel=sms challenge_id={second}"),
        ),
        typed,
        line("[OTP VERIFY] OTP verified successfully", ""),
        received("[OTP]", "GetOtpStatus"),
        line("[OTP] Status returned", " live=false"),
        line(
            "[OTP] Request received rpc=CancelOtp caller=development",
            " purpose=login",
        ),
        line("[OTP] no active code to cancel", ""),
    ]);
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_has_its_log_lines() {
    let database = Database::new(Kind::Sqlite).await;
    let no_delay = [("OTPD_POLICY__FAILURE_DELAY", "0s")];
    let replica = Replica::start_with(&database, &no_delay).await;
    let mut client = replica.client();

    verify(&replica, "123456").await;
    let (first, first_code) = sent(&replica).await;
    client.send_otp(send()).await.expect_err("it is too soon");
    verify(&replica, "12345").await;
    verify(&replica, "12345x").await;
    for _ in 0..5 {
        verify(&replica, &Typed::Mistyped.text(&first_code)).await;
    }
    verify(&replica, &first_code).await;
    database.advance_clock(Duration::from_mins(6)).await;
    verify(&replica, &first_code).await;
    let (second, code) = sent(&replica).await;
    database.advance_clock(Duration::from_mins(8)).await;
    client.send_otp(send()).await.expect("it is sent again");
    verify(&replica, &code).await;
    let about = GetOtpStatusRequest {
        recipient: PHONE.to_owned(),
        ..Default::default()
    };
    client
        .get_otp_status(about)
        .await
        .expect("there is a status");
    let about = CancelOtpRequest {
        recipient: PHONE.to_owned(),
        purpose: "login".to_owned(),
        ..Default::default()
    };
    client.cancel_otp(about).await.expect("there is a reply");
    let (status, log) = replica.stop().await;
    assert!(status.success(), "{status}");

    let (of_messages, of_requests): (Vec<&str>, Vec<&str>) = requests_lines(&log)
        .into_iter()
        .partition(|line| is_of_message(line));
    let generated: Vec<&&str> = of_messages
        .iter()
        .filter(|line| line.contains("Generated OTP"))
        .collect();
    let written = |code: &str, id: &str| {
        format!("[OTP] Generated OTP: {code} challenge_id={id} recipient={PHONE}")
    };
    let (first_line, second_line) = (written(&first_code, &first), written(&code, &second));
    assert_eq!(generated, [&&*first_line, &&*second_line, &&*second_line]);
    let handed_over = of_messages.iter().filter(|line| {
        line.contains("Message accepted by provider message_id=")
            && line.contains(&format!("recipient={MASKED} provider=\"log\" attempts=1"))
    });
    assert_eq!(handed_over.count(), 3, "{of_messages:?}");

    let expected = expected_lines(&first, &second);
    // Causes are prose, which may change.
    let seen: Vec<String> = of_requests
        .into_iter()
        .map(|line| match line.split_once(" cause=") {
            Some((before, _)) => format!("{before} cause=…"),
            None => line.to_owned(),
        })
        .collect();
    assert_eq!(seen, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_separate_message_and_fields() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start_with(&database, &[("OTPD_LOG_FORMAT", "json")]).await;
    let sent = replica.client().send_otp(send()).await.expect("it is sent");
    let challenge_id = sent.into_inner().challenge_id;
    verify(&replica, "12345x").await;
    let (_, log) = replica.stop().await;

    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    for line in &lines {
        let object = line.as_object().expect("one object a line");
        for key in ["timestamp", "level", "message"] {
            assert!(object[key].is_string(), "{line}");
        }
    }
    let with = |message: &str| {
        lines
            .iter()
            .find(|line| {
                line["message"]
                    .as_str()
                    .is_some_and(|text| text.starts_with(message))
            })
            .unwrap_or_else(|| panic!("no {message} in {log}"))
    };
    let received = with("[OTP] Request received");
    assert_eq!(received["recipient"], MASKED);
    assert_eq!(received["rpc"], "SendOtp");
    assert_eq!(received["purpose"], "default");
    assert_eq!(with("[OTP] OTP queued")["challenge_id"], challenge_id);
    let generated = with("[OTP] Generated OTP: ");
    assert_eq!(generated["challenge_id"], challenge_id);
    assert_eq!(
        with("[OTP VERIFY] Request refused")["reason"],
        "CODE_MALFORMED"
    );
    let last = lines.last().expect("there are lines");
    assert_eq!(last["message"], "[OTP] Stopped");
    let unmasked = lines.iter().filter(|line| line.to_string().contains(PHONE));
    assert_eq!(unmasked.collect::<Vec<_>>(), [generated]);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_level_filters_lines() {
    let database = Database::new(Kind::Sqlite).await;
    let absent = "postgres://postgres@127.0.0.1:1/absent";
    let debug = Replica::launch(absent, &database, &[("OTPD_LOG_LEVEL", "debug")]).await;
    let info = Replica::launch(absent, &database, &[]).await;
    for replica in [&debug, &info] {
        replica
            .client()
            .send_otp(send())
            .await
            .expect_err("no store");
    }
    debug.wait_for_line("reason=STORE_UNAVAILABLE").await;
    let (_, log) = info.stop().await;
    assert!(
        !log.contains("reason=STORE_UNAVAILABLE"),
        "one line for the cause: {log}"
    );
    assert_eq!(log.matches("[OTP] Store unavailable").count(), 1, "{log}");

    // No log level below an error, so that not even the address is logged.
    let mut child = otpd()
        .current_dir(database.directory())
        .env("DATABASE_URL", absent)
        .env("OTPD_LISTEN", "127.0.0.1:0")
        .env("OTPD_LOG_LEVEL", "error")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let stdout = child.stdout.take().expect("standard output is piped");
    let first = BufReader::new(stdout).lines().next();
    child.kill().expect("it runs");
    child.wait().expect("it is our child");
    let first = first.expect("a line").expect("it is text");
    assert!(first.contains("ERROR [OTP] Store unavailable"), "{first}");
}
