//! `otpd bench` against real servers: its counts and its exit.

mod interrupted;

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
};

use serde_json::Value;

use crate::support::{Database, Ended, Kind, Replica, on_each_store, otpd, run, token_digest};

/// Neither a warm-up nor the time of a test.
const AT_ONCE: [&str; 3] = ["--warm-up", "0s", "--quiet"];

/// Returns the path of the result file.
fn result_file(database: &Database) -> PathBuf {
    database.directory().join("result.json")
}

/// A load on `addresses`, of which the result is written to a file.
fn load(database: &Database, addresses: &str, arguments: &[&str]) -> Command {
    let mut command = otpd();
    command
        .args(["bench", "--address", addresses, "--json"])
        .arg(result_file(database))
        .args(arguments);
    command
}

/// The result of a load.
fn result(database: &Database) -> Value {
    let text = fs::read_to_string(result_file(database)).expect("the result was written");
    serde_json::from_str(&text).expect("the result is JSON")
}

/// Runs a load to its good end.
fn run_load(database: &Database, addresses: &str, arguments: &[&str]) -> Value {
    run(load(database, addresses, arguments).args(AT_ONCE)).done();
    result(database)
}

/// Servers, and the files that hold their logs, with commas between.
fn addresses_and_logs(database: &Database, replicas: &[Replica]) -> (String, String) {
    let mut addresses = Vec::new();
    let mut logs = Vec::new();
    for (number, replica) in replicas.iter().enumerate() {
        let log = database.directory().join(format!("log.{number}"));
        replica.copy_log(&log);
        logs.push(log.display().to_string());
        addresses.push(replica.address().to_string());
    }
    (addresses.join(","), logs.join(","))
}

fn count(result: &Value, pointer: &str) -> u64 {
    let value = result.pointer(pointer).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no count {pointer} in {result:#}"))
}

/// Returns the number of records. Each pair has one, and so has the first, uncounted pair of each
/// server.
async fn records(database: &Database) -> u64 {
    let records = database.number("SELECT COUNT(*) FROM otp_record").await;
    u64::try_from(records).expect("a count")
}

async fn pairs_are_counted_with_codes_from_the_log(kind: Kind) {
    // One of the two formats with each store.
    let format = match kind {
        Kind::Postgres => "text",
        Kind::Sqlite => "json",
    };
    let database = Database::new(kind).await;
    let replica = [Replica::start_with(&database, &[("OTPD_LOG_FORMAT", format)]).await];
    let process = format!("server={}", replica[0].id());
    let (address, log) = addresses_and_logs(&database, &replica);
    let arguments = ["--pairs", "200", "--codes", &log, "--process", &process];
    let result = run_load(&database, &address, &arguments);

    for (pointer, expected) in [
        ("/pairs", 200),
        ("/pairs_failed", 0),
        ("/not_started", 0),
        ("/violations", 0),
        ("/send/count", 200),
        ("/verify/count", 200),
        ("/outcomes/VERIFIED", 200),
        ("/settings/pairs", 200),
    ] {
        assert_eq!(count(&result, pointer), expected, "{pointer}");
    }
    assert_eq!(result["otpd"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        result["outcomes"].as_object().map(serde_json::Map::len),
        Some(1)
    );
    assert_eq!(result["failures"], serde_json::json!({}));
    let [p50, p90, p99, p999, max] = ["p50", "p90", "p99", "p999", "max"]
        .map(|name| count(&result, &format!("/send/latency_microseconds/{name}")));
    assert!(0 < p50 && p50 <= p90 && p90 <= p99 && p99 <= p999 && p999 <= max);
    for number in [
        "/seconds",
        "/pairs_per_second",
        "/verify/latency_microseconds/mean",
        "/processes/0/cpu_seconds",
        "/processes/0/cpu_microseconds_per_pair",
        "/load_generator/cpu_microseconds_per_pair",
    ] {
        let value = result.pointer(number).and_then(Value::as_f64);
        assert!(value > Some(0.0), "{number} in {result:#}");
    }
    assert_eq!(result["processes"][0]["name"], "server");
    let resident = count(&result, "/processes/0/resident_bytes");
    assert!(0 < resident && resident <= count(&result, "/processes/0/peak_resident_bytes"));
    assert_eq!(records(&database).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_max_age_loses_no_pair() {
    let database = Database::new(Kind::Sqlite).await;
    let aging = [("OTPD_CONNECTIONS__MAX_AGE", "200ms")];
    let replica = [Replica::start_with(&database, &aging).await];
    let (address, log) = addresses_and_logs(&database, &replica);
    let arguments = ["--pairs", "600", "--in-flight", "16", "--codes", &log];
    let result = run_load(&database, &address, &arguments);
    assert_eq!(count(&result, "/pairs"), 600);
    assert_eq!(result["failures"], serde_json::json!({}));
}

/// Starts a server that returns codes to one caller, whose token is `known`.
async fn serve_a_caller_who_delivers(database: &Database) -> Replica {
    let configuration = database.configure(&format!(
        "[callers.crm]\ntoken_sha256 = [\"{}\"]\nself_delivery = true",
        token_digest("known")
    ));
    Replica::start_with(database, &[("OTPD_CONFIG", &configuration)]).await
}

async fn self_delivering_caller_needs_no_log(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = serve_a_caller_who_delivers(&database).await;
    let address = replica.address().to_string();
    let pairs = ["--pairs", "200", "--token", "known"];
    let result = run_load(&database, &address, &pairs);
    assert_eq!(count(&result, "/pairs"), 200);
    assert_eq!(count(&result, "/outcomes/VERIFIED"), 200);
    assert!(!result.to_string().contains("known"), "{result:#}");
    assert_eq!(records(&database).await, 201);

    let unknown = ["--pairs", "200", "--token", "other"];
    let line = run(load(&database, &address, &unknown).args(AT_ONCE)).line(77);
    let start = format!("otpd: {address}: CALLER_UNKNOWN: ");
    assert!(line.starts_with(&start), "{line}");
}

async fn wrong_codes_are_sent_before_the_correct_one(kind: Kind) {
    let database = Database::new(kind).await;
    let replica = [Replica::start(&database).await];
    let (address, log) = addresses_and_logs(&database, &replica);
    for (share, wrong) in [("1", 200), ("0.25", 50)] {
        let arguments = [
            "--pairs",
            "200",
            "--codes",
            &log,
            "--wrong-share",
            share,
            "--client-ips",
            "0",
        ];
        let result = run_load(&database, &address, &arguments);
        assert_eq!(count(&result, "/pairs"), 200);
        assert_eq!(count(&result, "/outcomes/VERIFIED"), 200);
        assert_eq!(count(&result, "/outcomes/WRONG_CODE"), wrong);
        assert_eq!(count(&result, "/verify/count"), 200 + wrong);
    }
    assert_eq!(records(&database).await, 402);
}

#[tokio::test(flavor = "multi_thread")]
async fn hot_recipients_on_two_replicas_keep_the_invariants() {
    let database = Database::postgres().await;
    // Without the limits that would refuse most requests; one purpose also allows a resend at once.
    let hardly_limited = [
        ("OTPD_POLICY__SENDS_PER_HOUR", "0"),
        ("OTPD_POLICY__SENDS_PER_DAY", "0"),
        ("OTPD_POLICY__IP_FAILURES_PER_HOUR", "0"),
        ("OTPD_POLICY__IP_SENDS_PER_HOUR", "0"),
        ("OTPD_POLICY__FAILURE_DELAY", "0s"),
        ("OTPD_PURPOSES__EAGER__RESEND_AFTER", "0s"),
    ];
    let replicas = Replica::start_many_with(&database, 2, &hardly_limited).await;
    let (addresses, logs) = addresses_and_logs(&database, &replicas);
    let mut verified = 0;
    for (purpose, expected) in [
        ("default", &["RESEND_TOO_SOON"][..]),
        ("eager", &["VERIFIED", "WRONG_CODE", "NOT_FOUND"]),
    ] {
        let hammer = ["--pairs", "400", "--hot", "5", "--codes", &logs];
        let purpose = ["--purpose", purpose];
        let result = run_load(&database, &addresses, &[&hammer[..], &purpose].concat());
        assert_eq!(count(&result, "/violations"), 0);
        for outcome in expected {
            assert!(!result["outcomes"][outcome].is_null(), "{result:#}");
        }
        verified += result["outcomes"]["VERIFIED"].as_u64().unwrap_or_default();
        // Those of the first pairs, one for each server, are not counted.
        verified += 2;
    }
    assert_eq!(records(&database).await, 2 * (2 + 5));
    let mut counted = 0;
    for replica in replicas {
        let (_, log) = replica.stop().await;
        counted += log.matches("OTP verified successfully").count();
    }
    assert_eq!(counted as u64, verified, "each was counted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn arrivals_are_started_or_counted_as_not_started() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve_a_caller_who_delivers(&database).await;
    let address = replica.address().to_string();
    let slowly = ["--token", "known", "--pairs", "100", "--rate", "400"];
    let result = run_load(&database, &address, &slowly);
    assert_eq!(count(&result, "/pairs"), 100);
    assert_eq!(count(&result, "/not_started"), 0);

    // All at the same moment, of which one can run.
    let at_once = [
        "--token",
        "known",
        "--pairs",
        "100",
        "--rate",
        "1e9",
        "--in-flight",
        "1",
    ];
    let result = run_load(&database, &address, &at_once);
    let not_started = count(&result, "/not_started");
    assert!(not_started > 0, "{result:#}");
    assert_eq!(count(&result, "/pairs") + not_started, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_without_warm_up_lasts_until_the_last_pair_ends() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve_a_caller_who_delivers(&database).await;
    let address = replica.address().to_string();
    let short = ["--token", "known", "--duration", "1ms"];
    let result = run_load(&database, &address, &short);
    let mean = |rpc: &str| -> f64 {
        let mean = &result[rpc]["latency_microseconds"]["mean"];
        mean.as_f64().expect("a number")
    };
    let seconds = result["seconds"].as_f64().expect("a number");
    let of_a_pair = (mean("send") + mean("verify")) / 1e6;
    assert!(seconds >= of_a_pair, "{result:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_load_is_reported_in_one_line() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = Replica::start(&database).await;
    let address = replica.address().to_string();
    let two = format!("{address},{address}");
    let silent = database.directory().join("silent");
    File::create(&silent).expect("the directory takes files");
    let silent = silent.display().to_string();
    let line = |addresses: &str, arguments: &[&str], code| -> String {
        run(load(&database, addresses, arguments).args(AT_ONCE)).line(code)
    };

    let said = line("127.0.0.1:1", &[], 69);
    assert!(
        said.starts_with("otpd: cannot reach 127.0.0.1:1: "),
        "{said}"
    );
    let said = line(&format!("{address},127.0.0.1:1"), &["--codes", &silent], 69);
    assert!(
        said.starts_with("otpd: cannot reach 127.0.0.1:1: "),
        "{said}"
    );
    let said = line(&address, &[], 64);
    let start = format!("otpd: {address} returns no codes; give its log by --codes FILE");
    assert!(said.starts_with(&start), "{said}");
    let said = line(&address, &["--codes", &silent], 64);
    let start = format!("otpd: --codes: no code of {address} was logged within 5 s; ");
    assert!(said.starts_with(&start), "{said}");
    let said = line(&address, &["--codes", "/nowhere/log"], 64);
    assert!(said.starts_with("otpd: --codes: /nowhere/log: "), "{said}");
    let said = line(&two, &["--connections", "1"], 64);
    assert!(said.starts_with("otpd: --connections: "), "{said}");
    let said = line(&address, &["--process", "server=4294967295"], 64);
    assert!(
        said.starts_with("otpd: --process: server=4294967295: "),
        "{said}"
    );
}

#[test]
fn invalid_load_options_are_usage_errors() {
    for (arguments, named) in [
        (&["--pairs", "0"][..], "--pairs"),
        (&["--pairs", "1", "--duration", "1s"], "--duration"),
        (&["--duration", "soon"], "--duration"),
        (&["--rate", "0"], "--rate"),
        (&["--rate", "inf"], "--rate"),
        (&["--wrong-share", "1.1"], "--wrong-share"),
        (&["--regions", "41"], "--regions"),
        (&["--client-ips", "131073"], "--client-ips"),
        (&["--in-flight", "0"], "--in-flight"),
        (&["--process", "1"], "--process"),
    ] {
        let said = run(otpd().arg("bench").args(arguments)).complaint(64);
        assert!(said.contains(named), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn result_is_written_to_stdout_on_request() {
    let database = Database::new(Kind::Sqlite).await;
    let replica = serve_a_caller_who_delivers(&database).await;
    let address = replica.address().to_string();
    let bench = |json: &[&str]| -> Ended {
        run(otpd()
            .args(["bench", "--address", &address, "--token", "known"])
            .args(["--pairs", "3"])
            .args(AT_ONCE)
            .args(json))
    };
    let json = bench(&["--json", "-"]).done();
    let json: Value = serde_json::from_str(&json).expect("nothing but JSON");
    assert_eq!(count(&json, "/pairs"), 3);
    let table = bench(&[]).done();
    assert!(table.starts_with("3 pairs in "), "{table}");
    for line in [
        "SendOtp            3 ",
        "VerifyOtp          3 ",
        "outcomes      VERIFIED 3\n",
    ] {
        assert!(table.contains(line), "no {line:?} in {table}");
    }
}

on_each_store! {
    pairs_are_counted_with_codes_from_the_log
    self_delivering_caller_needs_no_log
    wrong_codes_are_sent_before_the_correct_one
}
