"""What the makers of probes, neighbours and clusters share: their labelled sets and fields."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from nlip_jax.build.evaluation.judgement import check_pooled
from nlip_jax.build.evaluation.labelled import open_labelled
from nlip_jax.build.evaluation.opening import Opening
from nlip_jax.data.labelled import LabelledSet
from nlip_jax.errors import UsageError


def open_train_and_test(spec: ConfigDict, opening: Opening) -> dict[str, LabelledSet]:
    """The sets `train` and `test` of a spec, each made by `labelled_set` of configs/evaluators.py.

    Raises:
      UsageError: one of them cannot be used.
    """
    return {name: open_labelled(spec[name], opening.part(name)) for name in ("train", "test")}


def take_fields(spec: ConfigDict, names: Sequence[str]) -> dict[str, Any]:
    """Some fields of a spec; lists become tuples."""
    return {n: tuple(spec[n]) if isinstance(spec[n], list) else spec[n] for n in names}


def check_embeddings(spec: ConfigDict, opening: Opening) -> None:
    """Refuses embeddings that nobody trained; raises UsageError."""
    if spec.features == "embed":
        check_pooled(opening)


@contextlib.contextmanager
def of_field(opening: Opening) -> Iterator[None]:
    """Names the field of a set in front of what is wrong with it."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"config.{opening.field}: {error}") from error
