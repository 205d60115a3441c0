"""Commands about the machines that report."""

import json

import typer

from developer_telemetry.commands.shared import clear_errors, open_database, table
from developer_telemetry.receiver.settings import load


def status(as_json: bool = typer.Option(False, "--json", help="Print a JSON list.")) -> None:
    """Show each connection: reports, developers, machines, and when the newest report came."""
    with clear_errors():
        from developer_telemetry.status import connection_statuses

        statuses = connection_statuses(open_database(load()))
        if as_json:
            typer.echo(json.dumps([each._asdict() for each in statuses]))
            return
        head = ["id", "name", "reports", "developers", "machines", "newest report (UTC)"]
        typer.echo(table([head, *([str(value) for value in each] for each in statuses)]))
