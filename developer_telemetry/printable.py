"""Text from elsewhere, made fit to be shown: on a terminal, in a log, in a file for people.

Anyone may have written the names, hosts and messages of machines and servers. Characters that move
a cursor, change colors, reverse letters, hide, or begin a new line are shown as escapes in the
style of Python. A backslash stays as it is: the result is for people, no program reads it.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Any, Optional, Union

# Letters and marks that Unicode counts as visible, and that fonts show as nothing: fillers, the
# blank of Braille, the grapheme joiner, and selectors of variants, in which whole texts can hide.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: object) -> str:
    """Return a text on one line, with escapes for all characters that are not visible.

    Args:
        text: Any object, of which `str()` is shown.
    """
    plain = str(text)
    if not plain.isprintable():
        plain = "".join(
            character if character.isprintable() else _escape(character) for character in plain
        )
    return _INVISIBLE.sub(lambda match: _escape(match[0]), plain)


def printable_lines(text: str) -> str:
    """Return a text with each of its lines made `printable`; only for line breaks of our own."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(value: Any, indent: Optional[int] = None) -> str:
    """Return a value as JSON in ASCII, so that every terminal and every encoding takes it."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def iso_time(time: Union[str, int, None]) -> Optional[str]:
    """Return a time for `--json`, such as `2026-11-29T06:40:00Z`; None for none.

    Args:
        time: Microseconds since 1970, or a UTC text as the database has it.
    """
    if not time:
        return None
    if isinstance(time, int):
        moment = datetime.fromtimestamp(time // 1_000_000, timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{time[:10]}T{time[11:19]}Z"


def escape_json(text: str) -> str:
    """Return equal JSON text with JSON's escapes for characters that are not visible.

    Line feeds and tabs stay; JSON may have them between values.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t" else json.dumps(character)[1:-1]
        for character in text
    ).replace("\x7f", "\\u007f")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
