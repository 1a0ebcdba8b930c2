#!/usr/bin/env bash
# Runs the tests: makes or updates .venv, then runs pytest, on the whole suite unless ARGS say otherwise.
#
#   launch/test.sh [ARGS of pytest]
#   launch/test.sh tests/test_architecture.py -x
#
# Relative paths in ARGS are relative to the checkout. Which Python and which .venv: see
# setup_environment.sh.
set -euo pipefail
CDPATH='' cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/setup_environment.sh

setup_environment test

exec "$VENV_PYTHON" -m pytest "$@"
