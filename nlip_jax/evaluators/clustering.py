"""Clustering: whether k-means over the embeddings of images finds their classes again."""

import dataclasses

import numpy as np

from nlip_jax.data.labelled import LabelledSet
from nlip_jax.errors import UsageError
from nlip_jax.estimators.kmeans import INITS, kmeans
from nlip_jax.evaluators import partition_scores
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.probe_rows import check_features, read_rows
from nlip_jax.outcome import Outcome, Samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clustering:
    """One labelled set, in as many clusters as it has classes.

    Attributes:
      labelled: the images; those that cannot be read are left out.
      features: one of `FEATURES`; rows are brought to length 1.
      num_iterations: of k-means, at most.
      num_restarts: of k-means; the lowest objective is kept.
      init: of k-means, one of `INITS`.
      seed: of the first centroids.
    """

    labelled: LabelledSet
    features: str = "embed"
    num_iterations: int = 100
    num_restarts: int = 5
    init: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        check_features(self.features)
        if self.init not in INITS:
            raise UsageError(f"init={self.init!r}: choose one of {', '.join(INITS)}")
        if min(self.num_iterations, self.num_restarts) < 1:
            raise UsageError("num_iterations and num_restarts must be at least 1")
        if len(self.labelled.labels) < self.labelled.num_classes:
            raise UsageError(
                f"{self.labelled.num_classes} clusters of {len(self.labelled.labels)} images: "
                "clustering needs at least as many images as classes"
            )

    @property
    def fingerprint(self) -> str:
        """Of the images and their classes, whatever k-means is told."""
        return self.labelled.fingerprint

    def run(self, towers: Towers) -> Outcome:
        """ARI, AMI, NMI and purity of the clusters, and what k-means says of itself."""
        rows = read_rows(towers, self.labelled, self.features).readable().normalized()
        found = kmeans(
            rows.x,
            num_clusters=self.labelled.num_classes,
            mesh=towers.mesh,
            seed=self.seed,
            init=self.init,
            num_iterations=self.num_iterations,
            num_restarts=self.num_restarts,
        )
        table = partition_scores.contingency(rows.labels, found.labels)
        pure = partition_scores.in_largest(rows.labels, found.labels).astype(np.float64)
        metrics = {
            "ari": partition_scores.adjusted_rand_index(table),
            "ami": partition_scores.adjusted_mutual_information(table),
            "nmi": partition_scores.normalised_mutual_information(table),
            "purity": float(pure.mean()),
            "iterations": float(found.iterations),
            "mean_squared_distance": found.objective / len(rows),
        }
        return Outcome(
            metrics=metrics, samples={"purity": Samples(values=pure)}, headline="ari"
        )
