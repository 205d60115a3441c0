"""The versions of the schema, apart from the scripts that make them (`migrations`).

The scripts take the SDK's models, which a process that only compares versions does without: it
saves 15 MiB of memory.
"""

from __future__ import annotations

CREATE_TABLES = 20261123000001
TAKE_OVER_ROWS = 20261123000002
ADD_PREVIOUS_TOKEN = 20261123000003
ADD_RUNS = 20261123000010
ADD_TASKS_SWITCH = 20261123000020
ADD_DAYS_INDEX = 20261123000040
ADD_PRIVACY = 20261123000050
ADD_TOMBSTONES = 20261123000100
ADD_PROBES = 20261123000110
JOIN_MACHINES = 20261128000200
ADD_STANDALONE = 20261128000300
ADD_FLEET = 20261129000100
ADD_READING = 20261129000200
ADD_SDK_RUNS = 20261129000300
ADD_FIGURES = 20261129000400

# Each version's name in the histories that DevLake's server and `migrate` keep, in order.
NAMES = {
    CREATE_TABLES: "developer telemetry: create tables",
    TAKE_OVER_ROWS: "developer telemetry: take over rows of the Go plugin",
    ADD_PREVIOUS_TOKEN: "developer telemetry: add the previous token of connections",
    ADD_RUNS: "developer telemetry: add the watermarks of runs",
    ADD_TASKS_SWITCH: "developer telemetry: add the switch for cicd tasks",
    ADD_DAYS_INDEX: "developer telemetry: add an index by day",
    ADD_PRIVACY: "developer telemetry: add privacy and retention of connections",
    ADD_TOMBSTONES: "developer telemetry: add tombstones and receivers",
    ADD_PROBES: "developer telemetry: add a table to tell databases apart by",
    JOIN_MACHINES: "developer telemetry: join machines whose names mean the same",
    ADD_STANDALONE: "developer telemetry: add tables for work without the plugin",
    ADD_FLEET: "developer telemetry: add refused and retired machines, named tokens",
    ADD_READING: "developer telemetry: add smallest groups, and who looked",
    ADD_SDK_RUNS: "developer telemetry: add the table of runs that the SDK keeps",
    ADD_FIGURES: "developer telemetry: add figures of groups, and views for dashboards",
}
LATEST = max(NAMES)


def title_of(version: int) -> str:
    """Return a version with its name, as an operator sees it."""
    return f"{version} {NAMES[version]}"
