"""Find the names of the person of a report in all its texts, and put pseudonyms there.

Not only the fields of the person have them: a repository's path has a home directory, a branch the
name of its author, and a later version of the collector may send the author of a commit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Callable, NamedTuple, Optional

from developer_telemetry.reports.parser import (
    DEVELOPMENT_COUNTS,
    GIT_TOTALS,
    HOME,
    REPOSITORY_COUNTS,
    TEXT_LIMIT,
    trimmed,
)
from developer_telemetry.reports.pseudonyms import (
    ACCOUNT,
    DEVELOPER,
    EMAIL,
    HOST,
    NAME,
    SHAPE,
    Pseudonyms,
)

# The fields that name the person of a report, the surest first.
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
        *(
            "date",
            "timestamp",
            "git_commits",
            "metrics",
            "active_hours",
            "tools_used",
            "commands",
            "os_info",
            "path",
        ),
        *("projects", "project_context", "last_activity", "repositories", "branches_worked"),
        *("git_activity", *GIT_TOTALS, *REPOSITORY_COUNTS),
        *("development_activity", *DEVELOPMENT_COUNTS),
    )
)
# A shorter text is part of too many words: it counts as a word of its own alone.
_SHORT = 4
# So many letters and digits are the same name even where other signs are between them, or none.
_LONG = 6
# Of a text this much at a time, and as much of what follows it: no name or address is longer. So
# nothing keeps other threads waiting, however long a text is.
_WINDOW = 16 << 10
_OVERLAP = 1 << 10
# Owners of home directories that are looked for outside of paths, too; a machine has a few.
_MAX_OWNERS = 16

_LOCAL_PART = re.compile(r"[\w.+%-]+")
_DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_TOP_LEVEL = re.compile(r"\.[^\W\d_]{2,}")
_SEGMENT = r"""[^\\/\s"':;,<>|\0]+"""
_HOME = re.compile(f"{HOME}({_SEGMENT}(?: {_SEGMENT})*(?=[\\\\/])|{_SEGMENT})")
# `DOMAIN\user` and `provider|user`.
_BEFORE_USER = re.compile(r"[\\/|:]")
# How a directory's names begin that are a person's: `CN=Ann Lee,OU=...`.
_DIRECTORY = ("cn=", "uid=", "samaccountname=")
# How a tenant of another directory names a guest: `ann.lee_corp.example#EXT#@...`.
_GUEST = "#EXT#"
# Accounts and home folders that belong to no person.
_NOBODY = frozenset(
    (
        *("public", "root", "shared", "default", "ubuntu", "debian", "ec2-user"),
        *("docker", "jenkins", "node", "runner", "vagrant", "vscode", "codespace"),
    )
)


# User parts of addresses that stand for a task, not for a person.
_ROLES = _NOBODY.union(
    (
        *(
            "admin",
            "build",
            "builds",
            "contact",
            "deploy",
            "dev",
            "develop",
            "developer",
            "feature",
        ),
        *(
            "github",
            "gitlab",
            "hello",
            "help",
            "info",
            "mail",
            "main",
            "master",
            "noreply",
            "office",
        ),
        *("no-reply", "release", "sales", "security", "service", "support", "team", "test", "user"),
    )
)


class _Word(NamedTuple):
    """A text that names a person, with the kind and the text whose pseudonym replaces it."""

    text: str  # as `_folded`
    kind: str
    source: str
    is_whole: bool  # too common to be looked for inside of words
    squashed: str  # as `_squashed`; "" where the text alone tells
    is_loose: bool  # long enough for its letters to be looked for across signs, inside of words


class _Table(dict[int, Optional[str]]):
    """A table of characters for `str.translate`, filled as they occur, within bounds."""

    def __init__(self, change: Callable[[str], Optional[str]]) -> None:
        super().__init__()
        self._change = change

    def __missing__(self, code: int) -> Optional[str]:
        if len(self) > 16_384:
            self.clear()
        self[code] = changed = self._change(chr(code))
        return changed


def _without_capital(character: str) -> str:
    folded = character.casefold()
    return folded if len(folded) == 1 else character


def _letters(character: str) -> Optional[str]:
    """Return the letters and digits that a character stands for, in their common spelling."""
    if character == "\0":  # which keeps texts apart
        return character
    plain = unicodedata.normalize("NFKD", character).casefold().replace("\u0131", "i")
    letters = [
        item
        for item in unicodedata.normalize("NFKD", plain)
        if unicodedata.category(item)[0] in "LN" or unicodedata.category(item) == "So"
    ]
    return "".join(letters) or None


_WITHOUT_CAPITALS = _Table(_without_capital)
_LETTERS = _Table(_letters)


def anonymize(document: Any, pseudonyms: Pseudonyms) -> Any:
    """Return a report's document, or any other, with pseudonyms for the names of people."""
    if not isinstance(document, dict):
        return anonymize({"": document}, pseudonyms)[""]
    # A date is no name, even if a person is called 2026.
    fixed = {"date": document["date"]} if "date" in document else {}
    about: dict[str, str] = {}
    for field, kind in IDENTITY.items():
        if field in document and not isinstance(document[field], (dict, list)):
            about[field] = trimmed(document[field])
            fixed[field] = (
                pseudonyms.pseudonymize(kind, about[field]) if about[field] else document[field]
            )
    others = {key: value for key, value in document.items() if key not in fixed}
    texts, is_personal = _look_through(others)
    cover = _Cover(pseudonyms, about, texts)
    if is_personal or cover.changes:
        others = cover.fields(others, kinds=_top_kind)
    return {**fixed, **others}


def _look_through(document: object) -> tuple[list[str], bool]:
    """Return the texts of a document, and true if a field's name marks it as a person's."""
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
    """Return a text in lower case, of the same length."""
    return text.lower() if text.isascii() else text.translate(_WITHOUT_CAPITALS)


def _squashed(text: str) -> str:
    """Return only the letters and digits, the same for all their spellings in Unicode.

    So `Ann-Lee`, `ann.lee` and `ANNLEE` are one, and so are `Straße` and `STRASSE`, a letter with
    its accent and the two in a row, and letters of any width.
    """
    return text.translate(_LETTERS)


def _weight(text: str) -> int:
    """Return the weight of a text in letters; one for a syllable or a word counts as three."""
    return sum(3 if item >= "\u2e80" else 1 for item in text if item.isalnum())


def _words(about: Mapping[str, str], owners: Iterable[str]) -> Iterator[_Word]:
    """Return the texts to look for in the remainder of a report, the surest first."""
    for field, text in about.items():
        kind = IDENTITY[field]
        for spelled in _spellings(text[:TEXT_LIMIT]):
            yield _word(spelled, kind, text)
        if kind == NAME and " " in text:
            first, _, last = text[:TEXT_LIMIT].rpartition(" ")
            yield _word(f"{last} {first}", kind, text)
    for field, text in about.items():
        if IDENTITY[field] != HOST:
            for part in _user_parts(text[:TEXT_LIMIT]):
                yield _part(part, IDENTITY[field], text)
    hostname = about.get("hostname", "")
    short = hostname[:TEXT_LIMIT].partition(".")[0]
    if len(short) >= _SHORT and not short.isdigit():
        yield _word(short, HOST, hostname)._replace(is_whole=True)
    for owner in owners:
        for part in (owner, *_user_parts(owner)):
            yield _word(part, ACCOUNT, owner)._replace(is_whole=True, is_loose=False)


def _word(text: str, kind: str, source: str) -> _Word:
    weight = _weight(text)
    squashed = _squashed(text)
    # The letters alone of `a. n` are another word.
    tells = weight >= _SHORT or _is_one_word(text)
    is_loose = kind in (DEVELOPER, NAME) and weight >= _LONG
    is_whole = max(weight, len(text)) < _SHORT
    return _Word(_folded(text), kind, source, is_whole, squashed if tells else "", is_loose)


def _part(text: str, kind: str, source: str) -> _Word:
    is_long = _weight(text) >= _LONG
    return _word(text, kind, source)._replace(is_whole=not is_long, is_loose=is_long)


def _spellings(text: str) -> Iterable[str]:
    # Some systems write an accent as a character of its own.
    if text.isascii():
        return (text,)
    return dict.fromkeys((text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))))


def _user_parts(text: str) -> Iterator[str]:
    """Yield the part that names the user in `DOMAIN\\user`, an e-mail address, or a similar id."""
    if text[:16].lower().startswith(_DIRECTORY):
        for item in text.split(","):
            if item.strip().lower().startswith(_DIRECTORY):
                yield from _personal(item.partition("=")[2])
        return
    user, sign, _ = _BEFORE_USER.split(text)[-1].rpartition("@")
    if not sign:
        user = _BEFORE_USER.split(text)[-1]
    if _GUEST in user:
        user = user.partition(_GUEST)[0].rpartition("_")[0]
    parts = user.split("+")  # with a tag, or after a number, as in GitHub's addresses
    if parts != [text]:
        for part in parts:
            yield from _personal(part)


def _personal(part: str) -> Iterator[str]:
    part = part.strip()
    if len(part) > 1 and not part.isdigit() and part.casefold() not in _ROLES:
        yield part


def _windows(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield a text in pieces: where one starts, where what is found in it has to start, and the
    piece."""
    start = 0
    while start < len(text):
        end = start + _WINDOW
        if len(text) <= end + _OVERLAP:
            yield start, len(text), text[start:]
            return
        apart = text.rfind("\0", start + 1, end)
        if apart > 0:  # which nothing reaches across
            end = apart
            yield start, end, text[start:end]
        else:
            yield start, end, text[start : end + _OVERLAP]
        start = end


def _owners(text: str) -> dict[str, None]:
    """Return the first few home directories in a text that may be a person's."""
    owners: dict[str, None] = {}
    for _, _, piece in _windows(text):
        for match in _HOME.finditer(piece) if _has_home(piece) else ():
            owner = match[1]
            if len(owner) >= _SHORT and owner.casefold() not in _NOBODY:
                owners[owner] = None
                if len(owners) == _MAX_OWNERS:
                    return owners
    return owners


# A match in a text: start, end, and its kind: the number of a word, or one of these.
_Match = tuple[int, int, int]
_IS_EMAIL = -2
_IS_OWNER = -1


class _Cover:
    """The replacement of names in one document; `changes` is true if its texts need any."""

    def __init__(
        self, pseudonyms: Pseudonyms, about: Mapping[str, str], texts: Sequence[str]
    ) -> None:
        self._pseudonyms = pseudonyms
        self._hashed: dict[tuple[str, str], str] = {}  # by kind and source of words
        # All at once takes a tenth of the time.
        joined = "\0".join(texts)
        words = _words(about, _owners(joined))
        self._words = [
            item for item in words if item.text and not pseudonyms.is_pseudonym(item.source)
        ]
        self._named: dict[str, _Word] = {}
        for word in self._words:
            self._named.setdefault(word.text, word)
            self._named.setdefault(word.squashed, word)
        done = self._covered(joined)
        self.changes = done != joined
        if joined.count("\0") < len(texts):
            self._texts = dict(zip(texts, done.split("\0")))
        else:  # no report has such a text, but another document may
            self._texts = {text: self._covered(text) for text in texts}

    def fields(
        self,
        fields: Mapping[str, Any],
        kind: Optional[str] = None,
        kinds: Callable[[str], Optional[str]] = _kind,
    ) -> dict[str, Any]:
        """Return an object with pseudonyms in it.

        `kind` is that of the field that has it for a value; `kinds` gives those of its own fields.
        """
        names = {key: key if key in _PARTS else self._texts[key] for key in fields}
        values = {key: self._value(value, kinds(key) or kind) for key, value in fields.items()}
        return rename_values(values, names)

    def _value(self, value: Any, kind: Optional[str]) -> Any:
        if isinstance(value, str):
            return self._person(value, kind) if kind else self._texts[value]
        if isinstance(value, list):
            return [self._value(item, kind) for item in value]
        return self.fields(value, kind) if isinstance(value, dict) else value

    def _person(self, text: str, kind: str) -> str:
        text = text.strip()
        word = self._word_of(text)
        if word is None and len(text) <= TEXT_LIMIT:
            word = next(filter(None, map(self._word_of, _user_parts(text))), None)
        if word is not None:
            return self._of_word(word)
        return self._pseudonyms.pseudonymize(kind, text) if text else text

    def _of_word(self, word: _Word) -> str:
        # Hashed once: it may be as long as a body, and be named in it as often as that allows.
        about = (word.kind, word.source)
        if about not in self._hashed:
            self._hashed[about] = self._pseudonyms.pseudonymize(*about)
        return self._hashed[about]

    def _word_of(self, text: str) -> Optional[_Word]:
        """Return the word that a text is, spelled in any way."""
        folded = _folded(text)
        return self._named.get(folded) or self._named.get(_squashed(text) or folded)

    def _covered(self, text: str) -> str:
        pieces: list[str] = []
        done = 0
        for start, end, piece in _windows(text):
            for first, last, pseudonym in self._spans(piece):
                if done <= start + first < end:
                    pieces += [text[done : start + first], pseudonym]
                    done = start + last
        return "".join([*pieces, text[done:]]) if pieces else text

    def _spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Return the replacements for a text, in order."""
        places = list(_places(text, self._words))
        if "@" in text:
            places += [(*span, _IS_EMAIL) for span in _emails(text)]
        if _has_home(text):
            places += [
                (*match.span(1), _IS_OWNER)
                for match in _HOME.finditer(text)
                if match[1].casefold() not in _NOBODY
            ]
        for group in _overlapping(self._unprotected(text, sorted(places))):
            # Of overlapping matches the longest counts, of equally long ones the surest.
            start, end, number = min(group, key=lambda match: (match[0] - match[1], match[2]))
            yield group[0][0], max(match[1] for match in group), self._name(text[start:end], number)

    def _unprotected(self, text: str, places: Sequence[_Match]) -> Iterator[_Match]:
        """Return the matches that don't touch a pseudonym that was made here."""
        if not places:
            return
        protected = [
            item.span() for item in SHAPE.finditer(text) if self._pseudonyms.is_pseudonym(item[0])
        ]
        number = 0
        for match in places:
            while number < len(protected) and protected[number][1] <= match[0]:
                number += 1
            if number == len(protected) or match[1] <= protected[number][0]:
                yield match

    def _name(self, text: str, number: int) -> str:
        if number == _IS_EMAIL:
            return self._pseudonyms.pseudonymize(EMAIL, text)
        if number == _IS_OWNER:
            return self._person(text, ACCOUNT)
        return self._of_word(self._words[number])


def _has_home(text: str) -> bool:
    return "home" in text or "sers" in text


def _overlapping(places: Iterable[_Match]) -> Iterator[list[_Match]]:
    """Yield groups of overlapping matches, from matches in order."""
    group: list[_Match] = []
    end = 0
    for match in places:
        if group and match[0] >= end:
            yield group
            group = []
        end = max(end, match[1]) if group else match[1]
        group.append(match)
    if group:
        yield group


def _emails(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of e-mail addresses in a text, in linear time."""
    done = 0
    at = text.find("@")
    while at >= 0:
        local_part = _LOCAL_PART.match(text[done:at][::-1])
        end = _end_of_domain(text, at + 1) if local_part else 0
        if local_part and end:
            yield at - local_part.end(), end
        done = end or at + 1
        at = text.find("@", done)


def _end_of_domain(text: str, start: int) -> int:
    """Return the end of the domain that starts at `start`, 0 if there is none."""
    domain = _DOMAIN.match(text, start)
    dot = domain[0].rfind(".") if domain else -1
    while domain and dot > 0:
        top_level = _TOP_LEVEL.match(domain[0], dot)
        if top_level:
            return start + top_level.end()
        dot = domain[0].rfind(".", 0, dot)
    return 0


def _places(text: str, words: Sequence[_Word]) -> Iterator[_Match]:
    """Yield the matches of words in a text."""
    folded = _folded(text)
    squashed = _squashed(text)
    elsewhere: dict[str, int] = {}  # how often what is spelled in any way is not spelled as known
    for number, word in enumerate(words):
        if word.squashed and word.squashed not in elsewhere:
            elsewhere[word.squashed] = squashed.count(word.squashed)
        for start in _all_of(word.text, folded):
            end = start + len(word.text)
            if not (word.is_whole and _is_inside(text, start, end)):
                yield start, end, number
                if word.squashed:
                    elsewhere[word.squashed] -= 1
    if any(count > 0 for count in elsewhere.values()):
        yield from _spelled_otherwise(text, squashed, words)


def _spelled_otherwise(text: str, squashed: str, words: Sequence[_Word]) -> Iterator[_Match]:
    origin = [at for at, character in enumerate(text) for _ in _LETTERS[ord(character)] or ()]
    for number, word in enumerate(words):
        for first in _all_of(word.squashed, squashed) if word.squashed else ():
            start, end = origin[first], origin[first + len(word.squashed) - 1] + 1
            while end < len(text) and unicodedata.category(text[end])[0] == "M":
                end += 1  # the accent of the last letter
            is_enough = _weight(word.squashed) >= _SHORT or _is_one_word(text[start:end])
            if word.is_loose or (is_enough and not _is_inside(text, start, end)):
                yield start, end, number


def _is_one_word(text: str) -> bool:
    return all(item.isalnum() or unicodedata.category(item)[0] == "M" for item in text)


def _all_of(word: str, text: str) -> Iterator[int]:
    start = text.find(word)
    while start >= 0:
        yield start
        start = text.find(word, start + len(word))


def _is_inside(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return before.isalnum() or after.isalnum()


def rename_values(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return an object with renamed fields; counts under one new name are added up."""
    counts = {name: fields[name] for name, other in names.items() if name == other}
    for key, name in names.items():
        if key == name:
            continue
        if name not in counts:
            counts[name] = fields[key]
        elif _is_count(counts[name]) and _is_count(fields[key]):
            counts[name] += fields[key]
    return counts


def _is_count(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
