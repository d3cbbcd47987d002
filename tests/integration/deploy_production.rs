//! The production files of the repository, and the README's commands for them.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use crate::{
    providers::gateway::Gateway,
    support::{Database, Ended, Replica, otpd, repository, run},
};

/// Directory in which compose mounts the files that `hand-over` copied.
const MOUNTED: &str = "/run/secrets";

/// Runs `deploy/production/prepare`.
fn prepare(directory: &Path) {
    let script = repository::path("deploy/production/prepare");
    let mut command = Command::new(script);
    command
        .arg(directory)
        .env("OTPD", env!("CARGO_BIN_EXE_otpd"))
        .env("SMS_API_ID", "the-account's-key");
    run(&mut command).done();
}

/// Sets up the replica as compose does, with the paths of the configuration changed for this
/// machine. Returns the path of the configuration.
fn hand_over(prepared: &Path, destination: &Path) -> String {
    fs::create_dir(destination).expect("a new directory");
    let owner = fs::metadata(destination).expect("it was made");
    let mut command = Command::new(repository::path("deploy/production/hand-over"));
    command
        .args([prepared, destination])
        .arg(format!("{}:{}", owner.uid(), owner.gid()));
    run(&mut command).done();
    let configuration = destination.join("otpd.toml");
    let text = fs::read_to_string(&configuration).expect("the script made it");
    let here = destination.display().to_string();
    fs::remove_file(&configuration).expect("it is in a directory of ours");
    fs::write(&configuration, text.replace(MOUNTED, &here)).expect("a new file");
    configuration.display().to_string()
}

fn grpcurl(directory: &Path, proof: &[String], call: &str, body: &str, port: u16) -> Ended {
    let program =
        std::env::var("TEST_GRPCURL").expect("TEST_GRPCURL names grpcurl; run `./check tests`");
    let authority = directory.join("ca.crt");
    let mut command = Command::new(program);
    command
        .arg("-cacert")
        .arg(authority)
        .args(proof)
        .args(["-d", body, &format!("localhost:{port}")])
        .arg(format!("otp.v1.OtpService/{call}"));
    run(&mut command)
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_files_serve_by_token_and_by_certificate() {
    let database = Database::sqlite();
    let mut gateway = Gateway::start().await;
    gateway.will_answer(
        200,
        r#"{"status_code":100,"sms":{"79991234567":{"status_code":100,"sms_id":"1"}}}"#,
    );
    let directory = database.directory().join("secrets");
    prepare(&directory);
    let token = fs::read_to_string(directory.join("crm.token")).expect("the script made it");
    prepare(&directory);
    let again = fs::read_to_string(directory.join("crm.token")).expect("it was made before");
    assert_eq!(again, token, "what is there is left alone");
    let served = database.directory().join("served");
    let configuration = hand_over(&directory, &served);
    let at = |name: &str| directory.join(name).display().to_string();
    let keys = served.join("otpd.keys").display().to_string();
    let environment = [
        ("OTPD_ENVIRONMENT", "production"),
        ("OTPD_CONFIG", configuration.as_str()),
        ("OTPD_KEYS_FILE", keys.as_str()),
        // The gateway of this test in the place of the real one.
        ("OTPD_PROVIDERS__SMS__URL", &gateway.url("/sms/send")),
        ("OTPD_PROVIDERS__SMS__ALLOW_PRIVATE_ADDRESSES", "true"),
    ];
    let replica = Replica::launch(database.url(), &database, &environment).await;
    replica.wait_for_line("[OTP] Store available").await;
    let port = replica.address().port();

    let body = r#"{"recipient":"8 (999) 123-45-67","purpose":"login"}"#;
    let by_token = [
        "-H".to_owned(),
        format!("authorization: Bearer {}", token.trim()),
    ];
    let sent = grpcurl(&directory, &by_token, "SendOtp", body, port);
    let reply: serde_json::Value = serde_json::from_str(&sent.done()).expect("it is JSON");
    assert_eq!(
        reply["code"],
        serde_json::Value::Null,
        "for the recipient alone"
    );
    let message = gateway.request().await;
    assert!(
        message.body.contains("api_id=the-account%27s-key"),
        "{message:?}"
    );
    let code = message
        .body
        .split(|letter: char| !letter.is_ascii_digit())
        .find(|digits| digits.len() == 6)
        .expect("the text has the code");

    let by_certificate = [
        "-cert".to_owned(),
        at("crm.crt"),
        "-key".to_owned(),
        at("crm.key"),
    ];
    let body = format!(r#"{{"recipient":"+79991234567","purpose":"login","code":"{code}"}}"#);
    let verified = grpcurl(&directory, &by_certificate, "VerifyOtp", &body, port);
    assert!(verified.done().contains("\"verified\": true"));

    let nobody = grpcurl(&directory, &[], "VerifyOtp", &body, port);
    assert!(nobody.failed().contains("CALLER_UNKNOWN"));

    let probe = run(otpd()
        .arg("health")
        .env("OTPD_ADDRESS", format!("https://localhost:{port}"))
        .env("OTPD_CA", at("ca.crt")));
    assert_eq!(probe.done().trim(), "SERVING");
    let (status, log) = replica.stop().await;
    assert!(status.success());
    assert!(
        !log.contains(code) && !log.contains("Generated OTP"),
        "{log}"
    );
}
