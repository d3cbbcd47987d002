"""Results as a run leaves them, small enough to reckon with by hand."""


def run(rate: float, service: float = 10.0, database: float = 20.0, milliseconds: float = 4.0) -> dict:
    call = {"count": 1, "latency_microseconds": {"p50": milliseconds * 500,
                                                 "p99": milliseconds * 1000}}
    return {
        "pairs_per_second": rate,
        "cpu_microseconds_per_pair": {"service": service, "database": database, "load": 5.0},
        "send": call,
        "verify": call,
        "pair_latency_microseconds": {"mean": 1000.0, "p50": 900.0, "p99": 2000.0},
        "service_memory": {"peak_resident_bytes": 30_000_000},
        "violations": 0,
    }


def results(rounds: list[dict], **others) -> dict:
    return {
        "date": "2026-01-01",
        "machine": {"processor": "a processor", "cores": 2, "memory_bytes": 2**34,
                    "kernel": "6.1", "file_system": "ext4", "fdatasync": {"microseconds": 300.0}},
        "settings": {"rounds": len(rounds), "seconds": 10, "warm_up_seconds": 3,
                     "records": 10_000, "postgres": {"fsync": "on"}},
        "versions": {"PostgreSQL": "15.1"},
        "failed": {},
        "rounds": rounds,
        **others,
    }
