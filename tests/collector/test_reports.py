"""From histories and repositories to the body, and what is never in a body.

`payloads/collector-day.body` is the body of the day below. The tests of the parser compare the tool
row that it gives with `payloads/collector-day.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from collector.figures import encode_report
from developer_telemetry.receiver.collector_archive import build_archive
from tests.support.developers import Developer, seconds

DAY = "2026-11-23"
ROOT = Path(__file__).parents[2]
PAYLOAD = ROOT / "tests/payloads/collector-day.body"
# Planted wherever something must not be sent.
PLANTED = "xyzzy"


def work(ann: Developer) -> None:
    """Do the work of the golden day."""
    ann.commit("code/web-shop", "2026-11-20 12:00", lines=10)
    ann.run(f"{DAY} 08:00")
    ann.type("git pull", f"{DAY} 08:55")
    ann.commit("code/web-shop", f"{DAY} 09:10", lines=40)
    ann.type("npm test", f"{DAY} 09:20", "fish")
    ann.git("code/web-shop", "switch", "--quiet", "--create", "fix-basket", at=f"{DAY} 10:00")
    ann.commit("code/web-shop", f"{DAY} 10:30", lines=2, file="basket.py")
    ann.type("cd api && go test ./... && go build", f"{DAY} 11:15")
    ann.commit("code/billing", f"{DAY} 13:45", lines=5)
    ann.type("sudo docker compose up -d", f"{DAY} 14:05", "bash")
    ann.type("claude", f"{DAY} 14:10", "bash")
    ann.write(".viminfo", "recent", f"{DAY} 15:30")
    ann.run(f"{DAY} 15:45")


def test_the_golden_day_gives_the_golden_body(ann: Developer) -> None:
    work(ann)
    report = ann.report(DAY)
    assert report is not None
    body = encode_report(report)
    if os.environ.get("UPDATE_GOLDEN"):
        PAYLOAD.write_bytes(body)
    assert body.decode() == PAYLOAD.read_text(encoding="utf-8")


def test_no_path_argument_address_or_content_is_sent_or_stored(ann: Developer) -> None:
    x = PLANTED
    ann.repository("shop", f"{DAY} 08:00")
    ann.git("shop", "remote", "add", "origin", f"https://{x}:{x}@host/{x}.git", at=f"{DAY} 08:00")
    ann.run(f"{DAY} 08:00")
    file = f"{x}/{x}.py"
    ann.write(f"shop/{file}", f"{x}\n" * 5, f"{DAY} 09:00")
    ann.commit("shop", f"{DAY} 09:00", file=file, message=f"{x}\n\n{x}")
    ann.git("shop", "tag", x, at=f"{DAY} 09:01")
    ann.git("shop", "stash", "--quiet", "--include-untracked", at=f"{DAY} 09:02")
    for shell in ("zsh", "bash", "fish"):
        ann.type(f"git commit -m {x} --author={x}", f"{DAY} 10:00", shell)
        ann.type(f"TOKEN={x} npm test --{x} {x}", f"{DAY} 10:01", shell)
        ann.type(f"./{x}.sh; /opt/{x}/bin/make {x}; {x}", f"{DAY} 10:02", shell)
        ann.type(f"npm run {x} && go test:{x}", f"{DAY} 10:03", shell)
    for name in (".env", ".netrc", ".ssh/id_rsa", "notes.txt", ".config/Code/User/settings.json"):
        ann.write(name, x, f"{DAY} 10:00")
    ann.write(f".config/Code/User/History/{x}/entries.json", x, f"{DAY} 10:00")
    ann.run(f"{DAY} 10:15")
    report = ann.report(DAY)
    assert report is not None
    body = encode_report(report).decode()
    names = ("git", "go test", "make", "npm", "npm test")
    assert report["metrics"]["commands"] == dict.fromkeys(names, 3)
    for forbidden in (x, str(ann.home), "://", "/"):
        text = body.replace("Debian GNU/Linux", "")
        assert forbidden not in text
    stored = stored_texts(Path(ann.store.path))
    assert "message" not in stored
    # Paths are in the store, which stays on the machine; what was typed and written is not.
    allowed = (f"/History/{x}",)
    for part in allowed:
        stored = stored.replace(part, "")
    assert x not in stored


def stored_texts(path: Path) -> str:
    with sqlite3.connect(path) as database:
        texts = "\n".join(database.iterdump())
    database.close()
    return texts


def test_no_file_but_the_named_ones_is_opened(ann: Developer, tmp_path: Path) -> None:
    """Seen by the system: strace has every file that a run and its git open below the home."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace")
    work(ann)
    ann.write("code/web-shop/basket.py", "changed\n", f"{DAY} 16:00")
    ann.write("secrets.txt", "secret\n", f"{DAY} 16:00")
    ann.commit("code/billing", f"{DAY} 16:10")
    ann.type("make", f"{DAY} 16:11")
    log = tmp_path / "strace.log"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from collector.runs import run_once; from collector.settings import Settings;"
        f"settings = Settings(**{ann.settings._asdict()!r});"
        f"run_once(settings, {seconds(f'{DAY} 16:15')!r}, sends=False)"
    )
    command = ["strace", "-f", "-e", "trace=open,openat", "-o", str(log)]
    subprocess.run([*command, sys.executable, "-c", code, str(ROOT)], check=True)
    opened = {
        line.split('"')[1]
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if '"' in line and " = -1" not in line and "O_DIRECTORY" not in line
    }
    below = {path for path in opened if path.startswith(str(ann.home)) and Path(path).is_file()}
    files = {str(Path(path).relative_to(ann.home)) for path in below}
    strangers = {name for name in files if "/.git/" not in name}
    assert ".zsh_history" in strangers  # it does see them
    histories = {".zsh_history", ".bash_history", ".local/share/fish/fish_history"}
    assert strangers <= {".gitconfig", *histories}, strangers


def test_the_same_sources_give_the_same_file(tmp_path: Path) -> None:
    target = tmp_path / "collector.pyz"
    script = ROOT / "developer_telemetry/receiver/collector_archive.py"
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, str(script), str(target)], check=True, env=environment)
    assert target.read_bytes() == build_archive()
    done = subprocess.run(
        [sys.executable, str(target), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("developer-telemetry-collector ")


def test_it_runs_on_the_oldest_python(tmp_path: Path) -> None:
    python = shutil.which("python3.8")
    if python is None or subprocess.run([python, "--version"], capture_output=True).returncode:
        pytest.skip("there is no Python 3.8")
    target = tmp_path / "collector.pyz"
    target.write_bytes(build_archive())
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from collector.runs import run_once; from collector.settings import Settings;"
        "import collector.cli; run_once(Settings('http://127.0.0.1:9/x', state=sys.argv[2],"
        " name_salt='00' * 16))"
    )
    arguments = [python, "-c", code, str(target), str(tmp_path / "state")]
    subprocess.run(arguments, check=True, env=home)
    assert json.dumps(os.listdir(tmp_path / "state")).count("days.sqlite3") == 1
