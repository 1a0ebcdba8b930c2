#!/usr/bin/env bash
# Runs the tests: makes or updates .venv, then runs pytest, on the whole suite unless ARGS say otherwise.
#
#   launch/test.sh [ARGS of pytest]
#   launch/test.sh tests/test_architecture.py -x
#
# Without ARGS the whole suite runs in two processes, each test file in one of them: most of the time
# goes to compiling, which keeps one core busy. Relative paths in ARGS are relative to the checkout.
# Which Python and which .venv: see setup_environment.sh.
set -euo pipefail
CDPATH='' cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/setup_environment.sh

setup_environment test

if [ $# -eq 0 ]; then set -- --numprocesses=2 --dist=loadfile; fi
exec "$VENV_PYTHON" -m pytest "$@"
