//! Leak tests: a stolen database, a dump, a log and the metrics contain no code and no
//! recipient, after valid, mistyped and refused requests.

mod metrics;
mod outbox;
mod providers;
mod receipts;
mod scanner_self_test;

use std::{
    collections::BTreeSet,
    fmt::{Debug, Write as _},
    fs,
    ops::Range,
    process::Command,
};

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest,
    otp_service_client::OtpServiceClient,
};
use tonic::{Response, Status, transport::Channel};

use crate::support::{Database, Kind, OPERATIONS, Replica, Secrets, on_each_store};

/// Ten digits, which do not turn up by chance.
const LONG_CODES: (&str, &str) = ("OTPD_POLICY__CODE_LENGTH", "10");
const TALKATIVE: (&str, &str) = ("OTPD_LOG_LEVEL", "trace");
/// Number of recipients: twice as many as there are combinations of a recipient's spelling with
/// the requests that are made for it.
const RECIPIENTS: u32 = 240;
/// Prefix that only lines of the development log provider have.
const PROVIDER: &str = "[OTP] Generated OTP: ";

/// Requests to otpd and its replies.
#[derive(Default)]
struct Traffic {
    /// Codes, typed ones too.
    codes: Secrets,
    /// Codes, and recipients in every form.
    secrets: Secrets,
    /// Masked forms in which recipients may be shown.
    masked: BTreeSet<String>,
    /// Everything that callers got.
    replies: String,
    /// Codes, and the recipients that they were sent to.
    examples: Vec<(String, String)>,
}

impl Traffic {
    fn code(&mut self, code: &str) {
        self.codes.add(code);
        self.secrets.add(code);
    }

    fn absorb(&mut self, other: Self) {
        self.codes.absorb(other.codes);
        self.secrets.absorb(other.secrets);
        self.masked.extend(other.masked);
        self.replies.push_str(&other.replies);
        self.examples.extend(other.examples);
    }

    fn heard<T: Debug>(&mut self, reply: Result<Response<T>, Status>) -> Option<T> {
        writeln!(self.replies, "{reply:?}").expect("writing to a string cannot fail");
        reply.ok().map(Response::into_inner)
    }

    /// A recipient by its number, written in one of the ways of people.
    fn recipient(&mut self, number: u32) -> String {
        if number % 8 == 7 {
            let local_part = format!("Ivan.Petrov{number:05}");
            self.secrets.add(&local_part);
            self.secrets.add(&local_part.to_lowercase());
            self.masked.insert("i***@example.com".to_owned());
            return format!("{local_part}@Example.com");
        }
        let digits = format!("{:07}", number * 7_919 + 2_000_003);
        let (a, b, c) = (&digits[..3], &digits[3..5], &digits[5..]);
        let forms = [
            format!("999{digits}"),
            format!("8999{digits}"),
            format!("7999{digits}"),
            format!("+7999{digits}"),
            format!("999 {a}-{b}-{c}"),
            format!("(999) {a}-{b}-{c}"),
            format!("(999){digits}"),
            format!("999.{a}.{b}.{c}"),
            format!("999-{a}-{b}-{c}"),
            format!("999 {a} {b} {c}"),
        ];
        for form in &forms {
            self.secrets.add(form);
        }
        self.masked.insert(format!("+7999***{}", &digits[3..]));
        let written = &forms[number as usize % forms.len()];
        match number % 3 {
            0 if written.starts_with(['9', '(']) => format!("8 {written}"),
            1 if written.starts_with(['9', '(']) => format!("+7 {written}"),
            _ => written.clone(),
        }
    }
}

/// The code that the log provider wrote, in a log of either format.
async fn code(replica: &Replica, challenge_id: &str) -> String {
    let wanted = |line: &str| line.contains(PROVIDER) && line.contains(challenge_id);
    let line = replica.wait_for_newest_line(wanted).await;
    let (_, rest) = line.split_once(PROVIDER).expect("it was asked for");
    rest.chars().take_while(char::is_ascii_digit).collect()
}

/// Sends a code to each of the recipients, verifies every second one, and makes all other kinds of
/// requests for the rest.
async fn talk(replica: &Replica, recipients: Range<u32>) -> Traffic {
    let mut traffic = Traffic::default();
    let mut client = replica.client();
    let mut verified = 0;
    let sends = recipients.end - recipients.start;
    for number in recipients {
        // Half of the recipients make mistakes of every kind.
        let clumsy = number % 20 < 10;
        let recipient = traffic.recipient(number);
        let region = "RU".to_owned();
        let sent = client.send_otp(SendOtpRequest {
            recipient: recipient.clone(),
            region: region.clone(),
            ..Default::default()
        });
        let sent = sent.await;
        let sent = traffic.heard(sent).expect("it is sent");
        let right = code(replica, &sent.challenge_id).await;
        assert_eq!(right.len(), 10);
        traffic.code(&right);
        traffic.examples.push((right.clone(), sent.recipient));

        let verify = |code: String| VerifyOtpRequest {
            recipient: recipient.clone(),
            region: region.clone(),
            code,
            ..Default::default()
        };
        if number % 2 == 0 {
            let typed = format!("{} {}", &right[..5], &right[5..]);
            traffic.code(&typed);
            let reply = client.verify_otp(verify(typed)).await;
            let reply = traffic.heard(reply).expect("there is an outcome");
            verified += u32::from(reply.verified);
            continue;
        }
        let wrong = format!(
            "{:010}",
            (right.parse::<u64>().expect("it has digits alone") + 5) % 10_000_000_000
        );
        let reply = client.verify_otp(verify(wrong.clone())).await;
        traffic.code(&wrong);
        traffic.heard(reply).expect("there is an outcome");
        if number % 4 == 1 {
            let cancelled = client.cancel_otp(CancelOtpRequest {
                recipient: recipient.clone(),
                region: region.clone(),
                ..Default::default()
            });
            let cancelled = cancelled.await;
            assert!(
                traffic
                    .heard(cancelled)
                    .expect("there is a reply")
                    .cancelled
            );
        }
        if !clumsy {
            continue;
        }
        let full_width =
            |digit: char| char::from_u32(u32::from(digit) + 0xFEE0).expect("a digit of full width");
        // One that is none, one in other digits, two of a wrong length.
        for typed in [
            format!("{}x{}", &right[..5], &right[6..]),
            wrong.chars().map(full_width).collect(),
            format!("{}/{}", &right[..5], &right[..5]),
            right[..9].to_owned(),
        ] {
            traffic.code(&typed);
            let reply = client.verify_otp(verify(typed)).await;
            traffic.heard(reply);
        }
        let again = client.send_otp(SendOtpRequest {
            recipient: recipient.clone(),
            region: region.clone(),
            ..Default::default()
        });
        let again = again.await;
        assert!(traffic.heard(again).is_none(), "it is too soon");
        let status = client.get_otp_status(GetOtpStatusRequest {
            challenge_id: sent.challenge_id.clone(),
            ..Default::default()
        });
        let status = status.await;
        traffic.heard(status);
    }
    assert_eq!(verified, sends / 2);
    mistake_fields(&mut client, &mut traffic).await;
    traffic
}

/// Requests with every field invalid, and as secret as a valid one.
async fn mistake_fields(client: &mut OtpServiceClient<Channel>, traffic: &mut Traffic) {
    let secret = |number: u32| format!("+7 (985) 765-43-{number}");
    let valid = "+79160000001".to_owned();
    traffic.secrets.add("9160000001");
    let long = format!("{}{}", secret(10), "1".repeat(400));
    for (number, recipient) in [
        "+7 (985) 765-43-11 ext. 5".to_owned(),
        "+7 (985) 765-43-12\n".to_owned(),
        "+7 (985) 765-43-13 or so".to_owned(),
        "Jane Doe Smith@example.com".to_owned(),
        "jane.doe.smith@".to_owned(),
        "jane.doe.smith@exa mple".to_owned(),
        long,
    ]
    .into_iter()
    .enumerate()
    {
        traffic.secrets.add(&recipient);
        for part in ["+7 (985) 765-43", "Jane Doe", "jane.doe"] {
            traffic.secrets.add(part);
        }
        let reply = client.send_otp(SendOtpRequest {
            recipient,
            ..Default::default()
        });
        let reply = reply.await;
        assert!(traffic.heard(reply).is_none(), "{number}");
    }
    // Values in the wrong field.
    let request = |change: fn(&mut SendOtpRequest, String), number: u32| {
        let mut request = SendOtpRequest {
            recipient: valid.clone(),
            ..Default::default()
        };
        change(&mut request, secret(number));
        request
    };
    for request in [
        request(|request, value| request.purpose = value, 21),
        request(|request, value| request.locale = value, 22),
        request(|request, value| request.region = value, 23),
        request(|request, value| request.client_ip = value, 24),
        request(|request, value| request.request_id = value, 25),
        request(
            |request, value| drop(request.variables.insert(value, String::new())),
            26,
        ),
        request(
            |request, value| drop(request.variables.insert("code".to_owned(), value + "\n")),
            27,
        ),
    ] {
        let reply = client.send_otp(request).await;
        assert!(traffic.heard(reply).is_none(), "the field is wrong");
    }
    let reply = client.verify_otp(VerifyOtpRequest {
        recipient: valid,
        code: "1234567890".to_owned(),
        challenge_id: secret(28),
        ..Default::default()
    });
    let reply = reply.await;
    assert!(traffic.heard(reply).is_none(), "the field is wrong");
}

/// The log without the one line that may show a code.
fn without_provider(log: &str) -> String {
    let lines = log.lines().filter(|line| !line.contains(PROVIDER));
    lines.collect::<Vec<_>>().join("\n")
}

/// Place that is searched: its name and its content.
pub type Place = (String, Content);

/// Content of a place.
pub enum Content {
    Text(String),
    Bytes(Vec<u8>),
}

impl Content {
    /// Returns the secrets that it contains.
    pub fn leaks(&self, secrets: &Secrets) -> BTreeSet<String> {
        match self {
            Self::Text(text) => secrets.in_text(text),
            Self::Bytes(bytes) => secrets.in_bytes(bytes),
        }
    }
}

/// Returns a place with a text.
pub fn text(name: &str, content: &str) -> Place {
    (name.to_owned(), Content::Text(content.to_owned()))
}

/// Asserts that no place contains a secret.
pub fn assert_no_leak(secrets: &Secrets, places: &[Place]) {
    for (name, content) in places {
        let leaks = content.leaks(secrets);
        assert!(leaks.is_empty(), "{name} contains {leaks:?}");
    }
}

/// Returns all places that a thief of the database gets.
pub fn database_places(database: &Database) -> Vec<Place> {
    if let Some(path) = database.url().strip_prefix("sqlite://") {
        let files = ["", "-wal", "-shm"].map(|suffix| format!("{path}{suffix}"));
        return files
            .into_iter()
            .filter_map(|file| {
                let bytes = fs::read(&file).ok()?;
                Some((file, Content::Bytes(bytes)))
            })
            .collect();
    }
    let binaries = std::env::var("TEST_POSTGRES_BIN").expect("set like TEST_POSTGRES_URL");
    ["--format=plain", "--inserts"]
        .into_iter()
        .map(|option| {
            let dumped = Command::new(format!("{binaries}/pg_dump"))
                .args([option, database.url()])
                .output()
                .expect("pg_dump is beside the server");
            assert!(dumped.status.success(), "{dumped:?}");
            let dump = String::from_utf8(dumped.stdout).expect("a dump is UTF-8");
            assert!(dump.contains("otp_record"));
            (option.to_owned(), Content::Text(dump))
        })
        .collect()
}

/// Searches the database; returns the secrets in each place.
pub fn search(database: &Database, secrets: &Secrets) -> Vec<(String, BTreeSet<String>)> {
    let places = database_places(database).into_iter();
    places
        .map(|(name, content)| (name, content.leaks(secrets)))
        .collect()
}

async fn database_log_and_metrics_contain_no_secrets(kind: Kind) {
    let database = Database::new(kind).await;
    // One of the two formats with each store.
    let log_format = match kind {
        Kind::Postgres => "text",
        Kind::Sqlite => "json",
    };
    let format = ("OTPD_LOG_FORMAT", log_format);
    let replica =
        Replica::start_with(&database, &[LONG_CODES, TALKATIVE, OPERATIONS, format]).await;
    let mut traffic = Traffic::default();
    let part = |number: u32| number * RECIPIENTS / 4..(number + 1) * RECIPIENTS / 4;
    let talks = Box::pin(async {
        tokio::join!(
            talk(&replica, part(0)),
            talk(&replica, part(1)),
            talk(&replica, part(2)),
            talk(&replica, part(3)),
        )
    });
    for more in <[Traffic; 4]>::from(talks.await) {
        traffic.absorb(more);
    }
    let records = database.number("SELECT count(*) FROM otp_record").await;
    assert_eq!(records, i64::from(RECIPIENTS));

    let scrape = replica.scrape().await.text;
    assert!(scrape.contains("otpd_codes_sent_total{"));
    let running = database_places(&database);
    let (status, log) = replica.stop().await;
    assert!(status.success());
    let stopped = database_places(&database);
    // The scanner finds them: the lines of the provider have all of them.
    assert!(traffic.secrets.in_text(&log).len() >= RECIPIENTS as usize);
    let log = without_provider(&log);
    // Each place, with the secrets that it must not contain.
    for (secrets, places) in [
        (&traffic.secrets, running),
        (&traffic.secrets, stopped),
        (&traffic.secrets, vec![text("the metrics", &scrape)]),
        (&traffic.secrets, vec![text("the log", &log)]),
        (&traffic.codes, vec![text("a reply", &traffic.replies)]),
    ] {
        assert_no_leak(secrets, &places);
    }
    for masked in &traffic.masked {
        assert!(log.contains(masked), "{masked} is not in the log");
    }
}

on_each_store! {
    database_log_and_metrics_contain_no_secrets
}
