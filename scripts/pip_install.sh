#!/bin/sh
# pip_install.sh PYTHON ARGUMENTS...: install into the environment of PYTHON.
# A failure is reported in one line, with the variables of pip that are set, since they may cause it.
set -eu

# These change the target or the action of pip, which is never intended here.
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
# pip's first error is the cause; the others are its consequences.
why=$(grep 'ERROR:' "$log" | head -n 1)
# Without one, the last line has the cause.
why=${why:-$(tail -n 1 "$log")}
variables=$(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p; s/^\([A-Za-z]*_[Pp][Rr][Oo][Xx][Yy]\)=.*/\1/p' |
    grep -v '^PIP_INSTALL_LOG$' | sort | tr '\n' ' ' | sed 's/ $//; s/ /, /g')
echo "$why${variables:+ (check what is set: $variables)}" >&2
exit 1
