"""Start `developer-telemetry` from a process that has imported all modules.

A start of the interpreter with all imports takes more than a second of CPU time, and the tests make
more than a thousand. So one process for each test worker imports all modules and forks a child for
each start: a real process with its own environment, folder, standard streams and signals. Without
`enable`, as in benchmarks, and for a start that imports may depend on, the command itself is run.

Run as a module, this is the process that forks.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn, Optional, Union

COMMAND = Path(sys.executable).with_name("developer-telemetry")

# The interpreter or a library reads these when it starts.
_READ_AT_START = ("PYTHON", "LC_", "LANG", "TZ", "TERM", "COLUMNS", "LINES", "NO_COLOR")
_DRIVERS = ("mysql.pymysql", "postgresql.psycopg2", "sqlite.pysqlite")
_MAX_REQUEST = 1 << 20

_is_enabled = False
_forker: Optional[_Forker] = None


class _Forker:
    """The handle of the process that forks, in the test's process."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def fork(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        files: Sequence[int],
    ) -> ForkedProcess:
        """Start the command with these arguments and standard streams."""
        ours, theirs = socket.socketpair()
        request = {
            "arguments": list(arguments),
            "folder": str(folder.absolute()),
            "environment": dict(environment),
        }
        with theirs:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [*files, theirs.fileno()])
        return ForkedProcess(ours)

    def stop(self) -> None:
        """End it; the processes that it forked go on."""
        self._socket.close()
        self._process.wait()


class ForkedProcess:
    """A forked process, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self.returncode: Optional[int] = None
        self.pid = int(self._read_line())

    def poll(self) -> Optional[int]:
        """Return the exit status, or None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: Optional[float] = None) -> int:
        """Return the exit status as soon as the process has ended; raises `TimeoutExpired`."""
        if self.returncode is None:
            # A timeout of 0 makes the socket non-blocking.
            self._control.settimeout(timeout)
            try:
                self.returncode = int(self._read_line())
            except (BlockingIOError, TimeoutError, socket.timeout):
                raise subprocess.TimeoutExpired(str(COMMAND), timeout or 0) from None
            # Until here the process exists as a zombie, so its id has no other owner.
            self._control.close()
        return self.returncode

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _read_line(self) -> bytes:
        # Each number is sent in one piece of 16 bytes.
        line = self._control.recv(16, socket.MSG_WAITALL)
        if not line:
            raise ChildProcessError("the process that forks has ended")
        return line


Process = Union["subprocess.Popen[bytes]", ForkedProcess]


def enable() -> None:
    """Fork from now on, where the system can; the first start waits for the imports."""
    global _is_enabled
    _is_enabled = sys.platform == "linux"


def disable() -> None:
    """Run the command itself again."""
    global _is_enabled, _forker
    _is_enabled = False
    if _forker is not None:
        _forker.stop()
    _forker = None


def start(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    stdout: int,
    stderr: int,
    stdin: Optional[int] = None,
) -> Process:
    """Start a command, by default without input, forked if it is ours and starts alike."""
    with open(os.devnull, "rb") as nothing:
        stdin = nothing.fileno() if stdin is None else stdin
        files = [stdin, stdout, stderr]
        if _is_enabled and command[0] == str(COMMAND) and _starts_alike(environment):
            return _shared_forker().fork(command[1:], folder, environment, files)
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=_take_terminal if os.isatty(stdin) else None,
        )


def run(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does; raises `TimeoutExpired`."""
    with TemporaryFile() as stdout, TemporaryFile() as stderr:
        process = start(command, folder, environment, stdout.fileno(), stderr.fileno())
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        texts = [_text_of(file) for file in (stdout, stderr)]
    return subprocess.CompletedProcess(command, status, *texts)


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


def _shared_forker() -> _Forker:
    global _forker
    if _forker is None:
        _forker = _Forker()
    return _forker


def _starts_alike(environment: Mapping[str, str]) -> bool:
    ours = _shared_forker().environment
    names = {name for name in {*environment, *ours} if name.startswith(_READ_AT_START)}
    return all(environment.get(name) == ours.get(name) for name in names)


def import_everything() -> None:
    """Import all modules that a command may need."""
    package = importlib.import_module("developer_telemetry")
    for module in pkgutil.walk_packages(package.__path__, "developer_telemetry."):
        importlib.import_module(module.name)
    for driver in _DRIVERS:
        with suppress(ImportError):
            importlib.import_module(f"sqlalchemy.dialects.{driver}")
    for name in ("pymysql", "psycopg2", "uvloop", "httptools", "typer._adapters"):
        with suppress(ImportError):
            importlib.import_module(name)


def _next_request(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return in a new child; in the process that forks, go on until no test's process is left."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 4)
        if not message:
            os._exit(0)
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control = socket.socket(fileno=files.pop())
            pid = os.fork()
            if not pid:
                control.close()
                return json.loads(message), files
            _report(pid, control)
        for file in files:
            os.close(file)


def _report(pid: int, control: socket.socket) -> NoReturn:
    """Send a process's id and exit status, then keep its id until it is not needed."""
    os.closerange(0, control.fileno())
    os.closerange(control.fileno() + 1, 1024)
    with suppress(OSError):
        control.sendall(b"%-16d" % pid)
    _kill_if_abandoned(pid, control)
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    is_exit = ended.si_code == os.CLD_EXITED
    with suppress(OSError):
        control.sendall(b"%-16d" % (ended.si_status if is_exit else -ended.si_status))
        control.recv(1)
    os.waitpid(pid, 0)
    os._exit(0)


def _kill_if_abandoned(pid: int, control: socket.socket) -> None:
    """Wait for the end of a process, or of the test's process, and then end the other one."""
    process = os.pidfd_open(pid)
    ended, _, _ = select.select([process, control.fileno()], [], [])
    if process not in ended:
        os.kill(pid, signal.SIGKILL)


def _become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    """Give this process the request's streams, folder, environment and arguments."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 1024)
    if os.isatty(1):  # the streams of this process are those of files, which can be sought in
        sys.stdin = os.fdopen(os.dup(0))
        sys.stdout, sys.stderr = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w")
        _take_terminal()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = [str(COMMAND), *request["arguments"]]


def _take_terminal() -> None:
    """Make the terminal at standard input that of this process, which Ctrl+C reaches then."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _fork_on_request(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.disable()
    import_everything()
    gc.freeze()
    gc.enable()
    requests = socket.socket(fileno=number)
    request, files = _next_request(requests)
    requests.close()
    _become(request, files)
    from developer_telemetry.cli.main import main

    main()


if __name__ == "__main__":
    _fork_on_request(int(sys.argv[1]))
