"""Commands about the secret tokens of connections."""

import re
import time
from typing import Optional

import typer

from developer_telemetry.cli.common import (
    AS_JSON,
    YES,
    clear_errors,
    confirm,
    curl_line,
    open_database,
    report_url,
    say,
)
from developer_telemetry.cli.connections import (
    DEVLAKE_URL,
    NAME,
    backend_of,
    moment,
)
from developer_telemetry.config import load_settings
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import iso_time, printable_json

token = typer.Typer(no_args_is_help=True, help="Change the secret token of a connection.")

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


@token.command()
def revoke(
    name: str = NAME,
    previous: bool = typer.Option(
        False, "--previous", help="End only the token that stayed valid after the last rotation."
    ),
    yes: bool = YES,
    devlake_url: Optional[str] = DEVLAKE_URL,
) -> None:
    """End every token of a connection: machines are refused until it has a new one.

    Receivers notice within seconds. DevLake's API keys stay; they end on its own page.
    """
    with backend_of(devlake_url) as (backend, _):
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
            onboarding.revoke(backend, connection)
            say(
                f"connection {connection.id} ({connection.name}) accepts no token any more;"
                f" `developer-telemetry token rotate {connection.id}` gives it a new one"
            )


@token.command()
def rewrite() -> None:
    """Encrypt all tokens again, in the database, so that every release of DevLake reads them.

    For a DevLake that was downgraded to a release from before June 2026. The tokens stay the same.
    """
    with clear_errors():
        from developer_telemetry.connections.database_backend import DatabaseBackend

        settings = load_settings()
        engine = open_database(settings)
        try:
            backend = DatabaseBackend(engine, settings.encryption_secret)
            for connection in backend.connections():
                done = (
                    "encrypted again" if backend.rewrite_secrets(connection.id) else "not changed"
                )
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
