"""The real receiver and command as child processes, for tests from outside.

    with Receiver(database_url, tmp_path) as receiver:
        connection = add_connection(database_url, "token")
        assert receiver.send(report("ann"), connection, "token").status_code == 200
        receiver.kill()
        receiver.start()

It keeps its port and its settings through restarts; only processes started here are ended.
"""

from __future__ import annotations

import itertools
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, Union

import httpx
from typer.main import get_command
from typer.testing import CliRunner

from developer_telemetry.cli.main import app
from developer_telemetry.connections.crypto import encrypt
from developer_telemetry.constants import CONNECTION_TABLE
from tests.support import warm_starts
from tests.support.servers import HOST, execute, free_port
from tests.support.warm_starts import COMMAND

T = TypeVar("T")

SECRET = "an encryption secret as DevLake has it"
TOKEN = "token-of-the-fleet"
DAY = "2026-11-23"

START_SECONDS = 30.0
STOP_SECONDS = 30.0
# The settings of the calling environment must not reach the child.
OUR_SETTINGS = ("DB_URL", "ENCRYPTION_SECRET", "TELEMETRY_", "DEVLAKE_")

_numbers = itertools.count(1)


class ReceiverFailed(Exception):
    """The receiver ended or didn't answer in time; the message ends with its log."""


class Receiver:
    """`developer-telemetry serve` on a free port; `with` starts and stops it.

    `settings` are environment variables; its log and its data lie in `folder`.
    """

    def __init__(self, database_url: str, folder: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._folder = folder
        self._log = folder / f"receiver-{self.port}.log"
        own = {"TELEMETRY_SPOOL_DIR": str(folder / f"spool-{self.port}"), **settings}
        self._environment = environment(DB_URL=database_url, TELEMETRY_PORT=str(self.port), **own)
        self._process: Optional[warm_starts.Process] = None
        self._client: Optional[httpx.Client] = None

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.running:
            self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "start() comes first"
        return self._process.pid

    def memory(self) -> float:
        """Return the memory of the process in MiB, and reset its peak."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self._in_mebibytes("VmRSS")

    def peak(self) -> float:
        """Return the peak of the memory since the last call of `memory`, in MiB."""
        return self._in_mebibytes("VmHWM")

    def _in_mebibytes(self, name: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        [kibibytes] = re.findall(rf"{name}:\s+(\d+) kB", status)
        return int(kibibytes) / 1024

    def command(self) -> list[str]:
        """Return the command to run, which subclasses may replace."""
        return [str(COMMAND), "serve"]

    @property
    def log(self) -> str:
        """Return all output to stdout and stderr, restarts included."""
        return self._log.read_text(encoding="utf-8")

    @property
    def client(self) -> httpx.Client:
        """Return a client for any thread, with open connections and without redirects."""
        assert self._client is not None, "start() comes first"
        return self._client

    def start(self, answering: str = "/health/ready") -> None:
        """Wait until a GET of `answering` returns 200.

        :raises ReceiverFailed: it ended or didn't answer in time.
        """
        assert not self.running, "stop() or kill() comes first"
        with self._log.open("ab") as log:
            self._process = warm_starts.start(
                self.command(), self._folder, self._environment, log.fileno(), log.fileno()
            )
        # Without `verify=False` the client would first read all authorities of the system.
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=False)
        deadline = time.monotonic() + START_SECONDS
        while self.status(answering) != 200:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ReceiverFailed(f"no 200 from {answering}:\n{self.log}")
            time.sleep(0.05)

    def stop(self) -> int:
        """Stop the receiver with SIGTERM and return its exit status."""
        assert self._process is not None, "start() comes first"
        self.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ReceiverFailed(f"it did not stop:\n{self.log}") from None
        finally:
            self.kill()

    def terminate(self) -> None:
        """Send SIGTERM and return at once; `stop` waits for the end."""
        assert self._process is not None, "start() comes first"
        self._process.terminate()

    def kill(self) -> None:
        """Kill the receiver with SIGKILL, like a crash."""
        assert self._process is not None, "start() comes first"
        self._process.kill()
        self._process.wait()
        self.client.close()

    def status(self, path: str) -> int:
        """Return the status of a GET of `path`; 0 without an answer."""
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0

    def send(
        self,
        body: Union[dict[str, Any], bytes],
        connection_id: int,
        token: Optional[str] = TOKEN,
        *,
        path: str = "/plugins/developer-telemetry/{}/report",
        **headers: str,
    ) -> httpx.Response:
        """Post one report; headers are named as in `content_encoding="gzip"`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["authorization"] = f"Bearer {token}"
        if isinstance(body, bytes):
            return self.client.post(path.format(connection_id), content=body, headers=sent)
        return self.client.post(path.format(connection_id), json=body, headers=sent)


class Altered(Receiver):
    """A receiver with other constants, such as shorter times.

    `constants` are named by their module, as in `{"receiver.http.body_reader.BODY_SECONDS": 1}`.
    """

    constants: Mapping[str, float] = {}

    def command(self) -> list[str]:
        names = [f"developer_telemetry.{name}" for name in self.constants]
        imports = [f"import {name.rpartition('.')[0]}" for name in names]
        # Reading it first makes a missing name an error.
        values = [
            f"{name}; {name} = {value}" for name, value in zip(names, self.constants.values())
        ]
        run = ["from developer_telemetry.cli.main import app", "app(['serve'])"]
        return [sys.executable, "-c", "\n".join([*imports, *values, *run])]


class ReloadingReceiver(Altered):
    """A receiver that reloads connections from the database for each unknown token."""

    constants = {"connections.registry.RELOAD_SECONDS": 0.05}


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with only these of our settings."""
    others = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    return {**others, "ENCRYPTION_SECRET": SECRET, **settings}


def _is_ours(name: str) -> bool:
    return name.startswith(OUR_SETTINGS)


def run_command(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `developer-telemetry` to its end, in `folder`."""
    return warm_starts.run([str(COMMAND), *arguments], folder, environment(**settings), timeout=60)


def command_runner() -> CliRunner:
    """Return a runner of the command in this process, with separate stderr and stdout."""
    try:
        return CliRunner(mix_stderr=False)  # type: ignore[call-arg]  # of click before 8.2
    except TypeError:
        return CliRunner()


def command_names() -> list[str]:
    """Return the names of all commands, as an operator types them, such as `token rotate`."""
    group: Any = get_command(app)
    return list(_names_of(group, ""))


def _names_of(group: Any, before: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _names_of(command, f"{before}{name} ")
        else:
            yield before + name


def migrate(database_url: str, folder: Path) -> None:
    """Make the tables, as an operator does."""
    done = run_command(folder, "migrate", DB_URL=database_url)
    assert done.returncode == 0, done.stderr


def add_connection(database_url: str, token: Optional[str] = TOKEN, strategy: str = "") -> int:
    """Insert a connection as DevLake's server would, and return its id.

    The token is stored encrypted, an empty one as well; None is NULL.
    """
    name = f"connection {next(_numbers)}"
    secret_token = "NULL" if token is None else f"'{encrypt(token, SECRET)}'"
    query(
        database_url,
        f"INSERT INTO {CONNECTION_TABLE} (name, endpoint, secret_token, duplicate_strategy)"
        f" VALUES ('{name}', '', {secret_token}, '{strategy}')",
    )
    [(connection_id,)] = query(
        database_url, f"SELECT id FROM {CONNECTION_TABLE} WHERE name = '{name}'"
    )
    assert isinstance(connection_id, int)
    return connection_id


def report(developer: str, **fields: Any) -> dict[str, Any]:
    """Return a body in the format of the specification, with these metrics and fields."""
    return {"developer": developer, "date": DAY, "hostname": "laptop", **fields}


def query(database_url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run and commit one statement over the plain driver of any database."""
    if not database_url.startswith("sqlite"):
        return execute(database_url, statement)
    path = database_url.replace("sqlite:///", "", 1)
    with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        return connection.execute(statement).fetchall()


def eventually(check: Callable[[], T], seconds: float) -> T:
    """Return the first true result of `check`; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < deadline, f"not within {seconds} s; last: {value!r}"
        time.sleep(0.05)
    return value
