"""What the dashboard shows: the panels, grouped by the questions that they answer.

Grafana's variables stand in the queries: `$replica`, `$provider` and `$channel` narrow what is
shown, `$window` is the time over which codes are counted that came back, and
`$__rate_interval` is as long as a rate needs at least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "areas", "number", "states"]

CALLS = "rpc_server_call_duration_seconds"
JUDGING = 'rpc_method=~".*/(SendOtp|VerifyOtp)"'
FAILED = 'rpc_response_status_code=~"UNAVAILABLE|INTERNAL|DEADLINE_EXCEEDED|UNKNOWN"'
HERE = 'instance=~"$replica"'
PROVIDER = 'instance=~"$replica", provider=~"$provider"'
ROUTE = 'instance=~"$replica", provider=~"$provider", channel=~"$channel"'


@dataclass(frozen=True)
class Query:
    """One PromQL expression; `legend` names its series by their labels."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture. `width` is in 24ths of a row; `steps` are where its colour changes."""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "lines"
    width: int = 8
    steps: tuple[tuple[float | None, str], ...] = ()
    states: tuple[tuple[str, str, str], ...] = ()
    most: float | None = None


@dataclass(frozen=True)
class Section:
    """A question, and the panels that answer it."""

    question: str
    panels: tuple[Panel, ...]


def rate(metric: str, labels: str, by: str) -> str:
    """The events of a counter per second."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, labels: str, by: str) -> str:
    """The value below which that share of the observations lies."""
    buckets = rate(f"{histogram}_bucket", labels, f"{by}, le" if by else "le")
    return f"histogram_quantile({share}, {buckets})"


def short_method(expression: str) -> str:
    """The same with the method's own name in the label `method`."""
    return f'label_replace({expression}, "method", "$1", "rpc_method", ".*/(.*)")'


GOOD, POOR, BAD = "green", "orange", "red"

CALLERS = Section(
    "Are callers served?",
    (
        Panel(
            "Answered",
            "SendOtp and VerifyOtp that otpd did not fail. The goal is 99.9 % over 30 days. A "
            "refusal that the contract names is an answer.",
            (
                Query(
                    f"1 - (sum(increase({CALLS}_count{{{JUDGING}, {FAILED}, {HERE}}}[$__range])) "
                    f"or vector(0)) "
                    f"/ sum(increase({CALLS}_count{{{JUDGING}, {HERE}}}[$__range]))"
                ),
            ),
            unit="percentunit",
            kind="number",
            width=6,
            steps=((None, BAD), (0.99, POOR), (0.999, GOOD)),
        ),
        Panel(
            "Within 250 ms",
            "SendOtp and VerifyOtp that took no longer. The goal is 99 % over 30 days.",
            (
                Query(
                    f'sum(increase({CALLS}_bucket{{{JUDGING}, le="0.25", {HERE}}}[$__range])) '
                    f"/ sum(increase({CALLS}_count{{{JUDGING}, {HERE}}}[$__range]))"
                ),
            ),
            unit="percentunit",
            kind="number",
            width=6,
            steps=((None, BAD), (0.97, POOR), (0.99, GOOD)),
        ),
        Panel(
            "Alerts firing",
            "Of the rules in deploy/observe/prometheus/rules; docs/runbook.md has each.",
            (
                Query(
                    'count(ALERTS{alertname=~"Otpd.*", alertstate="firing"}) or vector(0)',
                ),
            ),
            kind="number",
            width=6,
            steps=((None, GOOD), (1, BAD)),
        ),
        Panel(
            "Replicas up",
            "Those that Prometheus reaches.",
            (Query(f'sum(up{{job="otpd", {HERE}}})'),),
            kind="number",
            width=6,
            steps=((None, BAD), (1, POOR), (2, GOOD)),
        ),
        Panel(
            "Alerts",
            "When each fired.",
            (
                Query(
                    'max by (alertname) (ALERTS{alertname=~"Otpd.*", alertstate="firing"})',
                    "{{alertname}}",
                ),
            ),
            kind="states",
            states=(("1", "fires", BAD),),
            width=12,
        ),
        Panel(
            "Calls",
            "Calls per second, by method.",
            (
                Query(
                    short_method(
                        rate(
                            f"{CALLS}_count", f'rpc_method=~".*OtpService/.*", {HERE}', "rpc_method"
                        )
                    ),
                    "{{method}}",
                ),
            ),
            unit="reqps",
            width=12,
        ),
        Panel(
            "Calls that otpd failed",
            "The share that ended UNAVAILABLE, INTERNAL, DEADLINE_EXCEEDED or UNKNOWN.",
            (
                Query(
                    short_method(
                        "("
                        + rate(f"{CALLS}_count", f"{JUDGING}, {FAILED}, {HERE}", "rpc_method")
                        + " or 0 * "
                        + rate(f"{CALLS}_count", f"{JUDGING}, {HERE}", "rpc_method")
                        + ") / "
                        + rate(f"{CALLS}_count", f"{JUDGING}, {HERE}", "rpc_method")
                    ),
                    "{{method}}",
                ),
            ),
            unit="percentunit",
            width=12,
            steps=((None, GOOD), (0.001, BAD)),
        ),
        Panel(
            "How long calls take",
            "The half that is quicker, and the slowest in a hundred. The goal is 250 ms.",
            tuple(
                Query(
                    short_method(quantile(share, CALLS, f"{JUDGING}, {HERE}", "rpc_method")),
                    f"{{{{method}}}} {name}",
                )
                for share, name in ((0.5, "median"), (0.99, "99 %"))
            ),
            unit="s",
            width=12,
        ),
        Panel(
            "Answers to SendOtp",
            "Per second. What is in capitals was refused, for that reason of the contract.",
            (Query(rate("otpd_requests_total", f'rpc="SendOtp", {HERE}', "outcome"), "{{outcome}}"),),
            unit="reqps",
            kind="areas",
        ),
        Panel(
            "Answers to VerifyOtp",
            "Per second. What is in capitals was refused, for that reason of the contract.",
            (
                Query(
                    rate("otpd_requests_total", f'rpc="VerifyOtp", {HERE}', "outcome"), "{{outcome}}"
                ),
            ),
            unit="reqps",
            kind="areas",
        ),
        Panel(
            "Calls by caller and purpose",
            "Per second. Purposes that are not configured are `other`.",
            (Query(rate("otpd_requests_total", HERE, "caller, purpose"), "{{caller}} {{purpose}}"),),
            unit="reqps",
            width=4,
        ),
        Panel(
            "Calls running",
            "By replica.",
            (Query(f"otpd_requests_in_flight{{{HERE}}}", "{{instance}}"),),
            width=4,
        ),
    ),
)

DELIVERY = Section(
    "Do codes arrive?",
    (
        Panel(
            "Messages taken by providers",
            "Per second.",
            (
                Query(
                    rate("otpd_codes_sent_total", ROUTE, "provider, channel"),
                    "{{provider}} {{channel}}",
                ),
            ),
            unit="cps",
            kind="areas",
        ),
        Panel(
            "Codes that come back",
            "The share of messages whose code was typed, over $window. It collapses where a "
            "gateway swallows messages, and where somebody has them sent for their price.",
            (
                Query(
                    f"sum by (provider, channel, country) "
                    f"(increase(otpd_codes_verified_total{{{ROUTE}}}[$window])) "
                    f"/ (sum by (provider, channel, country) "
                    f"(increase(otpd_codes_sent_total{{{ROUTE}}}[$window])) > 0)",
                    "{{provider}} {{country}}",
                ),
            ),
            unit="percentunit",
            most=1,
        ),
        Panel(
            "Attempts by result",
            "Per second, of all providers.",
            (
                Query(
                    rate("otpd_delivery_attempts_total", ROUTE, "provider, result") + " > 0",
                    "{{provider}} {{result}}",
                ),
            ),
            unit="cps",
        ),
        Panel(
            "How long a provider takes",
            "One attempt: the half that is quicker, and the slowest in twenty.",
            tuple(
                Query(
                    quantile(share, "otpd_delivery_attempt_duration_seconds", PROVIDER, "provider"),
                    f"{{{{provider}}}} {name}",
                )
                for share, name in ((0.5, "median"), (0.95, "95 %"))
            ),
            unit="s",
            width=6,
        ),
        Panel(
            "From the answer to the provider",
            "From the commit of a message until a provider took it.",
            tuple(
                Query(
                    quantile(
                        share,
                        "otpd_delivery_latency_seconds",
                        f'{HERE}, channel=~"$channel"',
                        "channel",
                    ),
                    f"{{{{channel}}}} {name}",
                )
                for share, name in ((0.5, "median"), (0.95, "95 %"))
            ),
            unit="s",
            width=6,
        ),
        Panel(
            "How messages end",
            "Per second. `failed`: no provider will ever take it. `dropped`: its code died first.",
            (Query(rate("otpd_messages_completed_total", HERE, "result"), "{{result}}"),),
            unit="cps",
            width=6,
        ),
        Panel(
            "Breakers",
            "Open: the provider is left alone, after several failures in a row. The worst of all "
            "replicas.",
            (
                Query(
                    f"max by (provider) (otpd_provider_breaker_state{{{PROVIDER}}})",
                    "{{provider}}",
                ),
            ),
            kind="states",
            states=(("0", "closed", GOOD), ("1", "half open", POOR), ("2", "open", BAD)),
            width=6,
        ),
        Panel(
            "Messages waiting",
            "In the store, of all replicas; and in the hands of each.",
            (
                Query("max(otpd_messages_queued)", "in the store"),
                Query(f"otpd_messages_leased{{{HERE}}}", "in hand {{instance}}"),
            ),
            width=12,
        ),
        Panel(
            "The oldest waiting message",
            "Since its code was made. A code lives for five minutes.",
            (Query("max(otpd_outbox_oldest_message_age_seconds)", "oldest"),),
            unit="s",
            width=12,
            steps=((None, GOOD), (60, BAD)),
        ),
    ),
)

ATTACKS = Section(
    "Is somebody attacking?",
    (
        Panel(
            "Codes judged",
            "Per second. The others were not judged, and cost no attempt.",
            (
                Query(
                    rate(
                        "otpd_requests_total",
                        f'rpc="VerifyOtp", outcome=~"verified|wrong_code", {HERE}',
                        "outcome",
                    ),
                    "{{outcome}}",
                ),
            ),
            unit="reqps",
            kind="areas",
            width=6,
        ),
        Panel(
            "Share of wrong codes",
            "Of those that were judged. A tenth is usual, half of them is somebody who guesses.",
            (
                Query(
                    rate("otpd_requests_total", f'outcome="wrong_code", {HERE}', "job")
                    + " / "
                    + rate("otpd_requests_total", f'outcome=~"wrong_code|verified", {HERE}', "job"),
                    "wrong",
                ),
            ),
            unit="percentunit",
            width=6,
            steps=((None, GOOD), (0.5, BAD)),
            most=1,
        ),
        Panel(
            "Numbers shut",
            "Within $window. `delayed`: for a while, after five wrong answers in a row. `locked`: "
            "until the caller resets it.",
            (
                Query(
                    f"sum by (kind, caller) (increase(otpd_lockouts_total{{{HERE}}}[$window]))",
                    "{{kind}} {{caller}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "Limits hit",
            "Within $window, by limit and caller.",
            (
                Query(
                    f"sum by (limit, caller) (increase(otpd_rate_limited_total{{{HERE}}}[$window]))",
                    "{{limit}} {{caller}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "Messages by country",
            "Per second; the ten largest.",
            (Query(f"topk(10, {rate('otpd_codes_sent_total', ROUTE, 'country')})", "{{country}}"),),
            unit="cps",
        ),
        Panel(
            "Calls of nobody",
            "Within $window, by why their caller is not known.",
            (
                Query(
                    f"sum by (reason) (increase(otpd_auth_failures_total{{{HERE}}}[$window]))",
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            "Failures forgotten",
            "Within $window, by the caller that asked for it.",
            (
                Query(
                    f"sum by (caller) (increase(otpd_lockout_resets_total{{{HERE}}}[$window]))",
                    "{{caller}}",
                ),
            ),
        ),
    ),
)

STORE = Section(
    "The store",
    (
        Panel(
            "The store answers",
            "By replica.",
            (Query(f"otpd_store_up{{{HERE}}}", "{{instance}}"),),
            kind="states",
            states=(("0", "no", BAD), ("1", "yes", GOOD)),
        ),
        Panel(
            "How long statements take",
            "The slowest in a hundred. Requests wait for `load` and `write`.",
            (
                Query(
                    quantile(0.99, "otpd_store_statement_duration_seconds", HERE, "statement"),
                    "{{statement}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Statements",
            "Per second.",
            (
                Query(
                    rate("otpd_store_statement_duration_seconds_count", HERE, "statement"),
                    "{{statement}}",
                ),
            ),
            unit="ops",
        ),
        Panel(
            "Statements that failed",
            "Per second, by kind.",
            (Query(rate("otpd_store_errors_total", HERE, "kind"), "{{kind}}"),),
            unit="ops",
            width=6,
        ),
        Panel(
            "Connections",
            "Of all replicas shown.",
            (
                Query(
                    f"sum by (state) (otpd_store_connections{{{HERE}}})",
                    "{{state}}",
                ),
            ),
            kind="areas",
            width=6,
        ),
        Panel(
            "Requests in a batch",
            "One round trip to the store carries so many; more when the load is higher.",
            (
                Query(
                    f"{rate('otpd_batch_size_sum', HERE, 'instance')} "
                    f"/ {rate('otpd_batch_size_count', HERE, 'instance')}",
                    "{{instance}} mean",
                ),
                Query(quantile(0.99, "otpd_batch_size", HERE, ""), "99 %"),
            ),
            width=6,
        ),
        Panel(
            "Wait for a batch",
            "The half that is quicker, and the slowest in a hundred.",
            tuple(
                Query(quantile(share, "otpd_queue_wait_seconds", HERE, ""), name)
                for share, name in ((0.5, "median"), (0.99, "99 %"))
            ),
            unit="s",
            width=6,
        ),
        Panel(
            "Requests that wait for a batch",
            "By replica. More than `store.queue_size` are refused as OVERLOADED.",
            (Query(f"otpd_queue_depth{{{HERE}}}", "{{instance}}"),),
            width=6,
        ),
        Panel(
            "Decided again",
            "Per second: another replica was faster.",
            (Query(rate("otpd_batch_conflicts_total", HERE, "instance"), "{{instance}}"),),
            unit="ops",
            width=6,
        ),
        Panel(
            "Records",
            "In the store; dead ones wait for the sweeper.",
            (Query("max by (state) (otpd_records)", "{{state}}"),),
            kind="areas",
            width=6,
        ),
        Panel(
            "Swept",
            "Per second, of all replicas.",
            (Query(rate("otpd_rows_purged_total", HERE, "table"), "{{table}}"),),
            unit="ops",
            width=6,
        ),
    ),
)

PROCESS = Section(
    "The processes",
    (
        Panel(
            "Processor",
            "Cores in use.",
            (
                Query(
                    f'rate(process_cpu_seconds_total{{job="otpd", {HERE}}}[$__rate_interval])',
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Memory",
            "Resident.",
            (Query(f'process_resident_memory_bytes{{job="otpd", {HERE}}}', "{{instance}}"),),
            unit="bytes",
        ),
        Panel(
            "Open files",
            "The share of those that the process may have; connections count.",
            (
                Query(
                    f'process_open_fds{{job="otpd", {HERE}}} '
                    f'/ process_max_fds{{job="otpd", {HERE}}}',
                    "{{instance}}",
                ),
            ),
            unit="percentunit",
            steps=((None, GOOD), (0.8, BAD)),
        ),
        Panel(
            "Up for",
            "Since the process started.",
            (Query(f'time() - process_start_time_seconds{{job="otpd", {HERE}}}', "{{instance}}"),),
            unit="s",
        ),
        Panel(
            "Versions",
            "Replicas of each.",
            (Query(f"count by (version) (otpd_build_info{{{HERE}}})", "{{version}}"),),
        ),
        Panel(
            "Log lines left out",
            "Per second: warnings that repeat themselves.",
            (Query(rate("otpd_log_lines_suppressed_total", HERE, "instance"), "{{instance}}"),),
            unit="ops",
        ),
        Panel(
            "Log lines dropped",
            "Per second: the log did not take them in time.",
            (
                Query(
                    rate("otpd_log_lines_dropped_total", HERE, "instance, sink"),
                    "{{instance}} {{sink}}",
                ),
            ),
            unit="ops",
        ),
    ),
)

SECTIONS = (CALLERS, DELIVERY, ATTACKS, STORE, PROCESS)
