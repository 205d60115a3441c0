"""Parse the histories of shells into times and commands of the fixed list.

Of a line only the first word of each simple command, and of runs of tests and builds the
sub-command, are looked up in `catalogue`; nothing else of it is stored or returned.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from collector.catalogue import CommandUse, recognize_command

ZSH_LINE = re.compile(rb": (\d{9,11}):\d+;(.*)", re.S)
BASH_TIME = re.compile(rb"#(\d{9,11})")
BASH_NEXT_TIME = re.compile(rb"\n#\d{9,11}\n")
FISH_COMMAND = b"- cmd: "
FISH_TIME = re.compile(rb"  when: (\d{9,11})")
# Quoted texts and escaped characters are words or parts of words; operators end a command.
TOKENS = re.compile(
    r"""(?P<end>&&|\|\||[;|&(){}\n])|(?P<space>[^\S\n]+)|(?P<comment>\#.*)"""
    r"""|(?P<word>(?:'[^'\n]*'?|"(?:\\.|[^"\\\n])*"?|\\.|[^\s;|&(){}'"\\]|\\$)+)""",
    re.S,
)
LONGEST_LINE = 2000
# What can hold line ends that end no command of bash, and the line end that does.
BASH_PARTS = re.compile(
    rb"""\\.|'[^']*'|"(?:\\.|[^"\\])*"|(?<!\S)\#[^\n]*|<<<"""
    rb"""|<<-?[ \t]*["'\\]?(?P<document>[A-Za-z_][\w.-]*)|(?P<end>\n)""",
    re.S,
)
LONGEST_COMMAND = 10000
# The first line of a command that goes on below: bash's `lithist` stores its line ends.
BASH_COMPOUND = re.compile(
    rb"""\s*(?:for|while|until|if|case|select|function|[{(])(?:\s|$)|.*(?:[\\|{(]|&&|\b(?:do|then))\s*$"""
)


class Entry(NamedTuple):
    """An entry of a history; `when` is None if it has no time."""

    when: Optional[int]
    command: bytes

    @property
    def uses(self) -> List[CommandUse]:
        """Return the uses of commands of the fixed list; all else of the entry is dropped."""
        return command_uses(self.command.decode("utf-8", "replace"))


class Format(NamedTuple):
    """A format of histories.

    Attributes:
        complete: Returns how many bytes are complete entries.
        parse: Yields these.
        overwrites: A shell that ends may write the whole history as it has it in memory: without
            what others have added since it started, and with its start as the time of lines that
            had none.
    """

    complete: Callable[[bytes], int]
    parse: Callable[[bytes], Iterator[Entry]]
    overwrites: bool = False


def command_uses(line: str) -> List[CommandUse]:
    """Return the uses of commands of the fixed list in the first line of a command line."""
    uses = []
    words: List[str] = []
    text = line[:LONGEST_LINE].partition("\n")[0].rstrip("\\")
    for token in TOKENS.finditer(text + "\n"):
        if token.lastgroup == "word":
            if len(words) < 8:
                words.append(token[0])
        elif token.lastgroup in ("end", "comment"):
            use = recognize_command(words)
            if use is not None:
                uses.append(use)
            words = []
            if token.lastgroup == "comment":
                break
    return uses


def _complete_lines(content: bytes) -> int:
    return content.rfind(b"\n") + 1


def parse_zsh(content: bytes) -> Iterator[Entry]:
    """Yield the entries of a zsh history, with or without EXTENDED_HISTORY."""
    for line in _joined(content.split(b"\n"), b"\\"):
        match = ZSH_LINE.match(line)
        if match:
            yield Entry(int(match[1]), match[2])
        elif line:
            yield Entry(None, line)


def parse_lines(content: bytes) -> Iterator[Entry]:
    """Yield the entries of PowerShell's history."""
    for line in _joined(content.split(b"\n"), b"`"):
        if line.strip():
            # Here a backslash is a part of a path.
            yield Entry(None, line.replace(b"\\", b"/"))


def _joined(lines: List[bytes], continued: bytes) -> Iterator[bytes]:
    """Yield lines, those that end with `continued` together with the next."""
    parts: List[bytes] = []
    for line in lines:
        parts.append(line)
        if not line.rstrip(b"\r").endswith(continued):
            yield b"\n".join(parts)
            parts = []
    if parts:
        yield b"\n".join(parts)


def parse_bash(content: bytes) -> Iterator[Entry]:
    """Yield the entries of a bash history; with HISTTIMEFORMAT, times stand above them.

    Sessions with and without times append to one history.
    """
    when: Optional[int] = None
    start = 0
    while start < len(content):
        end = _line_end(content, start)
        line = content[start:end]
        match = BASH_TIME.fullmatch(line)
        if match:
            when = int(match[1])
        elif line:
            yield Entry(when, line)
            end = _command_end(content, start)
            if when is not None and BASH_COMPOUND.match(line):
                following = BASH_NEXT_TIME.search(content, end)
                end = following.start() if following else len(content)
            when = None
        start = end + 1


def _line_end(content: bytes, start: int) -> int:
    end = content.find(b"\n", start)
    return end if end >= 0 else len(content)


def _command_end(content: bytes, start: int) -> int:
    """Return where a command without a time ends, with its here-documents and quoted lines.

    A quote or a here-document that nothing closes nearby is taken for none, so it hides no command.
    """
    limit = start + LONGEST_COMMAND
    documents = []
    for part in BASH_PARTS.finditer(content, start, limit):
        if part["document"]:
            documents.append(part["document"])
        if part["end"]:
            end = part.start()
            break
    else:
        return _line_end(content, start)
    for word in documents:
        closing = re.compile(rb"\n\t*" + re.escape(word) + rb"(?=\n)").search(content, end, limit)
        end = closing.end() if closing else end
    return end


def _complete_bash(content: bytes) -> int:
    end = _complete_lines(content)
    start = content.rfind(b"\n", 0, max(0, end - 1)) + 1
    # A time whose command is not written yet waits for it.
    return start if BASH_TIME.fullmatch(content[start:end].rstrip(b"\n")) else end


def parse_fish(content: bytes) -> Iterator[Entry]:
    """Yield the entries of a fish history."""
    command: Optional[bytes] = None
    for line in content.split(b"\n"):
        match = FISH_TIME.fullmatch(line)
        if line.startswith(FISH_COMMAND):
            command = line[len(FISH_COMMAND) :]
        elif match and command is not None:
            text = command.replace(b"\\\\", b"\0").replace(b"\\n", b"\n").replace(b"\0", b"\\")
            yield Entry(int(match[1]), text)
            command = None


def without_copies(entries: Iterator[Entry], copied: Container[bytes]) -> Iterator[Entry]:
    """Leave out what fish has copied from bash's history when it was first started.

    It gives all of these the time of the copy, at the top of its history.

    Args:
        copied: The lines of bash's history, which are counted there.
    """
    first_second: List[Entry] = []
    later: List[Entry] = []
    for entry in entries:
        if first_second and entry.when != first_second[0].when:
            later.append(entry)
            break
        first_second.append(entry)
    if len(first_second) > 1:  # one alone can have been typed in both shells
        first_second = [entry for entry in first_second if entry.command not in copied]
    yield from first_second
    yield from later
    yield from entries


def _complete_fish(content: bytes) -> int:
    end = _complete_lines(content)
    start = content.rfind(b"\n" + FISH_COMMAND, 0, end) + 1
    has_time = b"\n  when: " in content[start:end]
    return end if has_time or (start == 0 and not content.startswith(FISH_COMMAND)) else start


FORMATS: Dict[str, Format] = {
    "zsh": Format(_complete_lines, parse_zsh),
    "bash": Format(_complete_bash, parse_bash, overwrites=True),
    "fish": Format(_complete_fish, parse_fish),
    "powershell": Format(_complete_lines, parse_lines),
}


def fold_uses(
    entries: List[Tuple[int, List[CommandUse]]],
) -> Dict[Tuple[int, CommandUse], int]:
    """Return how often each command was used in each second."""
    counts: Dict[Tuple[int, CommandUse], int] = {}
    for second, uses in entries:
        for use in uses:
            counts[second, use] = counts.get((second, use), 0) + 1
    return counts
