"""`prepare`: copy the data of a config into ArrayRecord shards, filtered by ALIGN's rules."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from nlip_jax import build
from nlip_jax.commands import workdir as workdirs
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.table import COMMANDS
from nlip_jax.config import parse_command_line
from nlip_jax.data.prepare.plan import Folder, Plan, check_folder
from nlip_jax.data.prepare.rules import RULES, parse_rules
from nlip_jax.data.prepare.run import prepare
from nlip_jax.data.source import Source
from nlip_jax.data.storage import is_remote
from nlip_jax.errors import RunError, UsageError
from nlip_jax.train import stop
from nlip_jax.train.metrics import format_duration

_EXAMPLES_PER_SHARD = 10_000


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    flags = COMMANDS["prepare"].flags
    config, values = parse_command_line(argv, command="prepare", extra_flags=flags)
    if not values["output"]:
        raise UsageError("prepare needs --output=FOLDER for the shards")
    if is_remote(values["output"]):
        raise UsageError(f"--output={values['output']}: must be a local folder; copy it from there")
    output = Path(values["output"]).expanduser()
    check_folder(output)
    rules = parse_rules(values["rules"])
    numbers = {
        name: _number(values, name)
        for name in ("examples_per_shard", "num_shards", "max_side", "workers")
    }
    check_numbers(config)
    source = build.open_training_source(config, workdirs.find_workdir(values["workdir"], argv))
    if source.draws_captions:
        raise UsageError(
            "the source draws one caption of each image anew in every epoch, and prepare writes "
            "all of them: set captions=expand in its block of the config"
        )
    plan = Plan(
        fingerprint=source.fingerprint,
        num_images=source.num_images,
        num_examples=len(source),
        num_shards=_num_shards(
            source, per_shard=numbers["examples_per_shard"], num_shards=numbers["num_shards"]
        ),
        max_pixels=config.data.max_pixels,
        max_side=numbers["max_side"] or 0,
        rules=rules,
    )
    workers = numbers["workers"]
    folder = Folder(output, plan)
    folder.check()  # before it is locked: a folder of others is left as it is
    stop.install_handlers(after="the shards that are being written")
    with workdirs.lock(folder.progress, flag="--output"):
        try:
            folder.claim()
            manifest = prepare(
                source,
                folder,
                processes=(os.cpu_count() or 1) if workers is None else workers,
                on_progress=ProgressLine(),
                should_stop=stop.requested,
            )
        except OSError as error:
            raise RunError(f"{error}; run the same command again to go on") from error
    print(describe(output, manifest))
    return 0


def describe(output: Path, manifest: dict[str, Any]) -> str:
    """What was written, what was left out and why, and how to read it."""
    lines = [f"{output}: {len(manifest['shards'])} shards"]
    for what in ("images", "captions"):
        counts = dict(manifest[what])
        lines.append(f"  {what}: {counts.pop('kept', 0):,} of {counts.pop('seen', 0):,} kept")
        for name, count in counts.items():
            reason = f"  ({RULES[name].meaning})" if name in RULES else ""
            lines.append(f"    {name}: {count:,}{reason}")
    source = "--config.data.source=array_record --config.data.array_record.shards"
    lines.append(f"read them with {source}={shlex.quote(f'{output}/*.array_record')}")
    return "\n".join(lines)


class ProgressLine:
    """How much is done, speed and time left; rewritten in place on a terminal.

    Args:
      what: is counted.
    """

    def __init__(self, *, what: str = "images") -> None:
        self._what = what
        self._is_terminal = sys.stderr.isatty()
        self._stage, self._since, self._first, self._shown, self._ended = "", 0.0, 0, 0.0, False

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Shows the line, at most once in a while."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._since, self._first, self._shown = stage, now, done, now
            self._ended = False
        is_due = now - self._shown >= (0.5 if self._is_terminal else 10)
        if self._ended or not (is_due or done >= total):
            return
        self._shown, self._ended = now, done >= total
        rate = (done - self._first) / max(now - self._since, 1e-9)
        left = f"ETA {format_duration((total - done) / rate)}" if rate else "ETA ?"
        text = f"{stage} {done:,}/{total:,} {self._what}  {rate:,.0f} {self._what}/s  {left}"
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K" + text + ("\n" if done >= total else ""))
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _number(values: dict[str, str], name: str) -> int | None:
    """The value of a flag, None where it was not given."""
    text, least = values[name], 0 if name == "workers" else 1
    if not text:
        return None
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"--{name}={text}: must be a whole number from {least} on")
    return int(text)


def _num_shards(source: Source, *, per_shard: int | None, num_shards: int | None) -> int:
    if per_shard and num_shards:
        raise UsageError(
            f"--examples_per_shard={per_shard} and --num_shards={num_shards}: give one of them"
        )
    count = num_shards or -(-len(source) // (per_shard or _EXAMPLES_PER_SHARD))
    if count > source.num_images:
        raise UsageError(f"--num_shards={count}: there are only {source.num_images} images")
    return count
