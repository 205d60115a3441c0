"""What an operator types, a noun a module; `developer_telemetry.cli` puts them together."""
