"""Keep the table of figures up to date: what dashboards show of people, in groups alone.

Readers of the dashboards may read the table's views, which have no row about fewer people than the
smallest group, and neither days nor accounts. A view of these rows could not do this: PostgreSQL
refuses DevLake's own migrations of tables that a view reads, and each look would read all days.

Weeks are complete weeks from Monday. A week's rows are replaced if they have changed, in one
transaction; those about longer times are replaced last, with the time of the computation.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from datetime import date, timedelta

from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine

from developer_telemetry.constants import (
    DEFAULT_SMALLEST_GROUP,
    FIGURE_TABLE,
    TOMBSTONE_TABLE,
)
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import database_now_us, reading, transact
from developer_telemetry.pipeline.activity import (
    ActiveWeek,
    settle_week,
    summarize_months,
    summarize_week,
)
from developer_telemetry.pipeline.delivery import Delivery
from developer_telemetry.pipeline.figure_rows import (
    Connection,
    has_delivery,
    read_connections,
    read_days,
    read_people,
    to_date,
)
from developer_telemetry.pipeline.figures import DAY, WEEK, Figure, monday_of
from developer_telemetry.pipeline.visible_groups import EVERYBODY, Groups, Key

WEEKS = 53
# The row of the last computation: its number is the smallest group's size, its item the id of the
# newest tombstone.
COMPUTED = "computed"
# The row of each week with the hash of its rows.
DIGEST = "digest"

_OF_WEEKS = f"grain IN ('{DAY}', '{WEEK}')"


def refresh_figures(engine: Engine, today: date) -> Generator[int, None, None]:
    """Compute all figures of complete weeks, and write those that have changed.

    Without DevLake's tables there is nothing about teams, projects and delivery. Yields the number
    of figures after each week, so that the caller can pause or end.
    """
    end = monday_of(today)
    weeks = [end - timedelta(weeks=number) for number in range(WEEKS, 0, -1)]
    with reading(engine).connect() as connection:
        people = read_people(connection)
        smallest = _find_smallest(people.connections)
        clock_us = database_now_us(connection)
        delivered = has_delivery(connection)
        delivery = Delivery(connection, people, weeks, smallest) if delivered else None
        digests = _read_digests(connection)
        erasure = _read_newest_erasure(connection)
    months = _Months(weeks[0])
    count = 0
    for week in weeks:
        with reading(engine).connect() as connection:
            days = read_days(connection, people, week, week + timedelta(days=6))
        active = settle_week(people, days, week, smallest)
        figures = [*summarize_week(active)]
        months.add(active)
        if delivery:
            figures += delivery.add_week(active)
        digest = _digest(figures)
        if digest != digests.get(week):
            figures.append(_make_marker(DIGEST, WEEK, week, item=digest))
            _replace_week(engine, week, figures, clock_us)
        count += len(figures)
        yield count
    longer = [*months.summarize(smallest), *(delivery.finish(today) if delivery else ())]
    longer.append(_make_marker(COMPUTED, "", today, number=smallest, item=erasure))
    _replace_longer(engine, weeks[0], longer, clock_us)
    yield count + len(longer)


def is_due(connection: SqlConnection, max_age_us: int) -> bool:
    """Return true if the figures are older, or from before an erasure or another smallest group."""
    computed = connection.exec_driver_sql(
        f"SELECT computed_us, number, item FROM {FIGURE_TABLE} WHERE figure = '{COMPUTED}'"
    ).first()
    if computed is None:
        return True
    smallest = _find_smallest(read_connections(connection))
    inputs = (smallest, _read_newest_erasure(connection))
    age_us = database_now_us(connection) - int(computed[0])
    return age_us >= max_age_us or inputs != (int(computed[1]), computed[2])


def _read_newest_erasure(connection: SqlConnection) -> str:
    newest = connection.exec_driver_sql(f"SELECT MAX(id) FROM {TOMBSTONE_TABLE}").scalar()
    return str(newest or "")


def _find_smallest(connections: Sequence[Connection]) -> int:
    return max((one.smallest_group for one in connections), default=DEFAULT_SMALLEST_GROUP)


class _Months:
    """The people of each month that lies in the weeks as a whole, or is the last."""

    def __init__(self, first: date) -> None:
        self._first = first
        self._people: dict[date, set[str]] = defaultdict(set)
        self._keys: dict[str, set[Key]] = defaultdict(set)

    def add(self, week: ActiveWeek) -> None:
        """Add the people of a week."""
        for person, on in week.days:
            if on.replace(day=1) >= self._first:
                self._people[on.replace(day=1)].add(person)
                self._keys[person].update(week.groups.of(person))

    def summarize(self, smallest: int) -> Iterator[Figure]:
        """Yield how many people were active in each month."""
        yield from summarize_months(self._people, Groups(self._keys), smallest)


def _make_marker(figure: str, grain: str, start: date, number: int = 0, item: str = "") -> Figure:
    return Figure(figure, grain, start, EVERYBODY, "", people=0, number=number, item=item)


def _digest(figures: Sequence[Figure]) -> str:
    rows = hashlib.blake2b(digest_size=16)
    for row in sorted(map(repr, figures)):
        rows.update(row.encode())
    return rows.hexdigest()


def _read_digests(connection: SqlConnection) -> dict[date, str]:
    rows = connection.exec_driver_sql(
        f"SELECT start, item FROM {FIGURE_TABLE} WHERE figure = '{DIGEST}'"
    )
    return {to_date(start): item for start, item in rows}


def _replace_week(engine: Engine, week: date, figures: Sequence[Figure], clock_us: int) -> None:
    def replace(connection: SqlConnection) -> None:
        param = dialect_of(connection).placeholder
        connection.exec_driver_sql(
            f"DELETE FROM {FIGURE_TABLE} WHERE start BETWEEN {param} AND {param} AND {_OF_WEEKS}",
            (str(week), str(week + timedelta(days=6))),
        )
        _insert(connection, figures, clock_us)

    transact(engine, replace)


def _replace_longer(
    engine: Engine, first_week: date, figures: Sequence[Figure], clock_us: int
) -> None:
    def replace(connection: SqlConnection) -> None:
        param = dialect_of(connection).placeholder
        connection.exec_driver_sql(f"DELETE FROM {FIGURE_TABLE} WHERE NOT {_OF_WEEKS}")
        connection.exec_driver_sql(
            f"DELETE FROM {FIGURE_TABLE} WHERE start < {param} AND {_OF_WEEKS}", (str(first_week),)
        )
        _insert(connection, figures, clock_us)

    transact(engine, replace)


def _insert(connection: SqlConnection, figures: Sequence[Figure], clock_us: int) -> None:
    rows = [(*figure, clock_us) for figure in figures]
    insert(connection, FIGURE_TABLE, (*Figure._fields, "computed_us"), rows, "")
