"""CLIP: two towers and a softmax over all pairs of the global batch (Radford et al., 2021).

Also the base of every method on two towers: they choose another similarity (FILIP), a sigmoid
(SigLIP), other targets (ALIGN, NLIP), or add terms.
"""

import dataclasses

import jax.numpy as jnp

from nlip_jax.losses import targets
from nlip_jax.losses.choice import Choice
from nlip_jax.losses.contrastive import ContrastiveLoss, contrast
from nlip_jax.losses.duplicates import caption_keys, image_keys
from nlip_jax.losses.engine import Engine
from nlip_jax.losses.normalisers import SOFTMAX, Normaliser
from nlip_jax.losses.sides import Problem
from nlip_jax.losses.targets import Targets
from nlip_jax.losses.token_selection import keep_best_tokens
from nlip_jax.methods.base import Features, Method, scale_image
from nlip_jax.methods.similarities import FeatureSimilarity
from nlip_jax.types import Array, Batch, LossOutput, PyTree, TrainState

_PLAIN = Choice(engine=Engine(), reason="dense", bytes=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip(Method):
    """Image-text contrast with one-hot targets.

    Attributes:
      similarity: how images and texts are compared.
      normaliser: softmax over the batch, or a sigmoid for each pair.
      choice: of the engine that goes through the global matrix of logits.
      has_bias: whether the model learns a bias of the logits.
      token_keep: share of the tokens that take part in the loss (token-wise similarity).
      token_group: pairs whose tokens compete for that.
    """

    similarity: FeatureSimilarity
    normaliser: Normaliser = SOFTMAX
    choice: Choice = _PLAIN
    has_bias: bool = False
    token_keep: float = 1.0
    token_group: int = 64

    @property
    def engine(self) -> Engine:
        """How the global matrix of logits is gone through."""
        return self.choice.engine

    @property
    def finds_duplicates(self) -> bool:
        """Whether the same image or caption twice in a batch is no negative."""
        return self.engine.duplicates != "negatives"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The images' numbers, where duplicates are looked for."""
        return ("image_id",) if self.finds_duplicates else ()

    def image_features(self, variables: PyTree, image: Array) -> Features:
        """Features of images alone, for evaluation: [b, h, w, 3] uint8."""
        return self.model.apply(variables, scale_image(image), method="encode_image")

    def pooled_features(self, variables: PyTree, image: Array) -> Features:
        """What the image tower says before its projection, for evaluation: "pooled" [b, width]."""
        return self.model.apply(variables, scale_image(image), method="pool_image")

    def text_features(self, variables: PyTree, tokens: Array) -> Features:
        """Features of texts alone, for evaluation: [b, l] int32."""
        return self.model.apply(variables, tokens, method="encode_text")

    def scalars(self, params: PyTree) -> dict[str, Array]:
        """Scale and bias of the logits."""
        names = ("logit_scale", "logit_bias") if self.has_bias else ("logit_scale",)
        return {name: self.model.apply({"params": params}, method=name) for name in names}

    def targets(self, batch: Batch) -> Targets:
        """The targets of this batch, as a function of row statistics."""
        del batch
        return targets.identity

    def contrast(
        self,
        features: Features,
        batch: Batch,
        *,
        targets: Targets,
        scalars: dict[str, Array],
        engine: Engine | None = None,
        valid: Array | None = None,
    ) -> ContrastiveLoss:
        """The loss of a global batch, both directions, pair by pair and in the mean.

        Args:
          features: of `embed`.
          batch: whose features they are.
          targets: of the rows.
          scalars: of the logits.
          engine: another one than the method's own.
          valid: [b] bool, False for pairs that take no part; None: all do.
        """
        images, texts = self.similarity.images(features), self.similarity.texts(features)
        if self.similarity.uses_tokens:
            images, texts = keep_best_tokens(
                images, texts, share=self.token_keep, group=self.token_group
            )
        if self.finds_duplicates:
            keys = image_keys(batch["image_id"]), caption_keys(batch["tokens"])
            images, texts = images.replace(keys=keys), texts.replace(keys=keys)
        if valid is not None:
            images, texts = images.replace(valid=valid), texts.replace(valid=valid)
        return contrast(
            engine or self.engine,
            Problem(similarity=self.similarity.compare, normaliser=self.normaliser),
            images,
            texts,
            targets=targets,
            scale=scalars["logit_scale"],
            bias=scalars.get("logit_bias", 0.0),
        )

    def pair_loss(
        self, params: PyTree, features: Features, state: TrainState, batch: Batch
    ) -> LossOutput:
        """Contrast of the global batch, both directions."""
        del state
        scalars = self.scalars(params)
        found = self.contrast(features, batch, targets=self.targets(batch), scalars=scalars)
        metrics = dict(scalars)
        if self.finds_duplicates:
            # Each pair of duplicates was seen from both of its ends.
            metrics["duplicate_pairs"] = jnp.sum(found.images.duplicates) / 2
        return LossOutput(loss=found.loss, metrics=metrics)

    def pair_losses(self, params: PyTree, state: TrainState, batch: Batch) -> Array:
        """The loss of each pair among its batch, [b], as `pair_loss` averages it."""
        features = self.embed(params, state, batch, rng=None).features
        scalars = self.scalars(params)
        return self.contrast(
            features, batch, targets=self.targets(batch), scalars=scalars
        ).pair_loss

    def plain_pair_loss(self, state: TrainState, batch: Batch) -> Array:
        """The loss of each pair, [b], with one-hot targets: what mixtures are fitted to.

        Duplicates that are positives are left out here: a pair that has to share its probability
        with others in its batch would look as noisy as one that is wrong.
        """
        engine = self.engine
        if engine.duplicates == "positives":
            engine = dataclasses.replace(engine, duplicates="ignored")
        features = self.embed(state.params, state, batch, rng=None).features
        scalars = self.scalars(state.params)
        return self.contrast(
            features, batch, targets=targets.identity, scalars=scalars, engine=engine
        ).pair_loss
