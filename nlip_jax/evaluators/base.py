"""What evaluators work with: the trained towers and a way to run them over a data set."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.loading import LoadCaption, Loader, LoadImage, LoadText
from nlip_jax.data.source import Source
from nlip_jax.data.text.tokenizer import PAD, Tokenizer
from nlip_jax.errors import RunError
from nlip_jax.evaluators.search import Found, ImagesToTexts, TextsToImages, search
from nlip_jax.methods.base import Features
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.outcome import Outcome
from nlip_jax.types import PyTree

_CACHE_BYTES = 4 << 30  # of features kept for other evaluators of the same images


class Evaluator(Protocol):
    """Measures a model on one set."""

    def run(self, towers: "Towers") -> Outcome:
        """All that was found; the same on all processes, which call it alike."""
        ...


@functools.lru_cache(maxsize=16)
def _of_field(features: Callable, field: str) -> Callable[[PyTree, dict], Features]:
    """The features of one field of a batch; one function a tower, so that it is compiled once."""
    return lambda variables, batch: features(variables, batch[field])


@functools.lru_cache(maxsize=16)
def _caption_rows(caption: Callable) -> Callable[[PyTree, dict], jax.Array]:
    """The captions of a batch of images, `[b, l]`: as floats, for NaN says "not read"."""
    return lambda variables, batch: caption(variables, batch["image"]).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Towers:
    """A trained model as evaluators see it.

    Features of images are kept, so that several evaluators of the same images embed them once.

    Attributes:
      variables: of the model: "params" and statistics.
      image_features: (variables, images [b, h, w, 3]) -> features.
      pooled_features: (variables, images) -> {"pooled": [b, width]}, before the projection; None
        for a model that has none.
      text_features: (variables, tokens [b, l]) -> features.
      similarity: how images and texts are compared.
      tokenizer: of the texts.
      transform: of the images, without augmentation.
      collect: the primitive that runs a function over a data set (`Mapper.collect`).
      batch_size: global.
      mesh: whose devices search.
      caption: (variables, images [b, h, w, 3] uint8) -> rows of the tokenizer, [b, l] int32; None
        for a model that makes no captions.
    """

    variables: PyTree
    image_features: Callable[[PyTree, jax.Array], Features]
    text_features: Callable[[PyTree, jax.Array], Features]
    similarity: FeatureSimilarity
    tokenizer: Tokenizer
    transform: ImageTransform
    collect: Callable[..., PyTree]
    batch_size: int
    mesh: Mesh
    pooled_features: Callable[[PyTree, jax.Array], Features] | None = None
    caption: Callable[[PyTree, jax.Array], jax.Array] | None = None
    _kept: dict[tuple[str, str], Features] = dataclasses.field(default_factory=dict, repr=False)

    def embed_images(self, source: Source) -> Features:
        """Features of all images of a source, `[num_images, ...]` on the host; NaN if unreadable.

        Raises:
          RunError: features of images that could be read are not finite.
        """
        return self._of_images("embedded", self.image_features, source)

    def pool_images(self, source: Source) -> np.ndarray:
        """The image tower's own features, before the projection, `[num_images, width]`."""
        return self._of_images("pooled", self.pooled_features, source)["pooled"]

    def embed_captions(self, source: Source) -> Features:
        """Features of all captions of a source, `[n, ...]` on the host.

        Raises:
          RunError: features of captions that could be read are not finite.
        """
        return self._embed(
            _of_field(self.text_features, "tokens"),
            load=LoadCaption(source=source, tokenizer=self.tokenizer),
            count=len(source),
            what="captions",
        )

    def embed_texts(self, texts: list[str]) -> Features:
        """Features of texts, `[n, ...]` on the host.

        Raises:
          RunError: they are not finite.
        """
        return self._embed(
            _of_field(self.text_features, "tokens"),
            load=LoadText(texts=tuple(texts), tokenizer=self.tokenizer),
            count=len(texts),
            what="texts",
        )

    def caption_images(self, source: Source) -> list[str]:
        """The model's captions of all images, `[num_images]`; empty where one cannot be read."""
        found = self.collect(
            _caption_rows(self.caption),
            self.variables,
            load=LoadImage(source=source, transform=self.transform.without_augmentation()),
            num_examples=source.num_images,
            batch_size=self.batch_size,
        )
        rows = np.nan_to_num(found.values, nan=PAD).astype(np.int32)
        return [self.tokenizer.decode(row) for row in rows]

    def search_texts(self, images: Features, texts: Features, **options: Any) -> Found:
        """Searches texts for every image; options as `search`'s."""
        score = ImagesToTexts(self.similarity)
        return search(
            *(self.needed(images), self.needed(texts)), score=score, mesh=self.mesh, **options
        )

    def search_images(self, texts: Features, images: Features, **options: Any) -> Found:
        """Searches images for every text; options as `search`'s."""
        score = TextsToImages(self.similarity)
        return search(
            *(self.needed(texts), self.needed(images)), score=score, mesh=self.mesh, **options
        )

    def needed(self, features: Features) -> Features:
        """The features that the similarity looks at, so that no others travel to the devices."""
        if not self.similarity.uses_tokens:
            return {n: v for n, v in features.items() if n.endswith("_embed")}
        return {n: v for n, v in features.items() if n.endswith(("_tokens", "_mask"))}

    def _of_images(self, kind: str, features: Callable, source: Source) -> Features:
        key = kind, source.fingerprint
        if key not in self._kept:
            found = self._embed(
                _of_field(features, "image"),
                load=LoadImage(source=source, transform=self.transform.without_augmentation()),
                count=source.num_images,
                what="images",
            )
            self._kept[key] = found
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > _CACHE_BYTES:
                del self._kept[next(iter(self._kept))]
        return self._kept[key]

    def _embed(
        self, features: Callable[[PyTree, dict], Features], *, load: Loader, count: int, what: str
    ) -> Features:
        found = self.collect(
            features,
            self.variables,
            load=load,
            num_examples=count,
            batch_size=self.batch_size,
        )
        broken = sum(_is_broken(found.values, missing=found.is_missing))
        if broken:
            raise RunError(
                f"{broken} of {count} {what} have features that are not finite: the parameters "
                "are broken; evaluate an earlier checkpoint, or train again with a lower "
                "config.optimizer.learning_rate"
            )
        return found.values


def _is_broken(features: Features, *, missing: np.ndarray) -> np.ndarray:
    """Which rows have a number that is not finite, of those that were read."""
    bad = np.zeros(len(missing), bool)
    for values in features.values():
        if np.issubdtype(values.dtype, np.floating):
            bad |= ~np.isfinite(values).reshape(len(values), -1).all(1)
    return bad & ~missing


def _bytes(features: Features) -> int:
    return sum(values.nbytes for values in features.values())
