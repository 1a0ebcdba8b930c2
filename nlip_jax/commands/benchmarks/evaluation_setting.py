"""What `benchmark evaluation` evaluates: embeddings that are there already, and their sets."""

import dataclasses
from typing import Any

import jax
import numpy as np

from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.labelled import LabelledSet
from nlip_jax.data.loading import LoadImage, LoadText
from nlip_jax.evaluators.base import Towers
from nlip_jax.methods.base import Features
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.sharding import make_mesh
from nlip_jax.train.map_examples import Collected


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of all measurements; the defaults are those of the papers' sets.

    Attributes:
      dim: of embeddings.
      classes: of labelled images, about as many as ImageNet has.
      noise: length of what an image adds to the direction of its class; at 4 a probe finds two
        thirds of the classes.
      images: labelled, for zero-shot classification and for training probes.
      test_images: labelled, for probes and neighbours.
      templates: prompts of a class.
      queries: images of retrieval, and of captioning; COCO's 5K.
      captions_per_image: of these.
      token_images: images whose tokens meet those of captions.
      token_captions: those captions.
      image_tokens: of an image: 7 x 7 patches and one of the class.
      text_tokens: of a caption.
      token_dim: of a token, FILIP's.
      regularisation: 1/C of scikit-learn's logistic regression.
      sklearn_iterations: of scikit-learn, at most; as many as bring it within 0.1 % of the least
        objective at the other defaults.
      kmeans_iterations: of both sides.
      neighbours: of k-NN.
    """

    dim: int = 512
    classes: int = 1000
    noise: float = 4.0
    images: int = 50_000
    test_images: int = 5000
    templates: int = 80
    queries: int = 5000
    captions_per_image: int = 5
    token_images: int = 250
    token_captions: int = 1000
    image_tokens: int = 50
    text_tokens: int = 32
    token_dim: int = 256
    regularisation: float = 0.1
    sklearn_iterations: int = 67
    kmeans_iterations: int = 10
    neighbours: int = 20


@dataclasses.dataclass(frozen=True)
class Blank:
    """Images and captions of which nothing but their number is ever asked."""

    num_images: int
    captions: tuple[str, ...] = ()
    captions_per_image: int = 1
    fingerprint: str = "blank"

    def __len__(self) -> int:
        return self.num_images * self.captions_per_image

    def image_id(self, example_id: int) -> int:
        """Captions of an image follow one another."""
        return example_id // self.captions_per_image

    def image_ids(self, example_ids: np.ndarray) -> np.ndarray:
        """Of many captions."""
        return example_ids // self.captions_per_image

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """Of an example."""
        del epoch
        return self.captions[example_id]


class Ready:
    """Stands for a pass over a data set whose results are there: `collect` of `Towers`.

    Args:
      images: features of all images.
      texts: features of all texts, in the order in which they are asked for.
    """

    def __init__(self, images: Features, texts: Features) -> None:
        self.images, self.texts, self.place = images, texts, 0

    def __call__(
        self, function: Any, variables: Any, *, load: Any, num_examples: int, batch_size: int
    ) -> Collected:
        """The features of what `load` would load."""
        del function, variables, batch_size
        found = self.images
        if not isinstance(load, LoadImage):
            total = len(next(iter(self.texts.values())))
            part = slice(self.place, self.place + num_examples)
            self.place = (self.place + num_examples) % total if isinstance(load, LoadText) else 0
            found = {name: values[part] for name, values in self.texts.items()}
        return Collected(found, np.zeros(num_examples, bool))


def towers_of(images: Features, texts: Features, similarity: FeatureSimilarity) -> Towers:
    """Towers whose embeddings exist, over all devices."""
    return Towers(
        variables={},
        image_features=lambda variables, images: {},
        text_features=lambda variables, tokens: {},
        similarity=similarity,
        tokenizer=None,
        transform=ImageTransform(size=1),
        collect=Ready(images, texts),
        batch_size=jax.device_count(),
        mesh=make_mesh(),
    )


def classes_like_images(
    num: int, *, classes: int, dim: int, noise: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1 that are as hard to tell apart as images are, and their classes.

    A direction for each class and noise, a spectrum that falls as embeddings' do, and an offset
    that all share, as embeddings lie in a cone.

    Args:
      num: rows.
      classes: their number.
      dim: of a row.
      noise: its length beside directions of length 1.
      seed: of the noise; the directions are the same for all seeds.

    Returns:
      `[num, dim]` float32 and `[num]` int32.
    """
    centres = _unit(np.random.default_rng(0).standard_normal((classes, dim), np.float32))
    rng = np.random.default_rng((1, seed))
    labels = rng.integers(0, classes, num).astype(np.int32)
    x = centres[labels] + np.float32(noise / dim**0.5) * rng.standard_normal((num, dim), np.float32)
    spectrum = (1 + np.arange(dim)) ** -0.5
    x *= (spectrum / np.sqrt(np.mean(spectrum**2))).astype(np.float32)
    x += np.float32(0.5 / dim**0.5) * np.linalg.norm(x, axis=1, keepdims=True)
    return _unit(x), labels


def labelled(labels: np.ndarray, *, classes: int, templates: int = 0) -> LabelledSet:
    """A labelled set of images of which only the embeddings exist."""
    return LabelledSet(
        source=Blank(len(labels)),
        labels=labels,
        class_names=tuple(f"class {i}" for i in range(classes)),
        templates=tuple(f"template {i} of a {{}}" for i in range(templates)),
    )


def near(rows: np.ndarray, *, repeat: int, noise: float, seed: int) -> np.ndarray:
    """Unit vectors around given ones, several for each in turn.

    Args:
      rows: `[n, d]` of length 1.
      repeat: how many around each.
      noise: length of what is added.
      seed: of it.
    """
    rng = np.random.default_rng((2, seed))
    size = len(rows) * repeat, rows.shape[1]
    moved = rng.standard_normal(size, np.float32) * np.float32(noise / rows.shape[1] ** 0.5)
    moved += np.repeat(rows, repeat, axis=0)
    return _unit(moved)


def _unit(x: np.ndarray) -> np.ndarray:
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return x
