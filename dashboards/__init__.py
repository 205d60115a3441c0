"""Grafana dashboards, defined once and written for MySQL and for PostgreSQL.

`python -m dashboards` writes them anew. Each module of questions (`fleet`, `activity`, `tools`,
`code`, `people`) defines panels; `sql` has what their queries share, `dialects` the words of each
database, `panels` their looks.
"""
