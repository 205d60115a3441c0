"""The `doctor` command, and the settings of commands that use DevLake or a report URL."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Optional

import typer

from developer_telemetry.cli.common import (
    AS_JSON,
    CHECK_FAILED,
    clear_errors,
    read_environment,
    report_url,
    require_database,
    say,
    say_marked,
)
from developer_telemetry.config import Settings, load_settings
from developer_telemetry.errors import TelemetryError
from developer_telemetry.printable import printable_json

if TYPE_CHECKING:
    from developer_telemetry.connections.devlake_backend import DevLakeBackend
    from developer_telemetry.diagnostics.check import Check

# Of the states of checks.
COLORS = {"ok": "green", "failed": "red", "skipped": "yellow"}
URL = typer.Option(
    None,
    "--url",
    help="The address that machines send to, up to /plugins or complete; the default is"
    " TELEMETRY_PUBLIC_URL.",
)


def doctor(
    url: Optional[str] = URL,
    devlake_url: Optional[str] = typer.Option(
        None, help="DevLake's address; the default is DEVLAKE_URL."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Check all that a report needs, from DevLake to the disk of the receiver.

    Exits with 1 if a check failed, and prints what to do about it.
    """
    with site(url, devlake_url) as (settings, devlake):
        from developer_telemetry.diagnostics.check import FAILED
        from developer_telemetry.diagnostics.checks import run_checks
        from developer_telemetry.diagnostics.facts import collect

        checks = run_checks(collect(settings, partial(report_url, settings), devlake))
        is_ok = all(check.state != FAILED for check in checks)
        if as_json:
            results = [check._asdict() for check in checks]
            say(printable_json({"ok": is_ok, "checks": results}))
        else:
            for check in fold_skipped(checks):
                state = check.state.upper() if check.state == FAILED else check.state
                say_marked(f"{state:8}", COLORS[check.state], f"{check.name:18} {check.message}")
                if check.remedy:
                    say(f"{'':27} -> {check.remedy}")
            failed = [check.name for check in checks if check.state == FAILED]
            if len(failed) > 1:
                say("", f"{len(failed)} checks failed; correct `{failed[0]}` first.")
    raise typer.Exit(0 if is_ok else CHECK_FAILED)


def fold_skipped(checks: "Sequence[Check]") -> "Iterator[Check]":
    """Yield checks, those that were skipped for one reason as one line in the place of the first.

    What made them impossible is a check of its own, or a setting that is not needed everywhere.
    """
    from developer_telemetry.diagnostics.check import SKIPPED

    names: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        if check.state == SKIPPED:
            names.setdefault((check.message, check.remedy), []).append(check.name)
    for check in checks:
        if check.state != SKIPPED:
            yield check
        elif skipped := names.pop((check.message, check.remedy), None):
            others = f" (also: {', '.join(skipped[1:])})" if len(skipped) > 1 else ""
            yield check._replace(message=check.message + others)


@contextmanager
def site(
    url: Optional[str], devlake_url: Optional[str] = None
) -> "Iterator[tuple[Settings, Optional[DevLakeBackend]]]":
    """Yield the settings with the address that machines send to, and DevLake if it is set.

    The settings have no database if only DevLake is set.
    """
    environment = read_environment(devlake_url)
    if url is not None:
        base = re.sub(r"/(rest/)?plugins/.*", "", url)
        environment.update(TELEMETRY_PUBLIC_URL=base, TELEMETRY_PUBLIC_URL_FILE="")
    with clear_errors(), ExitStack() as stack:
        settings = load_settings(environment, with_database=False)
        if settings.db_url or settings.devlake is None:
            settings = load_settings(environment)
            require_database(settings)
        if settings.devlake is None:
            yield settings, None
            return
        from developer_telemetry.connections.devlake_backend import DevLakeBackend

        devlake = stack.enter_context(DevLakeBackend(settings.devlake))
        yield settings._replace(public_url=settings.public_url or _front(devlake)), devlake


def _front(devlake: "DevLakeBackend") -> str:
    try:
        return devlake.front
    except TelemetryError:  # a check reports that DevLake does not answer
        return ""
