"""The model of a config."""

from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax.build.bart import AS_BART, starts_from_bart
from nlip_jax.build.names import lookup
from nlip_jax.build.objective import Objective, objective
from nlip_jax.errors import UsageError
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.models.block import unconstrained
from nlip_jax.models.caption_decoder import CaptionDecoder
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.four_part import FourPart
from nlip_jax.models.mae_decoder import MaeDecoder
from nlip_jax.models.text_encoder import TextEncoder
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.sharding import KeepByRow


def _dual_encoder(
    config: ConfigDict, *, vocab_size: int, shared: dict[str, Any], ends: dict[str, Any]
) -> DualEncoder:
    """The two towers."""
    if starts_from_bart(config):
        raise UsageError(
            f"config.nlip.bart={config.nlip.bart!r} is for a text encoder and a decoder; set "
            "nlip.model='four_part', or nlip.bart empty"
        )
    text = TextTransformer(
        vocab_size=vocab_size,
        context_length=config.tokenizer.context_length,
        **_tower(config.model.text),
        **shared,
    )
    return DualEncoder(image=_image(config, shared), text=text, **ends)


def _four_part(
    config: ConfigDict, *, vocab_size: int, shared: dict[str, Any], ends: dict[str, Any]
) -> FourPart:
    """NLIP's encoders and decoders; those that no loss uses are left out."""
    text, fields = _tower(config.model.text), config.nlip
    if text.pop("causal"):
        raise UsageError(
            "config.model.text.causal=True: with nlip.model='four_part' the text encoder looks "
            "both ways, and its decoder is causal; set model.text.causal=False"
        )
    if (pool := text.pop("pool")) != "eos":
        raise UsageError(
            f"config.model.text.pool={pool!r}: with nlip.model='four_part' the text feature is the "
            "decoder's last token; set model.text.pool='eos'"
        )
    concepts = config.concepts.top_k * config.concepts.max_tokens if fields.lm_weight else 0
    length = config.tokenizer.context_length
    words = {**shared, **(AS_BART if starts_from_bart(config) else {})}
    image = _image(config, shared)
    reconstructs = fields.ir_weight > 0
    return FourPart(
        image=image,
        text=TextEncoder(
            vocab_size=vocab_size,
            context_length=length,
            concept_length=concepts,
            **text,
            **words,
        ),
        decoder=CaptionDecoder(
            context_length=length,
            width=config.model.text.width,
            **_tower(config.model.decoder),
            **words,
        ),
        image_decoder=MaeDecoder(
            patch_size=image.patch_size,
            image_size=image.image_size,
            **_tower(config.model.image_decoder),
            **shared,
        )
        if reconstructs
        else None,
        mask_ratio=fields.mask_ratio,
        concepts_in_itc=fields.concepts_in_itc,
        captions=fields.lm_weight > 0,
        **ends,
    )


MODELS = {"dual_encoder": _dual_encoder, "four_part": _four_part}


def make_model(
    config: ConfigDict, *, vocab_size: int, mesh: Mesh | None = None
) -> DualEncoder | FourPart:
    """The towers; on a mesh, their activations stay with the rows of the batch.

    Raises:
      UsageError: naming the field, its value and the rule.
    """
    constrain = unconstrained if mesh is None else KeepByRow(mesh)
    shared = {
        "dtype": config.model.dtype,
        "remat": config.model.remat,
        "scan": config.model.scan,
        "dropout": config.model.dropout,
        "constrain": constrain,
    }
    ends = {**_ends(config, objective(config)), "constrain": constrain}
    kind = config.nlip.model if config.method == "nlip" else "dual_encoder"
    make = lookup(kind, MODELS, field="nlip.model")
    return make(config, vocab_size=vocab_size, shared=shared, ends=ends)


def _ends(config: ConfigDict, own: Objective) -> dict[str, Any]:
    """Where both towers meet."""
    return {
        "embed_dim": config.model.embed_dim,
        "init_temperature": own.init_temperature,
        "max_logit_scale": own.max_logit_scale,
        "logit_bias_init": own.init_bias,
        "token_features": SIMILARITIES[own.similarity].uses_tokens,
    }


def _image(config: ConfigDict, shared: dict[str, Any]) -> VisionTransformer:
    return VisionTransformer(
        image_size=config.data.image_size, **_tower(config.model.image), **shared
    )


def _tower(fields: ConfigDict) -> dict[str, Any]:
    return {**fields, "mlp_dim": fields.mlp_dim or None}
