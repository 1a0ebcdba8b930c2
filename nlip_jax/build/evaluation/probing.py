"""What the makers of probes, neighbours and clusters share: their labelled sets and fields."""

import contextlib
import difflib
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
      UsageError: one of them is missing or cannot be used.
    """
    sets = {}
    for name in ("train", "test"):
        part = spec.get(name)
        if not isinstance(part, ConfigDict) or "source" not in part:
            raise UsageError(
                f"config.{opening.field}.{name} is no labelled set: make it with "
                "evaluators.labelled_set(SOURCE, BLOCK)"
            )
        sets[name] = open_labelled(part, opening.part(name))
    return sets


def take_fields(spec: ConfigDict, names: Sequence[str], *, field: str) -> dict[str, Any]:
    """The fields of a spec, which has these and no others; lists become tuples.

    Raises:
      UsageError: it lacks one or has another.
    """
    for name in spec:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(names)}"
            raise UsageError(f"no such config field: config.{field}.{name}; {hint}")
    for name in names:
        if name not in spec:
            raise UsageError(
                f"config.{field} lacks {name}: begin with its function in configs/evaluators.py"
            )
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
