"""The fleet's figures on every database, beside the same figures worked out in Python."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from itertools import groupby
from typing import Any, NamedTuple

import pytest
from sqlalchemy.engine import Engine

from dashboards.dialects import DATABASES
from dashboards.fleet import FLEET
from dashboards.panels import dashboard
from developer_telemetry.constants import MACHINE_TABLE, REFUSED_MACHINE_TABLE, SUM
from developer_telemetry.database.bulk_insert import insert
from developer_telemetry.database.dialects.lookup import dialect_of
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from developer_telemetry.demo.seed import Fleet, arrivals, fill, fleet
from developer_telemetry.demo.synthetic_fleet import CONNECTIONS, TEAMS
from developer_telemetry.pipeline.accounts import convert_accounts
from developer_telemetry.reports.daily_metrics import (
    ReceivedReport,
    ToolRow,
    build_tool_row,
    format_timestamp,
)
from developer_telemetry.reports.hosts import machine_name
from developer_telemetry.reports.refusal_reasons import TITLES
from developer_telemetry.storage.devlake_schema import make_account_id
from developer_telemetry.storage.fleet.machines import (
    MachineKey,
    MachineSelection,
    read_machines,
    retire_machines,
)
from developer_telemetry.storage.fleet.refused_machines import (
    RefusalDetails,
    RefusedMachine,
    write_refused_machines,
)
from developer_telemetry.storage.statistics import count_machines
from developer_telemetry.storage.writer import store
from tests.support.dashboard_answers import ANSWERS, Chosen, Data, Machine, as_value, expand
from tests.support.dashboard_lakes import shown
from tests.support.factories import arrival
from tests.support.layers import insert_go_plugin_row
from tests.support.servers import create_database, drop_database, in_database

KINDS = {"mariadb": "mysql", "mariadb_loose": "mysql", "postgresql": "postgresql"}
NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
END = int(NOW.timestamp())
START = END - 100 * 86400
HOSTILE = "o'br\"ien\\n"
SHOP, OTHER = 'the shop\'s \\n "best"', "other"
DEVLAKE = {
    "users": "id VARCHAR(255) PRIMARY KEY, email VARCHAR(255), name VARCHAR(255)",
    "user_accounts": "account_id VARCHAR(255) PRIMARY KEY, user_id VARCHAR(255)",
    "teams": "id VARCHAR(255) PRIMARY KEY, name VARCHAR(255)",
    "team_users": "team_id VARCHAR(255), user_id VARCHAR(255), PRIMARY KEY (team_id, user_id)",
    "projects": "name VARCHAR(255) PRIMARY KEY",
    "project_mapping": "project_name VARCHAR(255), row_id VARCHAR(255)",
}

Who = tuple[int, str]


class Lake(NamedTuple):
    """A database, and all that is in it."""

    engine: Engine
    database: str
    connections: Mapping[str, int]
    arrivals: Sequence[ReceivedReport]
    rows: Sequence[ToolRow]
    refused: Mapping[tuple[int, date, str], int]
    users: Mapping[Who, str]
    teams: Mapping[str, tuple[str, Sequence[str]]]  # name and users, by id
    retired: MachineKey

    @property
    def projects(self) -> Mapping[str, int]:
        first, second = self.connections.values()
        return {SHOP: first, OTHER: second}


@pytest.fixture(scope="module")
def made() -> Fleet:
    return fleet(developers=14, days=110, seed=7, now=NOW)


@pytest.fixture(scope="module", params=KINDS)
def lake(request: pytest.FixtureRequest, made: Fleet) -> Iterator[Lake]:
    server = request.getfixturevalue(f"{request.param}_server")
    url = in_database(server, f"telemetry_test_{secrets.token_hex(6)}")
    create_database(url)
    engine = open_engine(url)
    migrate(engine)
    yield filled(engine, KINDS[request.param], made)
    engine.dispose()
    drop_database(url)


def filled(engine: Engine, database: str, made: Fleet) -> Lake:
    connections = fill(engine, "secret", made)
    strategies = {connections[name]: strategy for name, strategy in CONNECTIONS.items()}
    odd = list(oddities(connections["Product engineering"]))
    store(engine, odd, strategies)
    count_machines(engine, 0)
    for connection_id in connections.values():
        for _ in convert_accounts(engine, connection_id):
            pass
    stored = [*arrivals(made, connections), *odd]
    rows = tool_rows(stored, strategies)
    users, teams = people(made, connections)
    add_devlake(engine, connections, users, teams)
    refused = {
        (connections[name], day, why): count for (name, day, why), count in made.refused.items()
    }
    retired = retire_oldest(engine)
    set_user_agents(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {REFUSED_MACHINE_TABLE}")
    for connection_id in connections.values():
        add_refused_machines(engine, connection_id)
    return Lake(engine, database, connections, stored, rows, refused, users, teams, retired)


def retire_oldest(engine: Engine) -> MachineKey:
    """Retire the machine that has been silent for longest within the selected days."""
    with engine.connect() as connection:
        machines = read_machines(connection, MachineSelection())
    first = format_timestamp(START * 1_000_000)
    oldest = [machine.key for machine in machines if str(machine.last_seen) > first][-1]
    assert retire_machines(engine, [oldest]) == 1
    return oldest


def user_agent_of(developer: str) -> str:
    return "" if len(developer) % 3 == 0 else f"collector/1.{len(developer) % 3}"


def set_user_agents(engine: Engine) -> None:
    param = dialect_of(engine).placeholder
    with engine.begin() as connection:
        for machine in read_machines(connection, MachineSelection()):
            connection.exec_driver_sql(
                f"UPDATE {MACHINE_TABLE} SET user_agent = {param} WHERE developer_id = {param}",
                (user_agent_of(machine.key.developer_id), machine.key.developer_id),
            )


def refused_machines(connection_id: int) -> list[RefusedMachine]:
    """Return the last refused first, the first of them before the selected days."""
    ann = RefusalDetails("ann", HOSTILE, "192.0.2.1", "collector/1", "date: missing")
    hours = {("token", RefusalDetails(address="192.0.2.9")): 1, ("date", ann): 30}
    hours |= {("other", ann): 40, ("size", ann): 2500}
    return [
        RefusedMachine(
            f"{connection_id} {reason}",
            *(connection_id, reason, details),
            *((END - 3600 * age - 7) * 1_000_000 + 1500, (END - 3600 * age) * 1_000_000, age),
        )
        for (reason, details), age in hours.items()
    ]


def add_refused_machines(engine: Engine, connection_id: int) -> None:
    with engine.begin() as connection:
        write_refused_machines(connection, refused_machines(connection_id), None)


def refused_rows(connection_ids: Sequence[int]) -> list[tuple[Any, ...]]:
    listed = [each for number in connection_ids for each in refused_machines(number)[:3]]
    return [
        (
            *each.details[:3],
            TITLES.get(each.reason, each.reason),
            each.details.message,
            each.count,
            each.first_us // 1000,
            each.last_us // 1000,
        )
        for each in sorted(listed, key=lambda each: (-each.last_us, each.id))
    ]


def oddities(connection_id: int) -> Iterator[ReceivedReport]:
    """Names that SQL, JSON and its paths have to take as they are."""
    names = ["Git", "git", "it's", 'say "hi"', "back\\slash", "🐙", "é"]
    for number in range(30):
        yield arrival(
            after=number - 20 * 86400,
            connection_id=connection_id,
            developer=HOSTILE,
            hostname='tower\'s \\ "1"',
            date=str(NOW.date() - timedelta(10 + number)),
            metrics={
                "active_hours": 1 + number % 5,
                "tools_used": names[: number % 8],
                "projects": names[number % 3 : number % 8],
                "commands": dict.fromkeys(names[: number % 4 * 2], number),
                "git_activity": {"repositories": [{"name": names[number % 7], "commits": 2}]},
            },
        )


def tool_rows(stored: Sequence[ReceivedReport], strategies: Mapping[int, str]) -> list[ToolRow]:
    days: dict[tuple[int, str, str], list[ReceivedReport]] = {}
    for number, each in enumerate(stored):
        days.setdefault(each.key, []).append(each._replace(raw_id=number + 1))
    rows = []
    for key, day in days.items():
        day.sort(key=lambda each: each.age)
        newest = {each.report.hostname: each for each in day}
        counted = list(newest.values()) if strategies[key[0]] == SUM else day[-1:]
        rows.append(build_tool_row(counted, day[0].arrived_us))
    return rows


def people(
    made: Fleet, connections: Mapping[str, int]
) -> tuple[dict[Who, str], dict[str, tuple[str, list[str]]]]:
    """Return whose accounts are whose, and who is in which team; two people aren't linked at
    all."""
    users = {
        (connections[each.connection], each.id): f"user's \\ {each.id}"
        for each in made.developers[2:]
    }
    users[connections["Product engineering"], HOSTILE] = f"user's \\ {made.developers[5].id}"
    teams = {
        f"te'am\\{number}": (
            team.name,
            [f"user's \\ {each.id}" for each in made.developers[2:] if each.team == team],
        )
        for number, team in enumerate(TEAMS)
    }
    teams["both"] = ("Guild", [f"user's \\ {each.id}" for each in made.developers[4:9]])
    return users, teams


def add_devlake(
    engine: Engine,
    connections: Mapping[str, int],
    users: Mapping[Who, str],
    teams: Mapping[str, tuple[str, Sequence[str]]],
) -> None:
    """DevLake's tables, in the server's own collation."""
    first, second = connections.values()
    scopes = {SHOP: first, OTHER: second}
    scope = "developer_telemetry:TelemetryScope:{}:all"
    rows: dict[str, list[tuple[str, ...]]] = {
        "users": [(each, "hidden@example.com", each[::-1]) for each in sorted(set(users.values()))],
        "user_accounts": [(make_account_id(*who), user) for who, user in users.items()],
        "teams": [(identity, name) for identity, (name, _) in teams.items()],
        "team_users": [(identity, user) for identity, (_, own) in teams.items() for user in own],
        "projects": [(name,) for name in scopes],
        "project_mapping": [(name, scope.format(each)) for name, each in scopes.items()],
    }
    with engine.begin() as connection:
        for table, columns in DEVLAKE.items():
            connection.exec_driver_sql(f"CREATE TABLE {table} ({columns})")
            names = [each.split()[0] for each in columns.split(", ")][: len(rows[table][0])]
            insert(connection, table, names, rows[table], "")


def data_of(lake: Lake, chosen: Chosen) -> Data:
    """Return what is there for whoever chose that."""

    def of_connection(connection_id: int) -> bool:
        projects = [lake.projects[name] for name in chosen.project]
        return (not chosen.connection or connection_id in chosen.connection) and (
            not projects or connection_id in projects
        )

    def is_chosen(connection_id: int, developer: str) -> bool:
        user = lake.users.get((connection_id, developer))
        in_teams = {member for team in chosen.team for member in lake.teams[team][1]}
        return (
            of_connection(connection_id)
            and (not chosen.team or user in in_teams)
            and (not chosen.developer or developer in chosen.developer)
        )

    first, last = (str(datetime.fromtimestamp(each, timezone.utc).date()) for each in (START, END))
    own = [each for each in lake.arrivals if is_chosen(*each.key[:2])]
    by_host = sorted(
        (*each.key[:2], machine_name(each.report.hostname), each.arrived_us) for each in own
    )
    machines = []
    for key, group in groupby(by_host, key=lambda each: each[:3]):
        times = [each[3] for each in group]
        is_retired = key == lake.retired
        machines.append(
            Machine(
                key[0],
                key[1],
                key[2],
                times[0],
                times[-1],
                len(times),
                is_retired,
                user_agent_of(key[1]),
            )
        )
    linked = {who for who in lake.users if is_chosen(*who)}
    known = {(row.connection_id, row.developer_id) for row in lake.rows}
    return Data(
        START,
        END,
        [r for r in lake.rows if is_chosen(*r[:2]) and first <= r.date <= last],
        machines,
        [
            (*each.key[:2], each.report.hostname, each.report.date)
            for each in own
            if first <= each.report.date <= last
        ],
        {
            (key[0], str(key[1]), key[2]): count
            for key, count in lake.refused.items()
            if of_connection(key[0]) and first <= str(key[1]) <= last
        },
        len(linked & known),
        refused_rows([number for number in lake.connections.values() if of_connection(number)]),
    )


def panels(database: str) -> Iterator[dict[str, Any]]:
    """The panels with a query."""
    yield from (p for p in page(database)["panels"] if "targets" in p)


def page(database: str) -> dict[str, Any]:
    [sql] = [each for each in DATABASES if each.name == database]
    return dashboard(FLEET, sql(FLEET.about))


def assert_right(lake: Lake, chosen: Chosen) -> None:
    data = data_of(lake, chosen)
    for panel in panels(lake.database):
        title = panel["title"]
        query = expand(panel["targets"][0]["rawSql"], lake.database, START, END, chosen)
        found, right = shown(lake.engine, query), ANSWERS[title](data)
        assert len(found) == len(right), f"{title}: {len(found)} rows for {len(right)}"
        for row, answer in zip(found, right):
            assert row == pytest.approx(answer, abs=1e-4), f"{title}: {chosen}"


def choices(lake: Lake) -> Iterator[Chosen]:
    first, second = lake.connections.values()
    one, *others = sorted({row.developer_id for row in lake.rows} - {HOSTILE})
    team, other, *_ = lake.teams
    yield Chosen()
    yield Chosen(connection=[second])
    yield Chosen(connection=[first, second], project=[SHOP])
    yield Chosen(project=[SHOP, OTHER], team=[team])
    yield Chosen(team=[team, other, "both"])
    yield Chosen(developer=[HOSTILE])
    yield Chosen(connection=[first], developer=[HOSTILE, one, *others[:5]])


def test_every_figure_is_right(lake: Lake) -> None:
    for chosen in choices(lake):
        assert_right(lake, chosen)


def test_every_panel_with_a_query_is_compared() -> None:
    assert {panel["title"] for panel in panels("mysql")} == set(ANSWERS)


def test_variables_offer_every_name_with_a_value_that_finds_it(lake: Lake) -> None:
    source, *variables = page(lake.database)["templating"]["list"]
    assert source["type"] == "datasource"
    offered = {each["name"]: set(shown(lake.engine, each["query"])) for each in variables}
    assert offered["connection"] == set(lake.connections.items())
    assert offered["project"] == {(name, as_value(name, lake.database)) for name in (SHOP, OTHER)}
    assert offered["team"] == {
        (name, as_value(team, lake.database)) for team, (name, _) in lake.teams.items()
    }
    assert offered["developer"] == {
        (each, as_value(each, lake.database)) for each in {row.developer_id for row in lake.rows}
    }


def test_nobody_finds_nothing_without_an_error(lake: Lake) -> None:
    nobody = Chosen(developer=["nobody"], team=["none"], project=["none"])
    for panel in panels(lake.database):
        query = panel["targets"][0]["rawSql"]
        shown(lake.engine, expand(query, lake.database, START, END, nobody))


def test_rows_of_the_go_plugin_are_taken_as_they_are(mariadb_url: str) -> None:
    engine = open_engine(mariadb_url)
    migrate(engine)
    insert_go_plugin_row(engine)
    insert_go_plugin_row(engine, "bob")
    add_devlake(engine, {"a": 1, "b": 2}, {(1, "bob"): "bob"}, {"1": ("Team", ["bob"])})
    try:
        found = {
            panel["title"]: shown(
                engine, expand(panel["targets"][0]["rawSql"], "mysql", START, END, Chosen())
            )
            for panel in panels("mysql")
        }
    finally:
        engine.dispose()
    # There is neither a machine nor an arrival.
    assert found["Developers with a Report about the Day"][-1] == ("2026-11-23", 2)
    assert found["Machines with a Report about the Day"][-1] == ("2026-11-23", 0)
    assert found["Developer Days by Arrival of Their Newest Report [Each Week]"][-1][1:] == (
        0,
        0,
        0,
    )
