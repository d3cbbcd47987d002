"""A bare gRPC server, which shows what tonic costs where there is nothing to do."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..measurement import Bench, Load, measure
from ..processes import wait_until
from .http import free_port, listens

CONNECTIONS = 8


@dataclass(frozen=True)
class Echo:
    """Two calls count as a pair. There is no database."""

    name: str
    title: str
    in_flight: int
    variant: bool = False

    def run(self, bench: Bench) -> dict:
        address = f"127.0.0.1:{free_port()}"
        log = bench.memory / "echo.log"
        command = [bench.tools.load(), "echo-serve", "--address", address]
        process = bench.fleet.start(command, log=log)
        try:
            port = int(address.split(":")[1])
            wait_until(lambda: listens(port), what=self.title, process=process, log=log)
            return measure(bench, lambda seconds: self._load(bench, address, seconds),
                           service=[process.pid], database=[])
        finally:
            bench.fleet.stop(process)
            log.unlink(missing_ok=True)

    def _load(self, bench: Bench, address: str, seconds: float) -> Load:
        command = [bench.tools.load(), "echo-load", "--address", address,
                   "--connections", str(CONNECTIONS), "--in-flight", str(self.in_flight),
                   "--seconds", str(seconds)]
        finished = bench.fleet.run(command, timeout=bench.plan.timeout())
        told = json.loads(finished.output)
        return Load(told["pairs"], told["seconds"], finished.cpu_seconds, {"call": told["call"]})


def systems() -> list[Echo]:
    return [Echo("echo", "bare gRPC server (tonic)", 256)]
