"""Write the dashboards of every database: `python -m dashboards`.

`python -m dashboards --by-uid FOLDER` writes them into another folder instead, with data sources
named by the uids that DevLake's Grafana image gives them since June 2026 and in object form, which
Grafana 13 wants.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dashboards.activity import ACTIVITY
from dashboards.code import CODE
from dashboards.dialects import DATABASES
from dashboards.fleet import FLEET
from dashboards.panels import dashboard
from dashboards.people import PERSON, TEAM
from dashboards.tools import TOOLS

PAGES = (FLEET, ACTIVITY, TOOLS, CODE, TEAM, PERSON)
FOLDER = Path(__file__).parent
# What the image's start script makes of the names that the files have.
REFERENCES = {
    "mysql": {"type": "mysql", "uid": "devlake-mysql-api"},
    "postgresql": {"type": "postgres", "uid": "devlake-postgres-api"},
}


def files(folder: Path = FOLDER, by_uid: bool = False) -> Iterator[tuple[Path, str]]:
    """Each file's path and what has to be in it."""
    for database in DATABASES:
        for page in PAGES:
            content: Any = dashboard(page, database(page.about))
            content = _referring(content) if by_uid else content
            path = folder / database.name / page.file
            yield path, json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _referring(content: Any) -> Any:
    """Replace each name of a data source by a reference to it."""
    if isinstance(content, list):
        return [_referring(item) for item in content]
    if not isinstance(content, dict):
        return content
    changed = {key: _referring(value) for key, value in content.items()}
    name = content.get("datasource")
    if isinstance(name, str):
        changed["datasource"] = REFERENCES[name]
    return changed


def main(arguments: list[str]) -> None:
    """Write them all."""
    by_uid = arguments[:1] == ["--by-uid"] and len(arguments) == 2
    if arguments and not by_uid:
        sys.exit("usage: python -m dashboards [--by-uid FOLDER]")
    for path, content in files(Path(arguments[1]), True) if by_uid else files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
