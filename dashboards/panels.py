"""The JSON of panels and dashboards, as Grafana 11.6 and later read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from dashboards.sql import CONNECTIONS, Sql

Json = dict[str, Any]
Query = Callable[[Sql], str]

GRAFANA = {"type": "datasource", "uid": "grafana"}
COLUMNS = 24
SCHEMA_VERSION = 41
PLUGIN_VERSION = "11.6.0"
# Grafana asks for the data source of a file with this input, and puts its uid in the input's place.
INPUT = "DS_DEVLAKE"
TAG = "Developer Telemetry"
HOME_TAGS = ("Data Source Dashboard", "Developer")
LINE = {"drawStyle": "line", "lineWidth": 2, "fillOpacity": 10, "showPoints": "never"}
BARS = {"drawStyle": "bars", "lineWidth": 1, "fillOpacity": 80, "showPoints": "never"}


class Panel(NamedTuple):
    """A query and how its answer is drawn. Times are in a column `time`, series in `metric`."""

    title: str
    description: str
    kind: str  # stat, timeseries, barchart or table
    query: Query
    unit: str = "short"
    thresholds: Sequence[tuple[float, str]] = ()  # values from which another colour counts
    empty: str = "No reports in the selected time range"
    width: int = 12
    stacked: bool = False
    bars: bool = False
    units: Sequence[tuple[str, str]] = ()  # of columns that have another
    linked: str = ""  # the column that leads to another page
    link: Sequence[str] = ()  # the variable that `key` is for, a title, the page


class Row(NamedTuple):
    """A heading and the panels below it."""

    title: str
    panels: Sequence[Panel]


class Dashboard(NamedTuple):
    """A page. One about a team has no tags, so that only links lead to it."""

    file: str
    uid: str
    title: str
    introduction: str
    rows: Sequence[Row]
    about: str = "fleet"  # or "groups", "delivery" or "team"
    since: str = "now-6M"

    @property
    def listed(self) -> bool:
        """Return true if people find it in lists."""
        return self.about != "team"


def uid(name: str, d: Sql) -> str:
    """Both databases' dashboards may lie in one Grafana."""
    return f"developer_telemetry_{name}" + ("" if d.name == "mysql" else "_pg")


def dashboard(page: Dashboard, d: Sql) -> Json:
    """Return the whole file."""
    return {
        "annotations": {"list": []},
        "editable": True,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,  # the crosshair is on all panels at once
        "links": _links(),
        "panels": list(_placed(page, d)),
        "refresh": "",
        "schemaVersion": SCHEMA_VERSION,
        "tags": [*HOME_TAGS, TAG] if page.listed else [],
        "templating": {"list": [_source_variable(d), *_variables(page, d)]},
        "time": {"from": page.since, "to": "now"},
        "timepicker": {},
        "timezone": "utc",
        "title": page.title,
        "uid": uid(page.uid, d),
        "version": 1,
        "weekStart": "monday",
    }


def importable(content: Json, d: Sql) -> Json:
    """Return a dashboard for an import, at which Grafana asks for the data source."""
    source, *others = content["templating"]["list"]
    asked = {
        "name": INPUT,
        "label": "DevLake's database",
        "description": "",
        "type": "datasource",
        "pluginId": d.plugin,
        "pluginName": d.name,
    }
    value = f"${{{INPUT}}}"
    chosen = {**source, "current": {"selected": True, "text": value, "value": value}}
    return {"__inputs": [asked], **content, "templating": {"list": [chosen, *others]}}


def _source(d: Sql) -> Json:
    return {"type": d.plugin, "uid": "${datasource}"}


def _links() -> list[Json]:
    return [
        {
            "asDropdown": True,
            "icon": "external link",
            "includeVars": True,
            "keepTime": True,
            "tags": [TAG],
            "targetBlank": False,
            "title": "Developer telemetry",
            "tooltip": "",
            "type": "dashboards",
            "url": "",
        }
    ]


def _source_variable(d: Sql) -> Json:
    # Where no data source has this uid, Grafana takes the first of the kind.
    return {
        "current": {"selected": True, "text": d.source, "value": d.source},
        "hide": 0,
        "includeAll": False,
        "label": "Data source",
        "multi": False,
        "name": "datasource",
        "options": [],
        "query": d.plugin,
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
        "type": "datasource",
    }


def _variables(page: Dashboard, d: Sql) -> list[Json]:
    connection = f"SELECT name AS __text, id AS __value FROM {CONNECTIONS} ORDER BY name, id"
    name = d.variable_text("name")
    project = f"SELECT name AS __text, {name} AS __value FROM projects ORDER BY name"
    identity = d.variable_text("id")
    team = f"SELECT name AS __text, {identity} AS __value FROM teams ORDER BY name, id"
    developer = (
        f"SELECT DISTINCT developer_id AS __text, {d.variable_text('developer_id')} AS __value"
        " FROM _tool_developer_telemetry_machines ORDER BY developer_id"
    )
    if page.about == "team":
        return [_variable("team", "Team", team, d, several=False)]
    if page.about == "delivery":  # a group at a time: figures of several can't be added up
        return [
            {**_variable("project", "Project", project, d), "multi": False},
            {**_variable("team", "Team", team, d), "multi": False},
        ]
    if page.about == "groups":
        group = f"""SELECT 'Everybody' AS __text, 'everybody ' AS __value
UNION ALL SELECT {d.joined("'Project '", "name")}, {d.joined("'project '", name)} FROM projects
UNION ALL SELECT {d.joined("'Team '", "name")}, {d.joined("'team '", identity)} FROM teams
ORDER BY __text"""
        return [_variable("group", "Group", group, d, several=False)]
    return [
        _variable("connection", "Connection", connection, d, every="0"),
        _variable("project", "Project", project, d),
        _variable("team", "Team", team, d),
        _variable("developer", "Developer", developer, d),
    ]


def _variable(
    name: str, label: str, query: str, d: Sql, every: str = "''", several: bool = True
) -> Json:
    variable: Json = {
        "current": {},
        "datasource": _source(d),
        "hide": 0,
        "includeAll": several,
        "label": label,
        "multi": several,
        "name": name,
        "options": [],
        "query": query,
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
        "sort": 0,
        "type": "query",
    }
    if several:
        # A list of all names would be as long as the fleet is large.
        variable["allValue"] = every
        variable["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return variable


def _placed(page: Dashboard, d: Sql) -> Sequence[Json]:
    height = 3 + page.introduction.count("\n")
    introduction = {
        "datasource": GRAFANA,
        "options": {"content": page.introduction, "mode": "markdown"},
        "title": "Dashboard Introduction",
        "type": "text",
    }
    panels: list[Json] = [{**introduction, "gridPos": _grid_position(0, 0, COLUMNS, height)}]
    y = height
    for number, row in enumerate(page.rows, 1):
        heading = {"collapsed": False, "panels": [], "title": f"{number}. {row.title}"}
        panels.append({**heading, "type": "row", "gridPos": _grid_position(0, y, COLUMNS, 1)})
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y = 0, y + 8
            panels.append({**_panel(panel, d), "gridPos": _grid_position(x, y, panel.width, 8)})
            x += panel.width
        y += 8
    return [{**panel, "id": number} for number, panel in enumerate(panels, 1)]


def _grid_position(x: int, y: int, w: int, h: int) -> Json:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel, d: Sql) -> Json:
    query = panel.query(d)
    # Else a series would be called by its value column and all of its labels.
    named = {"displayName": "${__field.labels.metric}"} if " AS metric" in query else {}
    return {
        "datasource": _source(d),
        "description": panel.description,
        "fieldConfig": {
            "defaults": {
                "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
                "custom": _custom(panel),
                "mappings": [],
                "noValue": panel.empty,
                "thresholds": {"mode": "absolute", "steps": _steps(panel)},
                "unit": panel.unit,
                **({} if panel.kind == "table" else {"min": 0}),
                **named,
            },
            "overrides": _overrides(panel, d),
        },
        "options": _options(panel),
        "pluginVersion": PLUGIN_VERSION,
        "targets": [
            {
                "datasource": _source(d),
                "editorMode": "code",
                "format": "time_series" if panel.kind == "timeseries" else "table",
                "rawQuery": True,
                "rawSql": query,
                "refId": "A",
            }
        ],
        "title": panel.title,
        "type": panel.kind,
    }


def _steps(panel: Panel) -> list[Json]:
    steps = [(None, "green"), *panel.thresholds]
    return [{"color": color, "value": value} for value, color in steps]


def _custom(panel: Panel) -> Json:
    if panel.kind == "timeseries":
        stacking = {"group": "A", "mode": "normal" if panel.stacked else "none"}
        return {**(BARS if panel.bars else LINE), "spanNulls": False, "stacking": stacking}
    if panel.kind == "barchart":
        return {"fillOpacity": 80, "lineWidth": 1}
    if panel.kind == "table":
        return {"align": "auto", "filterable": True}
    return {}


def _overrides(panel: Panel, d: Sql) -> list[Json]:
    overrides = [_override(column, "unit", unit) for column, unit in panel.units]
    if panel.link:
        variable, title, target = panel.link
        url = f"/d/{uid(target, d)}?${{__url_time_range}}&${{datasource:queryparam}}&var-{variable}"
        value = "${__data.fields.key:percentencode}"
        link = {"title": title, "url": f"{url}={value}", "targetBlank": False}
        overrides.append(_override(panel.linked, "links", [link]))
        overrides.append(_override("key", "custom.hidden", True))
    return overrides


def _override(column: str, name: str, value: object) -> Json:
    return {
        "matcher": {"id": "byName", "options": column},
        "properties": [{"id": name, "value": value}],
    }


def _options(panel: Panel) -> Json:
    legend = {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True}
    if panel.kind == "timeseries":
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "none"}}
    if panel.kind == "barchart":
        stacking = "normal" if panel.stacked else "none"
        return {"legend": legend, "orientation": "auto", "showValue": "auto", "stacking": stacking}
    if panel.kind == "table":
        return {"cellHeight": "sm", "showHeader": True, "footer": {"show": False}}
    return {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
    }
