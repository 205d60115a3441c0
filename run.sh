#!/bin/sh
# What DevLake's server calls: `run.sh VERB ARGUMENTS`, answers on file descriptor 3.
cd "$(dirname "$0")" || exit 1
# From build.sh; a clone in which only `make install` was run has the second.
for environment in .venv-plugin .venv; do
    if [ -x "$environment/bin/python" ]; then
        # exec, so that the signal by which DevLake cancels a pipeline reaches Python.
        exec "$environment/bin/python" -m developer_telemetry.main "$@"
    fi
done
echo "developer_telemetry: no virtual environment in $PWD; run ./build.sh there" >&2
exit 1
