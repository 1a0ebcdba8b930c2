"""Linear probe: a linear classifier trained on the features of images, without touching the model.

The only evaluator that imports optax, whose L-BFGS solves the regression of `logistic.py`.
"""

import dataclasses
import functools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nlip_jax.data.labelled import LabelledSet
from nlip_jax.errors import UsageError
from nlip_jax.estimators.rows import Rows, replicate
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.logistic import (
    Linear,
    Problem,
    Scaling,
    classify,
    cross_entropy,
    make_problem,
)
from nlip_jax.evaluators.probe_rows import (
    ProbeRows,
    check_classes,
    check_features,
    read_rows,
    split_rows,
)
from nlip_jax.evaluators.regularisation import search_exponent
from nlip_jax.evaluators.zero_shot import accuracies, per_class
from nlip_jax.outcome import Curve, Outcome
from nlip_jax.types import Array

_PRECISION = jax.lax.Precision.HIGHEST
_MEMORY = 10  # pairs of L-BFGS, as in scikit-learn
_MAX_STALLED = 2  # steps in a row that float32 sees no decrease in


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Probed:
    """What a protocol found.

    Attributes:
      rank: `[n]` place of the right class of every test image.
      metrics: beside the accuracies.
      curve: how it got there; None for none.
    """

    rank: np.ndarray
    metrics: dict[str, float]
    curve: Curve | None


class ProbeProtocol(Protocol):
    """A way to train a linear classifier."""

    def run(self, train: ProbeRows, test: ProbeRows, *, num_classes: int, mesh: Mesh) -> Probed:
        """Trains on rows that are all readable and classifies all test rows."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A training set and a test set.

    Attributes:
      train: has the same classes as `test`.
      test: images that cannot be read count as wrong; in `train` they are left out.
      features: one of `FEATURES`.
      protocol: how the classifier is trained.
    """

    train: LabelledSet
    test: LabelledSet
    features: str = "embed"
    protocol: ProbeProtocol

    def __post_init__(self) -> None:
        check_features(self.features)
        check_classes(self.train, self.test)

    @property
    def fingerprint(self) -> str:
        """Of the images that are measured: however a classifier came to be, it answers for them."""
        return self.test.fingerprint

    def run(self, towers: Towers) -> Outcome:
        """top1, top5 and mean_per_class on the test set, and what the protocol tells of itself.

        The headline is the metric by which the test set is reported, as CLIP has it.
        """
        train = read_rows(towers, self.train, self.features).readable()
        test = read_rows(towers, self.test, self.features)
        found = self.protocol.run(
            train, test, num_classes=self.test.num_classes, mesh=towers.mesh
        )
        metrics, samples = accuracies(found.rank, test.labels)
        shown = per_class(found.rank, test.labels, self.test.class_names)
        return Outcome(
            metrics=metrics | found.metrics,
            samples=samples,
            headline=self.test.metric,
            exhibits=(shown,) if found.curve is None else (shown, found.curve),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lbfgs:
    """CLIP's protocol: logistic regression by full-batch L-BFGS.

    Attributes:
      regularisation: scikit-learn's 1/C: of the squared weights, against the sum of the rows'
        cross-entropies; over n rows that is regularisation / n against their mean. 0: CLIP's
        sweep on a validation split, then once more on all training rows.
      validation_share: of every class of the training rows that the sweep holds out.
      seed: of that split.
      tolerance: stop when so little of the objective is left to gain, as a share of it or of what
        was gained over weights of 0, whichever is less.
      max_iterations: of L-BFGS.
    """

    regularisation: float = 0.0
    validation_share: float = 0.2
    seed: int = 0
    tolerance: float = 1e-7
    max_iterations: int = 1000

    def run(self, train: ProbeRows, test: ProbeRows, *, num_classes: int, mesh: Mesh) -> Probed:
        """Also says the regularisation and the iterations of the last fit."""
        regularisation, start, curve = self.regularisation, None, None
        if regularisation == 0:
            first, second = split_rows(train.labels, share=self.validation_share, seed=self.seed)
            if not len(second):
                raise UsageError(
                    f"validation_share={self.validation_share} of the training images of each "
                    "class is none: set a larger share, or regularisation to a number"
                )
            regularisation, start, curve = self.sweep(
                train.take(first), train.take(second), num_classes=num_classes, mesh=mesh
            )
        problem = make_problem(train.x, train.labels, num_classes=num_classes, mesh=mesh)
        fit = self.fit(problem, regularisation, start=start)
        return Probed(
            rank=classify(test.x, test.labels, fit.linear, mesh=mesh),
            metrics={"regularisation": regularisation, "iterations": float(fit.iterations)},
            curve=curve,
        )

    def sweep(
        self, train: ProbeRows, validation: ProbeRows, *, num_classes: int, mesh: Mesh
    ) -> tuple[float, Linear, Curve]:
        """Finds the regularisation with the highest accuracy on validation rows.

        Every fit starts where that of the nearest regularisation before it ended.

        Returns:
          The regularisation, its classifier, and the accuracies.
        """
        problem = make_problem(train.x, train.labels, num_classes=num_classes, mesh=mesh)
        fits: dict[float, Linear] = {}

        def score(exponent: float) -> float:
            nearest = min(fits, key=lambda other: (abs(other - exponent), -other), default=None)
            start = None if nearest is None else fits[nearest]
            fits[exponent] = self.fit(problem, 10.0**exponent, start=start).linear
            rank = classify(validation.x, validation.labels, fits[exponent], mesh=mesh)
            return float(np.mean(rank < 1))

        best, scores = search_exponent(score)
        curve = Curve(
            title="Validation accuracy over regularisation",
            x_label="regularisation (1/C)",
            y_label="accuracy",
            points=tuple((10.0**exponent, value) for exponent, value in scores.items()),
            log_x=True,
        )
        return 10.0**best, fits[best], curve

    def fit(
        self, problem: Problem, regularisation: float, *, start: Linear | None = None
    ) -> "Fit":
        """Minimises the objective.

        Args:
          problem: the rows.
          regularisation: as the attribute, not 0.
          start: a classifier to begin with; None for weights of 0.
        """
        penalty = regularisation / problem.num_rows
        scaling, back = problem.scaling(penalty)
        shape = len(problem.mean), problem.num_classes
        weights, bias = np.zeros(shape, np.float32), np.zeros(shape[1], np.float32)
        if start is not None:
            weights, bias = start.weights, start.bias + problem.mean @ start.weights
        unknowns = back @ weights, bias / np.sqrt(np.float32(problem.num_classes))
        numbers = (
            np.float32(problem.num_rows),
            np.float32(penalty),
            np.float32(self.tolerance),
            np.int32(self.max_iterations),
        )
        put = functools.partial(replicate, mesh=problem.mesh)
        found = jax.device_get(
            _solve(
                problem.rows,
                scaling,
                jax.tree.map(put, unknowns),
                jax.tree.map(put, numbers),
                mesh=problem.mesh,
            )
        )
        weights, bias = found["weights"], found["bias"]
        return Fit(
            linear=Linear(weights=weights, bias=bias - problem.mean @ weights),
            objective=float(found["value"]),
            iterations=int(found["iterations"]),
            evaluations=int(found["evaluations"]),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A regression's solution.

    Attributes:
      linear: the classifier.
      objective: its mean cross-entropy plus penalty, in nats.
      iterations: of L-BFGS.
      evaluations: passes over all rows.
    """

    linear: Linear
    objective: float
    iterations: int
    evaluations: int


@functools.partial(jax.jit, static_argnames="mesh")
def _solve(
    rows: Rows,
    scaling: Scaling,
    unknowns: tuple[Array, Array],
    numbers: tuple[Array, Array, Array, Array],
    *,
    mesh: Mesh,
) -> dict[str, Array]:
    """All of L-BFGS in one loop, in the scaled unknowns."""
    num_rows, penalty, tolerance, most = numbers

    def linear(unknowns: tuple[Array, Array]) -> tuple[Array, Array]:
        weights = jnp.matmul(scaling.to_weights, unknowns[0], precision=_PRECISION)
        return weights, scaling.to_bias * unknowns[1]

    def objective(unknowns: tuple[Array, Array]) -> Array:
        weights, bias = linear(unknowns)
        loss = cross_entropy(rows, weights, bias, num_rows=num_rows, mesh=mesh)
        return loss + penalty / 2 * jnp.sum(weights**2)

    most_value = jnp.log(float(unknowns[1].size))
    # The unknowns are scaled: the first step is Newton's, not one of length 1.
    optimizer = optax.lbfgs(memory_size=_MEMORY, scale_init_precond=False)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry: dict) -> dict:
        unknowns, state = carry["unknowns"], carry["state"]
        value, gradient = value_and_grad(unknowns, state=state)
        updates, state = optimizer.update(
            gradient, state, unknowns, value=value, grad=gradient, value_fn=objective
        )
        search = state[-1]
        stalled = jnp.where(search.value < value, 0, carry["stalled"] + 1)
        # Half of the slope towards the minimum of L-BFGS's own quadratic model: what was left to
        # gain before this step.
        slope = sum(
            jnp.vdot(u, g, precision=_PRECISION)
            for u, g in zip(updates, gradient, strict=True)
        )
        left = -slope / (2 * search.learning_rate)
        # Under a strong penalty little is gained over weights of 0, and it is that which counts.
        scale = jnp.minimum(search.value, most_value - search.value)
        is_done = (jnp.abs(left) <= tolerance * scale) | (stalled >= _MAX_STALLED)
        return {
            "unknowns": optax.apply_updates(unknowns, updates),
            "state": state,
            "stalled": stalled,
            "iterations": carry["iterations"] + 1,
            "evaluations": carry["evaluations"] + search.info.num_linesearch_steps,
            "going": ~is_done & (carry["iterations"] + 1 < most),
        }

    start = {
        "unknowns": unknowns,
        "state": optimizer.init(unknowns),
        "stalled": jnp.int32(0),
        "iterations": jnp.int32(0),
        "evaluations": jnp.int32(1),
        "going": jnp.bool_(True),
    }
    end = jax.lax.while_loop(lambda carry: carry["going"], step, start)
    weights, bias = linear(end["unknowns"])
    found = {
        "weights": weights,
        "bias": bias,
        "value": end["state"][-1].value,
        "iterations": end["iterations"],
        "evaluations": end["evaluations"],
    }
    # On every host whole.
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, PartitionSpec()))
