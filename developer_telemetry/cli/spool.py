"""Commands about what waits in a receiver's spool, on the receiver's machine."""

from collections.abc import Mapping

import typer
from sqlalchemy.engine import Engine

from developer_telemetry.cli.common import (
    AS_JSON,
    YES,
    clear_errors,
    confirm,
    open_database,
    say,
    say_database,
    table,
)
from developer_telemetry.config import Settings, load_settings
from developer_telemetry.printable import iso_time, printable_json

# How long a running receiver is waited for.
DROP_SECONDS = 15.0

spool = typer.Typer(
    no_args_is_help=True,
    help="See what waits in the spool; delete what waits for a connection that is gone.",
)


@spool.command("list")
def show(
    as_json: bool = AS_JSON,
) -> None:
    """List the reports that wait in the spool, by connection."""
    with clear_errors():
        from developer_telemetry.receiver.ingest.spool import waiting_by_connection

        settings = load_settings()
        names = _connection_names(open_database(settings), settings)
        rows = [
            {
                "connection": waiting_reports.connection_id,
                "name": names.get(waiting_reports.connection_id),
                "reports": waiting_reports.reports,
                "oldest": iso_time(waiting_reports.oldest_us),
            }
            for waiting_reports in waiting_by_connection(settings.spool_dir)
        ]
        if as_json:
            say(printable_json(rows))
            return
        if not rows:
            say("no report waits")
            return
        head = ["connection", "reports", "oldest"]
        cells = [[_label(row), str(row["reports"]), str(row["oldest"])] for row in rows]
        say(*table([head, *cells]))


def _label(row: Mapping[str, object]) -> str:
    name = row["name"]
    return f"{row['connection']} ({'gone' if name is None else name})"


@spool.command()
def drop(
    connection: int = typer.Option(..., help="The connection's id; it must be gone."),
    yes: bool = YES,
) -> None:
    """Delete the reports that wait for a connection which is not in the database any more."""
    with clear_errors():
        from developer_telemetry.errors import TelemetryError
        from developer_telemetry.receiver.ingest.spool import waiting_by_connection

        settings = load_settings()
        engine = open_database(settings)
        say_database(engine)
        say(f"Spool: {settings.spool_dir.absolute()}", err=True)
        if connection in _connection_names(engine, settings):
            raise TelemetryError(
                f"connection {connection} is in the database; the receiver stores its reports"
            )
        waiting = {
            waiting_reports.connection_id: waiting_reports
            for waiting_reports in waiting_by_connection(settings.spool_dir)
        }
        if connection not in waiting:
            say(f"no report waits for connection {connection}")
            return
        reports = waiting[connection].reports
        say(f"{reports} reports were acknowledged and are stored nowhere else.")
        confirm("Delete them?", yes)
        _drop(settings, connection)


def _drop(settings: Settings, connection_id: int) -> None:
    from developer_telemetry.errors import SpoolInUse, TelemetryError
    from developer_telemetry.receiver.ingest.decisions import ask_to_drop
    from developer_telemetry.receiver.ingest.spool import Spool

    try:
        spool = Spool(settings.spool_dir, settings.spool_max_bytes)
    except SpoolInUse:
        if not ask_to_drop(settings.spool_dir, connection_id, DROP_SECONDS):
            raise TelemetryError(
                "the running receiver has not deleted them yet; it does once its database answers,"
                " if the connection is still gone then"
            ) from None
        say("the running receiver has deleted them; its log has their number")
        return
    say(f"{spool.drop_orphans(connection_id)} reports are deleted")
    spool.close()


def _connection_names(engine: Engine, settings: Settings) -> dict[int, str]:
    from developer_telemetry.connections.registry import Connections

    connections = Connections(engine, settings.encryption_secret)
    connections.reload()
    return {connection.id: connection.name for connection in connections.all()}
