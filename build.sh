#!/bin/sh
# Makes .venv-plugin, from which run.sh runs the plugin. `make` has .venv, an environment of its own:
# what it installs or removes there is nothing to DevLake. PYTHON=... takes the Python that you name.
set -eu
cd "$(dirname "$0")"

venv=.venv-plugin
made=

# A half-made environment would fail later, in the middle of DevLake's start.
fail() {
    [ -z "$made" ] || rm -rf "$venv"
    echo "developer_telemetry: $1" >&2
    exit 1
}

# Inside DevLake's tree the plugin runs on DevLake's own SDK, which wants one Python alone ("~3.9").
needs=
if [ -f ../../pydevlake/pyproject.toml ]; then
    sdk=$(cd ../../pydevlake && pwd)
    drivers=
    needs=$(sed -n 's/^python *= *"~\(3\.[0-9]*\).*/\1/p' "$sdk/pyproject.toml")
else
    sdk=$PWD/sdk
    drivers="[drivers]"
fi

ready() {
    "$venv/bin/python" - "$sdk" "$drivers" >/dev/null 2>&1 <<'END'
import pathlib, sys
import developer_telemetry.main
import pydevlake
if sys.argv[2]: import cryptography, pymysql
sys.exit(not pathlib.Path(pydevlake.__file__).is_relative_to(sys.argv[1]))
END
}

suits() {
    "$1" - "$needs" >/dev/null 2>&1 <<'END'
import sys
sys.exit(sys.version_info < (3, 9) or sys.argv[1] not in ("", "%d.%d" % sys.version_info[:2]))
END
}

# Where a Python may be: a shim of pyenv's runs only if its version is switched on.
pythons() {
    echo python3
    [ -n "$needs" ] || return 0
    echo "python$needs"
    uv python find "$needs" 2>/dev/null || true
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$needs".*/bin/python 2>/dev/null || true
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        python=$PYTHON
        command -v "$python" >/dev/null ||
            fail "$python is missing; install Python ${needs:-3.9 or newer}, or set PYTHON"
        suits "$python" && return
    else
        for python in $(pythons); do
            suits "$python" && return
        done
        python=python3
        command -v python3 >/dev/null ||
            fail "python3 is missing; install Python ${needs:-3.9 or newer}, or set PYTHON"
    fi
    [ -n "$needs" ] || fail "$python is too old; install Python 3.9 or newer, or set PYTHON"
    version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null) || version='no Python that runs'
    fail "$python is $version, and DevLake's SDK needs Python $needs: install that (\`uv python install $needs\` brings one) and run PYTHON=python$needs ./build.sh"
}

# DevLake's SDK has its drivers built here: names what that lacks, in Debian's packages.
lacking() {
    command -v "${CC:-cc}" >/dev/null || command -v gcc >/dev/null || printf ' gcc'
    "$venv/bin/python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' ||
        printf ' python%s-dev' "$needs"
    command -v pkg-config >/dev/null || printf ' pkg-config'
    pkg-config --exists mysqlclient 2>/dev/null || pkg-config --exists libmariadb 2>/dev/null ||
        pkg-config --exists mariadb 2>/dev/null || printf ' default-libmysqlclient-dev'
    [ -e "$(pg_config --includedir 2>/dev/null)/libpq-fe.h" ] || printf ' libpq-dev'
}

if ready; then
    echo "developer_telemetry: $venv has everything"
    exit 0
fi

find_python
[ -w . ] || fail "$PWD is not writable for $(id -un); run build.sh as its owner"
log=$(mktemp 2>/dev/null) ||
    fail "can't make a temporary file in ${TMPDIR:-/tmp}; set TMPDIR to a folder that can be written"
trap 'rm -f "$log"' EXIT
# One that is there and may run the plugin is not thrown away before the next one stands.
if ! suits "$venv/bin/python"; then
    made=yes
    "$python" -m venv --clear "$venv" >"$log" 2>&1 || fail "can't make $venv: install python${needs:-3}-venv"
fi
# Leaves in `why` what went wrong, and in the log all that pip said of it.
pip() {
    why=$(PIP_INSTALL_LOG=$log scripts/pip_install.sh "$venv/bin/python" --editable "$1" 2>&1)
}
# The SDK comes first and from a folder: its name is on no package index.
if ! pip "$sdk"; then
    if [ -z "$drivers" ] && grep -Eiq 'mysqlclient|psycopg2|subprocess-exited|failed.to.build' "$log"; then
        packages=$(lacking)
        [ -z "$packages" ] || fail "can't build the database drivers of DevLake's SDK (mysqlclient, psycopg2) without their headers: apt-get install$packages, or what those are called here, and run build.sh again"
    fi
    fail "can't install the SDK from $sdk: $why"
fi
pip ".$drivers" || fail "can't install the plugin's packages: $why"
ready || fail "installed, but it does not start: $("$venv/bin/python" -m developer_telemetry.main 2>&1 | tail -n 1)"
echo "developer_telemetry: ready on the SDK in $sdk"
