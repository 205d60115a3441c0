"""The receiver's page, requested as by a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

import httpx

from tests.support.receivers import Altered, Receiver


class RefreshingReceiver(Altered):
    """A receiver that counts machines and reads figures again for each request."""

    constants = {
        "receiver.web.presenter.REFRESH_SECONDS": 0.05,
        "receiver.web.presenter.ANSWER_SECONDS": 0,
        "receiver.web.data.cached_query.PAUSE_FACTOR": 0,
        "receiver.web.presenter.WAIT_SECONDS": 10,
        "receiver.jobs.monitor.ROUND_SECONDS": 0.1,
    }


class Lake:
    """A receiver, its database, and its page."""

    def __init__(self, receiver: Receiver, url: str) -> None:
        self.receiver = receiver
        self.url = url

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.receiver.client.get(path, headers=sent)

    def post(
        self, path: str, form: Optional[dict[str, str]] = None, **headers: str
    ) -> httpx.Response:
        """Post a form of this page as a browser does, except for `headers`."""
        sent = {"origin": self.receiver.url, "sec-fetch-site": "same-origin"}
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        given = {name: value for name, value in sent.items() if value}
        return self.receiver.client.post(path, data=form or {}, headers=given)

    def csrf_token(self) -> str:
        """Return the token that every form of this page contains."""
        field = re.search(r'name="csrf_token" value="(\w+)"', self.get().text)
        assert field is not None
        return field[1]

    def sections(self, path: str = "/live") -> dict[str, str]:
        """Return the refreshed parts of the page by their names."""
        sections: dict[str, str] = self.get(path).json()["sections"]
        return sections


@contextmanager
def start_lake(folder: Path, **settings: str) -> Iterator[Lake]:
    """Start a refreshing receiver with the embedded database; its log has no traceback."""
    url = f"sqlite:///{folder}/telemetry.db"
    with RefreshingReceiver(url, folder, **settings) as receiver:
        yield Lake(receiver, url)
    assert "Traceback" not in receiver.log
