"""A linear probe trained by stochastic gradient descent, as ProtoCLIP's (arXiv 2206.10996)."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nlip_jax.estimators.rows import Rows, replicate
from nlip_jax.evaluators.linear_probe import Probed
from nlip_jax.evaluators.logistic import Linear, classify, losses_and_errors
from nlip_jax.evaluators.probe_rows import ProbeRows
from nlip_jax.outcome import Curve
from nlip_jax.sharding import from_all_hosts
from nlip_jax.types import Array

_PART_BYTES = 1 << 28  # of an epoch's shuffled rows that are on the devices at a time
_INIT_STD = 0.01

# Weights and bias, and the momentum of both.
State = tuple[tuple[Array, Array], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd:
    """One linear layer, SGD with momentum, the learning rate a cosine over the epochs.

    ProtoCLIP's own code does not shuffle and publishes the best test accuracy of all epochs; here
    rows are shuffled, and the accuracy of the last epoch stands beside the best one.

    Attributes:
      learning_rate: in the first epoch.
      momentum: of SGD.
      weight_decay: added to the gradient, of the bias, too.
      batch_size: rows of a step; those left at the end of an epoch make a smaller one.
      epochs: passes over the training rows.
      seed: of the first weights and the order of rows.
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-6
    batch_size: int = 1024
    epochs: int = 100
    seed: int = 0

    def run(self, train: ProbeRows, test: ProbeRows, *, num_classes: int, mesh: Mesh) -> Probed:
        """Also says the best accuracy and its epoch, counted from 1."""
        put = functools.partial(replicate, mesh=mesh)
        dim = train.x.shape[1]
        weights = np.random.default_rng(self.seed).normal(size=(dim, num_classes)) * _INIT_STD
        start = weights.astype(np.float32), np.zeros(num_classes, np.float32)
        state = jax.tree.map(put, (start, tuple(np.zeros_like(values) for values in start)))
        momentum, decay = put(np.float32(self.momentum)), put(np.float32(self.weight_decay))
        points = []
        for epoch in range(self.epochs):
            rate = self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
            order = np.random.default_rng((self.seed, epoch)).permutation(len(train))
            for part in self._parts(train, order, mesh):
                state = _descend(
                    state, part, put(np.float32(rate)), momentum, decay, mesh=mesh
                )
            weights, bias = jax.device_get(state[0])
            linear = Linear(weights=weights, bias=bias)
            rank = classify(test.x, test.labels, linear, mesh=mesh)
            points.append((epoch + 1.0, float(np.mean(rank < 1))))
        best_epoch, best = max(points, key=lambda point: (point[1], -point[0]))
        curve = Curve(
            title="Test accuracy over epochs",
            x_label="epoch",
            y_label="accuracy",
            points=tuple(points),
        )
        return Probed(
            rank=rank, metrics={"best_top1": best, "best_epoch": best_epoch}, curve=curve
        )

    def _parts(self, train: ProbeRows, order: np.ndarray, mesh: Mesh):
        """Batches `[steps, b, d]` of an epoch, some steps at a time, all parts of one shape."""
        batch = -(-self.batch_size // mesh.size) * mesh.size
        all_steps = -(-len(order) // self.batch_size)
        row_bytes = 4 * train.x.shape[1]
        steps = min(all_steps, max(1, _PART_BYTES // (batch * row_bytes)))
        sharding = NamedSharding(mesh, P(None, mesh.axis_names))
        for first in range(0, all_steps, steps):
            x = np.zeros((steps, batch, train.x.shape[1]), np.float32)
            ids = np.full((steps, batch), -1, np.int32)
            for i in range(steps):
                begin = (first + i) * self.batch_size
                rows = order[begin : begin + self.batch_size]
                x[i, : len(rows)], ids[i, : len(rows)] = train.x[rows], train.labels[rows]
            yield Rows(*(from_all_hosts(values, sharding) for values in (x, ids)))


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def _descend(
    state: State, rows: Rows, rate: Array, momentum: Array, decay: Array, *, mesh: Mesh
) -> State:
    """A step for every batch; none for a batch without rows."""
    axes = mesh.axis_names

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P(None, axes), P(), P(), P()),
        out_specs=P(),
        check_vma=False,
    )
    def descend(state: State, rows: Rows, rate: Array, momentum: Array, decay: Array) -> State:
        def step(state: State, batch: Rows) -> tuple[State, None]:
            parameters, speed = state
            _, error = losses_and_errors(batch, *parameters)
            to_weights = jnp.matmul(batch.x.T, error, precision=jax.lax.Precision.HIGHEST)
            total = jax.lax.psum(
                (to_weights, error.sum(0), jnp.sum(batch.ids >= 0)), axes
            )
            count = total[-1]
            gradient = jax.tree.map(
                lambda g, p: g / jnp.maximum(count, 1) + decay * p, total[:2], parameters
            )
            speed_then = jax.tree.map(lambda s, g: momentum * s + g, speed, gradient)
            then = jax.tree.map(lambda p, s: p - rate * s, parameters, speed_then), speed_then
            return jax.tree.map(lambda new, old: jnp.where(count > 0, new, old), then, state), None

        return jax.lax.scan(step, state, rows)[0]

    return descend(state, rows, rate, momentum, decay)
