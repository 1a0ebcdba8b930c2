"""NLIP whole: a model of four parts that contrasts, captions and reconstructs.

L = ir_weight * L_IR + lm_weight * L_LM + itc_weight * L_NITC (Huang et al., AAAI 2023). Concepts
that a dual encoder finds for each image go to the captioner; the captions that it makes of all
images complete noisy texts.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax import phases
from nlip_jax.data.concepts.vocabulary import ConceptVocabulary
from nlip_jax.losses.language import caption_loss
from nlip_jax.losses.masked_image import reconstruction_loss
from nlip_jax.methods.base import Embedded, Episode, Features, Joined, scale_image
from nlip_jax.methods.captioner import Captioner
from nlip_jax.methods.nlip import Nlip
from nlip_jax.methods.retriever import Retriever
from nlip_jax.models.dropout import example_keys, fold
from nlip_jax.models.text_noise import infill
from nlip_jax.types import Array, Batch, LossOutput, PyTree, TrainState

# Beside those of `Nlip`; each part of the loss has random numbers of its own.
_INFILL_KEY, _CONCEPT_KEY, _CAPTION_KEY, _IMAGE_KEY, _RECONSTRUCT_KEY = 4, 5, 6, 0, 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextNoise:
    """What of its own text the captioner is shown in training.

    Attributes:
      rate: lower and upper share of the words that are masked.
      mean_span: words in a row behind one mask.
      drop: share of texts that are not shown at all.
      mask_id: token of a mask.
    """

    rate: tuple[float, float]
    mean_span: float
    drop: float
    mask_id: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class NlipWhole(Nlip):
    """NLIP on a `FourPart` model.

    Attributes:
      lm_weight: of the captioning loss; 0: there is none.
      ir_weight: of masked-image reconstruction; 0: there is none.
      lm_noise_weight: a pair counts as 1 - this * noise_prob in the captioning loss.
      lm_label_smoothing: of the captions' words.
      lm_stride: every so many-th pair goes through the captioning loss.
      text_noise: None without a captioning loss.
      concepts: words for what images show; None: the captioner is given none.
      concept_dropout: share of pairs that are trained without.
      retriever: finds the concepts of images; None without concepts.
      captioner: makes the synthetic texts; None without a captioning loss.
      evaluation_captioner: makes the captions that evaluators measure.
      seed: of the captions.
    """

    lm_weight: float = 1.0
    ir_weight: float = 1.0
    lm_noise_weight: float = 0.0
    lm_label_smoothing: float = 0.1
    lm_stride: int = 1
    text_noise: TextNoise | None = None
    concepts: ConceptVocabulary | None = None
    concept_dropout: float = 0.0
    concepts_in_itc: bool = False
    retriever: Retriever | None = None
    captioner: Captioner | None = None
    evaluation_captioner: Captioner | None = None
    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of `Nlip`, and the concepts."""
        return (*super().columns, *(("concept_tokens",) if self.concepts else ()))

    def joined(self, name: str) -> Joined:
        """Concepts are kept as their numbers from 1; a batch has their tokens."""
        if name != "concept_tokens":
            return super().joined(name)
        length = self.retriever.top_k * self.concepts.rows.shape[1]
        return Joined("concepts", (length,), np.int32, rows=self.concept_rows)

    def concept_rows(self, numbers: np.ndarray) -> np.ndarray:
        """Tokens of concepts: `[k, top_k]` numbers from 1, 0 for none, to `[k, c]` int32."""
        return self.concepts.tokens(numbers.astype(np.int32) - 1)

    # --- the loss ---------------------------------------------------------------------------------
    def encode_text(
        self, variables: PyTree, tokens: Array, batch: Batch, *, keys: Array | None
    ) -> Features:
        """Features of texts; of their concepts, too, with `concepts_in_itc`."""
        concepts = batch.get("concept_tokens") if self.concepts_in_itc else None
        return self.model.apply(variables, tokens, keys, concepts, method="encode_text")

    def embed_shown(
        self, params: PyTree, state: TrainState, batch: Batch, *, rng: Array | None
    ) -> Embedded:
        """Features; in training of masked images, whose tokens stay for the other losses."""
        variables = {"params": params, **state.model_state}
        keys = None if rng is None else example_keys(rng, batch["row"])
        images = self.model.apply(
            variables,
            *(scale_image(batch["image"]), fold(keys, _IMAGE_KEY)),
            method="encode_masked_image",
        )
        shown = batch.get("shown_tokens", batch["tokens"])
        texts = self.encode_text(variables, shown, batch, keys=fold(keys, 1))
        local = {name: images.pop(name) for name in ("image_memory", "visible")}
        return Embedded({**images, **texts}, state.model_state, local)

    def pair_loss(
        self, params: PyTree, features: Features, state: TrainState, batch: Batch
    ) -> LossOutput:
        """That of `Nlip`; told apart from the other losses in the metrics."""
        output = super().pair_loss(params, features, state, batch)
        itc_loss = output.loss / self.itc_weight if self.itc_weight else 0.0 * output.loss
        return output.replace(metrics={**output.metrics, "itc_loss": itc_loss})

    def example_loss(
        self,
        params: PyTree,
        features: Features,
        picks: PyTree,
        state: TrainState,
        batch: Batch,
        *,
        rng: Array,
    ) -> LossOutput | None:
        """Captioning and masked-image reconstruction; what has no weight is not computed."""
        del picks
        variables = {"params": params, **state.model_state}
        keys = example_keys(rng, batch["row"])
        loss, metrics = jnp.zeros((), jnp.float32), {}
        if self.lm_weight:
            memory, some, their_keys = jax.tree.map(
                self._strided,
                (features["image_memory"], dict(batch), keys),
            )
            of_each = self._caption_losses(variables, memory, some, keys=their_keys)
            metrics["lm_loss"] = jnp.mean(of_each)
            trust = 1.0 - self.lm_noise_weight * some["noise_prob"]
            loss += self.lm_weight * jnp.mean(trust * of_each)
        if self.ir_weight:
            of_each = self._image_losses(variables, features, batch, keys=keys)
            metrics["ir_loss"] = jnp.mean(of_each)
            loss += self.ir_weight * metrics["ir_loss"]
        return LossOutput(loss=loss, metrics=metrics) if metrics else None

    def _strided(self, rows: Array) -> Array:
        """Every `lm_stride`-th row; each device keeps to its own."""
        return rows.reshape(-1, self.lm_stride, *rows.shape[1:])[:, 0]

    def _caption_losses(
        self, variables: PyTree, image_memory: Array, batch: Batch, *, keys: Array
    ) -> Array:
        """L_LM of each pair, [b] nats a token: its own text from image, masked text, concepts."""
        noise = self.text_noise
        noised = infill(
            batch["tokens"],
            fold(keys, _INFILL_KEY),
            rate=noise.rate,
            mean_span=noise.mean_span,
            drop=noise.drop,
            mask_id=noise.mask_id,
        )
        concepts = batch.get("concept_tokens")
        if concepts is not None:
            chance = jax.vmap(jax.random.uniform)(fold(keys, _CONCEPT_KEY))
            concepts = jnp.where(chance[:, None] < self.concept_dropout, 0, concepts)
        hidden = self.model.apply(
            variables,
            *(image_memory, noised, concepts, batch["tokens"]),
            fold(keys, _CAPTION_KEY),
            method="caption_hidden",
        )
        table = self.model.apply(variables, method="output_table")
        return caption_loss(
            *(hidden, table, batch["tokens"][:, 1:]),
            label_smoothing=self.lm_label_smoothing,
            dtype=self.model.decoder.dtype,
        )

    def _image_losses(
        self, variables: PyTree, features: Features, batch: Batch, *, keys: Array
    ) -> Array:
        """L_IR of each image, [b]."""
        predicted = self.model.apply(
            variables,
            *(features["image_memory"], features["visible"], fold(keys, _RECONSTRUCT_KEY)),
            method="reconstruct",
        )
        image = scale_image(batch["image"])
        patch_size = self.model.image.patch_size
        return reconstruction_loss(predicted, image, features["visible"], patch_size=patch_size)

    # --- concepts and captions --------------------------------------------------------------------
    def find_concepts(self, state: TrainState, episode: Episode) -> TrainState:
        """The concepts of all images, as their numbers from 1 in the vocabulary; no gradient."""
        if not episode.column("concepts").is_done:
            phases.enter("concept_pass", episode=episode.index)
            given = self.retriever.prepare(self, {"params": state.params, **state.model_state})
            episode.map_examples("concepts", self.concept_numbers, given)
        return state

    def concept_numbers(self, retrieval: PyTree, batch: Batch) -> Array:
        """Concepts of images, [b, top_k] int32 from 1; see `Retriever.prepare`."""
        return self.retriever.find(self, retrieval, batch["image"]) + 1

    def make_captions(self, state: TrainState, episode: Episode) -> TrainState:
        """A caption for every image, as a row of tokens."""
        if not episode.column("synthetic_caption").is_done:
            phases.enter("caption_pass", episode=episode.index)
            given = {"params": state.params, **state.model_state}, np.int32(episode.index)
            join = ("concept_tokens",) if self.concepts else ()
            episode.map_examples("synthetic_caption", self.synthetic_captions, given, join=join)
        return state

    def synthetic_captions(self, given: tuple[PyTree, Array], batch: Batch) -> Array:
        """Captions of a batch, [b, l]; each from random numbers of its example and episode.

        Args:
          given: variables, and the number of the episode.
          batch: with "image", "example_id" and, with concepts, "concept_tokens".
        """
        variables, episode = given
        key = jax.random.fold_in(jax.random.key(self.seed), episode)
        keys = fold_words(key, batch["example_id"])
        rows = self.captioner(variables, batch["image"], batch.get("concept_tokens"), keys)
        # Half of the bytes for vocabularies that fit.
        return rows.astype(jnp.uint16 if self.model.text.vocab_size <= 1 << 16 else jnp.int32)

    def prepare_captions(self, variables: PyTree) -> PyTree:
        """Variables with what `caption` finds concepts by, as "retrieval"."""
        if self.retriever is None:
            return variables
        return {**variables, "retrieval": self.retriever.prepare(self, variables)}

    def caption(self, variables: PyTree, image: Array) -> Array:
        """Captions for evaluation, [b, l] int32, of images [b, h, w, 3] uint8."""
        concepts = None
        if self.retriever is not None:
            numbers = self.retriever.find(self, variables["retrieval"], image)
            concepts = self.tokens_of(numbers)
        variables = {name: value for name, value in variables.items() if name != "retrieval"}
        keys = image_keys(jax.random.key(self.seed), image)
        return self.evaluation_captioner(variables, image, concepts, keys)

    def tokens_of(self, numbers: Array) -> Array:
        """Tokens of concepts on the devices: `[b, k]` numbers from 0, -1 for none, to `[b, c]`."""
        table = jnp.asarray(np.pad(self.concepts.rows, [(1, 0), (0, 0)]))
        return table[numbers + 1].reshape(len(numbers), -1)


def image_keys(key: Array, image: Array) -> Array:
    """A key for each image, made of its pixels: another batch around it gives it the same.

    Args:
      key: of all.
      image: `[b, h, w, 3]` uint8.

    Returns:
      `[b]` keys.
    """
    pixels = image.reshape(len(image), -1).astype(jnp.uint32)
    # Odd factors, so that no pixel is lost; sums of integers are the same on every device.
    factors = 2 * jax.lax.iota(jnp.uint32, pixels.shape[1]) * jnp.uint32(2654435761) + 1
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.sum(pixels * factors, axis=1))


def fold_words(key: Array, words: Array) -> Array:
    """A key for each example: `[b, 2]` uint32 words of its number to `[b]` keys."""

    def one(word: Array) -> Any:
        return jax.random.fold_in(jax.random.fold_in(key, word[0]), word[1])

    return jax.vmap(one)(words)
