"""k-nearest-neighbour classification: an image has the class of the training images nearest to it.

Nearest is by cosine; of images as near the first of the training set comes first, and of classes
with as many votes the first of the class names, as in scikit-learn.
"""

import dataclasses

import numpy as np
from jax.sharding import Mesh

from nlip_jax.data.labelled import LabelledSet
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.logistic import NEVER
from nlip_jax.evaluators.probe_rows import (
    ProbeRows,
    check_classes,
    check_features,
    read_rows,
)
from nlip_jax.evaluators.search import cosine, search
from nlip_jax.evaluators.zero_shot import accuracies, per_class
from nlip_jax.outcome import Outcome, Samples

_MAX_VOTES = 1 << 22  # of a block of images: one for each class


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knn:
    """A training set and a test set.

    Attributes:
      train: has the same classes as `test`; images that cannot be read are left out.
      test: images that cannot be read count as wrong.
      features: one of `FEATURES`.
      num_neighbours: k.
      temperature: of the weighted vote, in which a neighbour counts exp(cosine / temperature)
        (Wu et al., arXiv 1805.01978; DINO).
    """

    train: LabelledSet
    test: LabelledSet
    features: str = "embed"
    num_neighbours: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_features(self.features)
        check_classes(self.train, self.test)
        if self.num_neighbours < 1:
            raise UsageError(f"num_neighbours={self.num_neighbours}: must be at least 1")
        if self.temperature <= 0:
            raise UsageError(f"temperature={self.temperature}: must be above 0")

    @property
    def fingerprint(self) -> str:
        """Of the images that are measured: however a classifier came to be, it answers for them."""
        return self.test.fingerprint

    def run(self, towers: Towers) -> Outcome:
        """Accuracies of the weighted vote, of the plain one, and of the nearest image (ALIGN)."""
        train = read_rows(towers, self.train, self.features).readable()
        test = read_rows(towers, self.test, self.features)
        return self.of_rows(train, test, mesh=towers.mesh)

    def of_rows(self, train: ProbeRows, test: ProbeRows, *, mesh: Mesh) -> Outcome:
        """The same of features that are there.

        Args:
          train: all of them readable.
          test: NaN where an image could not be read.
          mesh: whose devices search.
        """
        train, test = train.normalized(), test.normalized()
        classes, scores = nearest(train, test, k=self.num_neighbours, mesh=mesh)
        names, labels = self.test.class_names, test.labels
        # Of equal factors only ratios matter: the largest weight of an image is 1.
        weights = np.exp((scores - scores[:, :1]) / self.temperature)
        rank = place_by_votes(classes, weights, labels, num_classes=len(names))
        metrics, samples = accuracies(rank, labels)
        plain = place_by_votes(classes, np.ones_like(weights), labels, num_classes=len(names))
        others = {"majority_top1": plain < 1, "nearest_top1": classes[:, 0] == labels}
        for name, hits in others.items():
            samples[name] = Samples(values=hits.astype(np.float64))
            metrics[name] = float(hits.mean())
        return Outcome(
            metrics=metrics,
            samples=samples,
            headline="top1",
            exhibits=(per_class(rank, labels, names),),
        )


def nearest(
    train: ProbeRows, test: ProbeRows, *, k: int, mesh: Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """Classes `[n, k]` of the nearest training rows, -1 for none, and their cosines, float64.

    Args:
      train: rows of length 1.
      test: likewise, or NaN.
      k: neighbours; all there are where there are fewer.
      mesh: whose devices share the test rows.
    """
    found = search({"x": test.x}, {"x": train.x}, score=cosine, mesh=mesh, top=k)
    classes = np.where(found.best >= 0, train.labels[found.best], -1)
    return classes, found.scores.astype(np.float64)


def place_by_votes(
    classes: np.ndarray, weights: np.ndarray, labels: np.ndarray, *, num_classes: int
) -> np.ndarray:
    """Place of the right class by the votes of the neighbours, `[n]` from 0.

    Args:
      classes: `[n, k]` of the neighbours; -1 for none.
      weights: `[n, k]` of their votes.
      labels: `[n]` right classes.
      num_classes: of the set.

    Returns:
      How many classes come before; `NEVER` where no neighbour has the right class.
    """
    rank = np.full(len(labels), NEVER, np.int64)
    block = max(1, _MAX_VOTES // num_classes)
    ids = np.arange(num_classes)
    for start in range(0, len(labels), block):
        part = slice(start, start + block)
        own = labels[part, None]
        votes = np.zeros((len(own), num_classes))
        image, place = np.nonzero(classes[part] >= 0)
        np.add.at(votes, (image, classes[part][image, place]), weights[part][image, place])
        of_right = np.take_along_axis(votes, own, axis=1)
        before = (votes > of_right) | ((votes == of_right) & (ids < own))
        rank[part] = np.where(of_right[:, 0] > 0, before.sum(1), NEVER)
    return rank
