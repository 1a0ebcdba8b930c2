"""The method of a config."""

from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax.build.names import lookup
from nlip_jax.build.nlip import make_nlip
from nlip_jax.build.objective import contrast_fields
from nlip_jax.build.texts import Texts
from nlip_jax.config import Clock
from nlip_jax.methods.align import Align
from nlip_jax.methods.base import Method
from nlip_jax.methods.clip import Clip


def _clip(config: ConfigDict, *, model: Any, mesh: Mesh, clock: Clock, texts: Texts | None) -> Clip:
    """CLIP, and what differs from it by its objective alone: SigLIP, FILIP."""
    del clock, texts
    return Clip(**contrast_fields(config, model=model, mesh=mesh))


def _align(
    config: ConfigDict, *, model: Any, mesh: Mesh, clock: Clock, texts: Texts | None
) -> Align:
    del clock, texts
    return Align(
        **contrast_fields(config, model=model, mesh=mesh),
        label_smoothing=config.align.label_smoothing,
    )


METHODS = {"clip": _clip, "siglip": _clip, "filip": _clip, "align": _align, "nlip": make_nlip}


def make_method(
    config: ConfigDict, *, model: Any, mesh: Mesh, clock: Clock, texts: Texts | None = None
) -> Method:
    """The method of the config, bound to its model and mesh.

    Args:
      config: of the run.
      model: of the run.
      mesh: of the run.
      clock: converts durations.
      texts: vocabularies; methods that make captions need them.
    """
    make = lookup(config.method, METHODS, field="method")
    return make(config, model=model, mesh=mesh, clock=clock, texts=texts)
