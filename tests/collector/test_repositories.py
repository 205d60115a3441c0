"""Commits, branches and hours of real repositories."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.developers import Developer

DAY = "2026-11-02"
START = f"{DAY} 08:00"


def commits(ann: Developer, day: str = DAY) -> int:
    count = ann.metrics(day)["git_activity"]["total_commits"]
    assert isinstance(count, int)
    return count


def test_commits_count_with_their_lines_files_and_branches(ann: Developer) -> None:
    ann.run(START)
    ann.commit("code/shop", f"{DAY} 09:10", lines=5)
    ann.git("code/shop", "switch", "--quiet", "--create", "feature/basket", at=f"{DAY} 09:30")
    ann.commit("code/shop", f"{DAY} 10:10", lines=2, file="b.py")
    ann.run(f"{DAY} 10:15")
    assert ann.metrics(DAY) == {
        "active_hours": 2,
        "tools_used": ["git"],
        "commands": {},
        "projects": ["shop"],
        "os_info": "Debian GNU/Linux 12 (bookworm)",
        "git_activity": {
            "total_commits": 2,
            "total_lines_added": 7,
            "total_lines_deleted": 0,
            "total_files_changed": 2,
            "repositories": [
                {
                    "name": "shop",
                    "commits": 2,
                    "lines_added": 7,
                    "lines_deleted": 0,
                    "files_changed": 2,
                    "branches_worked": ["feature/basket", "main"],
                }
            ],
        },
        "development_activity": {"test_runs_detected": 0, "build_commands_detected": 0},
    }


def test_a_second_run_counts_nothing_twice(ann: Developer) -> None:
    ann.run(START)
    ann.commit("shop", f"{DAY} 09:10", lines=5)
    ann.type("git push", f"{DAY} 09:11")
    ann.run(f"{DAY} 09:15")
    before = ann.metrics(DAY)
    (ann.home / "shop/.git/HEAD").touch()
    ann.run(f"{DAY} 09:30")
    assert ann.metrics(DAY) == before


def test_nothing_from_before_the_first_day_counts(ann: Developer) -> None:
    ann.commit("shop", "2026-11-01 23:50")
    ann.type("git push", "2026-11-01 23:55")
    ann.commit("shop", f"{DAY} 00:10")
    ann.run(START)
    assert commits(ann) == 1
    assert ann.report("2026-11-01") is None


def test_rewritten_commits_count_once(ann: Developer) -> None:
    ann.run(START)
    ann.commit("shop", f"{DAY} 09:00", lines=1)
    ann.git("shop", "switch", "--quiet", "--create", "topic", at=f"{DAY} 09:01")
    for minute in (10, 20, 30):
        ann.commit("shop", f"{DAY} 09:{minute}", file=f"{minute}.py")
    ann.run(f"{DAY} 09:45")
    ann.git("shop", "switch", "--quiet", "main", at=f"{DAY} 10:00")
    ann.commit("shop", f"{DAY} 10:01", file="main.py")
    ann.git("shop", "rebase", "--quiet", "main", "topic", at=f"{DAY} 11:05", GIT_AUTHOR_DATE="")
    ann.commit("shop", f"{DAY} 11:10", lines=1, file="last.py")
    (ann.home / "shop/last.py").write_text("more\nlines\n", encoding="utf-8")
    amend = ("commit", "--quiet", "--all", "--amend", "--no-edit")
    ann.git("shop", *amend, at=f"{DAY} 12:20")
    ann.run(f"{DAY} 12:30")
    metrics = ann.metrics(DAY)
    assert metrics["git_activity"]["total_commits"] == 6
    assert metrics["git_activity"]["total_lines_added"] == 7  # the amended one has two lines
    assert metrics["active_hours"] == 4  # 9 to 12, in which they were written and rewritten


def test_commits_squashed_between_two_runs_count(ann: Developer) -> None:
    ann.run(START)
    ann.commit("shop", f"{DAY} 09:00")
    ann.commit("shop", f"{DAY} 09:10")
    ann.commit("shop", f"{DAY} 09:20")
    ann.git("shop", "reset", "--quiet", "--soft", "HEAD~2", at=f"{DAY} 09:30")
    ann.git("shop", "commit", "--quiet", "--message", "all", at=f"{DAY} 09:31")
    ann.run(f"{DAY} 09:45")
    assert commits(ann) == 4


def test_commits_of_one_second_all_count(ann: Developer) -> None:
    ann.run(START)
    for number in range(4):
        ann.commit("shop", f"{DAY} 09:00", file=f"{number}.py")
    ann.run(f"{DAY} 09:15")
    assert commits(ann) == 4


def test_work_in_all_kinds_of_repositories_counts(ann: Developer) -> None:
    ann.run(START)
    ann.commit("code/shop", f"{DAY} 09:00")
    ann.git("code/shop", "worktree", "add", "--quiet", "../second", at=f"{DAY} 09:05")
    ann.commit("code/second", f"{DAY} 10:00", file="b.py")
    ann.git("code/shop", "checkout", "--quiet", "--detach", at=f"{DAY} 10:30")
    ann.commit("code/shop", f"{DAY} 11:00", file="c.py")
    ann.commit("library", f"{DAY} 12:00")
    add = ("submodule", "--quiet", "add", str(ann.home / "library"), "libs/lib")
    ann.git("code/shop", *add, at=f"{DAY} 12:10")
    ann.git("code/shop", "commit", "--quiet", "--message", "add", at=f"{DAY} 12:11")
    ann.commit("code/shop/libs/lib", f"{DAY} 13:00", file="d.py")
    ann.run(f"{DAY} 13:15")
    activity = ann.metrics(DAY)["git_activity"]
    counts = {one["name"]: one["commits"] for one in activity["repositories"]}
    assert counts == {"shop": 4, "library": 1, "lib": 1}


def test_a_bare_repository_and_its_clone_count_a_commit_once(ann: Developer) -> None:
    ann.run(START)
    ann.commit("shop", f"{DAY} 09:00")
    ann.git("", "clone", "--quiet", "--bare", "shop", "backup.git", at=f"{DAY} 09:10")
    ann.git("shop", "push", "--quiet", "../backup.git", "main", at=f"{DAY} 09:20")
    ann.commit("shop", f"{DAY} 09:30")
    ann.git("shop", "push", "--quiet", "../backup.git", "main", at=f"{DAY} 09:31")
    ann.run("2026-11-03 08:00")
    assert commits(ann) == 2
    assert {one.repository.name for one in ann.store.repositories()} == {"backup", "shop"}


def test_commits_from_elsewhere_and_of_others_do_not_count(ann: Developer, tmp_path: Path) -> None:
    ann.run(START)
    ann.commit("shop", f"{DAY} 09:00")
    away = tmp_path / "other machine"
    ann.git("", "clone", "--quiet", "shop", str(away), at=f"{DAY} 09:10")
    ann.commit(str(away), f"{DAY} 10:00", file="away.py")
    ann.git("shop", "pull", "--quiet", str(away), "main", at=f"{DAY} 11:00")
    other = {"GIT_AUTHOR_EMAIL": "bob@example.com", "GIT_COMMITTER_EMAIL": "bob@example.com"}
    empty = ("commit", "--quiet", "--allow-empty", "--message", "his")
    ann.git("shop", *empty, at=f"{DAY} 12:00", **other)
    ann.run(f"{DAY} 12:15")
    assert commits(ann) == 1


def test_a_stash_is_no_commit(ann: Developer) -> None:
    ann.run(START)
    ann.commit("shop", f"{DAY} 09:00")
    ann.write("shop/code.py", "changed\n", f"{DAY} 09:30")
    ann.git("shop", "stash", "--quiet", at=f"{DAY} 09:31")
    ann.run(f"{DAY} 09:45")
    assert commits(ann) == 1


def test_an_address_of_one_repository_counts_there(ann: Developer) -> None:
    ann.run(START)
    ann.repository("work", f"{DAY} 09:00")
    ann.git("work", "config", "user.email", "Ann.Lee@work.example", at=f"{DAY} 09:00")
    ann.commit("work", f"{DAY} 09:01")
    ann.run("2026-11-03 09:15")
    assert commits(ann) == 1


def test_a_commit_has_the_hour_of_the_zone_in_which_it_was_made(
    ann: Developer, zone: pytest.MonkeyPatch
) -> None:
    ann.run(START)
    zone.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    ann.commit("shop", "2026-11-03 23:30")
    ann.type("git push", "2026-11-03 23:31")
    ann.run("2026-11-03 23:45")
    zone.setenv("TZ", "Europe/Berlin")
    time.tzset()
    (ann.home / "shop/.git/HEAD").touch()
    history = ann.home / ".zsh_history"
    history.write_text(history.read_text() + "\n", encoding="utf-8")
    ann.run("2026-11-03 16:30")
    assert commits(ann, "2026-11-03") == 1
    assert ann.metrics("2026-11-03")["active_hours"] == 1


def test_changes_without_a_commit_make_hours(ann: Developer) -> None:
    ann.commit("shop", "2026-11-01 12:00")
    ann.run(START)
    ann.write("shop/code.py", "changed\n", f"{DAY} 09:30")
    ann.run(f"{DAY} 09:45")
    ann.write("shop/new.py", "new\n", f"{DAY} 10:30")
    ann.write("shop/node_modules/x.js", "installed\n", f"{DAY} 11:30")
    ann.write("shop/.gitignore", "node_modules\n", f"{DAY} 10:31")
    ann.run(f"{DAY} 11:45")
    ann.git("shop", "add", "new.py", at=f"{DAY} 12:30")
    ann.run(f"{DAY} 12:45")
    metrics = ann.metrics(DAY)
    assert metrics["active_hours"] == 3
    assert metrics["projects"] == ["shop"]
    assert metrics["git_activity"]["total_commits"] == 0


def test_the_commits_of_a_long_absence_go_to_their_days(ann: Developer) -> None:
    ann.run(START)
    ann.commit("shop", "2026-11-06 18:00")
    ann.commit("shop", "2026-11-14 18:00")
    ann.run("2026-11-26 09:00")
    assert commits(ann, "2026-11-06") == commits(ann, "2026-11-14") == 1


def test_repositories_of_programs_and_hidden_folders_are_not_searched(ann: Developer) -> None:
    for folder in (".cache/x", "shop/node_modules/y", "venv/z", "a/b/c/d/e/deep"):
        ann.commit(folder, f"{DAY} 09:00")
    ann.commit("a/b/c/near", f"{DAY} 09:00")
    ann.run(f"{DAY} 09:15")
    assert ann.metrics(DAY)["projects"] == ["near"]


def test_settings_of_a_repository_start_no_program(ann: Developer) -> None:
    ann.run(START)
    ann.commit("shop", f"{DAY} 09:00")
    trap = f"touch {ann.home}/trapped; true"
    for name in ("core.fsmonitor", "diff.external", "core.pager", "filter.x.clean", "gpg.program"):
        ann.git("shop", "config", name, trap, at=f"{DAY} 09:01")
    ann.git("shop", "config", "log.showSignature", "true", at=f"{DAY} 09:01")
    ann.write("shop/.git/info/attributes", "* filter=x diff=x\n", f"{DAY} 09:02")
    ann.write("shop/code.py", "changed\n", f"{DAY} 09:30")
    ann.run("2026-11-03 09:45")
    assert commits(ann) == 1
    assert not (ann.home / "trapped").exists()


def test_a_repository_that_git_cannot_read_is_reported_and_harms_no_other(ann: Developer) -> None:
    ann.run(START)
    ann.commit("shop", f"{DAY} 09:00")
    ann.commit("broken", f"{DAY} 09:00")
    ann.write("broken/.git/config", "[core\n", f"{DAY} 09:10")
    ann.run("2026-11-03 08:00")
    assert commits(ann) == 1
    problems = {one.repository.name: one.problem for one in ann.store.repositories()}
    assert problems == {"shop": "", "broken": "git can't read it"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_repository_of_another_user_is_not_read(ann: Developer) -> None:
    ann.commit("theirs", f"{DAY} 09:00")
    os.chown(ann.home / "theirs/.git", 12345, 12345)
    ann.run(f"{DAY} 09:15")
    [state] = ann.store.repositories()
    assert state.problem == "it belongs to another user"


def test_without_git_the_rest_is_measured(ann: Developer, zone: pytest.MonkeyPatch) -> None:
    ann.run(START)
    ann.commit("shop", f"{DAY} 09:00")
    ann.type("make test", f"{DAY} 10:00")
    zone.setenv("PATH", str(ann.home))
    ann.run("2026-11-03 08:00")
    assert ann.metrics(DAY)["commands"] == {"make test": 1}
    assert "git is not installed" in ann.store.meta("git_problem")
