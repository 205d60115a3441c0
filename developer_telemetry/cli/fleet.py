"""Commands about single machines: `machines list`, `machines retire`, `machines restore`."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Optional

import typer
from sqlalchemy.engine import Engine

from developer_telemetry.cli.common import AS_JSON, clear_errors, open_database, say, table
from developer_telemetry.config import Settings, load_settings
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import iso_time, printable_json

if TYPE_CHECKING:
    from developer_telemetry.storage.fleet.machines import Machine, MachineKey
    from developer_telemetry.storage.fleet.refused_machines import RefusedMachine

machines = typer.Typer(no_args_is_help=True, help="List machines, and retire replaced ones.")

CONNECTION = typer.Option("", "--connection", help="Its name or id; all connections without it.")
DEVELOPER = typer.Argument(help="The developer's id, as `machines list` shows it.")
HOST = typer.Argument("", help="The host's name; needed if the developer has several machines.")


class State(str, Enum):
    """The machines to list."""

    REPORTING = "reporting"
    QUIET = "quiet"
    RETIRED = "retired"
    REFUSED = "refused"


STATE = typer.Option(
    None,
    "--state",
    help="Only machines that report, are quiet (no report in 7 days), are retired, or were refused"
    " in the last 14 days.",
)


@machines.command("list")
def list_machines(
    state: Optional[State] = STATE,
    connection: str = CONNECTION,
    as_json: bool = AS_JSON,
) -> None:
    """List the machines, with the version of their collector and their state."""
    with clear_errors(), _database() as (engine, _):
        from developer_telemetry.database.engine import reading
        from developer_telemetry.storage.fleet.machines import MachineSelection, read_machines

        connection_id = _connection_id(engine, connection)
        if state is State.REFUSED:
            _print_refused(engine, connection_id, as_json)
            return
        wanted = MachineSelection(connection_id, state="" if state is None else state.value)
        with reading(engine).connect() as sql_connection:
            rows = [_describe(machine) for machine in read_machines(sql_connection, wanted)]
        _print(rows, as_json)


@machines.command()
def retire(
    developer: str = DEVELOPER,
    host: str = HOST,
    connection: str = CONNECTION,
    as_json: bool = AS_JSON,
) -> None:
    """Retire a replaced machine: it is no longer quiet, and keeps its reports.

    Its next report restores it. Receivers retire a machine by themselves after
    TELEMETRY_RETIRE_DAYS days without a report.
    """
    with clear_errors(), _database() as (engine, _):
        from developer_telemetry.storage.fleet.machines import retire_machines

        key = _find(engine, connection, developer, host)
        done = "retired" if retire_machines(engine, [key]) else "already retired"
        _print_outcome(key, done, as_json)


@machines.command()
def restore(
    developer: str = DEVELOPER,
    host: str = HOST,
    connection: str = CONNECTION,
    as_json: bool = AS_JSON,
) -> None:
    """Undo the retirement of a machine."""
    with clear_errors(), _database() as (engine, settings):
        from developer_telemetry.storage.fleet.machines import restore_machines

        key = _find(engine, connection, developer, host)
        done = "restored" if restore_machines(engine, [key]) else "not retired"
        _print_outcome(key, done, as_json)
        if settings.retire_days and not as_json:
            say(
                f"Without a report in {settings.retire_days} days (TELEMETRY_RETIRE_DAYS), a"
                " receiver retires it again."
            )


def show_refused(connection_id: int, as_json: bool) -> None:
    """Print the machines that were refused lately, those of all connections for 0."""
    with clear_errors(), _database() as (engine, _):
        _print_refused(engine, connection_id, as_json)


@contextmanager
def _database() -> "Iterator[tuple[Engine, Settings]]":
    from developer_telemetry.storage.devlake_schema import require_tables

    settings = load_settings()
    engine = open_database(settings)
    try:
        require_tables(engine)
        yield engine, settings
    finally:
        engine.dispose()


def _connection_id(engine: Engine, name_or_id: str) -> int:
    """Return the id of a connection, 0 for all of them."""
    from developer_telemetry.connections.backend import StoredConnection
    from developer_telemetry.connections.registry import find_by_name_or_id, read_names

    if not name_or_id.strip():
        return 0
    connections = [StoredConnection(*item) for item in read_names(engine).items()]
    return find_by_name_or_id(connections, name_or_id).id


def _find(engine: Engine, connection: str, developer: str, host: str) -> "MachineKey":
    """Return the one machine that is meant."""
    from developer_telemetry.database.engine import reading
    from developer_telemetry.reports.hosts import machine_name
    from developer_telemetry.storage.fleet.machines import MachineSelection, read_machines

    wanted = MachineSelection(_connection_id(engine, connection), developer.strip())
    with reading(engine).connect() as sql_connection:
        keys = [machine.key for machine in read_machines(sql_connection, wanted)]
    named = [key for key in keys if not host or key.hostname == machine_name(host.strip())]
    if len(named) == 1:
        return named[0]
    if not named:
        what = f"{developer} has no machine {host}" if keys else f"{developer} has no machine"
        raise ConfigurationError(f"{what}; `developer-telemetry machines list` shows them")
    choices = ", ".join(
        f"{key.hostname or 'unnamed'} (connection {key.connection_id})" for key in named
    )
    raise ConfigurationError(
        f"{developer} has several machines: {choices}; name one of them, with --connection where"
        " needed"
    )


def _describe(machine: "Machine") -> dict[str, Any]:
    from developer_telemetry.diagnostics.connection_status import text_of_moment
    from developer_telemetry.storage.fleet.machines import state_of

    return {
        "connection": machine.key.connection_id,
        "developer": machine.key.developer_id,
        "host": machine.key.hostname,
        "state": state_of(machine),
        "last_seen": iso_time(text_of_moment(machine.last_seen)),
        "first_seen": iso_time(text_of_moment(machine.first_seen)),
        "reports": machine.reports,
        "user_agent": machine.user_agent,
        "retired": iso_time(machine.retired_us),
    }


def _describe_refused(machine: "RefusedMachine") -> dict[str, Any]:
    from developer_telemetry.reports.refusal_reasons import describe_reason

    return {
        "connection": machine.connection_id,
        "developer": machine.details.developer_id,
        "host": machine.details.hostname,
        "address": machine.details.address,
        "reason": machine.reason,
        "title": describe_reason(machine.reason),
        "count": machine.count,
        "first": iso_time(machine.first_us),
        "last": iso_time(machine.last_us),
        "user_agent": machine.details.user_agent,
        "message": machine.details.message,
    }


def _print_refused(engine: Engine, connection_id: int, as_json: bool) -> None:
    from developer_telemetry.database.engine import now_us, reading
    from developer_telemetry.storage.fleet.refused_machines import (
        RETENTION_US,
        RefusedMachineFilter,
        read_refused_machines,
    )

    wanted = RefusedMachineFilter(now_us() - RETENTION_US, connection_id)
    with reading(engine).connect() as connection:
        rows = [_describe_refused(row) for row in read_refused_machines(connection, wanted)]
    if not as_json:
        rows = [{name: row[name] for name in row if name != "reason"} for row in rows]
    _print(rows, as_json)


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        say(printable_json(rows))
    elif rows:
        head = [name.replace("_", " ") for name in rows[0]]
        cells = [["" if cell is None else str(cell) for cell in row.values()] for row in rows]
        say(*table([head, *cells]))
    else:
        say("no machine")


def _print_outcome(key: "MachineKey", done: str, as_json: bool) -> None:
    if as_json:
        names = {"connection": key.connection_id, "developer": key.developer_id}
        say(printable_json({**names, "host": key.hostname, "outcome": done}))
        return
    host = key.hostname or "a host without name"
    say(f"{key.developer_id} on {host} (connection {key.connection_id}): {done}")
