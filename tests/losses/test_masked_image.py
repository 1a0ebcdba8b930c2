"""The reconstruction loss against its reference: values and gradients."""

import functools

import einops
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tiny import mesh_of

from nlip_jax.losses.masked_image import reconstruction_loss

ROWS, HEIGHT, WIDTH, PATCH = 8, 4, 6, 2
NUM_PATCHES = HEIGHT * WIDTH // PATCH**2
RNG = np.random.default_rng(0)
PREDICTED = RNG.normal(size=(ROWS, NUM_PATCHES, 3 * PATCH**2))
IMAGE = RNG.uniform(-1, 1, (ROWS, HEIGHT, WIDTH, 3))
IMAGE[0, :PATCH, :PATCH] = 0.5  # a patch of one colour has no deviation
VISIBLE = np.stack([np.sort(RNG.permutation(np.arange(1, NUM_PATCHES))[:2]) for _ in range(ROWS)])
WEIGHTS = RNG.normal(size=ROWS)


@functools.partial(jax.jit, static_argnames="normalise")
def losses_and_gradient(predicted, image, visible, *, normalise=True):
    def total(predicted):
        losses = reconstruction_loss(
            predicted, image, visible, patch_size=PATCH, normalise=normalise
        )
        return jnp.sum(losses * jnp.asarray(WEIGHTS, losses.dtype)), losses

    gradient, losses = jax.grad(total, has_aux=True)(predicted)
    return losses, gradient


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("normalise", [False, True])
def test_equals_the_reference(normalise, count):
    visible = VISIBLE[:, :count]
    with jax.enable_x64(True):
        losses, gradient = losses_and_gradient(PREDICTED, IMAGE, visible, normalise=normalise)
        losses, gradient = np.asarray(losses), np.asarray(gradient)

    def right(predicted):
        return reference.reconstruction_losses(predicted, IMAGE, visible, PATCH, normalise)

    np.testing.assert_allclose(losses, right(PREDICTED), rtol=1e-10)
    expected = reference.gradient(lambda guess: np.sum(right(guess) * WEIGHTS), PREDICTED)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
    for row, seen in enumerate(visible):
        assert not gradient[row, seen].any()


def test_nothing_hidden_is_no_loss():
    every = np.broadcast_to(np.arange(NUM_PATCHES), (ROWS, NUM_PATCHES))
    losses, gradient = losses_and_gradient(PREDICTED.astype(np.float32), IMAGE, every)
    assert not np.asarray(losses).any() and not np.asarray(gradient).any()


def test_patches_lie_as_the_image_tower_cuts_them():
    """An image cut by the rule of `VisionTransformer`, and predicted without an error."""
    cut = einops.rearrange(
        IMAGE, "b (h y) (w x) c -> b (h w) (y x c)", y=PATCH, x=PATCH
    ).astype(np.float32)
    losses, _ = losses_and_gradient(cut, IMAGE.astype(np.float32), VISIBLE, normalise=False)
    np.testing.assert_allclose(losses, 0, atol=1e-12)


def test_one_device_and_eight():
    given = PREDICTED.astype(np.float32), IMAGE.astype(np.float32), VISIBLE.astype(np.int32)
    one = losses_and_gradient(*given)
    expected = reference.reconstruction_losses(*given, PATCH)
    np.testing.assert_allclose(one[0], expected, rtol=1e-5)
    mesh = mesh_of(8)
    rows = NamedSharding(mesh, P(mesh.axis_names))
    eight = losses_and_gradient(*jax.device_put(given, rows))
    assert all(values.sharding.is_equivalent_to(rows, values.ndim) for values in eight)
    for found, right in zip(eight, one, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)
