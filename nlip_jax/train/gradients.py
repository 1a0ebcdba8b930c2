"""The loss of a batch and its gradients, with the batch whole or in parts.

In parts it is GradCache (Gao et al., 2021, arXiv:2101.06983): a contrastive loss couples all pairs,
so a mean of losses of parts is another loss. But it couples them through their features alone:
embed the parts, take the gradient of the loss with respect to all features, and lead it back
through the towers part by part. Same loss, same gradients, the activations of one part at a time;
the price is a second forward pass through the towers.
"""

import flax.struct
import jax
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.methods.base import Embedded, Features, Method
from nlip_jax.train.accumulation import MicroBatches
from nlip_jax.types import Array, Batch, LossOutput, PyTree, TrainState


@flax.struct.dataclass
class LossAndGradients:
    """What a batch says about the parameters.

    Attributes:
      loss: () float32.
      gradients: as the parameters, float32.
      metrics: scalars to log.
      model_state: after the batch.
      carry: what `update_state` wants.
    """

    loss: Array
    gradients: PyTree
    metrics: dict[str, Array]
    model_state: PyTree
    carry: PyTree


def loss_and_gradients(
    method: Method,
    state: TrainState,
    batch: Batch,
    *,
    rng: Array,
    micro_batches: MicroBatches | None = None,
) -> LossAndGradients:
    """Loss of the global batch, and its gradients with respect to `state.params`.

    Args:
      method: whose loss it is.
      state: before the update.
      batch: global, split by row, with "row".
      rng: key of the step.
      micro_batches: parts that go through the towers in turn; None: all at once.

    Raises:
      UsageError: the batch is to be cut, but the model trains batch statistics.
    """
    if micro_batches is None:
        return _at_once(method, state, batch, rng=rng)
    if state.model_state and not method.frozen_statistics:
        raise UsageError(
            f"config.accumulation.micro_batches={micro_batches.count}: the model trains the "
            f"statistics {', '.join(sorted(state.model_state))}, and those of a part of a batch "
            "are not those of the batch; freeze them (frozen_statistics=True of the method), or "
            "set micro_batches=1"
        )
    return _in_parts(method, state, batch, rng=rng, micro_batches=micro_batches)


def _at_once(
    method: Method, state: TrainState, batch: Batch, *, rng: Array
) -> LossAndGradients:
    def loss_of(params: PyTree) -> tuple[Array, tuple]:
        embedded = method.embed(params, state, batch, rng=rng)
        pairs = method.pair_loss(params, embedded.features, state, batch)
        picks = jax.lax.stop_gradient(pairs.picks)
        features = {**embedded.features, **embedded.local}
        examples = _terms(method.example_loss(params, features, picks, state, batch, rng=rng))
        metrics = {**pairs.metrics, **examples.metrics}
        return pairs.loss + examples.loss, (metrics, embedded.model_state, pairs.carry)

    (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    metrics, model_state, carry = aux
    return LossAndGradients(loss, gradients, metrics, model_state, carry)


def _in_parts(
    method: Method, state: TrainState, batch: Batch, *, rng: Array, micro_batches: MicroBatches
) -> LossAndGradients:
    parts = micro_batches.split(batch)

    # --- features of all examples, without what a backward pass would need ------------------------
    def embed(params: PyTree, part: Batch) -> Embedded:
        return method.embed(params, state, part, rng=rng)

    _, features = jax.lax.scan(
        lambda _, part: (None, embed(state.params, part).features), None, parts
    )
    features = micro_batches.join(features)
    real = {name: x for name, x in features.items() if jnp.issubdtype(x.dtype, jnp.floating)}

    # --- the loss that couples them, and what it says about the features --------------------------
    def pair_loss(params: PyTree, real: Features) -> tuple[Array, LossOutput]:
        pairs = method.pair_loss(params, {**features, **real}, state, batch)
        return pairs.loss, pairs

    (direct, cotangents), pairs = jax.grad(pair_loss, argnums=(0, 1), has_aux=True)(
        state.params, real
    )

    # --- back through the towers, part by part ----------------------------------------------------
    def part_loss(
        params: PyTree, part: Batch, cotangents: Features, picks: PyTree
    ) -> tuple[Array, LossOutput]:
        """A number whose gradient is this part's share of the gradient of the whole loss."""
        embedded = embed(params, part)
        features = {**embedded.features, **embedded.local}
        examples = _terms(method.example_loss(params, features, picks, state, part, rng=rng))
        # Sums, and not dot products: on TPU those would round the cotangents to bfloat16.
        along = sum(jnp.sum(cotangents[name] * features[name]) for name in cotangents)
        return along + examples.loss / micro_batches.count, examples

    def add(total: PyTree, inputs: tuple) -> tuple[PyTree, LossOutput]:
        gradients, examples = jax.grad(part_loss, has_aux=True)(state.params, *inputs)
        return jax.tree.map(jnp.add, total, gradients), examples

    shares = parts, micro_batches.split(cotangents), micro_batches.split(pairs.picks)
    gradients, examples = jax.lax.scan(add, direct, shares)
    examples = jax.tree.map(lambda x: jnp.mean(x, axis=0), examples)
    return LossAndGradients(
        loss=pairs.loss + examples.loss,
        gradients=gradients,
        metrics={**pairs.metrics, **examples.metrics},
        model_state=state.model_state,
        carry=pairs.carry,
    )


def _terms(output: LossOutput | None) -> LossOutput:
    """Loss and metrics of a method's terms of single examples; zero where it has none."""
    if output is None:
        return LossOutput(loss=jnp.zeros((), jnp.float32))
    return LossOutput(loss=output.loss, metrics=output.metrics)
