"""The developer and the host of a body that was refused, as far as it names them."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, Optional, Union

import msgspec

from developer_telemetry.errors import ReportRefused
from developer_telemetry.reports.hosts import machine_name
from developer_telemetry.reports.parser import TEXT_LIMIT, Report, parse, trimmed
from developer_telemetry.reports.privacy_filter import PrivacyRules
from developer_telemetry.reports.pseudonyms import DEVELOPER, HOST

# The start of a body that is no JSON, in which the names are searched.
SEARCHED_CHARACTERS = 16 << 10
_FIELD = re.compile(r'"(developer|developer_id|hostname)"\s{0,9}:\s{0,9}("(?:[^"\\]|\\.){1,300}")')
# Characters that no database or no encoding has.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class Sender(NamedTuple):
    """A developer and the name of a machine; "" where the body has none."""

    developer: str = ""
    hostname: str = ""


class _SentNames(msgspec.Struct, gc=False):
    developer: Any = None
    developer_id: Any = None
    hostname: Any = None


_SENT_NAMES = msgspec.json.Decoder(_SentNames)


def parse_by(rules: Optional[PrivacyRules], body: Union[bytes, str]) -> Report:
    """Parse a body by a connection's rules, None for those of a connection without any.

    Raises:
        ReportRefused: It can't be stored; the error has the sender as the rules allow it.
    """
    try:
        return parse(body) if rules is None else rules.parse(body)
    except ReportRefused as refusal:
        refusal.developer, refusal.hostname = find_sender(rules, body)
        raise


def find_sender(rules: Optional[PrivacyRules], body: Union[bytes, str]) -> Sender:
    """Return the sender of a body of any kind, with pseudonyms if the rules demand them."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    names = _read_names(text)
    developer = _clean(names.developer) or _clean(names.developer_id)
    hostname = _clean(names.hostname)
    if rules is not None and rules.pseudonyms is not None:
        developer = developer and rules.pseudonyms.pseudonymize(DEVELOPER, developer)
        hostname = hostname and rules.pseudonyms.pseudonymize(HOST, hostname)
    return Sender(developer[:TEXT_LIMIT], machine_name(hostname[:TEXT_LIMIT]))


def _read_names(text: str) -> _SentNames:
    try:
        return _SENT_NAMES.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        fields = _FIELD.findall(text[:SEARCHED_CHARACTERS])
        # Of several, as in a list of reports, the first.
        return _SentNames(**{field: _unquote(quoted) for field, quoted in reversed(fields)})


def _unquote(quoted: str) -> str:
    try:
        return str(json.loads(quoted, strict=False))
    except ValueError:
        return quoted[1:-1]


def _clean(value: object) -> str:
    return _UNSTORABLE.sub("\ufffd", trimmed(value))
