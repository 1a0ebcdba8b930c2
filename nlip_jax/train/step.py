"""The one compiled step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nlip_jax import sharding
from nlip_jax.methods.base import Method
from nlip_jax.types import Array, Batch, PyTree, TrainState

Metrics = dict[str, Array]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    method: Method,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
) -> tuple[TrainState, Metrics]:
    """One update: the pure core; `compile_step` wraps it.

    Args:
      state: before the update.
      batch: global, split by row.
      method: what is minimised.
      tx: the optimizer.
      schedule: learning rate, to be logged.
      seed: of the random numbers; each step derives its own.

    Returns:
      The state after the update, and scalars to log.
    """
    rng = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss_of(params: PyTree) -> tuple[Array, tuple]:
        embedded = method.embed(params, state, batch, rng=rng)
        pairs = method.pair_loss(params, embedded.features, state, batch)
        examples = method.example_loss(
            params, embedded.features, pairs.picks, state, batch, rng=rng
        )
        loss, metrics = pairs.loss, dict(pairs.metrics)
        if examples is not None:
            loss, metrics = loss + examples.loss, metrics | examples.metrics
        return loss, (metrics, embedded.model_state, pairs.carry)

    (loss, (metrics, model_state, carry)), grads = jax.value_and_grad(loss_of, has_aux=True)(
        state.params
    )
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics |= {
        "loss": loss,
        "grad_norm": optax.tree.norm(grads),
        "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
    }
    after = state.replace(
        step=state.step + 1,
        params=params,
        model_state=model_state,
        opt_state=opt_state,
        method_state=method.update_state(state, params, carry),
    )
    return after, metrics


def compile_step(
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    *,
    state: PyTree,
    batch: Batch,
    mesh: Mesh,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Compiles the step ahead of time: whatever arrives later must have these very types.

    Args:
      step: (state, batch) -> (state, metrics).
      state: abstract, with shardings; donated at each call.
      batch: abstract global batch.
      mesh: of both.
    """
    by_row = sharding.by_row(mesh)
    shaped = {
        name: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=by_row)
        for name, value in batch.items()
    }
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    jitted = jax.jit(
        step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh))
    )
    return jitted.lower(state, shaped).compile()
