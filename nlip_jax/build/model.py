"""Mesh, model and method of a config."""

import functools
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax import sharding
from nlip_jax.build.names import lookup
from nlip_jax.config import Clock
from nlip_jax.errors import UsageError
from nlip_jax.estimators import gaussian_mixture
from nlip_jax.losses.targets import NOISE_ADAPTIVE
from nlip_jax.methods.base import Method
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.nlip import Nlip
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer


def make_mesh(config: ConfigDict) -> Mesh:
    """The mesh, checked against the batches that it has to share."""
    mesh = sharding.make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp)
    sharding.check_batch(config.batch_size, mesh, field="batch_size")
    sharding.check_batch(config.evaluation.batch_size, mesh, field="evaluation.batch_size")
    return mesh




def make_model(config: ConfigDict, *, vocab_size: int) -> DualEncoder:
    """The two towers."""
    shared = {
        "dtype": config.model.dtype,
        "remat": config.model.remat,
        "scan": config.model.scan,
    }

    def tower(fields: ConfigDict) -> dict[str, Any]:
        return {**fields, "mlp_dim": fields.mlp_dim or None, **shared}

    return DualEncoder(
        image=VisionTransformer(image_size=config.data.image_size, **tower(config.model.image)),
        text=TextTransformer(
            vocab_size=vocab_size,
            context_length=config.tokenizer.context_length,
            **tower(config.model.text),
        ),
        embed_dim=config.model.embed_dim,
        init_temperature=config.model.init_temperature,
        max_logit_scale=config.model.max_logit_scale,
        token_features=config.loss.similarity == "token_max",
    )


def _clip(config: ConfigDict, *, model: DualEncoder, mesh: Mesh, clock: Clock) -> Method:
    del mesh, clock
    return Clip(model=model, similarity=similarity(config))


def _nlip(config: ConfigDict, *, model: DualEncoder, mesh: Mesh, clock: Clock) -> Method:
    fields = config.nlip
    if fields.model != "dual_encoder":
        raise UsageError(f"config.nlip.model={fields.model!r}: choose one of dual_encoder")
    percentiles = tuple(fields.clip_percentiles)
    if len(percentiles) != 2 or not percentiles[0] < percentiles[1]:
        raise UsageError(f"config.nlip.clip_percentiles={percentiles}: must be (low, high)")
    warmup = clock.steps(fields.warmup, field="nlip.warmup")
    period = clock.steps(fields.reestimate_every, field="nlip.reestimate_every")
    if not 0 < warmup < clock.total_steps:
        raise UsageError(
            f"config.nlip.warmup={fields.warmup!r} is {warmup} steps: the first estimate must fall "
            f"inside the run of {clock.total_steps}"
        )
    later = range(warmup + period, clock.total_steps, period) if period else ()
    return Nlip(
        model=model,
        similarity=similarity(config),
        refresh_steps=(warmup, *later),
        weight=fields.weight,
        form=lookup(fields.form, NOISE_ADAPTIVE, field="nlip.form"),
        fit=functools.partial(
            gaussian_mixture.fit,
            clip_percentiles=percentiles,
            num_bins=fields.num_bins,
            max_iterations=fields.max_iterations,
            tolerance=fields.tolerance,
            reg_covar=fields.reg_covar,
            mesh=mesh,
        ),
        posterior=functools.partial(gaussian_mixture.posterior, mesh=mesh),
    )


METHODS = {"clip": _clip, "nlip": _nlip}


def similarity(config: ConfigDict) -> Callable:
    """How pairs are scored."""
    return lookup(config.loss.similarity, SIMILARITIES, field="loss.similarity")


def make_method(config: ConfigDict, *, model: DualEncoder, mesh: Mesh, clock: Clock) -> Method:
    """The method of the config, bound to its model and mesh."""
    make = lookup(config.method, METHODS, field="method")
    return make(config, model=model, mesh=mesh, clock=clock)


