//! Misplaced codes and recipients appear neither in responses nor in the log or the metrics.

use super::send;
use crate::support::{
    Database, Kind, OPERATIONS, Replica, Secrets,
    http1::{Http1, path, post, raw},
};

const DIGITS: &str = "9997654301";

#[tokio::test(flavor = "multi_thread")]
async fn misplaced_secrets_are_not_repeated() {
    let database = Database::new(Kind::Sqlite).await;
    let settings = [
        OPERATIONS,
        ("OTPD_LOG_LEVEL", "trace"),
        // Ten digits, which do not turn up by chance.
        ("OTPD_POLICY__CODE_LENGTH", "10"),
    ];
    let replica = Replica::start_with(&database, &settings).await;
    let (_, code) = send(&replica, &format!("+7{DIGITS}")).await;
    let mut secrets = Secrets::default();
    secrets.add(&code);
    secrets.add(DIGITS);
    let json = [("host", "localhost"), ("content-type", "application/json")];
    let with = |name: &'static str, value: &str| post(&path("VerifyOtp"), &[(name, value)], "{}");
    let body = |body: &str| post(&path("VerifyOtp"), &[], body);
    let number = code.trim_start_matches('0');
    for request in [
        body(&format!(r#"{{"recipient":"+7{DIGITS}","code":{number}}}"#)),
        body(&format!(r#"{{"recipient":7{DIGITS},"code":"{code}"}}"#)),
        body(&format!(r#"{{"{code}":"+7{DIGITS}"}}"#)),
        body(&format!(r#"{{"recipient":{{"+7{DIGITS}":"{code}"}}}}"#)),
        body(&format!(
            r#"{{"recipient":"+7{DIGITS}","code":"{code}","code":"{code}"}}"#
        )),
        body(&format!(r#"{{"recipient":"+7{DIGITS}","code":"{code}"#)),
        body(&format!(r#"["+7{DIGITS}","login","{code}"]"#)),
        body(&format!(r#""{code}""#)),
        body(&format!("recipient=%2B7{DIGITS}&code={code}")),
        body(&format!(r#"{{"recipient":"{code}","code":"+7{DIGITS}"}}"#)),
        body(&format!(
            r#"{{"recipient":"+7{DIGITS}","purpose":"{code}","code":"{code}"}}"#
        )),
        post(
            &path("SendOtp"),
            &[],
            &format!(r#"{{"recipient":"+7{DIGITS}","variables":{{"{code}":"{code}"}}}}"#),
        ),
        post(
            &path("SendOtp"),
            &[],
            &format!(r#"{{"recipient":"+7{DIGITS}","channel":"{code}"}}"#),
        ),
        post(
            &path("SendOtp"),
            &[],
            &format!(r#"{{"recipient":"+7{DIGITS}","channel":{number}}}"#),
        ),
        post(
            &path("CancelOtp"),
            &[],
            &format!(r#"{{"recipient":"+7{DIGITS}","resetFailures":"{code}"}}"#),
        ),
        post(&format!("/otp.v1.OtpService/{code}"), &[], "{}"),
        post(&format!("/{DIGITS}?code={code}"), &[], "{}"),
        raw(
            "GET",
            &format!("{}?code={code}&recipient=7{DIGITS}", path("VerifyOtp")),
            &json,
            "",
        ),
        with("content-type", &code),
        with("authorization", &format!("Bearer {code}")),
        with("origin", &format!("https://{code}.example")),
        with("host", &format!("{DIGITS}.example.com")),
        with("connect-timeout-ms", &format!("{code}{DIGITS}")),
        with("connect-protocol-version", &code),
        with("content-encoding", &code),
        with("traceparent", &code),
    ] {
        let shown = String::from_utf8_lossy(&request).into_owned();
        let mut client = Http1::connect(replica.address()).await;
        client.write(&request).await;
        let reply = client.reply().await.expect("there is a reply");
        assert!(reply.status >= 400, "{shown}: {reply:?}");
        let mut said = String::from_utf8_lossy(&reply.body).into_owned();
        for (name, value) in &reply.headers {
            said = format!("{said}\n{name}: {value}");
        }
        assert_eq!(secrets.in_text(&said), [].into(), "{shown}: {said}");
    }
    let metrics = replica.scrape().await.text;
    assert_eq!(secrets.in_text(&metrics), [].into());
    let log = replica.stop().await.1;
    let lines = log.lines().filter(|line| !line.contains("Generated OTP: "));
    for line in lines {
        assert_eq!(secrets.in_text(line), [].into(), "{line}");
    }
}
