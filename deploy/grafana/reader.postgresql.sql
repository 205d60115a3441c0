-- Makes a role for Grafana that sees groups of people alone: docs/dashboards.md describes its use.
-- Write a password of yours in the place of CHANGE-ME, then, as the owner of the tables or as a
-- superuser that may create roles:
--   psql --dbname=lake --set=ON_ERROR_STOP=1 --file=reader.postgresql.sql

CREATE ROLE telemetry_reader LOGIN PASSWORD 'CHANGE-ME';

-- Figures of groups. Views are read with the rights of their owner: their table is not named.
GRANT SELECT ON telemetry_days, telemetry_weeks, telemetry_periods, telemetry_computed
TO telemetry_reader;

-- DevLake's teams, projects, builds, deployments and incidents.
GRANT SELECT ON teams, projects, project_mapping, cicd_pipelines, cicd_deployment_commits,
incidents, project_incident_deployment_relationships TO telemetry_reader;

-- Other tables of DevLake's can be added. Leave out accounts, users, user_accounts and team_users,
-- by which groups are resolved, cicd_tasks, which may have a developer's tests and builds, and all
-- tables whose names begin with _raw_ or _tool_.
