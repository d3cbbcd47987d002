"""What scripts/soak found: figures, a plot and a page."""

# The mean of the last third may be so much above that of the middle one.
TOLERANCE = 0.10
# Dead rows gather until they are vacuumed, so their mean depends on when that was.
TOLERANCE_OF_DEAD_ROWS = 0.50

# Name, key, unit, divisor, tolerance.
SERIES = (
    ("tables", "table_bytes", "MiB", 2**20, TOLERANCE),
    ("indexes", "index_bytes", "MiB", 2**20, TOLERANCE),
    ("live rows", "live_rows", "thousand", 1e3, TOLERANCE),
    ("dead rows", "dead_rows", "thousand", 1e3, TOLERANCE_OF_DEAD_ROWS),
    ("memory of otpd", "resident_bytes", "MiB", 2**20, TOLERANCE),
    ("processor time of otpd a pair", "otpd_cpu", "µs", 1, TOLERANCE),
    ("processor time of PostgreSQL a pair", "postgres_cpu", "µs", 1, TOLERANCE),
)


def progress(samples):
    point = points(samples[-2:])[-1] if len(samples) > 1 else totals(samples[-1])
    return (f"{samples[-1]['seconds']:7.0f} s  tables {point['table_bytes'] / 2**20:.1f} MiB  "
            f"indexes {point['index_bytes'] / 2**20:.1f} MiB  "
            f"rows {point['live_rows']}  dead {point['dead_rows']}  "
            f"memory {point['resident_bytes'] / 2**20:.1f} MiB")


def totals(sample):
    tables = sample["tables"].values()
    return {
        "seconds": sample["seconds"],
        "table_bytes": sum(table["bytes"] for table in tables),
        "index_bytes": sum(sample["indexes"].values()),
        "live_rows": sum(table["live"] for table in tables),
        "dead_rows": sum(table["dead"] for table in tables),
        "resident_bytes": sample["resident_bytes"],
    }


def points(samples):
    """One for each sample after the first, with what a pair cost since the one before."""
    found = []
    for before, after in zip(samples, samples[1:]):
        point = totals(after)
        pairs = after["rows_inserted"] - before["rows_inserted"]
        for key, source in (("otpd_cpu", "otpd_cpu_seconds"),
                            ("postgres_cpu", "postgres_cpu_seconds")):
            spent = after[source] - before[source]
            point[key] = spent * 1e6 / pairs if pairs > 0 else None
        found.append(point)
    return found


def mean(found, key):
    values = [point[key] for point in found if point[key] is not None]
    return sum(values) / len(values) if values else 0.0


def report(samples, bench, settings):
    found = points(samples)
    third = max(1, len(found) // 3)
    middle, last = found[-2 * third:-third], found[-third:]
    verdicts = {}
    for name, key, _, _, tolerance in SERIES:
        before, after = mean(middle, key), mean(last, key)
        growth = after / before - 1 if before else 0.0
        verdicts[key] = {
            "name": name, "middle_third": before, "last_third": after,
            "growth": round(growth, 4), "level": growth <= tolerance,
        }
    deleted = samples[-1]["rows_deleted"]
    good = (all(verdict["level"] for verdict in verdicts.values())
            and deleted > 0 and bench["pairs_failed"] == 0 and bench["not_started"] == 0)
    return {
        "settings": settings,
        "otpd": bench["otpd"],
        "pairs": bench["pairs"],
        "pairs_failed": bench["pairs_failed"],
        "not_started": bench["not_started"],
        "failures": bench["failures"],
        "send_p99_microseconds": bench["send"]["latency_microseconds"]["p99"],
        "verify_p99_microseconds": bench["verify"]["latency_microseconds"]["p99"],
        "records_purged": deleted,
        "verdicts": verdicts,
        "good": good,
        "points": found,
        "samples": samples,
    }


def page(report):
    settings = report["settings"]
    rows = []
    for _, key, unit, divisor, _ in SERIES:
        verdict = report["verdicts"][key]
        rows.append(
            f"| {verdict['name']} | {verdict['middle_third'] / divisor:,.1f} {unit} "
            f"| {verdict['last_third'] / divisor:,.1f} {unit} | {verdict['growth']:+.1%} "
            f"| {'level' if verdict['level'] else '**grows**'} |")
    table = "\n".join(rows)
    conclusion = ("Everything is level: what goes on for hours costs what it cost in the first."
                  if report["good"] else
                  "**Not everything is as it should be**: see the rows, the pairs that failed, "
                  "and whether anything was purged.")
    return f"""# Hours of load

<!-- Written by scripts/long-run soak, with soak.json and soak.svg. -->

{settings['minutes']:g} minutes of {settings['rate']:g} pairs a second, each of a new recipient,
one in twenty with a wrong code first, and {settings['unverified_per_second']:g} codes a second
that nobody verified. The store's clock ran {settings['clock_speed']:g} times as fast, so these
were {settings['minutes'] * settings['clock_speed'] / 60:.1f} hours: codes expired, and records
that no answer depends on were purged. otpd {report['otpd']}.

![tables, indexes, rows, memory and processor time over the run](soak.svg)

| | middle third | last third | growth | |
|---|--:|--:|--:|---|
{table}

{report['pairs']:,} pairs, {report['pairs_failed']:,} failed, {report['not_started']:,} not started;
99 of 100 sends took at most {report['send_p99_microseconds'] / 1000:.1f} ms, and verifications
{report['verify_p99_microseconds'] / 1000:.1f} ms. {report['records_purged']:,} records were purged.
{conclusion}

A figure is level if its mean over the last third is at most {TOLERANCE:.0%} above that over
the middle one; dead rows, which gather until a vacuum, {TOLERANCE_OF_DEAD_ROWS:.0%}.

<!-- not run: takes half an hour -->
```sh
scripts/long-run soak {settings['minutes']:g}
```
"""


WIDTH, HEIGHT, LEFT, GAP = 760, 110, 70, 34


def plot(report):
    parts = []
    for index, (name, key, unit, divisor, _) in enumerate(SERIES):
        parts.append(panel(report["points"], index, f"{name}, {unit}", key, divisor))
    height = len(SERIES) * (HEIGHT + GAP) + GAP
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="sans-serif" font-size="12">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
            + "\n".join(parts) + "\n</svg>\n")


def panel(found, index, title, key, divisor):
    top = GAP + index * (HEIGHT + GAP)
    right, bottom = WIDTH - 20, top + HEIGHT
    values = [(point["seconds"], point[key] / divisor) for point in found
              if point[key] is not None]
    end = max(second for second, _ in values)
    most = max(value for _, value in values) * 1.1 or 1
    line = " ".join(f"{LEFT + second / end * (right - LEFT):.1f},"
                    f"{bottom - value / most * HEIGHT:.1f}" for second, value in values)
    return (f'<text x="{LEFT}" y="{top - 6}">{title}</text>\n'
            f'<path d="M{LEFT} {top}V{bottom}H{right}" fill="none" stroke="#888"/>\n'
            f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{most:,.4g}</text>\n'
            f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>\n'
            f'<text x="{right}" y="{bottom + 14}" text-anchor="end">{end / 60:.3g} min</text>\n'
            f'<polyline points="{line}" fill="none" stroke="#1f77b4" stroke-width="1.5"/>')
