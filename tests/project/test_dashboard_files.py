"""The files that Grafana reads: fresh, alike for both databases, as its own models read them."""

from __future__ import annotations

import json
import re
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import sqlglot

from dashboards.__main__ import IMPORTED, PROVISIONED, files
from dashboards.panels import INPUT
from dashboards.sql import COMPUTED, DAYS, MACHINES, PERIODS, WEEKS
from tests.support.dashboard_answers import Chosen, expand

ALL = list(files())
FILES = [(path, content) for path, content in ALL if PROVISIONED in path.parents]
NAMES = [f"{path.parent.name}-{path.stem}" for path, _ in FILES]
EACH = pytest.mark.parametrize(("path", "content"), FILES, ids=NAMES)
# The tables with a line for each person, and their order.
PEOPLE = {
    "Quiet Machines [Silent for More than 7 Days]": "ORDER BY developer_id, hostname",
    "Refused Machines [Last 14 Days at Most]": "ORDER BY m.last_us DESC, m.id",
}
DRILL_DOWN = {"developer-telemetry-team.json"}
# What all pages but the fleet's read: no row about fewer people than the smallest group.
VIEWS = {DAYS, WEEKS, PERIODS, COMPUTED}
OF_DEVLAKE = {
    "teams",
    "projects",
    "project_mapping",
    "cicd_pipelines",
    "cicd_deployment_commits",
    "incidents",
    "project_incident_deployment_relationships",
}
DIALECTS = {"mysql": "mysql", "postgresql": "postgres"}
SOURCES = {
    "mysql": ("mysql", "devlake-mysql-api"),
    "postgresql": ("grafana-postgresql-datasource", "devlake-postgres-api"),
}


def queries(content: str) -> dict[str, str]:
    panels = json.loads(content)["panels"]
    return {p["title"]: each["rawSql"] for p in panels for each in p.get("targets", [])}


def tables(query: str, database: str) -> set[str]:
    """Return the tables and views that a query reads."""
    expanded = expand(query, database, 0, 86400, Chosen())
    parsed = sqlglot.parse_one(expanded, read=DIALECTS[database])
    named = {each.alias for each in parsed.find_all(sqlglot.exp.CTE)}
    return {each.name for each in parsed.find_all(sqlglot.exp.Table)} - named - {""}


def reread(content: Any) -> Any:
    """Return a dashboard as Grafana's models of version 11.6 write what they read of it."""
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(content), cls=JSONEncoder))


def lost(content: Any, read: Any, path: str = "") -> list[str]:
    """Return where a field is missing or has changed; defaults may have been added."""
    if isinstance(content, dict) and isinstance(read, dict):
        inner = [lost(content[key], read.get(key), f"{path}.{key}") for key in content]
    elif isinstance(content, list) and isinstance(read, list) and len(content) == len(read):
        inner = [lost(*both, f"{path}[{i}]") for i, both in enumerate(zip(content, read))]
    else:
        inner = [] if content == read else [[f"{path}: {content!r:.200} is read as {read!r:.200}"]]
    return [each for part in inner for each in part]


def test_the_files_are_what_the_generator_writes() -> None:
    outdated = [str(path) for path, content in ALL if path.read_text(encoding="utf-8") != content]
    assert outdated == [], "run python -m dashboards"
    there = {*PROVISIONED.glob("**/*.json"), *IMPORTED.glob("**/*.json")}
    assert there == {path for path, _ in ALL}


@EACH
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Grafana's models need Python 3.11")
def test_grafana_reads_every_field(path: Path, content: str) -> None:
    page = json.loads(content)
    assert lost(page, reread(page)) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Grafana's models need Python 3.11")
def test_grafana_would_not_read_a_misspelt_field() -> None:
    page = json.loads(FILES[0][1])
    page["panels"][-1]["gridpos"] = {}
    page["panels"][-1]["options"]["tool_tip"] = {}
    assert [each.partition(":")[0].rpartition(".")[2] for each in lost(page, reread(page))] == [
        "tool_tip",
        "gridpos",
    ]


@EACH
def test_the_data_source_is_a_variable_with_devlakes_own_as_its_default(
    path: Path, content: str
) -> None:
    plugin, uid = SOURCES[path.parent.name]
    page = json.loads(content)
    variable, *others = page["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        plugin,
    )
    assert variable["current"]["value"] == uid
    reference = {"type": plugin, "uid": "${datasource}"}
    introduction, *panels = [panel for panel in page["panels"] if panel["type"] != "row"]
    for panel in panels:
        assert panel["datasource"] == reference
        assert [target["datasource"] for target in panel["targets"]] == [reference]
    assert [other["datasource"] for other in others] == [reference] * len(others)
    assert introduction["datasource"] == {"type": "datasource", "uid": "grafana"}


@EACH
def test_an_import_asks_for_the_data_source_and_is_the_same_otherwise(
    path: Path, content: str
) -> None:
    provisioned = json.loads(content)
    imported = json.loads((IMPORTED / path.parent.name / path.name).read_text(encoding="utf-8"))

    (asked,) = imported.pop("__inputs")
    chosen = imported["templating"]["list"][0]["current"]
    imported["templating"]["list"][0]["current"] = provisioned["templating"]["list"][0]["current"]

    assert (asked["type"], asked["name"]) == ("datasource", INPUT)
    assert asked["pluginId"] == SOURCES[path.parent.name][0]
    assert chosen["value"] == f"${{{INPUT}}}"
    assert imported == provisioned


@EACH
def test_panels_have_thresholds_and_a_text_for_no_value(path: Path, content: str) -> None:
    page = json.loads(content)
    assert page["graphTooltip"] == 1  # a shared crosshair
    for panel in page["panels"]:
        if "fieldConfig" in panel:
            defaults = panel["fieldConfig"]["defaults"]
            assert defaults["noValue"]
            assert defaults["thresholds"]["steps"][0]["value"] is None


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
    since = "now-7d" if path.stem.endswith("fleet") else "now-6M"
    assert page["time"] == {"from": since, "to": "now"}


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
    dialect = DIALECTS[path.parent.name]
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


@EACH
def test_every_page_but_the_fleets_reads_figures_of_groups_and_devlakes_tables_alone(
    path: Path, content: str
) -> None:
    variables = json.loads(content)["templating"]["list"][1:]
    of_variables = {variable["name"]: variable["query"] for variable in variables}
    read = {
        title: tables(query, path.parent.name)
        for title, query in {**queries(content), **of_variables}.items()
    }
    assert all(read.values())
    if path.stem.endswith("fleet"):
        assert MACHINES in set().union(*read.values())
    else:
        assert {title: found - VIEWS - OF_DEVLAKE for title, found in read.items()} == {
            title: set() for title in read
        }
