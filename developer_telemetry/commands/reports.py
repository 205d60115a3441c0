"""Commands about the reports that are stored."""

from typing import Optional

import typer

from developer_telemetry.commands.shared import clear_errors, open_database
from developer_telemetry.errors import TelemetryError
from developer_telemetry.receiver.settings import load


def reextract(
    connection: Optional[int] = typer.Option(None, help="Its id; all connections without it."),
) -> None:
    """Rewrite tool rows and accounts from the raw reports, as a blueprint's run does."""
    with clear_errors():
        from developer_telemetry.accounts import convert
        from developer_telemetry.connections import Connections
        from developer_telemetry.subtasks import extract

        settings = load()
        engine = open_database(settings)
        connections = Connections(engine, settings.encryption_secret)
        connections.reload()
        chosen = [each for each in connections.all() if connection in (None, each.id)]
        if connection is not None and not chosen:
            raise TelemetryError(
                f"no connection {connection}; `developer-telemetry status` lists them"
            )
        for each in chosen:
            steps = extract(engine, each.id, each.strategy, everything=True)
            reports = [step.done for step in steps]
            accounts = [step.done for step in convert(engine, each.id)]
            typer.echo(
                f"connection {each.id}: {max(reports, default=0)} reports, "
                f"{max(accounts, default=0)} accounts"
            )
