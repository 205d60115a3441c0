"""Write the dashboards of every database: `python -m dashboards`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dashboards.activity import ACTIVITY
from dashboards.code import CODE
from dashboards.dialects import DATABASES
from dashboards.fleet import FLEET
from dashboards.panels import dashboard
from dashboards.people import PERSON, TEAM
from dashboards.tools import TOOLS

PAGES = (FLEET, ACTIVITY, TOOLS, CODE, TEAM, PERSON)
FOLDER = Path(__file__).parent


def files() -> Iterator[tuple[Path, str]]:
    """Each file's path and what has to be in it."""
    for database in DATABASES:
        for page in PAGES:
            content = dashboard(page, database(page.about))
            path = FOLDER / database.name / page.file
            yield path, json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them all."""
    for path, content in files():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
