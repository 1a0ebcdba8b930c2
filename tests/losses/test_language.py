"""The captioning loss against its reference: values and gradients, in any chunks, on any mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tiny import mesh_of

from nlip_jax.losses.language import caption_loss

ROWS, LENGTH, WIDTH, VOCAB = 8, 7, 5, 11
RNG = np.random.default_rng(0)
HIDDEN, TABLE = RNG.normal(size=(ROWS, LENGTH, WIDTH)), RNG.normal(size=(VOCAB, WIDTH))
TARGETS = RNG.integers(1, VOCAB, (ROWS, LENGTH)).astype(np.int32)
for row, count in enumerate([7, 3, 0, 1, 6, 7, 2, 5]):
    TARGETS[row, count:] = 0
WEIGHTS = RNG.normal(size=ROWS)  # of the rows, so that none can stand in for another


@functools.partial(jax.jit, static_argnames=("label_smoothing", "dtype", "chunk"))
def losses_and_gradients(hidden, table, targets, **options):
    def total(hidden, table):
        losses = caption_loss(hidden, table, targets, **options)
        return jnp.sum(losses * jnp.asarray(WEIGHTS, losses.dtype)), losses

    gradients, losses = jax.grad(total, argnums=(0, 1), has_aux=True)(hidden, table)
    return losses, *gradients


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [None, 1, 3, 7, 100])
def test_equals_the_reference(chunk, label_smoothing):
    with jax.enable_x64(True):
        found = losses_and_gradients(
            HIDDEN, TABLE, TARGETS, chunk=chunk, label_smoothing=label_smoothing
        )
        losses, *gradients = map(np.asarray, found)
    of_reference = functools.partial(
        reference.caption_losses, targets=TARGETS, label_smoothing=label_smoothing
    )
    np.testing.assert_allclose(losses, of_reference(HIDDEN, TABLE), rtol=1e-12)
    assert losses[2] == 0
    expected = differences(label_smoothing)
    for found, right in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-8)


@functools.cache
def differences(label_smoothing):
    def total(hidden, table):
        losses = reference.caption_losses(hidden, table, TARGETS, label_smoothing)
        return np.sum(losses * WEIGHTS)

    return (
        reference.gradient(lambda hidden: total(hidden, TABLE), HIDDEN),
        reference.gradient(lambda table: total(HIDDEN, table), TABLE),
    )


@pytest.mark.parametrize("chunk", [None, 2])
def test_float32_on_one_device_and_on_eight(chunk):
    hidden, table = HIDDEN.astype(np.float32), TABLE.astype(np.float32)
    one = losses_and_gradients(hidden, table, TARGETS, chunk=chunk)
    assert {values.dtype for values in one} == {jnp.dtype("float32")}
    expected = reference.caption_losses(HIDDEN, TABLE, TARGETS, 0.1)
    np.testing.assert_allclose(one[0], expected, rtol=1e-5)
    mesh = mesh_of(8)
    rows, every = (NamedSharding(mesh, spec) for spec in (P(mesh.axis_names), P()))
    given = jax.device_put((hidden, table, TARGETS), (rows, every, rows))
    eight = losses_and_gradients(*given, chunk=chunk)
    assert eight[0].sharding.is_equivalent_to(rows, 1)
    for found, right in zip(eight, one, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)


def test_factors_in_bfloat16_and_sums_in_float32():
    hidden, table = HIDDEN.astype(np.float32), TABLE.astype(np.float32)
    rounded = losses_and_gradients(hidden, table, TARGETS, chunk=3, dtype="bfloat16")
    as_bfloat16 = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in (hidden, table)]
    expected = reference.caption_losses(*as_bfloat16, TARGETS, 0.1)
    np.testing.assert_allclose(rounded[0], expected, rtol=1e-6)
    exact = losses_and_gradients(hidden, table, TARGETS)
    for found, right in zip(rounded[1:], exact[1:], strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, right, atol=0.02)


def test_logits_are_never_there_all_at_once():
    shapes = [((8, 32, 8), np.float32), ((4096, 8), np.float32), ((8, 32), np.int32)]
    given = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    logits = 8 * 32 * 4096 * 4

    def temporary(chunk):
        compiled = losses_and_gradients.lower(*given, chunk=chunk).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(2) < logits / 4 < logits < temporary(32)
