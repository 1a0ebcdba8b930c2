"""The method of a config."""

import functools

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax.build.names import lookup
from nlip_jax.build.objective import contrast_fields, objective
from nlip_jax.config import Clock
from nlip_jax.errors import UsageError
from nlip_jax.estimators import gaussian_mixture
from nlip_jax.losses.targets import NOISE_ADAPTIVE
from nlip_jax.methods.align import Align
from nlip_jax.methods.base import Method
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.nlip import Nlip
from nlip_jax.models.dual_encoder import DualEncoder


def _clip(config: ConfigDict, *, model: DualEncoder, mesh: Mesh, clock: Clock) -> Method:
    """CLIP, and what differs from it by its objective alone: SigLIP, FILIP."""
    del clock
    return Clip(**contrast_fields(config, model=model, mesh=mesh))


def _align(config: ConfigDict, *, model: DualEncoder, mesh: Mesh, clock: Clock) -> Method:
    del clock
    return Align(
        **contrast_fields(config, model=model, mesh=mesh),
        label_smoothing=config.align.label_smoothing,
    )


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
    own = objective(config)
    form = lookup(fields.form, NOISE_ADAPTIVE[own.normaliser], field="nlip.form")
    if config.loss.duplicates == "positives" and fields.form == "mixture_likelihood":
        raise UsageError(
            "config.loss.duplicates='positives': nlip.form='mixture_likelihood' is the likelihood "
            "of one partner; use duplicates='ignored' or form='smoothed_targets'"
        )
    later = range(warmup + period, clock.total_steps, period) if period else ()
    return Nlip(
        **contrast_fields(config, model=model, mesh=mesh),
        refresh_steps=(warmup, *later),
        weight=fields.weight,
        form=form,
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


METHODS = {"clip": _clip, "siglip": _clip, "filip": _clip, "align": _align, "nlip": _nlip}


def make_method(config: ConfigDict, *, model: DualEncoder, mesh: Mesh, clock: Clock) -> Method:
    """The method of the config, bound to its model and mesh."""
    make = lookup(config.method, METHODS, field="method")
    return make(config, model=model, mesh=mesh, clock=clock)
