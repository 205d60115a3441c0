"""A receiver and a database of its own, for tests that break either."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, NoReturn, Optional

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import RAW_TABLE, TOOL_TABLE
from developer_telemetry.database.engine import open_engine
from developer_telemetry.database.migrate import migrate
from tests.support.oracle import Oracle
from tests.support.receivers import Receiver, add_connection, eventually, query, report
from tests.support.servers import HOST, Server, ServerMissing, create_database, drop_database

# Without the rights of an administrator, who may write to a read-only MariaDB.
ORDINARY = "telemetry"
CONNECTION_TABLE = "_tool_developer_telemetry_connections"


class Site:
    """A receiver, and a database that tests break: one connection overwrites, one sums."""

    def __init__(self, server: Optional[Server], url: str, folder: Path) -> None:
        self.server = server
        self.url = url
        self.folder = folder
        self.spool = folder / "spool"
        with closing_engine(url) as engine:
            migrate(engine)
        self.overwriting = add_connection(url)
        self.summing = add_connection(url, strategy="sum")
        self.receiver = self.another_receiver()

    def another_receiver(self, **settings: str) -> Receiver:
        """Return another receiver, on the first one's spool unless `settings` name one."""
        url = self.url.replace("merico:merico@", f"{ORDINARY}:{ORDINARY}@")
        return Receiver(
            url if self.url.startswith("mysql") else self.url,
            self.folder,
            **{"TELEMETRY_SPOOL_DIR": str(self.spool), **settings},
        )

    def oracle(self, senders: int = 8) -> Oracle:
        return Oracle(self.receiver, {self.overwriting: "", self.summing: "sum"}, senders)

    def metric(self, name: str) -> float:
        """Return a metric of the receiver without labels."""
        page = self.receiver.client.get("/metrics").text
        [value] = [line.split()[1] for line in page.splitlines() if line.startswith(f"{name} ")]
        return float(value)

    def spooled(self) -> int:
        """Return the number of reports in the spool."""
        return int(self.metric("telemetry_spool_reports"))

    def send(self, developer: str, connection_id: int = 0) -> int:
        """Send one report and return the status of its answer."""
        return self.receiver.send(report(developer), connection_id or self.overwriting).status_code

    def developers(self, table: str = RAW_TABLE) -> list[str]:
        """Return the developers with reports, sorted."""
        return sorted(row[0] for row in query(self.url, f"SELECT developer_id FROM {table}"))

    def wait_until_stored(self, developers: list[str]) -> None:
        """Wait until exactly these developers are in both layers."""
        for table in (RAW_TABLE, TOOL_TABLE):
            eventually(partial(self._has, table, sorted(developers)), 20)

    def _has(self, table: str, developers: list[str]) -> bool:
        return self.developers(table) == developers

    @contextmanager
    def without_table(self) -> Iterator[None]:
        """Cause an outage in this context without a stop of the server."""
        query(self.url, f"ALTER TABLE {TOOL_TABLE} RENAME TO moved_away")
        try:
            yield
        finally:
            query(self.url, f"ALTER TABLE moved_away RENAME TO {TOOL_TABLE}")


@contextmanager
def closing_engine(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()


@contextmanager
def site_on(server: Server, folder: Path) -> Iterator[Site]:
    """Yield a site with a running receiver and its own database on `server`."""
    url = server.url(f"faults_{secrets.token_hex(4)}")
    create_database(url)
    site = Site(server, url, folder)
    with site.receiver:
        yield site
    server.start()
    drop_database(url)


@contextmanager
def own_server(make: Callable[[], Server]) -> Iterator[Server]:
    try:
        server = make()
    except ServerMissing as error:
        missing(str(error))
    with server:
        if server.name == "mariadb":
            query(server.url(""), f"CREATE USER {ORDINARY}@'{HOST}' IDENTIFIED BY '{ORDINARY}'")
            query(server.url(""), f"GRANT ALL ON `faults%`.* TO {ORDINARY}@'{HOST}'")
        yield server


def missing(what: str) -> NoReturn:
    """Skip a test that can't run here; in CI, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(f"NOT TESTED: {what}")


def read_only(server: Server) -> AbstractContextManager[None]:
    if server.name == "mariadb":
        return set_to(server, "read_only", "ON")
    return set_to(server, "default_transaction_read_only", "on")


@contextmanager
def set_to(server: Server, setting: str, value: str) -> Iterator[None]:
    """Change a server's setting in this context."""
    if server.name == "mariadb":
        [(before,)] = query(server.url(""), f"SELECT @@{setting}")
        on = [f"SET GLOBAL {setting} = {value}"]
        off = [f"SET GLOBAL {setting} = {before}"]
    else:
        reload = "SELECT pg_reload_conf()"
        on = [f"ALTER SYSTEM SET {setting} = {value}", reload]
        off = [f"ALTER SYSTEM RESET {setting}", reload]
    for statement in on:
        query(server.url(""), statement)
    try:
        yield
    finally:
        for statement in off:
            query(server.url(""), statement)


def server_of(site: Site) -> Server:
    assert site.server is not None
    return site.server
