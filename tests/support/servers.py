"""Database servers for tests, which tests may kill and start again.

    with MariaDB() as server:
        create_database(server.url("lake"))
        server.kill()
        server.start()

Each listens on a free loopback port, keeps its data in a temporary folder and its durability
settings as they come, so that what survives `kill` here survives it in production. Files in memory
survive it as well: where no time is measured, `Server.parent` may be `in_memory()`. Works as root
and as an ordinary user; takes MariaDB 10.6 and PostgreSQL 12 or newer from where systems put them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql

USER = PASSWORD = "merico"  # what DevLake's own compose file uses
# Below the ports that Linux and macOS use for connections.
PORTS = (20_000, 32_000)
HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 60.0
MEMORY = Path("/dev/shm")
# Four test processes with three servers each, and the data of their tests.
MEMORY_BYTES = 4 << 30

# As MySQL 8 has it, DevLake's usual database: MariaDB's own default lets wrong GROUP BYs through.
STRICT = (
    "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,"
    "ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
)

# Statements in standard SQL work with all of these; others behave differently.
LOOSE_MODE = "ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,IGNORE_SPACE"
LOOSE = {
    "autocommit": "OFF",
    "completion_type": "'RELEASE'",
    "group_concat_max_len": "4",
    "innodb_lock_wait_timeout": "1",
    "lock_wait_timeout": "1",
    "max_sort_length": "64",
    "sql_auto_is_null": "ON",
    "sql_big_selects": "OFF",
    "max_join_size": "1",
    "sql_quote_show_create": "OFF",
    "sql_safe_updates": "ON",
    "sql_select_limit": "1",
    "tx_isolation": "'SERIALIZABLE'",
    "tx_read_only": "ON",
    "unique_checks": "OFF",
    "default_storage_engine": "MyISAM",
    "idle_transaction_timeout": "1",
    "wait_timeout": "60",
}
# The same of PostgreSQL: settings that a role or a database may have.
HOSTILE = {
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "datestyle": "SQL",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "exit_on_error": "on",
    "extra_float_digits": "-15",
    "idle_in_transaction_session_timeout": "500ms",
    "intervalstyle": "sql_standard",
    "lock_timeout": "1ms",
    "standard_conforming_strings": "off",
    "statement_timeout": "2s",
    "timezone": "Asia/Kathmandu",
    "transform_null_equals": "on",
}


class ServerMissing(Exception):
    """The server is not installed."""


class Running:
    """A server that runs already, at a URL; it has the methods of a server started here."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self._url = url

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def url(self, database: str) -> str:
        return in_database(self._url, database)


class ServerFailed(Exception):
    """The server didn't start; the message ends with its log."""


class Server:
    """One server process. `with` starts it, stops it and removes its data."""

    name = ""
    parent: Optional[Path] = None  # the folder of the servers' own folders; None is the system's

    def __init__(self) -> None:
        self.port = free_port()
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._guard: Optional[subprocess.Popen[bytes]] = None
        self._crashed = False
        self._suspended: list[int] = []
        self._find()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=self.parent))
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def url(self, database: str) -> str:
        """Return the Go-style URL of `database` on this server, as DevLake has it."""
        raise NotImplementedError

    def start(self) -> None:
        """Start, and wait until the server accepts connections.

        :raises ServerFailed: it ended or didn't answer in time.
        """
        if self.running:
            return
        if not self.data.exists():
            self._initialize()
        deadline = time.monotonic() + START_SECONDS
        while not self._start_once(deadline):
            # Processes of a killed server may hold its memory for a moment.
            if not self._crashed or time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} did not start:\n{self._log_end()}")
            time.sleep(0.1)
        self._crashed = False

    def stop(self) -> None:
        """Shut down cleanly and keep the data."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._forget()

    def kill(self) -> None:
        """Kill the server with SIGKILL, like a crash, and keep the data."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._crashed = True
        self._forget()

    def suspend(self) -> None:
        """Pause the server: it has its connections and accepts new ones, without answers."""
        assert self._process is not None
        # First the process that starts the others.
        self._suspended = [self._process.pid]
        os.kill(self._process.pid, signal.SIGSTOP)
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in map(int, children.read_text().split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self._suspended.append(pid)

    def resume(self) -> None:
        """Resume the server."""
        for pid in self._suspended:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._suspended = []

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop and remove everything."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _find(self) -> None:
        """Find the programs.

        :raises ServerMissing: they aren't installed.
        """
        raise NotImplementedError

    def _initialize(self) -> None:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _account(self) -> Optional[str]:
        """Return the system's user to run as; None for the user of the tests."""
        return None

    def _start_once(self, deadline: float) -> bool:
        process = self._process = self._spawn(self._command())
        # Otherwise the server would run on after the test run is killed.
        clean_up = 'read -r _; kill -9 "$1"; rm -rf "$2"'
        self._guard = subprocess.Popen(
            ["sh", "-c", clean_up, "sh", str(process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and time.monotonic() < deadline:
            if self._answers() and process.poll() is None:
                return True
            time.sleep(0.05)
        process.kill()
        process.wait()
        self._forget()
        return False

    def _answers(self) -> bool:
        try:
            execute(self.url(""), "SELECT 1")
        except (pymysql.err.OperationalError, psycopg.OperationalError):
            return False
        return True

    def _forget(self) -> None:
        self._process = None
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()
            assert self._guard.stdin is not None
            self._guard.stdin.close()
            self._guard = None

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        account = self._account()
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=account,
                group=account,
                extra_groups=[] if account else None,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop the server
            )

    def _run(self, command: list[str]) -> None:
        if self._spawn(command).wait() != 0:
            raise ServerFailed(f"{command[0]} failed:\n{self._log_end()}")

    def _log_end(self) -> str:
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


class MariaDB(Server):
    """A MariaDB as strict as MySQL 8, or with loose settings of an operator.

    `loose` stands for what we can't rely on: a mode that is not strict and reads quotation marks,
    bars and backslashes in another way, a collation that takes letters of different case or accent
    for equal, a time zone other than UTC, limits on what a statement may do. `arguments` are more
    of its command line, such as `--ssl-cert=FILE`.
    """

    name = "mariadb"

    def __init__(self, *, loose: bool = False, arguments: Sequence[str] = ()) -> None:
        self.loose = loose
        self.arguments = arguments
        super().__init__()

    def url(self, database: str) -> str:
        address = f"{USER}:{PASSWORD}@{HOST}:{self.port}"
        return f"mysql://{address}/{database}?charset=utf8mb4&parseTime=True&loc=UTC"

    def _find(self) -> None:
        self._mariadbd = _program("mariadbd")
        self._install_db = _program("mariadb-install-db")

    def _initialize(self) -> None:
        self._run(
            [
                self._install_db,
                "--no-defaults",
                *self._as_root(),
                f"--datadir={self.data}",
                # In a folder for all, a server that starts removes the temporary tables of others.
                f"--tmpdir={self.folder}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]
        )
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{USER}'@'{HOST}' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'{HOST}' WITH GRANT OPTION;\n"
            + "".join(f"SET GLOBAL {name} = {value};\n" for name, value in self._globals().items())
        )

    def _globals(self) -> dict[str, str]:
        return LOOSE if self.loose else {}

    def _command(self) -> list[str]:
        collation = "utf8mb4_general_ci" if self.loose else "utf8mb4_bin"
        return [
            self._mariadbd,
            "--no-defaults",
            *self._as_root(),
            f"--datadir={self.data}",
            f"--tmpdir={self.folder}",
            f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid",
            f"--init-file={self.folder}/init.sql",
            f"--bind-address={HOST}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            f"--collation-server={collation}",
            f"--sql-mode={LOOSE_MODE if self.loose else STRICT}",
            f"--default-time-zone={'+05:45' if self.loose else '+00:00'}",
            "--max-connections=200",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=32M",
            *self.arguments,
        ]

    def _as_root(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []


class PostgreSQL(Server):
    """A PostgreSQL that sorts text by a language if possible, like the usual images.

    `settings` are more of its own, such as `ssl`.
    """

    name = "postgresql"

    def __init__(self, settings: Optional[Mapping[str, str]] = None) -> None:
        self.settings = settings or {}
        super().__init__()

    def url(self, database: str) -> str:
        return f"postgres://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}?sslmode=disable"

    def _find(self) -> None:
        self._postgres = _program("postgres")
        self._initdb = _program("initdb")

    def _initialize(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        account = self._account()
        if account:
            shutil.chown(self.folder, account, account)
            shutil.chown(password, account, account)
        self._run(
            [
                self._initdb,
                f"--pgdata={self.data}",
                f"--username={USER}",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                *self._collation(),
            ]
        )

    def _collation(self) -> list[str]:
        version = subprocess.run([self._postgres, "--version"], capture_output=True, check=True)
        major = int(version.stdout.split()[2].split(b".")[0])
        return ["--locale-provider=icu", "--icu-locale=en-US"] if major >= 15 else []

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "timezone": "UTC",
            "max_connections": 200,
            "shared_buffers": "32MB",
            **self.settings,
        }
        return [self._postgres, "-D", str(self.data)] + [
            argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")
        ]

    def _account(self) -> Optional[str]:
        return unprivileged()


class PgBouncer(Server):
    """A pooler before a PostgreSQL, as in Debian's package, in one of its two useful modes.

    In "transaction" mode each transaction may be another session's than the one before.
    """

    name = "pgbouncer"

    def __init__(self, server: str, mode: str) -> None:
        """Take the URL of a PostgreSQL; all clients are the user of this URL there."""
        self._server = urlsplit(server)
        self._mode = mode
        super().__init__()

    def url(self, database: str) -> str:
        return f"postgres://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}?sslmode=disable"

    def _find(self) -> None:
        self._pgbouncer = _program("pgbouncer")

    def _initialize(self) -> None:
        there = self._server
        settings = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": self._mode,
            # So few that clients share sessions all the time.
            "default_pool_size": 3 if self._mode == "transaction" else 50,
            "server_round_robin": 1,
        }
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={there.hostname} port={there.port}"
            f" user={unquote(there.username or '')} password={unquote(there.password or '')}\n"
            "[pgbouncer]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())
        )
        self.data.mkdir()
        self.folder.chmod(0o755)

    def _command(self) -> list[str]:
        return [self._pgbouncer, str(self.folder / "pgbouncer.ini")]

    def _account(self) -> Optional[str]:
        return unprivileged()


def unprivileged() -> Optional[str]:
    """Return the system's user for programs that refuse root; None if we aren't root."""
    return "postgres" if os.geteuid() == 0 else None  # PostgreSQL's package adds it


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement over the plain driver, in the database that a Go-style URL names."""
    parts = urlsplit(url)
    if parts.scheme.startswith("mysql"):
        with (
            pymysql.connect(
                host=parts.hostname or HOST,
                port=parts.port or 3306,
                user=unquote(parts.username or ""),
                password=unquote(parts.password or ""),
                database=_name(url) or None,
                autocommit=True,
                ssl_disabled=True,  # else the driver reads all authorities of the system first
            ) as mysql,
            mysql.cursor() as cursor,
        ):
            # Independent of the server's defaults, such as those of `loose`.
            cursor.execute("SET SESSION TRANSACTION READ WRITE")
            cursor.execute("SET sql_select_limit = 18446744073709551615, sql_safe_updates = 0")
            cursor.execute(statement)
            return list(cursor.fetchall())
    address = in_database(url, _name(url) or "postgres").replace(parts.scheme, "postgresql", 1)
    with psycopg.connect(address, autocommit=True) as postgresql:
        result = postgresql.execute(statement)
        return result.fetchall() if result.description else []


def in_database(url: str, name: str) -> str:
    """Return the same server's URL for another database, or for none if `name` is empty."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def create_database(url: str) -> None:
    """Make the (empty) database that the URL names, with the server's defaults."""
    execute(in_database(url, ""), f"CREATE DATABASE {_name(url)}")


def make_hostile(url: str) -> None:
    """Set defaults of the database of a PostgreSQL URL that break careless clients."""
    for name, value in HOSTILE.items():
        execute(in_database(url, ""), f"ALTER DATABASE {_name(url)} SET {name} = {value!r}")


def drop_database(url: str) -> None:
    """Remove the database of the URL, even with open sessions."""
    server, name = in_database(url, ""), _name(url)
    if url.startswith("postgres"):
        execute(
            server,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND pid <> pg_backend_pid()",
        )
    execute(server, f"DROP DATABASE IF EXISTS {name}")


def _name(url: str) -> str:
    return urlsplit(url).path.lstrip("/")


def _program(name: str) -> str:
    """Return the path of a server's program; some packages install it outside of PATH."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    newest_first = sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    places = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/libexec"]
    path = os.pathsep.join([*map(str, newest_first), *places])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerMissing(f"{name} is not installed")
    return found


def in_memory() -> Optional[Path]:
    """Return a folder whose files are in memory, where a server need not wait for a disk.

    None where there is none, or little room in it: some containers have 64 MiB.
    """
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < MEMORY_BYTES:
        return None
    return MEMORY


def free_port() -> int:
    """Return a loopback port without a listener.

    Not one of those that the system gives to connections, or another test's might take it before
    it is listened on.
    """
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
