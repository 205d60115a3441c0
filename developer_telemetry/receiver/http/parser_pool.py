"""Parse bodies: small ones in threads, large ones in processes, a bounded number at a time."""

from __future__ import annotations

import asyncio
import logging
import queue
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Optional, TypeVar

from developer_telemetry.concurrency import DaemonThreads
from developer_telemetry.connections.registry import Connection
from developer_telemetry.errors import ConnectionDeleted, Unavailable
from developer_telemetry.receiver.http.bulk_upload import Batch, Result
from developer_telemetry.receiver.http.parser_process import (
    Job,
    ParsedReport,
    ParserFailure,
    RefusedBody,
    Reply,
    ends,
    read_reply,
    send_job,
)
from developer_telemetry.receiver.ingest.ingestor import Ingestor
from developer_telemetry.reports.limits import ONE_REPORT
from developer_telemetry.reports.parser import Report
from developer_telemetry.reports.sender import Sender

# The inflated size that this process may parse without delaying other requests.
SMALL_BYTES = 64 << 10
# The numbers of threads and processes.
SMALL_AT_ONCE = 2
LARGE_AT_ONCE = 1
BULKS_AT_ONCE = 2
# The inflated size of all single reports that are parsed or wait for that.
MAX_INFLATED = 16 << 20
# A process with more memory after a job is replaced.
TIDY_BYTES = 96 << 20
# The longest time to store a batch; database and spool have shorter timeouts.
STORE_SECONDS = 60.0

TOO_MANY = "too many large reports are being read; send this again"
STOPPING = "the receiver is stopping; send this again"

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Parsers:
    """Parses bodies away from the event loop."""

    def __init__(self) -> None:
        self._small = DaemonThreads(SMALL_AT_ONCE, "parser")
        self._large = Processes(LARGE_AT_ONCE, "large")
        self._bulks = Processes(BULKS_AT_ONCE, "bulk")
        self._inflated = 0

    def stop(self) -> None:
        """End all jobs: their senders are asked to send again."""
        self._small.stop()
        self._large.stop()
        self._bulks.stop()

    async def parse_small(self, connection: Connection, body: bytes) -> Report:
        """Parse a body of at most `SMALL_BYTES`."""
        return await self._small.run(lambda: connection.parse(body))

    async def parse_large(self, connection: Connection, body: bytes, encoding: str) -> Report:
        """Parse any other report, as it was sent.

        Raises:
            Unavailable: if too many are being parsed.
        """
        plain = encoding.strip().lower() in ("", "identity")
        inflated = len(body) if plain else ONE_REPORT.inflated
        if self._inflated + inflated > MAX_INFLATED:
            raise Unavailable(TOO_MANY)
        self._inflated += inflated
        try:
            job = Job(body, encoding, many=False, privacy=connection.privacy)
            return await self._large.run(lambda replies: _only_report(replies), job)
        finally:
            self._inflated -= inflated

    async def ingest_many(
        self, connection: Connection, body: bytes, encoding: str, ingest: Ingestor
    ) -> tuple[list[Result], dict[int, Sender]]:
        """Parse and store the reports of a body.

        Returns:
            The result of each report, and the senders of refused reports by index.
        """
        loop = asyncio.get_running_loop()
        results: list[Result] = []
        senders: dict[int, Sender] = {}

        def store(replies: Iterator[Reply]) -> None:
            for reply in replies:
                batch = _batch(reply, results)
                storing = _ingest_batch(ingest, connection, batch)
                asyncio.run_coroutine_threadsafe(storing, loop).result(STORE_SECONDS)
                results.extend(batch.results)
                senders.update(batch.senders)

        job = Job(body, encoding, many=True, privacy=connection.privacy)
        try:
            await self._bulks.run(store, job)
        except Unavailable as error:
            results.append(Result(len(results), 503, str(error), "body"))
        return results, senders


def _only_report(replies: Iterator[Reply]) -> Report:
    for reply in replies:
        if isinstance(reply, ParsedReport):
            return reply.report
        if isinstance(reply, RefusedBody):
            raise reply.error()
    raise AssertionError("a job without an outcome")


def _batch(reply: Reply, results: list[Result]) -> Batch:
    if isinstance(reply, Batch):
        return reply
    assert isinstance(reply, RefusedBody), "failures were raised"
    error = reply.error()
    status = 400 if reply.field is not None else 413
    return Batch([], [], [Result(len(results), status, str(error), reply.field or "body")], True)


async def _ingest_batch(ingest: Ingestor, connection: Connection, batch: Batch) -> None:
    """Store the reports of a batch, and correct the results of those that could not be stored."""
    if not batch.reports:
        return
    at = {result.index: position for position, result in enumerate(batch.results)}
    failures = await ingest.keep_all(connection, batch.reports)
    for index, failure in zip(batch.positions, failures):
        if isinstance(failure, ConnectionDeleted):
            raise failure
        if failure is not None:
            batch.results[at[index]] = Result(index, 503, str(failure))


class Processes:
    """A few processes, each with a thread of this process that waits for it."""

    def __init__(self, number: int, name: str) -> None:
        self._threads = DaemonThreads(number, name)
        self._all = [Process() for _ in range(number)]
        self._free: queue.SimpleQueue[Process] = queue.SimpleQueue()
        for process in self._all:
            self._free.put(process)

    def stop(self) -> None:
        """Start no more jobs, and end the current ones."""
        self._threads.stop()
        for process in self._all:
            process.stop()

    async def run(self, work: Callable[[Iterator[Reply]], T], job: Job) -> T:
        """Run `work` with the replies to a job on a thread, and return its result."""

        def run() -> T:
            process = self._free.get()
            try:
                return work(process.replies(job))
            finally:
                process.reset()
                self._free.put(process)

        return await self._threads.run(run)


def _resident(pid: int) -> int:
    """Return the memory of a process in bytes; 0 where the system doesn't report it."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


class Process:
    """One process, which is started for a job if it does not run."""

    def __init__(self) -> None:
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._busy = False
        self._stopping = False

    def replies(self, job: Job) -> Iterator[Reply]:
        """Yield the replies to a job; raise `Unavailable` if the process fails or ends."""
        try:
            process = self._begin(job)
            assert process.stdout is not None
            while self._busy:
                reply = read_reply(process.stdout)
                if isinstance(reply, ParserFailure):
                    raise Unavailable(self._fault(reply.error), 30)
                self._busy = not ends(reply)
                yield reply
        except (EOFError, OSError, ValueError):
            ended = "it ended" if self._process is None else f"exit {self._process.poll()}"
            raise Unavailable(self._fault(ended), 30) from None

    def reset(self) -> None:
        """Prepare for another job; end a process with an unfinished job or much memory."""
        if self._busy or (self._process and _resident(self._process.pid) > TIDY_BYTES):
            self._end()

    def stop(self) -> None:
        """End, and don't start again."""
        self._stopping = True
        self._end()

    def _begin(self, job: Job) -> subprocess.Popen[bytes]:
        for _ in range(2):
            process = self._running()
            assert process.stdin is not None
            self._busy = True
            with suppress(BrokenPipeError):  # it may have ended since
                send_job(process.stdin, job)
                return process
            self._end()
        raise EOFError

    def _running(self) -> subprocess.Popen[bytes]:
        if self._stopping:
            raise Unavailable(STOPPING)
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "developer_telemetry.receiver.http.parser_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a traceback may contain a body
            )
        return self._process

    def _end(self) -> None:
        process, self._process, self._busy = self._process, None, False
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()

    def _fault(self, why: str) -> str:
        if self._stopping:
            return STOPPING
        logger.error("a large body could not be parsed: %s", why)
        return "the body could not be parsed; send this again"
