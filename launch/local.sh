#!/usr/bin/env bash
# Trains on this machine: makes or updates .venv, then runs `python -m nlip_jax train`.
#
#   launch/local.sh [ARGS of train]
#   launch/local.sh --workdir=/tmp/first --config.optimizer.learning_rate=1e-3
#   launch/local.sh --config=configs/flickr8k.py:data/flickr8k --workdir=runs/photos
#
# Without --config it trains configs/quickstart.py. Relative paths in ARGS are relative to the
# checkout, from wherever it is called. Which Python, which .venv, GPUs and TPUs: see
# setup_environment.sh.
set -euo pipefail
CDPATH='' cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/setup_environment.sh

# shellcheck disable=SC2119  # no extras; ARGS are the training's
setup_environment

config=--config=configs/quickstart.py
for arg in "$@"; do
  case $arg in --config | --config=*) config= ;; esac
done
# exec, so that Ctrl-C and a scheduler's SIGTERM reach the training itself.
exec "$VENV_PYTHON" -m nlip_jax train ${config:+"$config"} "$@"
