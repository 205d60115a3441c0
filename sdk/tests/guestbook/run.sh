#!/bin/sh
# Starts the sample plugin the way DevLake's server starts one.
cd "$(dirname "$0")" || exit 1
exec "${PYTHON:-python3}" guestbook/main.py "$@"
