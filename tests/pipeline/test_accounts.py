"""The people of the tool layer as accounts of DevLake's domain layer, on every database."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import ACCOUNT_TABLE, TOOL_TABLE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.pipeline.accounts import (
    ACCOUNT_COLUMNS,
    convert_accounts,
    read_newest_above,
)
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.devlake_schema import make_account_id
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.layers import BOTH, STRATEGIES, insert_go_plugin_row, traffic
from tests.support.rows import Row, raw_rows, rows


def accounts(engine: Engine) -> list[Row]:
    return rows(engine, ACCOUNT_TABLE, ACCOUNT_COLUMNS, "id")


def converted(engine: Engine, *arrivals: ReceivedReport) -> list[Row]:
    """All accounts after these reports arrived and both connections were converted."""
    store(engine, arrivals, STRATEGIES)
    for connection_id in STRATEGIES:
        for _ in convert_accounts(engine, connection_id):
            pass
    return accounts(engine)


def account_of(engine: Engine, *arrivals: ReceivedReport) -> Row:
    [account] = converted(engine, *arrivals)
    return account


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_an_account_says_who_it_is_and_where_it_came_from(engine: Engine) -> None:
    account = account_of(engine, arrival(email="ann@example.com", name="Ann Lee"))
    assert account == {
        "id": "developer_telemetry:Account:1:ann.lee",
        "email": "ann@example.com",
        "full_name": "Ann Lee",
        "user_name": "ann.lee",
        "created_at": "2026-11-23 20:26:40.123",
        "updated_at": "2026-11-23 20:26:40.123",
        "_raw_data_params": '{"ConnectionId":1,"ScopeId":"all"}',
        "_raw_data_table": "_raw_developer_telemetry",
        "_raw_data_id": raw_rows(engine)[0]["id"],
        "_raw_data_remark": "",
    }


def test_a_developer_has_one_account_however_many_days_and_hosts(engine: Engine) -> None:
    days = [
        arrival(date=f"2026-11-{day}", hostname=host, after=day, connection_id=connection_id)
        for day in (21, 22, 23)
        for host in ("laptop", "tower")
        for connection_id in STRATEGIES
    ]
    assert [account["id"] for account in converted(engine, *days)] == [
        "developer_telemetry:Account:1:ann.lee",
        "developer_telemetry:Account:2:ann.lee",
    ]


def test_email_and_name_are_the_newest_that_are_not_empty(engine: Engine) -> None:
    account = account_of(
        engine,
        # By arrival, not by date: the collector may send an older day later.
        arrival(date="2026-11-25", after=1, email="first@example.com", name="First"),
        arrival(date="2026-11-21", after=2, email="second@example.com", name=""),
        arrival(date="2026-11-24", after=3, email="", name="Third"),
        arrival(date="2026-11-22", after=4, email="", name=""),
    )
    assert (account["email"], account["full_name"]) == ("second@example.com", "Third")
    assert account["updated_at"] == "2026-11-23 20:26:44.123"
    assert account["_raw_data_id"] == raw_rows(engine)[-1]["id"]


def test_a_developer_without_email_and_name_has_an_account(engine: Engine) -> None:
    account = account_of(engine, arrival())
    assert (account["email"], account["full_name"], account["user_name"]) == ("", "", "ann.lee")


def test_converting_again_changes_nothing(engine: Engine) -> None:
    many = [arrival(developer=f"developer-{n}", name=f"Name {n}") for n in range(3)]
    before = converted(engine, *many)
    assert converted(engine) == before


def test_a_newer_report_changes_the_account_and_keeps_its_creation(engine: Engine) -> None:
    before = account_of(engine, arrival(email="old@example.com", name="Ann"))
    after = account_of(engine, arrival(after=60, email="new@example.com", date="2026-11-24"))
    assert after == {
        **before,
        "email": "new@example.com",
        "updated_at": "2026-11-23 20:27:40.123",
        "_raw_data_id": raw_rows(engine)[-1]["id"],
    }


def test_what_others_keep_in_an_account_stays(engine: Engine) -> None:
    converted(engine, arrival())
    change(engine, "UPDATE accounts SET organization = 'Platform', avatar_url = 'https://x/a.png'")
    converted(engine, arrival(after=60, name="Ann"))
    assert rows(engine, ACCOUNT_TABLE, ("full_name", "organization", "avatar_url"), "id") == [
        {"full_name": "Ann", "organization": "Platform", "avatar_url": "https://x/a.png"}
    ]


def test_an_account_stays_when_its_rows_are_gone(engine: Engine) -> None:
    before = converted(engine, arrival())
    change(engine, f"DELETE FROM {TOOL_TABLE}")
    assert converted(engine) == before


def test_only_the_accounts_of_the_connection_are_written(engine: Engine) -> None:
    store(engine, [arrival(connection_id=1), arrival(connection_id=2)], STRATEGIES)
    assert [(step.done, step.total) for step in convert_accounts(engine, 2)] == [(1, 1)]
    assert rows(engine, ACCOUNT_TABLE, ("id",), "id") == [
        {"id": "developer_telemetry:Account:2:ann.lee"}
    ]


def test_a_row_without_a_raw_row_gives_an_account(engine: Engine) -> None:
    values: dict[str, Any] = {
        "connection_id": 1,
        "developer_id": "ann.lee",
        "date": "2026-11-23",
        "email": None,
        "name": "Ann",
        "updated_at": "2025-01-01 00:00:00.000",
    }
    with engine.begin() as connection:
        insert(connection, TOOL_TABLE, list(values), [tuple(values.values())], "")
    account = account_of(engine)
    assert (account["email"], account["full_name"]) == ("", "Ann")
    assert account["_raw_data_id"] == 0


def test_more_developers_than_a_batch_holds_all_get_accounts(engine: Engine) -> None:
    many = [arrival(developer=f"developer-{n}", email=f"{n}@example.com") for n in range(501)]
    store(engine, many, STRATEGIES)
    steps = [(step.done, step.total) for step in convert_accounts(engine, 1)]
    assert steps == [(done, 501) for done in (100, 200, 300, 400, 500, 501)]
    found = {row["user_name"]: row["email"] for row in converted(engine)}
    assert found == {f"developer-{n}": f"{n}@example.com" for n in range(501)}


@BOTH
@pytest.mark.parametrize("seed", range(1, 9))
def test_accounts_made_of_what_is_new_are_those_made_of_everything(
    engine: Engine, strategy: str, seed: int
) -> None:
    random = Random(seed)
    reports = [each._replace(connection_id=1) for each in traffic(seed, 60)]
    insert_go_plugin_row(engine, "zoë")
    above = 0
    while reports:
        last = max((row["id"] for row in raw_rows(engine)), default=0)
        batch = [reports.pop() for _ in range(min(len(reports), random.randint(1, 8)))]
        # Some of them out of archives, which do not say when they arrived.
        batch = [
            each._replace(arrived_us=each.arrived_us * (random.random() > 0.2)) for each in batch
        ]
        store(engine, batch, {1: strategy})
        # A run looks once more at what came shortly before the last one.
        above = random.randint(above, last)
        for _ in convert_accounts(engine, 1, read_newest_above(engine, 1, above) if last else None):
            pass
        found = accounts(engine)
        assert converted(engine) == found


def test_an_archives_day_does_not_pass_for_newer_than_a_report_that_arrived(engine: Engine) -> None:
    pushed = arrival(email="new@example.com", name="Ann")
    before = account_of(engine, pushed)
    old = arrival(date="2026-11-30", email="old@example.com", name="A.")._replace(arrived_us=0)
    store(engine, [old], STRATEGIES)
    [(done, _)] = convert_accounts(
        engine, 1, read_newest_above(engine, 1, raw_rows(engine)[0]["id"])
    )
    assert done == 1
    assert accounts(engine) == [before]


def test_names_that_look_alike_have_accounts_of_their_own(exact_engine: Engine) -> None:
    names = ["Irfan", "irfan", "jose", "josé", "jose\u0301", "DESKTOP-7\\ann", "🐙"]
    accounts = converted(exact_engine, *[arrival(developer=name, name=name) for name in names])
    assert {account["user_name"]: account["full_name"] for account in accounts} == {
        name: name for name in names
    }


def test_developers_between_two_spellings_of_one_name_have_accounts(exact_engine: Engine) -> None:
    names = ["Irfan", "ann", "bob", "irfan"]
    accounts = converted(exact_engine, *[arrival(developer=name) for name in names])
    assert sorted(account["user_name"] for account in accounts) == names


LONGEST = "é" * (255 - len("developer_telemetry:Account:1:"))


def test_an_id_that_fits_is_spelled_out() -> None:
    assert make_account_id(1, LONGEST) == f"developer_telemetry:Account:1:{LONGEST}"
    assert len(make_account_id(1, LONGEST)) == 255


@pytest.mark.parametrize("connection_id", [1, 10, 2**63 - 1])
def test_an_id_that_would_not_fit_has_the_developer_hashed(connection_id: int) -> None:
    developer = LONGEST + "é"
    digest = hashlib.sha256(developer.encode()).hexdigest()
    assert make_account_id(connection_id, developer) == (
        f"developer_telemetry:Account:{connection_id}:{digest}"
    )


def test_developers_of_255_characters_have_accounts_of_their_own(engine: Engine) -> None:
    names = ["🐙" * 254 + end for end in "ab"]
    accounts = converted(engine, *[arrival(developer=name) for name in names])
    assert sorted(account["user_name"] for account in accounts) == names
    assert len({account["id"] for account in accounts}) == 2
