"""Test who may see the page, and whose forms count."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from developer_telemetry.config import load_settings
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.receiver.web.sessions import COOKIE, Sessions, is_loopback
from tests.support.pages import Lake, start_lake
from tests.support.receivers import Receiver

ADMIN = "an admin token & its 'quotes'"
PAGES = ("/days", "/refused", "/machine", "/set-up", "/machines.csv", "/days.csv", "/refused.csv")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One that asks for an admin token."""
    folder = tmp_path_factory.mktemp("guarded")
    with start_lake(folder, TELEMETRY_ADMIN_TOKEN=ADMIN) as guarded:
        yield guarded
    assert ADMIN not in guarded.receiver.log


def test_the_embedded_default_is_open_here(lake: Lake) -> None:
    answer = lake.get()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert lake.get(host=f"localhost:{lake.receiver.port}").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8090"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost@evil.example"},
        {"x_forwarded_for": "192.0.2.7"},
        {"x_real_ip": "192.0.2.7"},
        {"forwarded": "for=192.0.2.7"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/", "/live", *PAGES])
def test_it_is_closed_to_other_names_and_behind_a_proxy(
    lake: Lake, path: str, headers: dict[str, str]
) -> None:
    answer = lake.get(path, **headers)

    assert answer.status_code == 403
    assert "machines" not in answer.text.lower().replace("machines send", "")


def test_it_is_closed_beside_devlakes_database(
    tmp_path: Path, migrated: Callable[[str], str]
) -> None:
    with Receiver(migrated("mariadb"), tmp_path) as receiver:
        answer = receiver.client.get("/")
        tried = receiver.client.post("/login", data={"token": ""})

    assert answer.status_code == 403
    assert "TELEMETRY_ADMIN_TOKEN" in answer.text
    assert (tried.status_code, tried.headers["location"]) == (303, "./")


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *[(host, True) for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9")],
        *[(host, False) for host in ("0.0.0.0", "::", "192.0.2.7", "receiver.example")],
    ],
)
def test_only_loopback_addresses_are_here(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_a_short_admin_token_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="TELEMETRY_ADMIN_TOKEN is shorter than 16"):
        load_settings(
            {"DB_URL": "mysql://x/y", "ENCRYPTION_SECRET": "s", "TELEMETRY_ADMIN_TOKEN": "short"}
        )


def test_with_an_admin_token_one_signs_in_and_out(guarded: Lake) -> None:
    assert guarded.get().headers["location"] == "login"
    assert guarded.get("/live").status_code == 403
    for path in PAGES:
        assert guarded.get(path).headers["location"] == "login"
    assert guarded.post("/machine", {"connection": "1", "developer": "ann"}).status_code == 403
    assert guarded.get("/login").status_code == 200

    wrong = guarded.post("/login", {"token": ADMIN[:-1]})
    assert wrong.status_code == 403
    assert "not the admin token" in wrong.text
    assert "set-cookie" not in wrong.headers

    right = guarded.post("/login", {"token": ADMIN})
    assert (right.status_code, right.headers["location"]) == (303, "./")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    assert ADMIN not in cookie
    page = guarded.get()
    assert page.status_code == 200
    assert ADMIN not in page.text

    out = guarded.post("/logout", {"csrf_token": guarded.csrf_token()})
    assert out.headers["location"] == "login"
    assert guarded.get().headers["location"] == "login"


def test_behind_https_the_cookie_stays_there(guarded: Lake) -> None:
    given = guarded.post("/login", {"token": ADMIN}, x_forwarded_proto="https")

    assert "; secure" in given.headers["set-cookie"].lower()
    guarded.receiver.client.cookies.clear()


def test_sessions_can_not_be_made_up_nor_outlive_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, other = (
        Sessions(ADMIN, is_open_locally=True),
        Sessions(ADMIN + "!", is_open_locally=True),
    )
    session = sessions.new_session()

    def allows(by: Sessions, cookie: str) -> bool:
        from starlette.requests import Request

        headers = [(b"cookie", f"{COOKIE}={cookie}".encode()), (b"host", b"localhost")]
        scope = {"type": "http", "headers": headers, "client": ("127.0.0.1", 1)}
        return by.allows(Request(scope))

    assert allows(sessions, session)
    assert not allows(other, session)
    until, _, signature = session.partition(".")
    for made_up in (
        "",
        ".",
        "x",
        f"{int(until) + 1}.{signature}",
        f"{until}.{signature[:-1]}",
        f"é.{signature}",
    ):
        assert not allows(sessions, made_up)
    monkeypatch.setattr(time, "time", lambda: int(until) + 1)
    assert not allows(sessions, session)


# Forms


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "", "origin": "http://evil.example"},
        {"sec_fetch_site": "", "origin": "null"},
        {"sec_fetch_site": "", "origin": ""},
    ],
    ids=str,
)
def test_a_form_from_elsewhere_is_refused(
    lake: Lake, guarded: Lake, headers: dict[str, str]
) -> None:
    sent = lake.post(
        "/test-report", {"csrf_token": lake.csrf_token(), "connection": "1"}, **headers
    )
    signing_in = guarded.post("/login", {"token": ADMIN}, **headers)

    assert (sent.status_code, signing_in.status_code) == (403, 403)
    assert "set-cookie" not in signing_in.headers


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
def test_a_form_without_its_token_is_refused(lake: Lake, token: str) -> None:
    assert lake.post("/test-report", {"csrf_token": token, "connection": "1"}).status_code == 403
    assert lake.post("/logout", {"csrf_token": token}).status_code == 403


def test_a_form_that_is_too_long_is_refused(lake: Lake) -> None:
    form = {"csrf_token": lake.csrf_token(), "connection": "1" * 10_000}

    assert lake.post("/test-report", form).status_code == 403


def test_an_older_browser_is_known_by_its_origin(lake: Lake) -> None:
    form = {"csrf_token": lake.csrf_token(), "connection": "1"}

    assert lake.post("/test-report", form, sec_fetch_site="").status_code == 200
