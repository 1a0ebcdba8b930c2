"""Which implementation of a loss to use, what it takes, and why."""

import dataclasses
import math

from jax.sharding import Mesh

from nlip_jax.errors import UsageError
from nlip_jax.losses.engine import DTYPES, DUPLICATES, IMPLEMENTATIONS, Engine

# Gathered columns and their gradients may take so much of each device; beyond, they travel.
GATHER_BYTES = 256 << 20
# Similarities of tokens in a tile, of any two of which the tile keeps several copies.
_TILE_TOKENS = 1 << 23
# On 2 CPU cores (d = 512): 0.86 times the time of `dense` at b = 4,096 and 0.45 at 8,192; equal up
# to one tile. Accelerators want larger ones, for their loops start slower.
_TILE = {"cpu": 1024}
_ACCELERATOR_TILE = 2048
_COPIES = {"dense": 4, "rows": 6, "tiled": 5, "ring": 5}  # of the logits: counted in compiled code


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossShape:
    """Sizes of a contrastive loss.

    Attributes:
        batch: pairs of the global batch.
        dim: of the features.
        image_tokens: 1 for pooled embeddings.
        text_tokens: 1 for pooled embeddings.
    """

    batch: int
    dim: int
    image_tokens: int = 1
    text_tokens: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """An engine, and what to tell of it.

    Attributes:
        engine: to use.
        reason: one line.
        bytes: of the memory that it takes on each device, forward and backward, roughly.
    """

    engine: Engine
    reason: str
    bytes: int


def choose(
    *,
    impl: str,
    tile: int,
    shape: LossShape,
    mesh: Mesh | None,
    platform: str,
    dtype: str = "float32",
    duplicates: str = "negatives",
) -> Choice:
    """The engine for a run.

    Args:
        impl: auto, or a key of `IMPLEMENTATIONS`.
        tile: most rows and columns of a tile; 0 for the default.
        shape: of the loss.
        mesh: its devices share the batch.
        platform: of the devices: cpu, gpu, tpu.
        dtype: of the features, a key of `DTYPES`.
        duplicates: one of `DUPLICATES`.

    Raises:
        UsageError: a name that does not exist, or a tile below 0.
    """
    fields = (
        ("impl", impl, ("auto", *IMPLEMENTATIONS)),
        ("dtype", dtype, tuple(DTYPES)),
        ("duplicates", duplicates, DUPLICATES),
    )
    for name, value, choices in fields:
        if value not in choices:
            raise UsageError(f"config.loss.{name}={value!r}: choose one of {', '.join(choices)}")
    if tile < 0:
        raise UsageError(f"config.loss.tile={tile}: must be 0 (by size) or more")
    tokens = shape.image_tokens * shape.text_tokens
    if not tile:
        tile = _TILE.get(platform, _ACCELERATOR_TILE)
        if tokens > 1:
            tile = min(tile, 1 << int(math.log2(max(1, _TILE_TOKENS // tokens)) / 2))
    tile = min(tile, shape.batch)
    gathered = _gathered_bytes(shape)
    devices = 1 if mesh is None else mesh.size
    how, why = impl, "config.loss.impl"
    if impl == "auto":
        how, why = _auto(shape=shape, tile=tile, gathered=gathered, devices=devices)
    engine = Engine(impl=how, mesh=mesh, tile=tile, dtype=dtype, duplicates=duplicates)
    cut = f" in tiles of {tile} x {tile}" if how in ("tiled", "ring") else ""
    taken = workspace_bytes(engine, shape)
    reason = f"{how}{cut} ({why})"
    return Choice(engine=engine, reason=reason, bytes=taken)


def _auto(*, shape: LossShape, tile: int, gathered: int, devices: int) -> tuple[str, str]:
    if shape.batch <= tile:
        return "dense", "auto: the batch is no larger than a tile"
    if devices > 1 and gathered > GATHER_BYTES:
        return "ring", f"auto: gathered texts would take {gathered / 1e6:,.0f} MB a device"
    return "tiled", f"auto: {shape.batch:,} pairs are more than a tile"


def _gathered_bytes(shape: LossShape) -> int:
    """Texts of the global batch, and two buffers of their float32 gradients."""
    return 3 * 4 * shape.batch * shape.text_tokens * shape.dim


def workspace_bytes(engine: Engine, shape: LossShape) -> int:
    """Memory of the loss on each device beside the features it is given, forward and backward."""
    devices = 1 if engine.mesh is None else engine.mesh.size
    tokens = shape.image_tokens * shape.text_tokens
    own = -(-shape.batch // devices)
    sizes = {
        "dense": own * shape.batch,
        "rows": own * shape.batch,
        "tiled": min(engine.tile, own) * min(engine.tile, shape.batch),
        "ring": min(engine.tile, own) ** 2,
    }
    logits = _COPIES[engine.impl] * 4 * sizes[engine.impl] * tokens
    features = _gathered_bytes(shape)
    return logits + (features // devices if engine.impl in ("dense", "ring") else features)


def loss_flops(shape: LossShape) -> int:
    """Floating-point operations of the similarities, for each pair, forward.

    The backward pass takes twice as many; what an implementation computes again is not counted.
    """
    return 2 * shape.batch * shape.image_tokens * shape.text_tokens * shape.dim
