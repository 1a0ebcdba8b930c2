"""`index`: scan the tar shards of a config once."""

from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax.build.data import index_folder
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.table import COMMANDS
from nlip_jax.commands.workdir import find_workdir
from nlip_jax.config import parse_command_line
from nlip_jax.data.index import build_index
from nlip_jax.data.shards import expand_shards
from nlip_jax.errors import UsageError


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code."""
    config, values = parse_command_line(argv, command="index", extra_flags=COMMANDS["index"].flags)
    workdir = find_workdir(values["workdir"], argv)
    check_numbers(config)
    sets = tar_sets(config, workdir)
    if not sets:
        raise UsageError(
            f"config.data.source={config.data.source!r} and no evaluator reads tars: nothing to "
            "index; set source=tar and tar.shards"
        )
    for directory, spec in sets.items():
        index = build_index(expand_shards(spec.shards), spec.caption_key, directory)
        print(f"{directory}: {len(index.shards)} shards, fingerprint {index.fingerprint}")
        for name, count in index.counts.items():
            print(f"  {name}: {count:,}")
    return 0


def tar_sets(config: ConfigDict, workdir: Path) -> dict[Path, ConfigDict]:
    """The tar blocks of the data and of every evaluator, by the folder of their index."""
    specs = {"data": config.data}
    for kind, named in config.evaluators.items():
        specs |= {f"{kind}-{name}": spec for name, spec in named.items()}
    tars = {n: spec.tar for n, spec in specs.items() if spec.source == "tar" and spec.tar.shards}
    return {
        Path(tar.index).expanduser() if tar.index else index_folder(workdir, name): tar
        for name, tar in tars.items()
    }
