"""One team, reached by a link from the teams of the Activity dashboard."""

from __future__ import annotations

from dashboards.activity import (
    ACTIVE,
    ACTIVE_BY_WEEK,
    HOURS_BY_WEEK,
    HOURS_OF_DAYS,
    PROJECTS_A_DAY,
)
from dashboards.code import COMMITS_BY_WEEK, TESTS_BY_WEEK
from dashboards.groups import FIGURES_COMPUTED, SMALLEST_GROUP
from dashboards.panels import Dashboard, Row
from dashboards.tools import TOOLS_BY_WEEK

TEAM = Dashboard(
    "developer-telemetry-team.json",
    "team",
    "Developer Telemetry: Team",
    """- Use Cases: talk about a team's rhythm and tools within the team.
- Data Source Required: Developer Telemetry, with its accounts linked to the users of DevLake's \
teams.
- Counted: the team as a whole, over complete weeks: reports of the accounts whose users are in \
the team today. A week in which fewer members than the smallest group were active has no figures. \
Nobody is named or ranked.""",
    (
        Row(
            "Activity",
            (
                ACTIVE,
                ACTIVE_BY_WEEK._replace(width=10),
                SMALLEST_GROUP,
                FIGURES_COMPUTED,
                HOURS_OF_DAYS,
                HOURS_BY_WEEK,
                PROJECTS_A_DAY._replace(width=24),
            ),
        ),
        Row(
            "Tools and Code",
            (TOOLS_BY_WEEK._replace(width=24), COMMITS_BY_WEEK, TESTS_BY_WEEK),
        ),
    ),
    about="team",
)
