"""A pytest plugin with which our tests run on the genuine SDK.

They open databases with `pydevlake.database` and check `plugin-info` with `pydevlake.testing`,
which only our SDK has: this adds both. The tested plugin in `run.sh` runs without this.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pydevlake.testing

SDK = Path(__file__).parent.parent / "sdk" / "pydevlake"


def _lend(name: str, path: Path) -> ModuleType:
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_lend("pydevlake.driver_options", SDK / "driver_options.py")
_database = _lend("pydevlake.database", SDK / "database.py")
# SQLAlchemy 1.4 lacks psycopg 3 and, unless it is set, the style of SQLAlchemy 2.
_database._DRIVERS["postgresql"] = {"psycopg2": "psycopg2"}
_made = partial(_database.create_db_engine, future=True)
_database.create_db_engine = _made  # type: ignore[attr-defined]
_rules = _lend("pydevlake.testing.server_rules", SDK / "testing" / "server_rules.py")
pydevlake.testing.assert_valid_plugin_info = _rules.assert_valid_plugin_info
