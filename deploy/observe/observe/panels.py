"""Panels of the dashboard, in sections.

Variables of Grafana in the queries: `$replica`, `$provider` and `$channel` filter the series,
`$window` is the time over which events are counted, and `$__rate_interval` is the shortest
window of a rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "areas", "number", "states"]

CALLS = "rpc_server_call_duration_seconds"
OBJECTIVE = 'rpc_method=~".*/(SendOtp|VerifyOtp)"'
FAILED = 'rpc_response_status_code=~"UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|UNKNOWN"'
FAST = 'le="0.25"'
HERE = 'instance=~"$replica"'
OTPD = f'{{job="otpd", {HERE}}}'
PROVIDER = 'provider=~"$provider"'
ROUTE = 'provider=~"$provider", channel=~"$channel"'
REASON = "Per second. A name in capitals is a refusal, with its reason in the contract."
GOOD, POOR, BAD = "green", "orange", "red"


@dataclass(frozen=True)
class Panel:
    """One panel.

    `queries` are PromQL expressions with the legends of their series, `width` is in 24ths of a
    row, and `steps` are thresholds with their colours.
    """

    title: str
    description: str
    queries: dict[str, str]
    unit: str = "short"
    kind: Kind = "lines"
    width: int = 8
    steps: tuple[tuple[float | None, str], ...] = ()
    states: tuple[tuple[str, str, str], ...] = ()
    maximum: float | None = None


@dataclass(frozen=True)
class Section:
    """A row of the dashboard with its panels."""

    title: str
    panels: tuple[Panel, ...]


def selector(metric: str, *labels: str) -> str:
    """Return the series of a metric on the chosen replicas."""
    return f"{metric}{{{', '.join((*labels, HERE))}}}"


def rate(metric: str, by: str, *labels: str) -> str:
    """Return the events of a counter per second."""
    return f"sum by ({by}) (rate({selector(metric, *labels)}[$__rate_interval]))"


def counted(metric: str, by: str, *labels: str, window: str = "$window") -> str:
    """Return the events of a counter in a window."""
    by = f" by ({by})" if by else ""
    return f"sum{by} (increase({selector(metric, *labels)}[{window}]))"


def quantiles(histogram: str, by: str, *labels: str, high: str = "0.99") -> dict[str, str]:
    """Return the median and a high quantile of a histogram."""
    buckets = rate(f"{histogram}_bucket", f"{by}, le" if by else "le", *labels)
    legend = f"{{{{{'method' if by == 'rpc_method' else by}}}}} " if by else ""
    return {
        f"histogram_quantile({share}, {buckets})": legend + name
        for share, name in (("0.5", "median"), (high, f"{high.removeprefix('0.')} %"))
    }


def short_method(expression: str) -> str:
    """Return the expression with the method's own name in the label `method`."""
    return f'label_replace({expression}, "method", "$1", "rpc_method", ".*/(.*)")'


def objective_calls(suffix: str, *labels: str) -> str:
    """Return the number of calls with an objective in the range of the dashboard."""
    return counted(f"{CALLS}_{suffix}", "", OBJECTIVE, *labels, window="$__range")


ALL_CALLS = rate(f"{CALLS}_count", "rpc_method", OBJECTIVE)
FAILED_CALLS = rate(f"{CALLS}_count", "rpc_method", OBJECTIVE, FAILED)
FIRING = 'ALERTS{alertname=~"Otpd.*", alertstate="firing"}'
OUTCOMES = "otpd_requests_total"

AVAILABILITY = Section(
    "Availability and latency",
    (
        Panel(
            "Success rate",
            "Share of SendOtp and VerifyOtp that did not fail because of otpd. Objective: 99.9 % "
            "over 30 days. A refusal that the contract names is a success.",
            {
                f"1 - ({objective_calls('count', FAILED)} or vector(0)) "
                f"/ {objective_calls('count')}": "",
            },
            unit="percentunit",
            kind="number",
            width=6,
            steps=((None, BAD), (0.99, POOR), (0.999, GOOD)),
        ),
        Panel(
            "Within 250 ms",
            "Share of SendOtp and VerifyOtp within 250 ms. Objective: 99 % over 30 days.",
            {f"{objective_calls('bucket', FAST)} / {objective_calls('count')}": ""},
            unit="percentunit",
            kind="number",
            width=6,
            steps=((None, BAD), (0.97, POOR), (0.99, GOOD)),
        ),
        Panel(
            "Alerts firing",
            "Alerts of the rules in deploy/observe/prometheus/rules, described in docs/runbook.md.",
            {f"count({FIRING}) or vector(0)": ""},
            kind="number",
            width=6,
            steps=((None, GOOD), (1, BAD)),
        ),
        Panel(
            "Replicas up",
            "Replicas that Prometheus reaches.",
            {f"sum(up{OTPD})": ""},
            kind="number",
            width=6,
            steps=((None, BAD), (1, POOR), (2, GOOD)),
        ),
        Panel(
            "Alerts",
            "Times at which each alert fired.",
            {f"max by (alertname) ({FIRING})": "{{alertname}}"},
            kind="states",
            states=(("1", "firing", BAD),),
            width=12,
        ),
        Panel(
            "Calls",
            "Per second, by method.",
            {
                short_method(
                    rate(f"{CALLS}_count", "rpc_method", 'rpc_method=~".*OtpService/.*"')
                ): "{{method}}",
            },
            unit="reqps",
            width=12,
        ),
        Panel(
            "Failed calls",
            "Share of calls that ended with UNAVAILABLE, INTERNAL, DEADLINE_EXCEEDED or UNKNOWN.",
            {
                short_method(f"({FAILED_CALLS} or 0 * {ALL_CALLS}) / {ALL_CALLS}"): "{{method}}",
            },
            unit="percentunit",
            width=12,
            steps=((None, GOOD), (0.001, BAD)),
        ),
        Panel(
            "Latency",
            "Duration of calls: median and 99th percentile. Objective: 250 ms.",
            {
                short_method(query): legend
                for query, legend in quantiles(CALLS, "rpc_method", OBJECTIVE).items()
            },
            unit="s",
            width=12,
        ),
        Panel(
            "Outcomes of SendOtp",
            REASON,
            {rate(OUTCOMES, "outcome", 'rpc="SendOtp"'): "{{outcome}}"},
            unit="reqps",
            kind="areas",
        ),
        Panel(
            "Outcomes of VerifyOtp",
            REASON,
            {rate(OUTCOMES, "outcome", 'rpc="VerifyOtp"'): "{{outcome}}"},
            unit="reqps",
            kind="areas",
        ),
        Panel(
            "Calls by caller and purpose",
            "Per second. Purposes that are not configured are `other`.",
            {rate(OUTCOMES, "caller, purpose"): "{{caller}} {{purpose}}"},
            unit="reqps",
            width=4,
        ),
        Panel(
            "Requests in flight",
            "By replica.",
            {selector("otpd_requests_in_flight"): "{{instance}}"},
            width=4,
        ),
    ),
)

BREAKERS = selector("otpd_provider_breaker_state", PROVIDER)
DELIVERY = Section(
    "Delivery",
    (
        Panel(
            "Messages accepted by providers",
            "Per second.",
            {
                rate(
                    "otpd_codes_sent_total", "provider, channel", ROUTE
                ): "{{provider}} {{channel}}",
            },
            unit="cps",
            kind="areas",
        ),
        Panel(
            "Conversion",
            "Share of messages whose code was verified, in $window. It collapses if a gateway "
            "loses messages, or if an attacker has them sent for a share of their price.",
            {
                counted("otpd_codes_verified_total", "provider, channel, country", ROUTE)
                + " / ("
                + counted("otpd_codes_sent_total", "provider, channel, country", ROUTE)
                + " > 0)": "{{provider}} {{country}}",
            },
            unit="percentunit",
            maximum=1,
        ),
        Panel(
            "Attempts by result",
            "Per second, by provider.",
            {
                rate("otpd_delivery_attempts_total", "provider, result", ROUTE)
                + " > 0": "{{provider}} {{result}}",
            },
            unit="cps",
        ),
        Panel(
            "Duration of attempts",
            "One attempt with a provider: median and 95th percentile.",
            quantiles("otpd_delivery_attempt_duration_seconds", "provider", PROVIDER, high="0.95"),
            unit="s",
            width=6,
        ),
        Panel(
            "Delivery latency",
            "From the commit of a message until a provider accepted it.",
            quantiles(
                "otpd_delivery_latency_seconds", "channel", 'channel=~"$channel"', high="0.95"
            ),
            unit="s",
            width=6,
        ),
        Panel(
            "Completed messages",
            "Per second. `failed`: no provider will accept it. `dropped`: the code expired or was "
            "used first.",
            {rate("otpd_messages_completed_total", "result"): "{{result}}"},
            unit="cps",
            width=6,
        ),
        Panel(
            "Circuit breakers",
            "Open: no attempts, after several consecutive failures. Worst state of all replicas.",
            {f"max by (provider) ({BREAKERS})": "{{provider}}"},
            kind="states",
            states=(("0", "closed", GOOD), ("1", "half open", POOR), ("2", "open", BAD)),
            width=6,
        ),
        Panel(
            "Queued messages",
            "Messages in the store, and messages leased by each replica.",
            {
                "max(otpd_messages_queued)": "in the store",
                selector("otpd_messages_leased"): "leased by {{instance}}",
            },
            width=12,
        ),
        Panel(
            "Age of the oldest queued message",
            "Since the code was issued. A code is valid for five minutes.",
            {"max(otpd_outbox_oldest_message_age_seconds)": "oldest"},
            unit="s",
            width=12,
            steps=((None, GOOD), (60, BAD)),
        ),
    ),
)

ATTACKS = Section(
    "Attacks",
    (
        Panel(
            "Attempts",
            "Per second: verified and wrong codes. Other requests count as no attempt.",
            {
                rate(
                    OUTCOMES, "outcome", 'rpc="VerifyOtp", outcome=~"verified|wrong_code"'
                ): "{{outcome}}",
            },
            unit="reqps",
            kind="areas",
            width=6,
        ),
        Panel(
            "Share of wrong codes",
            "Share of all attempts. A tenth is usual; a half is a sign of guessing.",
            {
                rate(OUTCOMES, "job", 'outcome="wrong_code"')
                + " / "
                + rate(OUTCOMES, "job", 'outcome=~"wrong_code|verified"'): "wrong",
            },
            unit="percentunit",
            width=6,
            steps=((None, GOOD), (0.5, BAD)),
            maximum=1,
        ),
        Panel(
            "Lockouts",
            "In $window. `delayed`: temporary, after five wrong codes in a row. `locked`: until a "
            "reset by the caller.",
            {counted("otpd_lockouts_total", "kind, caller"): "{{kind}} {{caller}}"},
            width=6,
        ),
        Panel(
            "Rate-limited requests",
            "In $window, by rate limit and caller.",
            {counted("otpd_rate_limited_total", "limit, caller"): "{{limit}} {{caller}}"},
            width=6,
        ),
        Panel(
            "Messages by country",
            "Per second; the ten largest.",
            {f"topk(10, {rate('otpd_codes_sent_total', 'country', ROUTE)})": "{{country}}"},
            unit="cps",
        ),
        Panel(
            "Authentication failures",
            "In $window, by reason.",
            {counted("otpd_auth_failures_total", "reason"): "{{reason}}"},
        ),
        Panel(
            "Receipts",
            "In $window, by outcome.",
            {counted("otpd_receipts_total", "outcome"): "{{outcome}}"},
        ),
        Panel(
            "Lockout resets",
            "In $window, by caller.",
            {counted("otpd_lockout_resets_total", "caller"): "{{caller}}"},
        ),
    ),
)

STATEMENTS = "otpd_store_statement_duration_seconds"
BUCKETS = rate(f"{STATEMENTS}_bucket", "statement, le")
STORE = Section(
    "Store",
    (
        Panel(
            "Store available",
            "By replica.",
            {selector("otpd_store_up"): "{{instance}}"},
            kind="states",
            states=(("0", "no", BAD), ("1", "yes", GOOD)),
        ),
        Panel(
            "Duration of statements",
            "99th percentile. Requests wait for `load` and `write`.",
            {f"histogram_quantile(0.99, {BUCKETS})": "{{statement}}"},
            unit="s",
        ),
        Panel(
            "Statements",
            "Per second.",
            {rate(f"{STATEMENTS}_count", "statement"): "{{statement}}"},
            unit="ops",
        ),
        Panel(
            "Failed statements",
            "Per second, by kind of error.",
            {rate("otpd_store_errors_total", "kind"): "{{kind}}"},
            unit="ops",
            width=6,
        ),
        Panel(
            "Connections",
            "Total of the chosen replicas.",
            {f"sum by (state) ({selector('otpd_store_connections')})": "{{state}}"},
            kind="areas",
            width=6,
        ),
        Panel(
            "Batch size",
            "Requests per round trip to the store. It grows with the load.",
            {
                rate("otpd_batch_size_sum", "instance")
                + " / "
                + rate("otpd_batch_size_count", "instance"): "{{instance}} mean",
                f"histogram_quantile(0.99, {rate('otpd_batch_size_bucket', 'le')})": "99 %",
            },
            width=6,
        ),
        Panel(
            "Queue wait",
            "Wait of a request for its batch: median and 99th percentile.",
            quantiles("otpd_queue_wait_seconds", ""),
            unit="s",
            width=6,
        ),
        Panel(
            "Queue depth",
            "Requests that wait for a batch, by replica. Above `store.queue_size`, requests are "
            "refused with OVERLOADED.",
            {selector("otpd_queue_depth"): "{{instance}}"},
            width=6,
        ),
        Panel(
            "Version conflicts",
            "Decisions per second that were repeated, because another replica wrote first.",
            {rate("otpd_batch_conflicts_total", "instance"): "{{instance}}"},
            unit="ops",
            width=6,
        ),
        Panel(
            "Records",
            "Records in the store; purgeable ones wait for the purge.",
            {"max by (state) (otpd_records)": "{{state}}"},
            kind="areas",
            width=6,
        ),
        Panel(
            "Purged rows",
            "Per second, by table.",
            {rate("otpd_rows_purged_total", "table"): "{{table}}"},
            unit="ops",
            width=6,
        ),
    ),
)

PROCESS = Section(
    "Processes",
    (
        Panel(
            "CPU",
            "Cores in use.",
            {f"rate(process_cpu_seconds_total{OTPD}[$__rate_interval])": "{{instance}}"},
        ),
        Panel(
            "Memory",
            "Resident memory.",
            {f"process_resident_memory_bytes{OTPD}": "{{instance}}"},
            unit="bytes",
        ),
        Panel(
            "Open files",
            "Share of the maximum number of open files, connections included.",
            {f"process_open_fds{OTPD} / process_max_fds{OTPD}": "{{instance}}"},
            unit="percentunit",
            steps=((None, GOOD), (0.8, BAD)),
        ),
        Panel(
            "Uptime",
            "Since the start of the process.",
            {f"time() - process_start_time_seconds{OTPD}": "{{instance}}"},
            unit="s",
        ),
        Panel(
            "Versions",
            "Number of replicas by version.",
            {f"count by (version) ({selector('otpd_build_info')})": "{{version}}"},
        ),
        Panel(
            "Suppressed log lines",
            "Per second: repeated warnings.",
            {rate("otpd_log_lines_suppressed_total", "instance"): "{{instance}}"},
            unit="ops",
        ),
        Panel(
            "Dropped log lines",
            "Per second: lines that the destination of the log did not accept in time.",
            {
                rate("otpd_log_lines_dropped_total", "instance, sink"): "{{instance}} {{sink}}",
            },
            unit="ops",
        ),
    ),
)

SECTIONS = (AVAILABILITY, DELIVERY, ATTACKS, STORE, PROCESS)
