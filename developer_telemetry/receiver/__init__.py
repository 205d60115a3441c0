"""The process that takes reports: DevLake's server can't be given a route by a remote plugin."""
