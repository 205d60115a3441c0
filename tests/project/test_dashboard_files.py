"""The files that Grafana reads: fresh, alike for both databases, and as Grafana 11 takes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from dashboards.__main__ import FOLDER, files
from tests.support.dashboard_answers import Chosen, expand
from tests.support.grafana import DASHBOARD

FILES = list(files())
NAMES = [f"{path.parent.name}-{path.stem}" for path, _ in FILES]
EACH = pytest.mark.parametrize(("path", "content"), FILES, ids=NAMES)
# The tables with a line for each person, and their order.
PEOPLE = {
    "Quiet Machines [Silent for More than 7 Days]": "ORDER BY developer_id, hostname",
    "Members": "ORDER BY u.name, u.id",
}
DRILL_DOWN = {"DeveloperTelemetryTeam.json", "DeveloperTelemetryPerson.json"}


def queries(content: str) -> dict[str, str]:
    panels = json.loads(content)["panels"]
    return {p["title"]: each["rawSql"] for p in panels for each in p.get("targets", [])}


@EACH
def test_a_file_is_what_the_generator_writes(path: Path, content: str) -> None:
    assert path.read_text(encoding="utf-8") == content, "run python -m dashboards"


def test_nothing_else_lies_beside_the_files() -> None:
    assert set(FOLDER.glob("*/*.json")) == {path for path, _ in FILES}


@EACH
def test_grafana_takes_it(path: Path, content: str) -> None:
    errors = Draft202012Validator(DASHBOARD).iter_errors(json.loads(content))
    assert [f"{error.json_path}: {error.message[:300]}" for error in errors] == []


def test_grafana_would_not_take_a_misspelt_field() -> None:
    changed: dict[str, Any] = json.loads(FILES[0][1])
    changed["panels"][-1]["gridpos"] = {}
    assert not Draft202012Validator(DASHBOARD).is_valid(changed)


def test_with_uids_they_are_the_same_but_for_their_references(tmp_path: Path) -> None:
    script = [sys.executable, "-m", "dashboards", "--by-uid", str(tmp_path)]
    subprocess.run(script, cwd=FOLDER.parent, check=True)

    uids = {"mysql": "devlake-mysql-api", "postgresql": "devlake-postgres-api"}
    types = {"mysql": "mysql", "postgresql": "postgres"}
    for path, content in FILES:
        name = path.parent.name
        written = (tmp_path / name / path.name).read_text(encoding="utf-8")
        assert list(Draft202012Validator(DASHBOARD).iter_errors(json.loads(written))) == []
        reference = {"type": types[name], "uid": uids[name]}
        assert f'"datasource": "{name}"' not in written
        assert json.loads(written) == json.loads(
            content.replace(f'"datasource": "{name}"', f'"datasource": {json.dumps(reference)}')
        )


def test_both_databases_have_the_same_pages_and_panels() -> None:
    titles: dict[str, dict[str, Any]] = {"mysql": {}, "postgresql": {}}
    for path, content in FILES:
        panels = json.loads(content)["panels"]
        titles[path.parent.name][path.name] = [(p["type"], p.get("title")) for p in panels]
    assert titles["mysql"] == titles["postgresql"]


def test_every_page_has_an_identity_of_its_own() -> None:
    identities = [json.loads(content)["uid"] for _, content in FILES]
    assert len(set(identities)) == len(identities)


@EACH
def test_panels_neither_overlap_nor_share_an_identity(path: Path, content: str) -> None:
    panels = json.loads(content)["panels"]
    assert [p["id"] for p in panels] == list(range(1, len(panels) + 1))
    places = [p["gridPos"] for p in panels]
    assert all(each["x"] + each["w"] <= 24 for each in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


@EACH
def test_whoever_is_listed_is_found_by_tag_and_drill_downs_by_link_only(
    path: Path, content: str
) -> None:
    page = json.loads(content)
    if path.name in DRILL_DOWN:
        assert page["tags"] == []
    else:
        assert {"Data Source Dashboard", "Developer"} <= set(page["tags"])
    assert page["panels"][0]["title"] == "Dashboard Introduction"
    assert page["time"] == {"from": "now-6M", "to": "now"}


@EACH
def test_links_lead_to_pages_of_the_same_database(path: Path, content: str) -> None:
    known = {
        json.loads(other)["uid"]: {v["name"] for v in json.loads(other)["templating"]["list"]}
        for place, other in FILES
        if place.parent == path.parent
    }
    for identity, variable in re.findall(r'"/d/([^?]+)\?[^"]*&var-(\w+)=', content):
        assert variable in known[identity]


@EACH
def test_queries_use_only_variables_that_the_page_has(path: Path, content: str) -> None:
    known = {each["name"] for each in json.loads(content)["templating"]["list"]}
    for title, query in queries(content).items():
        used = set(re.findall(r"\$\{(\w+)", query))
        assert used <= known, title
        assert "$" not in expand(query, "mysql", 0, 1, Chosen()).replace("'$", "'"), title


@EACH
def test_queries_are_what_the_database_speaks(path: Path, content: str) -> None:
    dialect = {"mysql": "mysql", "postgresql": "postgres"}[path.parent.name]
    for title, query in queries(content).items():
        expanded = expand(query, path.parent.name, 0, 86400, Chosen())
        assert len(sqlglot.parse(expanded, read=dialect)) == 1, title
        # What MariaDB or PostgreSQL alone has, or what would end after a thousand days.
        words = expanded.upper()
        if dialect == "mysql":
            assert not re.search(
                r"\bRECURSIVE\b|\bPERCENTILE|\bMEDIAN\(|\bSEQ_|::|\bMINUS\b", words
            )


@EACH
def test_no_page_shows_mail_addresses_or_ranks_people(path: Path, content: str) -> None:
    for title, query in queries(content).items():
        assert "email" not in query.lower(), title
        if title in PEOPLE:
            assert query.endswith(PEOPLE[title])
        else:
            assert not re.search(r"^SELECT .*(developer_id|u\.name)", query, re.MULTILINE), title
