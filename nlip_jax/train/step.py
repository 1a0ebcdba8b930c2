"""The one compiled step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nlip_jax import sharding
from nlip_jax.methods.base import Method
from nlip_jax.train import ema, spikes
from nlip_jax.train.accumulation import MicroBatches
from nlip_jax.train.grad_norms import grad_norms
from nlip_jax.train.gradients import loss_and_gradients
from nlip_jax.train.spikes import SpikePolicy
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
    micro_batches: MicroBatches | None = None,
    ema_decay: float = 0.0,
    spike_policy: SpikePolicy | None = None,
) -> tuple[TrainState, Metrics]:
    """One update: the pure core; `compile_step` wraps it.

    Args:
      state: before the update.
      batch: global, split by row.
      method: what is minimised.
      tx: the optimizer.
      schedule: learning rate, to be logged.
      seed: of the random numbers; each step derives its own.
      micro_batches: parts of the batch that go through the towers in turn; None: all at once.
      ema_decay: of the average of the parameters, if the state keeps one.
      spike_policy: what becomes of loss spikes; None: nobody looks for them.

    Returns:
      The state after the update, and what it tells: scalars to log, and numbers of each row [b].
    """
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    size = len(next(iter(batch.values())))
    batch = {**batch, "row": jax.lax.iota(jnp.int32, size)}
    found = loss_and_gradients(method, state, batch, rng=rng, micro_batches=micro_batches)
    updates, opt_state = tx.update(found.gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
        **found.metrics,
        **grad_norms(found.gradients),
        "loss": found.loss,
        "learning_rate": jnp.asarray(schedule(spikes.num_updates(state)), jnp.float32),
    }
    after = state.replace(
        step=state.step + 1,
        params=params,
        model_state=found.model_state,
        opt_state=opt_state,
        method_state=method.update_state(state, params, found.carry),
        ema_params=ema.update(
            state.ema_params, params, num_updates=spikes.num_updates(state), decay=ema_decay
        ),
    )
    if spike_policy is not None:
        after, verdict = spikes.guard(
            *(state, after),
            loss=metrics["loss"],
            grad_norm=metrics["grad_norm"],
            policy=spike_policy,
        )
        metrics |= verdict
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
      step: (state, batch) -> (state, metrics): scalars come on every device, and numbers of each
        row stay split by row, so that a device holds as many however large the batch is.
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
    everywhere = sharding.replicated(mesh)
    told = jax.tree.map(
        lambda value: by_row if value.ndim else everywhere, jax.eval_shape(step, state, shaped)[1]
    )
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(places, told))
    return jitted.lower(state, shaped).compile()
