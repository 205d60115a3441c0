-- Makes a user for Grafana that sees groups of people alone: docs/dashboards.md describes its use.
-- Write a password of yours in the place of CHANGE-ME, then, as an administrator of the server:
--   mysql --database=lake < reader.mysql.sql

CREATE USER IF NOT EXISTS 'telemetry_reader'@'%' IDENTIFIED BY 'CHANGE-ME';

-- Figures of groups; the views are read with the rights of the user, so their table is named, too.
GRANT SELECT ON telemetry_days TO 'telemetry_reader'@'%';
GRANT SELECT ON telemetry_weeks TO 'telemetry_reader'@'%';
GRANT SELECT ON telemetry_periods TO 'telemetry_reader'@'%';
GRANT SELECT ON telemetry_computed TO 'telemetry_reader'@'%';
GRANT SELECT ON _tool_developer_telemetry_figures TO 'telemetry_reader'@'%';

-- DevLake's teams, projects, builds, deployments and incidents.
GRANT SELECT ON teams TO 'telemetry_reader'@'%';
GRANT SELECT ON projects TO 'telemetry_reader'@'%';
GRANT SELECT ON project_mapping TO 'telemetry_reader'@'%';
GRANT SELECT ON cicd_pipelines TO 'telemetry_reader'@'%';
GRANT SELECT ON cicd_deployment_commits TO 'telemetry_reader'@'%';
GRANT SELECT ON incidents TO 'telemetry_reader'@'%';
GRANT SELECT ON project_incident_deployment_relationships TO 'telemetry_reader'@'%';

-- Other tables of DevLake's can be added. Leave out accounts, users, user_accounts and team_users,
-- by which groups are resolved, cicd_tasks, which may have a developer's tests and builds, and all
-- tables whose names begin with _raw_ or _tool_.
