"""Descriptions of errors for logs and dead letters, without personal data.

Drivers quote values: PostgreSQL a whole row (`Failing row contains (...)`), MySQL the value at
fault (`Duplicate entry '...'`). They may be a person's name, address or project. So the description
of an error about a row has only its kind, its code, and the names of columns, keys and tables.
"""

from __future__ import annotations

import re
from typing import Any, Optional

from developer_telemetry.errors import TelemetryError

MAX_LENGTH = 500

# The classes of SQLSTATE about the server, the session, rights or the schema: their messages never
# quote a row's values.
_ABOUT_THE_SERVER = {
    *("08", "0A", "25", "26", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "F0"),
}
_SYNTAX_ERROR = "42601"  # its message repeats the unreadable part of the statement
# MySQL's messages about a row that quote names of columns and constraints alone: NULL where none
# may be, unknown column, wrong number of columns, out of range, cut, too long, no default, a check.
_QUOTES_NAMES = {1048, 1054, 1136, 1146, 1264, 1265, 1364, 1406, 3819, 4025}
# From here on the numbers are the client library's, which knows of no row.
_CLIENT_NUMBERS = range(2000, 3000)
# The server's own troubles, by number: too many connections, rights, full tables and disks, locks,
# lost threads, read-only, killed.
_SERVER_NUMBERS = {
    *(1005, 1016, 1021, 1023, 1026, 1030, 1032, 1034, 1036, 1037, 1038, 1040, 1041, 1042, 1043),
    *(1044, 1045, 1046, 1047, 1049, 1050, 1053, 1114, 1129, 1130, 1135, 1141, 1142, 1143, 1153),
    *(1158, 1159, 1160, 1161, 1180, 1193, 1203, 1205, 1206, 1213, 1226, 1227, 1236, 1273, 1290),
    *(1317, 1370, 1418, 1461, 1524, 1665, 1785, 1792, 1820, 1836, 1927, 1969, 3024, 3032, 3098),
    *(3101, 3168, 3572, 4031),
}
# After the quoted value MySQL names the column or key. Only the end of the message is searched,
# since the value may be any text that a machine has sent.
_NAMED_AT_THE_END = re.compile(
    r"( for (?:column|key) (?:`[\w$.`-]{1,200}`|'[\w$.-]{1,200}')(?: at row \d+)?)\Z"
)
# MySQL cuts a message at 512 bytes.
_CUT_LENGTH = 480
# Quotation marks of several languages; an apostrophe within a word is none.
_OPEN = r"(?:(?<!\w)['\"]|[`\u00ab\u00bb\u201c-\u201f\u2018\u201a])"
_OPENING = re.compile(_OPEN)
# From the first quotation mark to the last.
_QUOTED = re.compile(
    rf"{_OPEN}.*(?:['\"](?!\w)|[`\u00ab\u00bb\u201c-\u201f\u2019])|{_OPEN}.*", re.DOTALL
)
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def describe_error(error: BaseException) -> str:
    """Return one line about an error, of a driver's or any other, without what a row holds."""
    cause = getattr(error, "orig", None) or error
    return " ".join(_describe(cause).split())[:MAX_LENGTH]


def _describe(error: BaseException) -> str:
    if isinstance(error, TelemetryError):
        return str(error)
    module = type(error).__module__.partition(".")[0]
    number = error.args[0] if error.args else None
    if module in ("pymysql", "MySQLdb") and isinstance(number, int):
        return _mysql(number, str(error.args[1]) if len(error.args) > 1 else "")
    if module in ("psycopg", "psycopg2"):
        return _postgresql(error)
    if module in ("sqlite3", "_sqlite3"):
        return str(error)  # it never quotes a value
    if isinstance(error, UnicodeError):
        return _unicode(error)
    if isinstance(error, OSError):
        return error.strerror or f"{type(error).__name__}: {_mask_quoted(str(error))}"
    text = _mask_quoted(str(error))
    return text if any(map(str.isalpha, text)) else type(error).__name__


def _postgresql(error: Any) -> str:
    state = str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")
    if not state and type(error).__name__ == "OperationalError":
        # With several hosts psycopg reports the last one's fault first, and then all of them.
        return " ".join(str(error).split()).rpartition("All failures were: ")[2]
    if not state:
        return _mask_quoted(str(error))
    diagnosis = error.diag
    primary = str(diagnosis.message_primary or "")
    if state[:2] in _ABOUT_THE_SERVER and state != _SYNTAX_ERROR:
        return primary or str(error).partition("\n")[0]
    kind = _CAPITAL.sub(" ", type(error).__name__).lower()
    parts = {
        "column": diagnosis.column_name,
        "constraint": diagnosis.constraint_name,
        "table": diagnosis.table_name,
    }
    named = [f"{what} {name}" for what, name in parts.items() if name]
    return ", ".join([f"{kind} (SQLSTATE {state})", *named])


def _mysql(number: int, message: str) -> str:
    if number in _CLIENT_NUMBERS or number in _SERVER_NUMBERS or number in _QUOTES_NAMES:
        return f"({number}) {message}"
    named: Optional[re.Match[str]] = _NAMED_AT_THE_END.search(message)
    opening = message[: named.start()] if named else message
    if len(message) >= _CUT_LENGTH:  # the last quotation mark may be part of the value
        opening = _OPENING.split(opening, maxsplit=1)[0] + "'...'"
    return f"({number}) {_mask_quoted(opening)}{named[1] if named else ''}"


def _unicode(error: UnicodeError) -> str:
    if isinstance(error, (UnicodeEncodeError, UnicodeDecodeError)):
        return f"a text that {error.encoding} does not have: {error.reason}"
    return type(error).__name__


def _mask_quoted(text: str) -> str:
    return _QUOTED.sub("'...'", text)
