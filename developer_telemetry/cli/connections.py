"""Commands about connections: in DevLake through its API, or in the settings' own database."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Optional

import typer

from developer_telemetry.cli.common import (
    clear_errors,
    collector_config,
    curl_line,
    engine_of,
    make_database,
    open_database,
    report_url,
    say,
    table,
)
from developer_telemetry.config import Settings, load
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import printable_json

if TYPE_CHECKING:
    from developer_telemetry.connections.backend import Backend, StoredConnection
    from developer_telemetry.connections.onboarding import Onboarding

connections = typer.Typer(no_args_is_help=True, help="Look at connections, and change them.")

NAME = typer.Argument(help="Its name, or its id.", metavar="NAME")
DEVLAKE_URL = typer.Option(
    None,
    "--devlake-url",
    help="DevLake's address, DEVLAKE_URL without it; with neither it is done in the database.",
)
AS_JSON = typer.Option(False, "--json", help="Print JSON.")


@contextmanager
def backend_of(
    devlake_url: Optional[str], making: bool = False
) -> "Iterator[tuple[Backend, Settings]]":
    """Give the place of the connections, and the settings with the address that machines have.

    Args:
        devlake_url: DevLake's address in place of DEVLAKE_URL.
        making: Make an embedded database that is not there.
    """
    environment = dict(os.environ)
    if devlake_url is not None:
        environment.update(DEVLAKE_URL=devlake_url, DEVLAKE_URL_FILE="")
    with clear_errors():
        settings = load(environment, with_database=False)
        if settings.devlake is None:
            from developer_telemetry.connections.database_backend import DatabaseBackend

            settings = load(environment)
            if making:
                engine, settings = make_database(settings)
            else:
                engine = open_database(settings)
            try:
                yield DatabaseBackend(engine, settings.encryption_secret), settings
            finally:
                engine.dispose()
            return
        from developer_telemetry.connections.devlake_backend import DevLakeBackend

        with DevLakeBackend(settings.devlake) as devlake:
            front = settings.public_url or devlake.front
            yield devlake, settings._replace(public_url=front)


def connect(
    name: str = typer.Argument(help="What the connection is called, for example your team."),
    project: str = typer.Option("", help="DevLake's project to add it to, made if needed."),
    secret_token: str = typer.Option(
        "", help="The token that machines send; a random one without it."
    ),
    duplicate_strategy: Optional[str] = typer.Option(
        None,
        help="overwrite (the default): a day's newest report counts."
        " sum: each host's newest, added.",
    ),
    strip_paths: Optional[bool] = typer.Option(
        None, help="Store no paths of repositories and projects."
    ),
    pseudonyms: Optional[bool] = typer.Option(
        None, help="Store pseudonyms in place of developers, e-mail addresses and hosts."
    ),
    raw_retention_days: Optional[int] = typer.Option(
        None, min=0, help="How long reports are kept as they came; 0 for ever."
    ),
    tool_retention_days: Optional[int] = typer.Option(
        None, min=0, help="How long days are kept; 0 for ever."
    ),
    test_and_build_tasks: Optional[bool] = typer.Option(
        None, help="In its scope config: make test runs and builds tasks of DevLake's."
    ),
    keep_accounts_unlinked: Optional[bool] = typer.Option(
        None, help="In its scope config: don't link accounts to DevLake's users."
    ),
    devlake_url: Optional[str] = DEVLAKE_URL,
    as_json: bool = AS_JSON,
) -> None:
    """Make a connection with all that it needs, and say how machines send to it.

    What is there already stays, so it can be run again: for another project, to set options.
    """
    given: dict[str, Any] = {
        "duplicate_strategy": duplicate_strategy,
        "strip_paths": strip_paths,
        "pseudonyms": pseudonyms,
        "raw_retention_days": raw_retention_days,
        "tool_retention_days": tool_retention_days,
    }
    switches = {
        "test_and_build_tasks": test_and_build_tasks,
        "keep_accounts_unlinked": keep_accounts_unlinked,
    }
    with backend_of(devlake_url, making=True) as (backend, settings):
        from developer_telemetry.connections.onboarding import Onboarding, Wanted

        wanted = Wanted(name, secret_token, _set(given), _set(switches), project.strip())
        onboarding = Onboarding(backend, wanted)
        try:
            onboarding.run()
        finally:  # a token is shown this once, whatever comes after it
            if onboarding.connection_id:
                _show_onboarding(onboarding, settings, as_json)


def _set(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _show_onboarding(made: "Onboarding", settings: Settings, as_json: bool) -> None:
    url = report_url(settings, made.connection_id)
    shown = made.token or ("$TOKEN" if made.has_token else "")
    config = collector_config(url, made.token or ("PASTE-THE-TOKEN-HERE" if made.has_token else ""))
    if as_json:
        result = {
            "id": made.connection_id,
            "name": made.name,
            "made": made.made,
            "token": made.token or None,
            "url": url,
            "config": config,
        }
        say(printable_json(result))
        return
    for what, how in (*made.steps, ("Reports go to", url)):
        say(f"{what:<14} {how}")
    rotate = f"`developer-telemetry token rotate {made.connection_id}`"
    if made.token:
        say(f"Secret token   {made.token}")
        say(f"               It is not shown again; {rotate} gives another.")
    elif made.has_token:
        say(f"Secret token   not shown again; {rotate} gives another")
    else:
        say(f"Secret token   none: everybody can send; {rotate} gives one")
    say("Try it:", "", f"  {curl_line(url, shown)}", "")
    say("The collector's config.json:", "", *printable_json(config, indent=2).split("\n"), "")
    if settings.devlake and not settings.public_url:
        say("Set TELEMETRY_PUBLIC_URL to see the address that machines reach.")


@connections.command("list")
def list_connections(devlake_url: Optional[str] = DEVLAKE_URL, as_json: bool = AS_JSON) -> None:
    """List the connections, and the projects whose blueprints have them."""
    with backend_of(devlake_url) as (backend, _):
        known, rows = backend.connections(), []
        blueprints = backend.blueprints()
        for kept in known:
            used = [each for each in blueprints if kept.id in each.connection_ids]
            rows.append({**_described(kept), "projects": [each.project for each in used]})
        if as_json:
            say(printable_json(rows))
            return
        names = ("id", "name", "duplicate_strategy", "token", "projects")
        head = ["id", "name", "strategy", "secret token", "projects"]
        cells = [[_cell(row[name]) for name in names] for row in rows]
        say(*table([head, *cells]))


@connections.command()
def show(
    name: str = NAME, devlake_url: Optional[str] = DEVLAKE_URL, as_json: bool = AS_JSON
) -> None:
    """Show what is set for a connection, what it holds, and how machines send to it."""
    with backend_of(devlake_url) as (backend, settings):
        from developer_telemetry.connections.onboarding import find

        kept = find(backend, name)
        url = report_url(settings, kept.id)
        held = _counts(settings, kept)
        used = [each for each in backend.blueprints() if kept.id in each.connection_ids]
        shown = {
            **_described(kept),
            "blueprints": [each.name for each in used],
            "projects": [each.project for each in used if each.project],
            "holds": held,
            "url": url,
        }
        if as_json:
            say(printable_json(shown))
            return
        rows = [[label.replace("_", " "), _cell(value)] for label, value in shown.items()]
        say(*table(rows))
        needed = "$TOKEN" if kept.token or kept.fault else ""
        say("", f"  {curl_line(url, needed)}")


@connections.command()
def rename(
    name: str = NAME,
    new_name: str = typer.Argument(help="What it is called from now on."),
    devlake_url: Optional[str] = DEVLAKE_URL,
) -> None:
    """Give a connection another name. Its address stays, and so machines notice nothing."""
    with backend_of(devlake_url) as (backend, _):
        from developer_telemetry.connections import onboarding

        kept = onboarding.find(backend, name)
        onboarding.rename(backend, kept, new_name)
        say(f"connection {kept.id}, {kept.name} until now, is called {new_name.strip()}")


@connections.command()
def delete(
    name: str = NAME,
    yes: bool = typer.Option(False, "--yes", help="Don't ask."),
    devlake_url: Optional[str] = DEVLAKE_URL,
) -> None:
    """Delete a connection and all that its machines have sent, for good."""
    with backend_of(devlake_url) as (backend, settings):
        from developer_telemetry.connections.onboarding import find

        kept = find(backend, name)
        held = _counts(settings, kept)
        unknown = "all that it holds (set DB_URL to see how much that is)"
        lost = ", ".join(f"{what} {number}" for what, number in held.items()) or unknown
        say(f"Connection {kept.id} ({kept.name}) of {backend.address} is deleted for good: {lost}.")
        for each in backend.blueprints():
            if kept.id in each.connection_ids:
                project = f" of project {each.project}" if each.project else ""
                say(f"The blueprint {each.name}{project} loses it, and nothing else.")
        if not yes and not _agreed():
            raise ConfigurationError("nothing was deleted; answer y, or give --yes")
        backend.delete(kept.id)
        say("deleted")


def _agreed() -> bool:
    try:
        return typer.confirm("Delete it?")
    except typer.Abort:  # nobody is there to ask
        say()
        return False


def _counts(settings: Settings, kept: "StoredConnection") -> dict[str, int]:
    """What a connection holds, if a database is set; DevLake's API doesn't tell."""
    if not settings.db_url:
        return {}
    from developer_telemetry.connections.database_backend import counts

    engine = engine_of(settings)
    held = counts(engine, kept.id)._asdict()
    engine.dispose()
    return held


def _described(kept: "StoredConnection") -> dict[str, Any]:
    """What is set for it, for people and programs; of tokens only their ends."""
    from developer_telemetry.receiver.web.client_setup import MIN_HINTED_LENGTH

    said = f"ends in {kept.token[-4:]}" if len(kept.token) >= MIN_HINTED_LENGTH else "set"
    options = dict(kept.options)
    return {
        "id": kept.id,
        "name": kept.name,
        "duplicate_strategy": options.pop("duplicate_strategy", "") or "overwrite",
        "strip_paths": bool(options.pop("strip_paths", False)),
        "pseudonyms": bool(options.pop("pseudonyms", False)),
        **{name: value or None for name, value in options.items()},
        "token": kept.fault or (said if kept.token else "none"),
        "old_token_until": moment(kept.previous_until) if kept.has_previous_token else None,
    }


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{what} {number}" for what, number in value.items()) or "unknown"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def moment(epoch: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(epoch))
