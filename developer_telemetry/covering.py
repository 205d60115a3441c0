"""Find whoever a report is about, wherever in it they are named, and put pseudonyms there.

The fields that say it are not all: a repository's path has a home directory in it, a branch the
name of who made it, a collector's next version the author of a commit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Callable, NamedTuple, Optional

from developer_telemetry.pseudonyms import ACCOUNT, DEVELOPER, EMAIL, HOST, NAME, SHAPE, Pseudonyms
from developer_telemetry.reports import (
    DEVELOPMENT_COUNTS,
    GIT_TOTALS,
    HOME,
    REPOSITORY_COUNTS,
    trimmed,
)

# The fields that say who a report is about, the surest first.
IDENTITY = {
    "developer": DEVELOPER,
    "developer_id": DEVELOPER,
    "email": EMAIL,
    "hostname": HOST,
    "name": NAME,
}
# What is of a person or a host anywhere else, where a `name` is a project's; spelled without
# capitals and signs.
_KINDS = {
    **dict.fromkeys(("developer", "developers", "developerid"), DEVELOPER),
    **dict.fromkeys(("email", "emails", "mail", "emailaddress", "useremail"), EMAIL),
    **dict.fromkeys(("authoremail", "committeremail", "gitemail", "gitauthoremail"), EMAIL),
    **dict.fromkeys(("author", "authors", "authorname", "gitauthor", "gitauthorname"), NAME),
    **dict.fromkeys(("committer", "committers", "committername", "gitname", "gitusername"), NAME),
    **dict.fromkeys(("fullname", "displayname", "realname"), NAME),
    **dict.fromkeys(("user", "users", "username", "login", "account", "gituser"), ACCOUNT),
    **dict.fromkeys(("host", "hosts", "hostname", "hostnames", "fqdn", "nodename"), HOST),
    **dict.fromkeys(("computer", "computername", "machinename", "devicename"), HOST),
}
# The names of a report's parts stay, even where somebody is called like one.
_PARTS = frozenset(
    (
        *IDENTITY,
        *("date", "metrics", "active_hours", "tools_used", "commands", "os_info", "path"),
        *("projects", "project_context", "last_activity", "repositories", "branches_worked"),
        *("git_activity", *GIT_TOTALS, *REPOSITORY_COUNTS),
        *("development_activity", *DEVELOPMENT_COUNTS),
    )
)
# A shorter text is part of too many words: it counts as a word of its own alone.
_SHORT = 4
# So many letters and digits are the same name even where other signs are between them, or none.
_LONG = 6

_EMAIL = re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,}")
_SEGMENT = r"""[^\\/\s"':;,<>|\0]+"""
_HOME = re.compile(f"({HOME})({_SEGMENT}(?: {_SEGMENT})*(?=[\\\\/])|{_SEGMENT})")
_RUN = re.compile(r"[^\W_]+")
# Accounts, and folders beside those of people, that are nobody's.
_NOBODY = frozenset(
    (
        *("public", "root", "shared", "default", "ubuntu", "debian", "ec2-user"),
        *("docker", "jenkins", "node", "runner", "vagrant", "vscode", "codespace"),
    )
)


class _Word(NamedTuple):
    """A text that names somebody, and the kind and the text whose pseudonym takes its place."""

    text: str  # without capitals
    kind: str
    source: str
    is_whole: bool  # too common to be looked for inside of words
    squashed: str  # letters and digits alone, where that is enough to tell; else ""


def covered(document: Any, pseudonyms: Pseudonyms) -> Any:
    """A report's document, or any other, with pseudonyms wherever one is due."""
    if not isinstance(document, dict):
        return covered({"": document}, pseudonyms)[""]
    # A date is no name, even where somebody is called 2026.
    fixed = {"date": document["date"]} if "date" in document else {}
    about: dict[str, str] = {}
    for field, kind in IDENTITY.items():
        if field in document and not isinstance(document[field], (dict, list)):
            about[field] = trimmed(document[field])
            fixed[field] = pseudonyms.of(kind, about[field]) if about[field] else document[field]
    rest = {key: value for key, value in document.items() if key not in fixed}
    texts, is_personal = _look_through(rest)
    cover = _Cover(pseudonyms, about, texts)
    if is_personal or cover.changes:
        rest = cover.fields(rest, kinds=_top_kind)
    return {**fixed, **rest}


def _look_through(document: object) -> tuple[list[str], bool]:
    """Each text of a document, and whether a field in it is of a person by its name."""
    texts: list[str] = []
    is_personal = False
    stack = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            stack.extend(value)
        elif isinstance(value, dict):
            stack.extend(value.values())
            texts.extend(value)
            is_personal = is_personal or any(map(_kind, value))
    return list(dict.fromkeys(texts)), is_personal


@lru_cache(maxsize=1024)
def _kind(field: str) -> Optional[str]:
    return _KINDS.get(_squashed(field)) if len(field) < 64 else None


def _top_kind(field: str) -> Optional[str]:
    return IDENTITY.get(field) or _kind(field)


def _folded(text: str) -> str:
    """Without capitals, and as long as before."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(each if len(each.casefold()) > 1 else each.casefold() for each in text)


def _squashed(text: str) -> str:
    return "".join(_RUN.findall(_folded(text)))


def _words(about: Mapping[str, str], homes: Iterable[str]) -> Iterator[_Word]:
    """What to look for in the rest of a report, the surest first."""
    for field, text in about.items():
        kind = IDENTITY[field]
        for spelled in _spellings(text):
            yield _word(spelled, kind, text)
        if kind == NAME and " " in text:
            first, _, last = text.rpartition(" ")
            yield _word(f"{last} {first}", kind, text)
    short = about.get("hostname", "").partition(".")[0]
    if len(short) >= _SHORT and not short.isdigit():
        yield _Word(_folded(short), HOST, about["hostname"], True, "")
    for home in homes:
        if len(home) >= _SHORT and home.casefold() not in _NOBODY:
            yield _Word(_folded(home), ACCOUNT, home, True, "")


def _word(text: str, kind: str, source: str) -> _Word:
    squashed = _squashed(text) if kind in (DEVELOPER, NAME) else ""
    is_long = len(squashed) >= _LONG
    return _Word(_folded(text), kind, source, len(text) < _SHORT, squashed if is_long else "")


def _spellings(text: str) -> Iterable[str]:
    # Some systems write an accent as a character of its own.
    if text.isascii():
        return (text,)
    return dict.fromkeys((text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))))


class _Cover:
    """Puts pseudonyms into a document; `changes` says whether its texts need any."""

    def __init__(
        self, pseudonyms: Pseudonyms, about: Mapping[str, str], texts: Sequence[str]
    ) -> None:
        self._pseudonyms = pseudonyms
        # All at once takes a tenth of the time.
        whole = "\0".join(texts)
        homes = {match[2] for match in _HOME.finditer(whole)} if _has_home(whole) else ()
        self._words = [
            word for word in _words(about, homes) if word.text and not pseudonyms.knows(word.source)
        ]
        self._named: dict[str, _Word] = {}
        for word in self._words:
            self._named.setdefault(word.text, word)
            self._named.setdefault(word.squashed, word)
        done = self._covered(whole)
        self.changes = done != whole
        if whole.count("\0") < len(texts):
            self._texts = dict(zip(texts, done.split("\0")))
        else:  # no report has such a text, but another document may
            self._texts = {text: self._covered(text) for text in texts}

    def fields(
        self,
        fields: Mapping[str, Any],
        kind: Optional[str] = None,
        kinds: Callable[[str], Optional[str]] = _kind,
    ) -> dict[str, Any]:
        """An object with pseudonyms in it.

        `kind` is that of the field that has it for a value; `kinds` gives those of its own fields.
        """
        names = {key: key if key in _PARTS else self._texts[key] for key in fields}
        values = {key: self._value(value, kinds(key) or kind) for key, value in fields.items()}
        return renamed(values, names)

    def _value(self, value: Any, kind: Optional[str]) -> Any:
        if isinstance(value, str):
            return self._person(value, kind) if kind else self._texts[value]
        if isinstance(value, list):
            return [self._value(each, kind) for each in value]
        return self.fields(value, kind) if isinstance(value, dict) else value

    def _person(self, text: str, kind: str) -> str:
        text = text.strip()
        folded = _folded(text)
        word = self._named.get(folded) or self._named.get(_squashed(folded) or folded)
        if word is not None:
            kind, text = word.kind, word.source
        return self._pseudonyms.of(kind, text) if text else text

    def _covered(self, text: str) -> str:
        if "@" in text:
            text = _EMAIL.sub(self._email, text)
        text = self._without_words(text)
        if "@" in text:  # again, since a name beside it has become one word
            text = _EMAIL.sub(self._email, text)
        return _HOME.sub(self._home, text) if _has_home(text) else text

    def _without_words(self, text: str) -> str:
        places = sorted(_places(text, self._words))
        if not places:
            return text
        done = [match.span() for match in SHAPE.finditer(text) if self._pseudonyms.knows(match[0])]
        pieces: list[str] = []
        end = 0
        for start, stop, number in places:
            if any(start < there[1] and there[0] < stop for there in done):
                continue
            if start >= end:
                word = self._words[number]
                pieces += [text[end:start], self._pseudonyms.of(word.kind, word.source)]
            end = max(end, stop)  # where two overlap, nothing of the second stays
        return "".join([*pieces, text[end:]])

    def _email(self, match: re.Match[str]) -> str:
        return self._pseudonyms.of(EMAIL, match[0])

    def _home(self, match: re.Match[str]) -> str:
        folder, owner = match[1], match[2]
        return folder + (owner if owner.casefold() in _NOBODY else self._person(owner, ACCOUNT))


def _has_home(text: str) -> bool:
    return "home" in text or "sers" in text


def _places(text: str, words: Sequence[_Word]) -> Iterator[tuple[int, int, int]]:
    """Where words stand in a text: start, end, and the number of the word."""
    folded = _folded(text)
    squashed = _squashed(folded)
    elsewhere: dict[str, int] = {}  # how often what is spelled in any way is not spelled as known
    for number, word in enumerate(words):
        if word.squashed:
            elsewhere.setdefault(word.squashed, squashed.count(word.squashed))
        for start in _all_of(word.text, folded):
            end = start + len(word.text)
            if not (word.is_whole and _is_inside(folded, start, end)):
                yield start, end, number
                if word.squashed:
                    elsewhere[word.squashed] -= 1
    if any(count > 0 for count in elsewhere.values()):
        yield from _spelled_otherwise(folded, squashed, words)


def _spelled_otherwise(
    folded: str, squashed: str, words: Sequence[_Word]
) -> Iterator[tuple[int, int, int]]:
    origin = [place for match in _RUN.finditer(folded) for place in range(*match.span())]
    for number, word in enumerate(words):
        for first in _all_of(word.squashed, squashed) if word.squashed else ():
            start, last = origin[first], origin[first + len(word.squashed) - 1]
            if "\0" not in folded[start:last]:
                yield start, last + 1, number


def _all_of(word: str, text: str) -> Iterator[int]:
    start = text.find(word)
    while start >= 0:
        yield start
        start = text.find(word, start + len(word))


def _is_inside(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return before.isalnum() or after.isalnum()


def renamed(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """An object whose fields are called otherwise; counts that come to one name are added up."""
    found = {name: fields[name] for name, other in names.items() if name == other}
    for key, name in names.items():
        if key == name:
            continue
        if name not in found:
            found[name] = fields[key]
        elif _is_count(found[name]) and _is_count(fields[key]):
            found[name] += fields[key]
    return found


def _is_count(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
