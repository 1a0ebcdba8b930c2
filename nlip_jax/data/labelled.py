"""Labelled images: what zero-shot classification, probes, neighbours and clustering look at."""

import hashlib
from dataclasses import dataclass

import numpy as np

from nlip_jax.data.source import Source
from nlip_jax.errors import UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledSet:
    """Images with one class each.

    Attributes:
      source: the images; image i has label i.
      labels: `[num_images]` int32, index into `class_names`.
      class_names: of the classes, as prompts name them.
      templates: prompts with `{}` where the name goes; empty where nobody asked for any.
      metric: by which the set is reported: top1, top5 or mean_per_class.

    Raises:
      UsageError: no images, or labels that do not fit.
    """

    source: Source
    labels: np.ndarray
    class_names: tuple[str, ...]
    templates: tuple[str, ...] = ()
    metric: str = "top1"

    def __post_init__(self) -> None:
        if not len(self.labels):
            raise UsageError("this labelled set has no images")
        if len(self.labels) != self.source.num_images:
            raise UsageError(
                f"{len(self.labels)} labels for {self.source.num_images} images of a labelled set"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.class_names):
            raise UsageError(
                f"labels from {low} to {high} do not index {len(self.class_names)} class names"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes, those without images included."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal, of the images and their labels, however prompts name the classes."""
        digest = hashlib.sha256(self.source.fingerprint.encode())
        digest.update(np.asarray(self.labels, "<i4").tobytes())
        return digest.hexdigest()[:16]
