"""The documents: their links lead somewhere, their examples and commands do what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import reference
from tests.support.receivers import TOKEN, Receiver, environment, run_command
from tests.support.warm_starts import COMMAND

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAYLOADS = ROOT / "tests" / "payloads"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
# How a block begins that can not be run here. `tests/project/test_make_run.py` runs the README's.
NEEDS = "# needs "
COMMAND_SECONDS = 120
# The embedded database makes a secret, as for an operator who sets nothing.
OWN_SECRET = {"ENCRYPTION_SECRET": ""}
# Words. A shorter sentence can be the same on two pages by chance.
LONG_SENTENCE = 8

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> list[str]:
    """A page's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def commands(page: Path) -> str:
    """Return what of a page can be run here."""
    if page.name == "install.md":  # has a test of its own
        return ""
    return "".join(block for block in blocks(page, "sh") if not block.startswith(NEEDS))


@each_page
def test_links_lead_to_what_is_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            dead.append(target)
    assert dead == []


def test_the_index_lists_each_page() -> None:
    index = ROOT / "docs" / "index.md"
    listed = set(re.findall(r"\]\(([a-z-]+\.md)[)#]", index.read_text(encoding="utf-8")))
    assert listed == {page.name for page in DOCS} - {index.name}


def test_the_glossary_is_in_order() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    for part in text.split("\n## ")[1:]:
        words = re.findall(r"^\*\*(.+?)\*\*:", part, re.M)
        assert len(words) > 10
        assert words == sorted(words, key=str.lower)


GENERATED = {"benchmarks.md", "conformance.md", *reference.PAGES}
NOT_ENGLISH = re.compile(
    r"\bmend(?:s|ed|ing)?\b|\bheard of\b|\bleaves with\b|\bweek-end", re.IGNORECASE
)


@each_page
def test_a_page_is_in_plain_english(page: Path) -> None:
    if page.name not in {"CONTRIBUTING.md", *GENERATED}:  # that one quotes what not to write
        assert NOT_ENGLISH.findall(page.read_text(encoding="utf-8")) == []


def test_no_sentence_stands_on_two_pages() -> None:
    pages: dict[str, set[str]] = {}
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$|^\|[^\n]*", "", page.read_text("utf-8"), flags=re.M | re.S)
        for sentence in re.split(r"(?<=[.:;]) ", " ".join(prose.split())):
            if len(sentence.split()) >= LONG_SENTENCE:
                pages.setdefault(sentence, set()).add(page.name)
    assert pages
    assert {sentence: on for sentence, on in pages.items() if len(on) > 1} == {}


def test_operators_pages_link_to_the_glossary() -> None:
    plain = {"glossary.md", "architecture.md", *GENERATED}
    missing = [page.name for page in DOCS if "glossary.md" not in page.read_text("utf-8")]
    assert set(missing) <= plain


def anchors(page: Path) -> set[str]:
    """Return what a link can point to: the headings, as the usual renderers name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {each.replace(" ", "-") for each in words}


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_reference_says_what_the_code_does(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), "`make reference` renews it"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder for commands: a database with the connection `fleet`, and an archive."""
    done = run_command(tmp_path, "connect", "fleet", "--secret-token", TOKEN, **OWN_SECRET)
    assert done.returncode == 0, done.stderr
    (tmp_path / "archive").mkdir()
    shutil.copy(PAYLOADS / "refused-archive-of-a-day.body", tmp_path / "archive" / "day.json")
    return tmp_path


@pytest.fixture
def receiver(folder: Path) -> Iterator[Receiver]:
    """A receiver on that database."""
    with Receiver("", folder, **OWN_SECRET) as running:
        yield running


def examples() -> list[tuple[str, str, str]]:
    """Body, status, answer: each as it stands in the page about payloads."""
    text = (ROOT / "docs" / "payloads.md").read_text(encoding="utf-8")
    pattern = r"```json\n(.*?)```\n\nanswered with (\d+):\n\n```json\n(.*?)```"
    return re.findall(pattern, text, re.S)


def test_every_payload_has_its_answer() -> None:
    assert 2 * len(examples()) == len(blocks(ROOT / "docs" / "payloads.md", "json"))


def test_payloads_are_answered_as_documented(receiver: Receiver) -> None:
    for body, status, answer in examples():
        given = receiver.send(body.encode(), 1)
        assert (given.status_code, given.json()) == (int(status), json.loads(answer))


@pytest.mark.parametrize("page", [*filter(commands, DOCS)], ids=lambda page: page.name)
def test_commands_work_as_they_stand(page: Path, folder: Path, receiver: Receiver) -> None:
    script = "set -eu\n" + commands(page).replace(":8090", f":{receiver.port}")
    settings = {"TELEMETRY_PORT": str(receiver.port), "TOKEN": TOKEN, **OWN_SECRET}
    path = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment(PATH=path, **settings),
        input="",
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_makefile_has_each_target_that_is_documented() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M))
    assert named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.M))


def test_the_architecture_names_each_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_/]+)`", text.partition("## Where to look")[2]))
    package = ROOT / "developer_telemetry"
    modules = {
        str(each.relative_to(package).with_suffix(""))
        for each in package.rglob("*.py")
        if each.name != "__init__.py"
    }
    folders = tuple(each for each in named if each.endswith("/"))
    assert {each for each in modules - named if not each.startswith(folders)} == set()


@pytest.mark.parametrize("way", ["The way of a report", "An extract run", "A run of doctor"])
def test_the_architecture_describes_a_way_through_at_most_twelve_files(way: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition(f"## {way}")[2].partition("\n\n1. ")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z0-9_]+(?:/[a-z0-9_]+)*)`", section))
    package = ROOT / "developer_telemetry"
    files = {each for each in named if (package / f"{each}.py").exists()}
    missing = {each for each in named - files if "/" in each}
    assert missing == set()
    assert 5 <= len(files) <= 12, files
