"""Test what somebody without a token may learn of the receiver, and have it write."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.support.receivers import Receiver, add_connection, report
from tests.support.servers import HOST, free_port


@pytest.mark.parametrize("kind", ["mysql", "postgres"])
def test_readiness_tells_no_host_user_or_table_and_the_log_does(tmp_path: Path, kind: str) -> None:
    port = free_port()
    receiver = Receiver(f"{kind}://lake_user:lake_password@{HOST}:{port}/lake_database", tmp_path)
    receiver.start(answering="/health/live")
    try:
        told = receiver.client.get("/health/ready")
        assert told.status_code == 503
        for private in (HOST, str(port), "lake_user", "lake_password", "lake_database", kind):
            assert private not in told.text
        assert "`doctor`" in told.json()["message"]
        assert str(port) in receiver.log or HOST in receiver.log
    finally:
        receiver.stop()


def test_a_form_of_21_fields_is_a_bad_request(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with Receiver(url, tmp_path, TELEMETRY_ADMIN_TOKEN="x" * 16) as receiver:
        form = {f"field{number}": "x" for number in range(21)}
        answer = receiver.client.post("/login", data=form)
        assert answer.status_code == 400
        assert "20 fields" in answer.json()["message"]
        assert receiver.client.get("/login").status_code == 200
    assert "ERROR" not in receiver.log


def test_what_strangers_make_the_log_grow_by_is_bounded(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with Receiver(url, tmp_path) as receiver:
        connection = add_connection(url)
        assert receiver.send(report("first"), connection).status_code == 200
        before = len(receiver.log.splitlines())
        with httpx.Client(base_url=receiver.url, trust_env=False) as client:
            for _ in range(400):
                client.put("/plugins/developer-telemetry/1/report", content=b"{")
                sent = receiver.send(b"{", connection)
                assert sent.status_code == 400
                assert client.get("/nothing/here").status_code == 404
        assert 0 < len(receiver.log.splitlines()) - before <= 300
