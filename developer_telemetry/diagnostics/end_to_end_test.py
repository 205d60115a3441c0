"""Send a test report as a machine does, follow it through the database, and remove it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

from sqlalchemy import inspect
from sqlalchemy.engine import Connection as SqlConnection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.connections.http_client import NoAnswer, Reply, ask
from developer_telemetry.connections.registry import Connection
from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    LINK_TABLE,
    MACHINE_TABLE,
    RAW_TABLE,
    TOOL_TABLE,
)
from developer_telemetry.database.advisory_lock import ConnectionBusy, hold_connection
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.domain_texts import read_table_texts
from developer_telemetry.database.engine import now_us, reading, transact
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.diagnostics.probe import ReceiverState, new_nonce
from developer_telemetry.diagnostics.receiver_survey import ask_state
from developer_telemetry.reports.daily_metrics import format_timestamp
from developer_telemetry.storage.devlake_schema import make_account_id

# No login contains a space, so no developer has this one.
DEVELOPER = "developer-telemetry send-test"
HOST = "developer-telemetry-send-test"

# An answer of 200 means that the report is committed or spooled; replicas may be late.
STORED_SECONDS = 5.0
# Machines are counted within 10 s.
COUNTED_SECONDS = 15.0
# The patience with a run that is in progress.
REMOVAL_SECONDS = 60.0
POLL_SECONDS = 0.1

WHAT_TO_DO = {
    401: "the receiver has another token for this connection: see `developer-telemetry doctor`",
    404: "the front proxy doesn't send this address to the receiver, or the receiver has another"
    " database: see `developer-telemetry doctor`",
    502: "the front proxy reaches no receiver: start `developer-telemetry serve`",
    503: "the receiver can't keep reports now",
}


class EndToEndStep(NamedTuple):
    """One step of the test, and a message for the operator."""

    name: str
    passed: bool
    message: str


class _Stored(NamedTuple):
    raw_id: int
    developer: str  # as stored


def send_test(engine: Engine, connection: Connection, url: str) -> Iterator[EndToEndStep]:
    """Send a report to `connection` at its report URL, follow it, and remove its rows."""
    marker = f"send-test {new_nonce()}"
    newest: Optional[int] = None
    try:
        yield from _clear_old(engine, connection)
        newest = _newest(engine)
    except SQLAlchemyError as error:
        yield EndToEndStep(
            "database", False, f"{describe_error(error)}; the report is sent all the same"
        )
    sent = _send(connection, url, marker)
    yield sent
    if not sent.passed:
        return
    stored = None
    if newest is not None:
        stored = _wait(lambda: _find(engine, connection.id, newest or 0, marker), STORED_SECONDS)
    if stored is None:
        yield _describe_missing_report(connection, url, has_database=newest is not None)
        return
    yield EndToEndStep("raw layer", True, f"it is row {stored.raw_id}")
    yield _check_row(engine, connection.id, stored, TOOL_TABLE, "tool layer", 0)
    yield _check_row(engine, connection.id, stored, MACHINE_TABLE, "machines", COUNTED_SECONDS)
    yield _remove_test(engine, connection.id, stored.developer)


def _send(connection: Connection, url: str, marker: str) -> EndToEndStep:
    headers = {} if connection.token is None else {"Authorization": f"Bearer {connection.token}"}
    started = time.monotonic()
    try:
        reply = ask(url, headers, _body(marker))
    except NoAnswer as error:
        return EndToEndStep("sent", False, f"{url}: {error}")
    took = f"{(time.monotonic() - started) * 1000:.0f} ms"
    if reply.status == 200 and reply.content.get("success") is True:
        return EndToEndStep("sent", True, f"{url} answered 200 after {took}: {reply.message}")
    return EndToEndStep("sent", False, f"{url} answered {_describe_reply(reply)}")


def _body(marker: str) -> dict[str, Any]:
    return {
        "developer": DEVELOPER,
        "date": format_timestamp(now_us())[:10],
        "hostname": HOST,
        "metrics": {"active_hours": 0, "tools_used": [marker]},
    }


def _describe_reply(reply: Reply) -> str:
    hint = WHAT_TO_DO.get(reply.status, "that is no receiver's answer to a report")
    if 300 <= reply.status < 400:
        hint = f"collectors don't follow redirects: give them {reply.headers.get('location', '')}"
    if reply.status == 200:
        return f"200, but not as a receiver answers ({reply.message}): {hint}"
    return f"{reply.status} ({reply.message}); {hint}"


def _find(engine: Engine, connection_id: int, above: int, marker: str) -> Optional[_Stored]:
    placeholder = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        row = connection.exec_driver_sql(
            f"SELECT id, developer_id FROM {RAW_TABLE} WHERE id > {placeholder}"
            f" AND connection_id = {placeholder} AND payload LIKE {placeholder}",
            (above, connection_id, f"%{marker}%"),
        ).first()
    return _Stored(*row) if row else None


def _describe_missing_report(connection: Connection, url: str, has_database: bool) -> EndToEndStep:
    """Describe the fault if an accepted report is not in the database."""
    state = _state(connection, url)
    later = "run `developer-telemetry send-test` again then, which also removes this one"
    if state is not None and (state.outage or state.waiting):
        why = f" ({state.outage})" if state.outage else ""
        return EndToEndStep(
            "spool",
            False,
            f"only the spool of receiver {state.receiver} has it{why}: {state.waiting} reports"
            f" wait there and are stored once the database accepts them; {later}",
        )
    if not has_database:
        return EndToEndStep("spool", False, f"it was accepted; once the database is back, {later}")
    return EndToEndStep(
        "raw layer",
        False,
        "it was accepted, but is not in this database: the receiver uses another database; compare"
        " DB_URL here and there, and see `developer-telemetry doctor`",
    )


def _state(connection: Connection, url: str) -> Optional[ReceiverState]:
    if connection.token is None:
        return None
    return ask_state(url, connection.id, connection.token).state


def _check_row(
    engine: Engine, connection_id: int, stored: _Stored, table: str, name: str, patience: float
) -> EndToEndStep:
    started = time.monotonic()
    count = _wait(lambda: _count(engine, table, connection_id, stored.developer), patience)
    waited = time.monotonic() - started
    if count:
        return EndToEndStep(
            name, True, "it has its row" + (f" after {waited:.1f} s" if patience else "")
        )
    if table == MACHINE_TABLE:
        return EndToEndStep(
            name, False, f"not counted after {patience:.0f} s; see the receiver's log"
        )
    return EndToEndStep(
        name, False, "it has no row there; `developer-telemetry reextract` makes it"
    )


def _remove_test(engine: Engine, connection_id: int, developer: str) -> EndToEndStep:
    try:
        removed = remove(engine, connection_id, developer)
    except ConnectionBusy as error:
        return _describe_failed_removal("removed", error)
    where = ", ".join(f"{count} from {table}" for table, count in removed.items() if count)
    return EndToEndStep("removed", True, where)


def _clear_old(engine: Engine, connection: Connection) -> Iterator[EndToEndStep]:
    """Remove an earlier test report that reached the database later, out of a spool."""
    # It may have arrived before or after pseudonyms were switched on.
    stored = connection.parse(json.dumps(_body(""))).developer_id
    for developer in sorted({DEVELOPER, stored}):
        if _count(engine, RAW_TABLE, connection.id, developer):
            try:
                removed = remove(engine, connection.id, developer)
            except ConnectionBusy as error:
                yield _describe_failed_removal("earlier", error)
            else:
                message = f"removed {removed[RAW_TABLE]} earlier test reports"
                yield EndToEndStep("earlier", True, message)


def _describe_failed_removal(name: str, error: ConnectionBusy) -> EndToEndStep:
    return EndToEndStep(name, False, f"{error}; `developer-telemetry send-test` removes it then")


def remove(engine: Engine, connection_id: int, developer: str) -> dict[str, int]:
    """Remove a developer from all tables of reports; return the count of rows by table."""

    def work(connection: SqlConnection) -> dict[str, int]:
        key = (connection_id, developer)
        account = (make_account_id(*key, read_table_texts(connection, ACCOUNT_TABLE)),)
        ours = ("connection_id", "developer_id")
        removed = {
            table: _delete(connection, table, ours, key)
            for table in (TOOL_TABLE, RAW_TABLE, MACHINE_TABLE)
        }
        removed[ACCOUNT_TABLE] = _delete(connection, ACCOUNT_TABLE, ("id",), account)
        if inspect(connection).has_table(LINK_TABLE):
            removed[LINK_TABLE] = _delete(connection, LINK_TABLE, ("account_id",), account)
        return removed

    # A run that has read the report already would write its row once more.
    with hold_connection(engine, connection_id, REMOVAL_SECONDS):
        return transact(engine, work)


def _delete(
    connection: SqlConnection, table: str, columns: Sequence[str], values: tuple[Any, ...]
) -> int:
    placeholder = dialect_of(connection).placeholder
    where = " AND ".join(f"{column} = {placeholder}" for column in columns)
    return connection.exec_driver_sql(f"DELETE FROM {table} WHERE {where}", values).rowcount


def _newest(engine: Engine) -> int:
    with reading(engine).connect() as connection:
        newest = connection.exec_driver_sql(f"SELECT MAX(id) FROM {RAW_TABLE}").scalar()
    return newest or 0


def _count(engine: Engine, table: str, connection_id: int, developer: str) -> int:
    placeholder = dialect_of(engine).placeholder
    with reading(engine).connect() as connection:
        count: int = connection.exec_driver_sql(
            f"SELECT COUNT(*) FROM {table}"
            f" WHERE connection_id = {placeholder} AND developer_id = {placeholder}",
            (connection_id, developer),
        ).scalar_one()
    return count


def _wait(check: Callable[[], Any], patience: float) -> Any:
    """Call `check` until it returns a true value or `patience` is over; return its last result."""
    deadline = time.monotonic() + patience
    while not (result := check()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return result
