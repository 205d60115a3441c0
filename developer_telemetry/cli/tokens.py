"""Commands about the secret tokens of connections."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Optional

import typer

from developer_telemetry.cli.common import (
    AS_JSON,
    YES,
    chosen,
    clear_errors,
    confirm,
    curl_line,
    open_database,
    report_url,
    say,
    table,
)
from developer_telemetry.cli.connections import (
    DEVLAKE_URL,
    NAME,
    backend_of,
    moment,
)
from developer_telemetry.config import Settings, load_settings
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import iso_time, printable_json

if TYPE_CHECKING:
    from developer_telemetry.connections.named_tokens import NamedTokens
    from developer_telemetry.connections.registry import Connection

token = typer.Typer(no_args_is_help=True, help="List and change the secret tokens of a connection.")

UNITS = {"m": 60, "h": 3600, "d": 86400}
MOST_DAYS = 366


@token.command()
def rotate(
    name: str = NAME,
    keep_old: str = typer.Option(
        "", help="How long the current token stays valid beside the new one, such as 7d or 12h."
    ),
    devlake_url: Optional[str] = DEVLAKE_URL,
    as_json: bool = AS_JSON,
) -> None:
    """Give a connection a new token. Receivers accept it within seconds."""
    with backend_of(devlake_url) as (backend, settings):
        from developer_telemetry.connections import onboarding

        seconds = _seconds(keep_old)
        connection = onboarding.find_connection(backend, name)
        made = onboarding.rotate(backend, connection, seconds)
        url = report_url(settings, connection.id)
        until = int(time.time()) + seconds if seconds and connection.token else 0
        if as_json:
            result = {
                "id": connection.id,
                "token": made,
                "url": url,
                "old_token_until": iso_time(until * 1_000_000),
            }
            say(printable_json(result))
            return
        say(f"Secret token   {made}", "               It is not shown again.")
        ends = f"valid until {moment(until)}" if until else "no longer valid"
        say(f"The old one    {ends if connection.token else 'none'}")
        if connection.has_previous_token:
            say("               The one before that, from an earlier rotation, has ended.")
        say("Try it:", "", f"  {curl_line(url, made)}")


GROUP = typer.Argument(help="The name of the token, for example that of a group of machines.")


@token.command()
def add(name: str = NAME, group: str = GROUP, as_json: bool = AS_JSON) -> None:
    """Give a connection one more token, for a group of its machines.

    It is valid beside the others until it is revoked. This needs the database, also with DevLake.
    """
    with _named_tokens(name) as (tokens, connection, settings):
        made = tokens.add(connection, group)
        url = report_url(settings, connection.id)
        if as_json:
            result = {"id": connection.id, "name": group.strip(), "token": made, "url": url}
            say(printable_json(result))
            return
        say(f"Secret token   {made}", "               It is not shown again.")
        say("Try it:", "", f"  {curl_line(url, made)}")


@token.command("list")
def list_tokens(name: str = NAME, as_json: bool = AS_JSON) -> None:
    """List the tokens of a connection, and when each was last used.

    A receiver writes the last use within seconds. This needs the database, also with DevLake.
    """
    with _named_tokens(name) as (tokens, connection, _):
        rows = [
            {
                "name": listed.name,
                "token": listed.fault or listed.hint,
                "created": iso_time(listed.created_us),
                "valid_until": iso_time(listed.valid_until_us),
                "last_used": iso_time(listed.last_used_us),
            }
            for listed in tokens.list(connection)
        ]
        if as_json:
            say(printable_json(rows))
            return
        empty = {"created": "", "valid_until": "", "last_used": "never"}
        cells = [[value or empty[column] for column, value in row.items()] for row in rows]
        say(*table([["name", "token", "created", "valid until", "last used"], *cells]))


@contextmanager
def _named_tokens(name: str) -> "Iterator[tuple[NamedTokens, Connection, Settings]]":
    """Yield the named tokens in the database, and the connection of that name or id."""
    with clear_errors():
        from developer_telemetry.connections.named_tokens import NamedTokens

        settings = load_settings(with_database=False)
        if settings.devlake is not None and not settings.db_url:
            raise ConfigurationError(
                "named tokens and last uses are in the database, not behind DevLake's API: set"
                " DB_URL and ENCRYPTION_SECRET to the values that DevLake's server has"
            )
        settings = load_settings()
        engine = open_database(settings)
        try:
            [connection] = chosen(engine, settings, name)
            yield NamedTokens(engine, settings.encryption_secret), connection, settings
        finally:
            engine.dispose()


@token.command()
def revoke(
    name: str = NAME,
    group: str = typer.Argument("", help="Only the token of this name.", show_default=False),
    previous: bool = typer.Option(
        False, "--previous", help="End only the token that stayed valid after the last rotation."
    ),
    yes: bool = YES,
    devlake_url: Optional[str] = DEVLAKE_URL,
) -> None:
    """End a named token, or every token of a connection until it has a new one.

    Receivers notice within seconds. DevLake's API keys stay; they end on its own page.
    """
    if group:
        if previous:
            raise typer.BadParameter("--previous and the name of a token can't be given together")
        _revoke_named(name, group, yes)
        return
    with backend_of(devlake_url) as (backend, settings):
        from developer_telemetry.connections import onboarding

        connection = onboarding.find_connection(backend, name)
        if previous and not connection.has_previous_token:
            raise ConfigurationError(
                f"connection {connection.id} ({connection.name}) has only one token"
            )
        machines = "machines that still send it" if previous else "all of its machines"
        say(f"Connection {connection.id} ({connection.name}) will refuse {machines} from now on.")
        confirm("End the token?", yes)
        if previous:
            onboarding.revoke_previous(backend, connection)
            say(
                f"connection {connection.id} ({connection.name}): the token before the current one"
                " ended"
            )
        else:
            _revoke_all_named(settings, connection.id)
            onboarding.revoke(backend, connection)
            say(
                f"connection {connection.id} ({connection.name}) accepts no token any more;"
                f" `developer-telemetry token rotate {connection.id}` gives it a new one"
            )


def _revoke_named(name: str, group: str, yes: bool) -> None:
    with _named_tokens(name) as (tokens, connection, _):
        if group not in [named.name for named in connection.named_tokens]:
            raise ConfigurationError(
                f"connection {connection.id} ({connection.name}) has no token {group!r};"
                f" `developer-telemetry token list {connection.id}` shows its tokens"
            )
        say(
            f"Connection {connection.id} ({connection.name}) will refuse machines that send the"
            f" token {group!r}."
        )
        confirm("End the token?", yes)
        tokens.revoke(connection.id, group)
        say(f"connection {connection.id} ({connection.name}): the token {group!r} ended")


def _revoke_all_named(settings: Settings, connection_id: int) -> None:
    if not settings.db_url:
        say(
            "Its named tokens, if it has any, stay valid: set DB_URL and ENCRYPTION_SECRET to end"
            " them, too.",
            err=True,
        )
        return
    from developer_telemetry.connections.named_tokens import NamedTokens

    engine = open_database(settings)
    try:
        NamedTokens(engine, settings.encryption_secret).revoke(connection_id)
    finally:
        engine.dispose()


@token.command()
def rewrite() -> None:
    """Encrypt all tokens again, in the database, so that every release of DevLake reads them.

    For a DevLake that was downgraded to a release from before June 2026. The tokens stay the same.
    """
    with clear_errors():
        from developer_telemetry.connections.database_backend import DatabaseBackend
        from developer_telemetry.connections.named_tokens import NamedTokens

        settings = load_settings()
        engine = open_database(settings)
        try:
            backend = DatabaseBackend(engine, settings.encryption_secret)
            named = {target.id: target for target in chosen(engine, settings, None)}
            tokens = NamedTokens(engine, settings.encryption_secret)
            for connection in backend.connections():
                changed = len(backend.rewrite_secrets(connection.id))
                changed += tokens.rewrite(named[connection.id])
                done = "encrypted again" if changed else "not changed"
                fault = f"not changed: {connection.fault}" if connection.fault else done
                say(f"connection {connection.id} ({connection.name})  {fault}")
        finally:
            engine.dispose()


def _seconds(text: str) -> int:
    """Return a length of time such as 7d, 12h or 30m in seconds; 0 for an empty text."""
    if not text:
        return 0
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text.strip())
    seconds = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < seconds <= MOST_DAYS * UNITS["d"]:
        raise ConfigurationError(
            f"--keep-old is {text!r}; give a length of time up to {MOST_DAYS} days, such as 7d,"
            " 12h or 30m"
        )
    return seconds
