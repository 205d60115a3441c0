"""Test that the time for a body grows with its length alone, and never holds up other senders.

Processor time of this thread is what is measured, of a text and of one eight times as long; others
on the machine add little to it. Where the longer one seems to take far more than eight times as
much, both are measured again.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Callable, Union

import pytest

import developer_telemetry
from developer_telemetry.errors import ReportRefused
from developer_telemetry.receiver.http.report_endpoint import AT_ONCE_BYTES
from developer_telemetry.reports.daily_metrics import build_tool_row
from developer_telemetry.reports.limits import ONE_REPORT
from developer_telemetry.reports.parser import Report, parse
from developer_telemetry.reports.privacy_filter import PrivacyRules
from developer_telemetry.reports.pseudonyms import Pseudonyms
from tests.support.factories import arrival

pytestmark = pytest.mark.slow

SHORT = 4 << 10
TIMES = 8
LONG = TIMES * SHORT
# Of a text that is eight times as long: linear is 8, n log n 10, quadratic 64.
MOST = 24
# Less can't be told from the noise of a clock, and harms nobody.
LEAST_SECONDS = 0.002
# On a slow machine, of what takes 3 to 6 ms on a usual one.
AT_ONCE_SECONDS = 0.03

HASHES = Pseudonyms("an encryption secret as DevLake has it", 1)
WAYS: dict[str, Callable[[Union[bytes, str]], Report]] = {
    "as it came": parse,
    "without paths": PrivacyRules(True, None).parse,
    "with pseudonyms": PrivacyRules(False, HASHES).parse,
    "with both": PrivacyRules(True, HASHES).parse,
}
ABOUT = {
    "developer": "ann.lee",
    "date": "2026-11-20",
    "email": "ann.lee@mail.example",
    "name": "Ann Lee",
    "hostname": "anns-laptop.local",
}


def seconds(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


def growth(work: Callable[[int], Callable[[], object]]) -> float:
    """Return how many times longer the long text takes; 0 where it takes next to nothing."""
    short, long = work(SHORT), work(LONG)
    best_short = best_long = float("inf")
    ratio = 0.0
    for _ in range(5):
        best_long = min(best_long, seconds(long))
        if best_long < LEAST_SECONDS:
            return 0
        best_short = min(best_short, seconds(short))
        ratio = best_long / max(best_short, 1e-9)
        if ratio < MOST:
            break
    return ratio


def repeated(piece: str) -> Callable[[int], str]:
    # An even number of times, so that the half of a longer one begins alike.
    return lambda length: piece * (length // len(piece) // 2 * 2)


# Texts that are hard for one pattern or another: of addresses, paths, names, pseudonyms, dates.
PIECES = (
    *("a", "9", " ", "-", "~", "/", "\\", "'/", "(a", " a", "a+", "ann", "ss"),
    *("@", "a@", "a@a.b", "a@a.a.", "a@a.aa,", "a.b-c@d-e.", "a-.", "@-.", "%@", "a@a.aa@"),
    *("/home/", "/Users", "/home/a/", "/home/a ", "/home/ann lee/", "=/home/bob.x ", "-I/home/"),
    *("C:\\Users\\", "/var/", "/var//", "home", "/users//", "ann.lee ", "ann.lee", "a.n.n.l.e.e "),
    *("Ann Lee", "Lee Ann, ", "anns-laptop.", "dev-", "dev-00000000000000000000 ", "2026-11-20T"),
    *("é", "ß", "ﬃ", "ﷺ", "İ", "ı", "a\u0301\u0323", "\u0301", "Ａ", "李", "한", "ΐ", "🔑"),
    *(
        "\u200b",
        "a\u200b",
        "\n",
        "a\n",
        ",",
        '"',
        '""',
        '","',
        "\\u0000",
        "[",
        "{",
        "]",
        "1_",
        "1,",
    ),
)
TEXTS: dict[str, Callable[[int], str]] = {
    **{json.dumps(piece, ensure_ascii=False): repeated(piece) for piece in PIECES},
    "an address without an end": lambda length: "a@" + "a" * length,
    "an address of many parts": lambda length: "a@" + "a." * (length // 2),
    "an address of dashes": lambda length: "a@" + "a-." * (length // 3),
    "a home without an end": lambda length: "/home/" + "a " * (length // 2),
    "a home behind slashes": lambda length: "/" * (length // 2) + "home" + "/" * (length // 2),
    "a home of slashes": lambda length: "/home" + "/" * length,
    "a name under accents": lambda length: "a" + "\u0301" * length,
    "many names": lambda length: " ".join(f"u{number:x}" for number in range(length // 6)),
    "many homes": lambda length: " ".join(f"/home/u{number:x}" for number in range(length // 13)),
}
PLACES: dict[str, Callable[[str], dict[str, object]]] = {
    "a tool": lambda text: {"metrics": {"tools_used": [text]}},
    "tools": lambda text: {"metrics": {"tools_used": pieces(text)}},
    "a command": lambda text: {"metrics": {"commands": {text: 1}}},
    "users": lambda text: {"extra": {"users": pieces(text)}},
    "a path": lambda text: {"project_context": [{"path": text}]},
    "a number": lambda text: {"metrics": {"active_hours": text, "commands": {"git": text}}},
    "the date": lambda text: {"date": "2026-11-20 " + text},
    "the developer": lambda text: {"developer": text},
    "the address": lambda text: {"email": text},
    "the name": lambda text: {"name": text},
    "the host": lambda text: {"hostname": text},
    "a name that is found": lambda text: {
        "name": text[: len(text) // 2],
        "metrics": {"tools_used": [text[len(text) // 2 :]]},
    },
}


def pieces(text: str) -> list[str]:
    """A text in many, no two of which are the same."""
    return [f"{start}{text[start : start + 40]}" for start in range(0, len(text), 40)]


def used(way: str, body: Union[bytes, str]) -> Callable[[], object]:
    """Return what becomes of a body: its report, and the day's row, alone and added to
    another's."""

    def work() -> None:
        try:
            report = WAYS[way](body)
        except ReportRefused:
            return
        one = arrival()._replace(report=report)
        build_tool_row([one], 1)
        build_tool_row([one, one._replace(arrived_us=one.arrived_us + 1)], 1)

    return work


@pytest.mark.parametrize("way", ["as it came", "with pseudonyms", "with both"])
@pytest.mark.parametrize("place", PLACES)
def test_a_report_takes_time_by_the_length_of_a_text(place: str, way: str) -> None:
    grown = {
        name: growth(lambda length, text=text: used(way, _body(PLACES[place](text(length)))))  # type: ignore[misc]
        for name, text in TEXTS.items()
    }

    assert {name: ratio for name, ratio in grown.items() if ratio >= MOST} == {}


def _body(fields: dict[str, object]) -> str:
    return json.dumps({**ABOUT, **fields}, ensure_ascii=False)


def items(item: str) -> Callable[[int], str]:
    """As many of an item as fit, with its number for `#`."""

    def listed(length: int) -> str:
        count = length // (len(item.replace("#", "00000")) + 1)
        return ",".join(item.replace("#", f"{number:x}") for number in range(count))

    return listed


def inside(start: str, filling: Callable[[int], str], end: str) -> Callable[[int], str]:
    head = json.dumps(ABOUT)[:-1]
    return lambda length: f"{head}, {start}{filling(length)}{end}}}"


def nested(start: str, end: str, levels: int = 56) -> Callable[[int], str]:
    whole = start * levels + "1" + end * levels
    return lambda length: ",".join([whole] * (length // len(whole)))


BODIES: dict[str, Callable[[int], str]] = {
    **{
        f"tools like {item}": inside('"tools_used": [', items(item), "]")
        for item in ("1", "null", "{}", "[]", "1e308", '"#"', '"/#"', '{"name":{}}', '"ann #"')
    },
    **{
        f"repositories like {item}": inside('"git_activity": {"repositories": [', items(item), "]}")
        for item in ("1", '"a"', '"#"', '{"name":"a","commits":1e300}', '{"path":"/home/#/b"}')
    },
    **{
        f"{field} of many": inside(f'"{field}": {{', items('"#":1'), "}")
        for field in ("commands", "os_info", "metrics", "users", "projects", "git_activity")
    },
    "commands that come to one": inside('"commands": {', items('"/#/git":1'), "}"),
    "commands with a name in them": inside('"commands": {', items('"ann.lee #":1'), "}"),
    "fields of many": inside("", items('"#":1'), ""),
    "a field many times": inside("", items('"a":1'), ""),
    "branches": inside(
        '"git_activity": {"repositories": [{"name":"a","branches_worked": [', items('"#"'), "]}]}"
    ),
    "paths of objects": inside('"extra": [', items('{"path":"/a/b"}'), "]"),
    **{
        f"numbers like {item[:9]}": inside('"extra": [', items(item), "]")
        for item in (
            *("1", "1e308", "-1e-308", "4.9e-324", "1e400", "1E-9999", "9" * 20, "9" * 299),
            *("9" * 400, "0." + "9" * 800, "9" * 300 + ".5"),
        )
    },
    "numbers after one of 400 digits": inside('"extra": [' + "9" * 400 + ",", items("1e308"), "]"),
    "a number of digits": inside('"extra": ', repeated("9"), ""),
    "a fraction of digits": inside('"extra": 0.', repeated("9"), ""),
    "an exponent of digits": inside('"extra": 1e', repeated("9"), ""),
    "lists in lists": inside('"extra": [', nested("[", "]"), "]"),
    "objects in objects": inside('"extra": [', nested('{"a":', "}"), "]"),
    "names in names": inside('"tools_used": [', nested('{"name":', "}"), "]"),
    "paths in paths": inside('"tools_used": [', nested('{"path":', "}"), "]"),
    "names with paths in names": inside('"extra": [', nested('{"path":"","name":', "}"), "]"),
    "brackets": repeated("["),
    "brackets and back": lambda length: "[" * (length // 2) + "]" * (length // 2),
    "braces": repeated('{"a":'),
    "spaces": inside("", repeated(" "), '"a":1'),
    "a byte order mark": lambda length: "\ufeff" + inside('"x": [', items("1"), "]")(length),
    "half a report": lambda length: _body({"metrics": {"tools_used": ["a" * length]}})[:-4],
    "lines": lambda length: "{" + "\n" * length,
    "escaped letters": inside('"extra": "', repeated("\\u00e9"), '"'),
    "escaped pairs": inside('"extra": "', repeated("\\ud83d\\ude00"), '"'),
    "escaped backslashes": inside('"extra": "', repeated("\\\\"), '"'),
    "what looks like a NUL": inside('"extra": "', repeated("\\\\u0000"), '"'),
    "NULs": inside('"extra": "', repeated("\\u0000"), '"'),
}


def _fitting(body: Callable[[int], str], length: int) -> str:
    """The longest body of a kind that isn't longer, in bytes."""
    smaller = length
    while len(body(smaller).encode("utf-8", "surrogatepass")) > length:
        smaller -= 64
    return body(smaller)


@pytest.mark.parametrize("way", WAYS)
def test_a_report_takes_time_by_the_length_of_its_body(way: str) -> None:
    grown = {
        name: growth(lambda length, body=body: used(way, body(length)))  # type: ignore[misc]
        for name, body in BODIES.items()
    }

    assert {name: ratio for name, ratio in grown.items() if ratio >= MOST} == {}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_parsed_at_once_keeps_nobody_waiting(way: str) -> None:
    bodies = {name: _fitting(body, AT_ONCE_BYTES) for name, body in BODIES.items()}
    for place, fields in PLACES.items():
        for name, text in TEXTS.items():
            body = _fitting(lambda length: _body(fields(text(length))), AT_ONCE_BYTES)  # noqa: B023
            bodies[f"{place}: {name}"] = body

    took = {name: _quickest(way, body) for name, body in bodies.items()}

    assert {name: each for name, each in took.items() if each > AT_ONCE_SECONDS} == {}


def _quickest(way: str, body: str) -> float:
    best = float("inf")
    for _ in range(4):
        best = min(best, seconds(lambda: _refused_or_read(way, body)))
        if best < AT_ONCE_SECONDS / 2:
            break
    return best


def _refused_or_read(way: str, body: str) -> None:
    with suppress(ReportRefused):
        WAYS[way](body)


def test_the_largest_body_of_odd_numbers_is_read_in_seconds() -> None:
    body = inside('"extra": [', items("1e308"), "]")(ONE_REPORT.inflated - 1024)

    assert seconds(lambda: parse(body)) < 4  # it was 10, and no other thread ran meanwhile


SOURCE = "\n".join(
    path.read_text(encoding="utf-8")
    for path in Path(developer_telemetry.__file__).parent.rglob("*.py")
)
# Made of what the database's server grants, for the name of the database; no sender's text is near.
OF_THE_DATABASE = {"''.join(parts)"}
USES = {"search", "match", "fullmatch", "sub", "split", "findall", "finditer"}


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Every pattern of the package: those of its modules, and those within their functions."""
    for module in pkgutil.walk_packages(developer_telemetry.__path__, "developer_telemetry."):
        if not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern):
                    yield f"{module.name}.{name}", value
    node: Any
    for node in ast.walk(ast.parse(SOURCE)):
        if _is_use(node) and ast.unparse(node.args[0]) not in OF_THE_DATABASE:
            pattern = node.args[0]
            assert isinstance(pattern, ast.Constant), f"name {ast.unparse(pattern)}"
            yield f"{node.func.attr}: {pattern.value!r}", re.compile(pattern.value)


def _is_use(node: Any) -> bool:
    """Return whether this is a call such as `re.search("...", text)`."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in USES
    )


PATTERNS = dict(patterns())


def test_the_patterns_of_the_package_are_found() -> None:
    found = " ".join(PATTERNS)

    for name in (
        "anonymizer._HOME",
        "parser._DATE",
        "report_endpoint._ROUTE",
        "input_files._CSV_CELL",
    ):
        assert name in found
    assert len(PATTERNS) > 20


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_time_by_the_length_of_a_text(name: str) -> None:
    pattern = PATTERNS[name]
    # What it is made of, one or two together, again and again, is what it may go back over.
    source = pattern.pattern
    source = source.decode("latin-1") if isinstance(source, bytes) else source
    signs = sorted({*re.findall(r"\w+|[^\w\\]", re.sub(r"\\(.)", r" \1 ", source)), "a"})
    literals = re.findall(r"[^\\()\[\]*+?.{}|^$]+", source)
    pairs = [one + other for one in signs[:8] for other in signs[:8]]
    pumps = {*PIECES, *signs, *literals, *pairs}

    for method in _methods(name):
        grown = {pump: growth(partial(_searched, pattern, method, pump)) for pump in sorted(pumps)}
        assert {pump: ratio for pump, ratio in grown.items() if ratio >= MOST} == {}, method


def _methods(name: str) -> set[str]:
    """Return how a pattern is used: what begins anywhere in a text has more to go back over."""
    if name.partition(":")[0] in USES:
        return {name.partition(":")[0]}
    module, _, attribute = name.rpartition(".")
    # Another module may have a private pattern of the same name.
    private = attribute.startswith("_")
    source = inspect.getsource(importlib.import_module(module)) if private else SOURCE
    used = set(re.findall(rf"\b{attribute}\.([a-z]+)\(", source)) & USES
    return used or {"search"}


def _searched(
    pattern: re.Pattern[Any], method: str, pump: str, length: int
) -> Callable[[], object]:
    before = "" if method in ("match", "fullmatch") else "x"
    text: Any = f"{before}{repeated(pump)(length)}\x01"
    text = text.encode() if isinstance(pattern.pattern, bytes) else text
    if method == "sub":
        return lambda: pattern.sub(text[:0], text)
    if method == "finditer":
        return lambda: list(pattern.finditer(text))
    find: Callable[[Any], object] = getattr(pattern, method)
    return lambda: find(text)
