"""Commands that tell people what is stored: `me-link` and `processing-record`."""

import time
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from developer_telemetry import __version__
from developer_telemetry.cli.common import (
    AS_JSON,
    CONNECTION,
    base_url,
    chosen_id,
    clear_errors,
    open_database,
    say,
)
from developer_telemetry.config import load_settings
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.printable import iso_time, printable_json
from developer_telemetry.privacy.record_phrases import Language

if TYPE_CHECKING:
    from collections.abc import Sequence

    from developer_telemetry.privacy.person_search import Person

MOST_HOURS = 24
ENGLISH = Language.ENGLISH


def me_link(
    person: str = typer.Argument(
        metavar="DEVELOPER|EMAIL",
        help="A developer's id, spelled exactly so, or an e-mail address in any case.",
        show_default=False,
    ),
    connection: Optional[str] = CONNECTION,
    hours: int = typer.Option(
        MOST_HOURS, min=1, max=MOST_HOURS, help="The hours for which the link can be opened."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Print a link to a developer's own page.

    The page has all that is stored about them. Give the link to that developer alone: each person
    who opens it sees the page, and the look is recorded with your name.
    """
    with clear_errors():
        from developer_telemetry.privacy.access_log import name_system_user
        from developer_telemetry.privacy.person_search import PersonSearch
        from developer_telemetry.privacy.personal_links import (
            PersonalLinks,
            PersonalView,
            page_path,
        )

        settings = load_settings()
        engine = open_database(settings)
        only = chosen_id(engine, settings, connection)
        search = PersonSearch(engine, settings.encryption_secret, person, only)
        target = _one_person(search.people(), search.text)
        until = int(time.time()) + hours * 3600
        links = PersonalLinks(settings.encryption_secret)
        token = links.make_link(PersonalView(*target, until, name_system_user()))
        url = base_url(settings) + page_path(token)
        if as_json:
            names = ("connection", "developer", "url", "valid_until")
            values = (*target, url, iso_time(until * 1_000_000))
            say(printable_json(dict(zip(names, values))))
            return
        say(
            f"A page for {target.developer_id} of connection {target.connection_id}; it opens"
            f" until {iso_time(until * 1_000_000)}, for an hour each time:",
            err=True,
        )
        say(url)


def _one_person(people: "Sequence[Person]", text: str) -> "Person":
    if not people:
        raise ConfigurationError(f"nothing is stored of {text!r}; check the spelling")
    if len(people) > 1:
        names = ", ".join(f"{who.developer_id} of connection {who.connection_id}" for who in people)
        raise ConfigurationError(
            f"{text!r} stands for several developers ({names}); give one of these ids and"
            " --connection"
        )
    return people[0]


def processing_record(
    language: Annotated[Language, typer.Option(help="en: English, de: German.")] = ENGLISH,
    connection: Optional[str] = CONNECTION,
) -> None:
    """Write the processing record as Markdown.

    It has what is processed about people, by the settings in force, for a works council or a
    data-protection officer. Run it with the receiver's settings.
    """
    with clear_errors():
        from developer_telemetry.privacy.processing_record import read_facts, write_record

        settings = load_settings()
        engine = open_database(settings)
        only = chosen_id(engine, settings, connection)
        facts = read_facts(engine, settings, __version__, only)
        say(*write_record(facts, language).splitlines())
