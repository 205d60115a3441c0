"""Test which users our accounts are linked to without DevLake's plugin, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import LINK_TABLE, MADE_LINK_TABLE, OVERWRITE
from developer_telemetry.database.bulk_insert import MAX_ROWS, insert
from developer_telemetry.pipeline.accounts import convert_accounts
from developer_telemetry.pipeline.user_links import fold_case, link_accounts
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.writer import store
from tests.support.devlake_tables import devlake_tables
from tests.support.factories import arrival
from tests.support.rows import rows

ANN = arrival(email="ann@example.org", name="Ann Lee")
ACCOUNT = "developer_telemetry:Account:1:ann.lee"


@pytest.fixture
def devlake(engine: Engine) -> Iterator[Engine]:
    """A database that also has DevLake's tables of users."""
    with devlake_tables(engine):
        yield engine


def execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def add_users(engine: Engine, *users: tuple[str, str, str]) -> None:
    """Add users: id, e-mail, name."""
    with engine.begin() as connection:
        insert(connection, "users", ("id", "email", "name"), users, "")


def link_by_hand(engine: Engine, user: str, account: str = ACCOUNT) -> None:
    """Do what DevLake's import of a mapping does: of an account there is one row."""
    execute(engine, f"DELETE FROM {LINK_TABLE} WHERE account_id = '{account}'")
    with engine.begin() as connection:
        insert(connection, LINK_TABLE, ("user_id", "account_id"), [(user, account)], "")


def linked(engine: Engine, *arrivals: ReceivedReport) -> dict[str, str]:
    """Return the users of accounts, after these reports and a conversion."""
    store(engine, arrivals, {1: OVERWRITE, 2: OVERWRITE})
    before, made = len(links_of(engine)), 0
    for connection_id in (1, 2):
        for _ in convert_accounts(engine, connection_id):
            pass
        made += max(link_accounts(engine, connection_id), default=0)
    links = links_of(engine)
    assert len(links) == before + made
    return links


def links_of(engine: Engine) -> dict[str, str]:
    found = rows(engine, LINK_TABLE, ("account_id", "user_id"), "account_id")
    return {row["account_id"]: row["user_id"] for row in found}


def records(engine: Engine) -> list[tuple[Any, ...]]:
    columns = ("account_id", "connection_id", "user_id", "matched_by", "matched_text")
    return [tuple(row.values()) for row in rows(engine, MADE_LINK_TABLE, columns, "account_id")]


@pytest.mark.parametrize(
    ("email", "name", "developer", "user", "matched_by"),
    [
        ("ann@example.org", "Bob Builder", "cem", "by_email", "email"),
        ("ann@elsewhere.org", "Bob Builder", "cem", "by_name", "full_name"),
        ("", "Bob Builder", "cem", "by_name", "full_name"),
        ("", "Someone Else", "cem", "by_user_name", "user_name"),
        ("Ann@Example.ORG", "Bob Builder", "cem", "by_email", "email"),
        ("", "bob BUILDER", "cem", "by_name", "full_name"),
        ("", "", "CEM", "by_user_name", "user_name"),
        ("", "", "dan", None, None),
    ],
)
def test_email_then_full_name_then_user_name_decide(
    devlake: Engine,
    email: str,
    name: str,
    developer: str,
    user: Optional[str],
    matched_by: Optional[str],
) -> None:
    add_users(
        devlake,
        ("by_email", "ann@example.org", "Ann"),
        ("by_name", "", "Bob Builder"),
        ("by_user_name", "cem@example.org", "cem"),
        ("nobody", "", ""),
    )
    links = linked(devlake, arrival(developer=developer, email=email, name=name))
    assert list(links.values()) == ([user] if user else [])
    assert [row[2:4] for row in records(devlake)] == ([(user, matched_by)] if user else [])


def test_of_users_who_differ_by_case_the_exact_one_counts_else_the_last(devlake: Engine) -> None:
    add_users(
        devlake,
        ("a", "Ann@example.org", ""),
        ("b", "ann@example.org", ""),
        ("c", "ANN@example.org", ""),
    )
    links = linked(
        devlake,
        arrival(developer="x", email="ann@example.org"),
        arrival(developer="y", email="aNN@example.org"),
    )
    assert list(links.values()) == ["b", "c"]


def test_databases_that_ignore_case_and_spaces_link_as_others(exact_engine: Engine) -> None:
    with devlake_tables(exact_engine):
        add_users(exact_engine, ("u1", "", "ann"), ("u2", "", "ANN"), ("u3", "", "bob "))
        sent = [arrival(developer=name) for name in ("ann", "ANN", "bob")]
        assert sorted(linked(exact_engine, *sent).values()) == ["u1", "u2"]


def test_of_some_developers_no_other_account_is_linked(devlake: Engine) -> None:
    bob = arrival(developer="bob")
    linked(devlake, ANN, bob)
    add_users(devlake, ("u1", "", "ann.lee"), ("u2", "", "bob"))
    assert list(link_accounts(devlake, 1, ["bob", "unheard"])) == [1]
    assert set(links_of(devlake).values()) == {"u2"}
    assert list(link_accounts(devlake, 1, [])) == []


def test_of_users_with_one_address_the_last_one_counts(devlake: Engine) -> None:
    add_users(devlake, ("a", "ann@example.org", ""), ("b", "ann@example.org", ""))
    assert linked(devlake, ANN) == {ACCOUNT: "b"}


def test_a_link_has_the_origin_of_its_account(devlake: Engine) -> None:
    add_users(devlake, ("ann", "ann@example.org", "Ann"))
    linked(devlake, ANN)
    origin = ("_raw_data_params", "_raw_data_table", "_raw_data_id", "_raw_data_remark")
    [link] = rows(devlake, LINK_TABLE, (*origin, "created_at", "updated_at"), "account_id")
    [account] = rows(devlake, "accounts", origin, "id")
    assert {column: link[column] for column in origin} == account
    assert link["created_at"] == link["updated_at"] is not None


def test_accounts_of_others_stay_unlinked(devlake: Engine) -> None:
    add_users(devlake, ("ann", "ann@example.org", "Ann"))
    columns = ("id", "email", "_raw_data_params", "_raw_data_table")
    others = [
        ("github:GithubAccount:1:7", "ann@example.org", '{"ConnectionId":1}', "_raw_github_users"),
        (f"{ACCOUNT}x", "ann@example.org", '{"ConnectionId":1,"ScopeId":"all"}', "_raw_other"),
    ]
    with devlake.begin() as connection:
        insert(connection, "accounts", columns, others, "")
    assert linked(devlake, ANN) == {ACCOUNT: "ann"}


def test_a_link_removed_by_hand_is_not_made_again(devlake: Engine) -> None:
    add_users(devlake, ("ann", "ann@example.org", "Ann"), ("new", "ann@new.example", "New"))
    assert linked(devlake, ANN) == {ACCOUNT: "ann"}
    execute(devlake, f"DELETE FROM {LINK_TABLE}")
    assert linked(devlake) == {}
    assert linked(devlake, arrival(after=60, email="ann@example.org", name="Anna")) == {}
    # Another text decides: that is no longer what the operator has judged.
    assert linked(devlake, arrival(after=90, email="ann@new.example")) == {ACCOUNT: "new"}


def test_a_link_removed_by_hand_is_not_made_again_for_a_changed_user(devlake: Engine) -> None:
    add_users(devlake, ("ann", "ann@example.org", "Ann"))
    linked(devlake, ANN)
    execute(devlake, f"DELETE FROM {LINK_TABLE}")
    execute(devlake, "UPDATE users SET id = 'ann.2'")
    assert linked(devlake) == {ACCOUNT: "ann.2"}


def test_a_link_changed_by_an_import_of_a_mapping_stays(devlake: Engine) -> None:
    add_users(devlake, ("ann", "ann@example.org", "Ann"), ("bob", "bob@example.org", "Bob"))
    linked(devlake, ANN)
    link_by_hand(devlake, "bob")
    assert linked(devlake) == {ACCOUNT: "bob"}
    execute(devlake, f"DELETE FROM {LINK_TABLE}")  # an import of an empty mapping
    assert linked(devlake) == {}


def test_a_link_made_by_org_before_is_recorded(devlake: Engine) -> None:
    add_users(devlake, ("ann", "ann@example.org", "Ann"))
    link_by_hand(devlake, "ann")
    assert linked(devlake, ANN) == {ACCOUNT: "ann"}
    assert records(devlake) == [(ACCOUNT, 1, "ann", "email", "ann@example.org")]
    execute(devlake, f"DELETE FROM {LINK_TABLE}")
    assert linked(devlake) == {}


def test_a_link_that_the_rule_does_not_give_is_not_recorded(devlake: Engine) -> None:
    add_users(devlake, ("ann", "ann@example.org", "Ann"))
    link_by_hand(devlake, "boss")
    assert linked(devlake, ANN) == {ACCOUNT: "boss"}
    assert records(devlake) == []


def test_users_added_later_are_linked(devlake: Engine) -> None:
    assert linked(devlake, ANN) == {}
    add_users(devlake, ("ann", "ann@example.org", "Ann"))
    assert linked(devlake) == {ACCOUNT: "ann"}


def test_accounts_of_several_pages_and_connections_are_linked(devlake: Engine) -> None:
    numbers = range(MAX_ROWS + 1)
    add_users(devlake, *((f"u{number}", f"{number}@example.org", "") for number in numbers))
    reports = [
        arrival(developer=f"dev-{number}", email=f"{number}@EXAMPLE.org") for number in numbers
    ]
    links = linked(devlake, *reports, arrival(connection_id=2, email="7@example.org"))
    own = {f"developer_telemetry:Account:1:dev-{number}": f"u{number}" for number in numbers}
    assert links == {**own, "developer_telemetry:Account:2:ann.lee": "u7"}


def test_a_database_without_users_has_no_links(engine: Engine) -> None:
    store(engine, [ANN], {1: OVERWRITE})
    for _ in convert_accounts(engine, 1):
        pass
    assert list(link_accounts(engine, 1)) == []


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Ann@Example.ORG", "ann@example.org"),
        ("ZOË ÅSTRÖM", "zoë åström"),
        ("ΣΟΦΟΣ", "σοφοσ"),  # no final sigma
        ("İSTANBUL", "istanbul"),  # without the dot of two letters
        ("straße", "straße"),
        ("ẞ", "ß"),
    ],
)
def test_case_is_folded_letter_by_letter(text: str, folded: str) -> None:
    assert fold_case(text) == folded
