"""Pair choice of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.data.choices import read_choices
from nlip_jax.data.index.shards import expand_shards
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.pair_choice import PairChoice


def make_pair_choice(spec: ConfigDict, opening: Opening) -> PairChoice:
    """The evaluator of the records of some files."""
    if not spec.files:
        raise UsageError(f"config.{opening.field}.files is empty: name some")
    paths = expand_shards(
        spec.files.split("::"), storage=opening.storage, extensions=("json", "jsonl")
    )
    choices = read_choices(
        paths,
        root=spec.root,
        extension=spec.extension.removeprefix("."),
        storage=opening.storage,
    )
    return PairChoice(choices=choices, examples=spec.examples)
