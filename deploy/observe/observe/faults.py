"""Three faults on a running set-up: what was seen, which alerts fired, and that it recovered."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from otpd import Client, OtpError

from . import picture
from .__main__ import GRAFANA
from .answers import answered, panels
from .load import PATIENCE_SECONDS, Load
from .page import page
from .processes import wait_until
from .runbook import Looked, look
from .show import Event, address, guess
from .world import SMS_PROVIDERS, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .prometheus import Prometheus

# Windows and `for` of the rules are so many times as short.
SHORTER = 20
# What is measured before, while the fault lasts, and after.
MEASURES = {
    "calls per second": (
        'sum(rate(rpc_server_call_duration_seconds_count{rpc_method=~".*OtpService/.*"}[5s]))'
    ),
    "share of calls that otpd failed": (
        '(sum(rate(rpc_server_call_duration_seconds_count{rpc_response_status_code="UNAVAILABLE"}'
        "[5s])) or vector(0)) / "
        'sum(rate(rpc_server_call_duration_seconds_count{rpc_method=~".*OtpService/.*"}[5s]))'
    ),
    "codes verified per second": 'sum(rate(otpd_requests_total{outcome="verified"}[5s]))',
    "wrong codes per second": 'sum(rate(otpd_requests_total{outcome="wrong_code"}[5s]))',
    "messages taken by north per second": (
        'sum(rate(otpd_codes_sent_total{provider="north"}[5s])) or vector(0)'
    ),
    "messages taken by south per second": (
        'sum(rate(otpd_codes_sent_total{provider="south"}[5s])) or vector(0)'
    ),
    "messages waiting": "max(otpd_messages_queued)",
    "oldest waiting message, seconds": "max(otpd_outbox_oldest_message_age_seconds)",
    "replicas that the store answers": "sum(otpd_store_up)",
}
# Lines that are no one's request: causes, and their ends.
TOLD = re.compile(
    r" (WARN|ERROR) |Store available|Circuit breaker closed|VERIFY_LOCKED|VERIFY_DELAYED|STORE_UNAVAILABLE"
)
# What differs between lines that say the same.
VARIES = re.compile(
    r" (message_id|challenge_id|recipient|attempts?|provider_id|trace_id|left_out)=\S+"
    r"|\d+(\.\d+)? s\b"
)


@dataclass
class AlertSeen:
    """When an alert was pending, fired and ended, in seconds since the fault began."""

    name: str
    severity: str
    about: str
    pending: float | None
    fired: float
    ended: float | None


@dataclass
class Said:
    """A line of the log, when it came first, and how often it came like that."""

    after: float
    line: str
    count: int


@dataclass
class Tried:
    """A fault, and everything that was seen of it."""

    title: str
    begun: str
    mended: str
    start: float
    done: list[tuple[float, str]] = field(default_factory=list)
    end: float = 0.0
    recovered: float = 0.0
    measures: dict[str, list[float | None]] = field(default_factory=dict)
    alerts: list[AlertSeen] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    looked: dict[str, list[Looked]] = field(default_factory=dict)
    commands: list[Looked] = field(default_factory=list)
    picture: str = ""


class Trial:
    """A running set-up, and one fault after the other."""

    def __init__(self, world: World, prometheus: Prometheus, folder: Path) -> None:
        self.world = world
        self._prometheus = prometheus
        self._folder = folder
        self.tried: list[Tried] = []

    def run(
        self,
        title: str,
        begun: str,
        mended: str,
        steps: Callable[[Trial, Tried], None],
        shown: tuple[str, ...],
    ) -> None:
        """Break something, mend it, and gather what was seen."""
        print(title)
        time.sleep(10)
        before = len(self.world.log_lines())
        tried = Tried(title, begun, mended, time.time())
        steps(self, tried)
        tried.end = time.time()
        self._wait_for_recovery()
        tried.recovered = time.time()
        # So that the end of each alert is among what is gathered.
        time.sleep(3)
        self._gather(tried, self.world.log_lines()[before:])
        self._draw(tried, shown)
        self.tried.append(tried)

    def note(self, tried: Tried, what: str) -> None:
        """Something was done now."""
        tried.done.append((time.time() - tried.start, what))
        print(f"  {tried.done[-1][0]:5.1f} s  {what}")

    def command(self, tried: Tried, *arguments: str) -> None:
        """One of otpd's own commands, with what it said."""
        done = self.world.replicas[0].command(*arguments)
        said = (done.stdout + done.stderr).strip().splitlines()
        tried.commands.append(
            Looked("otpd " + " ".join(arguments), [*said, f"exit code {done.returncode}"])
        )

    def wait_for_alert(self, *names: str, seconds: float = 60) -> None:
        """Wait until alerts fire."""
        for name in names:
            wait_until(
                lambda name=name: bool(  # type: ignore[misc]
                    self._prometheus.instant(f'ALERTS{{alertname="{name}", alertstate="firing"}}')
                ),
                f"{name} fires",
                seconds,
            )

    def _wait_for_recovery(self) -> None:
        """No page any more, and nothing waits."""
        wait_until(
            lambda: not self._prometheus.instant('ALERTS{severity="page", alertstate="firing"}'),
            "no page fires any more",
            240,
        )

    def _gather(self, tried: Tried, log: list[str]) -> None:
        middle = tried.start + (tried.end - tried.start) * 0.75
        for name, expression in MEASURES.items():
            values = []
            for at in (tried.start, middle, tried.recovered):
                found = self._prometheus.instant(expression, at)
                values.append(float(found[0]["value"][1]) if found else None)
            tried.measures[name] = values
        tried.alerts = self._alerts(tried)
        tried.said = said(log, tried.start)
        since = [line for line in log if moment(line) <= tried.end]
        for alert in tried.alerts:
            if alert.name not in tried.looked:
                at = tried.start + alert.fired + 1
                tried.looked[alert.name] = look(alert.name, self._prometheus, since, SHORTER, at)

    def _alerts(self, tried: Tried) -> list[AlertSeen]:
        found: dict[tuple[str, ...], dict[str, list[float]]] = {}
        severities: dict[tuple[str, ...], str] = {}
        now = time.time()
        for labels, values in self._prometheus.over(
            'ALERTS{alertname=~"Otpd.*"}', tried.start, now
        ):
            about = tuple(
                f"{label}={value}"
                for label, value in sorted(labels.items())
                if label not in ("__name__", "alertname", "alertstate", "severity", "job")
            )
            key = (labels["alertname"], *about)
            severities[key] = labels["severity"]
            times = [at - tried.start for at, _ in values]
            found.setdefault(key, {})[labels["alertstate"]] = times
        alerts = []
        for key, states in found.items():
            if "firing" not in states:
                continue
            last = states["firing"][-1]
            alerts.append(
                AlertSeen(
                    name=key[0],
                    severity=severities[key],
                    about=", ".join(key[1:]),
                    pending=states["pending"][0] if "pending" in states else None,
                    fired=states["firing"][0],
                    ended=None if last > now - tried.start - 2 else last + 1,
                )
            )
        # What fires from the first moment on is of the fault before.
        fresh = [alert for alert in alerts if alert.fired > 0.5]
        return sorted(fresh, key=lambda alert: alert.fired)

    def _draw(self, tried: Tried, shown: tuple[str, ...]) -> None:
        start, end = tried.start - 10, tried.recovered + 2
        found = []
        for panel in panels(GRAFANA):
            if panel["title"] not in shown:
                continue
            number = shown.index(panel["title"])
            place = {"x": 12 * (number % 2), "y": 7 * (number // 2), "w": 12, "h": 7}
            seen, _ = answered({**panel, "gridPos": place}, self._prometheus, start, end)
            found.append(seen)
        name = tried.title.lower().replace(" ", "-")
        file = self._folder / f"observability/{name}.svg"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.draw(
            found,
            [Event(tried.title, tried.start, tried.end)],
            start,
            end,
            file=file,
            title=tried.title,
        )
        tried.picture = f"observability/{name}.svg"


def moment(line: str) -> float:
    """When a line of the log was written, in seconds since 1970."""
    stamp = line.partition(" | ")[2].split(" ", 1)[0]
    return datetime.fromisoformat(stamp).timestamp()


def said(log: list[str], start: float) -> list[Said]:
    """What the log told, each kind of line once."""
    kinds: dict[str, Said] = {}
    for line in log:
        if not TOLD.search(line):
            continue
        _, _, rest = line.partition(" | ")
        stamp, _, words = rest.partition(" ")
        kind = VARIES.sub("", words)
        if kind in kinds:
            kinds[kind].count += 1
        else:
            kinds[kind] = Said(moment(line) - start, f"{line[:6]} | {stamp} {words}", 1)
    return sorted(kinds.values(), key=lambda one: one.after)


def run(folder: Path) -> int:
    """Try all faults, and write down what happened; the exit code."""
    with World() as world:
        prometheus = world.watched(SHORTER)
        trial = Trial(world, prometheus, folder)
        with Load(world, people=14):
            time.sleep(15)
            trial.run(
                "Database away",
                "PostgreSQL is ended (`pg_ctl stop --mode=fast`).",
                "It is started again, on the same port.",
                database_away,
                ("Calls that otpd failed", "The store answers", "Answers to VerifyOtp", "Alerts"),
            )
            trial.run(
                "Gateway down",
                "The gateway `north`, first in the route of most numbers, answers 503; "
                "then `south`, too.",
                "Both take messages again.",
                gateway_down,
                (
                    "Messages taken by providers",
                    "The oldest waiting message",
                    "Breakers",
                    "Alerts",
                ),
            )
            trial.run(
                "A number under attack",
                "Somebody types wrong codes for six numbers, from many addresses, until they "
                "are shut.",
                "He is stopped, and the help desk has the wrong answers forgotten.",
                number_under_attack,
                ("Codes judged", "Numbers shut", "Answers to VerifyOtp", "Alerts"),
            )
    raw: dict[str, Any] = {"shorter": SHORTER, "faults": [asdict(one) for one in trial.tried]}
    kept = folder / "observability/faults-tried.json"
    kept.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    (folder / "faults-tried.md").write_text(page(trial.tried, SHORTER))
    print(f"Wrote {folder / 'faults-tried.md'} and {kept}")
    return 0


def database_away(trial: Trial, tried: Tried) -> None:
    """PostgreSQL is ended, and comes back."""
    trial.note(tried, "PostgreSQL is ended")
    trial.world.postgres.stop()
    trial.wait_for_alert("OtpdStoreUnavailable")
    trial.command(tried, "health")
    trial.command(tried, "health", "--service", "liveness")
    # The clients of the load watch health, and do not even call; others do.
    trial.note(tried, "somebody calls whose client does not watch health")
    trial.command(tried, "send", "+79160000003", "--purpose", "login")
    for _ in range(20):
        for replica in trial.world.replicas:
            replica.command("send", "+79160000003", "--purpose", "login")
        time.sleep(0.5)
    trial.wait_for_alert("OtpdErrorBudgetBurnsFast")
    trial.note(tried, "PostgreSQL is started")
    trial.world.postgres.start()
    trial.world.replicas[0].wait_until_serving()
    trial.world.replicas[1].wait_until_serving()
    trial.note(tried, "both replicas serve again, by their health")
    trial.command(tried, "health")


def gateway_down(trial: Trial, tried: Tried) -> None:
    """One gateway fails, then both."""
    gateway = trial.world.gateway
    client = trial.world.client("crm")
    trial.note(tried, "`north` answers 503")
    gateway.break_down("north")
    trial.wait_for_alert("OtpdProviderBreakerOpen", "OtpdProviderFailing")
    challenge_id = client.send("+7 916 0000001", purpose="login").challenge_id
    message = gateway.wait_for(challenge_id, PATIENCE_SECONDS)
    if message is None:
        raise AssertionError("the other gateway takes it")
    trial.note(tried, f"a code for a Russian number arrives, by `{message.provider}`")
    trial.note(tried, "`south` answers 503, too")
    gateway.break_down("south")
    challenge_id = client.send("+7 916 0000002", purpose="login").challenge_id
    trial.wait_for_alert("OtpdMessagesLate", seconds=120)
    trial.command(tried, "status", "+79160000002", "--purpose", "login")
    trial.note(tried, "both take messages again")
    gateway.mend(*SMS_PROVIDERS)
    message = gateway.wait_for(challenge_id, 60)
    if message is None:
        raise AssertionError("what waited is sent")
    trial.note(tried, "the code that waited has arrived")
    trial.command(tried, "status", "+79160000002", "--purpose", "login")


def number_under_attack(trial: Trial, tried: Tried) -> None:
    """Somebody guesses until numbers are shut; their owners suffer, and are helped."""
    client = trial.world.client("crm", retries=False)
    owner = trial.world.client("crm", retries=False)
    numbers = [f"+7925{random.randrange(10**6, 10**7)}" for _ in range(6)]
    trial.note(tried, f"wrong codes for {len(numbers)} numbers")
    threads = [threading.Thread(target=guess_until_shut, args=(client, one)) for one in numbers]
    for thread in threads:
        thread.start()
    trial.wait_for_alert("OtpdRecipientsUnderAttack", "OtpdRecipientLocked")
    for thread in threads:
        thread.join()
    trial.note(tried, "all are shut, the guesser gives up")
    trial.command(tried, "status", numbers[0], "--purpose", "login")
    try:
        owner.send(numbers[0], purpose="login")
    except OtpError as error:
        trial.note(tried, f"the owner of one asks for a code, and is refused: `{error.reason}`")
    for number in numbers:
        trial.command(tried, "cancel", number, "--purpose", "login", "--reset-failures")
    del tried.commands[-len(numbers) + 1 :]
    trial.note(tried, "the help desk has their wrong answers forgotten")
    # The guesser has had a code sent a moment ago; nobody gets the next one within a second.
    time.sleep(2)
    sent = owner.send(numbers[0], purpose="login")
    message = trial.world.gateway.wait_for(sent.challenge_id, PATIENCE_SECONDS)
    if message is None or not owner.verify(numbers[0], message.code, purpose="login"):
        raise AssertionError("the owner can log in")
    trial.note(tried, "the owner asks again, gets a code, and is logged in")


def guess_until_shut(client: Client, number: str) -> None:
    """Type wrong codes until none is judged any more."""
    while guess(client, number, address()) != "VERIFY_LOCKED":
        time.sleep(0.2)
