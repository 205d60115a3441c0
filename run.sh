#!/bin/sh
# What DevLake's server calls: `run.sh VERB ARGUMENTS`, answers on file descriptor 3.
cd "$(dirname "$0")" || exit 1
if [ ! -x .venv/bin/python ]; then
    echo "developer_telemetry: no virtual environment in $PWD; run ./build.sh there" >&2
    exit 1
fi
# exec, so that the signal by which DevLake cancels a pipeline reaches Python.
exec .venv/bin/python -m developer_telemetry.main "$@"
