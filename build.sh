#!/bin/sh
# Makes .venv, from which run.sh runs the plugin. PYTHON=... takes another Python than python3.
set -eu
cd "$(dirname "$0")"

made=

# A half-made environment would fail later, in the middle of DevLake's start.
fail() {
    [ -z "$made" ] || rm -rf .venv
    echo "developer_telemetry: $1" >&2
    exit 1
}

# What pip says first is what went wrong; the rest is how it came to that.
reason() {
    grep 'ERROR:' "$log" | head -n 1
}

# Inside DevLake's tree the plugin runs on DevLake's own SDK.
if [ -f ../../pydevlake/pyproject.toml ]; then
    sdk=$(cd ../../pydevlake && pwd)
    drivers=
else
    sdk=$PWD/sdk
    drivers="[drivers]"
fi

ready() {
    .venv/bin/python - "$sdk" >/dev/null 2>&1 <<'END'
import pathlib, sys
import developer_telemetry.main
import pydevlake
sys.exit(not pathlib.Path(pydevlake.__file__).is_relative_to(sys.argv[1]))
END
}

if ready; then
    echo "developer_telemetry: .venv has everything"
    exit 0
fi

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "$python is missing; install Python 3.9 or newer, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
    fail "$python is too old; install Python 3.9 or newer, or set PYTHON"
[ -w . ] || fail "$PWD is not writable for $(id -un); run build.sh as its owner"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
[ -d .venv ] || made=yes
"$python" -m venv .venv >"$log" 2>&1 || fail "can't make .venv: install python3-venv"
# The SDK comes first and from a folder: its name is on no package index.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$sdk" >"$log" 2>&1 ||
    fail "can't install the SDK from $sdk: $(reason)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$drivers" >"$log" 2>&1 ||
    fail "can't install the plugin's packages: $(reason)"
ready || fail "installed, but it does not start: $(.venv/bin/python -m developer_telemetry.main 2>&1 | tail -n 1)"
echo "developer_telemetry: ready on the SDK in $sdk"
