"""Few-shot classification: linear probes trained on a few images of every class."""

import dataclasses

import numpy as np

from nlip_jax.data.labelled import LabelledSet
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.linear_probe import Lbfgs
from nlip_jax.evaluators.logistic import classify, make_problem
from nlip_jax.evaluators.probe_rows import (
    check_classes,
    check_features,
    draw_shots,
    read_rows,
)
from nlip_jax.evaluators.zero_shot import per_class
from nlip_jax.outcome import Curve, Outcome, Samples

_MAX_VALIDATION_SHOTS = 4  # of a class, as in CoOp (arXiv 2109.01134)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShot:
    """Several numbers of images a class, each drawn several times.

    Attributes:
      train: where they are drawn from; every class that occurs has enough images.
      test: has the same classes; images that cannot be read count as wrong.
      features: one of `FEATURES`.
      num_shots: images a class.
      num_seeds: draws for each of those.
      seed: of the first draw; the others follow.
      probe: how a classifier is trained. Without a regularisation it is swept on as many other
        images of every class as there are shots, at most 4 (CoOp), for each draw.
    """

    train: LabelledSet
    test: LabelledSet
    features: str = "embed"
    num_shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    num_seeds: int = 3
    seed: int = 0
    probe: Lbfgs = dataclasses.field(default_factory=Lbfgs)

    def __post_init__(self) -> None:
        check_features(self.features)
        check_classes(self.train, self.test)
        if not self.num_shots or min(self.num_shots) < 1:
            raise UsageError(f"num_shots={self.num_shots}: numbers of images from 1 on are needed")
        if self.num_seeds < 1:
            raise UsageError(f"num_seeds={self.num_seeds}: at least 1 draw is needed")
        self._check_counts(self.train.labels)

    @property
    def fingerprint(self) -> str:
        """Of the images that are measured: however a classifier came to be, it answers for them."""
        return self.test.fingerprint

    def run(self, towers: Towers) -> Outcome:
        """Mean and standard deviation of the accuracy over the draws, by number of shots."""
        train = read_rows(towers, self.train, self.features).readable()
        self._check_counts(train.labels)
        test = read_rows(towers, self.test, self.features)
        num_classes, mesh = self.test.num_classes, towers.mesh
        metrics, samples, points = {}, {}, []
        for shots in sorted(set(self.num_shots)):
            hits = []
            for seed in range(self.seed, self.seed + self.num_seeds):
                drawn = train.take(draw_shots(train.labels, shots=shots, seed=seed))
                regularisation, start = self.probe.regularisation, None
                if regularisation == 0:
                    others = draw_shots(
                        train.labels, shots=_validation_shots(shots), seed=seed, skip=shots
                    )
                    regularisation, start, _ = self.probe.sweep(
                        drawn, train.take(others), num_classes=num_classes, mesh=mesh
                    )
                problem = make_problem(drawn.x, drawn.labels, num_classes=num_classes, mesh=mesh)
                fit = self.probe.fit(problem, regularisation, start=start)
                rank = classify(test.x, test.labels, fit.linear, mesh=mesh)
                hits.append(rank < 1)
            name, of_draws = f"{shots}_shots/top1", np.mean(hits, axis=1)
            samples[name] = Samples(values=np.mean(hits, axis=0))
            metrics[name] = float(samples[name].values.mean())
            metrics[f"{name}_std"] = float(of_draws.std())
            points.append((float(shots), metrics[name]))
        curve = Curve(
            title="Accuracy over images a class",
            x_label="images a class",
            y_label="accuracy",
            points=tuple(points),
            log_x=True,
        )
        return Outcome(
            metrics=metrics,
            samples=samples,
            headline=name,
            exhibits=(curve, per_class(rank, test.labels, self.test.class_names)),
        )

    def _check_counts(self, labels: np.ndarray) -> None:
        """Refuses a class with too few images."""
        most = max(self.num_shots)
        extra = 0 if self.probe.regularisation else _validation_shots(most)
        counts = np.bincount(labels, minlength=self.train.num_classes)
        scarce = np.flatnonzero((counts > 0) & (counts < most + extra))
        if len(scarce):
            name = self.train.class_names[scarce[0]]
            more = f" and {extra} to choose the regularisation on" if extra else ""
            raise UsageError(
                f"num_shots={self.num_shots}: class {name!r} has {counts[scarce[0]]} training "
                f"images ({len(scarce)} classes have too few), and {most} shots{more} are needed; "
                "ask for fewer shots" + (", or set regularisation to a number" if extra else "")
            )


def _validation_shots(shots: int) -> int:
    return min(shots, _MAX_VALIDATION_SHOTS)
