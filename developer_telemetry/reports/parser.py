"""Parse a body of any of three forms into a `Report`.

Collectors take a refusal as final and then measure nothing more, so only a body that a database
can't hold is refused. Other invalid values (a float for an int, a null list, a string for a list)
are read as well as possible; the raw layer keeps the original body.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import date
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any, Optional, Union

import msgspec

from developer_telemetry.errors import ReportRefused
from developer_telemetry.reports.limits import SURE_NAMES, Room
from developer_telemetry.reports.numerals import read_number

Number = Union[int, float]

# The tables' VARCHAR(255); a longer developer can't be cut, since it is a key.
TEXT_LIMIT = 255
# A collector's body is six levels deep; databases and dashboards choke on far deeper ones.
MAX_DEPTH = 64
# A longer body takes the general parser; a day's report is about 2 kB.
USUAL_CHARACTERS = 16 << 10
# Far above any count of a machine's day, and within a BIGINT.
MAX_COUNT = 10**15

REPOSITORY_COUNTS = ("commits", "lines_added", "lines_deleted", "files_changed")
GIT_TOTALS = tuple(f"total_{count}" for count in REPOSITORY_COUNTS)
# The fields with numbers in them.
NUMBER_FIELDS = ("active_hours", "commands", "git_activity", "development_activity")
DEVELOPMENT_COUNTS = ("test_runs_detected", "build_commands_detected")

_DATE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ].*)?", re.DOTALL)
# The parent of home directories; a branch may have a name such as `page/home/top`.
HOME = (
    r"(?:[\\/]Users[\\/]+|(?:(?<![\w.-])|(?<=[\s\0]-[A-Za-z])|(?<=^-[A-Za-z]))"
    r"[\\/](?:(?:data|export|mnt|usr|var)[\\/]+)?(?:home|users)[\\/]+)"
)
# The start of an absolute path; to a home directory also without a sign before it.
_ABSOLUTE_PATH = re.compile(rf"""(?:^|(?<=[\s"'=(]))(?:[/~]|[A-Za-z][\w+.-]*:[\\/]|\\\\)|{HOME}""")
_UNSTORABLE_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


# No object here can be part of a cycle, so the garbage collector need not follow them.
class Repository(msgspec.Struct, frozen=True, gc=False):
    """The work in one repository on one day; the repository has a name and never a path.

    The fields are those of the tool layer's JSON, in the order of the alphabet.
    """

    branches_worked: tuple[str, ...]
    commits: Number
    files_changed: Number
    lines_added: Number
    lines_deleted: Number
    name: str


# The numbers of `REPOSITORY_COUNTS`.
counts_of: Callable[[Repository], tuple[Number, ...]] = attrgetter(*REPOSITORY_COUNTS)
_name: Callable[[Repository], str] = attrgetter("name")


class Report(msgspec.Struct, frozen=True, gc=False):
    """One machine's report of one developer's day, with the fields of the tool layer.

    Counts are those sent, fractions and negative values included: their range is corrected after
    the reports of a day are added up. `payload` is the exact text received.
    """

    developer_id: str
    date: str  # YYYY-MM-DD
    hostname: str
    email: str
    name: str
    active_hours: Number
    tools: tuple[str, ...]
    projects: tuple[str, ...]
    commands: dict[str, Number]
    git: dict[str, Number]  # GIT_TOTALS; empty when the report has no git activity
    repositories: tuple[Repository, ...]
    development: dict[str, Number]  # DEVELOPMENT_COUNTS; empty when not sent
    os_info: Union[str, dict[str, str]]
    payload: str
    unread: tuple[str, ...] = ()  # those of `NUMBER_FIELDS` with an invalid number
    # True if all counts but the hours are whole numbers up to `MAX_COUNT`, and repositories differ.
    is_exact: bool = False


def _integer(digits: str) -> Number:
    # Longer ones are out of range, and Python refuses the longest.
    return int(digits) if len(digits) < 300 else _fraction(digits)


def _fraction(digits: str) -> float:
    # Not infinity, which JSON lacks.
    return max(-sys.float_info.max, min(sys.float_info.max, float(digits)))


# msgspec's own reading of some fractions, such as 1e308, takes fifty times as long, while all other
# threads wait.
_DECODER = msgspec.json.Decoder(float_hook=_fraction)


_Name = Annotated[str, msgspec.Meta(max_length=TEXT_LIMIT)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class _SentRepository(msgspec.Struct, gc=False):
    """A repository in the form of the collector's script."""

    name: _Name
    commits: _Count = 0
    lines_added: _Count = 0
    lines_deleted: _Count = 0
    files_changed: _Count = 0
    branches_worked: tuple[_Name, ...] = ()


class _SentGit(msgspec.Struct, gc=False):
    total_commits: _Count
    total_lines_added: _Count
    total_lines_deleted: _Count
    total_files_changed: _Count
    repositories: tuple[_SentRepository, ...] = ()


class _SentDevelopment(msgspec.Struct, gc=False):
    test_runs_detected: _Count
    build_commands_detected: _Count


class _SentMetrics(msgspec.Struct, gc=False):
    active_hours: Any = 0  # often a fraction, which `_fraction` reads
    tools_used: tuple[_Name, ...] = ()
    projects: tuple[_Name, ...] = ()
    commands: dict[str, _Count] = {}
    git_activity: Optional[_SentGit] = None
    development_activity: Optional[_SentDevelopment] = None
    git_commits: msgspec.UnsetType = msgspec.UNSET
    project_context: msgspec.UnsetType = msgspec.UNSET
    os_info: Any = None


class _SentReport(msgspec.Struct, gc=False):
    """A body in the form of the collector's script, not in the flat or another form."""

    date: str
    developer: str
    metrics: _SentMetrics
    hostname: str = ""
    email: str = ""
    name: str = ""
    active_hours: msgspec.UnsetType = msgspec.UNSET
    tools_used: msgspec.UnsetType = msgspec.UNSET
    projects: msgspec.UnsetType = msgspec.UNSET
    project_context: msgspec.UnsetType = msgspec.UNSET
    commands: msgspec.UnsetType = msgspec.UNSET
    git_activity: msgspec.UnsetType = msgspec.UNSET
    git_commits: msgspec.UnsetType = msgspec.UNSET
    development_activity: msgspec.UnsetType = msgspec.UNSET
    os_info: msgspec.UnsetType = msgspec.UNSET


_SENT_REPORT = msgspec.json.Decoder(_SentReport, float_hook=_fraction)
_git_fields = attrgetter(*GIT_TOTALS)
_development_fields = attrgetter(*DEVELOPMENT_COUNTS)


def parse(body: Union[bytes, str]) -> Report:
    """Parse one body of any of the forms; raise `ReportRefused` if it can't be stored."""
    text = _text_of(body)
    return _parse_usual(text) or read(_load(text), text)


def _parse_usual(text: str) -> Optional[Report]:
    """Read a body in the form of the collector's script, in half of the time of `read`.

    Return None for any other body; else the result equals that of `read`. All names in a text of
    `USUAL_CHARACTERS` fit a `Room`.
    """
    if len(text) > USUAL_CHARACTERS or "\\" in text or _has_many_levels(text):
        return None
    try:
        sent = _SENT_REPORT.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    developer, metrics = sent.developer.strip(), sent.metrics
    git, development = metrics.git_activity, metrics.development_activity
    repositories = () if git is None else _parse_usual_repositories(git.repositories)
    if not developer or len(developer) > TEXT_LIMIT or not sent.date or repositories is None:
        return None
    unread: set[str] = set()
    commands = _counts(metrics.commands, unread) if metrics.commands else {}
    return Report(
        developer_id=developer,
        date=_parse_day(sent.date.strip()[:TEXT_LIMIT]),
        hostname=_cut(sent.hostname.strip()),
        email=_cut(sent.email.strip()),
        name=_cut(sent.name.strip()),
        active_hours=_number(metrics.active_hours, "active_hours", unread),
        tools=_parse_usual_names(metrics.tools_used),
        projects=_parse_usual_names(metrics.projects),
        commands=commands,
        git={} if git is None else dict(zip(GIT_TOTALS, _git_fields(git))),
        repositories=repositories,
        development={}
        if development is None
        else dict(zip(DEVELOPMENT_COUNTS, _development_fields(development))),
        os_info=_os_info(metrics.os_info),
        payload=text,
        unread=tuple(unread),
        # Commands of one name were added up; all other counts were checked above.
        is_exact=_have_different_names(repositories)
        and (len(commands) == len(metrics.commands) or _are_exact(commands.values())),
    )


def _parse_usual_repositories(
    repositories: tuple[_SentRepository, ...],
) -> Optional[tuple[Repository, ...]]:
    """Return repositories equal to those of `read`; None if one has its name only in its path."""
    usual = []
    for sent in repositories:
        name = _read_cached_name(sent.name)
        if not name:
            return None
        usual.append(
            Repository(
                _parse_usual_names(sent.branches_worked),
                sent.commits,
                sent.files_changed,
                sent.lines_added,
                sent.lines_deleted,
                name,
            )
        )
    return tuple(usual)


def _have_different_names(repositories: tuple[Repository, ...]) -> bool:
    return len(set(map(_name, repositories))) == len(repositories)


def _are_exact(counts: Collection[Number]) -> bool:
    return not counts or (
        {int}.issuperset(map(type, counts)) and min(counts) >= 0 and max(counts) <= MAX_COUNT
    )


def _parse_usual_names(sent: tuple[str, ...]) -> tuple[str, ...]:
    line = " ".join(sent)
    if "/" not in line and tuple(line.split()) == sent:  # no path, no space, none empty
        return sent if len(set(sent)) == len(sent) else tuple(dict.fromkeys(sent))
    names = dict.fromkeys(map(_read_cached_name, sent))
    names.pop("", None)
    return tuple(names)


def decode(body: Union[bytes, str]) -> tuple[object, str]:
    """Return a body's document and text; raise `ReportRefused` if a database can't hold it."""
    text = _text_of(body)
    return _load(text), text


def read(document: object, payload: str) -> Report:
    """Map one decoded JSON document to a `Report`; `payload` is its text."""
    if not isinstance(document, dict):
        raise ReportRefused(
            "body", 'not an object; send one such as {"developer": ..., "date": ...}'
        )
    metrics = document.get("metrics")
    # The flat form has its metrics at the top level; a null in `metrics` doesn't hide them.
    fields = {**document, **{k: v for k, v in _mapping(metrics).items() if v is not None}}
    git = _git(fields)
    unread: set[str] = set()
    repositories = _repositories(git.get("repositories"), unread)
    git_totals = _git_totals(git, repositories, unread)
    commands = _counts(fields.get("commands"), unread)
    development = _development(_mapping(fields.get("development_activity")), unread)
    counts = [*commands.values(), *git_totals.values(), *development.values()]
    for repository in repositories:
        counts += counts_of(repository)
    return Report(
        developer_id=developer_of(document),
        date=day_of(document),
        hostname=_text(document.get("hostname")),
        email=_text(document.get("email")),
        name=_text(document.get("name")),
        active_hours=_number(fields.get("active_hours"), "active_hours", unread),
        tools=_names(fields.get("tools_used")),
        projects=_names(fields.get("projects") or fields.get("project_context")),
        commands=commands,
        git=git_totals,
        repositories=repositories,
        development=development,
        os_info=_os_info(fields.get("os_info")),
        payload=payload,
        unread=tuple(sorted(unread)),
        is_exact=_are_exact(counts) and _have_different_names(repositories),
    )


def _git(fields: Mapping[str, object]) -> Mapping[str, object]:
    """Return the git activity of a report, or one from its `git_commits`, a number or a list."""
    git = _mapping(fields.get("git_activity"))
    commits = fields.get("git_commits")
    if commits is None or git.get("total_commits") is not None:
        return git
    return {**git, "total_commits": len(commits) if isinstance(commits, list) else commits}


def _text_of(body: Union[bytes, str]) -> str:
    if isinstance(body, str):
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReportRefused(
            "body", f"not UTF-8 (byte {error.start}); send the JSON in UTF-8"
        ) from None


def _load(text: str) -> object:
    try:
        document = _DECODER.decode(text)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        # The fast decoder also refuses valid JSON (after a byte order mark, with a number beyond
        # 64 bits) and gives short reasons, so the standard one decides.
        document = _load_slowly(text)
    if _has_many_levels(text):
        _check_depth(document)
    if "\\" in text and _UNSTORABLE_ESCAPE.search(text):
        _check_texts(document)
    return document


def _has_many_levels(text: str) -> bool:
    """Return true if a text may be nested deeper than `MAX_DEPTH`."""
    return text.count("[") + text.count("{") > MAX_DEPTH


def _load_slowly(text: str) -> object:
    try:
        return json.loads(
            text.lstrip("\ufeff"),
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise _make_depth_refusal() from None
    except ValueError as error:
        reason = str(error)
        raise ReportRefused("body", f"not JSON: {reason[:1].lower()}{reason[1:]}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"the number {name} is not valid in JSON")


def _make_depth_refusal() -> ReportRefused:
    return ReportRefused("body", f"nested deeper than {MAX_DEPTH} levels; flatten it")


def _check_depth(document: object) -> None:
    level = [document] if isinstance(document, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        inside = [
            container.values() if isinstance(container, dict) else container for container in level
        ]
        level = [item for items in inside for item in items if isinstance(item, (dict, list))]
        if not level:
            return
    raise _make_depth_refusal()


def _check_texts(document: object) -> None:
    stack: list[object] = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value)
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, str):
            if "\x00" in value:
                raise ReportRefused("body", "a text has a NUL character; leave it out")
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise ReportRefused("body", "a text has half of a surrogate pair; leave it out")


def developer_of(document: Mapping[str, object]) -> str:
    """Return the developer of a report; raise `ReportRefused` if it has none."""
    for field in ("developer", "developer_id"):
        developer = trimmed(document.get(field))
        if len(developer) > TEXT_LIMIT:
            raise ReportRefused(field, f"longer than {TEXT_LIMIT} characters; send a shorter id")
        if developer:
            return developer
    raise ReportRefused("developer", "missing; send the developer's id as a text")


def day_of(document: Mapping[str, object]) -> str:
    """Return the day of a report as YYYY-MM-DD; raise `ReportRefused` if it has none.

    Collectors' own documents have a `timestamp` in place of a `date`.
    """
    value = document.get("date") or document.get("timestamp")
    return _parse_day(value.strip()[:TEXT_LIMIT] if isinstance(value, str) else "")


@lru_cache(maxsize=1024)
def _parse_day(text: str) -> str:
    # A whole fleet reports the same few days.
    match = _DATE.fullmatch(text)
    if match is None:
        raise ReportRefused("date", "missing or not a date; send it as YYYY-MM-DD")
    try:
        day = date.fromisoformat(match.group(1))
    except ValueError:
        raise ReportRefused("date", f"{match.group(1)} is not a day of the calendar") from None
    if day.year < 1000:  # the start of MySQL's DATE
        raise ReportRefused("date", "before the year 1000; send the day of the work")
    return match.group(1)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def trimmed(value: object) -> str:
    """Return a text without space around it, a number as its digits, and "" for other values."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    return value.strip() if isinstance(value, str) else ""


def _text(value: object) -> str:
    return _cut(trimmed(value))


def _cut(text: str) -> str:
    return text[:TEXT_LIMIT].rstrip()


def _number(value: object, field: str, unread: set[str]) -> Number:
    """Return a number within bounds; for any other value 0, and add `field` to `unread`."""
    if type(value) is int and -MAX_COUNT <= value <= MAX_COUNT:  # as nearly always
        return value
    if value is None or value == "":
        return 0
    if isinstance(value, str):
        value = read_number(value, is_whole=field != "active_hours")
    # Not math.isnan: it fails on an int that is too big for a float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        unread.add(field)
        return 0
    return max(-MAX_COUNT, min(MAX_COUNT, value))


def _items(value: object) -> list[object]:
    """Return any value as a list; a mapping as its keys."""
    if isinstance(value, (list, dict)):
        return list(value)
    return [] if value is None else [value]


def _names(value: object) -> tuple[str, ...]:
    """Return distinct names in the order sent, of texts or of objects with `name` or `path`."""
    return _names_within(value, None)


def _names_within(value: object, room: Optional[Room]) -> tuple[str, ...]:
    """Return as many of them as fit `room`; None means the room of one list."""
    items = _items(value)
    if room is None and len(items) <= SURE_NAMES:  # as nearly always
        names = dict.fromkeys(map(name_of, items))
        names.pop("", None)
        return tuple(names)
    room = Room() if room is None else room
    fitting: dict[str, None] = {}
    for name in map(name_of, items):
        if name and name not in fitting and room.take(name):
            fitting[name] = None
        if room.full:
            break
    return tuple(fitting)


def name_of(item: object) -> str:
    """Return the name of a tool, project or repository, without its path; "" if it has none."""
    if isinstance(item, str) and len(item) <= TEXT_LIMIT:
        return _read_cached_name(item)
    if isinstance(item, dict):
        return name_of(item.get("name")) or name_of(item.get("path"))
    return _read_name(trimmed(item))


@lru_cache(maxsize=4096)
def _read_cached_name(text: str) -> str:
    # A fleet uses the same few hundred tools, projects and branches every day.
    return _read_name(text.strip())


def _read_name(name: str) -> str:
    if "/" in name or "\\" in name:
        name = without_path(name)
    return _text(name)


def without_path(name: str) -> str:
    """Return a text with a path cut to the name at its end; other texts unchanged.

    Home directories must not reach the tool layer by any field.
    """
    path = _ABSOLUTE_PATH.search(name)
    if path is None:
        return name
    name = name.rstrip("\\/")
    last = max(name.rfind("/"), name.rfind("\\")) + 1
    return name[: path.start()] + name[max(last, path.start()) :]


def _counts(value: object, unread: set[str]) -> dict[str, Number]:
    if value is None:
        return {}
    pairs = value.items() if isinstance(value, dict) else ((item, 1) for item in _items(value))
    counts: dict[str, Number] = {}
    room = Room()
    for item, count in pairs:
        name = name_of(item)
        if name and (name in counts or room.take(name)):
            counts[name] = counts.get(name, 0) + _number(count, "commands", unread)
    return counts


def _os_info(value: object) -> Union[str, dict[str, str]]:
    if not isinstance(value, dict):
        return {} if value is None else name_of(value) or {}
    room = Room()
    pairs = ((name_of(key), name_of(item)) for key, item in value.items())
    return {key: item for key, item in pairs if room.take(key + item)}


def _repositories(value: object, unread: set[str]) -> tuple[Repository, ...]:
    repositories: list[Repository] = []
    room = Room()  # for the branches, too
    for item in _items(value):
        name = name_of(item)
        if name and room.take(name):
            repositories.append(_repository(name, item, room, unread))
    return tuple(repositories)


def _repository(name: str, item: object, room: Room, unread: set[str]) -> Repository:
    if not isinstance(item, dict):
        return Repository((), 0, 0, 0, 0, name)
    commits, added, deleted, files = [
        _number(item.get(count), "git_activity", unread) for count in REPOSITORY_COUNTS
    ]
    branches = _names_within(item.get("branches_worked"), room)
    return Repository(branches, commits, files, added, deleted, name)


def _git_totals(
    git: Mapping[str, object], repositories: tuple[Repository, ...], unread: set[str]
) -> dict[str, Number]:
    """Return the sent totals; a missing one is the sum over the repositories."""
    if not git:
        return {}
    return {
        total: _number(git[total], "git_activity", unread)
        if git.get(total) is not None
        else sum(getattr(repository, count) for repository in repositories)
        for count, total in zip(REPOSITORY_COUNTS, GIT_TOTALS)
    }


def _development(development: Mapping[str, object], unread: set[str]) -> dict[str, Number]:
    if not development:
        return {}
    return {
        count: _number(development.get(count), "development_activity", unread)
        for count in DEVELOPMENT_COUNTS
    }
