"""Optimizers by name, with decay masks and clipping."""

import jax
import optax

from nlip_jax.errors import UsageError
from nlip_jax.types import PyTree

Optimizer = optax.GradientTransformation


def decay_mask(params: PyTree, *, no_decay: tuple[str, ...]) -> PyTree:
    """True for parameters that decay: those whose last name is not listed.

    Args:
      params: nested dict of arrays.
      no_decay: last names such as "bias", "scale".
    """

    def decays(path: tuple, _: jax.Array) -> bool:
        return str(path[-1].key) not in no_decay

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(
    *,
    name: str,
    schedule: optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-6,
    weight_decay: float = 0.1,
    no_decay: tuple[str, ...] = (),
    clip_norm: float = 0.0,
) -> Optimizer:
    """The transformation that turns gradients into updates.

    Args:
      name: adamw | lamb | adafactor.
      schedule: step -> learning rate.
      b1: decay of the first moment; adafactor's momentum, 0 for none.
      b2: decay of the second moment (adamw, lamb).
      eps: added to the root of the second moment (adamw, lamb).
      weight_decay: decoupled, multiplied by the learning rate.
      no_decay: last names of parameters that do not decay.
      clip_norm: largest global norm of a gradient; 0 for no clipping.

    Raises:
      UsageError: unknown name.
    """

    def mask(params: PyTree) -> PyTree:
        return decay_mask(params, no_decay=no_decay)

    moments = {"b1": b1, "b2": b2, "eps": eps, "weight_decay": weight_decay, "mask": mask}
    makers = {
        "adamw": lambda: optax.adamw(schedule, **moments),
        "lamb": lambda: optax.lamb(schedule, **moments),
        # As Zhai et al. (2022) scale ViTs: no relative step, clipping or parameter scaling, and
        # decay by the learning rate like the others.
        "adafactor": lambda: optax.chain(
            optax.scale_by_factored_rms(),
            optax.ema(b1, debias=False) if b1 else optax.identity(),
            optax.add_decayed_weights(weight_decay, mask=mask),
            optax.scale_by_learning_rate(schedule),
        ),
    }
    if name not in makers:
        raise UsageError(f"config.optimizer.name={name!r}: choose one of {', '.join(makers)}")
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, makers[name]())
