"""Proof that the database holds the work that a load generator reports."""

from __future__ import annotations

from pathlib import Path

from .postgres import Postgres
from .processes import ProcessFailed
from .tools import COMPARE

QUERY = "sql/work_done.sql"


def work_done(postgres: Postgres, database: str, directory: Path = COMPARE) -> tuple[int, ...]:
    """Returns the number of spent records and of sent messages. `directory` holds the query
    for the schema of the database."""
    query = directory / QUERY
    if not query.exists():
        raise ProcessFailed(f"{query} is missing, so the work of that revision cannot be checked; "
                            "name a later revision")
    return tuple(int(count) for count in postgres.file(query, database).split("|"))
