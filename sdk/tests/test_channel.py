"""The end of a call, for which the server's own end of the channel matters."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from pydevlake.channel import wait_until_read


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """A pipe's end to read, its end to write, and a line in it."""
    ends = list(os.pipe())
    os.write(ends[1], b"{}\n")
    yield ends
    for end in ends:
        os.close(end)


def test_a_call_ends_when_its_answer_is_read(pipe: list[int]) -> None:
    ending = Thread(target=wait_until_read, args=(1, 2, pipe[1]))
    ending.start()
    ending.join(0.3)
    assert ending.is_alive()
    assert os.read(pipe[0], 100) == b"{}\n"
    ending.join(60)
    assert not ending.is_alive()


def test_it_ends_at_once_if_nobody_reads_or_there_is_no_pipe(
    pipe: list[int], tmp_path: Path
) -> None:
    began = time.monotonic()
    os.close(pipe.pop(0))
    with (tmp_path / "file").open("w") as file:
        file.write("x")
        file.flush()
        wait_until_read(pipe[0], file.fileno(), 999)
    assert time.monotonic() - began < 2
