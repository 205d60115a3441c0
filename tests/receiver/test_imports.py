"""A receiver runs for months: what it loads is memory that nobody else can use."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["developer_telemetry.receiver.main", "developer_telemetry.cli.main"]
)
def test_no_models_no_scripts_and_no_client_are_loaded(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    needless = {
        "pydantic",
        "sqlmodel",
        "pydevlake.model",
        "developer_telemetry.database.migrations",
        "httpx",
    }
    assert not needless & set(done.stdout.split())
