"""`index`: scan the shards of a config once, or look at those that are new."""

import sys

from nlip_jax.build.sources import indexed_sets
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.table import COMMANDS
from nlip_jax.commands.workdir import find_workdir
from nlip_jax.config import parse_command_line
from nlip_jax.data.formats.base import COUNTS
from nlip_jax.data.index.update import IndexUpdate, update_index
from nlip_jax.errors import UsageError

_SHOWN = 10  # names of one kind; more only say how many they are


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    config, values = parse_command_line(argv, command="index", extra_flags=COMMANDS["index"].flags)
    workdir = find_workdir(values["workdir"], argv)
    check_numbers(config)
    sets = indexed_sets(config, workdir)
    if not sets:
        raise UsageError(
            f"config.data.source={config.data.source!r} and no evaluator reads shards: nothing to "
            "index; choose another source, such as tar"
        )
    for directory, spec in sets.items():
        update = update_index(
            spec.shards, spec.format, directory, storage=spec.storage, on_progress=_show_progress
        )
        print("\n".join(describe(update)))
    return 0


def describe(update: IndexUpdate) -> list[str]:
    """What an index holds and what an update did, a line each."""
    index = update.index
    live = [shard for shard in index.shards if not shard.removed]
    num_gone = len(index.shards) - len(live)
    lines = [
        f"{index.directory}: {len(live):,} shards, fingerprint {index.fingerprint}",
        *(f"  {name} {n:,}: {COUNTS[name]}" for name, n in index.counts.items() if n),
    ]
    if num_gone:
        images = len(index.rows) - index.counts["images"]
        lines.append(f"  holes {images:,}: images of {num_gone:,} shards that are gone")
    for what, paths in (
        ("added", update.added),
        ("returned", update.returned),
        ("removed", update.removed),
        ("missing number", update.missing_numbers),
    ):
        lines += _list(what, list(paths))
    lines += _list("unreadable", list(update.unreadable.values()))
    lines += _list("left out", [f"{path}: {why}" for path, why in update.complaints.items()])
    return lines


def _list(what: str, items: list[str]) -> list[str]:
    more = [f"  {what}: and {len(items) - _SHOWN:,} more"] if items[_SHOWN:] else []
    return [f"  {what}: {item}" for item in items[:_SHOWN]] + more


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\rscanned {done:,} of {total:,} shards", end=end, file=sys.stderr, flush=True)
