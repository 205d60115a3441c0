"""People's own pages of a receiver, requested as by a browser and by a collector."""

from __future__ import annotations

import secrets
import time
from typing import Any, Optional

import httpx

from developer_telemetry.database.engine import open_engine
from developer_telemetry.privacy.access_log import RecordedLook, read_looks
from developer_telemetry.privacy.personal_links import (
    PersonalLinks,
    PersonalView,
    make_page_key,
    page_path,
)
from tests.support.receivers import SECRET, TOKEN, Receiver, report

ME = "/plugins/developer-telemetry/me/"


class OwnPages:
    """A receiver, its database, and links to pages of people."""

    def __init__(self, receiver: Receiver, url: str) -> None:
        self.receiver = receiver
        self.url = url
        self._browsers: list[Browser] = []

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()

    def make_path(self, developer: str, connection_id: int, seconds: int = 60) -> str:
        """Return the path of a link as an operator makes one."""
        until = int(time.time()) + seconds
        return page_path(
            PersonalLinks(SECRET).make_link(PersonalView(connection_id, developer, until, "op"))
        )

    def open(self, path: str) -> Browser:
        """Open a link in a new browser."""
        self._browsers.append(Browser(self.receiver.url, path))
        return self._browsers[-1]

    def looks(self, developer: str, connection_id: int) -> list[RecordedLook]:
        """Return the record of looks at a developer's rows."""
        engine = open_engine(self.url)
        try:
            with engine.connect() as connection:
                return read_looks(connection, (connection_id, developer))
        finally:
            engine.dispose()


class Browser:
    """A browser that has opened a link."""

    def __init__(self, base_url: str, path: str) -> None:
        self._client = httpx.Client(base_url=base_url, trust_env=False, verify=False)
        self.opened = self._client.get(path)
        self._base = path.partition("open?")[0]

    def close(self) -> None:
        self._client.close()

    def get(self, name: str = "") -> httpx.Response:
        return self._client.get(self._base + name)


class Machine:
    """A machine with a collector: its developer, its host and its secret."""

    def __init__(
        self, receiver: Receiver, connection_id: int, developer: str, hostname: str = "laptop"
    ) -> None:
        self.secret = secrets.token_hex(32)
        self._receiver = receiver
        self._connection_id = connection_id
        self._developer = developer
        self._hostname = hostname

    def send(self, date: str, developer: Optional[str] = None, **metrics: Any) -> None:
        body = report(
            developer or self._developer,
            date=date,
            hostname=self._hostname,
            metrics=metrics,
            page_key=make_page_key(self.secret),
        )
        assert self._receiver.send(body, self._connection_id).status_code == 200

    def ask(self, developer: Optional[str] = None, token: str = TOKEN) -> httpx.Response:
        """Ask for a link, also to the page of another developer."""
        return self._receiver.client.post(
            f"/plugins/developer-telemetry/{self._connection_id}/me-link",
            json={"developer": developer or self._developer, "page_secret": self.secret},
            headers={"authorization": f"Bearer {token}"},
        )
