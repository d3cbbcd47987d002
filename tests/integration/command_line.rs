//! The command line for people and probes: its output and its exit codes.

use std::{
    ffi::OsStr,
    fs,
    net::TcpListener,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
};

use crate::support::{Database, Ended, Kind, Replica, otpd, run, token_digest};

/// Address without a listener.
const NOBODY: &str = "127.0.0.1:1";
/// A database that is not there.
const ABSENT: &str = "postgres://postgres@127.0.0.1:1/absent";

fn otpd_with(environment: &[(&str, &str)], arguments: &[&str]) -> Ended {
    run(otpd().envs(environment.iter().copied()).args(arguments))
}

/// The value of a line `NAME: VALUE`.
fn value<'a>(printed: &'a str, name: &str) -> &'a str {
    printed
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in {printed}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_accepted_in_any_written_form() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;

    let sent = replica
        .command(&["send", "8 (999) 123-45-67", "--region", "RU"])
        .done();
    assert!(sent.starts_with("sent to +79991234567\n"), "{sent}");
    let challenge_id = value(&sent, "challenge_id");

    let status = replica.command(&["status", "+7 999 123 45 67"]).done();
    assert!(
        status.starts_with("live code of +79991234567\n"),
        "{status}"
    );
    for name in ["challenge_id", "expires_at", "resend_at"] {
        assert_eq!(value(&status, name), value(&sent, name));
    }
    assert_eq!(value(&status, "attempts_remaining"), "5");

    let code = replica.code(challenge_id).await;
    replica.wait_for_line("Message accepted by provider").await;
    let status = replica.command(&["status", "+7 999 123 45 67"]).done();
    // The line of the log may be a moment ahead of the note.
    let ways = [
        "delivery 1: SENT log (sms) ",
        "delivery 0: SENDING log (sms) ",
    ];
    assert!(ways.iter().any(|way| status.contains(way)), "{status}");
    let wrong = if code == "000000" { "111111" } else { "000000" };
    let verdict = replica
        .command(&["verify", "+79991234567", wrong])
        .said_no();
    assert_eq!(verdict, "not verified: WRONG_CODE, 4 attempts remaining\n");
    let spaced = format!("{} {}", &code[..3], &code[3..]);
    let verdict = replica.command(&["verify", "+79991234567", &spaced]).done();
    assert_eq!(verdict, "verified +79991234567\n");
    let verdict = replica
        .command(&["verify", "+79991234567", &code])
        .said_no();
    assert_eq!(verdict, "not verified: NOT_FOUND, 0 attempts remaining\n");
    let status = replica
        .command(&["status", "9991234567", "--region", "ru"])
        .done();
    assert!(
        status.starts_with("no live code of +79991234567\n"),
        "{status}"
    );

    replica
        .command(&[
            "send",
            "Ann@Example.com",
            "--purpose",
            "login",
            "--channel",
            "email",
        ])
        .done();
    let cancel = ["cancel", "ann@example.com", "--purpose", "login"];
    assert_eq!(replica.command(&cancel).done(), "cancelled\n");
    assert_eq!(replica.command(&cancel).done(), "no live code to cancel\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn unsent_and_unchecked_requests_are_reported() {
    let database = Database::new(Kind::Sqlite).await;
    let courier = format!(
        "[callers.courier]\ntoken_sha256 = \"{}\"\nself_delivery = true\n",
        token_digest("known")
    );
    let environment = [
        ("OTPD_CONFIG", database.configure(&courier)),
        ("OTPD_POLICY__FAILURE_LIMIT", "1".to_owned()),
    ];
    let environment = environment
        .each_ref()
        .map(|(name, value)| (*name, &**value));
    let replica = Replica::start_with(&database, &environment).await;
    let command = |arguments: &[&str]| {
        let proof = ["--token", "known"];
        replica.command(&[arguments, &proof].concat())
    };

    let made = command(&["send", "+79991234567"]).done();
    assert!(
        made.starts_with("for the caller to deliver to +79991234567\n"),
        "{made}"
    );
    let code = value(&made, "code");
    let status = command(&["status", "+79991234567"]).done();
    assert!(!status.contains("blocked_until"), "{status}");
    let wrong = if code == "000000" { "111111" } else { "000000" };
    command(&["verify", "+79991234567", wrong]).said_no();
    let status = command(&["status", "+79991234567"]).done();
    assert!(!value(&status, "blocked_until").is_empty(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_address_comes_from_option_environment_or_listen_setting() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let address = replica.address().to_string();
    let url = format!("http://{address}");
    let everywhere = format!("0.0.0.0:{}", replica.address().port());
    for (environment, arguments) in [
        (&[][..], &["health", "--address", &address][..]),
        (&[], &["health", "--address", &url]),
        (&[("OTPD_ADDRESS", address.as_str())], &["health"]),
        (&[("OTPD_LISTEN", &address)], &["health"]),
        (&[("OTPD_LISTEN", &everywhere)], &["health"]),
        // Compose files cannot leave a variable out.
        (
            &[
                ("OTPD_LISTEN", &address),
                ("OTPD_ADDRESS", ""),
                ("OTPD_CA", ""),
                ("OTPD_CONFIG", ""),
            ],
            &["health"],
        ),
        (
            &[("OTPD_ADDRESS", NOBODY)],
            &["health", "--address", &address],
        ),
    ] {
        assert_eq!(otpd_with(environment, arguments).done(), "SERVING\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_exit_77_with_their_reason() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    replica.command(&["send", "+79991234567"]).done();
    let line = replica.command(&["send", "+79991234567"]).line(77);
    assert!(line.starts_with("otpd: RESEND_TOO_SOON: "), "{line}");
    let line = replica
        .command(&["cancel", "+79991234567", "--reset-failures"])
        .line(77);
    assert!(line.starts_with("otpd: RESET_NOT_ALLOWED: "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_errors_exit_64_with_an_explanation() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    for (arguments, named) in [
        (&["send"][..], "<RECIPIENT>"),
        (&["verify", "+79991234567"], "<CODE>"),
        (&["sned", "+79991234567"], "sned"),
        (&["send", "+79991234567", "--chanel", "sms"], "--chanel"),
        (&["send", "+79991234567", "--channel", "pigeon"], "pigeon"),
        (&["keygen", "--seal", "0"], "--seal"),
        (&["keygen", "--seal", "256"], "--seal"),
        (&["bench", "--duration", "8d"], "--duration"),
        (&["bench", "--ramp", "1000000000years"], "--ramp"),
        (&["keygen", "--seal", "2", "--output", "x"], "--output"),
    ] {
        let complaint = replica.command(arguments).complaint(64);
        assert!(complaint.contains(named), "{complaint}");
    }
    for (arguments, reason) in [
        (
            &["send", "+79991234567", "--purpose", "Login"][..],
            "PURPOSE_INVALID: purpose: ",
        ),
        (&["send", "9991234567"], "RECIPIENT_INVALID: recipient: "),
        (
            &["send", "9991234567", "--region", "Russia"],
            "REQUEST_INVALID: region: ",
        ),
        (
            &["send", "+79991234567", "--channel", "email"],
            "REQUEST_INVALID: channel: ",
        ),
        (
            &["verify", "+79991234567", "12345x"],
            "CODE_MALFORMED: code: ",
        ),
        (
            &["health", "--service", "otp.v2"],
            "--service: the server has no service \"otp.v2\"",
        ),
        (&["health", "--address", "not an address"], "--address: "),
        (&["send", "+79991234567", "--token", "a\nb"], "--token: "),
        (&["health", "--ca", "/nowhere"], "--ca: /nowhere: "),
    ] {
        let line = replica.command(arguments).line(64);
        assert!(line.starts_with(&format!("otpd: {reason}")), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_server_exits_69_and_not_serving_exits_1() {
    for command in [
        &["health"][..],
        &["send", "+79991234567"],
        &["status", "+79991234567"],
    ] {
        let line = otpd_with(&[("OTPD_ADDRESS", NOBODY)], command).line(69);
        assert!(
            line.starts_with(&format!("otpd: cannot reach {NOBODY}: ")),
            "{line}"
        );
    }

    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::launch(ABSENT, &database, &[]).await;
    assert_eq!(replica.command(&["health"]).said_no(), "NOT_SERVING\n");
    let service = ["health", "--service", "otp.v1.OtpService"];
    assert_eq!(replica.command(&service).said_no(), "NOT_SERVING\n");
    let liveness = ["health", "--service", "liveness"];
    assert_eq!(replica.command(&liveness).done(), "SERVING\n");
    let line = replica.command(&["send", "+79991234567"]).line(69);
    assert!(line.starts_with("otpd: STORE_UNAVAILABLE: "), "{line}");
}

#[test]
fn help_and_version_exit_0() {
    let help = otpd_with(&[], &["--help"]).done();
    for word in [
        "serve",
        "migrate",
        "check",
        "config-schema",
        "health",
        "send",
        "verify",
        "status",
        "cancel",
        "keygen",
        "64",
    ] {
        assert!(help.contains(word), "no {word} in {help}");
    }
    for command in ["serve", "send", "verify", "keygen"] {
        assert!(
            otpd_with(&[], &[command, "--help"])
                .done()
                .contains("Usage: otpd")
        );
    }
    let version = otpd_with(&[], &["--version"]).done();
    assert_eq!(version, concat!("otpd ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_output_leaves_the_exit_code_and_a_full_disk_exits_74() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    replica.command(&["send", "+79991234567"]).done();
    for arguments in [
        &["keygen"][..],
        &["config-schema"],
        &["status", "+79991234567"],
        &["health"],
    ] {
        let (reader, closed) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = otpd();
        let address = replica.address().to_string();
        command.env("OTPD_ADDRESS", address).args(arguments);
        run(command.stdout(closed)).done();
        let full = fs::File::create("/dev/full").expect("it is a device");
        let line = run(command.stdout(full)).line(74);
        assert!(line.contains("standard output: "), "{line}");
    }
}

#[test]
fn config_schema_is_json() {
    let printed = otpd_with(&[], &["config-schema"]).done();
    let schema: serde_json::Value = serde_json::from_str(&printed).expect("a schema is JSON");
    assert_eq!(schema["properties"]["listen"]["default"], "127.0.0.1:50051");
}

#[test]
fn config_problem_is_one_line_naming_its_key() {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("it listens").to_string();
    let file = directory.path().join("otpd.toml");
    // Without a file of its own, each starts where it finds none.
    for (toml, variable, named) in [
        ("listne = \"127.0.0.1:0\"", ("", ""), "listne"),
        ("shutdown_delay = \"soon\"", ("", ""), "shutdown_delay"),
        (
            "[policy]\ncode_ttl = \"5 parsecs\"",
            ("", ""),
            "policy.code_ttl",
        ),
        ("listen = ", ("", ""), "otpd.toml"),
        ("", ("OTPD_CONFIG", "/nowhere.toml"), "/nowhere.toml"),
        ("", ("OTPD_LISTNE", "127.0.0.1:0"), "OTPD_LISTNE"),
        ("", ("OTPD_LOG_LEVEL", "loud"), "OTPD_LOG_LEVEL"),
        ("", ("OTPD_POLICY__CODE_TTL", "11m"), "policy.code_ttl"),
        (
            "",
            ("OTPD_LISTEN", "0.0.0.0:0"),
            "OTPD_DEVELOPMENT_REMOTE=true",
        ),
        ("", ("OTPD_LISTEN", &taken), "listen"),
        ("", ("OTPD_ENVIRONMENT", "production"), "keys"),
        ("", ("DATABASE_URL", "sqlite::memory:"), "database_url"),
        ("", ("DATABASE_URL", "sqlite://"), "names no file"),
        ("", ("DATABASE_URL", "sqlite://?mode=rwc"), "names no file"),
        ("", ("DATABASE_URL", "sqlite://%3Amemory%3A"), "in memory"),
        ("", ("DATABASE_URL", "sqlite:file:a.db"), "file:"),
        ("", ("DATABASE_URL", "sqlite://."), "is a directory"),
        ("", ("DATABASE_URL", "sqlite://a.db?vfs=memdb"), "vfs"),
        (
            "",
            ("DATABASE_URL", "mysql://localhost/otpd"),
            "database_url",
        ),
        (
            "",
            ("DATABASE_URL", "postgres://localhost:port/otpd"),
            "database_url",
        ),
        ("", ("OTPD_KEYS", "index=AAAA"), "keys"),
        ("", ("OTPD_KEYS_FILE", "/nowhere"), "OTPD_KEYS_FILE"),
    ] {
        fs::write(&file, toml).expect("the directory takes files");
        let before = fs::read_dir(directory.path()).expect("it exists").count();
        let ended = run(otpd()
            .current_dir(directory.path())
            .envs([("OTPD_LISTEN", "127.0.0.1:0"), ("OTPD_CONFIG", "otpd.toml")])
            .envs([variable].into_iter().filter(|(name, _)| !name.is_empty())));
        let line = ended.line(64);
        assert!(line.contains(named), "{line:?} does not name {named}");
        assert!(!line.contains("AAAA"), "{line:?} shows a key");
        // A start with a mistake leaves no database and no keys behind.
        let is_of_sqlite = variable.1.starts_with("sqlite");
        let count = fs::read_dir(directory.path()).expect("it exists").count();
        assert!(!is_of_sqlite || count == before, "{variable:?} left files");
    }
}

#[test]
fn non_unicode_variable_is_an_error() {
    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let line = run(otpd()
        .current_dir(directory.path())
        .env("OTPD_LOG_FORMAT", OsStr::from_bytes(b"\xff"))
        .arg("migrate"))
    .line(64);
    assert!(line.contains("OTPD_LOG_FORMAT"), "{line}");
}

#[test]
fn keygen_prints_keys_and_never_overwrites_a_file() {
    let printed = otpd_with(&[], &["keygen"]).done();
    let names: Vec<_> = printed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(" = ")?.0))
        .collect();
    assert_eq!(names, ["index", "seal.1"]);
    assert_ne!(otpd_with(&[], &["keygen"]).done(), printed);
    let printed = otpd_with(&[], &["keygen", "--seal", "2"]).done();
    assert!(printed.starts_with("seal.2 = "), "{printed}");
    assert_eq!(printed.lines().count(), 1);

    let directory = tempfile::tempdir().expect("the temporary directory takes files");
    let file = directory.path().join("keys");
    let name = file.to_str().expect("a plain name");
    let keygen = ["keygen", "--output", name];
    assert_eq!(otpd_with(&[], &keygen).done(), "", "no key is shown");
    let keys = fs::read_to_string(&file).expect("it was written");
    let mode = fs::metadata(&file)
        .expect("it was written")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    otpd_with(&[], &keygen).done();
    assert_eq!(fs::read_to_string(&file).expect("it is still there"), keys);
    let line = otpd_with(&[], &["keygen", "--output", "/nowhere/keys"]).line(64);
    assert!(line.contains("--output: /nowhere/keys"), "{line}");
}
