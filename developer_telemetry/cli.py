"""What an operator types."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

import typer
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.errors import ConfigurationError, TelemetryError
from developer_telemetry.receiver.settings import SETTINGS, Settings, load

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Developer telemetry for Apache DevLake: take reports from machines, look after them.",
    epilog="Settings come from the environment: " + ", ".join(each.name for each in SETTINGS) + ".",
)

USAGE_ERROR = 2


@contextmanager
def clear_errors() -> Iterator[None]:
    """Show what went wrong in one line; leave with 2 where the operator can mend it."""
    try:
        yield
    except TelemetryError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USAGE_ERROR) from None
    except SQLAlchemyError as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        typer.echo(f"error: the database says: {said}; check DB_URL and the server", err=True)
        raise typer.Exit(1) from None


def engine_of(settings: Settings) -> Engine:
    """The settings' database, as it is."""
    from developer_telemetry.database import open_engine

    try:
        return open_engine(settings.db_url)
    except ValueError as error:  # of the SDK, about the URL
        raise ConfigurationError(f"DB_URL: {error}") from None


def open_database(settings: Settings) -> Engine:
    """The settings' database; the embedded one is made and migrated as needed."""
    from developer_telemetry.schema import migrate

    engine = engine_of(settings)
    if settings.embedded:
        migrate(engine)
    return engine


def report_url(settings: Settings, connection_id: int) -> str:
    """Where machines send to when they reach the receiver directly."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.port}/plugins/developer-telemetry/{connection_id}/report"


def curl_line(url: str, token: str) -> str:
    """A command that sends a first report, to paste into a shell."""
    body = {
        "developer": "ann.lee",
        "date": "2026-11-23",
        "hostname": "anns-laptop",
        "email": "ann.lee@example.com",
        "name": "Ann Lee",
        "metrics": {"active_hours": 6, "tools_used": ["git", "vscode"], "projects": ["web-shop"]},
    }
    return f"curl {url} -H 'Authorization: Bearer {token}' -d '{json.dumps(body)}'"


@app.command()
def serve() -> None:
    """Take reports until stopped. Without DB_URL an SQLite database is made beside it."""
    with clear_errors():
        from developer_telemetry.receiver.serve import serve as run

        settings = load()
        engine = open_database(settings)
        if settings.embedded:
            _introduce(engine, settings)
        run(engine, settings)


def _introduce(engine: Engine, settings: Settings) -> None:
    """Make the embedded database's first connection, and say how to send to it."""
    from developer_telemetry.connections import Connections, create, new_token

    connections = Connections(engine, settings.encryption_secret)
    connections.reload()
    made = not connections.all()
    if made:
        create(engine, settings.encryption_secret, "default", new_token())
        connections.reload()
    first = connections.all()[0]
    url = report_url(settings, first.id)
    typer.echo(f"Reports go to  {url}")
    # The token is shown when it is new or somebody is looking, and so stays out of service logs.
    if first.token and (made or sys.stdout.isatty()):
        typer.echo(f"Secret token   {first.token}")
        typer.echo(f"Try it:\n\n  {curl_line(url, first.token)}\n")
        page = url.partition("plugins/")[0]
        typer.echo(f"Then see it at {page} in a browser. Stop with Ctrl+C.")
    sys.stdout.flush()


@app.command()
def migrate() -> None:
    """Make or update the tables of a database that DevLake does not own."""
    with clear_errors():
        from developer_telemetry.schema import migrate as apply

        applied = apply(engine_of(load()))
        typer.echo("\n".join(f"applied {name}" for name in applied) or "nothing to do")


@app.command()
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


@app.command()
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


@app.command()
def status(as_json: bool = typer.Option(False, "--json", help="Print a JSON list.")) -> None:
    """Show each connection: reports, developers, machines, and when the newest report came."""
    with clear_errors():
        from developer_telemetry.status import connection_statuses

        statuses = connection_statuses(open_database(load()))
        if as_json:
            typer.echo(json.dumps([each._asdict() for each in statuses]))
            return
        head = ["id", "name", "reports", "developers", "machines", "newest report (UTC)"]
        typer.echo(_table([head, *([str(value) for value in each] for each in statuses)]))


@app.command()
def demo(
    developers: int = typer.Option(60, min=1, help="How many there are."),
    days: int = typer.Option(200, min=1, help="How far back from today their reports go."),
    seed: int = typer.Option(1, help="Another number gives another fleet."),
) -> None:
    """Fill an empty database with a made-up fleet, to look at what yours would show."""
    with clear_errors():
        from datetime import datetime, timezone

        from developer_telemetry.demo import fill, fleet

        settings = load()
        engine = open_database(settings)
        made = fleet(developers, days, seed, datetime.now(timezone.utc))
        ids = fill(engine, settings.encryption_secret, made)
        typer.echo(f"{len(made.sent)} reports of {developers} developers are stored")
        typer.echo("\n".join(f"Connection {each}: {name}" for name, each in ids.items()))


@app.command(name="dead-letters")
def dead_letters(
    as_json: bool = typer.Option(False, "--json", help="Print a JSON list, with the bodies."),
) -> None:
    """Show the reports in the spool that the database refused for good, and why."""
    with clear_errors():
        from developer_telemetry.merging import timestamp
        from developer_telemetry.receiver.spool import dead_letters as read

        rows = [
            {
                "report": letter.report.report_id,
                "connection": letter.report.connection_id,
                "arrived": timestamp(letter.report.arrived_us),
                "reason": letter.reason,
                "body": letter.report.payload,
            }
            for letter in read(load().spool_dir)
        ]
        if as_json:
            typer.echo(json.dumps(rows))
            return
        if not rows:
            typer.echo("no report was set aside")
            return
        head = ["report", "connection", "arrived (UTC)", "reason"]
        typer.echo(_table([head, *([str(cell) for cell in row.values()][:4] for row in rows)]))


def _table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


if __name__ == "__main__":
    app()
