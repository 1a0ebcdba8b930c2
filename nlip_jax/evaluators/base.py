"""What evaluators work with: the trained towers and a way to run them over a data set."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import numpy as np

from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.loading import LoadCaption, Loader, LoadImage, LoadText
from nlip_jax.data.source import Source
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.losses.similarity import Similarity
from nlip_jax.methods.base import Features
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.types import PyTree

_MAX_BLOCK = 512  # images and texts scored at a time, fewer where tokens are compared
_MAX_SIMILARITIES = 1 << 26  # of the tokens of such a block: 256 MB


@functools.lru_cache(maxsize=16)
def _of_field(features: Callable, field: str) -> Callable[[PyTree, dict], Features]:
    """The features of one field of a batch; one function a tower, so that it is compiled once."""
    return lambda params, batch: features(params, batch[field])


@functools.lru_cache(maxsize=4)
def _compile(similarity: FeatureSimilarity) -> Callable[[Features, Features], Similarity]:
    return jax.jit(similarity.score)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Towers:
    """A trained model as evaluators see it.

    Attributes:
      params: of the model.
      image_features: (params, images [b, h, w, 3]) -> features.
      text_features: (params, tokens [b, l]) -> features.
      similarity: how images and texts are compared.
      tokenizer: of the texts.
      transform: of the images, without augmentation.
      collect: the primitive that runs a function over a data set (`Mapper.collect`).
      batch_size: global.
    """

    params: PyTree
    image_features: Callable[[PyTree, jax.Array], Features]
    text_features: Callable[[PyTree, jax.Array], Features]
    similarity: FeatureSimilarity
    tokenizer: Tokenizer
    transform: ImageTransform
    collect: Callable[..., PyTree]
    batch_size: int

    def embed_images(self, source: Source) -> Features:
        """Features of all images of a source, `[num_images, ...]` on the host."""
        return self._embed(
            _of_field(self.image_features, "image"),
            load=LoadImage(source=source, transform=self.transform.without_augmentation()),
            count=source.num_images,
        )

    def embed_captions(self, source: Source) -> Features:
        """Features of all captions of a source, `[n, ...]` on the host."""
        return self._embed(
            _of_field(self.text_features, "tokens"),
            load=LoadCaption(source=source, tokenizer=self.tokenizer),
            count=len(source),
        )

    def embed_texts(self, texts: list[str]) -> Features:
        """Features of texts, `[n, ...]` on the host."""
        return self._embed(
            _of_field(self.text_features, "tokens"),
            load=LoadText(texts=tuple(texts), tokenizer=self.tokenizer),
            count=len(texts),
        )

    def score(self, images: Features, texts: Features) -> Similarity:
        """Similarities of all images and texts, block by block, on the host in float32.

        Returns:
          per_row `[images, texts]`, as images see texts, and per_column `[images, texts]`, as texts
          see images; NumPy arrays.
        """
        num_images, num_texts = _length(images), _length(texts)
        per_row, per_column = np.empty((2, num_images, num_texts), np.float32)
        score, size = _compile(self.similarity), _block_size(images, texts)
        for i in range(0, num_images, size):
            for t in range(0, num_texts, size):
                block = score(_rows(images, i, size), _rows(texts, t, size))
                place = slice(i, i + size), slice(t, t + size)
                for whole, part in ((per_row, block.per_row), (per_column, block.per_column)):
                    shape = whole[place].shape
                    whole[place] = np.asarray(part)[: shape[0], : shape[1]]
        return Similarity(per_row=per_row, per_column=per_column)

    def _embed(
        self, features: Callable[[PyTree, dict], Features], *, load: Loader, count: int
    ) -> Features:
        return self.collect(
            features, self.params, load=load, num_examples=count, batch_size=self.batch_size
        )


def _length(features: Features) -> int:
    return len(next(iter(features.values())))


def _block_size(images: Features, texts: Features) -> int:
    """Rows scored at a time: all tokens of an image may meet all tokens of a text."""
    tokens = [
        math.prod(max(value.shape[1:-1] for value in features.values()))
        for features in (images, texts)
    ]
    return max(1, min(_MAX_BLOCK, math.isqrt(_MAX_SIMILARITIES // math.prod(tokens))))


def _rows(features: Features, start: int, size: int) -> Features:
    """A block of rows, filled up by repeating the last one so that one shape is compiled."""
    size = min(size, _length(features))
    take = np.minimum(np.arange(start, start + size), _length(features) - 1)
    return {name: values[take] for name, values in features.items()}
