"""Read items of files as reports of collectors or as rows of our exports."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Annotated, Any, NamedTuple, Optional, TypedDict

import msgspec

from developer_telemetry.connections.registry import Connection, make_missing_connection
from developer_telemetry.constants import RAW_TABLE, SUM, TOOL_TABLE
from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.errors import ConfigurationError, ReportRefused
from developer_telemetry.reports.daily_metrics import TOOL_COLUMNS, ReceivedReport
from developer_telemetry.reports.parser import TEXT_LIMIT
from developer_telemetry.reports.report_id import uuid7
from developer_telemetry.transfer.input_files import InputFiles, InputItem

logger = logging.getLogger(__name__)

# The size of one transaction.
BATCH_REPORTS = 500
BATCH_BYTES = 4 << 20

_EPOCH = date(1970, 1, 1)
_DAY_MS = 86_400_000
_DATE_IN_NAME = re.compile(r"(?<![0-9])[0-9]{4}-[0-9]{2}-[0-9]{2}(?![0-9])")


_REMEDIES = {
    "developer": ", or name one for all with --developer",
    "date": ", or take it from the file's name with --date-from-name",
}


class ImportDefaults(NamedTuple):
    """The values for reports that lack them; `""` for none."""

    developer: str = ""
    hostname: str = ""
    email: str = ""
    name: str = ""
    date_from_name: bool = False  # of the file


_Big = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_Int = Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
# The end of the year 9999, in microseconds.
_Moment = Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800_000_000)]
_Identity = Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z-]{1,36}$")]
_Text = Annotated[str, msgspec.Meta(pattern=r"^[^\0]*$", max_length=TEXT_LIMIT)]
_Long = Annotated[str, msgspec.Meta(pattern=r"^[^\0]*$")]
_Key = Annotated[str, msgspec.Meta(pattern=r"^[^\0]+$", max_length=TEXT_LIMIT)]


class _Exported(msgspec.Struct):
    """A row of the raw layer, without columns that follow from these."""

    report_id: _Identity
    connection_id: int
    arrived_us: _Moment
    payload: str


_TYPES: dict[str, Any] = {
    **dict.fromkeys(TOOL_COLUMNS, Optional[_Long]),
    **dict.fromkeys(("email", "name", "hostname"), Optional[_Text]),
    **dict.fromkeys(("commits", "lines_added", "lines_deleted", "files_changed"), _Big),
    **dict.fromkeys(("test_runs", "builds"), _Big),
    "active_hours": _Int,
    "connection_id": int,
    "developer_id": _Key,
    "date": date,
    "arrived_us": _Moment,
    "_raw_data_id": Optional[int],
    "report_id": Optional[_Identity],  # of the raw row that `_raw_data_id` is about
}
# Columns made of reports' texts: identities and times must not become pseudonyms.
_FROM_TEXTS = TOOL_COLUMNS[1 : TOOL_COLUMNS.index("commits")]
_Day = TypedDict("_Day", _TYPES)  # type: ignore[misc]  # a class would repeat all names


class _Head(msgspec.Struct):
    """The table that a row was exported from; a collector's body has none."""

    table: str = ""


class ImportBatch:
    """The rows for one transaction, in the order read."""

    def __init__(self) -> None:
        self.reports: list[tuple[InputItem, ReceivedReport]] = []
        self.days: list[tuple[InputItem, dict[str, Any]]] = []
        self.refused: list[tuple[InputItem, str]] = []
        self.left_out = 0
        self.read = 0

    @property
    def rows(self) -> int:
        return len(self.reports) + len(self.days) + len(self.refused) + self.left_out


class ImportReader:
    """The reader of items for a database with these connections."""

    def __init__(
        self,
        connections: Mapping[int, Connection],
        connection_id: Optional[int],
        defaults: ImportDefaults,
    ) -> None:
        """Read all items for `connection_id`, or rows of an export for their own connection.

        Raises:
            ConfigurationError: There is no such connection.
        """
        self._connections = connections
        self._target = None if connection_id is None else self._require_connection(connection_id)
        self._defaults = defaults

    def batches(self, archives: InputFiles) -> Iterator[ImportBatch]:
        """Yield all items in batches; items that can't be stored are refused."""
        batch = ImportBatch()
        size = 0
        for item in archives.items():
            self._add(batch, item)
            size += len(item.content)
            if batch.rows >= BATCH_REPORTS or size >= BATCH_BYTES:
                batch.read = archives.read
                yield batch
                batch, size = ImportBatch(), 0
        batch.read = archives.read
        yield batch

    def _add(self, batch: ImportBatch, item: InputItem) -> None:
        try:
            if item.fault:
                raise ReportRefused("", item.fault)
            table = _read_table(item.content)
            if not table:
                batch.reports.append((item, self._parse_body(item)))
            elif table == RAW_TABLE:
                batch.reports.append((item, self._parse_raw_row(item)))
            elif table == TOOL_TABLE:
                batch.days.append((item, self._parse_day_row(item)))
            else:
                batch.left_out += 1
        except ReportRefused as refusal:
            field = f"{refusal.field}: " if refusal.field else ""
            remedy = _REMEDIES.get(refusal.field, "")
            batch.refused.append((item, f"{field}{refusal}{remedy}"))
        except msgspec.MsgspecError as error:
            reason = str(error)
            batch.refused.append((item, f"{reason[:1].lower()}{reason[1:]}"))
        except ConfigurationError as error:
            batch.refused.append((item, str(error)))
        except Exception as error:  # the next item may be valid
            logger.debug("an item can't be read", exc_info=True)
            batch.refused.append((item, f"can't be read: {describe_error(error)}"))

    def _parse_body(self, item: InputItem) -> ReceivedReport:
        """Return the report of a collector's body, whose arrival is unknown."""
        connection = self._choose_connection(None)
        report = connection.parse(_add_missing_fields(item, self._defaults))
        if connection.strategy == SUM and not report.hostname:
            raise ReportRefused(
                "hostname",
                f"missing, and connection {connection.id} adds up the hosts of a day, so this one"
                " might count twice; name it with --hostname",
            )
        return ReceivedReport(
            make_archive_id(connection.id, report.date, report.payload), connection.id, 0, report
        )

    def _parse_raw_row(self, item: InputItem) -> ReceivedReport:
        row = msgspec.json.decode(item.content, type=_Exported, strict=False)
        connection = self._choose_connection(row.connection_id)
        report = connection.parse(row.payload)
        return ReceivedReport(row.report_id, connection.id, row.arrived_us, report)

    def _parse_day_row(self, item: InputItem) -> dict[str, Any]:
        day: dict[str, Any] = msgspec.json.decode(item.content, type=_Day, strict=False)
        for column in ("created_at", "updated_at"):
            try:
                datetime.fromisoformat(day[column] or "1970-01-01")
            except ValueError:
                raise ReportRefused(column, f"{day[column]} is no time") from None
        connection = self._choose_connection(day["connection_id"])
        if connection.privacy is not None:
            day.update(connection.privacy.row({column: day[column] for column in _FROM_TEXTS}))
        return {**day, "connection_id": connection.id, "date": day["date"].isoformat()}

    def _choose_connection(self, own: Optional[int]) -> Connection:
        if self._target is not None:
            return self._target
        if own is not None:
            return self._require_connection(own)
        if len(self._connections) != 1:
            raise ConfigurationError(
                f"there are {len(self._connections)} connections; name the one for these reports"
                " with --connection (`developer-telemetry connections list` shows them, `connect`"
                " makes one)"
            )
        [only] = self._connections.values()
        return only

    def _require_connection(self, connection_id: int) -> Connection:
        connection = self._connections.get(connection_id)
        if connection is None:
            raise ConfigurationError(
                f"{make_missing_connection(connection_id)}; --connection names one for all rows"
            )
        return connection


def _read_table(content: bytes) -> str:
    if b'"table"' not in content:  # as nearly always
        return ""
    try:
        return msgspec.json.decode(content, type=_Head).table
    except (msgspec.MsgspecError, RecursionError):
        return ""


def make_archive_id(connection_id: int, day: str, payload: str) -> str:
    """Return the id of a report without one: the same for the same content.

    It is a UUID of version 7, whose time is the start of the report's day.
    """
    digest = hashlib.blake2b(f"{connection_id} {payload}".encode(), digest_size=10).digest()
    return uuid7(
        max(0, (date.fromisoformat(day) - _EPOCH).days) * _DAY_MS, int.from_bytes(digest, "big")
    )


def make_copy_id(report_id: str, connection_id: int) -> str:
    """Return the id of a report's copy in another connection of the same database."""
    digest = hashlib.blake2b(f"{connection_id} {report_id}".encode(), digest_size=16).digest()
    return uuid7(int.from_bytes(digest[:6], "big"), int.from_bytes(digest[6:], "big"))


def _add_missing_fields(item: InputItem, defaults: ImportDefaults) -> bytes:
    """Return a body with missing fields added at its end, otherwise unchanged."""
    values = {field: value for field, value in defaults._asdict().items() if value}
    if values.pop("date_from_name", False):
        date_in_name = _DATE_IN_NAME.search(os.path.basename(item.source))
        values["date"] = date_in_name.group() if date_in_name else ""
    if not values:
        return item.content
    try:
        document = json.loads(item.content)
    except (ValueError, RecursionError):
        return item.content
    if not isinstance(document, dict):
        return item.content
    present = {field for field, value in document.items() if str(value or "").strip()}
    if "developer_id" in present:
        present.add("developer")
    if "timestamp" in present:
        present.add("date")
    lacking = {field: value for field, value in values.items() if field not in present}
    if not lacking:
        return item.content
    start = item.content.rstrip()[:-1].rstrip()
    comma = b"" if start.endswith(b"{") else b", "
    return start + comma + json.dumps(lacking, ensure_ascii=False)[1:].encode()
