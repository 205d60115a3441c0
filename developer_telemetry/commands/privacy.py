"""Commands about what is kept of people."""

from typing import Optional

import typer

from developer_telemetry.commands.shared import chosen, clear_errors, open_database, say, table
from developer_telemetry.receiver.settings import load

# What an operator calls the tables.
_COLUMNS = {
    "_raw_developer_telemetry": "reports",
    "_tool_developer_metrics": "days",
    "_tool_developer_telemetry_machines": "machines",
    "accounts": "accounts",
    "user_accounts": "user accounts",
    "cicd_tasks": "tasks",
}


def prune(
    connection: Optional[int] = typer.Option(None, help="Its id; all connections without it."),
    yes: bool = typer.Option(False, "--yes", help="Do it; without this nothing is removed."),
) -> None:
    """Show what is older than its connection keeps it, and with --yes remove it now.

    A receiver does so by itself once a day.
    """
    with clear_errors():
        from developer_telemetry.horizons import FIRST_DAY
        from developer_telemetry.prune import Pruned, preview
        from developer_telemetry.prune import prune as run

        settings = load()
        engine = open_database(settings)
        rows = [["connection", "reports before", "days before", *Pruned._fields]]
        for each in chosen(engine, settings, connection):
            limits, pruned = preview(engine, each.id)
            if yes:
                pruned = Pruned()
                for pruned in run(engine, each.id):  # noqa: B007  (the last one is the sum)
                    pass
            first = ["(all kept)" if day == FIRST_DAY else day for day in limits]
            rows.append([str(each.id), *first, *map(str, pruned)])
        say(*table(rows))
        if not yes:
            say("Nothing was removed. With --yes this is.")


def erase(
    person: str = typer.Argument(
        metavar="DEVELOPER|EMAIL",
        help="A developer's id, spelled exactly so, or an e-mail address in any case.",
    ),
    connection: Optional[int] = typer.Option(None, help="Its id; all connections without it."),
    block: bool = typer.Option(
        False, "--block", help="Also drop whatever is sent for them later; senders get a 200."
    ),
    yes: bool = typer.Option(False, "--yes", help="Do it; without this nothing is removed."),
) -> None:
    """Show what there is of a person, in every layer, and with --yes remove it for good."""
    with clear_errors():
        from developer_telemetry.erasing import erase as run
        from developer_telemetry.erasing import is_blocked
        from developer_telemetry.people import Search, is_own
        from developer_telemetry.tombstones import Key
        from developer_telemetry.traces import Traces, tables_of

        settings = load()
        engine = open_database(settings)
        key = Key(settings.encryption_secret)
        search = Search(engine, settings.encryption_secret, person, connection)
        people = search.people()
        tables = tables_of(engine)
        rows = [["connection", "developer", *_COLUMNS.values()]]
        for each in people:
            counts = Traces(engine, each, tables).counts()
            rows.append([*map(str, each), *(str(counts[name]) for name in _COLUMNS)])
        say(*(table(rows) if people else [f"The database has nothing of {search.text}."]))
        if "@" in search.text and not is_own(search.text.lower()):
            say(f"{search.text} is an address that tools fill in: these may be several people.")
        for email, other in search.namesakes(people):
            say(
                f"{other.developer_id} of connection {other.connection_id} is not meant, but has"
                f" an address of theirs: erase {email} for all who do"
            )
        if is_blocked(engine, search.subjects(key, people)) and not block:
            say("Reports for them are dropped now; without --block they are taken again.")
        if not yes:
            say("Nothing was removed. With --yes this is, and what receivers have spooled.")
            return
        outcome = run(engine, key, search, people, block)
        gone = [f"{count} {_COLUMNS[name]}" for name, count in outcome.removed.items()]
        say(f"Removed: {', '.join(gone) or 'nothing from the database'}.")
        for answer in outcome.answers:
            said = answer.problem or f"{answer.removed} reports removed from its spool"
            say(f"Receiver {answer.name}: {said}")
        if any(answer.problem for answer in outcome.answers):
            say(
                "Whoever did not answer may have reports in its spool; they are removed before"
                " anything else when it runs again. If it never will, delete its spool's folder.",
                err=True,
            )
            raise typer.Exit(1)
