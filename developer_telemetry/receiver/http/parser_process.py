"""A process that parses large bodies with time and memory of its own.

It reads jobs from its standard input and writes their results to its standard output, until the
input ends. Its memory is limited, and its priority is lower than the receiver's.
"""

from __future__ import annotations

import os
import pickle
import resource
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, Optional, Union

import msgspec

from developer_telemetry.errors import ReportRefused
from developer_telemetry.receiver.http.body_reader import TooLarge, inflate
from developer_telemetry.receiver.http.bulk_upload import Batch, batches
from developer_telemetry.reports.limits import MANY_REPORTS, ONE_REPORT
from developer_telemetry.reports.parser import Report
from developer_telemetry.reports.privacy_filter import PrivacyRules
from developer_telemetry.reports.sender import Sender, parse_by

# A body of 4 MiB of brackets becomes 100 MiB of lists.
MEMORY_BYTES = 512 << 20
NICENESS = 15

_LENGTH = struct.Struct("!Q")


class Job(NamedTuple):
    """A body, as it was sent, and the privacy rules of its connection."""

    body: bytes
    encoding: str
    many: bool
    privacy: Optional[PrivacyRules]


class ParsedReport(msgspec.Struct, tag=True):
    """The report in a body."""

    report: Report


class RefusedBody(msgspec.Struct, tag=True):
    """A body that is no report; `field` is None where it is too large."""

    message: str
    field: Optional[str] = None
    sender: Sender = Sender()

    def error(self) -> Union[ReportRefused, TooLarge]:
        """Return the same as an exception."""
        if self.field is None:
            return TooLarge(self.message)
        return ReportRefused(self.field, self.message, *self.sender)


class ParserFailure(msgspec.Struct, tag=True):
    """A job that failed by an error in this program or for lack of memory."""

    error: str


Reply = Union[ParsedReport, RefusedBody, ParserFailure, Batch]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Reply).decode


def replies(job: Job) -> Iterator[Reply]:
    """Yield the replies to a job; only an unfinished batch is followed by another."""
    parser = partial(parse_by, job.privacy)
    limit = MANY_REPORTS if job.many else ONE_REPORT
    pieces = inflate(job.body, job.encoding, limit)
    try:
        if job.many:
            yield from batches(pieces, parser)
        else:
            yield ParsedReport(parser(b"".join(pieces)))
    except ReportRefused as error:
        yield RefusedBody(error.message, error.field, Sender(error.developer, error.hostname))
    except TooLarge as error:
        yield RefusedBody(str(error))
    except Exception as error:  # its text may contain the body
        yield ParserFailure(type(error).__name__)


def ends(reply: Reply) -> bool:
    """Return true if no other reply follows this one."""
    return not isinstance(reply, Batch) or reply.ended


def send_job(stream: IO[bytes], job: Job) -> None:
    """Write a job to the standard input of `main`."""
    _send(stream, pickle.dumps(job, pickle.HIGHEST_PROTOCOL))


def read_reply(stream: IO[bytes]) -> Reply:
    """Read a reply of `main`; raise `EOFError` if the process has ended."""
    reply: Reply = _decode(_receive(stream))
    return reply


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content


def main() -> None:
    """Process jobs until the end of the input."""
    _limit_resources()
    while True:
        try:
            job = pickle.loads(_receive(sys.stdin.buffer))  # from the receiver alone
        except EOFError:
            return
        for reply in replies(job):
            _send(sys.stdout.buffer, _encode(reply))


def _limit_resources() -> None:
    # Some systems have no such limits.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with suppress(OSError):
        os.nice(NICENESS)
    with suppress(OSError):  # when memory runs out, the system should end this process first
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
