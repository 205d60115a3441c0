"""Check names and docstrings against the rules of CONTRIBUTING.md.

    python scripts/check_names.py [PATH ...]

Prints each fault and exits with 1 if there is one. Without paths, all files in git are checked.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Words that don't describe the named value.
BANNED = {"each", "said", "kept", "given", "found", "known", "whole", "some"}
BANNED |= {"rest", "well", "mark", "place", "hurried", "looks"}
# A docstring that begins like this has no verb and no subject.
HEADLESS = re.compile(r"(What|Whether|Whom?|Whoever|Whose|Which|When|How|Of|Those)\b")
# In documents and messages for users.
RIDDLES = re.compile(
    r"\b(mend(s|ed|ing)?|heard of|leaves with|left with status|week-end|bank holidays?)\b", re.I
)
CODE = (
    *("collector", "developer_telemetry", "sdk", "benchmarks", "conformance", "dashboards"),
    *("scripts", "tests"),
)
# Names in tests are used within few lines.
WITHOUT_BANNED_NAMES = ("tests", "sdk/tests")

# This file, files with bad examples, and the pages that a long run generates.
WITH_RIDDLES = {
    *("scripts/check_names.py", "CONTRIBUTING.md", "tests/project/test_docs.py"),
    *("docs/benchmarks.md", "docs/conformance.md"),
}


def list_bound_names(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the names that a node binds, each with its line."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name, node.lineno
    elif isinstance(node, ast.arg):
        yield node.arg, node.lineno
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id, node.lineno
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr, node.lineno


def find_code_faults(text: str, checks_names: bool) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each fault in a Python source."""
    for node in ast.walk(ast.parse(text)):
        if checks_names:
            for name, line in list_bound_names(node):
                if name.strip("_").lower() in BANNED:
                    yield line, f"the name `{name}` does not describe its value"
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            first = (docstring or "").partition("\n")[0]
            if HEADLESS.match(first) and not first.endswith("?"):
                line = 1 if isinstance(node, ast.Module) else node.lineno
                yield line, f"a docstring without verb or subject: {first}"


def find_text_faults(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each fault in a text."""
    for number, line in enumerate(text.splitlines(), 1):
        if riddle := RIDDLES.search(line):
            yield number, f"write plain words in place of: {riddle[0]}"


def find_faults(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each fault in a file."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    if path.suffix == ".py" and name.startswith(CODE):
        yield from find_code_faults(text, not name.startswith(WITHOUT_BANNED_NAMES))
    if name not in WITH_RIDDLES:
        yield from find_text_faults(text)


def main() -> None:
    """Print all faults below the paths of the command line."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *(sys.argv[1:] or [".", ":!tests/payloads"])],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    suffixes = (".py", ".md", ".html", ".sh", ".js", ".yaml", ".yml", ".conf")
    count = 0
    for name in listed:
        path = Path(name).resolve()
        if path.suffix in suffixes and path.exists():
            for line, fault in sorted(find_faults(path)):
                print(f"{name}:{line}: {fault}")
                count += 1
    if count:
        sys.exit(f"{count} faults; CONTRIBUTING.md has the rules for names and texts")


if __name__ == "__main__":
    main()
