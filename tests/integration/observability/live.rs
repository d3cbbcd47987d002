//! Rules, dashboard and runbook query only metrics that a running otpd exports.

use std::collections::BTreeSet;

use otpd::grpc::v1::{CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest};

use super::{
    Asked, of_dashboard, of_rules, of_runbook,
    queries::{Named, Selector, named},
    series::AllSeries,
    values_of,
};
use crate::{
    providers::gateway::Gateway,
    support::{CallerClient, Database, OPERATIONS, Replica, Typed, repository, token_digest},
};

const TOKEN: &str = "a-token-of-crm";
const PHONE: &str = "+79991234567";

/// otpd with a caller, a provider that fails and one that takes messages.
pub struct Running {
    pub replica: Replica,
    _gateway: Gateway,
    _database: Database,
}

impl Running {
    pub async fn start() -> Self {
        let database = Database::sqlite();
        let gateway = Gateway::start().await;
        gateway.will_answer(402, "");
        let (digest, url) = (token_digest(TOKEN), gateway.url("/"));
        let configuration = database.configure(&format!(
            r#"
[callers.crm]
token_sha256 = ["{digest}"]
may_reset_failures = true
[policy]
failure_delay = "1s"
failure_limit = 5
resend_after = "0s"
sends_per_hour = 3
[providers.north]
kind = "http"
url = "{url}"
allow_private_addresses = true
errors = [{{ status = 402, class = "no_balance" }}]
breaker_open_for = "10ms"
[providers.south]
kind = "log"
[[routes]]
providers = ["north", "south"]
"#
        ));
        let environment = [("OTPD_CONFIG", configuration.as_str()), OPERATIONS];
        let replica = Replica::start_with(&database, &environment).await;
        Self {
            replica,
            _gateway: gateway,
            _database: database,
        }
    }

    async fn send(&self) -> Option<String> {
        let mut client = self.replica.client_of(TOKEN);
        let request = SendOtpRequest {
            recipient: PHONE.to_owned(),
            ..Default::default()
        };
        let sent = client.send_otp(request).await.ok()?;
        let challenge_id = sent.into_inner().challenge_id;
        Some(self.replica.code(&challenge_id).await)
    }

    /// Everything that a caller can do, well and badly.
    async fn make_traffic(&self) {
        let mut client: CallerClient = self.replica.client_of(TOKEN);
        let code = self.send().await.expect("it is sent");
        let typed = |code: &str| VerifyOtpRequest {
            recipient: PHONE.to_owned(),
            code: code.to_owned(),
            ..Default::default()
        };
        let verified = client
            .verify_otp(typed(&code))
            .await
            .expect("there is an outcome");
        assert!(verified.into_inner().verified);
        let code = self.send().await.expect("it is sent");
        let wrong = Typed::Mistyped.text(&code);
        for _ in 0..5 {
            client
                .verify_otp(typed(&wrong))
                .await
                .expect("there is an outcome");
        }
        client
            .verify_otp(typed(&wrong))
            .await
            .expect_err("it is shut");
        let reset = CancelOtpRequest {
            recipient: PHONE.to_owned(),
            reset_failures: true,
            ..Default::default()
        };
        client.cancel_otp(reset).await.expect("it may");
        let about = GetOtpStatusRequest {
            recipient: PHONE.to_owned(),
            ..Default::default()
        };
        client
            .get_otp_status(about)
            .await
            .expect("there is a status");
        self.send().await.expect("it is sent");
        assert!(self.send().await.is_none(), "a limit is reached");
        let mut stranger = self.replica.client_of("a-guess");
        let refused = stranger.send_otp(SendOtpRequest::default()).await;
        refused.expect_err("the caller is unknown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_queried_metric_and_label_exists() {
    let running = Running::start().await;
    running.make_traffic().await;
    // Values that are counted or sampled beside the requests appear a little later.
    let later = ["otpd_codes_verified_total{", "otpd_records{"];
    let scrape = running.replica.scrape_until(|scrape| {
        let names = || scrape.series.keys();
        later
            .iter()
            .all(|start| names().any(|name| name.starts_with(start)))
    });
    let all = AllSeries::of(&scrape.await);
    let recorded: BTreeSet<String> = values_of("record").into_iter().collect();
    let sources = repository::read("src/metrics/rpc_outcomes.rs")
        + &repository::read("src/metrics/rpc_labels.rs")
        + &repository::read("src/reason.rs")
        + &repository::read("src/metrics/rpc_latency.rs")
        + &repository::read("src/metrics/delivery.rs")
        + &repository::read("crates/otpd-rules/src/attempt_log.rs")
        + &repository::read("crates/otpd-rules/src/message.rs");
    let mut wrong = Vec::new();
    for asked in of_rules()
        .iter()
        .chain(&of_dashboard())
        .chain(&of_runbook())
    {
        let named = named(&asked.text);
        for selector in &named.selectors {
            wrong.extend(faults(selector, &all, &recorded, &sources, &asked.place));
        }
        wrong.extend(unknown_labels(asked, &named, &all, &recorded));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Series that Prometheus makes itself.
fn is_of_prometheus(metric: &str) -> bool {
    ["up", "ALERTS"].contains(&metric)
}

/// Labels that Prometheus or Grafana adds.
const ADDED: [&str; 5] = ["job", "instance", "alertname", "method", ""];

fn faults(
    selector: &Selector,
    all: &AllSeries,
    recorded: &BTreeSet<String>,
    sources: &str,
    place: &str,
) -> Vec<String> {
    let metric = &selector.metric;
    if is_of_prometheus(metric) || recorded.contains(metric) {
        return Vec::new();
    }
    if !all.knows(metric) {
        return vec![format!("{place}: there is no {metric}")];
    }
    let mut faults = Vec::new();
    for (label, value) in &selector.matchers {
        if ADDED.contains(&label.as_str()) || value.starts_with('$') {
            continue;
        }
        let values = all.values(metric, label);
        if values.is_empty() {
            faults.push(format!("{place}: {metric} has no label {label}"));
        }
        if label == "le" && !values.contains(value.as_str()) {
            faults.push(format!("{place}: {metric} has no bucket up to {value}"));
        }
        // The words of a pattern; a line that was not written here must be in the sources.
        let in_words = |character: char| character.is_alphanumeric() || character == '_';
        for word in value.split(|character| !in_words(character)) {
            let happened = values.iter().any(|value| value.contains(word));
            let possible = sources.contains(&format!("\"{word}\""));
            if !happened && !possible {
                faults.push(format!("{place}: {metric} never has {label}={word}"));
            }
        }
    }
    faults
}

fn unknown_labels(
    asked: &Asked,
    named: &Named,
    all: &AllSeries,
    recorded: &BTreeSet<String>,
) -> Vec<String> {
    let metrics = named.selectors.iter().map(|selector| &selector.metric);
    let metrics: Vec<&String> = metrics.filter(|metric| !is_of_prometheus(metric)).collect();
    if metrics.iter().any(|metric| recorded.contains(*metric)) {
        return Vec::new();
    }
    let known = |label: &str| {
        ADDED.contains(&label)
            || metrics.iter().all(|metric| !all.values(metric, label).is_empty())
            // A number of its own beside: `0 * …`, `vector(0)`.
            || metrics.is_empty()
    };
    let labels = named.groups.iter().chain(&asked.legend);
    labels
        .filter(|label| !known(label))
        .map(|label| format!("{}: not all of {metrics:?} have {label}", asked.place))
        .collect()
}

/// Prometheus sees an increase only of a series that was there before.
#[tokio::test(flavor = "multi_thread")]
async fn alerted_counters_are_exported_from_the_start() {
    let running = Running::start().await;
    let scrape = running.replica.scrape().await;
    let locked = r#"otpd_lockouts_total{kind="locked",caller="crm"}"#;
    for series in [
        locked,
        r#"otpd_lockout_resets_total{caller="crm"}"#,
        r#"otpd_auth_failures_total{reason="token"}"#,
        r#"otpd_rate_limited_total{limit="ip_sends_per_hour",caller="crm"}"#,
        r#"otpd_messages_completed_total{result="failed"}"#,
        r#"otpd_store_errors_total{kind="timeout"}"#,
        r#"otpd_rows_purged_total{table="records"}"#,
        r#"otpd_provider_breaker_state{provider="north"}"#,
    ] {
        let value = scrape.series.get(series);
        let value = value.and_then(|value| value.parse::<f64>().ok());
        assert_eq!(value, Some(0.0), "{series}");
    }
    running.make_traffic().await;
    assert_eq!(running.replica.scrape().await.value(locked), 1);
}
