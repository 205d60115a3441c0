"""The database of the Go plugin of this name: its tables, and rows of every kind."""

from __future__ import annotations

CONNECTIONS = """
CREATE TABLE _tool_developer_telemetry_connections (
    id bigint unsigned NOT NULL AUTO_INCREMENT,
    created_at datetime(3) DEFAULT NULL,
    updated_at datetime(3) DEFAULT NULL,
    name varchar(100) NOT NULL,
    endpoint varchar(255) DEFAULT NULL,
    secret_token varchar(255) DEFAULT NULL,
    proxy varchar(255) DEFAULT NULL,
    rate_limit_per_hour bigint NOT NULL,
    PRIMARY KEY (id),
    UNIQUE KEY idx_name (name)
)"""
METRICS = """
CREATE TABLE _tool_developer_metrics (
    connection_id bigint unsigned NOT NULL,
    developer_id varchar(255) NOT NULL,
    date date NOT NULL,
    email varchar(255) DEFAULT NULL,
    name varchar(255) DEFAULT NULL,
    hostname varchar(255) DEFAULT NULL,
    active_hours bigint DEFAULT NULL,
    tools_used text,
    project_context text,
    git_activity text,
    development_activity text,
    os_info varchar(255) DEFAULT NULL,
    created_at datetime(3) DEFAULT NULL,
    updated_at datetime(3) DEFAULT NULL,
    PRIMARY KEY (connection_id, developer_id, date),
    KEY idx__tool_developer_metrics_email (email)
)"""
SECRET = "WkzGgZrDSxnmWOCwfhUm4tWpyjJ2rDcLYTvNeedAn5o="
GIT = (
    '{"total_commits": 3, "total_lines_added": 120, "total_lines_deleted": 7,'
    ' "total_files_changed": 9, "repositories": [{"name": "lake", "commits": 3}]}'
)
DEVELOPMENT = '{"test_runs_detected": 4, "build_commands_detected": 2}'


def row(developer: str, **columns: object) -> dict[str, object]:
    """Return a row of a developer, with the usual values except for `columns`."""
    return {
        "connection_id": 1,
        "developer_id": developer,
        "date": "2026-02-11",
        "email": f"{developer}@example.org",
        "name": "Ada",
        "hostname": "mac",
        "active_hours": 6,
        "tools_used": '["vim","go"]',
        "project_context": "[]",
        "git_activity": GIT,
        "development_activity": DEVELOPMENT,
        "os_info": '{"os":"linux"}',
        "created_at": "2026-02-11 20:00:00.123",
        "updated_at": "2026-02-12 00:10:00.456",
        **columns,
    }


def insert(*rows: dict[str, object]) -> str:
    """Return the statement that inserts rows; None is NULL."""
    values = [
        ", ".join("NULL" if value is None else f"'{value}'" for value in row.values())
        for row in rows
    ]
    return f"INSERT INTO _tool_developer_metrics ({', '.join(rows[0])}) VALUES" + ",".join(
        f" ({each})" for each in values
    )


# The JSON of a Go row, and the six numbers to read from it.
ODD_JSON: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "usual": ({}, (3, 120, 7, 9, 4, 2)),
    "null text": (
        {"git_activity": "null", "development_activity": " null "},
        (0, 0, 0, 0, 0, 0),
    ),
    "NULL": ({"git_activity": None, "development_activity": None}, (0, 0, 0, 0, 0, 0)),
    "empty text": ({"git_activity": "", "development_activity": ""}, (0, 0, 0, 0, 0, 0)),
    "cut off": ({"git_activity": GIT[:40]}, (0, 0, 0, 0, 4, 2)),
    "not an object": ({"git_activity": "[1]", "development_activity": "7"}, (0, 0, 0, 0, 0, 0)),
    "odd values": (
        {
            "git_activity": '{"total_commits": "12", "total_lines_added": 2.75,'
            ' "total_lines_deleted": -4, "total_files_changed": null}',
            "development_activity": '{"test_runs_detected": true,'
            ' "build_commands_detected": {"a": 1}}',
        },
        (12, 2, 0, 0, 0, 0),
    ),
    "no numbers": (
        {
            "git_activity": '{"total_commits": "many", "total_lines_added": "12\\\\n",'
            ' "total_lines_deleted": "5 lines", "total_files_changed": ""}',
            "development_activity": '{"test_runs_detected": 99999999999999999999999}',
        },
        (0, 12, 0, 0, 0, 0),
    ),
}
STATEMENTS = [
    CONNECTIONS,
    METRICS,
    "INSERT INTO _tool_developer_telemetry_connections VALUES (3, '2026-02-11 08:00:00',"
    f" '2026-02-11 08:00:00', 'fleet', 'https://lake', '{SECRET}', '', 1000),"
    " (4, NULL, NULL, 'other', '', '', NULL, 0)",
    insert(
        *(row(name, **columns) for name, (columns, _) in ODD_JSON.items()),
        row("no hours", active_hours=None),
        row("hours of a century", active_hours=876000),
        row("hours of a lie", active_hours=9_000_000_000),
        row("bare", tools_used="null", project_context="null", os_info="null", email=None),
    ),
]
