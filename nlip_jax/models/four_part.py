"""The model of NLIP (Huang et al., AAAI 2023, Fig. 2): four parts that share what they learn.

An image encoder that sees part of the patches, a decoder that guesses the other patches, a text
encoder that also reads concepts, and a decoder over both. What of it the paper leaves open, and the
choices here, stand beside the fields.
"""

import flax.linen as nn
import jax.numpy as jnp

from nlip_jax.errors import UsageError
from nlip_jax.models.block import DTYPES
from nlip_jax.models.caption_decoder import CaptionDecoder
from nlip_jax.models.dropout import fold
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.mae_decoder import MaeDecoder
from nlip_jax.models.masking import num_visible, random_visible
from nlip_jax.models.text_encoder import TextEncoder
from nlip_jax.models.text_transformer import PAD, POOLS
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.types import Array, PyTree

MASKS = 1_000_000  # the number of the masks' keys; the image encoder's layers have those below


class FourPart(DualEncoder, kw_only=True):
    """A `DualEncoder` whose text feature comes out of a decoder that can also see the image.

    The feature of the contrastive loss is the decoder's output *without* image tokens, at the last
    token of the text, so nothing of the image leaks into it; the language model's is its output
    with them.

    Attributes:
      image: V_e, the image encoder.
      text: T_e, the text encoder; its table of words serves the decoder, too.
      decoder: C_d, as wide as the text encoder.
      image_decoder: V_d; None where nothing is reconstructed.
      mask_ratio: share of the patches that `encode_masked_image` hides, in [0, 1).
      concepts_in_itc: let concepts into the contrastive text feature. They were retrieved for the
        image and tell of it.
      captions: the model also makes captions: it has a place for the image in the memory.

    Raises:
      UsageError: on construction, for parts that do not fit each other.
    """

    image: VisionTransformer
    text: TextEncoder
    decoder: CaptionDecoder
    image_decoder: MaeDecoder | None = None
    mask_ratio: float = 0.0
    concepts_in_itc: bool = False
    captions: bool = True

    def __post_init__(self):
        self._check()
        super().__post_init__()

    def setup(self):
        """Makes what lies between the parts."""
        super().setup()
        if self.captions:
            width = self.text.width
            self.memory_projection = nn.Dense(
                width,
                dtype=DTYPES[self.decoder.dtype],
                kernel_init=nn.initializers.normal(self.image.width**-0.5),
            )
            zeros = nn.initializers.zeros
            self.memory_type = self.param("memory_type", zeros, (2, width), jnp.float32)

    def __call__(
        self, image: Array, tokens: Array, keys: Array | None = None
    ) -> dict[str, Array]:
        """Encodes both sides of a batch for the contrastive loss; see `DualEncoder`.

        Initialises all parts.
        """
        if self.is_initializing():
            self._run_all(image, tokens)
        return super().__call__(image, tokens, keys)

    def encode_masked_image(self, image: Array, keys: Array | None) -> dict[str, Array]:
        """Encodes a random part of the patches of every image.

        Args:
          image: `[b, h, w, 3]` float in [-1, 1].
          keys: `[b]`, one random key an example; None hides nothing.

        Returns:
          What `encode_image` returns, of the visible patches, and
          image_memory: `[b, v, width]` float32, the image encoder's tokens, for `caption_hidden`
            and `reconstruct`; with pool="cls" one more, the first.
          visible: `[b, v]` int32, the patches that were not hidden, ascending.
        """
        count = num_visible(self.image.num_patches, mask_ratio=self.mask_ratio)
        if keys is None or count == self.image.num_patches:
            chosen = None
            every = jnp.arange(self.image.num_patches, dtype=jnp.int32)
            visible = jnp.broadcast_to(every, (len(image), self.image.num_patches))
        else:
            chosen = visible = random_visible(
                fold(keys, MASKS), num_patches=self.image.num_patches, num_visible=count
            )
        features = self.image(image, keys, chosen)
        outputs = self._image_outputs(features)
        return {**outputs, "image_memory": features["tokens"], "visible": visible}

    def encode_text(
        self, tokens: Array, keys: Array | None = None, concept_tokens: Array | None = None
    ) -> dict[str, Array]:
        """Encodes captions without anything of their images; see `DualEncoder.encode_text`.

        Args:
          tokens: `[b, l]` int32, 0 is padding.
          keys: `[b]`, one random key an example; None outside training.
          concept_tokens: `[b, c]` int32, 0 is padding; read with concepts_in_itc only.
        """
        concepts = concept_tokens if self.concepts_in_itc else None
        memory = self.text(tokens, concepts, fold(keys, 0))
        mask = tokens != PAD
        hidden = self.decoder(
            self.text.embed(tokens), mask, memory["tokens"], memory["mask"], fold(keys, 1)
        )
        # A weighted sum, and not a matmul: on TPU that would round to bfloat16 by default.
        pooled = jnp.sum(POOLS["eos"](mask)[..., None] * hidden, axis=1)
        return self._text_outputs({"pooled": pooled, "tokens": hidden, "mask": mask})

    def caption_hidden(
        self,
        image_memory: Array,
        noised_tokens: Array | None,
        concept_tokens: Array | None,
        tokens: Array,
        keys: Array | None = None,
    ) -> Array:
        """What predicts each token of a caption from those before it, the image and hints.

        Args:
          image_memory: `[b, v, width]`, of `encode_masked_image`.
          noised_tokens: `[b, l]` int32, a spoilt form of the text, 0 is padding; None: none.
          concept_tokens: `[b, c]` int32, 0 is padding; None: none.
          tokens: `[b, l]` int32, the caption, 0 is padding.
          keys: `[b]`, one random key an example; None outside training.

        Returns:
          `[b, l - 1, width]` float32: row t, times `output_table`, gives the logits of token t + 1.

        Raises:
          UsageError: the model was built without captions.
        """
        memory, mask = self.caption_memory(
            image_memory, noised_tokens, concept_tokens, fold(keys, 0)
        )
        given = tokens[:, :-1]
        words = self.text.embed(given)
        return self.decoder(words, given != PAD, memory, mask, fold(keys, 1))

    def output_table(self) -> Array:
        """The vectors of all words, read and written by: `[vocab, width]` float32."""
        return self.text.table()

    def reconstruct(
        self, image_memory: Array, visible: Array, keys: Array | None = None
    ) -> Array:
        """Guesses all patches from the visible ones, `[b, p, patch * patch * 3]` float32.

        Args:
          image_memory: `[b, v, width]`, of `encode_masked_image`.
          visible: `[b, v]` int32, the same.
          keys: `[b]`, one random key an example; None outside training.

        Raises:
          UsageError: the model was built without image decoder.
        """
        if self.image_decoder is None:
            raise UsageError("FourPart: image_decoder=None reconstructs no images")
        return self.image_decoder(image_memory, visible, keys)

    def start_caption(
        self,
        image_memory: Array,
        concept_tokens: Array | None,
        noised_tokens: Array | None = None,
        *,
        length: int | None = None,
    ) -> PyTree:
        """What `caption_step` needs at the start; arguments as of `caption_hidden`.

        Returns:
          memory: computed once; of one row an image.
          past: room for `length` tokens; without it for decoder.context_length.
          See `CaptionDecoder.start`.
        """
        memory, mask = self.caption_memory(image_memory, noised_tokens, concept_tokens, None)
        return self.decoder.start(memory, mask, length=length)

    def caption_step(
        self, cache: PyTree, tokens: Array, position: Array
    ) -> tuple[Array, PyTree]:
        """Reads one token of every caption and gives the logits of the next.

        Args:
          cache: of `start_caption`, or of the step before. Its past may have k rows for each of
            its memory, the beams of an image, side by side.
          tokens: `[b]` int32, or `[b * k]`.
          position: () int32, of these tokens.

        Returns:
          `[b, vocab]` float32, and the next cache.
        """
        hidden, cache = self.decoder.step(cache, self.text.embed(tokens), position)
        dtype = DTYPES[self.decoder.dtype]
        logits = jnp.matmul(
            hidden.astype(dtype),
            self.output_table().T.astype(dtype),
            preferred_element_type=jnp.float32,
        )
        return self.constrain(logits), cache

    def caption_memory(
        self,
        image_memory: Array,
        noised_tokens: Array | None,
        concept_tokens: Array | None,
        keys: Array | None = None,
    ) -> tuple[Array, Array]:
        """What the decoder looks at: image and hints behind one another; see `caption_hidden`.

        Returns:
          `[b, m, width]`, and `[b, m]` bool, False on padding.

        Raises:
          UsageError: the model was built without captions.
        """
        if not self.captions:
            raise UsageError("FourPart: captions=False makes no captions")
        seen = self.memory_projection(image_memory) + self.memory_type[0]
        mask = jnp.ones(seen.shape[:2], bool)
        if noised_tokens is None and concept_tokens is None:
            return seen, mask
        hints = self.text(noised_tokens, concept_tokens, keys)
        memory = jnp.concatenate([seen, hints["tokens"] + self.memory_type[1]], axis=1)
        return memory, jnp.concatenate([mask, hints["mask"]], axis=1)

    def _run_all(self, image: Array, tokens: Array) -> None:
        concepts = None
        if self.text.concept_length:
            concepts = jnp.zeros((len(tokens), self.text.concept_length), jnp.int32)
        seen = self.encode_masked_image(image, None)
        self.encode_text(tokens, None, concepts)
        if self.captions:
            self.caption_hidden(seen["image_memory"], tokens, concepts, tokens)
        if self.image_decoder is not None:
            self.reconstruct(seen["image_memory"], seen["visible"])

    def _check(self) -> None:
        if not 0 <= self.mask_ratio < 1:
            raise UsageError(f"FourPart: mask_ratio={self.mask_ratio} must lie in [0, 1)")
        if self.decoder.width != self.text.width:
            raise UsageError(
                f"FourPart: the decoder's width={self.decoder.width} is not the text encoder's "
                f"width={self.text.width}; they share one table of words"
            )
        if self.decoder.context_length < self.text.context_length:
            raise UsageError(
                f"FourPart: the decoder's context_length={self.decoder.context_length} is less "
                f"than the text encoder's context_length={self.text.context_length}; it reads the "
                "same rows"
            )
        if self.concepts_in_itc and not self.text.concept_length:
            raise UsageError(
                "FourPart: concepts_in_itc=True needs a text encoder with concept_length above 0"
            )
        if self.image_decoder is not None:
            self._check_image_decoder(self.image_decoder)

    def _check_image_decoder(self, part: MaeDecoder) -> None:
        for field in ("patch_size", "image_size"):
            own, other = getattr(part, field), getattr(self.image, field)
            if own != other:
                raise UsageError(
                    f"FourPart: the image decoder's {field}={own} is not the image encoder's "
                    f"{field}={other}"
                )
        count = self.image.num_patches
        if num_visible(count, mask_ratio=self.mask_ratio) == count:
            raise UsageError(
                f"FourPart: mask_ratio={self.mask_ratio} hides none of {count} patches, so there "
                "is nothing to reconstruct; raise it, or leave out the image decoder"
            )
