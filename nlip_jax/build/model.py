"""The model of a config."""

from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from nlip_jax.build.objective import objective
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.layers import unconstrained
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.sharding import KeepByRow


def make_model(
    config: ConfigDict, *, vocab_size: int, mesh: Mesh | None = None
) -> DualEncoder:
    """The two towers; on a mesh, their activations stay with the rows of the batch."""
    own = objective(config)
    constrain = unconstrained if mesh is None else KeepByRow(mesh)
    shared = {
        "dtype": config.model.dtype,
        "remat": config.model.remat,
        "scan": config.model.scan,
        "dropout": config.model.dropout,
        "constrain": constrain,
    }

    def tower(fields: ConfigDict) -> dict[str, Any]:
        return {**fields, "mlp_dim": fields.mlp_dim or None, **shared}

    return DualEncoder(
        image=VisionTransformer(image_size=config.data.image_size, **tower(config.model.image)),
        text=TextTransformer(
            vocab_size=vocab_size,
            context_length=config.tokenizer.context_length,
            **tower(config.model.text),
        ),
        embed_dim=config.model.embed_dim,
        init_temperature=own.init_temperature,
        max_logit_scale=own.max_logit_scale,
        logit_bias_init=own.init_bias,
        token_features=SIMILARITIES[own.similarity].uses_tokens,
        constrain=constrain,
    )
