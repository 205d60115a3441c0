"""Removes paths and identities from a connection's reports before they are stored anywhere.

The result is read like any other report. Both are idempotent, so a report from a spool or an export
may be filtered again.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Optional, Union

import msgspec

from developer_telemetry.reports.anonymizer import IDENTITY, anonymize, rename_values
from developer_telemetry.reports.parser import (
    HOME,
    Report,
    day_of,
    decode,
    developer_of,
    name_of,
    read,
    without_path,
)
from developer_telemetry.reports.pseudonyms import Pseudonyms

_HOME = re.compile(HOME)


class PrivacyRules(NamedTuple):
    """The rules by which a connection's reports are changed."""

    strip_paths: bool
    pseudonyms: Optional[Pseudonyms]

    def parse(self, body: Union[bytes, str]) -> Report:
        """Parse a body after paths and identities are removed; `payload` is the result as JSON."""
        document, text = decode(body)
        if not isinstance(document, dict):
            return read(document, text)  # raises `ReportRefused`
        if self.pseudonyms is None and not _may_have_path(text):
            return read(document, text)
        developer_of(document)  # raises `ReportRefused` with the original text
        document["date"] = day_of(document)
        if self.strip_paths:
            document = strip_paths(document)
        if self.pseudonyms is not None:
            document = anonymize(document, self.pseudonyms)
        return read(document, msgspec.json.encode(document).decode())

    def row(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of a row of the tool layer, which have no paths, as they may be
        stored."""
        row: dict[str, Any] = (
            values if self.pseudonyms is None else anonymize(values, self.pseudonyms)
        )
        return row


def _may_have_path(text: str) -> bool:
    # A backslash may be the start of any character.
    return "/" in text or "\\" in text or '"path"' in text or "~" in text


def strip_paths(document: Any) -> Any:
    """Return a report's document, or any other, without paths; the names at their ends stay."""
    if not isinstance(document, dict):
        return _stripped(document)
    about = {field: document[field] for field in IDENTITY if isinstance(document.get(field), str)}
    others = {field: value for field, value in document.items() if field not in about}
    # A name may have a slash in it, and who a report is about is for nobody here to change.
    identities = {
        field: without_path(text) if _HOME.search(text) and IDENTITY[field] != "dev" else text
        for field, text in about.items()
    }
    return {**identities, **_stripped(others)}


def _stripped(value: Any) -> Any:
    if isinstance(value, str):
        return without_path(value) if "/" in value or "\\" in value or "~" in value else value
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    return _object(value) if isinstance(value, dict) else value


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    values = {key: _stripped(value) for key, value in fields.items()}
    if isinstance(fields.get("path"), str):
        del values["path"]
        name = name_of(fields)
        if name and not name_of(fields.get("name")):
            values["name"] = name
    return rename_values(values, {key: _stripped(key) for key in values})
