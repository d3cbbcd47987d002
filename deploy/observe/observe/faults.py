"""Three faults on a running setup: observations, alerts that fired, and the recovery."""

from __future__ import annotations

import contextlib
import json
import random
import re
import threading
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from otpd import OtpError, ResendTooSoon

from .load import DELIVERY_TIMEOUT_SECONDS, Load
from .panels import SECTIONS
from .processes import Failed, wait_until
from .report import page
from .testbed import Testbed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otpd import Client

CALLS = 'sum(rate(rpc_server_call_duration_seconds_count{rpc_method=~".*OtpService/.*"}[5s]))'
FAILED_CALLS = (
    'sum(rate(rpc_server_call_duration_seconds_count{rpc_response_status_code="UNAVAILABLE"}[5s]))'
)
# Values before, during and after the fault.
MEASURES = {
    "calls per second": CALLS,
    "share of failed calls": f"({FAILED_CALLS} or vector(0)) / {CALLS}",
    "codes verified per second": 'sum(rate(otpd_requests_total{outcome="verified"}[5s]))',
    "wrong codes per second": 'sum(rate(otpd_requests_total{outcome="wrong_code"}[5s]))',
    "messages accepted by north per second": (
        'sum(rate(otpd_codes_sent_total{provider="north"}[5s])) or vector(0)'
    ),
    "messages accepted by south per second": (
        'sum(rate(otpd_codes_sent_total{provider="south"}[5s])) or vector(0)'
    ),
    "messages queued": "max(otpd_messages_queued)",
    "age of the oldest queued message, seconds": "max(otpd_outbox_oldest_message_age_seconds)",
    "replicas that reach the store": "sum(otpd_store_up)",
}
# Log lines about causes and their ends, not about single requests.
RELEVANT = re.compile(
    r" (WARN|ERROR) |Store available|Circuit breaker closed|VERIFY_LOCKED|VERIFY_DELAYED"
    r"|STORE_UNAVAILABLE"
)
# Parts that differ between lines of one kind.
VARIABLE = re.compile(
    r" (message_id|challenge_id|recipient|attempts?|provider_id|trace_id|left_out)=\S+"
    r"|\d+(\.\d+)? s\b"
)
# Values of the dashboard's variables.
VARIABLES = {"__rate_interval": "10s", "__range": "60s", "window": "40s"}


@dataclass
class Alert:
    """Times of an alert in seconds since the start of the fault."""

    name: str
    severity: str
    labels: str
    pending: float | None
    fired: float
    ended: float | None


@dataclass
class LogLine:
    """First line of a kind, with its time and the number of such lines."""

    after: float
    line: str
    count: int = 1


@dataclass
class Trial:
    """A fault with its observations."""

    title: str
    description: str
    start: float
    steps: list[tuple[float, str]] = field(default_factory=list)
    end: float = 0.0
    recovered: float = 0.0
    measures: dict[str, list[float | None]] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    log: list[LogLine] = field(default_factory=list)
    commands: list[tuple[str, list[str]]] = field(default_factory=list)

    def note(self, step: str) -> None:
        """Record a step at the current time."""
        self.steps.append((time.time() - self.start, step))
        print(f"  {self.steps[-1][0]:5.1f} s  {step}")

    def command(self, testbed: Testbed, *arguments: str) -> None:
        """Run one of otpd's own commands, and record its output."""
        done = testbed.replicas[0].command(*arguments)
        output = (done.stdout + done.stderr).strip().splitlines()
        output.append(f"exit code {done.returncode}")
        self.commands.append(("otpd " + " ".join(arguments), output))


@dataclass(frozen=True)
class Fault:
    """A fault, with the steps that cause and repair it."""

    title: str
    description: str
    steps: Callable[[Testbed, Trial], None]


def run(folder: Path) -> int:
    """Try all faults, write the observations, and return the exit code."""
    with Testbed() as testbed:
        with Load(testbed):
            time.sleep(15)
            trials = [try_fault(testbed, fault) for fault in FAULTS]
        silent = queries_without_data(testbed)
    raw = folder / "observability/faults-tried.json"
    raw.parent.mkdir(parents=True, exist_ok=True)
    kept = {"faults": [asdict(trial) for trial in trials]}
    raw.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    (folder / "faults-tried.md").write_text(page(trials))
    print(f"Wrote {folder / 'faults-tried.md'} and {raw}")
    for query in silent:
        print(f"The dashboard has no data for {query}")
    return 1 if silent else 0


def try_fault(testbed: Testbed, fault: Fault) -> Trial:
    """Cause a fault, repair it, and collect the observations."""
    print(fault.title)
    time.sleep(10)
    earlier = len(testbed.log_lines())
    trial = Trial(fault.title, fault.description, time.time())
    fault.steps(testbed, trial)
    trial.end = time.time()
    page_firing = 'ALERTS{severity="page", alertstate="firing"}'
    wait_until(lambda: testbed.prometheus.value(page_firing) is None, "no page fires", 240)
    trial.recovered = time.time()
    # Until the end of each alert was scraped.
    time.sleep(3)
    middle = trial.start + (trial.end - trial.start) * 0.75
    for name, expression in MEASURES.items():
        times = (trial.start, middle, trial.recovered)
        trial.measures[name] = [testbed.prometheus.value(expression, at) for at in times]
    trial.alerts = alerts(testbed, trial)
    trial.log = log_kinds(testbed.log_lines()[earlier:], trial.start)
    return trial


def alerts(testbed: Testbed, trial: Trial) -> list[Alert]:
    """Return the alerts that fired during the trial."""
    times: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    now = time.time()
    found = testbed.prometheus.series('ALERTS{alertname=~"Otpd.*"}', trial.start, now)
    hidden = ("__name__", "alertname", "alertstate", "severity", "job")
    for labels, at in found:
        shown = (f"{name}={value}" for name, value in sorted(labels.items()) if name not in hidden)
        key = (labels["alertname"], labels["severity"], ", ".join(shown))
        times.setdefault(key, {})[labels["alertstate"]] = [one - trial.start for one in at]
    seen = [
        Alert(
            *key,
            pending=states["pending"][0] if "pending" in states else None,
            fired=states["firing"][0],
            ended=None if (last := states["firing"][-1]) > now - trial.start - 2 else last + 1,
        )
        for key, states in times.items()
        # An alert that fires from the start on belongs to the previous fault.
        if states.get("firing", [0.0])[0] > 0.5
    ]
    return sorted(seen, key=lambda alert: alert.fired)


def log_kinds(lines: list[str], start: float) -> list[LogLine]:
    """Return the relevant lines, one of each kind."""
    kinds: dict[str, LogLine] = {}
    for line in filter(RELEVANT.search, lines):
        replica, _, rest = line.partition(" | ")
        stamp, _, text = rest.partition(" ")
        kind = VARIABLE.sub("", text)
        if kind in kinds:
            kinds[kind].count += 1
        else:
            after = datetime.fromisoformat(stamp).timestamp() - start
            kinds[kind] = LogLine(after, f"{replica} | {stamp} {text}")
    return sorted(kinds.values(), key=lambda one: one.after)


def queries_without_data(testbed: Testbed) -> list[str]:
    """Return the queries of the dashboard that have no data at the end of the load."""
    silent = []
    for panel in (panel for section in SECTIONS for panel in section.panels):
        for query in panel.queries:
            filled = re.sub(r"\$(\w+)", lambda found: VARIABLES.get(found[1], ".*"), query)
            if "ALERTS" not in query and testbed.prometheus.value(filled) is None:
                silent.append(f"{panel.title}: {filled}")
    return silent


def wait_for_alert(testbed: Testbed, name: str) -> None:
    """Wait until an alert fires."""
    firing = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
    wait_until(lambda: testbed.prometheus.value(firing) is not None, f"{name} fires", 120)


def database_away(testbed: Testbed, trial: Trial) -> None:
    """Stop PostgreSQL, and start it again."""
    recipient = "+79160000003"
    trial.note("PostgreSQL is stopped")
    testbed.postgres.stop()
    wait_for_alert(testbed, "OtpdStoreUnavailable")
    trial.command(testbed, "health")
    trial.command(testbed, "health", "--service", "liveness")
    # The clients of the load watch health, and do not call unhealthy replicas.
    trial.note("a client that does not watch health calls")
    trial.command(testbed, "send", recipient, "--purpose", "login")
    for _ in range(20):
        for replica in testbed.replicas:
            replica.command("send", recipient, "--purpose", "login")
        time.sleep(0.5)
    wait_for_alert(testbed, "OtpdErrorBudgetBurnsFast")
    trial.note("PostgreSQL is started")
    testbed.postgres.start()
    for replica in testbed.replicas:
        replica.wait_until_serving()
    trial.note("both replicas are SERVING")
    trial.command(testbed, "health")


def gateways_down(testbed: Testbed, trial: Trial) -> None:
    """Break one gateway, then both."""
    client, queued = testbed.client("crm"), "+79160000002"
    trial.note("`north` answers 503")
    testbed.gateway.break_down("north")
    wait_for_alert(testbed, "OtpdProviderBreakerOpen")
    wait_for_alert(testbed, "OtpdProviderFailing")
    challenge_id = client.send("+79160000001", purpose="login").challenge_id
    provider = delivered(testbed, challenge_id)[0]
    trial.note(f"a code for a Russian number is delivered by `{provider}`")
    trial.note("`south` answers 503 too")
    testbed.gateway.break_down("south")
    challenge_id = client.send(queued, purpose="login").challenge_id
    wait_for_alert(testbed, "OtpdMessagesLate")
    trial.command(testbed, "status", queued, "--purpose", "login")
    trial.note("both accept messages again")
    testbed.gateway.repair()
    delivered(testbed, challenge_id)
    trial.note("the queued code is delivered")
    trial.command(testbed, "status", queued, "--purpose", "login")


def recipients_under_attack(testbed: Testbed, trial: Trial) -> None:
    """Guess codes until recipients are locked out, and reset the lockouts."""
    client = testbed.client("crm", retries=False)
    recipients = [f"+7925{random.randrange(10**6, 10**7)}" for _ in range(6)]
    trial.note(f"wrong codes for {len(recipients)} recipients")
    threads = [threading.Thread(target=guess, args=(client, one)) for one in recipients]
    for thread in threads:
        thread.start()
    wait_for_alert(testbed, "OtpdRecipientsUnderAttack")
    wait_for_alert(testbed, "OtpdRecipientLocked")
    for thread in threads:
        thread.join()
    trial.note("all recipients are locked out, and the attack ends")
    victim = recipients[0]
    trial.command(testbed, "status", victim, "--purpose", "login")
    trial.command(testbed, "send", victim, "--purpose", "login")
    trial.command(testbed, "cancel", victim, "--purpose", "login", "--reset-failures")
    for recipient in recipients[1:]:
        client.cancel(recipient, purpose="login", reset_failures=True)
    trial.note("the help desk resets the failed attempts")
    # resend_after
    time.sleep(2)
    sent = client.send(victim, purpose="login")
    _, code = delivered(testbed, sent.challenge_id)
    if not client.verify(victim, code, purpose="login").verified:
        raise Failed("the owner cannot log in")
    trial.note("the owner of the first one requests a code, and logs in")


def guess(client: Client, recipient: str) -> None:
    """Submit wrong codes from many addresses until the recipient is locked out."""
    reason = None
    while reason != "VERIFY_LOCKED":
        client_ip = f"203.0.113.{random.randrange(8, 250)}"
        try:
            with contextlib.suppress(ResendTooSoon):
                client.send(recipient, purpose="login", client_ip=client_ip)
            # Right once in a million guesses.
            client.verify(recipient, "000000", purpose="login", client_ip=client_ip)
        except OtpError as error:
            reason = error.reason
        time.sleep(0.2)


def delivered(testbed: Testbed, challenge_id: str) -> tuple[str, str]:
    """Return the provider and the code of a message, once it is delivered."""
    message = testbed.gateway.wait_for(challenge_id, 4 * DELIVERY_TIMEOUT_SECONDS)
    if message is None:
        raise Failed("the message was not delivered")
    return message.provider, message.code


FAULTS = (
    Fault(
        "Database away",
        "PostgreSQL is stopped (`pg_ctl stop --mode=fast`), and started again on the same port.",
        database_away,
    ),
    Fault(
        "Gateways down",
        "The gateway `north`, first in the route of most numbers, answers 503, then `south` too. "
        "At the end both accept messages again.",
        gateways_down,
    ),
    Fault(
        "Recipients under attack",
        "An attacker submits wrong codes for six recipients, from many addresses, until they are "
        "locked out. Then the help desk resets the failed attempts.",
        recipients_under_attack,
    ),
)
