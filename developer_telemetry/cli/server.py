"""Commands about the receiver itself: its process, its tables, a demonstration."""

import shlex
import sys
from contextlib import ExitStack
from typing import Optional

import typer
from sqlalchemy.engine import Engine

from developer_telemetry.cli.common import (
    announce,
    clear_errors,
    curl_line,
    engine_of,
    make_database,
    read_environment,
    report_url,
    say,
)
from developer_telemetry.config import Settings, load_settings
from developer_telemetry.errors import ConfigurationError


def serve() -> None:
    """Accept reports until stopped.

    Without DB_URL an SQLite database is made in TELEMETRY_DATA_DIR.
    """
    with clear_errors():
        from developer_telemetry.receiver.main import serve as run

        engine, settings = make_database(load_settings())
        if settings.embedded:
            _introduce(engine, settings)
        run(engine, settings)


def _introduce(engine: Engine, settings: Settings) -> None:
    """Make the embedded database's first connection, and say how to send to it."""
    from developer_telemetry.connections.registry import Connections, create, new_token

    connections = Connections(engine, settings.encryption_secret)
    connections.reload()
    made = not connections.all()
    if made:
        create(engine, settings.encryption_secret, "default", new_token())
        connections.reload()
    first = connections.all()[0]
    url = report_url(settings, first.id)
    say(f"Reports go to  {url}")
    # The token is shown when it is new or somebody is looking, and so stays out of service logs.
    if first.token and (made or sys.stdout.isatty()):
        say(f"Secret token   {first.token}")
        say("Try it:", "", f"  {curl_line(url, first.token)}", "")
        # Not behind the public address, where only reports get through.
        page = report_url(settings._replace(public_url=""), first.id).partition("plugins/")[0]
        say(f"Then see it at {page} in a browser. Stop with Ctrl+C.")
    sys.stdout.flush()


def migrate(
    standalone: bool = typer.Option(
        False, "--standalone", help="On DevLake's database, where DevLake does not load the plugin."
    ),
    plugin_is_removed: bool = typer.Option(
        False,
        "--plugin-is-removed",
        help="With --standalone: confirm that DevLake, which loaded the plugin before, no longer"
        " does.",
    ),
    hand_back: bool = typer.Option(
        False, "--hand-back", help="Let DevLake, which loads the plugin again, do it from now on."
    ),
    devlake_url: Optional[str] = typer.Option(
        None, help="DevLake's address; the default is DEVLAKE_URL."
    ),
) -> None:
    """Make or update our tables, where DevLake's server does not.

    On a database of your own and, with --standalone, on DevLake's. With --standalone, exits with 75
    while DevLake has not made its own tables.
    """
    if hand_back and (standalone or plugin_is_removed):
        raise typer.BadParameter("--hand-back is the way back from --standalone; give one of them")
    if plugin_is_removed and not standalone:
        raise typer.BadParameter("--plugin-is-removed needs --standalone")
    with clear_errors():
        settings = load_settings()
        is_set = settings.standalone and not settings.embedded
        if standalone or hand_back or is_set:
            _hand_over(devlake_url, plugin_is_removed, hand_back)
            return
        from developer_telemetry.connections import embedded_database

        settings = embedded_database.ensure_secret(settings, announce)
        applied = embedded_database.make_schema(settings, engine_of(settings), announce)
        say(*([f"applied {name}" for name in applied] or ["nothing to do"]))


def _hand_over(devlake_url: Optional[str], plugin_is_removed: bool, hand_back: bool) -> None:
    from developer_telemetry.connections import handover
    from developer_telemetry.connections.devlake_backend import DevLakeBackend

    settings = load_settings(read_environment(devlake_url))
    if settings.embedded:
        raise ConfigurationError(
            "--standalone and --hand-back are for DevLake's database; set DB_URL to that of its"
            " server"
        )
    engine = engine_of(settings)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        devlake = settings.devlake and stack.enter_context(DevLakeBackend(settings.devlake))
        if hand_back:
            connections = handover.hand_back(engine, devlake)
            say("DevLake's server looks after the schema again, and its blueprints make accounts.")
            if connections:
                say("With DEVLAKE_URL set, put connections back into the blueprints of projects:")
            for name, project in connections:
                words = ("developer-telemetry", "connect", name, "--project", project)
                say(f"  {shlex.join(words)}")
            return
        taken = handover.take_over(engine, devlake, plugin_is_removed)
        say(*([f"applied {name}" for name in taken.migrations] or ["no migration was pending"]))
        if taken.is_new:
            say("The receiver looks after the schema from now on, and makes accounts.")
        for member in taken.members:
            say(
                f"Connection {member.connection_id} stays in project {member.project}; it left the"
                " blueprint, which would not run without the plugin."
            )


def demo(
    developers: int = typer.Option(60, min=1, help="How many there are."),
    days: int = typer.Option(200, min=1, help="How far back from today their reports go."),
    seed: int = typer.Option(1, help="Another number gives another fleet."),
) -> None:
    """Fill an empty database with a made-up fleet, to look at what yours would show."""
    with clear_errors():
        from datetime import datetime, timezone

        from developer_telemetry.demo.seed import fill, fleet

        engine, settings = make_database(load_settings())
        made = fleet(developers, days, seed, datetime.now(timezone.utc))
        ids = fill(engine, settings.encryption_secret, made)
        say(f"{len(made.sent)} reports of {developers} developers are stored")
        say(*(f"Connection {connection}: {name}" for name, connection in ids.items()))
