#!/bin/sh
# Make .venv with the Python of the argument, unless a working one exists. Report a missing program in
# one line.
set -eu

python=$1

fail() {
    echo "make install: $1" >&2
    exit 1
}

if .venv/bin/python -c 'import pip' 2>/dev/null; then
    exit 0
fi
command -v "$python" >/dev/null ||
    fail "there is no $python; install Python 3.9 or newer, or name one with PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
    fail "$("$python" --version 2>&1) is too old; name Python 3.9 or newer with PYTHON=..."
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python can't make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"
"$python" -m venv --clear .venv
