"""Norms of gradients by tower."""

import jax
import optax

from nlip_jax.types import Array, PyTree

# Parameters that count as a part of another group; the others are groups of their own, by their
# top-level name.
_PART_OF = {"image_projection": "image", "text_projection": "text"}


def grad_norms(grads: PyTree) -> dict[str, Array]:
    """The norm of all gradients, and of each group of parameters.

    Args:
      grads: nested dict like the parameters.

    Returns:
      "grad_norm" and "grad_norm/GROUP" for each group, `()` float32.
    """
    groups: dict[str, list[Array]] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(grads)[0]:
        name = str(path[0].key)
        groups.setdefault(_PART_OF.get(name, name), []).append(leaf)
    norms = {f"grad_norm/{name}": optax.tree.norm(leaves) for name, leaves in groups.items()}
    return {"grad_norm": optax.tree.norm(grads)} | norms
