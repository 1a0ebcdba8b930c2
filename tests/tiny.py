"""The smallest things that the spine runs on: meshes, rows, models and methods."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from nlip_jax.losses import targets
from nlip_jax.losses.normalisers import NORMALISERS
from nlip_jax.methods.base import Embedded, Method
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.nlip import Nlip
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.models.dual_encoder import DualEncoder, normalize
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.sharding import AXES
from nlip_jax.types import LossOutput, TrainState

SIZE, LENGTH, VOCAB = 8, 6, 32  # pixels, tokens in a caption, ids


def mesh_of(devices: int, *, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh of the first few devices; `sharding.make_mesh` takes all."""
    shape = (devices // (fsdp * tensor), fsdp, tensor)
    chosen = jax.devices()[:devices]
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=chosen)


@dataclasses.dataclass(frozen=True)
class LoadRow:
    """Image and tokens drawn from the example's number; the epoch stays out of it."""

    def __call__(self, example_id: int, epoch: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(example_id)
        tokens = np.zeros(LENGTH, np.int32)
        length = int(rng.integers(3, LENGTH + 1))
        tokens[:length] = [2, *rng.integers(4, VOCAB, length - 2), 3]
        return {"image": rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8), "tokens": tokens}


def rows(ids) -> dict[str, np.ndarray]:
    """A batch of `LoadRow`'s rows on the host."""
    made = [LoadRow()(int(i), 0) for i in ids]
    return {name: np.stack([row[name] for row in made]) for name in made[0]}


def abstract_batch(batch_size: int, **columns) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        "image": jax.ShapeDtypeStruct((batch_size, SIZE, SIZE, 3), np.uint8),
        "tokens": jax.ShapeDtypeStruct((batch_size, LENGTH), np.int32),
        **columns,
    }


def dual_encoder(*, token_features: bool = False) -> DualEncoder:
    """The real towers; takes seconds to compile."""
    shared = {"width": 8, "depth": 1, "heads": 2, "mlp_dim": 16}
    return DualEncoder(
        image=VisionTransformer(patch_size=4, image_size=SIZE, pool="mean", **shared),
        text=TextTransformer(vocab_size=VOCAB, context_length=LENGTH, **shared),
        embed_dim=8,
        token_features=token_features,
    )


class LinearTowers(nn.Module):
    """What `DualEncoder` gives, from one matrix a tower; compiles in a fraction of the time."""

    embed_dim: int = 16
    logit_bias_init: float | None = None

    def setup(self):
        self.image = nn.Dense(self.embed_dim)
        self.text = nn.Embed(VOCAB, self.embed_dim)
        self.log_scale = self.param("log_scale", nn.initializers.constant(2.0), ())
        if self.logit_bias_init is not None:
            start = nn.initializers.constant(self.logit_bias_init)
            self.bias = self.param("logit_bias", start, ())

    def __call__(self, image, tokens, keys=None):
        return self.encode_image(image) | self.encode_text(tokens)

    def logit_scale(self):
        return jnp.exp(self.log_scale)

    def logit_bias(self):
        return self.bias

    def encode_image(self, image, keys=None):
        patches = image.reshape(len(image), 4, -1)
        tokens = self.image(patches)
        return {"image_embed": normalize(tokens.sum(1)), "image_tokens": normalize(tokens)}

    def encode_text(self, tokens, keys=None):
        mask = tokens > 0
        pieces = self.text(tokens) * mask[..., None]
        embed = normalize(pieces.sum(1))
        return {"text_embed": embed, "text_tokens": normalize(pieces), "text_mask": mask}


def clip(
    similarity: str = "dot", *, make: type[Clip] = Clip, model: nn.Module | None = None, **fields
) -> Clip:
    return make(model=model or LinearTowers(), similarity=SIMILARITIES[similarity], **fields)


def siglip(**fields) -> Clip:
    model = LinearTowers(logit_bias_init=-2.0)
    return clip(model=model, normaliser=NORMALISERS["sigmoid"], has_bias=True, **fields)


def nlip(
    similarity: str = "dot",
    *,
    form: str = "smoothed_targets",
    normaliser: str = "softmax",
    model: nn.Module | None = None,
    **fields,
) -> Nlip:
    defaults = {"weight": 1.0, "fit": None, "posterior": None}
    return clip(
        similarity,
        make=Nlip,
        model=model,
        normaliser=NORMALISERS[normaliser],
        form=targets.NOISE_ADAPTIVE[normaliser][form],
        **(defaults | fields),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Method):
    """A method that compiles at once: predicts the tokens' sum from the mean pixel.

    Its state counts the steps, its column `offset` moves the targets, its refresh is handed in.
    """

    model: None = None
    on_refresh: object = None

    @property
    def columns(self) -> tuple[str, ...]:
        return ("offset",)

    def init_model(self, rng, batch):
        return {"w": jax.random.normal(rng, (3,)), "bias": jnp.zeros(())}, {}

    def init_state(self, params):
        return {"updates": jnp.zeros((), jnp.int32)}

    def embed(self, params, state, batch, *, rng):
        pixels = batch["image"].astype(jnp.float32).mean((1, 2)) / 255
        return Embedded(features={"y": pixels @ params["w"] + params["bias"]}, model_state={})

    def pair_loss(self, params, features, state, batch):
        wanted = batch["tokens"].sum(-1) / 50 + batch["offset"]
        return LossOutput(loss=jnp.mean((features["y"] - wanted) ** 2), carry=jnp.int32(1))

    def update_state(self, state, params, carry):
        return {"updates": state.method_state["updates"] + carry}

    def refresh(self, state, episode):
        return self.on_refresh(state, episode) if self.on_refresh else state


def state_of(method: Method, params, **fields) -> TrainState:
    """A state without an optimizer, for what does not train."""
    empty = {"step": jnp.int32(0), "episode": jnp.int32(0), "model_state": {}, "opt_state": {}}
    memory = method.init_state(params)
    return TrainState(params=params, method_state=memory, **(empty | fields))


def abstract(tree):
    """Shapes, dtypes and shardings of a pytree of arrays."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree
    )
