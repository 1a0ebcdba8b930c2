"""`index`: scan the tar shards of a config once."""

from pathlib import Path

from nlip_jax.commands.table import COMMANDS
from nlip_jax.commands.workdir import default_workdir
from nlip_jax.config import parse_command_line
from nlip_jax.data.index import build_index
from nlip_jax.data.shards import expand_shards
from nlip_jax.errors import UsageError


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    config, values = parse_command_line(argv, command="index", extra_flags=COMMANDS["index"].flags)
    if config.data.source != "tar" or not config.data.tar.shards:
        raise UsageError(
            f"config.data.source={config.data.source!r} and config.data.tar.shards="
            f"{config.data.tar.shards!r}: index needs source=tar and the shards' names"
        )
    workdir = Path(values["workdir"] or default_workdir(argv))
    directory = Path(config.data.tar.index or workdir / "index" / "data")
    index = build_index(
        expand_shards(config.data.tar.shards), config.data.tar.caption_key, directory
    )
    print(f"{directory}: {len(index.shards)} shards, fingerprint {index.fingerprint}")
    for name, count in index.counts.items():
        print(f"  {name}: {count:,}")
    return 0
