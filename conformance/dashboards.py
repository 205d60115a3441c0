"""The answers of the dashboards' queries on a database, as Grafana sends them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from dashboards.__main__ import PROVISIONED, files
from tests.support.dashboard_answers import Chosen, expand
from tests.support.receivers import query

# The time range selected, in seconds, until after the report of today that `connect` prints.
START = int(datetime(2026, 7, 1, tzinfo=timezone.utc).timestamp())
END = int((datetime.now(timezone.utc) + timedelta(days=1)).timestamp())


def answers(url: str, chosen: Chosen) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each panel by the panel's file and title."""
    database = "mysql" if url.startswith("mysql") else "postgresql"
    return {
        title: query(url, expand(sql, database, START, END, chosen))
        for title, sql in _queries(database)
    }


def _queries(database: str) -> Iterator[tuple[str, str]]:
    for path, content in files():
        if path.parent == PROVISIONED / database:
            for panel in json.loads(content)["panels"]:
                for target in panel.get("targets", []):
                    yield f"{path.stem}: {panel['title']}", target["rawSql"]
