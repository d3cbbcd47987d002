"""Scatter of a system's rounds, and further rounds for those that scatter too much."""

from __future__ import annotations

from statistics import median

from .goals import GOALS

# Scatter above which a system runs in another round.
BOUND = 0.25
# Maximum number of further rounds.
MAXIMUM = 3


def rates(rounds: list[dict], name: str) -> list[float]:
    return [done[name]["pairs_per_second"] for done in rounds
            if "pairs_per_second" in done.get(name, {})]


def scatter(values: list[float], planned: int) -> float:
    """Returns the span of the `planned` values that are nearest to the median, divided by the
    median. Outliers count until further rounds have shown that they are outliers; the median
    is of all rounds."""
    middle = median(values)
    nearest = sorted(values, key=lambda value: abs(value - middle))[:planned]
    return (max(nearest) - min(nearest)) / middle


def scattered(rounds: list[dict], names: list[str], planned: int) -> dict[str, float]:
    """Returns the systems whose scatter is above the bound."""
    found = {}
    for name in names:
        values = rates(rounds, name)
        if len(values) > 1 and (span := scatter(values, planned)) > BOUND:
            found[name] = span
    return found


def with_partners(names: set[str]) -> set[str]:
    """Adds the systems that goals divide by or into these, since a ratio needs both in one
    round."""
    partners = [set(goal.needs) for goal in GOALS if names & set(goal.needs)]
    return names.union(*partners)
