"""Write the dashboards of every database into `grafana/`: `python -m dashboards`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dashboards.activity import ACTIVITY
from dashboards.code import CODE
from dashboards.delivery import DELIVERY_PAGE
from dashboards.dialects import DATABASES
from dashboards.fleet import FLEET
from dashboards.panels import dashboard, importable
from dashboards.team import TEAM
from dashboards.tools import TOOLS

PAGES = (FLEET, ACTIVITY, TOOLS, CODE, DELIVERY_PAGE, TEAM)
FOLDER = Path(__file__).parents[1] / "grafana"
# For a folder that Grafana reads, and for an import on its page or by its API.
PROVISIONED = FOLDER / "dashboards"
IMPORTED = FOLDER / "import"


def files() -> Iterator[tuple[Path, str]]:
    """Each file's path and what has to be in it."""
    for database in DATABASES:
        for page in PAGES:
            d = database(page.about)
            content = dashboard(page, d)
            for folder, json_content in (
                (PROVISIONED, content),
                (IMPORTED, importable(content, d)),
            ):
                text = json.dumps(json_content, indent=2, ensure_ascii=False)
                yield folder / database.name / page.file, text + "\n"


def main() -> None:
    """Write them all."""
    for path, content in files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
