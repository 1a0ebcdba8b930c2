"""What each method contrasts by: similarity, normaliser, temperature, and its loss engine."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax.errors import UsageError
from nlip_jax.losses.choice import Choice, LossShape, choose
from nlip_jax.losses.normalisers import NORMALISERS
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.models.dual_encoder import DualEncoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """How a method scores pairs, and how its logits start.

    Attributes:
      similarity: a key of `SIMILARITIES`.
      normaliser: a key of `NORMALISERS`.
      init_temperature: 1 / logit scale at the start.
      max_logit_scale: clamp of the logit scale.
      init_bias: of the logits; None where they have none.
    """

    similarity: str = "dot"
    normaliser: str = "softmax"
    init_temperature: float = 0.07
    max_logit_scale: float = 100.0
    init_bias: float | None = None


# Temperatures as published: CLIP and FILIP 0.07, clamped at a scale of 100; SigLIP a scale of 10,
# not clamped; ALIGN 1.0, with CLIP's clamp for want of another.
OBJECTIVES = {
    "clip": Objective(),
    "siglip": Objective(normaliser="sigmoid"),
    "filip": Objective(similarity="token_max"),
    "align": Objective(init_temperature=1.0),
    "nlip": Objective(),
}


def objective(config: ConfigDict) -> Objective:
    """The objective of the config's method, with the fields that the config sets itself.

    Raises:
      UsageError: a name that does not exist, or fields that contradict one another.
    """
    own = OBJECTIVES.get(config.method, Objective())  # a user's own method starts as CLIP does
    if config.method == "nlip":
        _check_name(config.nlip.normaliser, NORMALISERS, field="nlip.normaliser")
        own = dataclasses.replace(own, normaliser=config.nlip.normaliser)
    if own.normaliser == "sigmoid":
        own = dataclasses.replace(
            own,
            init_temperature=0.1,
            max_logit_scale=math.inf,
            init_bias=config.siglip.init_bias,
        )
    _check_name(config.loss.similarity, ("auto", *SIMILARITIES), field="loss.similarity")
    if config.loss.similarity != "auto":
        if config.method == "filip" and config.loss.similarity != own.similarity:
            raise UsageError(
                f"config.loss.similarity={config.loss.similarity!r}: method=filip is token_max by "
                "definition; with dot it is method=clip"
            )
        own = dataclasses.replace(own, similarity=config.loss.similarity)
    set_here = {
        name: config.model[name]
        for name in ("init_temperature", "max_logit_scale")
        if config.model[name]
    }
    _check_tokens(config, own)
    return dataclasses.replace(own, **set_here)


def _check_name(name: str, choices: Iterable[str], *, field: str) -> None:
    if name not in choices:
        raise UsageError(f"config.{field}={name!r}: choose one of {', '.join(choices)}")


def _check_tokens(config: ConfigDict, own: Objective) -> None:
    fields = config.loss
    if fields.token_keep < 1 and not SIMILARITIES[own.similarity].uses_tokens:
        raise UsageError(
            f"config.loss.token_keep={fields.token_keep}: similarity={own.similarity} compares one "
            "embedding, not tokens; use loss.similarity=token_max or token_keep=1.0"
        )
    group = min(fields.token_group, config.batch_size)
    if fields.token_keep < 1 and config.batch_size % group:
        raise UsageError(
            f"config.loss.token_group={fields.token_group} does not divide config.batch_size="
            f"{config.batch_size}"
        )


def loss_shape(config: ConfigDict, *, model: DualEncoder) -> LossShape:
    """Sizes of the contrastive loss of a run."""
    shape = LossShape(batch=config.batch_size, dim=config.model.embed_dim)
    if not model.token_features:
        return shape
    image, text = (
        math.ceil(config.loss.token_keep * tokens)
        for tokens in (model.image.num_tokens, model.text.context_length)
    )
    return dataclasses.replace(shape, image_tokens=image, text_tokens=text)


def loss_choice(config: ConfigDict, *, model: DualEncoder, mesh: Mesh) -> Choice:
    """The engine for the loss of a run."""
    return choose(
        impl=config.loss.impl,
        tile=config.loss.tile,
        shape=loss_shape(config, model=model),
        mesh=mesh,
        platform=jax.default_backend(),
        dtype=config.loss.dtype,
        duplicates=config.loss.duplicates,
    )


def contrast_fields(config: ConfigDict, *, model: DualEncoder, mesh: Mesh) -> dict[str, Any]:
    """The fields that all methods of `methods/clip.py`'s family share."""
    own = objective(config)
    return {
        "model": model,
        "similarity": SIMILARITIES[own.similarity],
        "normaliser": NORMALISERS[own.normaliser],
        "choice": loss_choice(config, model=model, mesh=mesh),
        "has_bias": own.init_bias is not None,
        "token_keep": config.loss.token_keep,
        "token_group": config.loss.token_group,
    }
