"""Commands that delete data about people: `prune` and `erase`."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Optional

import typer

from developer_telemetry.cli.common import (
    chosen,
    clear_errors,
    open_database,
    say,
    say_database,
    table,
)
from developer_telemetry.config import load_settings
from developer_telemetry.storage.tables import ERASED_TABLES

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from developer_telemetry.privacy.person_search import Person

GONE = typer.Option(
    [],
    "--gone",
    metavar="RECEIVER",
    help="A receiver, as this command names it, whose spool does not exist any more.",
    show_default=False,
)

# An operator's words for the tables.
_COLUMNS = {table.name: table.label for table in ERASED_TABLES}


def prune(
    connection: Optional[int] = typer.Option(None, help="Its id; all connections without it."),
    yes: bool = typer.Option(False, "--yes", help="Do it; without this nothing is removed."),
) -> None:
    """Show the reports and days that are older than their retention, and delete them with --yes.

    A receiver does the same once a day.
    """
    with clear_errors():
        from developer_telemetry.privacy.retention import PrunedRows, preview_prune
        from developer_telemetry.privacy.retention import prune as run
        from developer_telemetry.storage.retention_marks import FIRST_DAY

        settings = load_settings()
        engine = open_database(settings)
        say_database(engine)
        rows = [["connection", "reports before", "days before", *PrunedRows._fields]]
        for target in chosen(engine, settings, connection):
            limits, pruned = preview_prune(engine, target.id)
            if yes:
                pruned = PrunedRows()
                for pruned in run(engine, target.id):  # noqa: B007  (the last one is the sum)
                    pass
            first = ["(all kept)" if day == FIRST_DAY else day for day in limits]
            rows.append([str(target.id), *first, *map(str, pruned)])
        say(*table(rows))
        if not yes:
            say("Nothing was removed; --yes removes it.")


def erase(
    person: str = typer.Argument(
        "",
        metavar="DEVELOPER|EMAIL",
        help="A developer's id, spelled exactly so, or an e-mail address in any case.",
        show_default=False,
    ),
    connection: Optional[int] = typer.Option(None, help="Its id; all connections without it."),
    block: bool = typer.Option(
        False, "--block", help="Also drop reports sent for them later; senders get a 200."
    ),
    again: bool = typer.Option(
        False,
        "--again",
        help="Erase people again whose erased data is back in a restored database.",
    ),
    gone: list[str] = GONE,
    yes: bool = typer.Option(False, "--yes", help="Do it; without this nothing is removed."),
) -> None:
    """Show all data of a person, in every layer, and with --yes remove it for good.

    Exits with 1 if a receiver may still hold reports of the person, and prints the remedy.
    """
    with clear_errors():
        from developer_telemetry.errors import ConfigurationError

        if again == bool(person.strip()):
            raise ConfigurationError("name a developer or an e-mail address, or give --again")
        if again:
            _erase_again(connection, yes)
        else:
            _erase(person, connection, block, gone, yes)


def _erase(
    person: str, connection: Optional[int], block: bool, gone: "list[str]", yes: bool
) -> None:
    from developer_telemetry.errors import ConfigurationError
    from developer_telemetry.privacy.erasure import erase as run
    from developer_telemetry.privacy.erasure import forget_receiver, is_blocked
    from developer_telemetry.privacy.person_search import PersonSearch, is_personal_email
    from developer_telemetry.storage.tombstones import TombstoneKey

    settings = load_settings()
    engine = open_database(settings)
    say_database(engine)
    key = TombstoneKey(settings.encryption_secret)
    search = PersonSearch(engine, settings.encryption_secret, person, connection)
    people = search.people()
    _show(engine, people, f"The database has nothing of {search.text}.")
    if "@" in search.text and not is_personal_email(search.text.lower()):
        say(f"{search.text} is an address that tools fill in: these may be several people.")
    for email, other in search.namesakes(people):
        say(
            f"{other.developer_id} of connection {other.connection_id} is not meant, but has"
            f" an address of theirs: erase {email} for all who do"
        )
    if is_blocked(engine, search.subjects(key, people)) and not block:
        say("Reports for them are dropped now; without --block they are accepted again.")
    if not yes:
        say("Nothing was removed; --yes removes this, and what receivers have spooled.")
        return
    for name in gone:
        if not forget_receiver(engine, name):
            raise ConfigurationError(
                f"no receiver is called {name}; nothing was removed: take a name as this command"
                " shows it"
            )
    outcome = run(engine, key, search, people, block)
    _show_removed(outcome.removed)
    outstanding = [answer for answer in outcome.answers if answer.problem]
    for answer in outcome.answers:
        result = answer.problem or f"{answer.removed} reports removed from its spool"
        say(f"Receiver {answer.name}: {result}")
    if outstanding:
        say(
            f"NOT COMPLETE: {len(outstanding)} of {len(outcome.answers)} receivers did not confirm."
            " Nothing that they hold of this person gets into the database any more, but it may"
            " still be on their disks:",
            *(f"  {answer.name}: {answer.remedy}" for answer in outstanding),
            err=True,
        )
        raise typer.Exit(1)


def _erase_again(connection: Optional[int], yes: bool) -> None:
    from developer_telemetry.privacy.erasure import erase_again, find_returned
    from developer_telemetry.privacy.person_search import read_strategies
    from developer_telemetry.storage.tombstones import TombstoneKey

    settings = load_settings()
    engine = open_database(settings)
    say_database(engine)
    scope = read_strategies(engine, connection)
    people = find_returned(engine, TombstoneKey(settings.encryption_secret), scope)
    _show(engine, people, "The database has nothing of anybody who was erased.")
    if not yes:
        say("Nothing was removed; --yes removes what arrived before the erasure.")
    elif people:
        _show_removed(erase_again(engine, scope, people))


def _show(engine: "Engine", people: "Iterable[Person]", nobody: str) -> None:
    from developer_telemetry.privacy.person_data import PersonData, list_erased_tables

    tables = list_erased_tables(engine)
    rows = [["connection", "developer", *_COLUMNS.values()]]
    for person in people:
        counts = PersonData(engine, person, tables).counts()
        rows.append([*map(str, person), *(str(counts[name]) for name in _COLUMNS)])
    say(*(table(rows) if len(rows) > 1 else [nobody]))


def _show_removed(removed: "Counter[str]") -> None:
    gone = [f"{count} {_COLUMNS[name]}" for name, count in removed.items() if count]
    say(f"Removed: {', '.join(gone) or 'nothing from the database'}.")
