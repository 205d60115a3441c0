"""A fleet whose commits are powers of two, one of each person: a sum tells exactly whose it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any

from sqlalchemy.engine import Engine

from developer_telemetry.connections.registry import create
from developer_telemetry.constants import OVERWRITE, TOOL_TABLE
from developer_telemetry.database.bulk_insert import insert_typed
from developer_telemetry.pipeline.figure_refresh import refresh_figures
from developer_telemetry.storage.devlake_schema import make_account_id

TODAY = date(2026, 11, 25)
MONDAY = date(2026, 11, 16)
BEFORE = MONDAY - timedelta(weeks=1)

Sums = dict[tuple[str, str], frozenset[int]]


class Fleet:
    """A database with two connections, and what is stored there."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        made = [create(engine, "secret", name, "token", OVERWRITE) for name in ("one", "two")]
        self.ids = dict(enumerate(made, 1))

    def add(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        columns = list(rows[0])
        values = [[row[column] for column in columns] for row in rows]
        with self.engine.begin() as connection:
            insert_typed(connection, table, columns, values, "")

    def report(
        self,
        people: Iterable[int],
        on: date = MONDAY,
        connection_id: int = 1,
        account: str = "",
        tools: Sequence[str] = (),
        commands: Sequence[str] = (),
    ) -> None:
        """Add a day of each, with the person's commits, and with as many runs of commands."""
        self.add(
            TOOL_TABLE,
            [
                {
                    "connection_id": self.ids[connection_id],
                    "developer_id": f"{account}{number}",
                    "date": str(on),
                    "active_hours": 1,
                    "commits": 2**number,
                    "tools_used": json.dumps(list(tools)),
                    "command_counts": json.dumps(dict.fromkeys(commands, 2**number)),
                    "arrived_us": 1,
                }
                for number in people
            ],
        )

    def link(self, people: Iterable[int], connection_id: int = 1, account: str = "") -> None:
        """Link the accounts of developers to users."""
        self.add(
            "user_accounts",
            [
                {
                    "account_id": make_account_id(self.ids[connection_id], f"{account}{number}"),
                    "user_id": f"u{number}",
                }
                for number in people
            ],
        )

    def team(self, name: str, people: Iterable[int]) -> None:
        self.add("team_users", [{"team_id": name, "user_id": f"u{number}"} for number in people])

    def refresh(self) -> None:
        for _ in refresh_figures(self.engine, TODAY):
            pass

    def read(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def sums(self, week: date = MONDAY, figure: str = "commits a week", item: str = "") -> Sums:
        """Return whose commits, or runs of a command, are in each group's sum of a week."""
        rows = self.read(
            "SELECT grouped_by, group_id, total, people FROM telemetry_weeks"
            f" WHERE figure = '{figure}' AND item = '{item}' AND week = '{week}'"
        )
        sums = {(row[0], row[1]): people_of(int(row[2])) for row in rows}
        assert all(len(people_of(int(row[2]))) == row[3] for row in rows)
        return sums


def people_of(total: int) -> frozenset[int]:
    return frozenset(number for number in range(total.bit_length()) if total >> number & 1)
