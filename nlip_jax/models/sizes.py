"""The sizes of transformers that have a name, for both towers."""

import re

from nlip_jax.errors import UsageError

# As in big_vision's public table of ViT variants (Dosovitskiy et al., arXiv:2010.11929; Zhai et
# al., arXiv:2106.04560; Alabdulmohsin et al., arXiv:2305.13035 for So400m). CLIP's text towers
# are M (beside ViT-B) and, with depth 12, width 768: B (beside ViT-L).
SIZES = {
    name: {"width": width, "depth": depth, "heads": heads, "mlp_dim": mlp_dim}
    for name, width, depth, heads, mlp_dim in (
        ("mu", 32, 1, 2, 128),
        ("Ti", 192, 12, 3, 768),
        ("S", 384, 12, 6, 1536),
        ("M", 512, 12, 8, 2048),
        ("B", 768, 12, 12, 3072),
        ("L", 1024, 24, 16, 4096),
        ("So400m", 1152, 27, 16, 4304),
        ("H", 1280, 32, 16, 5120),
        ("g", 1408, 40, 16, 6144),
        ("G", 1664, 48, 16, 8192),
    )
}


def variant(name: str) -> dict[str, int]:
    """The fields of a tower by name: `VisionTransformer(**variant("B/16"), image_size=224)`.

    Args:
      name: a key of `SIZES`, followed by "/" and the patch size for an image tower.

    Returns:
      width, depth, heads, mlp_dim and, where the name has it, patch_size.

    Raises:
      UsageError: no such size; lists the sizes.
    """
    match = re.fullmatch(r"(\w+)(?:/([1-9]\d*))?", name)
    if not match or match[1] not in SIZES:
        raise UsageError(
            f"model variant {name!r} is not SIZE or SIZE/PATCH with SIZE one of {', '.join(SIZES)}"
        )
    patch = {"patch_size": int(match[2])} if match[2] else {}
    return SIZES[match[1]] | patch
