"""Commands about connections: in DevLake through its API, or in the settings' own database."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from developer_telemetry.cli.common import (
    AS_JSON,
    YES,
    clear_errors,
    collector_config,
    confirm,
    curl_line,
    engine_of,
    is_terminal,
    make_database,
    open_database,
    read_environment,
    report_url,
    say,
    table,
)
from developer_telemetry.config import Settings, load_settings
from developer_telemetry.connections.backend import OPTIONS
from developer_telemetry.constants import smallest_group_of
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import iso_time, printable_json

if TYPE_CHECKING:
    from developer_telemetry.connections.backend import Backend, StoredConnection
    from developer_telemetry.connections.onboarding import Onboarding

connections = typer.Typer(no_args_is_help=True, help="List, show and change connections.")

NAME = typer.Argument(help="Its name, or its id.", metavar="NAME")
DEVLAKE_URL = typer.Option(
    None,
    "--devlake-url",
    help="DevLake's address; the default is DEVLAKE_URL, and without both the database.",
)


SECRET_TOKEN_FILE = typer.Option(None, help="A file that holds this token.")
DUPLICATE_STRATEGY = typer.Option(
    None,
    help="overwrite (the default): a day's newest report counts. sum: each host's newest, added.",
)
STRIP_PATHS = typer.Option(None, help="Store no paths of repositories and projects.")
PSEUDONYMS = typer.Option(
    None, help="Store pseudonyms in place of developers, e-mail addresses and hosts."
)
RAW_RETENTION_DAYS = typer.Option(
    None, min=0, help="Days until reports as received are deleted; 0: never."
)
TOOL_RETENTION_DAYS = typer.Option(
    None, min=0, help="Days until rows of days are deleted; 0: never."
)
SMALLEST_GROUP = typer.Option(
    None,
    min=1,
    help="The fewest developers that a figure of dashboards is over (5); 1: no limit.",
)
TEST_AND_BUILD_TASKS = typer.Option(
    None, help="In its scope config: make test runs and builds tasks of DevLake's."
)
KEEP_ACCOUNTS_UNLINKED = typer.Option(
    None, help="In its scope config: don't link accounts to DevLake's users."
)
SWITCHES = ("test_and_build_tasks", "keep_accounts_unlinked")


@contextmanager
def backend_of(
    devlake_url: Optional[str], making: bool = False
) -> "Iterator[tuple[Backend, Settings]]":
    """Yield the backend of the connections, and the settings with the address for machines.

    Args:
        devlake_url: DevLake's address in place of DEVLAKE_URL.
        making: Make an embedded database that is not there.
    """
    environment = read_environment(devlake_url)
    with clear_errors():
        settings = load_settings(environment, with_database=False)
        if settings.devlake is None or (devlake_url is None and _is_standalone(settings)):
            from developer_telemetry.connections.database_backend import DatabaseBackend
            from developer_telemetry.storage.devlake_schema import require_tables

            settings = load_settings(environment)
            if making:
                engine, settings = make_database(settings)
            else:
                engine = open_database(settings)
            try:
                require_tables(engine)
                yield DatabaseBackend(engine, settings.encryption_secret), settings
            finally:
                engine.dispose()
            return
        from developer_telemetry.connections.devlake_backend import DevLakeBackend

        with DevLakeBackend(settings.devlake) as devlake:
            front = settings.public_url or devlake.front
            yield devlake, settings._replace(public_url=front)


def _is_standalone(settings: Settings) -> bool:
    """Return true if we own the schema of DevLake's database, so that its API has no plugin."""
    from sqlalchemy.exc import SQLAlchemyError

    from developer_telemetry.database.engine import reading
    from developer_telemetry.database.schema_owner import SchemaOwner, read_owner

    if not settings.db_url or settings.db_url.startswith("sqlite"):
        return False
    engine = engine_of(settings)
    try:
        with reading(engine).connect() as connection:
            return read_owner(connection) is SchemaOwner.STANDALONE
    except SQLAlchemyError:
        return False  # DevLake's API may be reached from where its database is not
    finally:
        engine.dispose()


def connect(
    name: str = typer.Argument(help="The connection's name, for example that of your team."),
    project: str = typer.Option("", help="DevLake's project to add it to, made if needed."),
    secret_token: str = typer.Option(
        "", help="The token that machines send, - for standard input; a random one without it."
    ),
    secret_token_file: Optional[Path] = SECRET_TOKEN_FILE,
    new: bool = typer.Option(
        False, "--new", help="Don't ask if another connection has nearly the same name."
    ),
    duplicate_strategy: Optional[str] = DUPLICATE_STRATEGY,
    strip_paths: Optional[bool] = STRIP_PATHS,
    pseudonyms: Optional[bool] = PSEUDONYMS,
    raw_retention_days: Optional[int] = RAW_RETENTION_DAYS,
    tool_retention_days: Optional[int] = TOOL_RETENTION_DAYS,
    smallest_group: Optional[int] = SMALLEST_GROUP,
    test_and_build_tasks: Optional[bool] = TEST_AND_BUILD_TASKS,
    keep_accounts_unlinked: Optional[bool] = KEEP_ACCOUNTS_UNLINKED,
    print_installer: str = typer.Option(
        "", help="Print a script that installs the collector: linux, macos or windows."
    ),
    devlake_url: Optional[str] = DEVLAKE_URL,
    as_json: bool = AS_JSON,
) -> None:
    """Make a connection with all that it needs, and print how machines send to it.

    It can be repeated, to add another project: an existing connection stays as it is, and is shown.
    """
    options, switches = _settings_of(locals())
    with clear_errors():
        _check_installer(print_installer, as_json)
        token = _read_token(secret_token, secret_token_file)
    with backend_of(devlake_url, making=True) as (backend, settings):
        from developer_telemetry.connections.onboarding import ConnectRequest, Onboarding

        onboarding = Onboarding(
            backend, ConnectRequest(name, token, options, switches, project.strip())
        )
        if not new:
            _ask_about_similar(onboarding.name, onboarding.similar_names())
        try:
            onboarding.run()
        finally:  # a token is shown once, so also if a later step failed
            if onboarding.connection_id and print_installer:
                _show_installer(onboarding, settings, print_installer)
            elif onboarding.connection_id:
                _show_onboarding(onboarding, settings, as_json)


def _settings_of(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bool]]:
    """Return the options and the switches of the scope config that a command was called with."""
    options, switches = (
        {name: arguments[name] for name in names if arguments[name] is not None}
        for names in (OPTIONS, SWITCHES)
    )
    return options, switches


def _read_token(token: str, file: Optional[Path]) -> str:
    if token and file:
        raise ConfigurationError("give one of --secret-token and --secret-token-file")
    if token == "-":
        return sys.stdin.readline().strip()
    if file is None:
        return token
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"--secret-token-file: can't read {file} ({why})") from None


def _ask_about_similar(name: str, similar: Sequence[str]) -> None:
    """Let a misspelled name make no second fleet."""
    if not similar:
        return
    names = ", ".join(map(repr, similar))
    if not is_terminal(sys.stdin):
        raise ConfigurationError(
            f"there is a connection {names}; give --new to make {name!r} beside it"
        )
    confirm(f"There is a connection {names}. Make another one, {name!r}?", yes=False)


def _check_installer(system: str, as_json: bool) -> None:
    """Refuse a system without an installer before a connection is made."""
    from developer_telemetry.connections.collector_setup import SYSTEMS

    if not system:
        return
    if system not in SYSTEMS:
        raise ConfigurationError(f"--print-installer is one of {', '.join(SYSTEMS)}")
    if as_json:
        raise ConfigurationError("give one of --print-installer and --json")


def _show_installer(made: "Onboarding", settings: Settings, system: str) -> None:
    """Print the script on standard output, and a new token beside it on standard error."""
    from developer_telemetry.connections.collector_setup import installer_script

    if made.token:
        say(f"Secret token, not shown again: {made.token}", err=True)
    url = report_url(settings, made.connection_id)
    say(*installer_script(system, url, made.has_token).splitlines())


def _show_onboarding(made: "Onboarding", settings: Settings, as_json: bool) -> None:
    from developer_telemetry.connections.collector_setup import install_lines

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
        say(f"Secret token   none: anybody can send; {rotate} gives it one")
    lines = install_lines(url, made.has_token)
    say("Install the collector on Linux or macOS (docs/collector.md):", "", f"  {lines.unix}", "")
    say("on Windows, in PowerShell:", "", f"  {lines.windows}", "")
    say("Or try it:", "", f"  {curl_line(url, shown)}", "")
    say("The collector's config.json:", "", *printable_json(config, indent=2).split("\n"), "")
    if not settings.public_url:
        say("Set TELEMETRY_PUBLIC_URL to see the address that machines reach.")


@connections.command("list")
def list_connections(devlake_url: Optional[str] = DEVLAKE_URL, as_json: bool = AS_JSON) -> None:
    """List the connections, and the projects that have them."""
    with backend_of(devlake_url) as (backend, _):
        stored_connections, rows = backend.connections(), []
        blueprints = backend.blueprints()
        for connection in stored_connections:
            used = [
                blueprint for blueprint in blueprints if connection.id in blueprint.connection_ids
            ]
            rows.append(
                {**_described(connection), "projects": [blueprint.project for blueprint in used]}
            )
        if as_json:
            say(printable_json(rows))
            return
        names = ("id", "name", "duplicate_strategy", "smallest_group", "token", "projects")
        head = ["id", "name", "strategy", "smallest group", "secret token", "projects"]
        cells = [[_cell(row[name]) for name in names] for row in rows]
        say(*table([head, *cells]))


@connections.command()
def show(
    name: str = NAME, devlake_url: Optional[str] = DEVLAKE_URL, as_json: bool = AS_JSON
) -> None:
    """Show a connection's settings, how much it has, and how machines send to it."""
    with backend_of(devlake_url) as (backend, settings):
        from developer_telemetry.connections.onboarding import find_connection

        connection = find_connection(backend, name)
        url = report_url(settings, connection.id)
        held = _counts(settings, connection)
        blueprints = [
            blueprint
            for blueprint in backend.blueprints()
            if connection.id in blueprint.connection_ids
        ]
        shown = {
            **_described(connection),
            "blueprints": [blueprint.name for blueprint in blueprints if blueprint.id],
            "projects": [blueprint.project for blueprint in blueprints if blueprint.project],
            "holds": held,
            "url": url,
        }
        if as_json:
            say(printable_json(shown))
            return
        rows = [[label.replace("_", " "), _cell(value)] for label, value in shown.items()]
        say(*table(rows))
        needed = "$TOKEN" if connection.token or connection.fault else ""
        say("", f"  {curl_line(url, needed)}")


@connections.command("set")
def change(
    name: str = NAME,
    duplicate_strategy: Optional[str] = DUPLICATE_STRATEGY,
    strip_paths: Optional[bool] = STRIP_PATHS,
    pseudonyms: Optional[bool] = PSEUDONYMS,
    raw_retention_days: Optional[int] = RAW_RETENTION_DAYS,
    tool_retention_days: Optional[int] = TOOL_RETENTION_DAYS,
    smallest_group: Optional[int] = SMALLEST_GROUP,
    test_and_build_tasks: Optional[bool] = TEST_AND_BUILD_TASKS,
    keep_accounts_unlinked: Optional[bool] = KEEP_ACCOUNTS_UNLINKED,
    devlake_url: Optional[str] = DEVLAKE_URL,
    as_json: bool = AS_JSON,
) -> None:
    """Change settings of a connection, and say what that means for the rows that are there.

    Receivers apply it within seconds.
    """
    options, switches = _settings_of(locals())
    with backend_of(devlake_url) as (backend, _):
        from developer_telemetry.connections import onboarding

        if not options and not switches:
            raise ConfigurationError("name a setting to change; `connections set --help` has them")
        connection = onboarding.find_connection(backend, name)
        changes = onboarding.change_settings(backend, connection, options, switches)
        consequences = onboarding.describe_consequences(connection, changes)
        if as_json:
            result = {"id": connection.id, "changed": changes, "consequences": consequences}
            say(printable_json(result))
            return
        say(f"connection {connection.id} ({connection.name})")
        for setting, value in changes.items():
            say(f"  {setting.replace('_', ' ')}: {_cell(value)}")
        say(*(consequences or ["No earlier row changes."] if changes else ["Nothing changes."]))


@connections.command()
def rename(
    name: str = NAME,
    new_name: str = typer.Argument(help="Its new name."),
    devlake_url: Optional[str] = DEVLAKE_URL,
) -> None:
    """Give a connection another name. Its report URL stays, so machines need no change."""
    with backend_of(devlake_url) as (backend, _):
        from developer_telemetry.connections import onboarding

        connection = onboarding.find_connection(backend, name)
        onboarding.rename(backend, connection, new_name)
        say(
            f"connection {connection.id}, formerly {connection.name}, is now called"
            f" {new_name.strip()}"
        )


@connections.command()
def delete(
    name: str = NAME,
    yes: bool = YES,
    devlake_url: Optional[str] = DEVLAKE_URL,
) -> None:
    """Delete a connection and all reports of its machines, for good."""
    with backend_of(devlake_url) as (backend, settings):
        from developer_telemetry.connections.onboarding import find_connection

        connection = find_connection(backend, name)
        held = _counts(settings, connection)
        unknown = "all of its reports (set DB_URL to see how many)"
        lost = ", ".join(f"{what} {number}" for what, number in held.items()) or unknown
        say(
            f"Connection {connection.id} ({connection.name}) of {backend.address} is deleted for"
            f" good: {lost}."
        )
        for blueprint in backend.blueprints():
            if connection.id not in blueprint.connection_ids:
                continue
            if blueprint.id:
                project = f" of project {blueprint.project}" if blueprint.project else ""
                say(f"It is removed from the blueprint {blueprint.name}{project}.")
            else:
                say(f"It is removed from project {blueprint.project}.")
        confirm(f"Delete connection {connection.id} ({connection.name})?", yes)
        backend.delete(connection.id)
        say("deleted")


def _counts(settings: Settings, connection: "StoredConnection") -> dict[str, int]:
    """Return how much a connection has, if a database is set; DevLake's API doesn't tell."""
    if not settings.db_url:
        return {}
    from developer_telemetry.connections.database_backend import count_rows

    engine = engine_of(settings)
    held = count_rows(engine, connection.id)._asdict()
    engine.dispose()
    return held


def _described(connection: "StoredConnection") -> dict[str, Any]:
    """Return the fields of a connection to show; of tokens only the last characters."""
    from developer_telemetry.connections.registry import token_hint

    options = dict(connection.options)
    return {
        "id": connection.id,
        "name": connection.name,
        "duplicate_strategy": options.pop("duplicate_strategy", "") or "overwrite",
        "strip_paths": bool(options.pop("strip_paths", False)),
        "pseudonyms": bool(options.pop("pseudonyms", False)),
        "smallest_group": smallest_group_of(options.pop("smallest_group", None)),
        **{name: value or None for name, value in options.items()},
        "token": connection.fault or token_hint(connection.token),
        "old_token_until": iso_time(connection.previous_until * 1_000_000)
        if connection.has_previous_token
        else None,
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
