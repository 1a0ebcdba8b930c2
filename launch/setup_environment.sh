# shellcheck shell=bash
# Sourced by the launchers, from the root of the checkout:
#
#   setup_environment EXTRA...    makes .venv, or brings it up to date with setup.cfg, and leaves its
#                                 interpreter in $VENV_PYTHON; nearly free when there is nothing to do
#
# Environment variables; relative paths are relative to the checkout:
#   PYTHON           the interpreter to build on; default: the first of CANDIDATES that is fit
#   NLIP_JAX_VENV    where the environment lies; default: .venv
#   NLIP_JAX_EXTRAS  more extras of setup.cfg, e.g. "cuda" or "tpu"
# and pip's own, e.g. PIP_INDEX_URL (a mirror) or PIP_FIND_LINKS (a folder of wheels).
#
# Works with bash 3.2, the one of macOS. What it has to remember lies in $venv/.setup:
#   made          this script made the environment, so it may also remove it
#   lock          held during a set-up: launches of the same environment wait for one another
#   unfinished    there while anything changes, so a set-up that was killed leaves it behind
#   installed/    one file for each installed extra, with the key it was installed for

CANDIDATES=(python3 python3.13 python3.12 python3.11 python)
NEEDED_MB=3000  # what pip takes while it works, its cache included

# Must also run in the old interpreters that it turns away.
PROBE='
import sys
fitness = "fit"
if sys.version_info < (3, 11):
    fitness = "old"
else:
    from importlib.util import find_spec  # a few times faster than to import them
    if not (find_spec("venv") and find_spec("ensurepip")):
        fitness = "bare"
version = ".".join(str(number) for number in sys.version_info[:3])
print(" ".join([fitness, version, getattr(sys, "base_prefix", sys.prefix)]))
'

# Python's flock, since macOS has no command of that name. Descriptor 9 keeps the lock.
LOCK='
import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.stderr.write("waiting for another set-up of this environment ...\n")
    fcntl.flock(9, fcntl.LOCK_EX)
'

# What pip prints when no index answers: it retries, or a download stops half-way.
NO_NETWORK='connection broken by|Max retries exceeded|[Tt]imed out'

setup_environment() {
  local more=${NLIP_JAX_EXTRAS:-}
  extras="$* ${more//,/ }"
  venv=${NLIP_JAX_VENV:-.venv}
  case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
  VENV_PYTHON=$venv/bin/python
  state=$venv/.setup
  log=$venv/setup.log
  # An activated environment is on PATH, but cannot be what it is itself remade from.
  local PATH=:$PATH: own=:$venv/bin:
  PATH=${PATH//"$own"/:}
  PATH=${PATH#:}
  PATH=${PATH%:}

  if is_up_to_date; then return; fi
  check_extras
  if is_reusable; then python=$VENV_PYTHON; else find_python; fi
  take_lock
  if ! is_up_to_date; then
    is_reusable || make_venv
    install
  fi
  exec 9>&-  # the program that is launched next must not keep the lock
}

say() { printf '%s: %s\n' "launch/${0##*/}" "$1" >&2; }

fail() {
  say "$1"
  exit 2
}

# Sets `identity`, the version and home of an interpreter, and `unfit`: why it will not do, or nothing.
# It is run, not only looked up: a pyenv shim exists for versions that then refuse to start.
examine() {
  local answer version
  identity=
  answer=$("$1" -c "$PROBE" 2>/dev/null </dev/null) || answer=
  identity=${answer#* }
  version=${identity%% *}
  case $answer in
    'fit '*) unfit= ;;
    'old '*) unfit="is Python $version" ;;
    'bare '*) unfit="is Python $version without ensurepip (Debian, Ubuntu: apt install python${version%.*}-venv)" ;;
    *) unfit="does not run" ;;
  esac
}

# Sets `python`, the interpreter to build on, and its `identity`.
find_python() {
  local candidates=("${CANDIDATES[@]}") tried=
  if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
  for python in "${candidates[@]}"; do
    examine "$python"
    if [ -z "$unfit" ]; then return; fi
    tried="$tried${tried:+, }$python $unfit"
  done
  fail "needs Python 3.11 or newer, but $tried; install one, or name one: PYTHON=/path/to/python3 launch/${0##*/}"
}

# pip itself would only warn, and leave the accelerator out.
check_extras() {
  local known part
  known=$(awk '/^\[/ { inside = /extras_require/ } inside && /^[a-z]/ { printf " %s", $1 }' setup.cfg)
  for part in $extras; do
    case "$known " in *" $part "*) ;; *) fail "setup.cfg has no extra named $part; it has:$known" ;; esac
  done
}

# Sets `key`, what the installed packages depend on, and `identity`.
read_key() {
  examine "$VENV_PYTHON"
  key="$identity, $PWD, $(cat setup.cfg pyproject.toml | cksum)"
  [ -z "$unfit" ]
}

is_reusable() {
  local there
  if [ ! -f "$venv/pyvenv.cfg" ] || [ -e "$state/unfinished" ]; then return 1; fi
  read_key || return 1
  if [ -z "${PYTHON:-}" ]; then return 0; fi
  there=$identity
  find_python
  [ "$identity" = "$there" ]
}

is_up_to_date() {
  local part
  is_reusable || return 1
  for part in base $extras; do
    [ "$(cat "$state/installed/$part" 2>/dev/null)" = "$key" ] || return 1
  done
}

take_lock() {
  local problem
  if [ ! -e "$state" ] && [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
    fail "$venv is there, but is no virtual environment: name another folder with NLIP_JAX_VENV"
  fi
  problem=$(mkdir -p "$state/installed" 2>&1) || fail "cannot make $venv: ${problem##*: }"
  exec 9>"$state/lock" || fail "cannot write to $state"
  "$python" -c "$LOCK" || say "cannot lock $state/lock; make sure that no other set-up is running"
}

make_venv() {
  if [ -f "$venv/pyvenv.cfg" ] && [ ! -e "$state/made" ]; then
    fail "$venv is broken or of another Python, and was not made by launch/: remove it, or name another with NLIP_JAX_VENV"
  fi
  find_python
  : >"$state/made"
  : >"$state/unfinished"
  rm -rf "$state/installed"
  mkdir "$state/installed"
  find "$venv/" -mindepth 1 -maxdepth 1 ! -name .setup -exec rm -rf {} +
  check_space
  say "making $venv with Python ${identity%% *} (about 1.3 GB, a minute or two) ..."
  "$python" -m venv "$venv" >"$log" 2>&1 || explain "python -m venv failed"
}

# The space left where the environment lies; nothing where df does not know.
free_mb() {
  # The field before the percentage: names of devices may contain blanks.
  df -Pk "$venv/" | awk 'NR > 1 { for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+%$/) print int($(i - 1) / 1024) }'
}

check_space() {
  local free
  free=$(free_mb)
  if [ "${free:-$NEEDED_MB}" -lt "$NEEDED_MB" ]; then
    fail "the disk of $venv has $free MB free, but needs $NEEDED_MB: make room, or name another folder with NLIP_JAX_VENV"
  fi
}

install() {
  local list part
  # shellcheck disable=SC2086  # extras are words
  list=$(printf ',%s' $extras)
  list=${list#,}
  say "installing nlip_jax${list:+[$list]} (progress in $log) ..."
  : >"$state/unfinished"
  PIP_USER=0 "$VENV_PYTHON" -m pip install --disable-pip-version-check --no-input --progress-bar off \
    --editable ".${list:+[$list]}" >"$log" 2>&1 || explain "pip failed"
  read_key
  for part in base $extras; do printf '%s\n' "$key" >"$state/installed/$part"; done
  rm "$state/unfinished"
}

# Says in one line why the command that wrote the log failed.
explain() {
  local first free
  free=$(free_mb)
  # The words may be missing: the log is on a disk that may be full.
  if grep -qE 'No space left on device|Disk quota exceeded' "$log" || [ "${free:-1}" -eq 0 ]; then
    fail "the disk is full: make room where $venv, ${TMPDIR:-/tmp} and pip's cache lie, and start again (details: $log)"
  fi
  if grep -qE "$NO_NETWORK" "$log" && ! grep -q ResolutionImpossible "$log"; then
    rm -f "$state/unfinished"  # pip downloads everything before it changes anything
    fail "pip cannot reach its package index: check the network, or name a mirror with PIP_INDEX_URL or a folder of wheels with PIP_NO_INDEX=1 PIP_FIND_LINKS=/path (details: $log)"
  fi
  first=$(awk '/^ *(ERROR|[A-Za-z.]+Error): / && !/ERROR: Ignored/ { print; exit }' "$log")
  if [ -z "$first" ]; then first=$(tail -n 1 "$log"); fi
  fail "$1: ${first#"${first%%[! ]*}"} (details: $log)"
}
