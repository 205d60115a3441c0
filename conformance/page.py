"""Write docs/conformance.md: trials, versions and outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from conformance.environments import ROOT
from conformance.outcomes import Outcome, Table
from conformance.sdks import EXPECTED_FAILURES

PAGE = ROOT / "docs" / "conformance.md"
HEAD = """\
# Conformance with Apache DevLake

Written by `make conformance`, which runs everything anew. It takes DevLake from where you have it:

```sh
# needs a checkout of DevLake
make conformance DEVLAKE="<checkout>" LAKE="<binary of its server>" GO_PLUGINS="<its Go plugins>"
```

Each takes several paths, one for each DevLake and in the same order; a DevLake is called by the
date of its checkout's newest commit. `GO_PLUGINS` is the folder that holds `org/org.so` and
`webhook/webhook.so`. Without it accounts are not linked to users, and nothing is tried without
the plugin or handed over; without `LAKE` there is no operator's life below, and with one DevLake
alone no upgrade. `MYSQL=mysql://user:password@host:3306/` adds a MySQL of yours to
the databases. The plugin is installed as
[install.md](install.md#on-a-machine-without-containers) says: `git clone` into the plugin folder,
then `build.sh`. What is not committed is not tried.
"""
DIFFERENCES = """\
## What differs, and why

Between the two SDKs, seen by a plugin or an operator:

- A failing call writes one line to stderr on our SDK, which DevLake shows as the pipeline's
  message; the genuine one writes a traceback. At log level debug ours does, too.
- A cancelled call rolls back and ends with status 143 on our SDK.
- In a tool row a value that doesn't fit its column is logged when it is left out; the genuine SDK
  says nothing. `_raw_data_id` is a number.
- `pydevlake.testing.assert_stream_convert` compares every row; the genuine one stops at the
  shorter of the two lists.
- After a 429 `pydevlake.api` waits as long as `Retry-After` says, seconds or date; the genuine one
  fails on the header's text. A request without an answer fails after five minutes; in the genuine
  one it waits for ever.
- Values of `SecretStr` stay hidden in `.json()`. The genuine SDK's remote debugger is not there.

Tests of ours that fail on the genuine SDK:

"""


def write(versions: Mapping[str, str], tables: Sequence[Table]) -> None:
    """Replace the page."""
    parts = [HEAD, _versions(versions), *(_table(item) for item in tables if item.columns)]
    recognized = "".join(f"- `{name}`: {reason}.\n" for name, reason in EXPECTED_FAILURES.items())
    parts.append(DIFFERENCES + recognized)
    PAGE.write_text("\n".join(parts))


def _versions(versions: Mapping[str, str]) -> str:
    today = datetime.now(timezone.utc).date()
    rows = "".join(f"| {name} | {value} |\n" for name, value in versions.items())
    return f"Run on {today}.\n\n| what | version |\n| --- | --- |\n{rows}"


def _table(table: Table) -> str:
    titles = [column.title for column in table.columns]
    steps = dict.fromkeys(item.what for column in table.columns for item in column)
    results = [{item.what: item for item in column} for column in table.columns]
    text = f"{table.text}\n\n" if table.text else ""
    head = f"| what | {' | '.join(titles)} | |\n|{' --- |' * (len(titles) + 2)}\n"
    rows = "".join(_step(step, [item.get(step) for item in results]) for step in steps)
    return f"## {table.title}\n\n{text}{head}{rows}"


def _step(step: str, results: Sequence[Outcome | None]) -> str:
    hows = [item.how if item else "-" for item in results]
    remarks = dict.fromkeys(_cell(item.remark) for item in results if item and item.remark)
    return f"| {step} | {' | '.join(hows)} | {'; '.join(remarks)} |\n"


def _cell(text: str) -> str:
    """Escape a text for a table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")
