"""A dashboard as Grafana 11 takes it, as a JSON schema: of its model, all that ours use.

Nothing else is allowed, so that a misspelt field, which Grafana would pass over, is found.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}


def words(*allowed: Any) -> Schema:
    return {"enum": list(allowed)}


def of(*fields: str, **types: Schema) -> Schema:
    """An object of these fields; those in `fields` have to be there."""
    return {
        "type": "object",
        "properties": types,
        "required": list(fields),
        "additionalProperties": False,
    }


def items(schema: Schema, least: int = 0) -> Schema:
    return {"type": "array", "items": schema, "minItems": least}


DATASOURCE: Schema = {
    "oneOf": [
        words("mysql", "postgresql"),
        of("type", "uid", type=words("datasource"), uid=words("grafana")),
        # As DevLake's image makes them since June 2026.
        of("type", "uid", type=words("mysql"), uid=words("devlake-mysql-api")),
        of("type", "uid", type=words("postgres"), uid=words("devlake-postgres-api")),
    ]
}
GRID = of(
    *"xywh",
    x={"type": "integer", "minimum": 0, "maximum": 23},
    y={"type": "integer", "minimum": 0},
    w={"type": "integer", "minimum": 1, "maximum": 24},
    h={"type": "integer", "minimum": 1},
)
LEGEND = of(
    "displayMode",
    "placement",
    "showLegend",
    calcs=items(TEXT),
    displayMode=words("list", "table", "hidden"),
    placement=words("bottom", "right"),
    showLegend=FLAG,
)
TOOLTIP = of("mode", mode=words("single", "multi", "none"), sort=words("none", "asc", "desc"))
STACKING = of("mode", mode=words("none", "normal", "percent"), group=TEXT)
CUSTOM: dict[str, Schema] = {
    "timeseries": of(
        "drawStyle",
        drawStyle=words("line", "bars", "points"),
        lineWidth=NUMBER,
        fillOpacity={"type": "number", "minimum": 0, "maximum": 100},
        showPoints=words("auto", "never", "always"),
        spanNulls={"type": ["boolean", "number"]},
        stacking=STACKING,
    ),
    "barchart": of(fillOpacity=NUMBER, lineWidth=NUMBER),
    "table": of(align=words("auto", "left", "right", "center"), filterable=FLAG),
    "stat": of(),
}
OPTIONS: dict[str, Schema] = {
    "timeseries": of("legend", "tooltip", legend=LEGEND, tooltip=TOOLTIP),
    "barchart": of(
        "legend",
        legend=LEGEND,
        orientation=words("auto", "horizontal", "vertical"),
        showValue=words("auto", "never", "always"),
        stacking=words("none", "normal", "percent"),
    ),
    "table": of(
        "showHeader", cellHeight=words("sm", "md", "lg"), showHeader=FLAG, footer=of(show=FLAG)
    ),
    "stat": of(
        "reduceOptions",
        colorMode=words("none", "value", "background", "background_solid"),
        graphMode=words("none", "line", "area"),
        justifyMode=words("auto", "center"),
        orientation=words("auto", "horizontal", "vertical"),
        reduceOptions=of("calcs", calcs=items(TEXT, 1), fields=TEXT, values=FLAG),
        textMode=words("auto", "value", "value_and_name", "name", "none"),
    ),
}
LINK = of("title", "url", title=TEXT, url=TEXT, targetBlank=FLAG)
OVERRIDE = of(
    "matcher",
    "properties",
    matcher=of("id", "options", id=words("byName"), options=TEXT),
    properties=items(
        of(
            "id",
            "value",
            id=words("unit", "links", "custom.hidden"),
            value={"anyOf": [TEXT, FLAG, items(LINK, 1)]},
        ),
        1,
    ),
)
TARGET = of(
    "datasource",
    "format",
    "rawQuery",
    "rawSql",
    "refId",
    datasource=DATASOURCE,
    editorMode=words("code", "builder"),
    format=words("table", "time_series"),
    rawQuery=words(True),
    rawSql={"type": "string", "minLength": 1},
    refId={"type": "string", "pattern": "^[A-Z]$"},
)


def panel(kind: str) -> Schema:
    defaults = of(
        "unit",
        color=of("mode", mode=words("palette-classic", "thresholds", "fixed")),
        custom=CUSTOM[kind],
        mappings=items({}),
        thresholds=of(
            "mode",
            "steps",
            mode=words("absolute", "percentage"),
            steps=items(of("color", "value", color=TEXT, value={"type": ["number", "null"]}), 1),
        ),
        unit=words("short", "h", "s", "percent"),
        min=NUMBER,
        displayName=TEXT,
    )
    return of(
        "id",
        "type",
        "title",
        "description",
        "gridPos",
        "datasource",
        "fieldConfig",
        "options",
        "targets",
        id={"type": "integer", "minimum": 1},
        type=words(kind),
        title={"type": "string", "minLength": 1},
        description={"type": "string", "minLength": 1},
        gridPos=GRID,
        datasource=DATASOURCE,
        pluginVersion=TEXT,
        fieldConfig=of("defaults", "overrides", defaults=defaults, overrides=items(OVERRIDE)),
        options=OPTIONS[kind],
        targets=items(TARGET, 1),
    )


ROW = of(
    "id",
    "type",
    "title",
    "gridPos",
    "collapsed",
    "panels",
    id={"type": "integer", "minimum": 1},
    type=words("row"),
    title={"type": "string", "pattern": "^[0-9]+[.] "},
    gridPos=GRID,
    collapsed=words(False),
    panels={"type": "array", "maxItems": 0},
)
INTRODUCTION = of(
    "id",
    "type",
    "title",
    "gridPos",
    "options",
    id={"type": "integer", "minimum": 1},
    type=words("text"),
    title=TEXT,
    gridPos=GRID,
    datasource=DATASOURCE,
    options=of("content", "mode", content=TEXT, mode=words("markdown", "html", "code")),
)
VARIABLE = of(
    *("name", "type", "label", "query", "datasource", "current"),
    name={"type": "string", "pattern": "^[a-z]+$"},
    type=words("query"),
    label=TEXT,
    query=TEXT,
    definition=TEXT,
    datasource=DATASOURCE,
    current=of(
        selected=FLAG, text={"type": ["string", "array"]}, value={"type": ["string", "array"]}
    ),
    hide=words(0, 1, 2),
    includeAll=FLAG,
    allValue=TEXT,
    multi=FLAG,
    options=items({}),
    refresh=words(0, 1, 2),
    regex=TEXT,
    skipUrlSync=FLAG,
    sort={"type": "integer", "minimum": 0, "maximum": 8},
)
DASHBOARD_LINK = of(
    *("title", "type", "tags"),
    title=TEXT,
    type=words("dashboards", "link"),
    tags=items(TEXT),
    asDropdown=FLAG,
    icon=TEXT,
    includeVars=FLAG,
    keepTime=FLAG,
    targetBlank=FLAG,
    tooltip=TEXT,
    url=TEXT,
)
DASHBOARD = of(
    *("title", "uid", "schemaVersion", "panels", "templating", "time", "timezone", "tags"),
    annotations=of("list", list=items({})),
    editable=FLAG,
    fiscalYearStartMonth={"type": "integer", "minimum": 0, "maximum": 11},
    graphTooltip=words(0, 1, 2),
    id={"type": "null"},
    links=items(DASHBOARD_LINK),
    panels=items({"oneOf": [INTRODUCTION, ROW, *map(panel, CUSTOM)]}, 1),
    refresh=TEXT,
    # Grafana 11.0 writes 39, 11.6 writes 41; older ones are brought up to date on loading.
    schemaVersion={"type": "integer", "minimum": 36, "maximum": 41},
    tags=items(TEXT),
    templating=of("list", list=items(VARIABLE)),
    time=of("from", "to", **{"from": TEXT, "to": TEXT}),
    timepicker=of(),
    timezone=words("utc"),
    title={"type": "string", "minLength": 1},
    uid={"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,40}$"},
    version={"type": "integer", "minimum": 0},
    weekStart=words("", "monday", "saturday", "sunday"),
)
