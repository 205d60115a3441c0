"""DevLake's tables in a character set that takes people for equal, or has no letters for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.config import load_settings
from developer_telemetry.constants import ACCOUNT_TABLE, OVERWRITE, TASK_TABLE
from developer_telemetry.database.domain_texts import TableTexts
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.diagnostics import checks
from developer_telemetry.diagnostics.check import Check
from developer_telemetry.diagnostics.facts import Facts, read_database
from developer_telemetry.pipeline.accounts import convert_accounts
from developer_telemetry.pipeline.cicd_tasks import convert_tasks
from developer_telemetry.privacy.person_data import PersonData, list_erased_tables
from developer_telemetry.privacy.person_search import Person
from developer_telemetry.privacy.retention import prune
from developer_telemetry.storage.devlake_schema import TABLES_OF_PEOPLE, make_account_id
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.rows import rows

PEOPLE = ["Irfan", "irfan", "jose", "josé", "straße", "strasse", "🔑", "🔒", "漢字", "ann\tlee"]
STRATEGIES = {1: OVERWRITE}

CHARACTER_SETS = [
    "utf8mb3 COLLATE utf8mb3_general_ci",
    "utf8mb4 COLLATE utf8mb4_general_ci",
    "utf8mb4 COLLATE utf8mb4_bin",
    "latin1 COLLATE latin1_swedish_ci",
]


@pytest.fixture
def engine(mariadb_url: str) -> Iterator[Engine]:
    engine = open_engine(mariadb_url)
    migrate(engine)
    yield engine
    engine.dispose()


def set_to(engine: Engine, character_set: str) -> None:
    with engine.begin() as connection:
        for table in (ACCOUNT_TABLE, TASK_TABLE):
            connection.exec_driver_sql(
                f"ALTER TABLE {table} CONVERT TO CHARACTER SET {character_set}"
            )


def character_sets(engine: Engine) -> Check:
    url = engine.url.render_as_string(hide_password=False)
    settings = load_settings({"DB_URL": url, "ENCRYPTION_SECRET": "secret"})
    [check] = checks.character_sets(Facts(read_database(engine, settings)))
    return check


def people(engine: Engine, table: str) -> list[str]:
    return [row["id"] for row in rows(engine, table, ["id"], "id")]


def ran(engine: Engine) -> None:
    for _ in convert_accounts(engine, 1):
        pass
    for _ in convert_tasks(engine, 1):
        pass


@pytest.mark.parametrize("character_set", CHARACTER_SETS)
def test_each_person_has_an_account_and_tasks_and_each_alone_can_be_removed(
    engine: Engine, character_set: str
) -> None:
    set_to(engine, character_set)
    sent = [
        arrival(developer=each, name=f"{each} 🐎", metrics={"test_runs": 1, "git_activity": {}})
        for each in PEOPLE
    ]
    store(engine, sent, STRATEGIES)

    ran(engine)
    before = people(engine, ACCOUNT_TABLE)
    tasks = people(engine, TASK_TABLE)
    ran(engine)

    assert people(engine, ACCOUNT_TABLE) == before
    assert len(set(before)) == len(PEOPLE)
    assert people(engine, TASK_TABLE) == tasks
    assert len({each.split(":")[3] for each in tasks}) in (0, len(PEOPLE))
    remaining = len(PEOPLE)
    for removed in ("Irfan", "🔑", "jose"):
        remaining -= _removed(engine, removed)
        assert len(people(engine, ACCOUNT_TABLE)) == remaining


def _removed(engine: Engine, developer: str) -> int:
    traces = PersonData(engine, Person(1, developer), list_erased_tables(engine))
    assert traces.counts()[ACCOUNT_TABLE] == 1
    traces.remove_days(OVERWRITE, None)
    removed = traces.remove_rest()
    assert removed[ACCOUNT_TABLE] == 1
    assert not traces.counts()
    return 1


def test_whose_days_are_pruned_loses_no_one_elses_account(engine: Engine) -> None:
    set_to(engine, CHARACTER_SETS[0])
    store(engine, [arrival(developer="Irfan", date="2020-01-01")], STRATEGIES)
    store(engine, [arrival(developer="irfan")], STRATEGIES)
    ran(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO _tool_developer_telemetry_connections"
            " (id, name, endpoint, raw_retention_days, tool_retention_days)"
            " VALUES (1, 'fleet', '', 1000, 1000)"
        )

    list(prune(engine, 1))

    assert people(engine, ACCOUNT_TABLE) == [make_account_id(1, "irfan")]


@pytest.mark.parametrize(
    ("charset", "text", "taken"),
    [
        ("utf8mb3", "Zoë 🐎", "Zoë \ufffd"),
        ("utf8mb4", "Zoë 🐎", "Zoë 🐎"),
        ("latin1", "Zoë 漢", "Zoë ?"),
        ("koi8r", "Zoë", "Zo?"),
    ],
)
def test_what_a_table_has_no_character_for_is_replaced(charset: str, text: str, taken: str) -> None:
    assert TableTexts(False, charset).text(text) == taken


def test_doctor_names_such_tables_and_what_to_do(engine: Engine) -> None:
    assert not character_sets(engine).remedy
    set_to(engine, CHARACTER_SETS[0])

    check = character_sets(engine)

    named: Sequence[str] = [
        each for each in TABLES_OF_PEOPLE if f"{each} (utf8mb3" in check.message
    ]
    assert named == ["accounts", "cicd_tasks"]
    assert "CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" in check.remedy
