"""Test that the processing record follows the settings, in both languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.config import load_settings
from developer_telemetry.constants import OVERWRITE
from developer_telemetry.privacy.processing_record import (
    ConnectionFacts,
    ErasureFacts,
    PageAccess,
    RecordFacts,
    read_facts,
    write_record,
)
from developer_telemetry.privacy.record_phrases import ENGLISH, GERMAN, Language
from developer_telemetry.storage.tables import TABLES
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.receivers import SECRET, add_connection, query, run_command

CONNECTION = ConnectionFacts(3, "web team", False, False, 0, 0, 5, False, 12)
FACTS = RecordFacts(
    written="2026-11-29",
    release="1.2.3",
    database="mysql://db/lake",
    public_url="https://devlake.example.com/api",
    contact="privacy@example.com",
    page_access=PageAccess.ADMIN_TOKEN,
    retire_days=30,
    connections=(CONNECTION,),
    erasures=ErasureFacts(0, 0, ""),
    tables=(("a_table", ("name", "host")),),
)
# A change of each fact, and what the changed text then has in English and in German.
CHANGES: list[tuple[dict[str, Any], str, str]] = [
    ({"written": "2026-12-01"}, "Written on 2026-12-01", "Geschrieben am 2026-12-01"),
    ({"release": "9.9"}, "(release 9.9)", "(Version 9.9)"),
    ({"database": "postgresql://x/y"}, "`postgresql://x/y`", "`postgresql://x/y`"),
    ({"public_url": "https://other.example"}, "other.example", "other.example"),
    ({"public_url": ""}, "PUBLIC_URL is not set", "PUBLIC_URL ist nicht gesetzt"),
    ({"contact": "the council"}, "data: the council", "Daten: the council"),
    ({"contact": ""}, "not set (TELEMETRY_PRIVACY_CONTACT)", "nicht angegeben"),
    ({"page_access": PageAccess.LOCAL}, "without a sign-in", "ohne Anmeldung"),
    ({"page_access": PageAccess.NOBODY}, "It is closed", "Sie ist geschlossen"),
    ({"retire_days": 7}, "for 7 days", "seit 7 Tagen"),
    ({"retire_days": 0}, "until an operator retires it", "bis ein Betreiber"),
    (
        {"erasures": ErasureFacts(4, 1, "2026-11-02")},
        "so far: 4, the last on",
        "bisher: 4, zuletzt",
    ),
    ({"tables": (("b_table", ("e_mail",)),)}, "| `b_table` | e_mail |", "| `b_table` | e_mail |"),
]
OF_CONNECTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"id": 8}, "(id 8)", "(Nummer 8)"),
    ({"name": "a|b"}, "a\\|b", "a\\|b"),
    ({"strip_paths": True}, "Paths are removed", "Pfade werden vor dem Speichern"),
    ({"pseudonyms": True}, "replaced by keyed hashes", "durch Hashwerte"),
    ({"raw_retention_days": 30}, "as they were sent: 30 days", "Wortlaut: 30 Tage"),
    ({"tool_retention_days": 400}, "record of looks: 400 days", "Zugriffen: 400 Tage"),
    ({"smallest_group": 9}, "at least 9 different", "mindestens 9 verschiedene"),
    ({"smallest_group": 1}, "of a single person", "einer einzelnen Person"),
    ({"adds_up": True}, "are added up for a day", "für einen Tag addiert"),
    ({"developers": 77}, "People with rows: 77", "Personen mit Zeilen: 77"),
]
ALL = [
    *(pytest.param(FACTS._replace(**change), *texts, id=str(change)) for change, *texts in CHANGES),
    *(
        pytest.param(
            FACTS._replace(connections=(CONNECTION._replace(**change),)), *texts, id=str(change)
        )
        for change, *texts in OF_CONNECTIONS
    ),
]


@pytest.mark.parametrize(("facts", "english", "german"), ALL)
def test_a_changed_fact_changes_the_text(facts: RecordFacts, english: str, german: str) -> None:
    for language, expected in ((Language.ENGLISH, english), (Language.GERMAN, german)):
        before, after = write_record(FACTS, language), write_record(facts, language)
        assert expected in " ".join(after.split())
        assert expected not in " ".join(before.split())


def test_every_fact_has_a_change_above() -> None:
    changed = {name for change, *_ in CHANGES for name in change}
    of_connections = {name for change, *_ in OF_CONNECTIONS for name in change}

    assert changed | {"connections"} == set(RecordFacts._fields)
    assert of_connections == set(ConnectionFacts._fields)


def test_both_languages_use_the_same_facts_and_the_same_markup() -> None:
    for english, german in zip(ENGLISH, GERMAN):
        for sign in ("{", "## ", "\n- ", "| "):
            assert english.count(sign) == german.count(sign), (english, german)
        assert english != german or english == ""


def test_reports_are_deleted_with_their_rows_at_the_latest() -> None:
    connection = CONNECTION._replace(raw_retention_days=90, tool_retention_days=60)

    text = write_record(FACTS._replace(connections=(connection,)), Language.ENGLISH)

    assert "as they were sent: 60 days" in text


def test_the_facts_are_those_of_the_database(engine: Engine, migrated_url: str) -> None:
    first, second = add_connection(migrated_url), add_connection(migrated_url, strategy="sum")
    store(engine, [arrival(connection_id=first)], {first: OVERWRITE})
    table = "_tool_developer_telemetry_connections"
    query(migrated_url, f"UPDATE {table} SET raw_retention_days = 30 WHERE id = {first}")
    query(migrated_url, f"UPDATE {table} SET smallest_group = 8 WHERE id = {second}")
    is_true = "true" if engine.dialect.name == "postgresql" else "1"
    query(
        migrated_url,
        "INSERT INTO _tool_developer_telemetry_tombstones (connection_id, subject, erased_us,"
        f" blocked) VALUES (0, 'a', 1795000000000000, {is_true}),"
        f" (0, 'b', 1795000000000000, {is_true})",
    )
    settings = load_settings({"DB_URL": migrated_url, "ENCRYPTION_SECRET": SECRET})

    facts = read_facts(engine, settings, "1.2.3")
    only = read_facts(engine, settings, "1.2.3", second)

    assert [(one.id, one.developers, one.raw_retention_days) for one in facts.connections] == [
        (first, 1, 30),
        (second, 0, 0),
    ]
    assert [(one.id, one.smallest_group, one.adds_up) for one in only.connections] == [
        (second, 8, True)
    ]
    assert facts.erasures == ErasureFacts(1, 1, "2026-11-18")
    assert {name for name, _ in facts.tables} == {
        table.name for table in TABLES if table.personal
    } & {name for name, _ in facts.tables}
    assert SECRET not in write_record(facts, Language.ENGLISH)


def test_the_command_prints_it(tmp_path: Path) -> None:
    settings = {"DB_URL": "", "ENCRYPTION_SECRET": "", "TELEMETRY_DATA_DIR": str(tmp_path / "data")}
    assert run_command(tmp_path, "connect", "web", "--strip-paths", **settings).returncode == 0
    contact = {"TELEMETRY_PRIVACY_CONTACT": "the council"}

    english = run_command(tmp_path, "processing-record", **settings, **contact).stdout
    german = run_command(tmp_path, "processing-record", "--language", "de", **settings).stdout

    assert english.startswith("# Processing record: developer telemetry\n")
    assert "the council" in english
    assert "Paths are removed" in english
    assert german.startswith("# Verarbeitungsverzeichnis")
    assert "Pfade werden vor dem Speichern" in german
