"""What probes, neighbours and clusters look at: the features of two labelled sets, as rows."""

import dataclasses

import numpy as np

from nlip_jax.data.labelled import LabelledSet
from nlip_jax.errors import RunError, UsageError
from nlip_jax.evaluators.base import Towers

# "embed": the embedding that the contrastive loss saw, of length 1; "pooled": what the image tower
# says before its projection, as it is (CLIP and ProtoCLIP probe these).
FEATURES = ("embed", "pooled")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ProbeRows:
    """Features of images with their classes.

    Attributes:
      x: `[n, d]` float32; NaN where the image could not be read.
      labels: `[n]` int32.
    """

    x: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def readable(self) -> "ProbeRows":
        """Those whose image could be read.

        Raises:
          RunError: none could be.
        """
        is_read = np.isfinite(self.x).all(1)
        if not is_read.any():
            raise RunError("no image of this labelled set could be read; look at its files")
        return self if is_read.all() else self.take(np.flatnonzero(is_read))

    def take(self, rows: np.ndarray) -> "ProbeRows":
        """The rows of these numbers."""
        return ProbeRows(x=self.x[rows], labels=self.labels[rows])

    def normalized(self) -> "ProbeRows":
        """Rows of length 1; embeddings have it already, up to rounding."""
        length = np.linalg.norm(self.x, axis=1, keepdims=True)
        return dataclasses.replace(self, x=self.x / np.maximum(length, 1e-12))


def check_features(features: str) -> None:
    """Refuses unknown features.

    Raises:
      UsageError: naming the choices.
    """
    if features not in FEATURES:
        raise UsageError(f"features={features!r}: choose one of {', '.join(FEATURES)}")


def check_classes(train: LabelledSet, test: LabelledSet) -> None:
    """Refuses a training and a test set with different classes.

    Raises:
      UsageError: naming the first difference.
    """
    if train.class_names == test.class_names:
        return
    pairs = zip(train.class_names, test.class_names, strict=False)
    first = next((f"{i}: {a!r} and {b!r}" for i, (a, b) in enumerate(pairs) if a != b), "")
    raise UsageError(
        f"train has {train.num_classes} classes and test has {test.num_classes}"
        + (f"; they differ first in class {first}" if first else "")
        + ": both must have the same class names in the same order"
    )


def read_rows(towers: Towers, labelled: LabelledSet, features: str) -> ProbeRows:
    """The features of a labelled set; all processes call it alike.

    Args:
      towers: the trained model.
      labelled: the images and their classes.
      features: one of `FEATURES`.

    Raises:
      UsageError: the model has no such features.
    """
    if features == "embed":
        found = towers.embed_images(labelled.source)
        if "image_embed" not in found:
            raise UsageError("features='embed': this model has no pooled embedding of an image")
        x = found["image_embed"]
    else:
        if towers.pooled_features is None:
            raise UsageError("features='pooled': this model has none; set features='embed'")
        x = towers.pool_images(labelled.source)
    return ProbeRows(x=np.asarray(x, np.float32), labels=np.asarray(labelled.labels, np.int32))


def split_rows(labels: np.ndarray, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows at random, every class alike.

    Args:
      labels: `[n]`.
      share: of each class that goes to the second part, rounded; at least one row of every class
        stays in the first.
      seed: of the draw.

    Returns:
      Row numbers of both parts, ascending.
    """
    order = _shuffled_by_class(labels, seed=seed)
    place, counts = _place_in_class(labels[order]), np.bincount(labels)
    held_out = np.minimum(np.round(share * counts), counts - 1)
    is_second = place < held_out[labels[order]]
    return np.sort(order[~is_second]), np.sort(order[is_second])


def draw_shots(labels: np.ndarray, *, shots: int, seed: int, skip: int = 0) -> np.ndarray:
    """So many rows of every class that occurs, at random; the row numbers, ascending.

    Draws of one seed agree: those of 2 shots hold those of 1 shot.

    Args:
      labels: `[n]`; every class that occurs has at least `skip + shots` rows.
      shots: rows of each class.
      seed: of the draw.
      skip: rows of each class that come first in the draw and are left out.
    """
    order = _shuffled_by_class(labels, seed=seed)
    place = _place_in_class(labels[order])
    return np.sort(order[(place >= skip) & (place < skip + shots)])


def _shuffled_by_class(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """Row numbers class by class, shuffled inside of each."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return order[np.argsort(labels[order], kind="stable")]


def _place_in_class(ordered: np.ndarray) -> np.ndarray:
    """How many rows of the same class come before each, of labels in ascending order."""
    return np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
