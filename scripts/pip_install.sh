#!/bin/sh
# pip_install.sh PYTHON ARGUMENTS...: install into the environment of PYTHON.
# What fails is told in one line, with the variables of pip's that are set: they may be why.
set -eu

# These say where else to install, or to do something else: never what is meant here.
unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_DRY_RUN PIP_NO_DEPS PIP_REPORT \
    PIP_REQUIRE_VIRTUALENV PIP_REQUIRE_HASHES PIP_UPGRADE PIP_FORCE_REINSTALL PIP_LOG PIP_QUIET

python=$1
shift
log=$(mktemp 2>/dev/null) || {
    echo "can't make a temporary file in ${TMPDIR:-/tmp}; set TMPDIR to a folder that can be written" >&2
    exit 1
}
trap 'rm -f "$log"' EXIT
if "$python" -m pip --disable-pip-version-check --quiet install "$@" >"$log" 2>&1; then
    exit 0
fi
cp "$log" "${PIP_INSTALL_LOG:-/dev/null}" 2>/dev/null || true
# What pip says first is what went wrong; the rest is how it came to that.
why=$(grep 'ERROR:' "$log" | head -n 1)
# Where it fails by itself, its last line tells of what.
why=${why:-$(tail -n 1 "$log")}
variables=$(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p; s/^\([A-Za-z]*_[Pp][Rr][Oo][Xx][Yy]\)=.*/\1/p' |
    grep -v '^PIP_INSTALL_LOG$' | sort | tr '\n' ' ' | sed 's/ $//; s/ /, /g')
echo "$why${variables:+ (check what is set: $variables)}" >&2
exit 1
