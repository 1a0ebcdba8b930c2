"""Labelled sets whose features are rows of a table, for probes, neighbours and clusters."""

import dataclasses

import numpy as np
from fakes import Numbered, towers

from nlip_jax.data.failures import ReadError
from nlip_jax.data.labelled import LabelledSet
from nlip_jax.evaluators.base import Towers


@dataclasses.dataclass(frozen=True)
class Rows(Numbered):
    """Images first, first + 1, ... of the table; some of them cannot be read."""

    first: int = 0
    broken: tuple[int, ...] = ()

    def picture(self, image_id: int) -> np.ndarray:
        if image_id in self.broken:
            raise ReadError("truncated_image", "half of it")
        return super().picture(self.first + image_id)


def labelled(labels, *, first: int = 0, classes: int, broken: tuple[int, ...] = ()) -> LabelledSet:
    source = Rows(
        num_images=len(labels), fingerprint=f"{first} {broken}", first=first, broken=broken
    )
    names = tuple(f"class {i}" for i in range(classes))
    return LabelledSet(source=source, labels=np.asarray(labels, np.int32), class_names=names)


def towers_of(table: np.ndarray, **fields) -> Towers:
    """At most 256 rows: a pixel says which."""
    return towers(np.asarray(table, np.float32), np.zeros((1, 2), np.float32), **fields)


def blobs(num: int, *, classes: int, dim: int = 8, noise: float = 0.5, seed: int = 0):
    """Unit vectors around a direction of each class, and the classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % classes
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    x = centres[labels] + noise * rng.normal(size=(num, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels
