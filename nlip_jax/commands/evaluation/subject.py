"""What is evaluated: a run, of which there are checkpoints, or a model that was imported."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax.config import flatten, is_runtime
from nlip_jax.evaluators.base import Evaluator, Towers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and what to measure it on, built and checked; nothing compiled yet.

    Attributes:
      name: for people.
      identity: hexadecimal; the same only for checkpoints of the same training.
      mesh: whose devices it runs on.
      evaluators: by KIND/SET.
      towers: step -> the model as it was then; raises RunError where it cannot be restored.
      provenance: what the model was made from.
    """

    name: str
    identity: str
    mesh: Mesh
    evaluators: Mapping[str, Evaluator]
    towers: Callable[[int], Towers]
    provenance: Mapping[str, str]


def identity(config: ConfigDict, *made_of: Any) -> str:
    """Identifies a training, or a model, wherever its files are.

    Args:
      config: all but what says how the work is done, and how long it lasts, takes part.
      *made_of: plain values that take part, too.
    """
    allowed = (*config.runtime, "total")
    fields = {n: v for n, v in flatten(config).items() if not is_runtime(n, allowed)}
    text = json.dumps([fields, *made_of], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
