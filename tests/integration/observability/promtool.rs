//! Checks of the rules, their tests and the metrics by promtool.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use super::{live, yaml_files};
use crate::support::repository;

fn promtool(arguments: &[&str]) -> Command {
    let program = std::env::var("TEST_PROMTOOL")
        .expect("TEST_PROMTOOL names Prometheus's promtool; run `./check tests`");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn assert_good(done: &Output) {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (output, errors) = (said(&done.stdout), said(&done.stderr));
    assert!(done.status.success(), "{output}{errors}");
}

fn names(files: &[impl AsRef<Path>]) -> Vec<&Path> {
    files.iter().map(AsRef::as_ref).collect()
}

#[test]
fn promtool_accepts_rules_and_configuration() {
    let config = repository::path("deploy/observe/prometheus/prometheus.yml");
    let checked = promtool(&["check", "config", "--lint-fatal"])
        .arg(config)
        .output();
    assert_good(&checked.expect("promtool runs"));
}

#[test]
fn alert_rules_pass_their_unit_tests() {
    let tests = yaml_files("tests");
    let done = promtool(&["test", "rules"]).args(names(&tests)).output();
    assert_good(&done.expect("promtool runs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_the_metrics() {
    let running = live::Running::start().await;
    let scrape = running.replica.scrape().await;
    let mut checking = promtool(&["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    let mut input = checking.stdin.take().expect("it is piped");
    input
        .write_all(scrape.text.as_bytes())
        .expect("promtool reads");
    drop(input);
    let done = checking.wait_with_output().expect("promtool ends");
    assert_good(&done);
    assert!(
        done.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
