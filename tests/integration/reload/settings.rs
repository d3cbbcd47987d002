//! Reload of plain settings: applied, rejected, and restart-only ones.

use std::{fs, os::unix::fs::symlink, process::Command};

use tokio::net::TcpStream;
use tonic::Code;

use super::{RELOADED, Reloading, send_to, to};
use crate::support::{Authorization, Database, Kind, Refusal, Replica, otpd, run, token_digest};

/// A configuration with one caller for each token, which is its name too.
fn callers(names: &[&str], policy: &str) -> String {
    let tables = names.iter().map(|name| {
        let digest = token_digest(name);
        format!("[callers.{name}]\ntoken_sha256 = [\"{digest}\"]\n")
    });
    format!("{policy}\n{}", tables.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_adds_and_removes_callers_and_changes_limits() {
    let mut otpd = Reloading::start(&callers(&["crm"], "")).await;
    let mut crm = otpd.replica.client_of("crm");
    let mut shop = otpd.replica.client_of("shop");
    let is_unknown = |status: tonic::Status| {
        assert_eq!(Refusal::of(&status).reason, "CALLER_UNKNOWN");
    };
    let sent = send_to(&mut crm, "+79990000001").await.expect("it may");
    assert_eq!(sent.code_length, 6);
    is_unknown(send_to(&mut shop, "+79990000002").await.unwrap_err());

    let both = callers(
        &["crm", "shop"],
        "[policy]\ncode_length = 8\nsends_per_hour = 1\nresend_after = \"0s\"",
    );
    let line = otpd.reload(&both).await;
    for key in ["callers.shop.token_sha256", "policy.code_length"] {
        assert!(line.contains(key), "{line}");
    }
    assert!(!line.contains("callers.crm"), "{line}");
    // On the connections that were there before.
    let sent = send_to(&mut shop, "+79990000002")
        .await
        .expect("it may now");
    assert_eq!(sent.code_length, 8);
    let status = send_to(&mut shop, "+79990000002").await.unwrap_err();
    assert_eq!(Refusal::of(&status).reason, "SEND_LIMIT");

    otpd.reload(&callers(&["shop"], "")).await;
    is_unknown(send_to(&mut crm, "+79990000003").await.unwrap_err());
    let sent = send_to(&mut shop, "+79990000003")
        .await
        .expect("it still may");
    assert_eq!(sent.code_length, 6);
    // Development without callers needs no authentication.
    otpd.reload("").await;
    let mut anyone = otpd.replica.client_with(Authorization::new(None));
    send_to(&mut anyone, "+79990000004")
        .await
        .expect("anyone may");
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_changes_regions_test_recipients_and_log_level() {
    let mut otpd = Reloading::start("").await;
    let mut client = otpd.replica.client();
    let national = client.send_otp(to("9991234567")).await.unwrap_err();
    assert_eq!(Refusal::of(&national).reason, "RECIPIENT_INVALID");
    let line = otpd
        .reload(
            r#"
default_region = "RU"
log_level = "debug"
[connections]
handshake_timeout = "10ms"
[[test_recipients]]
recipient = "+79990000001"
code = "123456"
expires = "2999-01-01"
"#,
        )
        .await;
    assert!(
        line.contains("connections.handshake_timeout, default_region, log_level, test_recipients"),
        "{line}"
    );
    let sent = client
        .send_otp(to("9990000001"))
        .await
        .expect("it is read now");
    assert_eq!(sent.into_inner().recipient, "+79990000001");
    let verdict = client
        .verify_otp(otpd::grpc::v1::VerifyOtpRequest {
            recipient: "+79990000001".to_owned(),
            code: "123456".to_owned(),
            ..Default::default()
        })
        .await;
    assert!(verdict.expect("there is an outcome").into_inner().verified);
    // The line is about a new connection, and was not logged before.
    let silent = TcpStream::connect(otpd.replica.address()).await;
    otpd.replica
        .wait_for_line("DEBUG [OTP] Connection closed: no HTTP/2 preface before timeout")
        .await;
    drop(silent);

    otpd.reload("log_level = \"error\"").await;
    let log = otpd.replica.stop().await.1;
    assert!(
        !log.contains("[OTP] Stopped"),
        "errors alone are told: {log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_reload_is_rejected_and_changes_nothing() {
    let good = callers(&["crm"], "[policy]\ncode_length = 8");
    let mut otpd = Reloading::start(&good).await;
    let mut crm = otpd.replica.client_of("crm");
    for (number, bad) in [
        "[policy]\ncode_length = 3".to_owned(),
        "[policy]\ncode_lenght = 7".to_owned(),
        "no TOML".to_owned(),
        "[callers.crm]\ntoken_sha256 = [\"12\"]".to_owned(),
        "[tls]\ncertificate = \"/nowhere\"\nkey = \"/nowhere\"".to_owned(),
        // A mistake that only the next start would meet is found now as well.
        "[store]\nmax_batch = 0".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let line = otpd.refuse(&bad).await;
        let at_the_start = run(&mut another(&otpd)).line(64);
        let problem = at_the_start
            .strip_prefix("otpd: ")
            .expect("it has a service name");
        // The log quotes the value.
        assert!(
            line.replace("\\\"", "\"").contains(problem),
            "{line}: {problem}"
        );
        let recipient = format!("+7999000{number:04}");
        let sent = send_to(&mut crm, &recipient).await.expect("it still may");
        assert_eq!(sent.code_length, 8);
    }
    // A rejected configuration has no effect on the next one.
    let line = otpd.reload(&callers(&["crm"], "")).await;
    assert!(line.contains("policy.code_length"), "{line}");
}

/// Returns a command that would start another server with the current configuration.
fn another(otpd: &Reloading) -> Command {
    let mut command = self::otpd();
    command
        .current_dir(otpd.database.directory())
        .env("DATABASE_URL", otpd.database.url())
        .env("OTPD_KEYS_FILE", otpd.database.keys_file())
        .env("OTPD_CONFIG", otpd.database.directory().join("otpd.toml"));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_need_a_restart_are_named_and_unchanged() {
    let mut otpd = Reloading::start(&callers(&["crm"], "")).await;
    let mut crm = otpd.replica.client_of("crm");
    // In production it would not start without the purposes of callers; in development the rest is
    // applied.
    let fixed = "log_format = \"json\"\nshutdown_timeout = \"3s\"\nreflection = false";
    let more = "[store]\ntimeout = \"5s\"\n[policy]\ncode_length = 7";
    let line = otpd
        .reload(&callers(&["crm"], &format!("{fixed}\n{more}")))
        .await;
    assert!(line.contains("keys=\"policy.code_length\""), "{line}");
    let warning = otpd.replica.wait_for_line("Restart required").await;
    let keys = "keys=\"log_format, reflection, shutdown_timeout, store.timeout\"";
    assert!(
        warning.contains(keys) && warning.contains("WARN"),
        "{warning}"
    );
    let sent = send_to(&mut crm, "+79990000001")
        .await
        .expect("it is served as before");
    assert_eq!(sent.code_length, 7);

    // A value that the current environment rejects is rejected, whatever the new environment is.
    let line = otpd.refuse("environment = \"production\"").await;
    assert!(line.contains("callers: required in production"), "{line}");
    assert_eq!(
        send_to(&mut otpd.replica.client_of("other"), "+79990000002")
            .await
            .unwrap_err()
            .code(),
        Code::Unauthenticated
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn symlink_swap_is_detected_as_file_change() {
    let database = Database::new(Kind::Sqlite).await;
    let directory = database.directory();
    let place = |name: &str| directory.join(name);
    // Like the mounts of Kubernetes: the file is a link into ..data, which is a link, too.
    let put = |version: &str, length: u8| {
        fs::create_dir(place(version)).expect("it is new");
        let text = format!("[policy]\ncode_length = {length}\n");
        fs::write(place(version).join("otpd.toml"), text).expect("the directory takes files");
        symlink(version, place("..new")).expect("it was moved away");
        fs::rename(place("..new"), place("..data")).expect("links can be replaced");
    };
    put("..1", 6);
    symlink("..data/otpd.toml", place("otpd.toml")).expect("there is none yet");
    let file = place("otpd.toml").display().to_string();
    let environment = [
        ("OTPD_CONFIG", file.as_str()),
        ("OTPD_RELOAD_INTERVAL", "10ms"),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    for (round, length) in [(1, 7), (2, 8)] {
        put(&format!("..{}", round + 1), length);
        replica.wait_for_lines(RELOADED, round).await;
        let sent = replica
            .client()
            .send_otp(to(&format!("+7999000000{round}")))
            .await;
        assert_eq!(
            sent.expect("it is sent").into_inner().code_length,
            u32::from(length)
        );
    }
    // An invalid file is reported once, not at each check.
    fs::remove_file(place("otpd.toml")).expect("it exists");
    replica
        .wait_for_line("[OTP AUDIT] Configuration reload rejected")
        .await;
    put("..4", 9);
    symlink("..data/otpd.toml", place("otpd.toml")).expect("it was removed");
    replica.wait_for_lines(RELOADED, 3).await;
    let log = replica.stop().await.1;
    assert_eq!(
        log.matches("Configuration reload rejected").count(),
        1,
        "{log}"
    );
    assert_eq!(log.matches(RELOADED).count(), 3, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_without_changes_is_reported() {
    let otpd = Reloading::start("").await;
    otpd.replica.signal("HUP");
    otpd.replica
        .wait_for_line("Configuration reloaded: nothing has changed")
        .await;
    let (status, log) = otpd.replica.stop().await;
    assert!(status.success());
    assert_eq!(log.matches(RELOADED).count(), 0, "{log}");
}
