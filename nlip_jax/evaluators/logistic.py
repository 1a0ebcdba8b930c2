"""Multinomial logistic regression over rows that the devices share: its objective and gradient.

The objective is that of scikit-learn's `LogisticRegression`, divided by C n,

    f(W, b) = 1/n sum_i -log softmax(x_i W + b)[y_i] + penalty/2 ||W||^2,   penalty = 1 / (C n),

without a penalty on the bias. A pass walks through the rows in chunks that give value and gradient
together: logits of all rows never exist. The unknowns are changed so that the Hessian at W = 0
becomes the identity; a quasi-Newton method then starts as Newton's would, and features of any scale
and correlation do as well as white ones.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nlip_jax.estimators.rows import Rows, place, replicate
from nlip_jax.evaluators.search import search
from nlip_jax.methods.base import Features
from nlip_jax.types import Array

NEVER = np.iinfo(np.int32).max  # the place of a class that no row of NaN has
_MAX_LOGITS = 1 << 22  # of a chunk on one device: 16 MB
_MAX_CHUNK = 1 << 14  # rows
# Of the mean eigenvalue: below it float32 sums know nothing of the covariance.
_FLOOR = 1e-7
_PRECISION = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """A linear classifier on the host: its logits are `x @ weights + bias`.

    Attributes:
      weights: `[d, k]` float32.
      bias: `[k]` float32.
    """

    weights: np.ndarray
    bias: np.ndarray


@flax.struct.dataclass
class Scaling:
    """The change of variables: `weights = to_weights @ v`, `bias = to_bias * u`.

    Attributes:
      to_weights: `[d, d]` float32.
      to_bias: `[]` float32.
    """

    to_weights: Array
    to_bias: Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """The rows of one regression.

    Attributes:
      rows: on the devices, less their mean; their ids are the classes.
      mean: `[d]` float32.
      covariance: `[d, d]` float64 of the rows, biased.
      num_rows: n.
      num_classes: k, those without a row included.
      mesh: of the devices.
    """

    rows: Rows
    mean: np.ndarray
    covariance: np.ndarray
    num_rows: int
    num_classes: int
    mesh: Mesh

    def scaling(self, penalty: float) -> tuple[Scaling, np.ndarray]:
        """The change of variables for a penalty, and the way back, `[d, d]`: `v = back @ weights`.

        With all weights 0 every class has probability 1/k, and the Hessian of centred rows is
        `covariance / k + penalty` for the weights of each class and `1/k` for the bias, in the
        directions that sum to 0 over the classes, where every gradient lies. Boehning's bound of
        the Hessian has 1/2 in place of 1/k: far above it where classes are many, so that it takes
        several times as many steps. The Cholesky factor is taken in float64, on one process for
        all.
        """
        hessian = self.covariance / self.num_classes
        floor = _FLOOR * np.trace(hessian) / len(hessian) + np.finfo(np.float32).tiny
        lower = np.linalg.cholesky(hessian + (penalty + floor) * np.eye(len(hessian)))
        to_weights, back = np.linalg.inv(lower).T.astype(np.float32), lower.T.astype(np.float32)
        if jax.process_count() > 1:
            to_weights, back = multihost_utils.broadcast_one_to_all((to_weights, back))
        scaling = Scaling(
            to_weights=replicate(to_weights, self.mesh),
            to_bias=replicate(np.float32(self.num_classes**0.5), self.mesh),
        )
        return scaling, back


def make_problem(x: np.ndarray, labels: np.ndarray, *, num_classes: int, mesh: Mesh) -> Problem:
    """Puts rows on the devices.

    Args:
      x: `[n, d]` finite floats, the same on all processes.
      labels: `[n]` in 0..num_classes-1.
      num_classes: of the regression.
      mesh: whose devices share the rows.
    """
    most = max(8, min(_MAX_CHUNK, _MAX_LOGITS // num_classes))
    rows, mean = place(x, labels, most=most, mesh=mesh)
    return Problem(
        rows=rows,
        mean=mean,
        covariance=np.asarray(_outer_products(rows, mesh=mesh), np.float64) / len(x),
        num_rows=len(x),
        num_classes=num_classes,
        mesh=mesh,
    )


@functools.partial(jax.jit, static_argnames="mesh")
def _outer_products(rows: Rows, *, mesh: Mesh) -> Array:
    """Their sum over all rows, `[d, d]`."""
    axes = mesh.axis_names

    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=P(axes), out_specs=P(), check_vma=False
    )
    def total(x: Array) -> Array:
        def add(total: Array, chunk: Array) -> tuple[Array, None]:
            return total + jnp.matmul(chunk.T, chunk, precision=_PRECISION), None

        d = x.shape[-1]
        return jax.lax.psum(jax.lax.scan(add, jnp.zeros((d, d)), x)[0], axes)

    return total(rows.x)


def cross_entropy(
    rows: Rows, weights: Array, bias: Array, *, num_rows: int, mesh: Mesh
) -> Array:
    """Mean cross-entropy, differentiable in the weights and the bias.

    The forward pass computes the gradient, too: both need the probabilities of every row.

    Args:
      rows: of a problem.
      weights: `[d, k]`.
      bias: `[k]`.
      num_rows: n.
      mesh: of the rows.
    """

    @jax.custom_vjp
    def value(weights: Array, bias: Array) -> Array:
        return forward(weights, bias)[0]

    def forward(weights: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
        total, *gradient = _sums(rows, weights, bias, mesh=mesh)
        return total / num_rows, tuple(g / num_rows for g in gradient)

    def backward(gradient: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
        return tuple(cotangent * g for g in gradient)

    value.defvjp(forward, backward)
    return value(weights, bias)


def _sums(rows: Rows, weights: Array, bias: Array, *, mesh: Mesh) -> tuple[Array, Array, Array]:
    """Sum of the rows' cross-entropies, and its gradients."""
    axes = mesh.axis_names

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(axes), P(), P()),
        out_specs=P(),
        check_vma=False,
    )
    def sums(rows: Rows, weights: Array, bias: Array) -> tuple[Array, Array, Array]:
        def add(total: tuple[Array, ...], chunk: Rows) -> tuple[tuple[Array, ...], None]:
            loss, error = losses_and_errors(chunk, weights, bias)
            to_weights = jnp.matmul(chunk.x.T, error, precision=_PRECISION)
            part = loss.sum(), to_weights, error.sum(0)
            return jax.tree.map(jnp.add, total, part), None

        start = jnp.zeros(()), jnp.zeros_like(weights), jnp.zeros_like(bias)
        return jax.lax.psum(jax.lax.scan(add, start, rows)[0], axes)

    return sums(rows, weights, bias)


def losses_and_errors(rows: Rows, weights: Array, bias: Array) -> tuple[Array, Array]:
    """Cross-entropy of every row of a chunk [c], and its gradient by the logits [c, k]."""
    logits = jnp.matmul(rows.x, weights, precision=_PRECISION) + bias
    is_own, is_row = jnp.arange(len(bias)) == rows.ids[:, None], rows.ids >= 0
    top = logits.max(1, keepdims=True)
    powers = jnp.exp(logits - top)
    norm = powers.sum(1, keepdims=True)
    own = jnp.sum(jnp.where(is_own, logits, 0.0), axis=1)
    losses = jnp.where(is_row, (top + jnp.log(norm))[:, 0] - own, 0.0)
    return losses, jnp.where(is_row[:, None], powers / norm - is_own, 0.0)


def classify(x: np.ndarray, labels: np.ndarray, linear: Linear, *, mesh: Mesh) -> np.ndarray:
    """Place of the right class of every row among all classes, `[n]` from 0; `NEVER` for NaN.

    A class with the same logit comes before the right one.

    Args:
      x: `[n, d]`.
      labels: `[n]`.
      linear: the classifier.
      mesh: whose devices share the rows.
    """
    classes = {"weights": linear.weights.T, "bias": linear.bias}
    found = search({"x": x}, classes, score=_logits, mesh=mesh, right=labels[:, None])
    return np.where(np.isfinite(x).all(1), found.rank, NEVER)


def _logits(queries: Features, classes: Features) -> Array:
    product = jnp.matmul(queries["x"], classes["weights"].T, precision=_PRECISION)
    return product + classes["bias"]
