"""Judgements of a config."""

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.data.judged import read_items, read_judgements
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.judgement import Judgement


def make_judgement(spec: ConfigDict, opening: Opening) -> Judgement:
    """The evaluator of one set of judgements."""
    check_pooled(opening)
    for name in ("captions", "ratings"):
        if not spec[name]:
            raise UsageError(f"config.{opening.field}.{name} is empty: name files")
    items = read_items(
        spec.captions, root=spec.root, splits=tuple(spec.splits), storage=opening.storage
    )
    return Judgement(
        items=items,
        judgements={
            name: read_judgements(path, items, storage=opening.storage)
            for name, path in spec.ratings.items()
        },
        rounds=spec.rounds,
        seed=spec.seed,
        retrieval=spec.retrieval,
    )


def check_pooled(opening: Opening) -> None:
    """Refuses models whose pooled embeddings nobody trained; raises UsageError."""
    if opening.similarity != "dot":
        raise UsageError(
            f"config.{opening.field} compares pooled embeddings, and loss.similarity="
            f"{opening.similarity!r} trains none: remove it"
        )
