"""`/openapi.json`: valid, complete, and what a receiver really answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis import checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from developer_telemetry.receiver.http.openapi import document
from tests.support.receivers import TOKEN, Impatient, Receiver, add_connection

ROUTES = {
    "/plugins/developer-telemetry/{connection_id}/report": "post",
    "/plugins/developer_telemetry/connections/{connection_id}/report": "post",
    "/rest/plugins/developer_telemetry/connections/{connection_id}/report": "post",
    "/plugins/developer-telemetry/{connection_id}/reports": "post",
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
    with Impatient(url, folder) as receiver:
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

    assert found == {path: {method, "get"} for path, method in ROUTES.items()}


def test_it_has_the_limits_and_the_statuses() -> None:
    paths = document()["paths"]
    one, many = (paths[path]["post"] for path in list(ROUTES)[2:4])

    assert "1048576 bytes as sent and 4194304 inflated" in one["requestBody"]["description"]
    assert "5242880 bytes as sent and 67108864 inflated" in many["requestBody"]["description"]
    assert many["requestBody"]["content"]["application/json"]["schema"]["maxItems"] == 10_000
    for operation in (one, many):
        assert list(operation["responses"]) == ["200", "400", "401", "404", "413", "415", "503"]
        assert all(each["description"] for each in operation["responses"].values())


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
