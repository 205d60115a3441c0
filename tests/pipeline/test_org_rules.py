"""Test who our accounts belong to by the rules of DevLake's `org` plugin, on every database.

Its subtask `connectUserAccountsExact` looks at each account that has no user yet: the user of the
same e-mail, else the one named like the account's full name, else the one named like its user
name; never by an empty text. Until August 2026 it compares byte by byte; since then capital and
small letters are the same to it (#9051 for e-mail, #9064 for names).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import OVERWRITE
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.pipeline.accounts import convert_accounts
from developer_telemetry.reports.daily_metrics import ReceivedReport
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival

TABLES = {
    "users": "id VARCHAR(255) PRIMARY KEY, email VARCHAR(255), name VARCHAR(255)",
    "user_accounts": "account_id VARCHAR(255) PRIMARY KEY, user_id VARCHAR(255)",
}


@pytest.fixture
def devlake(engine: Engine) -> Iterator[Engine]:
    """A database that also has DevLake's tables of users."""
    for table, columns in TABLES.items():
        _execute(engine, f"CREATE TABLE {table} ({columns})")
    yield engine
    for table in TABLES:
        _execute(engine, f"DROP TABLE {table}")


def _execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)


def _rows(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def add_users(engine: Engine, **users: tuple[str, str]) -> None:
    """Users by their ids: e-mail and name."""
    rows = [(identity, *user) for identity, user in users.items()]
    with engine.begin() as connection:
        insert(connection, "users", ("id", "email", "name"), rows, "")


Rule = Callable[[str], str]


def exactly(text: str) -> str:
    """Return how the plugin compares until August 2026."""
    return text


def folded(text: str) -> str:
    """Return how it compares since then."""
    return text.lower()


RULES = pytest.mark.parametrize("rule", [exactly, folded], ids=["until August", "since August"])


def connect_user_accounts_exact(engine: Engine, rule: Rule) -> None:
    """Return what the plugin's subtask does."""
    emails: dict[str, str] = {}
    names: dict[str, str] = {}
    for identity, email, name in _rows(engine, "SELECT id, email, name FROM users ORDER BY id"):
        if email:
            emails[rule(email)] = identity
        if name:
            names[rule(name)] = identity
    links: list[tuple[str, str]] = []
    for account, email, full_name, user_name in _rows(
        engine,
        "SELECT id, email, full_name, user_name FROM accounts"
        " WHERE id NOT IN (SELECT account_id FROM user_accounts)",
    ):
        for known, text in ((emails, email), (names, full_name), (names, user_name)):
            if text and rule(text) in known:
                links.append((account, known[rule(text)]))
                break
    with engine.begin() as connection:
        insert(connection, "user_accounts", ("account_id", "user_id"), links, "")


def linked(engine: Engine, *arrivals: ReceivedReport, rule: Rule = exactly) -> dict[str, str]:
    """Return whose user each developer is, after these reports and a blueprint's last two
    stages."""
    store(engine, arrivals, {1: OVERWRITE})
    for _ in convert_accounts(engine, 1):
        pass
    connect_user_accounts_exact(engine, rule)
    query = (
        "SELECT a.user_name, u.user_id FROM accounts a JOIN user_accounts u ON u.account_id = a.id"
    )
    return {row[0]: row[1] for row in _rows(engine, query)}


@RULES
@pytest.mark.parametrize(
    ("email", "name", "developer", "user"),
    [
        ("ann@example.org", "Bob Builder", "cem", "by_email"),
        ("ann@elsewhere.org", "Bob Builder", "cem", "by_name"),
        ("", "Bob Builder", "cem", "by_name"),
        ("ann@elsewhere.org", "Someone Else", "cem", "by_user_name"),
        ("", "", "cem", "by_user_name"),
        ("", "", "dan", None),
    ],
)
def test_a_developer_is_found_by_email_then_full_name_then_user_name(
    devlake: Engine, email: str, name: str, developer: str, user: str | None, rule: Rule
) -> None:
    add_users(
        devlake,
        by_email=("ann@example.org", "Ann"),
        by_name=("", "Bob Builder"),
        by_user_name=("cem@example.org", "cem"),
        nobody=("", ""),
    )
    links = linked(devlake, arrival(developer=developer, email=email, name=name), rule=rule)
    assert links == ({developer: user} if user else {})


@pytest.mark.parametrize(
    ("email", "name", "developer", "user"),
    [
        ("Ann@Example.ORG", "", "x", "by_email"),
        ("", "bob BUILDER", "x", "by_name"),
        ("", "", "CEM", "by_user_name"),
        # An e-mail in other letters comes before a name in the very same.
        ("ANN@example.org", "Bob Builder", "cem", "by_email"),
    ],
)
def test_letter_case_counts_until_august_and_not_since(
    devlake: Engine, email: str, name: str, developer: str, user: str
) -> None:
    add_users(
        devlake,
        by_email=("ann@example.org", "Ann"),
        by_name=("", "Bob Builder"),
        by_user_name=("cem@example.org", "cem"),
    )
    sent = arrival(developer=developer, email=email, name=name)
    before = linked(devlake, sent).get(developer)
    _execute(devlake, "DELETE FROM user_accounts")

    after = linked(devlake, rule=folded)

    assert before == ("by_name" if name == "Bob Builder" else None)
    assert after == {developer: user}


def test_what_was_linked_before_the_rule_changed_stays(devlake: Engine) -> None:
    add_users(devlake, by_email=("ann@example.org", "Ann"), by_name=("", "Bob Builder"))
    sent = arrival(developer="cem", email="ANN@example.org", name="Bob Builder")
    assert linked(devlake, sent) == {"cem": "by_name"}

    assert linked(devlake, rule=folded) == {"cem": "by_name"}


def test_the_newest_email_and_name_decide(devlake: Engine) -> None:
    add_users(devlake, old=("ann@old.org", "Ann Old"), new=("ann@new.org", "Ann New"))
    links = linked(
        devlake,
        arrival(after=2, date="2026-11-20", email="ann@new.org", name="Ann Old"),
        arrival(after=1, date="2026-11-23", email="ann@old.org", name="Ann Old"),
        # An e-mail that is missing today doesn't take away the one known.
        arrival(after=3, date="2026-11-22", email="", name=""),
    )
    assert links == {"ann.lee": "new"}


def test_a_user_who_comes_later_is_linked_by_the_next_run(devlake: Engine) -> None:
    assert linked(devlake, arrival(email="ann@example.org")) == {}
    add_users(devlake, ann=("ann@example.org", "Ann"))
    assert linked(devlake) == {"ann.lee": "ann"}


def test_a_link_stays_whatever_an_account_says_afterwards(devlake: Engine) -> None:
    add_users(devlake, ann=("ann@example.org", "Ann"), bob=("bob@example.org", "Bob"))
    assert linked(devlake, arrival(email="ann@example.org")) == {"ann.lee": "ann"}
    assert linked(devlake, arrival(after=60, email="bob@example.org")) == {"ann.lee": "ann"}


def test_accounts_of_one_person_on_two_connections_are_one_users(devlake: Engine) -> None:
    add_users(devlake, ann=("ann@example.org", "Ann"))
    store(devlake, [arrival(connection_id=2, email="ann@example.org")], {2: OVERWRITE})
    for _ in convert_accounts(devlake, 2):
        pass
    linked(devlake, arrival(email="ann@example.org"))
    assert _rows(devlake, "SELECT account_id, user_id FROM user_accounts ORDER BY account_id") == [
        ("developer_telemetry:Account:1:ann.lee", "ann"),
        ("developer_telemetry:Account:2:ann.lee", "ann"),
    ]


def test_developers_who_differ_only_in_case_are_different_users(devlake: Engine) -> None:
    add_users(devlake, big=("", "Irfan"), small=("", "irfan"))
    sent = [arrival(developer="Irfan"), arrival(developer="irfan")]
    assert linked(devlake, *sent) == {"Irfan": "big", "irfan": "small"}


def test_since_august_they_are_both_one_user_but_stay_two_accounts(devlake: Engine) -> None:
    add_users(devlake, only=("", "irfan"))
    sent = [arrival(developer="Irfan"), arrival(developer="irfan")]
    assert linked(devlake, *sent, rule=folded) == {"Irfan": "only", "irfan": "only"}


def test_an_account_has_texts_and_no_nulls_to_compare(devlake: Engine) -> None:
    linked(devlake, arrival())
    assert _rows(devlake, "SELECT email, full_name, user_name FROM accounts") == [
        ("", "", "ann.lee")
    ]
