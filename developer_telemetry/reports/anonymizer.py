"""Replace the names of a report's person by pseudonyms in all its texts.

Besides the fields of the person, a path may name a home directory, a branch its author, and a later
version of the collector may send the author of a commit.
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
# Other fields of a person or a host, in lower case without signs. There a `name` is a project's.
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
# The names of a report's parts stay, even if a person has the same name.
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
# A shorter text is part of too many words: it matches only a complete word.
_SHORT = 4
# So many letters and digits match with other signs between them, or none.
_LONG = 6
# Characters of a text that are searched at once, and the overlap with the next: no name or address
# is longer. So other threads never wait for a long text.
_WINDOW = 16 << 10
_OVERLAP = 1 << 10
# Owners of home directories whose names are searched outside of paths, too; a machine has a few.
_MAX_OWNERS = 16

_LOCAL_PART = re.compile(r"[\w.+%-]+")
_DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_TOP_LEVEL = re.compile(r"\.[^\W\d_]{2,}")
_SEGMENT = r"""[^\\/\s"':;,<>|\0]+"""
_HOME = re.compile(f"{HOME}({_SEGMENT}(?: {_SEGMENT})*(?=[\\\\/])|{_SEGMENT})")
# `DOMAIN\user` and `provider|user`.
_BEFORE_USER = re.compile(r"[\\/|:]")
# The start of a person's name in a directory: `CN=Ann Lee,OU=...`.
_DIRECTORY = ("cn=", "uid=", "samaccountname=")
# The name of a guest in another tenant's directory: `ann.lee_corp.example#EXT#@...`.
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

    text: str  # as `_fold`
    kind: str
    source: str
    is_whole: bool  # too common to be searched inside of words
    squashed: str  # as `_squash`; "" where the text alone decides
    is_loose: bool  # long enough for its letters to match across signs, inside of words


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


def _to_letters(character: str) -> Optional[str]:
    """Return a character's letters and digits in their common spelling."""
    if character == "\0":  # it separates texts
        return character
    plain = unicodedata.normalize("NFKD", character).casefold().replace("\u0131", "i")
    letters = [
        item
        for item in unicodedata.normalize("NFKD", plain)
        if unicodedata.category(item)[0] in "LN" or unicodedata.category(item) == "So"
    ]
    return "".join(letters) or None


_WITHOUT_CAPITALS = _Table(_without_capital)
_LETTERS = _Table(_to_letters)


def anonymize(document: Any, pseudonyms: Pseudonyms) -> Any:
    """Return a document, such as a report's, with pseudonyms for the names of people."""
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
    texts, is_personal = _collect_texts(others)
    replacement = _Replacement(pseudonyms, about, texts)
    if is_personal or replacement.changes:
        others = replacement.fields(others, kinds=_top_kind)
    return {**fixed, **others}


def _collect_texts(document: object) -> tuple[list[str], bool]:
    """Return the texts of a document, and true if it has a field of a person."""
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
    return _KINDS.get(_squash(field)) if len(field) < 64 else None


def _top_kind(field: str) -> Optional[str]:
    return IDENTITY.get(field) or _kind(field)


def _fold(text: str) -> str:
    """Return a text in lower case, of the same length."""
    return text.lower() if text.isascii() else text.translate(_WITHOUT_CAPITALS)


def _squash(text: str) -> str:
    """Return only the letters and digits, the same for all their spellings in Unicode.

    So `Ann-Lee`, `ann.lee` and `ANNLEE` are one, and so are `Straße` and `STRASSE`, a letter with
    its accent and the two in a row, and letters of any width.
    """
    return text.translate(_LETTERS)


def _weight(text: str) -> int:
    """Return the length of a text in letters; a letter for a syllable or a word counts as three."""
    return sum(3 if item >= "\u2e80" else 1 for item in text if item.isalnum())


def _list_words(about: Mapping[str, str], owners: Iterable[str]) -> Iterator[_Word]:
    """Return the texts to search in the remainder of a report, the surest first."""
    for field, text in about.items():
        kind = IDENTITY[field]
        for spelled in _spellings(text[:TEXT_LIMIT]):
            yield _word(spelled, kind, text)
        if kind == NAME and " " in text:
            first, _, last = text[:TEXT_LIMIT].rpartition(" ")
            yield _word(f"{last} {first}", kind, text)
    for field, text in about.items():
        if IDENTITY[field] != HOST:
            for part in _split_user_parts(text[:TEXT_LIMIT]):
                yield _part(part, IDENTITY[field], text)
    hostname = about.get("hostname", "")
    short = hostname[:TEXT_LIMIT].partition(".")[0]
    if len(short) >= _SHORT and not short.isdigit():
        yield _word(short, HOST, hostname)._replace(is_whole=True)
    for owner in owners:
        for part in (owner, *_split_user_parts(owner)):
            yield _word(part, ACCOUNT, owner)._replace(is_whole=True, is_loose=False)


def _word(text: str, kind: str, source: str) -> _Word:
    weight = _weight(text)
    squashed = _squash(text)
    # The letters alone of `a. n` are another word.
    is_unique = weight >= _SHORT or _is_single_word(text)
    is_loose = kind in (DEVELOPER, NAME) and weight >= _LONG
    is_whole = max(weight, len(text)) < _SHORT
    return _Word(_fold(text), kind, source, is_whole, squashed if is_unique else "", is_loose)


def _part(text: str, kind: str, source: str) -> _Word:
    is_long = _weight(text) >= _LONG
    return _word(text, kind, source)._replace(is_whole=not is_long, is_loose=is_long)


def _spellings(text: str) -> Iterable[str]:
    # Some systems write an accent as a separate character.
    if text.isascii():
        return (text,)
    return dict.fromkeys((text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))))


def _split_user_parts(text: str) -> Iterator[str]:
    """Yield the part that names the user in `DOMAIN\\user`, an e-mail address, or a similar id."""
    if text[:16].lower().startswith(_DIRECTORY):
        for item in text.split(","):
            if item.strip().lower().startswith(_DIRECTORY):
                yield from _select_personal(item.partition("=")[2])
        return
    user, sign, _ = _BEFORE_USER.split(text)[-1].rpartition("@")
    if not sign:
        user = _BEFORE_USER.split(text)[-1]
    if _GUEST in user:
        user = user.partition(_GUEST)[0].rpartition("_")[0]
    parts = user.split("+")  # with a tag, or after a number, as in GitHub's addresses
    if parts != [text]:
        for part in parts:
            yield from _select_personal(part)


def _select_personal(part: str) -> Iterator[str]:
    part = part.strip()
    if len(part) > 1 and not part.isdigit() and part.casefold() not in _ROLES:
        yield part


def _split_windows(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield a text in pieces: the start of one, the first start of its matches, and the piece."""
    start = 0
    while start < len(text):
        end = start + _WINDOW
        if len(text) <= end + _OVERLAP:
            yield start, len(text), text[start:]
            return
        apart = text.rfind("\0", start + 1, end)
        if apart > 0:  # no match crosses it
            end = apart
            yield start, end, text[start:end]
        else:
            yield start, end, text[start : end + _OVERLAP]
        start = end


def _find_owners(text: str) -> dict[str, None]:
    """Return the first few home directories in a text that may be a person's."""
    owners: dict[str, None] = {}
    for _, _, piece in _split_windows(text):
        for match in _HOME.finditer(piece) if _has_home_path(piece) else ():
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


class _Replacement:
    """The replacement of names in one document; `changes` is true if its texts need any."""

    def __init__(
        self, pseudonyms: Pseudonyms, about: Mapping[str, str], texts: Sequence[str]
    ) -> None:
        self._pseudonyms = pseudonyms
        self._hashed: dict[tuple[str, str], str] = {}  # by kind and source of words
        # All texts at once take a tenth of the time.
        joined = "\0".join(texts)
        words = _list_words(about, _find_owners(joined))
        self._words = [
            item for item in words if item.text and not pseudonyms.is_pseudonym(item.source)
        ]
        self._words_by_text: dict[str, _Word] = {}
        for word in self._words:
            self._words_by_text.setdefault(word.text, word)
            self._words_by_text.setdefault(word.squashed, word)
        done = self._replace_names(joined)
        self.changes = done != joined
        if joined.count("\0") < len(texts):
            self._texts = dict(zip(texts, done.split("\0")))
        else:  # no report has such a text, but another document may
            self._texts = {text: self._replace_names(text) for text in texts}

    def fields(
        self,
        fields: Mapping[str, Any],
        kind: Optional[str] = None,
        kinds: Callable[[str], Optional[str]] = _kind,
    ) -> dict[str, Any]:
        """Return an object with pseudonyms in it.

        `kind` is the kind of the object's own field; `kinds` returns those of fields in it.
        """
        names = {key: key if key in _PARTS else self._texts[key] for key in fields}
        values = {key: self._value(value, kinds(key) or kind) for key, value in fields.items()}
        return rename_values(values, names)

    def _value(self, value: Any, kind: Optional[str]) -> Any:
        if isinstance(value, str):
            return self._replace_person(value, kind) if kind else self._texts[value]
        if isinstance(value, list):
            return [self._value(item, kind) for item in value]
        return self.fields(value, kind) if isinstance(value, dict) else value

    def _replace_person(self, text: str, kind: str) -> str:
        text = text.strip()
        word = self._find_word(text)
        if word is None and len(text) <= TEXT_LIMIT:
            word = next(filter(None, map(self._find_word, _split_user_parts(text))), None)
        if word is not None:
            return self._replace_word(word)
        return self._pseudonyms.pseudonymize(kind, text) if text else text

    def _replace_word(self, word: _Word) -> str:
        # Hashed once, since it may be long and occur often.
        about = (word.kind, word.source)
        if about not in self._hashed:
            self._hashed[about] = self._pseudonyms.pseudonymize(*about)
        return self._hashed[about]

    def _find_word(self, text: str) -> Optional[_Word]:
        """Return the word that equals a text, spelled in any way."""
        folded = _fold(text)
        return self._words_by_text.get(folded) or self._words_by_text.get(_squash(text) or folded)

    def _replace_names(self, text: str) -> str:
        pieces: list[str] = []
        done = 0
        for start, end, piece in _split_windows(text):
            for first, last, pseudonym in self._find_replacements(piece):
                if done <= start + first < end:
                    pieces += [text[done : start + first], pseudonym]
                    done = start + last
        return "".join([*pieces, text[done:]]) if pieces else text

    def _find_replacements(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Return the replacements for a text, in order."""
        matches = list(_find_matches(text, self._words))
        if "@" in text:
            matches += [(*span, _IS_EMAIL) for span in _find_emails(text)]
        if _has_home_path(text):
            matches += [
                (*match.span(1), _IS_OWNER)
                for match in _HOME.finditer(text)
                if match[1].casefold() not in _NOBODY
            ]
        for group in _group_overlapping(self._filter_unprotected(text, sorted(matches))):
            # Of overlapping matches the longest counts, of equally long ones the surest.
            start, end, number = min(group, key=lambda match: (match[0] - match[1], match[2]))
            yield group[0][0], max(match[1] for match in group), self._name(text[start:end], number)

    def _filter_unprotected(self, text: str, matches: Sequence[_Match]) -> Iterator[_Match]:
        """Return the matches that don't touch a pseudonym that was made here."""
        if not matches:
            return
        protected = [
            item.span() for item in SHAPE.finditer(text) if self._pseudonyms.is_pseudonym(item[0])
        ]
        number = 0
        for match in matches:
            while number < len(protected) and protected[number][1] <= match[0]:
                number += 1
            if number == len(protected) or match[1] <= protected[number][0]:
                yield match

    def _name(self, text: str, number: int) -> str:
        if number == _IS_EMAIL:
            return self._pseudonyms.pseudonymize(EMAIL, text)
        if number == _IS_OWNER:
            return self._replace_person(text, ACCOUNT)
        return self._replace_word(self._words[number])


def _has_home_path(text: str) -> bool:
    return "home" in text or "sers" in text


def _group_overlapping(matches: Iterable[_Match]) -> Iterator[list[_Match]]:
    """Yield groups of overlapping matches, from matches in order."""
    group: list[_Match] = []
    end = 0
    for match in matches:
        if group and match[0] >= end:
            yield group
            group = []
        end = max(end, match[1]) if group else match[1]
        group.append(match)
    if group:
        yield group


def _find_emails(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of e-mail addresses in a text, in linear time."""
    done = 0
    at = text.find("@")
    while at >= 0:
        local_part = _LOCAL_PART.match(text[done:at][::-1])
        end = _find_domain_end(text, at + 1) if local_part else 0
        if local_part and end:
            yield at - local_part.end(), end
        done = end or at + 1
        at = text.find("@", done)


def _find_domain_end(text: str, start: int) -> int:
    """Return the end of the domain that starts at `start`, 0 if there is none."""
    domain = _DOMAIN.match(text, start)
    dot = domain[0].rfind(".") if domain else -1
    while domain and dot > 0:
        top_level = _TOP_LEVEL.match(domain[0], dot)
        if top_level:
            return start + top_level.end()
        dot = domain[0].rfind(".", 0, dot)
    return 0


def _find_matches(text: str, words: Sequence[_Word]) -> Iterator[_Match]:
    """Yield the matches of words in a text."""
    folded = _fold(text)
    squashed = _squash(text)
    elsewhere: dict[str, int] = {}  # the numbers of matches with another spelling
    for number, word in enumerate(words):
        if word.squashed and word.squashed not in elsewhere:
            elsewhere[word.squashed] = squashed.count(word.squashed)
        for start in _find_all(word.text, folded):
            end = start + len(word.text)
            if not (word.is_whole and _is_inside(text, start, end)):
                yield start, end, number
                if word.squashed:
                    elsewhere[word.squashed] -= 1
    if any(count > 0 for count in elsewhere.values()):
        yield from _find_other_spellings(text, squashed, words)


def _find_other_spellings(text: str, squashed: str, words: Sequence[_Word]) -> Iterator[_Match]:
    origin = [at for at, character in enumerate(text) for _ in _LETTERS[ord(character)] or ()]
    for number, word in enumerate(words):
        for first in _find_all(word.squashed, squashed) if word.squashed else ():
            start, end = origin[first], origin[first + len(word.squashed) - 1] + 1
            while end < len(text) and unicodedata.category(text[end])[0] == "M":
                end += 1  # the accent of the last letter
            is_enough = _weight(word.squashed) >= _SHORT or _is_single_word(text[start:end])
            if word.is_loose or (is_enough and not _is_inside(text, start, end)):
                yield start, end, number


def _is_single_word(text: str) -> bool:
    return all(item.isalnum() or unicodedata.category(item)[0] == "M" for item in text)


def _find_all(word: str, text: str) -> Iterator[int]:
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
