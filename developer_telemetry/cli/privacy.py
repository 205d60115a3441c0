"""Commands that delete data about people: `prune` and `erase`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Optional

import typer

from developer_telemetry.cli.common import (
    AS_JSON,
    CHECK_FAILED,
    CONNECTION,
    YES,
    chosen,
    chosen_id,
    clear_errors,
    confirm,
    open_database,
    say,
    say_database,
    table,
)
from developer_telemetry.config import load_settings
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import printable_json
from developer_telemetry.storage.tables import ERASED_TABLES

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from developer_telemetry.privacy.erasure import ReceiverAnswer
    from developer_telemetry.privacy.person_search import Person, PersonSearch
    from developer_telemetry.privacy.retention import PrunedRows, RetentionLimits
    from developer_telemetry.storage.tombstones import TombstoneKey

DRY_RUN = typer.Option(False, "--dry-run", help="Show what would be removed, and remove nothing.")
GONE = typer.Option(
    [],
    "--gone",
    metavar="RECEIVER",
    help="A receiver, as this command names it, whose spool does not exist any more.",
    show_default=False,
)

# An operator's words for the tables.
_COLUMNS = {table.name: table.label for table in ERASED_TABLES}


class Pruned(NamedTuple):
    """The rows of one connection that are removed, or would be."""

    connection: int
    limits: "RetentionLimits"
    rows: "PrunedRows"

    @property
    def first_days(self) -> dict[str, Optional[str]]:
        """Return the first days that stay, of reports and of days; None where all stay."""
        from developer_telemetry.storage.retention_marks import FIRST_DAY

        names = ("reports_before", "days_before")
        return {name: day if day != FIRST_DAY else None for name, day in zip(names, self.limits)}


def prune(
    connection: Optional[str] = CONNECTION,
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    as_json: bool = AS_JSON,
) -> None:
    """Show the reports and days that are older than their retention, and delete them.

    A receiver does the same once a day.
    """
    with clear_errors():
        from developer_telemetry.privacy.retention import PrunedRows, preview_prune
        from developer_telemetry.privacy.retention import prune as run

        settings = load_settings()
        engine = open_database(settings)
        say_database(engine)
        targets = chosen(engine, settings, connection)
        plan = [Pruned(target.id, *preview_prune(engine, target.id)) for target in targets]
        if dry_run or not any(any(item.rows) for item in plan):
            _show_pruned(plan, as_json, is_removed=False)
            return
        if not yes:
            say(*_prune_table(plan), err=as_json)
        confirm("Remove this?", yes)
        done = []
        for item in plan:
            rows = PrunedRows()
            for rows in run(engine, item.connection):  # noqa: B007  (the last one is the sum)
                pass
            done.append(item._replace(rows=rows))
        _show_pruned(done, as_json, is_removed=True)


def _show_pruned(pruned: Sequence[Pruned], as_json: bool, is_removed: bool) -> None:
    if as_json:
        rows = [
            {"connection": item.connection, **item.first_days, **item.rows._asdict()}
            for item in pruned
        ]
        say(printable_json({"removed": is_removed, "connections": rows}))
        return
    say(*_prune_table(pruned))
    if not is_removed:
        say("Nothing was removed.")


def _prune_table(pruned: Sequence[Pruned]) -> list[str]:
    from developer_telemetry.privacy.retention import PrunedRows

    rows = [["connection", "reports before", "days before", *PrunedRows._fields]]
    for item in pruned:
        days = [day or "(all kept)" for day in item.first_days.values()]
        rows.append([str(item.connection), *days, *map(str, item.rows)])
    return table(rows)


def erase(
    person: str = typer.Argument(
        "",
        metavar="DEVELOPER|EMAIL",
        help="A developer's id, spelled exactly so, or an e-mail address in any case.",
        show_default=False,
    ),
    connection: Optional[str] = CONNECTION,
    block: bool = typer.Option(
        False, "--block", help="Also drop reports sent for them later; senders get a 200."
    ),
    again: bool = typer.Option(
        False,
        "--again",
        help="Erase people again whose erased data is back in a restored database.",
    ),
    gone: list[str] = GONE,
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    as_json: bool = AS_JSON,
) -> None:
    """Show all data of a person, in every layer, and remove it for good.

    Exits with 1 if a receiver may still hold reports of the person, and prints the remedy.
    """
    with clear_errors():
        from developer_telemetry.privacy.person_search import PersonSearch
        from developer_telemetry.storage.tombstones import TombstoneKey

        if again == bool(person.strip()):
            raise ConfigurationError("name a developer or an e-mail address, or give --again")
        settings = load_settings()
        engine = open_database(settings)
        say_database(engine)
        only = chosen_id(engine, settings, connection)
        call = ErasureCall(engine, TombstoneKey(settings.encryption_secret), dry_run, yes, as_json)
        if again:
            _erase_again(call, only)
        else:
            search = PersonSearch(engine, settings.encryption_secret, person, only)
            _erase(call, search, block, gone)


# A person with the number of rows in each table.
_PersonCounts = list[tuple["Person", "Counter[str]"]]


class ErasureCall(NamedTuple):
    """One call of `erase`."""

    engine: "Engine"
    key: "TombstoneKey"
    dry_run: bool
    yes: bool
    as_json: bool

    def is_agreed(self, counted: _PersonCounts, remarks: Iterable[str]) -> bool:
        """Show what would be removed and ask; return False if nothing is to be removed."""
        if self.dry_run or not self.yes:
            self._record_look([person for person, _ in counted])
        is_result = self.dry_run and self.as_json
        if counted and not is_result:
            say(*_people_table(counted), err=self.as_json)
        for remark in remarks:
            say(remark, err=self.as_json)
        if self.dry_run:
            say("Nothing was removed.", err=self.as_json)
            if is_result:
                say(printable_json(_describe_erasure(counted, {}, [])))
            return False
        confirm("Remove this, and what receivers have spooled?", self.yes)
        return True

    def _record_look(self, people: "Sequence[Person]") -> None:
        from developer_telemetry.privacy.access_log import (
            ERASE,
            Look,
            name_system_user,
            record_look,
        )

        record_look(self.engine, people, Look(name_system_user(), ERASE, "numbers of rows"))


def _erase(call: ErasureCall, search: "PersonSearch", block: bool, gone: Sequence[str]) -> None:
    from developer_telemetry.privacy.erasure import erase as run
    from developer_telemetry.privacy.erasure import forget_receiver

    people = search.people()
    counted = _count_rows(call.engine, people)
    if not call.is_agreed(counted, _remarks(call, search, people, block)):
        return
    for name in gone:
        if not forget_receiver(call.engine, name):
            raise ConfigurationError(
                f"no receiver is called {name}; nothing was removed: take a name as this command"
                " shows it"
            )
    outcome = run(call.engine, call.key, search, people, block)
    _show_removed(call, counted, outcome.removed, outcome.answers)


def _remarks(
    call: ErasureCall, search: "PersonSearch", people: "Sequence[Person]", block: bool
) -> Iterator[str]:
    from developer_telemetry.privacy.erasure import is_blocked
    from developer_telemetry.privacy.person_search import is_personal_email

    if not people:
        yield f"The database has nothing of {search.text}."
    if "@" in search.text and not is_personal_email(search.text.lower()):
        yield f"{search.text} is an address that tools fill in: these may be several people."
    for email, other in search.namesakes(people):
        yield (
            f"{other.developer_id} of connection {other.connection_id} is not meant, but has"
            f" an address of theirs: erase {email} for all who do"
        )
    if is_blocked(call.engine, search.subjects(call.key, people)) and not block:
        yield "Reports for them are dropped now; without --block they are accepted again."


def _erase_again(call: ErasureCall, only: Optional[int]) -> None:
    from developer_telemetry.privacy.erasure import erase_again, find_returned
    from developer_telemetry.privacy.person_search import read_strategies

    scope = read_strategies(call.engine, only)
    people = find_returned(call.engine, call.key, scope)
    counted = _count_rows(call.engine, people)
    if not people:  # nothing to ask about
        call = call._replace(yes=True)
    remarks = [] if people else ["The database has nothing of anybody who was erased."]
    if call.is_agreed(counted, remarks):
        removed = erase_again(call.engine, scope, people) if people else Counter[str]()
        _show_removed(call, counted, removed, [])


def _count_rows(engine: "Engine", people: "Iterable[Person]") -> _PersonCounts:
    from developer_telemetry.privacy.person_data import PersonData, list_erased_tables

    tables = list_erased_tables(engine)
    return [(person, PersonData(engine, person, tables).counts()) for person in people]


def _people_table(counted: _PersonCounts) -> list[str]:
    rows = [["connection", "developer", *_COLUMNS.values()]]
    for person, counts in counted:
        rows.append([*map(str, person), *(str(counts[name]) for name in _COLUMNS)])
    return table(rows)


def _show_removed(
    call: ErasureCall,
    counted: _PersonCounts,
    removed: Mapping[str, int],
    answers: "Sequence[ReceiverAnswer]",
) -> None:
    """Show what was removed; end the command if a receiver did not confirm."""
    if call.as_json:
        say(printable_json(_describe_erasure(counted, removed, answers)))
    else:
        gone = [f"{count} {_COLUMNS[name]}" for name, count in removed.items() if count]
        say(f"Removed: {', '.join(gone) or 'nothing from the database'}.")
        for answer in answers:
            result = answer.problem or f"{answer.removed} reports removed from its spool"
            say(f"Receiver {answer.name}: {result}")
    outstanding = [answer for answer in answers if answer.problem]
    if outstanding:
        say(
            f"NOT COMPLETE: {len(outstanding)} of {len(answers)} receivers did not confirm."
            " Nothing that they hold of this person gets into the database any more, but it may"
            " still be on their disks:",
            *(f"  {answer.name}: {answer.remedy}" for answer in outstanding),
            err=True,
        )
        raise typer.Exit(CHECK_FAILED)


def _describe_erasure(
    counted: _PersonCounts, removed: Mapping[str, int], answers: "Sequence[ReceiverAnswer]"
) -> dict[str, object]:
    def words(counts: Mapping[str, int]) -> dict[str, int]:
        return {label.replace(" ", "_"): counts.get(name, 0) for name, label in _COLUMNS.items()}

    people = [
        {"connection": person.connection_id, "developer": person.developer_id, "rows": words(rows)}
        for person, rows in counted
    ]
    receivers = [answer._asdict() for answer in answers]
    return {"people": people, "removed": words(removed), "receivers": receivers}
