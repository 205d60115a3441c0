"""Remove paths and identities from a connection's reports before they are stored.

Both are idempotent, so a report from a spool or an export may be filtered again.
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
        """Return a row of the tool layer, which has no paths, with pseudonyms if configured."""
        row: dict[str, Any] = (
            values if self.pseudonyms is None else anonymize(values, self.pseudonyms)
        )
        return row


def _may_have_path(text: str) -> bool:
    # A backslash may start the escape of any character.
    return "/" in text or "\\" in text or '"path"' in text or "~" in text


def strip_paths(document: Any) -> Any:
    """Return a document, such as a report's, with paths cut to the names at their ends."""
    if not isinstance(document, dict):
        return _strip(document)
    about = {field: document[field] for field in IDENTITY if isinstance(document.get(field), str)}
    others = {field: value for field, value in document.items() if field not in about}
    # A person's name may have a slash, and must not change.
    identities = {
        field: without_path(text) if _HOME.search(text) and IDENTITY[field] != "dev" else text
        for field, text in about.items()
    }
    return {**identities, **_strip(others)}


def _strip(value: Any) -> Any:
    if isinstance(value, str):
        return without_path(value) if "/" in value or "\\" in value or "~" in value else value
    if isinstance(value, list):
        return [_strip(item) for item in value]
    return _strip_object(value) if isinstance(value, dict) else value


def _strip_object(fields: dict[str, Any]) -> dict[str, Any]:
    values = {key: _strip(value) for key, value in fields.items()}
    if isinstance(fields.get("path"), str):
        del values["path"]
        name = name_of(fields)
        if name and not name_of(fields.get("name")):
            values["name"] = name
    return rename_values(values, {key: _strip(key) for key in values})
