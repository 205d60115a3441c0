"""The version of the collector, as `--version`, the `User-Agent` and the receiver report it."""

VERSION = "1.0.0"
NAME = "developer-telemetry-collector"
USER_AGENT = NAME + "/" + VERSION
