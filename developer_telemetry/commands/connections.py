"""Commands about connections."""

import json
from typing import Optional

import typer

from developer_telemetry.commands.shared import (
    clear_errors,
    curl_line,
    open_database,
    report_url,
)
from developer_telemetry.receiver.settings import load


def connect(
    name: str = typer.Argument(help="What the connection is called, for example your team."),
    secret_token: Optional[str] = typer.Option(
        None, help="The token that machines send; a random one without it."
    ),
    duplicate_strategy: str = typer.Option(
        "overwrite", help="overwrite: a day's newest report counts. sum: each host's newest, added."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Make a connection and print its id, its token and the URL to send to."""
    with clear_errors():
        from developer_telemetry.connections import create, new_token

        settings = load()
        token = secret_token or new_token()
        engine = open_database(settings)
        connection_id = create(engine, settings.encryption_secret, name, token, duplicate_strategy)
        url = report_url(settings, connection_id)
        if as_json:
            typer.echo(json.dumps({"id": connection_id, "token": token, "url": url}))
        else:
            typer.echo(f"Connection     {connection_id}\nReports go to  {url}")
            typer.echo(f"Secret token   {token}\nTry it:\n\n  {curl_line(url, token)}")
