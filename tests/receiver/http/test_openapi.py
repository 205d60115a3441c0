"""`/openapi.json`: valid, complete, and what a receiver really answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from schemathesis import checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from developer_telemetry.connections.report_url import BULK_PATH, REPORT_PATHS
from developer_telemetry.diagnostics.probe import ReceiverState
from developer_telemetry.receiver.http.body_reader import ENCODINGS
from developer_telemetry.receiver.http.bulk_upload import MAX_REPORTS, Result
from developer_telemetry.receiver.http.openapi import document
from developer_telemetry.receiver.http.report_endpoint import PREFIXES
from developer_telemetry.receiver.http.responses import STATUS
from developer_telemetry.reports.limits import MANY_REPORTS, ONE_REPORT
from developer_telemetry.reports.parser import (
    DEVELOPMENT_COUNTS,
    GIT_TOTALS,
    MAX_DEPTH,
    NUMBER_FIELDS,
    REPOSITORY_COUNTS,
    TEXT_LIMIT,
)
from tests.support.receivers import TOKEN, Receiver, ReloadingReceiver, add_connection

ROUTES = {
    "/plugins/developer-telemetry/{connection_id}/report": "post",
    "/plugins/developer_telemetry/connections/{connection_id}/report": "post",
    "/rest/plugins/developer_telemetry/connections/{connection_id}/report": "post",
    "/plugins/developer-telemetry/{connection_id}/reports": "post",
    "/plugins/developer-telemetry/collector.pyz": "get",
    "/plugins/developer-telemetry/{connection_id}/me-link": "post",
    "/health/live": "get",
    "/health/ready": "get",
    "/metrics": "get",
    "/openapi.json": "get",
}
schema = schemathesis.openapi.from_dict(document())
NEGATIVE = schemathesis.GenerationMode.NEGATIVE

# Not whether bodies are refused that the document doesn't describe: what can be kept is kept.
CHECKS = [
    checks.not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    folder = tmp_path_factory.mktemp("openapi")
    url = f"sqlite:///{folder}/telemetry.db"
    with ReloadingReceiver(url, folder) as receiver:
        assert add_connection(url) == 2
        yield receiver
    assert "ERROR" not in receiver.log
    assert "Traceback" not in receiver.log


def test_the_document_is_valid_and_served() -> None:
    validate(document())


def test_it_is_what_the_receiver_serves(receiver: Receiver) -> None:
    answer = receiver.client.get("/openapi.json")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == json.loads(json.dumps(document()))


def test_it_has_every_route() -> None:
    found = {path: set(item) & {"get", "post"} for path, item in document()["paths"].items()}

    # A report's route answers a GET with the receiver's state.
    reports = (*REPORT_PATHS, BULK_PATH)
    assert found == {
        path: {method, "get"} if path in reports else {method} for path, method in ROUTES.items()
    }


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """Return what a value of the document refers to, or itself."""
    if "$ref" in value:
        part: Any = document()
        for name in value["$ref"].split("/")[1:]:
            part = part[name]
        return resolved(part)
    return value


def test_it_has_the_routes_of_the_code() -> None:
    assert set(ROUTES) >= {*REPORT_PATHS, BULK_PATH}
    for path in (*REPORT_PATHS, BULK_PATH):
        servers = document()["paths"][path]["servers"]
        assert [server["url"] for server in servers] == [prefix or "/" for prefix in PREFIXES]
    encoding = resolved(document()["paths"][BULK_PATH]["post"]["parameters"][0])
    assert set(encoding["schema"]["enum"]) == {*ENCODINGS} - {""}


def test_it_has_the_limits_and_the_statuses() -> None:
    paths = document()["paths"]
    one, many = (paths[path]["post"] for path in list(ROUTES)[2:4])

    for operation, limit in ((one, ONE_REPORT), (many, MANY_REPORTS)):
        description = operation["requestBody"]["description"]
        assert f"{limit.sent} bytes as sent and {limit.inflated} inflated" in description
        assert f"{MAX_DEPTH} levels" in description
        statuses = ["200", *(str(status) for status in sorted(STATUS.values()))]
        assert list(operation["responses"]) == statuses
        answers = map(resolved, operation["responses"].values())
        assert all(answer["description"] for answer in answers)
    assert many["requestBody"]["content"]["application/json"]["schema"]["maxItems"] == MAX_REPORTS


def test_it_has_the_fields_of_the_code() -> None:
    schemas = document()["components"]["schemas"]
    metrics = schemas["Report"]["properties"]["metrics"]["properties"]
    git = metrics["git_activity"]["properties"]
    assert set(NUMBER_FIELDS) <= set(metrics)
    assert set(git) == {*GIT_TOTALS, "repositories"}
    repository = git["repositories"]["items"]["properties"]
    assert set(repository) == {"name", *REPOSITORY_COUNTS, "branches_worked"}
    assert set(metrics["development_activity"]["properties"]) == set(DEVELOPMENT_COUNTS)
    for name in ("developer", "developer_id"):
        assert schemas["Report"]["properties"][name]["maxLength"] == TEXT_LIMIT
    for structure in (Result, ReceiverState):
        fields = {field.name for field in msgspec.structs.fields(structure)}
        assert set(schemas[structure.__name__]["properties"]) == fields


IDENTITIES = {
    "date, developer": ({"date": "2026-11-23", "developer": "ann"}, 200),
    "timestamp, developer": ({"timestamp": "2026-11-23T08:00:00", "developer": "ann"}, 200),
    "timestamp, developer_id": ({"timestamp": "2026-11-23", "developer_id": "ann"}, 200),
    "developer": ({"developer": "ann"}, 400),
    "date": ({"date": "2026-11-23"}, 400),
}


@pytest.mark.parametrize(("body", "status"), IDENTITIES.values(), ids=IDENTITIES)
def test_it_requires_what_the_receiver_requires(
    receiver: Receiver, body: dict[str, str], status: int
) -> None:
    report = document()["components"]["schemas"]["Report"]

    assert Draft202012Validator(report).is_valid(body) is (status == 200)
    assert receiver.send(body, 2).status_code == status


OPERATIONS = [
    (path, method)
    for path, item in document()["paths"].items()
    for method in ("get", "post")
    if method in item
]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_it_says_is_what_is_answered(receiver: Receiver, path: str, method: str) -> None:
    operation = schema[path][method]
    # A GET takes nothing that could be wrong.
    cases = operation.as_strategy()
    if method == "post":
        cases |= operation.as_strategy(NEGATIVE)

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(cases)
    def check(case: Any) -> None:
        if case.path_parameters:
            # Of ids made up hardly any exists, and each stranger waits for a look.
            case.path_parameters["connection_id"] = 2
        headers = {"Authorization": f"Bearer {TOKEN}"}
        case.call_and_validate(base_url=receiver.url, headers=headers, checks=CHECKS)

    check()
