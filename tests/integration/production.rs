//! The production environment refuses to start with unsafe settings, by one line that
//! names the key and the remedy.

use std::fs;

use otpd::grpc::v1::{CancelOtpRequest, SendOtpRequest};

use crate::outbox::gateway::{DOWN, Gateway};
use crate::support::{Database, Ended, Kind, Replica, otpd, run, token_digest};

/// Invalid value of one key in a valid configuration, and the line that refuses it: the key first,
/// then the remedy.
struct Unsafe {
    /// Lines of the sound configuration to leave out: all that start so.
    without: &'static str,
    /// Lines to add at the top, and at the end, which is in the caller's table.
    top: &'static str,
    end: &'static str,
    environment: &'static [(&'static str, &'static str)],
    key: &'static str,
    remedy: &'static str,
}

const SOUND: Unsafe = Unsafe {
    without: "#",
    top: "",
    end: "",
    environment: &[],
    key: "",
    remedy: "",
};

const TEST_RECIPIENT: &str = "[[test_recipients]]\ncaller = \"crm\"\nrecipient = \"+79991234567\"\npurpose = \"login\"\ncode = \"000000\"\nexpires = \"2999-01-01\"\n";

const CASES: &[Unsafe] = &[
    Unsafe {
        without: "keys_file",
        key: "keys",
        remedy: "otpd keygen",
        ..SOUND
    },
    Unsafe {
        without: "keys_file",
        environment: &[("OTPD_KEYS", "index = AAAA")],
        key: "keys",
        remedy: "otpd keygen",
        ..SOUND
    },
    // The whole table with its content.
    Unsafe {
        without: "[callers.crm]\n",
        key: "callers",
        remedy: "add a table [callers.NAME]",
        ..SOUND
    },
    Unsafe {
        without: "token_sha256",
        key: "callers.crm.token_sha256",
        remedy: "certificate_names",
        ..SOUND
    },
    Unsafe {
        end: "certificate_names = [\"crm.internal\"]",
        key: "callers.crm.certificate_names",
        remedy: "tls.client_ca",
        ..SOUND
    },
    Unsafe {
        without: "purposes",
        key: "callers.crm.purposes",
        remedy: "list the purposes",
        ..SOUND
    },
    Unsafe {
        without: "destinations",
        key: "callers.crm.destinations",
        remedy: "or * for all recipients",
        ..SOUND
    },
    // The development log is no provider here.
    Unsafe {
        without: "self_delivery",
        key: "providers",
        remedy: "self_delivery = true",
        ..SOUND
    },
    Unsafe {
        environment: &[("OTPD_LISTEN", "0.0.0.0:0")],
        key: "callers.crm.token_sha256",
        remedy: "allow_plaintext_tokens = true",
        ..SOUND
    },
    Unsafe {
        end: TEST_RECIPIENT,
        key: "test_recipients",
        remedy: "allow_test_recipients = true",
        ..SOUND
    },
    // Bounds that no environment exceeds.
    Unsafe {
        environment: &[("OTPD_POLICY__CODE_LENGTH", "4")],
        key: "policy.code_length",
        remedy: "allow_short_codes = true",
        ..SOUND
    },
    Unsafe {
        environment: &[("OTPD_POLICY__CODE_TTL", "11m")],
        key: "policy.code_ttl",
        remedy: "10s to 10m",
        ..SOUND
    },
    Unsafe {
        environment: &[("OTPD_POLICY__FAILURE_LIMIT", "101")],
        key: "policy.failure_limit",
        remedy: "1 to 100",
        ..SOUND
    },
    Unsafe {
        environment: &[("OTPD_PURPOSES__LOGIN__MAX_ATTEMPTS", "0")],
        key: "purposes.login.max_attempts",
        remedy: "1 to 100",
        ..SOUND
    },
    // A misspelt key does not silently keep its default.
    Unsafe {
        end: "blocked_destination = [\"+7900\"]",
        key: "callers.crm.blocked_destination",
        remedy: "blocked_destinations",
        ..SOUND
    },
    Unsafe {
        top: "allow_test_recipient = true",
        key: "allow_test_recipient",
        remedy: "allow_test_recipients",
        ..SOUND
    },
];

impl Unsafe {
    /// The configuration file.
    fn file(&self, database: &Database) -> String {
        let sound = format!(
            "environment = \"production\"\nkeys_file = \"{}\"\n{}\n[callers.crm]\ntoken_sha256 = [\"{}\"]\npurposes = [\"login\"]\ndestinations = [\"RU\"]\nself_delivery = true\n{}\n",
            database.keys_file().display(),
            self.top,
            token_digest("known"),
            self.end,
        );
        let text = match sound.split_once(self.without) {
            Some((before, _)) if self.without.ends_with('\n') => before.to_owned(),
            _ => {
                let lines = sound.lines();
                let kept = lines.filter(|line| !line.starts_with(self.without));
                kept.collect::<Vec<_>>().join("\n")
            }
        };
        database.configure(&text)
    }

    fn start(&self, database: &Database) -> Ended {
        run(otpd()
            .current_dir(database.directory())
            .env("DATABASE_URL", database.url())
            .env("OTPD_LISTEN", "127.0.0.1:0")
            .env("OTPD_CONFIG", self.file(database))
            .envs(self.environment.iter().copied()))
    }
}

#[tokio::test]
async fn production_rejects_unsafe_settings() {
    for case in CASES {
        let database = Database::new(Kind::Sqlite).await;
        let line = case.start(&database).line(64);
        let (key, remedy) = line
            .trim_start_matches("otpd: ")
            .split_once(": ")
            .expect("the key comes first");
        let variable = format!("OTPD_{}", case.key.to_uppercase().replace('.', "__"));
        assert!(key == case.key || key == variable, "{line}");
        assert!(remedy.contains(case.remedy), "{line}");
        let left = fs::read_dir(database.directory()).expect("it exists");
        let left: Vec<_> = left.map(|file| file.unwrap().file_name()).collect();
        assert!(!left.contains(&"otpd.db".into()), "{left:?}");
    }
}

/// Two messages wait when production starts on a database whose callers are all self-delivering.
/// One with a dead code shows that both had their turn.
#[tokio::test(flavor = "multi_thread")]
async fn development_log_delivers_nothing_in_production() {
    let database = Database::new(Kind::Sqlite).await;
    let gateway = Gateway::start().await;
    gateway.will("down", DOWN);
    let caller = format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]\n",
        token_digest("known")
    );
    let routed = gateway.provider("down", "") + "[[routes]]\nproviders = [\"down\"]\n";
    let file = database.configure(&format!("{caller}{routed}"));
    let before = Replica::start_with(&database, &[("OTPD_CONFIG", &file)]).await;
    let mut sent = Vec::new();
    for recipient in ["+79991234567", "+79991234568"] {
        let request = SendOtpRequest {
            recipient: recipient.to_owned(),
            purpose: "login".to_owned(),
            ..Default::default()
        };
        let client = &mut before.client_of("known");
        let reply = client.send_otp(request).await.expect("it is sent");
        sent.push(reply.into_inner().challenge_id);
    }
    let waiting = "SELECT count(*) FROM otp_message WHERE state = 'queued'";
    database.wait_for_number(waiting, 2).await;
    let request = CancelOtpRequest {
        challenge_id: sent[1].clone(),
        ..Default::default()
    };
    let client = &mut before.client_of("known");
    client.cancel_otp(request).await.expect("it is cancelled");
    before.stop().await;

    let file = SOUND.file(&database);
    let environment = [
        ("OTPD_CONFIG", file.as_str()),
        ("OTPD_DELIVERY__POLL_INTERVAL", "50ms"),
    ];
    let replica = Replica::start_with(&database, &environment).await;
    replica.wait_for_line("[OTP] Message dropped").await;
    let (_, log) = replica.stop().await;
    assert!(!log.contains("Generated OTP"), "{log}");
    let checked = run(otpd()
        .arg("check")
        .current_dir(database.directory())
        .env("DATABASE_URL", database.url())
        .env("OTPD_CONFIG", file));
    let output = checked.done();
    assert!(!output.contains("provider"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn production_accepts_safe_and_explicitly_allowed_settings() {
    for (end, environment) in [
        (
            "",
            [("OTPD_LOG_LEVEL", "info"), ("OTPD_REFLECTION", "true")],
        ),
        (
            "",
            [
                ("OTPD_LISTEN", "0.0.0.0:0"),
                ("OTPD_ALLOW_PLAINTEXT_TOKENS", "true"),
            ],
        ),
        (
            TEST_RECIPIENT,
            [
                ("OTPD_ALLOW_TEST_RECIPIENTS", "true"),
                ("OTPD_POLICY__CODE_LENGTH", "6"),
            ],
        ),
    ] {
        let database = Database::new(Kind::Sqlite).await;
        let file = Unsafe { end, ..SOUND }.file(&database);
        let environment = [&[("OTPD_CONFIG", file.as_str())], &environment[..]].concat();
        let replica = Replica::start_with(&database, &environment).await;
        assert!(replica.log().contains("Production environment"));
        assert!(replica.stop().await.0.success());
    }
}
