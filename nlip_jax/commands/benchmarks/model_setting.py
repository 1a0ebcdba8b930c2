"""What the model benchmark trains: shapes that ours and the contender's model share."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Two towers and a batch; MLPs are four times as wide as their tower.

    Attributes:
      name: in the keys of the numbers.
      image_size: pixels along one side.
      patch_size: pixels along one side.
      image_width: of the image tower.
      image_depth: its layers.
      image_heads: its attention heads.
      context_length: tokens of a text, all of them used.
      vocab_size: ids.
      text_width: of the text tower.
      text_depth: its layers.
      text_heads: its attention heads.
      embed_dim: of the shared space.
      first_batch: examples on each device that are tried first.
      last_batch: examples on each device beyond which none is tried.
      large_loss: pairs of the loss that is measured alone; 0: it is not.
    """

    name: str
    image_size: int
    patch_size: int
    image_width: int
    image_depth: int
    image_heads: int
    context_length: int
    vocab_size: int
    text_width: int
    text_depth: int
    text_heads: int
    embed_dim: int
    first_batch: int
    last_batch: int
    large_loss: int


# CLIP's ViT-B/16 (Radford et al., 2021), with SigLIP's 64 tokens instead of 77.
VITB16 = Setting(
    name="vitb16",
    image_size=224,
    patch_size=16,
    image_width=768,
    image_depth=12,
    image_heads=12,
    context_length=64,
    vocab_size=49_408,
    text_width=512,
    text_depth=12,
    text_heads=8,
    embed_dim=512,
    first_batch=256,
    last_batch=1 << 16,
    large_loss=1 << 20,
)

# The same code where there is no accelerator: its numbers say nothing of one.
TOY = Setting(
    name="toy",
    image_size=16,
    patch_size=8,
    image_width=16,
    image_depth=1,
    image_heads=2,
    context_length=6,
    vocab_size=50,
    text_width=16,
    text_depth=1,
    text_heads=2,
    embed_dim=16,
    first_batch=4,
    last_batch=8,
    large_loss=0,
)
