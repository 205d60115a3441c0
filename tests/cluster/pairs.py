"""A primary and its standby under one address, and what a failover does with them.

    with PostgreSQLPair() as pair:
        create_database(pair.url("lake"))
        pair.primary.kill()
        pair.promote()

Unless told otherwise the primary confirms nothing before the standby has it.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack

import pymysql
from pymysql.cursors import DictCursor

from tests.cluster.forwarder import Forwarder
from tests.support.receivers import eventually
from tests.support.servers import (
    HOST,
    PASSWORD,
    USER,
    MariaDB,
    PostgreSQL,
    Server,
    _program,
    execute,
)
from tests.support.sites import own_server

READY_SECONDS = 30.0
# As long as it can be set to. By default the primary waits for its standby for ten seconds, and
# then goes on alone and confirms what nobody else has.
FOR_EVER_MS = 4_294_967_295


class PostgreSQLStandby(PostgreSQL):
    """A copy of a primary, which streams what is written there."""

    def __init__(self, primary_url: str) -> None:
        self._primary_url = primary_url
        super().__init__()

    def _find(self) -> None:
        super()._find()
        self._basebackup = _program("pg_basebackup")

    def _initialize(self) -> None:
        account = self._account()
        if account:
            shutil.chown(self.folder, account, account)
        copy = [self._basebackup, f"--pgdata={self.data}", f"--dbname={self._primary_url}"]
        self._run([*copy, "--write-recovery-conf", "--checkpoint=fast"])


class MariaDBMember(MariaDB):
    """One of those that can replicate from each other."""

    def __init__(self, number: int) -> None:
        self._number = number
        super().__init__()

    def _command(self) -> list[str]:
        return [
            *super()._command(),
            f"--server-id={self._number}",
            "--log-bin=binlog",
            "--log-slave-updates",
            "--binlog-format=ROW",
            "--rpl-semi-sync-slave-enabled=ON",
        ]


class Pair:
    """Two servers, the first of them the primary until the other is promoted."""

    name = ""
    primary: Server
    standby: Server

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Pair:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def url(self, database: str) -> str:
        """A Go-style URL that leads to whichever server takes writes."""
        raise NotImplementedError

    def promote(self) -> None:
        """Make the standby the one that takes writes; return when it does."""
        raise NotImplementedError

    def _start(self, stack: ExitStack) -> None:
        raise NotImplementedError


class PostgreSQLPair(Pair):
    """Both addresses stand in the URL."""

    name = "postgresql"

    def url(self, database: str) -> str:
        hosts = f"{HOST}:{self.primary.port},{HOST}:{self.standby.port}"
        options = "sslmode=disable&target_session_attrs=read-write"
        return f"postgres://{USER}:{PASSWORD}@{hosts}/{database}?{options}"

    def promote(self) -> None:
        execute(self.standby.url(""), "SELECT pg_promote()")

    def _start(self, stack: ExitStack) -> None:
        self.primary = stack.enter_context(own_server(PostgreSQL))
        self.standby = stack.enter_context(PostgreSQLStandby(self.primary.url("")))
        for statement in (
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        ):
            execute(self.primary.url(""), statement)
        eventually(self._is_synchronous, READY_SECONDS)

    def _is_synchronous(self) -> bool:
        state = "SELECT sync_state FROM pg_stat_replication"
        return execute(self.primary.url(""), state) == [("sync",)]


class MariaDBPair(Pair):
    """One address, which a forwarder takes to the primary."""

    name = "mariadb"
    forwarder: Forwarder

    def __init__(self, wait_point: str = "AFTER_SYNC") -> None:
        self._wait_point = wait_point
        super().__init__()

    def url(self, database: str) -> str:
        url = self.primary.url(database)
        return url.replace(f":{self.primary.port}/", f":{self.forwarder.port}/")

    def promote(self) -> None:
        url = self.standby.url("")
        execute(url, "STOP SLAVE IO_THREAD")
        # What it received and did not apply yet would be lost with the relay log.
        received = self._received()
        [(waited,)] = execute(url, f"SELECT MASTER_GTID_WAIT('{received}', {READY_SECONDS})")
        assert waited == 0, f"the replica did not get to {received}"
        for statement in ("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = OFF"):
            execute(url, statement)
        self.forwarder.set_target(self.standby.port)

    def _start(self, stack: ExitStack) -> None:
        self.primary = stack.enter_context(own_server(lambda: MariaDBMember(1)))
        self.standby = stack.enter_context(MariaDBMember(2))
        self.forwarder = stack.enter_context(Forwarder(self.primary.port))
        for statement in (
            "SET GLOBAL read_only = ON",
            f"CHANGE MASTER TO master_host = '{HOST}', master_port = {self.primary.port},"
            f" master_user = '{USER}', master_password = '{PASSWORD}',"
            " master_use_gtid = slave_pos, master_connect_retry = 1",
            "START SLAVE",
        ):
            execute(self.standby.url(""), statement)
        for setting, value in {
            "rpl_semi_sync_master_wait_point": self._wait_point,
            "rpl_semi_sync_master_timeout": FOR_EVER_MS,
            "rpl_semi_sync_master_enabled": "ON",
        }.items():
            execute(self.primary.url(""), f"SET GLOBAL {setting} = {value}")
        eventually(self._is_synchronous, READY_SECONDS)

    def _is_synchronous(self) -> bool:
        rows = execute(self.primary.url(""), "SHOW STATUS LIKE 'Rpl_semi_sync_master_clients'")
        return rows == [("Rpl_semi_sync_master_clients", "1")]

    def _received(self) -> str:
        """The position up to which the replica has everything, applied or not."""
        replica = pymysql.connect(
            host=HOST, port=self.standby.port, user=USER, password=PASSWORD, cursorclass=DictCursor
        )
        with replica, replica.cursor() as cursor:
            cursor.execute("SHOW SLAVE STATUS")
            status = cursor.fetchone()
        assert status is not None
        return str(status["Gtid_IO_Pos"])
