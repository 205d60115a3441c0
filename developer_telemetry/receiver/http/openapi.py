"""`/openapi.json`: the document beside this module, with the version that is running.

The document is written by hand for the programs and people that send reports; tests compare it with
the routes, limits, fields and answers of the receiver.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from developer_telemetry import __version__
from developer_telemetry.receiver.collector_archive import collector_version


def document() -> dict[str, Any]:
    """Return the OpenAPI document of a receiver."""
    content: dict[str, Any] = json.loads(
        Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    )
    content["info"]["version"] = __version__
    content["info"]["x-collector-version"] = collector_version()
    return content


@lru_cache(maxsize=1)
def encoded_document() -> bytes:
    """Return the document as UTF-8 JSON."""
    return json.dumps(document(), ensure_ascii=False, separators=(",", ":")).encode()
