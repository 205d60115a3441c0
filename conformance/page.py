"""docs/conformance.md: what was run, on which versions, with what outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

from conformance.environments import ROOT
from conformance.outcomes import Outcome, Outcomes
from conformance.sdks import KNOWN

PAGE = ROOT / "docs" / "conformance.md"
HEAD = """\
# Conformance with Apache DevLake

Written by `make conformance`, which runs everything anew. It takes DevLake from where you have it:

```sh
# needs a checkout of DevLake
make conformance DEVLAKE=<checkout> LAKE=<binary of its server> GO_PLUGINS=<its Go plugins>
```

`GO_PLUGINS` is the folder that holds `org/org.so`. Without it accounts are not linked to users,
without `LAKE` nobody lives the operator's life below. `MYSQL=mysql://user:password@host:3306/` adds
a MySQL of yours to the databases.
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


def write(
    versions: Mapping[str, str], groups: Sequence[Outcomes], lives: Sequence[Outcomes]
) -> None:
    """Replace the page. `lives` have the same steps; they share a table."""
    parts = [HEAD, _versions(versions)]
    parts += [_list(group) for group in groups]
    if lives:
        parts.append(_lives(lives))
    known = "".join(f"- `{name}`: {reason}.\n" for name, reason in KNOWN.items())
    parts.append(DIFFERENCES + known)
    PAGE.write_text("\n".join(parts))


def _versions(versions: Mapping[str, str]) -> str:
    today = datetime.now(timezone.utc).date()
    rows = "".join(f"| {name} | {value} |\n" for name, value in versions.items())
    return f"Run on {today}.\n\n| what | version |\n| --- | --- |\n{rows}"


def _list(group: Outcomes) -> str:
    rows = "".join(f"| {each.what} | {each.how} | {_cell(each.remark)} |\n" for each in group)
    return f"## {group.title}\n\n| what | outcome | |\n| --- | --- | --- |\n{rows}"


def _lives(lives: Sequence[Outcomes]) -> str:
    titles = [life.title for life in lives]
    steps = dict.fromkeys(each.what for life in lives for each in life)
    found = [{each.what: each for each in life} for life in lives]
    head = f"| step | {' | '.join(titles)} | |\n|{' --- |' * (len(titles) + 2)}\n"
    rows = "".join(_step(step, [each.get(step) for each in found]) for step in steps)
    return (
        "## An operator's life under DevLake's server\n\n"
        "All calls over HTTP, to a server of its own on an empty database, by the operator and by\n"
        "machines that report without a pause from the first run to the last.\n\n" + head + rows
    )


def _step(step: str, found: Sequence[Outcome | None]) -> str:
    hows = [each.how if each else "-" for each in found]
    remarks = dict.fromkeys(_cell(each.remark) for each in found if each and each.remark)
    return f"| {step} | {' | '.join(hows)} | {'; '.join(remarks)} |\n"


def _cell(text: str) -> str:
    """A text without what would end a table's cell."""
    return text.replace("|", "\\|").replace("\n", " ")
