"""Test what `make conformance` does before, after and around trying the plugin with DevLake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conformance import page
from conformance.devlakes import by_sdk, devlakes, names
from conformance.environments import run_tests
from conformance.lake import resources_of
from conformance.outcomes import LeftOut, Outcomes, Table, Unmet, failures
from conformance.sdks import OURS, answers, copy_of, plugins_of

ROOT = Path(__file__).parents[2]
# httpx is a tool of tests there, too.
RECEIVER_LIBRARIES = ("typer", "rich", "starlette", "jinja2", "uvicorn", "prometheus_client")
GUESTBOOK = ROOT / "sdk" / "tests" / "guestbook"


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "conformance", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_a_checkout_it_says_what_it_needs() -> None:
    # As make calls it when nothing is set.
    done = conformance("--devlake", "", "--lake", "", "--go-plugins", "")
    assert done.returncode == 2
    for needed in ("DEVLAKE=", "LAKE=", "GO_PLUGINS="):
        assert needed in done.stderr


def checkout(folder: Path, day: str, sdk: str = "") -> Path:
    """A checkout of DevLake as far as it matters here, committed on a day."""
    (folder / "backend" / "python" / "pydevlake").mkdir(parents=True)
    (folder / "backend" / "python" / "pydevlake" / "pyproject.toml").write_text(sdk)
    when = {"GIT_AUTHOR_DATE": f"{day}T12:00:00Z", "GIT_COMMITTER_DATE": f"{day}T12:00:00Z"}
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], cwd=folder, env={**os.environ, **when}, check=True)
    return folder


def test_devlakes_come_in_the_order_of_their_age_each_with_its_own_server(tmp_path: Path) -> None:
    june = checkout(tmp_path / "june", "2026-06-25", "new")
    may = checkout(tmp_path / "may", "2026-05-05", "old")
    late = checkout(tmp_path / "late june", "2026-06-30", "new")
    binaries = [tmp_path / name for name in ("june-lake", "may-lake", "late-lake")]
    for each in binaries:
        each.write_text(each.name)
    found = devlakes(f"{june} {may} '{late}'", " ".join(map(str, binaries)), "")
    assert [(each.name, each.checkout, each.lake) for each in found] == [
        ("2026-05-05", may, binaries[1]),
        ("2026-06-25", june, binaries[0]),
        ("2026-06-30", late, binaries[2]),
    ]
    # What is tried on an SDK alone is tried once.
    assert [names(group) for group in by_sdk(found)] == ["2026-05-05", "2026-06-25, 2026-06-30"]


def test_a_server_too_few_is_told(tmp_path: Path) -> None:
    done = conformance("--devlake", f"{tmp_path} {tmp_path}", "--lake", sys.executable)
    assert done.returncode == 2
    assert "DEVLAKE names 2 checkouts, LAKE 1 paths" in done.stderr


@pytest.mark.parametrize("option", ["--devlake", "--lake", "--go-plugins"])
def test_a_path_that_is_not_there_is_named(option: str, tmp_path: Path) -> None:
    done = conformance("--devlake", str(tmp_path), option, "/nowhere/at/all")
    assert done.returncode == 2
    assert "/nowhere/at/all does not exist" in done.stderr


def test_a_folder_that_is_no_checkout_is_told_so(tmp_path: Path) -> None:
    done = conformance("--devlake", str(tmp_path))
    assert done.returncode == 2
    assert "no checkout of DevLake" in done.stderr


def test_resources_are_beside_the_server_or_in_the_checkout(tmp_path: Path) -> None:
    binary, devlake = tmp_path / "bin" / "lake", tmp_path / "devlake"
    with pytest.raises(Unmet, match="resources/swagger"):
        resources_of(binary, devlake)
    for place in (devlake / "backend" / "resources", tmp_path / "bin" / "resources"):
        (place / "swagger").mkdir(parents=True)
        assert resources_of(binary, devlake) == place


def fail(error: Exception) -> None:
    raise error


def test_an_outcome_is_noted_whatever_happens(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = Outcomes("Title")
    with outcomes.record_outcome("well") as remarks:
        remarks.append("3 of 3")
    with outcomes.record_outcome("not at all"):
        fail(LeftOut("no server"))
    with outcomes.record_outcome("badly"):
        fail(Unmet("1, not 2"))
    with outcomes.record_outcome("worse"):
        assert not outcomes
    with pytest.raises(ZeroDivisionError), outcomes.record_outcome("a mistake of ours"):
        fail(ZeroDivisionError())
    assert [(each.how, each.remark.partition("\n")[0]) for each in outcomes][:3] == [
        ("ok", "3 of 3"),
        ("left out", "no server"),
        ("FAILED", "Unmet: 1, not 2"),
    ]
    assert failures([Table("All", [outcomes])]) == [
        "All: Title: badly",
        "All: Title: worse",
        "All: Title: a mistake of ours",
    ]
    assert "Title: well: ok: 3 of 3" in capsys.readouterr().out


def test_a_run_of_tests_is_counted_and_what_failed_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_bad(n): assert n == 1\n"
        "def test_not_here(): pytest.skip('no token')\n"
    )
    tests = run_tests(Path(sys.executable), tmp_path, "test_it.py")
    assert str(tests) == "2 passed, 1 failed, 1 skipped"
    assert tests.failed == ["test_it.test_bad[2]"]
    assert tests.skipped == ["test_it.test_not_here (no token)"]


def test_a_run_that_tests_nothing_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(Unmet, match="nothing_of_that_name"):
        run_tests(Path(sys.executable), tmp_path, "test_it.py")


def test_a_plugin_of_the_tree_is_copied_and_started_on_our_sdk(tmp_path: Path) -> None:
    plugin = tmp_path / "devlake" / "backend" / "python" / "plugins" / "shop"
    (plugin / "shop").mkdir(parents=True)
    (plugin / "run.sh").write_text("#!/bin/sh\nexit 9\n")
    main = (GUESTBOOK / "guestbook" / "main.py").read_text()
    (plugin / "shop" / "main.py").write_text(main.replace("guestbook.", "shop."))
    for file in (GUESTBOOK / "guestbook").glob("*.py"):
        if file.name != "main.py":
            text = file.read_text().replace("from guestbook", "from shop")
            (plugin / "shop" / file.name).write_text(text)
    assert plugins_of(tmp_path / "devlake") == [plugin]
    copy = copy_of(plugin, tmp_path / "copies")
    [info] = answers(copy, "plugin-info")
    assert info["plugin_path"] == str(copy / "run.sh")
    with pytest.raises(Unmet, match="convert ended with"):
        answers(copy, "convert", {}, "nothing")


def test_every_test_that_meets_an_sdk_is_run_on_the_genuine_one_too() -> None:
    assert all((ROOT / "tests" / f"{name}.py").is_file() for name in OURS)
    # What is imported of the SDK says who meets it.
    meeting = re.compile(
        r"^(from|import) (pydevlake|developer_telemetry\.(models|pipeline\.streams))", re.M
    )
    tests = ROOT / "tests"
    ours = {
        path.relative_to(tests).with_suffix("").as_posix()
        for path in tests.rglob("test_*.py")
        if meeting.search(path.read_text())
    }
    assert len(ours) > 2
    assert ours - set(OURS) <= {"project/test_conformance"}


def test_tests_that_run_on_the_genuine_sdk_import_nothing_of_the_receivers_libraries() -> None:
    """DevLake's image has none of them."""
    code = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({RECEIVER_LIBRARIES}))\n"
        f"for name in {OURS}: importlib.import_module('tests.' + name.replace('/', '.'))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_install_calls_tried_exactly_the_devlakes_of_the_page() -> None:
    docs = ROOT / "docs"
    page_text = (docs / "conformance.md").read_text()
    on_page = set(
        re.findall(r"^\| DevLake [^|]*\| [^|]*\b([0-9a-f]{9} of [-0-9]{10}) \|$", page_text, re.M)
    )
    rows = re.findall(r"^\| ([^|]*) \| ([^|]*) \|", (docs / "install.md").read_text(), re.M)
    tried = {
        re.sub(r" \(.*", "", devlake) for devlake, outcome in rows if outcome.startswith("tried")
    }
    assert len(tried) == 2
    assert tried == on_page


def test_what_our_sdk_lends_to_the_genuine_one_is_complete() -> None:
    lending = (ROOT / "conformance" / "sdk_test_plugin.py").read_text()
    lent = dict(re.findall(r'_lend\("([\w.]+)", SDK(.*) / "\w+\.py"\)', lending))
    assert "pydevlake.database" in lent
    for name in lent:
        text = (ROOT / "sdk" / f"{name.replace('.', '/')}.py").read_text()
        assert set(re.findall(r"^from (pydevlake[\w.]+) import", text, re.M)) <= lent.keys()


def test_the_page_says_what_was_run_and_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    alone = Outcomes("June")
    with alone.record_outcome("test_it.py") as remarks:
        remarks.append("3 passed | one more\nline")
    lives = [Outcomes("May, MariaDB"), Outcomes("June, MariaDB")]
    with lives[0].record_outcome("only here"):
        pass
    for life in lives:
        with life.record_outcome("deletion") as remarks:
            remarks.append("all of it")
    tables = [Table("Tests", [alone]), Table("Lives", lives, "All of it."), Table("None", [])]
    page.write({"DevLake": "v1"}, tables)
    text = page.PAGE.read_text()
    for line in (
        "| DevLake | v1 |",
        "| test_it.py | ok | 3 passed \\| one more line |",
        "All of it.",
        "| what | May, MariaDB | June, MariaDB | |",
        "| only here | ok | - |  |",
        "| deletion | ok | ok | all of it |",
    ):
        assert line in text.splitlines()
    assert "None" not in text


def test_the_page_that_is_there_names_no_place_and_no_failure() -> None:
    text = page.PAGE.read_text()
    assert "FAILED" not in text
    assert "/tmp/" not in text
    assert str(Path.home()) + "/" not in text
