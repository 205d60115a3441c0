"""`doctor` and `status` where the receiver owns the schema of DevLake's database, or should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Engine
from typer.testing import CliRunner

from developer_telemetry.cli.main import app
from developer_telemetry.connections.handover import take_over
from developer_telemetry.connections.registry import Connections, create
from developer_telemetry.constants import (
    ACCOUNT_TABLE,
    MIGRATION_TABLE,
    OVERWRITE,
    RAW_TABLE,
)
from developer_telemetry.database.engine import open_engine, transact
from developer_telemetry.database.schema_owner import SchemaOwner, record_owner
from developer_telemetry.diagnostics.check import FAILED, OK, SKIPPED, Check
from developer_telemetry.diagnostics.conversion_status import (
    Ownership,
    read_conversion_statuses,
    read_ownership,
)
from developer_telemetry.receiver.ingest.ingestor import Outage
from developer_telemetry.receiver.jobs.conversion_job import ConversionJob
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.storage.conversions import OVERDUE_SECONDS
from developer_telemetry.storage.project_mapping import attach
from developer_telemetry.storage.writer import store
from tests.diagnostics.test_doctor import Lake
from tests.support.devlake_tables import make_devlake_tables, make_projects
from tests.support.factories import arrival
from tests.support.receivers import SECRET

PAGE = "docs/operate.md#hand-over-from-the-plugin"
TAKE_OVER = f"run `developer-telemetry migrate --standalone` ({PAGE})"


class StandaloneSite:
    """DevLake's database, which we own, with a connection and a report, and a small DevLake."""

    def __init__(self, folder: Path, lake: Lake) -> None:
        self.lake = lake
        url = f"sqlite:///{folder}/telemetry.db"
        self.settings = {
            "DB_URL": url,
            "ENCRYPTION_SECRET": SECRET,
            "DEVLAKE_URL": lake.url,
            "TELEMETRY_PUBLIC_URL": "http://127.0.0.1:9",
        }
        self.engine = open_engine(url)
        make_devlake_tables(self.engine)
        take_over(self.engine, None)
        self.connection_id = add_reports(self.engine)

    def do(self, statement: str) -> None:
        transact(self.engine, lambda connection: connection.exec_driver_sql(statement))

    def give_to(self, owner: SchemaOwner) -> None:
        transact(self.engine, lambda connection: record_owner(connection, owner))

    def checks(self, **settings: str) -> dict[str, Check]:
        done = CliRunner().invoke(app, ["doctor", "--json"], env={**self.settings, **settings})
        return {check["name"]: Check(**check) for check in json.loads(done.stdout)["checks"]}

    def status(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, ["status", *arguments], env=self.settings)
        assert done.exit_code == 0, done.output
        return done.stdout


def add_reports(engine: Engine) -> int:
    connection_id = create(engine, SECRET, "fleet", "token", OVERWRITE)
    store(engine, [arrival(connection_id=connection_id)], {connection_id: OVERWRITE})
    return connection_id


def convert(engine: Engine) -> None:
    connections = Connections(engine, SECRET)
    connections.reload()
    ConversionJob(engine, connections, Outage(), Metrics(), lambda: 0)._work()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[StandaloneSite]:
    lake = Lake()
    lake.has_plugin = False
    with lake:
        site = StandaloneSite(tmp_path, lake)
        yield site
        site.engine.dispose()


def test_where_all_is_well_nothing_of_it_fails(site: StandaloneSite) -> None:
    convert(site.engine)

    found = site.checks()

    names = ("schema", "devlake", "plugin", "owner", "devlake database", "conversions", "blueprint")
    assert {name: found[name].state for name in names} == dict.fromkeys(names, OK)
    assert "need not: the receiver converts reports" in found["plugin"].message
    assert re.match(
        r"the receiver \(standalone\) applies migrations and converts reports, since 20.* UTC$",
        found["owner"].message,
    )
    assert re.match(
        rf"connection {site.connection_id} \(fleet\): last converted at 20\S+ \S+ UTC;"
        " wrote 1 accounts, 0 tasks, 0 links$",
        found["conversions"].message,
    )
    assert found["blueprint"] == Check(
        "blueprint", OK, "none is needed: the receiver converts reports"
    )


def test_a_devlake_that_loads_the_plugin_again(site: StandaloneSite) -> None:
    site.lake.has_plugin = True

    check = site.checks()["owner"]

    assert check.state == FAILED
    assert "DevLake loads the plugin: the next run of a blueprint" in check.message
    assert "`developer-telemetry migrate --hand-back` records DevLake" in check.remedy

    site.give_to(SchemaOwner.DEVLAKE)
    check = site.checks()["owner"]
    assert check.state == OK
    assert check.message.startswith("DevLake's server applies migrations and converts reports, si")


def test_a_devlake_that_no_longer_loads_the_plugin(site: StandaloneSite) -> None:
    site.give_to(SchemaOwner.DEVLAKE)

    check = site.checks()["plugin"]

    assert check.state == FAILED
    assert "does not load it, so nothing migrates our tables or converts" in check.message
    assert check.remedy.startswith(TAKE_OVER)


def test_devlakes_own_plugin_in_python_shows_that_it_loads_such(site: StandaloneSite) -> None:
    site.lake.other_plugins = ["azuredevops"]

    check = site.checks()["plugin"]

    assert check.state == OK
    assert "DevLake does not load it; it loads others in Python: azuredevops, and need" in (
        check.message
    )


def test_that_plugins_in_python_are_deprecated_is_no_fault(site: StandaloneSite) -> None:
    site.give_to(SchemaOwner.DEVLAKE)
    site.lake.has_plugin = True

    check = site.checks()["plugin"]

    assert check.state == OK
    assert "DevLake has deprecated plugins in Python" in check.message
    assert PAGE in check.remedy


@pytest.mark.parametrize(
    ("owner", "has_plugin", "remedy"),
    [
        (SchemaOwner.STANDALONE, False, "`developer-telemetry migrate`"),
        (SchemaOwner.DEVLAKE, True, "confirm them in DevLake's web UI"),
        (SchemaOwner.DEVLAKE, False, TAKE_OVER),
    ],
    ids=["standalone", "devlake", "devlake without the plugin"],
)
def test_the_remedy_for_pending_migrations_fits_the_owner(
    site: StandaloneSite, owner: SchemaOwner, has_plugin: bool, remedy: str
) -> None:
    site.give_to(owner)
    site.lake.has_plugin = has_plugin
    site.do(f"DELETE FROM {MIGRATION_TABLE} WHERE script_version > 20261126000000")

    check = site.checks()["schema"]

    assert (check.state, check.remedy) == (FAILED, remedy)


def test_without_devlake_the_remedy_for_pending_migrations_names_both_ways(
    site: StandaloneSite,
) -> None:
    site.give_to(SchemaOwner.DEVLAKE)
    site.do(f"DELETE FROM {MIGRATION_TABLE} WHERE script_version > 20261126000000")

    remedy = site.checks(DEVLAKE_URL="")["schema"].remedy

    assert remedy.startswith("confirm them in DevLake's web UI; where DevLake loads no Python pl")
    assert remedy.endswith(TAKE_OVER)


def test_a_conversion_that_failed(site: StandaloneSite) -> None:
    site.do(f"ALTER TABLE {ACCOUNT_TABLE} RENAME TO away")
    convert(site.engine)
    site.do(f"ALTER TABLE away RENAME TO {ACCOUNT_TABLE}")

    check = site.checks()["conversions"]

    assert check.state == FAILED
    assert ACCOUNT_TABLE in check.message
    assert "a receiver tries again every minute" in check.remedy
    [listed] = json.loads(site.status("--json"))
    assert ACCOUNT_TABLE in listed["conversion"]["error"]
    assert listed["conversion"]["error"] in site.status()


def test_reports_that_wait_for_a_conversion(site: StandaloneSite) -> None:
    assert site.checks()["conversions"].state == OK
    site.do(
        f"UPDATE {RAW_TABLE} SET stored_at = datetime('now', '-{OVERDUE_SECONDS + 60} seconds')"
    )

    check = site.checks()["conversions"]

    assert check.state == FAILED
    assert "not converted so far; reports have been waiting" in check.message
    assert "a receiver of this release runs" in check.remedy
    assert f"connection {site.connection_id}: not converted so far; overdue" in site.status()
    convert(site.engine)
    assert site.checks()["conversions"].state == OK


def test_without_a_connection_conversions_are_skipped(site: StandaloneSite) -> None:
    site.do("DELETE FROM _tool_developer_telemetry_connections")

    check = site.checks()["conversions"]

    assert (check.state, check.remedy) == (
        SKIPPED,
        "make one: `developer-telemetry connect NAME`",
    )


def test_a_connection_in_no_project_is_no_fault(site: StandaloneSite) -> None:
    make_projects(site.engine, "web")

    check = site.checks()["blueprint"]

    assert check.state == OK
    assert "'fleet' in no project of DevLake" in check.message
    assert check.remedy == "`developer-telemetry connect fleet --project PROJECT`"
    transact(site.engine, lambda connection: attach(connection, site.connection_id, "web"))
    assert site.checks()["blueprint"].remedy == ""


def test_another_database_than_devlakes_shows_without_the_plugin(site: StandaloneSite) -> None:
    site.lake.newest_pipeline = 7

    check = site.checks()["devlake database"]

    assert check.state == FAILED
    assert "is it a copy?" in check.message


def test_status_shows_the_owner_and_the_last_conversion(site: StandaloneSite) -> None:
    lines = site.status().splitlines()
    [line] = [line for line in lines if "converted" in line or "schema" in line]
    assert line.startswith("schema: the receiver (standalone) applies migrations")
    [listed] = json.loads(site.status("--json"))
    assert listed["conversion"] is None
    convert(site.engine)

    [listed] = json.loads(site.status("--json"))

    assert listed["schema"]["owner"] == "standalone"
    assert re.fullmatch(r"20\S+T[\d:]+Z", listed["schema"]["since"])
    conversion: dict[str, Any] = listed["conversion"]
    assert re.fullmatch(r"20\S+T[\d:]+Z", conversion.pop("ended"))
    assert conversion == {"accounts": 1, "tasks": 0, "links": 0, "error": "", "overdue": False}
    assert re.search(
        rf"^connection {site.connection_id}: last converted at 20.* UTC; wrote 1 accounts, 0 ",
        site.status(),
        re.M,
    )


def test_owner_and_conversions_are_read_from_every_database(engine: Engine) -> None:
    connection_id = add_reports(engine)
    assert read_ownership(engine) == Ownership(SchemaOwner.STANDALONE, "")
    [status] = read_conversion_statuses(engine)
    assert (status.connection_id, status.last, status.is_overdue) == (connection_id, None, False)
    convert(engine)

    [status] = read_conversion_statuses(engine)

    assert status.last is not None
    assert (status.last.accounts, status.last.error) == (1, "")
    transact(engine, lambda connection: record_owner(connection, SchemaOwner.DEVLAKE))
    assert read_conversion_statuses(engine) == []
    assert read_ownership(engine).since.startswith("20")
