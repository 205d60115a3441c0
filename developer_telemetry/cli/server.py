"""Commands about the receiver itself: its process, its tables, a demonstration."""

import shlex
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Optional

import typer
from sqlalchemy.engine import Engine

from developer_telemetry.cli.common import (
    AS_JSON,
    announce,
    clear_errors,
    curl_line,
    engine_of,
    is_terminal,
    make_database,
    read_environment,
    report_url,
    say,
)
from developer_telemetry.config import Settings, list_unknown_settings, load_settings
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import printable_json
from developer_telemetry.receiver.listen_addresses import (
    BOTH,
    IPV4,
    find_own_address,
)

if TYPE_CHECKING:
    from developer_telemetry.connections.registry import Connection


def serve() -> None:
    """Accept reports until stopped.

    Without DB_URL an SQLite database is made in TELEMETRY_DATA_DIR.
    """
    with clear_errors():
        from developer_telemetry.receiver.main import serve as run

        for remark in list_unknown_settings():
            announce(f"warning: {remark}")
        engine, settings = make_database(load_settings())
        first = _first_connection(engine, settings) if settings.embedded else None
        run(engine, settings, partial(_introduce, settings, first))


def _first_connection(engine: Engine, settings: Settings) -> "Connection":
    """Return the embedded database's first connection, made if there is none."""
    from developer_telemetry.connections.registry import Connections, create, new_token

    connections = Connections(engine, settings.encryption_secret)
    connections.reload()
    if not connections.all():
        create(engine, settings.encryption_secret, "default", new_token())
        connections.reload()
    return connections.all()[0]


def _introduce(settings: Settings, first: "Optional[Connection]") -> None:
    """Print how to send to a receiver of an embedded database, which listens by now."""
    if first is None:
        return
    url = report_url(settings, first.id)
    say(f"Reports go to  {url}")
    others = _other_machines(settings, first.id)
    if others:
        say(f"               {others}")
    # A log that a service or a pipe keeps must hold no token.
    if first.token and is_terminal(sys.stdout):
        say(f"Secret token   {first.token}")
        say("Try it:", "", f"  {curl_line(url, first.token)}", "")
        # Not behind the public address, where only reports get through.
        page = report_url(settings._replace(public_url=""), first.id).partition("plugins/")[0]
        say(f"Then see it at {page} in a browser. Stop with Ctrl+C.")
    elif first.token:
        say(
            "Secret token   shown on a terminal only;"
            f" `developer-telemetry token rotate {first.id}` gives a new one"
        )
    sys.stdout.flush()


def _other_machines(settings: Settings, connection_id: int) -> str:
    """Return how other machines reach this receiver; "" if the report URL is for them."""
    from developer_telemetry.receiver.web.sessions import is_loopback

    if settings.public_url:
        return ""
    if settings.host in (IPV4, BOTH):
        there = settings._replace(host=find_own_address())
        return f"and from other machines to {report_url(there, connection_id)}"
    if is_loopback(settings.host):
        return "Other machines can't reach that address: set TELEMETRY_HOST=0.0.0.0 for them."
    return ""


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
    as_json: bool = AS_JSON,
) -> None:
    """Fill an empty database with a made-up fleet, to look at what yours would show.

    An empty DevLake gets made-up teams, pull requests, builds and incidents, too. One with users,
    teams, projects or deliveries of its own gets none of these.
    """
    with clear_errors():
        from datetime import datetime, timezone

        from developer_telemetry.demo.seed import fill, fill_delivery, fleet

        engine, settings = make_database(load_settings())
        made = fleet(developers, days, seed, datetime.now(timezone.utc))
        ids = fill(engine, settings.encryption_secret, made)
        delivered = fill_delivery(engine, made, ids, seed)
        if as_json:
            listed = [{"id": number, "name": name} for name, number in ids.items()]
            answer = {"reports": len(made.sent), "connections": listed, "delivery": bool(delivered)}
            say(printable_json(answer))
            return
        say(f"{len(made.sent)} reports of {developers} developers are stored")
        say(*(f"Connection {connection}: {name}" for name, connection in ids.items()))
        if delivered:
            say("DevLake's tables have made-up users, teams, pull requests, builds and incidents")
        elif delivered is False:
            say("DevLake has rows of its own, so no made-up ones were added to its tables")
