"""Trials of the plugin and the SDK with the genuine DevLake; see `python -m conformance --help`."""
