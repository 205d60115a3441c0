"""Assertions for the tests of a plugin. Works under any test runner."""

from pydevlake.testing.assertions import (
    ContextBuilder,
    assert_plugin_run,
    assert_stream_convert,
    assert_stream_run,
    assert_valid_plugin,
)
from pydevlake.testing.server_rules import assert_valid_plugin_info

__all__ = [
    "ContextBuilder",
    "assert_plugin_run",
    "assert_stream_convert",
    "assert_stream_run",
    "assert_valid_plugin",
    "assert_valid_plugin_info",
]
