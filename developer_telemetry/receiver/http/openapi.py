"""`/openapi.json`, made from what the code itself goes by: routes, limits, statuses, fields."""

from __future__ import annotations

from typing import Any

import msgspec

from developer_telemetry import __version__
from developer_telemetry.diagnostics.probe import HEADER, ReceiverState
from developer_telemetry.receiver import metrics
from developer_telemetry.receiver.http.body_reader import ENCODINGS
from developer_telemetry.receiver.http.bulk_upload import MAX_REPORTS, Result
from developer_telemetry.receiver.http.report_endpoint import BULK_PATH, PREFIXES, REPORT_PATHS
from developer_telemetry.receiver.http.responses import STATUS
from developer_telemetry.reports.limits import MANY_REPORTS, ONE_REPORT, Limit
from developer_telemetry.reports.parser import (
    DEVELOPMENT_COUNTS,
    GIT_TOTALS,
    MAX_DEPTH,
    REPOSITORY_COUNTS,
    TEXT_LIMIT,
)

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
TEXTS: Json = {"type": "array", "items": TEXT}
NUMBER: Json = {"type": "number"}


def document() -> Json:
    """The OpenAPI document of a receiver."""
    one = _schema("Report")
    many = {"type": "array", "items": one, "maxItems": MAX_REPORTS}
    paths = {path: _intake(path, {"application/json": one}, ONE_REPORT) for path in REPORT_PATHS}
    bodies = {"application/json": many, "application/x-ndjson": TEXT}
    paths[BULK_PATH] = _intake(BULK_PATH, bodies, MANY_REPORTS)
    page = metrics.CONTENT_TYPE.partition(";")[0]
    paths |= {
        "/health/live": _look("Whether the process answers at all", [200]),
        "/health/ready": _look("Whether a report sent now could be kept", [200, 503]),
        "/metrics": _look("Figures for Prometheus", [200], {page: {"schema": TEXT}}),
        "/openapi.json": _look("This", [200], {"application/json": {"schema": {"type": "object"}}}),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Developer telemetry for Apache DevLake", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The connection's secret token, or an API key of DevLake",
                }
            },
        },
    }


def _schema(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _intake(path: str, bodies: dict[str, Json], limit: Limit) -> Json:
    """A path that takes reports."""
    many = path == BULK_PATH
    kept = "every valid report is stored" if many else "the report is stored"
    given = _schema("ManyAnswer" if many else "Answer")
    responses: Json = {"200": _response(f"On disk: {kept}", given)}
    for kind, status in sorted(STATUS.items(), key=lambda item: item[1]):
        why = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
        responses[str(status)] = _response(why, given)
    responses["401"]["headers"] = {"WWW-Authenticate": {"schema": TEXT, "required": True}}
    responses["503"]["headers"] = {
        "Retry-After": {"schema": {"type": "integer"}, "required": True, "description": "Seconds"}
    }
    operation: Json = {
        "summary": "Send many reports" if many else "Send one report",
        "operationId": path.strip("/").replace("/", "_").replace("{connection_id}", "id"),
        # Elsewhere only a connection that has a token asks for one.
        "security": [{"token": []}] if path.startswith("/rest/") else [{}, {"token": []}],
        "requestBody": {
            "required": True,
            "description": (
                f"Read as JSON whatever its Content-Type; at most {limit.sent} bytes as sent and"
                f" {limit.inflated} inflated, {MAX_DEPTH} levels deep, without NUL characters"
            ),
            "content": {kind: {"schema": schema} for kind, schema in bodies.items()},
        },
        "responses": responses,
    }
    return {
        "servers": [{"url": prefix or "/"} for prefix in PREFIXES],
        "parameters": [
            {
                "name": "connection_id",
                "in": "path",
                "required": True,
                "schema": {"type": "integer", "minimum": 1},
            },
            {
                "name": "Content-Encoding",
                "in": "header",
                "schema": {"type": "string", "enum": sorted(filter(None, ENCODINGS))},
            },
        ],
        "get": _status(operation["operationId"], responses),
        "post": operation,
    }


def _status(operation_id: str, refusals: Json) -> Json:
    """Return the operation that asks the receiver behind a report path for its state.

    Its refusals are those of a report without a valid token.
    """
    headers = {
        HEADER: {"schema": TEXT, "required": True, "description": "`answered` or `refused`"},
        "Cache-Control": {"schema": {"const": "no-store"}, "required": True},
    }
    responses = {"200": _response("The state", _schema("StatusAnswer"))}
    responses |= {status: dict(refusals[status]) for status in ("401", "404", "503")}
    for response in responses.values():
        response["headers"] = {**response.get("headers", {}), **headers}
    return {
        "summary": "Show the state of the receiver to holders of the connection's token",
        "operationId": f"{operation_id}_status",
        "security": [{"token": []}],
        "parameters": [
            {
                "name": "nonce",
                "in": "query",
                "description": (
                    "32 hexadecimal digits; the answer repeats them, and tells whether they are in"
                    " the receiver's database (`same_database`)"
                ),
                "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            }
        ],
        "responses": responses,
    }


def _look(summary: str, statuses: list[int], content: Json | None = None) -> Json:
    """A path that is looked at."""
    responses = {
        str(status): {
            "description": "Yes" if status == 200 else "No; the message says why",
            "content": content or {"application/json": {"schema": _schema("Answer")}},
        }
        for status in statuses
    }
    return {"get": {"summary": summary, "responses": responses}}


def _response(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _schemas() -> Json:
    _, components = msgspec.json.schema_components(
        [Result, ReceiverState], ref_template="#/components/schemas/{name}"
    )
    answer = {
        "success": {"type": "boolean"},
        "message": TEXT,
        "errors": {"type": "array", "items": _object({"field": TEXT, "message": TEXT})},
    }
    count = {"type": "integer", "minimum": 0}
    results = {"type": "array", "items": _schema("Result"), "description": "In the order sent"}
    many = {**answer, "stored": count, "refused": count, "results": results}
    status = {**answer, "nonce": TEXT, "receiver": _schema("ReceiverState")}
    return {
        **components,
        "Answer": {**_object(answer), "required": ["success", "message"]},
        "ManyAnswer": {**_object(many), "required": ["success", "message"]},
        "StatusAnswer": {
            **_object(status),
            "required": ["success", "message", "nonce", "receiver"],
        },
        "Report": _report(),
    }


def _report() -> Json:
    repository = {
        "name": TEXT,
        **dict.fromkeys(REPOSITORY_COUNTS, NUMBER),
        "branches_worked": TEXTS,
    }
    git = {
        **dict.fromkeys(GIT_TOTALS, NUMBER),
        "repositories": {"type": "array", "items": _object(repository)},
    }
    measured = {
        "active_hours": NUMBER,
        "tools_used": TEXTS,
        "projects": TEXTS,
        "commands": {"type": "object", "additionalProperties": NUMBER},
        "git_activity": _object(git),
        "development_activity": _object(dict.fromkeys(DEVELOPMENT_COUNTS, NUMBER)),
    }
    developer = {"type": "string", "minLength": 1, "maxLength": TEXT_LIMIT}
    return {
        **_object(
            {
                "date": {"type": "string", "format": "date"},
                "developer": developer,
                "developer_id": {**developer, "description": "Another name for `developer`"},
                "hostname": TEXT,
                "email": TEXT,
                "name": TEXT,
                "metrics": _object(measured),
            }
        ),
        "description": (
            "`date` and `developer` are needed; whatever else is missing or of another type is"
            " kept as it came, and read as well as it can be. What is in `metrics` may stand beside"
            " it instead."
        ),
        "required": ["date"],
        "anyOf": [{"required": ["developer"]}, {"required": ["developer_id"]}],
    }


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties}


DOCUMENT = msgspec.json.encode(document())
