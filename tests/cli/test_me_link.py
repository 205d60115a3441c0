"""Test the command that makes a link to a person's own page."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine

from developer_telemetry.constants import OVERWRITE
from developer_telemetry.privacy.access_log import name_system_user
from developer_telemetry.privacy.personal_links import PersonalLinks
from developer_telemetry.reports.pseudonyms import DEVELOPER, Pseudonyms
from developer_telemetry.storage.writer import store
from tests.support.factories import arrival
from tests.support.receivers import SECRET, add_connection, query, run_command

PUBLIC = "https://devlake.example.com/api"


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
def test_a_link_is_for_one_developer_of_one_connection(
    engine: Engine, migrated_url: str, tmp_path: Path
) -> None:
    first, second = add_connection(migrated_url), add_connection(migrated_url)
    query(
        migrated_url,
        f"UPDATE _tool_developer_telemetry_connections SET pseudonyms = 1 WHERE id = {second}",
    )
    pseudonym = Pseudonyms(SECRET, second).pseudonymize(DEVELOPER, "cem")
    people = [(first, "ann"), (first, "bob"), (second, "bob"), (second, pseudonym)]
    rows = [arrival(connection_id=number, developer=name) for number, name in people]
    store(engine, rows, dict.fromkeys((first, second), OVERWRITE))
    settings = {"DB_URL": migrated_url, "TELEMETRY_PUBLIC_URL": PUBLIC}

    done = run_command(tmp_path, "me-link", "ann", "--hours", "2", "--json", **settings)
    link = json.loads(done.stdout)

    assert (link["connection"], link["developer"]) == (first, "ann")
    start = f"{PUBLIC}/plugins/developer-telemetry/me/open?link="
    assert link["url"].startswith(start)
    links = PersonalLinks(SECRET)
    view = links.read_session(links.open_link(link["url"][len(start) :]))
    assert (view.connection_id, view.developer_id, view.maker) == (first, "ann", name_system_user())
    assert view.page_key == ()
    assert view.valid_until - time.time() <= 3600  # of the session
    plain = run_command(tmp_path, "me-link", "ann", **settings)
    assert plain.stdout.startswith(start)
    assert plain.stdout.count("\n") == 1
    assert "A page for ann of connection" in plain.stderr

    several = run_command(tmp_path, "me-link", "bob", **settings)
    assert several.returncode == 2
    assert "stands for several developers" in several.stderr
    chosen = run_command(tmp_path, "me-link", "bob", "--connection", str(second), **settings)
    assert chosen.returncode == 0
    hashed = run_command(tmp_path, "me-link", "cem", "--json", **settings)
    assert json.loads(hashed.stdout)["developer"] == pseudonym

    unknown = run_command(tmp_path, "me-link", "nobody", **settings)
    assert unknown.returncode == 2
    assert "nothing is stored of 'nobody'" in unknown.stderr
    assert run_command(tmp_path, "me-link", "ann", "--hours", "25", **settings).returncode == 2
