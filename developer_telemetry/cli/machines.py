"""Commands about machines and their reports: `status`, `send-test`, `watch`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Optional

import typer
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from developer_telemetry.cli.common import (
    AS_JSON,
    CHECK_FAILED,
    clear_errors,
    open_database,
    report_url,
    say,
    say_marked,
    table,
)
from developer_telemetry.cli.doctor import URL, site
from developer_telemetry.cli.fleet import show_refused
from developer_telemetry.config import Settings, load_settings
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import iso_time, printable_json
from developer_telemetry.reports.refusal_reasons import describe_reason

if TYPE_CHECKING:
    from developer_telemetry.connections.registry import Connection
    from developer_telemetry.diagnostics.live_events import Event

# More than these don't fit on a screen; --json prints all.
MOST_QUIET = 10
POLL_SECONDS = 1.0


def status(
    as_json: bool = AS_JSON,
    refused: bool = typer.Option(
        False, "--refused", help="Show the machines that were refused in 14 days, and why."
    ),
) -> None:
    """Show the reports and refusals of each connection, and machines that need attention.

    Below the table, a line names the owner of the schema. Where receivers convert reports, a line
    for each connection shows its last conversion.
    A machine is quiet if its last report is older than 7 days and it is not retired. A collector is
    old if a tenth of the machines that have it have a newer version.
    """
    if refused:
        show_refused(0, as_json)
        return
    with clear_errors():
        from developer_telemetry.connections.crypto import remedy_of
        from developer_telemetry.diagnostics.connection_status import (
            connection_statuses,
            token_faults,
        )
        from developer_telemetry.diagnostics.conversion_status import (
            read_conversion_statuses,
            read_ownership,
        )

        settings = load_settings()
        with _database(settings) as engine:
            statuses = connection_statuses(engine)
            faults = token_faults(engine, settings.encryption_secret)
            ownership = read_ownership(engine)
            conversions = {
                conversion.connection_id: conversion
                for conversion in read_conversion_statuses(engine)
            }
        if as_json:
            quiet = [
                [
                    {**machine._asdict(), "last_seen": iso_time(machine.last_seen)}
                    for machine in status.quiet
                ]
                for status in statuses
            ]
            listed = [
                {
                    **status._asdict(),
                    "newest": iso_time(status.newest),
                    "quiet": machines,
                    "fault": faults.get(status.id, ""),
                    "schema": ownership.to_json(),
                    "conversion": converted.to_json() if converted else None,
                }
                for status, machines, converted in (
                    (status, machines, conversions.get(status.id))
                    for status, machines in zip(statuses, quiet)
                )
            ]
            say(printable_json(listed))
            return
        head = ["id", "name", "reports", "today", "developers", "machines", "quiet"]
        rows = [[*head, "newest report (UTC)", "refused in 7 days"]]
        for status in statuses:
            counts = (
                status.reports,
                status.today,
                status.developers,
                status.machines,
                len(status.quiet),
            )
            reasons = ", ".join(f"{reason} {count}" for reason, count in status.refused.items())
            rows.append([str(status.id), status.name, *map(str, counts), status.newest, reasons])
        say(*table(rows))
        if any(status.refused for status in statuses):
            say("refused: `developer-telemetry status --refused` shows which machines, and why")
        say(f"schema: {ownership}")
        for number, fault in faults.items():
            say(f"accepts no reports: connection {number}, {fault}; {remedy_of(fault)}")
        for conversion in conversions.values():
            if conversion.last or conversion.is_overdue:
                overdue = "; overdue" if conversion.is_overdue else ""
                say(f"connection {conversion.connection_id}: {conversion}{overdue}")
        for status in statuses:
            if status.unread:
                say(
                    f"unread: in {status.unread} of the last 7 days' rows of connection {status.id}"
                    " a number that can't be read counts as 0; _tool_developer_metrics names the"
                    " fields in _raw_data_remark, the raw layer has the reports"
                )
            for machine in status.quiet[:MOST_QUIET]:
                say(
                    f"quiet: {_machine(machine.developer, machine.host)}"
                    f" (connection {status.id}), last heard from at {machine.last_seen}"
                )
            for agent, count in status.outdated.items():
                say(
                    f"old collector: {agent} on {count} machines of connection {status.id};"
                    " `developer-telemetry machines list` names them"
                )
            if len(status.quiet) > MOST_QUIET:
                say(
                    f"quiet: {len(status.quiet) - MOST_QUIET} more machines of connection"
                    f" {status.id}; --json lists all"
                )


def send_test(
    connection: Optional[str] = typer.Option(
        None, metavar="NAME", help="Its name or id; needed where there are several connections."
    ),
    url: Optional[str] = URL,
    as_json: bool = AS_JSON,
) -> None:
    """Send a report as a machine does, follow it through the database, and remove it again.

    Exits with 1 if a step failed.
    """
    with site(url) as (settings, _):
        from developer_telemetry.diagnostics.end_to_end_test import EndToEndStep, send_test

        if not settings.db_url:
            raise ConfigurationError(
                "DB_URL is not set; a test report is followed, and removed, in the database"
            )
        steps: list[EndToEndStep] = []
        with _database(settings) as engine:
            chosen = _chosen(settings, engine, connection)
            for step in send_test(engine, chosen, report_url(settings, chosen.id)):
                steps.append(step)
                if not as_json:
                    word, color = ("ok", "green") if step.passed else ("FAILED", "red")
                    say_marked(f"{word:8}", color, f"{step.name:12} {step.message}")
        if as_json:
            say(printable_json([step._asdict() for step in steps]))
    raise typer.Exit(0 if all(step.passed for step in steps) else CHECK_FAILED)


@contextmanager
def _database(settings: Settings) -> Iterator[Engine]:
    engine = open_database(settings)
    try:
        yield engine
    finally:
        engine.dispose()


def _chosen(settings: Settings, engine: Engine, name: Optional[str]) -> "Connection":
    from developer_telemetry.connections.registry import (
        Connections,
        find_by_name_or_id,
    )

    secret = settings.encryption_secret
    connections = Connections(engine, secret)
    try:
        connections.reload()
    except SQLAlchemyError:
        # With the database away, a receiver on this machine has the connections in a file.
        connections = Connections(engine, secret, settings.spool_dir / "connections.json")
        if not connections.all():
            raise
    candidates = list(connections.all())
    if name is not None:
        candidates = [find_by_name_or_id(candidates, name)]
    if len(candidates) == 1 and not candidates[0].fault:
        return candidates[0]
    if len(candidates) == 1:
        from developer_telemetry.connections.crypto import remedy_of

        fault = candidates[0].fault
        raise ConfigurationError(
            f"connection {candidates[0].id} can't be used; {fault}; {remedy_of(fault)}"
        )
    if candidates:
        choices = ", ".join(f"{connection.id} ({connection.name})" for connection in candidates)
        raise ConfigurationError(
            f"there are several connections; name one of {choices} with --connection"
        )
    raise ConfigurationError("there is no connection; `developer-telemetry connect NAME` makes one")


def watch(as_json: bool = AS_JSON) -> None:
    """Show reports as they arrive, and refusals, until Ctrl+C."""
    with clear_errors(), suppress(KeyboardInterrupt), _database(load_settings()) as engine:
        _watch(engine, as_json)


def _watch(engine: Engine, as_json: bool) -> None:
    from developer_telemetry.database.error_texts import describe_error
    from developer_telemetry.diagnostics.live_events import Watch

    watch = Watch(engine)
    say("waiting for reports; Ctrl+C ends this", err=True)
    away = False
    while True:
        try:
            events = watch.read_events()
            away = False
        except SQLAlchemyError as error:
            if not away:
                say(
                    f"the database does not answer: {describe_error(error)}; trying again", err=True
                )
            away = True
            events = []
        for event in events:
            say(printable_json(_tagged(event)) if as_json else _line(event))
        time.sleep(POLL_SECONDS)


def _tagged(event: "Event") -> "dict[str, object]":
    from developer_telemetry.diagnostics.live_events import Arrived

    fields = event._asdict()
    moment = "arrived" if isinstance(event, Arrived) else "noticed"
    return {"event": type(event).__name__.lower(), **fields, moment: iso_time(fields[moment])}


def _line(event: "Event") -> str:
    from developer_telemetry.diagnostics.live_events import Arrived

    if isinstance(event, Arrived):
        who = _machine(event.developer, event.host)
        return f"{event.arrived}  connection {event.connection}  {who}  for {event.date}"
    title = describe_reason(event.reason, event.message)
    named = event.developer or event.host
    who = f"  {_machine(event.developer or 'an unnamed developer', event.host)}" if named else ""
    where = f" from {event.address}" if event.address else ""
    sender = f"connection {event.connection}{who}{where}"
    return f"{event.noticed}  {sender}  refused: {title} {event.count}"


def _machine(developer: str, host: str) -> str:
    return f"{developer} on {host or 'a host without name'}"
