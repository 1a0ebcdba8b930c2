"""A dual encoder that finds the concepts of images: the model in training, or another one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Sharding

from nlip_jax.methods.base import Features
from nlip_jax.methods.retrieval import embed_words, retrieve
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.types import Array, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImportedEncoder:
    """A dual encoder that stays as it is.

    Attributes:
      variables: of the model.
      image_features: (variables, images [b, h, w, 3] uint8) -> features.
      text_features: (variables, tokens [b, l]) -> features.
      similarity: of these.
    """

    variables: PyTree
    image_features: Callable[[PyTree, Array], Features]
    text_features: Callable[[PyTree, Array], Features]
    similarity: FeatureSimilarity


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Retriever:
    """Finds the words that are most similar to an image.

    Attributes:
      word_rows: `[q, l]` int32, prompted words as rows of the encoder's tokenizer.
      top_k: words of each image.
      encoder: that compares; None: the method's own model, as far as it is trained.
      words_at_a_time: that are embedded together; divides over the devices.
      sharding: of the words' features; None: as they come.
    """

    word_rows: np.ndarray
    top_k: int
    encoder: ImportedEncoder | None = None
    words_at_a_time: int = 256
    sharding: Sharding | None = None

    def prepare(self, method: Any, variables: PyTree) -> dict[str, PyTree]:
        """What `find` looks at: variables of the encoder, features of all words.

        Args:
          method: whose model is in training.
          variables: of that model.
        """
        encoder = self.encoder or method
        variables = variables if self.encoder is None else self.encoder.variables
        words = embed_words(
            *(encoder.text_features, variables, self.word_rows),
            batch=self.words_at_a_time,
            sharding=self.sharding,
        )
        return {"variables": variables, "words": words}

    def find(self, method: Any, retrieval: dict[str, PyTree], image: Array) -> Array:
        """The words of images, the most similar first.

        Args:
          method: as of `prepare`.
          retrieval: what that returned.
          image: `[b, h, w, 3]` uint8.

        Returns:
          `[b, top_k]` int32 numbers of words from 0; -1 where there are fewer.
        """
        encoder = self.encoder or method
        images = encoder.image_features(retrieval["variables"], image)
        return retrieve(
            images, retrieval["words"], similarity=encoder.similarity, top_k=self.top_k
        )
