"""Gradients of a batch in parts are those of the whole, and cost the memory of a part."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from tiny import mesh_of, rows, state_of

from nlip_jax import sharding
from nlip_jax.errors import UsageError
from nlip_jax.methods.base import Method
from nlip_jax.models.dropout import example_keys
from nlip_jax.models.dual_encoder import DualEncoder, normalize
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.placement import Placement
from nlip_jax.train.accumulation import MicroBatches
from nlip_jax.train.gradients import loss_and_gradients
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step
from nlip_jax.types import LossOutput

BATCH, RNG = 64, jax.random.key(7)


class Contrast(Method):
    """InfoNCE by hand; and of each image, by itself, a caption that the pairs pick, at random."""

    def pair_loss(self, params, features, state, batch):
        logits = jnp.exp(params["log_scale"]) * features["image_embed"] @ features["text_embed"].T
        both = jax.nn.log_softmax(logits, 0) + jax.nn.log_softmax(logits, 1)
        others = jnp.where(jnp.eye(len(logits), dtype=bool), -jnp.inf, logits)
        hardest = {"tokens": batch["tokens"][jnp.argmax(others, axis=1)]}
        loss = -jnp.trace(both) / len(logits)
        return LossOutput(
            loss=loss,
            metrics={"pairs": loss},
            carry=jnp.mean(features["image_embed"], axis=0),
            picks=hardest | {"margin": jnp.max(others, axis=1)},
        )

    def example_loss(self, params, features, picks, state, batch, *, rng):
        drawn = jax.vmap(jax.random.uniform)(example_keys(rng, batch["row"]))
        hard = jnp.mean(picks["tokens"], axis=1) * picks["margin"] * drawn
        weight = jnp.sum(params["text_projection"]["kernel"] ** 2)
        loss = jnp.mean(hard * jnp.sum(features["image_embed"] ** 3, axis=1)) * weight
        return LossOutput(loss=loss, metrics={"drawn": jnp.mean(drawn)})


def towers(*, width=8, image_size=tiny.SIZE, **fields) -> DualEncoder:
    shared = {"width": width, "depth": 2, "heads": 2, "mlp_dim": 2 * width, "scan": True, **fields}
    return DualEncoder(
        image=VisionTransformer(patch_size=4, image_size=image_size, **shared),
        text=TextTransformer(vocab_size=tiny.VOCAB, context_length=tiny.LENGTH, **shared),
        embed_dim=width,
    )


def batch_of(size: int, *, image_size: int = tiny.SIZE) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    shape = (size, image_size, image_size, 3)
    return rows(range(size)) | {
        "image": generator.integers(0, 256, shape, np.uint8),
        "noise_prob": generator.random(size, np.float32),
        "row": np.arange(size, dtype=np.int32),
    }


def make_state(method, batch):
    params, model_state = method.init_model(jax.random.key(0), batch)
    return state_of(method, params, model_state=model_state)


def compile_for(method, mesh, count, batch):
    """The function of a batch in parts, compiled for a mesh, and where it wants its state."""
    shapes = jax.eval_shape(functools.partial(make_state, method), batch)
    places = Placement(mesh=mesh).shardings(shapes, params=shapes.params)

    def place(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    by_row = sharding.by_row(mesh)
    function = functools.partial(
        loss_and_gradients,
        method,
        rng=RNG,
        micro_batches=MicroBatches(count=count, mesh=mesh) if count > 1 else None,
    )
    lowered = jax.jit(function).lower(
        jax.tree.map(place, shapes, places), jax.tree.map(lambda x: place(x, by_row), batch)
    )
    return lowered.compile(), places


@functools.cache
def evaluated(method, mesh, count):
    """Loss and gradients of the same batch and state, and the code that computed them."""
    batch = batch_of(BATCH)
    compiled, places = compile_for(method, mesh, count, batch)
    state = jax.jit(functools.partial(make_state, method))(batch)
    found = compiled(jax.device_put(state, places), sharding.to_devices(batch, mesh))
    return jax.device_get(found), compiled.as_text()


def assert_equal(found, expected, *, tolerance=1e-5):
    """Every array to the tolerance, relative to the largest value in it."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected.gradients))
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        assert a.dtype == b.dtype == np.float32, path
        # Some gradients, such as that of the bias of the keys, are zero but for rounding.
        scale = max(np.abs(b).max(), 1e-3 * largest)
        assert np.abs(a - b).max() <= tolerance * scale, (path, a, b)


# --- equality -------------------------------------------------------------------------------------

PLAIN = Contrast(model=towers(depth=1, scan=False))
HARD = Contrast(model=towers(remat="full", dropout=0.3))


@pytest.mark.parametrize("method", [PLAIN, HARD], ids=["plain", "remat_dropout"])
@pytest.mark.parametrize(
    ("devices", "fsdp", "count"), [(1, 1, 8), (8, 1, 4), (8, 8, 2)], ids=["1", "8", "fsdp"]
)
def test_parts_have_the_gradients_of_the_whole(method, devices, fsdp, count):
    found, _ = evaluated(method, mesh_of(devices, fsdp=fsdp), count)
    expected, _ = evaluated(method, mesh_of(1), 1)
    assert_equal(found, expected)
    assert set(found.metrics) == {"pairs", "drawn"}


@pytest.mark.parametrize("make", [tiny.clip, tiny.nlip])
def test_methods_have_the_gradients_of_the_whole(make):
    method = make()
    assert_equal(evaluated(method, mesh_of(8), 4)[0], evaluated(method, mesh_of(8), 1)[0])


def test_in_bfloat16_parts_and_whole_are_nearer_to_each_other_than_to_float32():
    """They differ where gradients of weights leave sums over the batch, rounded to bfloat16.

    Forward and backward of an example are the same in both; what bfloat16 costs lies there.
    """
    method = Contrast(model=towers(remat="full", dropout=0.3, dtype="bfloat16"))

    def gradients(method, count):
        found, _ = evaluated(method, mesh_of(1), count)
        return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(found.gradients)])

    parts, whole, exact = gradients(method, 8), gradients(method, 1), gradients(HARD, 1)
    rounding = np.linalg.norm(whole - exact)
    assert 0 < rounding < 0.1 * np.linalg.norm(exact)
    assert np.linalg.norm(parts - whole) < rounding / 2
    assert np.linalg.norm(parts - exact) < 1.1 * rounding


# --- cost -----------------------------------------------------------------------------------------


def test_a_part_needs_the_memory_of_a_part():
    """Temporary bytes of a compiled gradient, logits and features included."""
    batch = batch_of(256, image_size=16)

    def temporary_bytes(count):
        method = Contrast(model=towers(width=16, image_size=16))
        compiled, _ = compile_for(method, mesh_of(1), count, batch)
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8) <= temporary_bytes(1) / 4


def test_no_row_changes_its_device():
    """Features are gathered; images stay where they are."""
    _, code = evaluated(HARD, mesh_of(8), 4)
    assert not re.search(r"all-to-all|collective-permute", code)
    moving = [line for line in code.splitlines() if re.search(r" (all|reduce)-\w+\(", line)]
    assert any("all-gather(" in line for line in moving)
    image = f",{tiny.SIZE},{tiny.SIZE},3]"
    assert image in code and not [line for line in moving if image in line]


def test_parts_are_shares_of_every_device():
    mesh = mesh_of(8, fsdp=2)
    micro_batches = MicroBatches(count=2, mesh=mesh)
    rows = jax.device_put(np.arange(48).reshape(48, 1), sharding.by_row(mesh))
    parts = jax.jit(micro_batches.split)(rows)
    np.testing.assert_array_equal(parts[0, :6, 0], [0, 1, 2, 6, 7, 8])
    np.testing.assert_array_equal(parts[1, :6, 0], [3, 4, 5, 9, 10, 11])
    before = {shard.device: set(np.ravel(shard.data)) for shard in rows.addressable_shards}
    after = {shard.device: set(np.ravel(shard.data)) for shard in parts.addressable_shards}
    assert before == after
    joined = jax.jit(micro_batches.join)(parts)
    np.testing.assert_array_equal(joined, rows)
    assert joined.sharding.is_equivalent_to(rows.sharding, rows.ndim)


# --- batch statistics -----------------------------------------------------------------------------


class BatchNormTowers(nn.Module):
    """One matrix a tower, and a batch norm between images and features."""

    @nn.compact
    def __call__(self, image, tokens, keys=None):
        self.param("log_scale", nn.initializers.zeros, ())
        read_only = not self.is_mutable_collection("batch_stats")
        x = image.reshape(len(image), -1) + 0.5
        x = nn.BatchNorm(use_running_average=read_only, momentum=0.75, name="norm")(x)
        x = nn.Dense(8, name="text_projection")(x)
        words = nn.Embed(tiny.VOCAB, 8)(tokens).sum(1)
        return {"image_embed": normalize(x), "text_embed": normalize(words)}


NORMED = Contrast(model=BatchNormTowers())
FROZEN = dataclasses.replace(NORMED, frozen_statistics=True)


def test_batch_statistics_are_those_of_the_global_batch():
    found, _ = evaluated(NORMED, mesh_of(8), 1)
    pixels = batch_of(BATCH)["image"].reshape(BATCH, -1) / 127.5 - 0.5
    statistics = found.model_state["batch_stats"]["norm"]
    np.testing.assert_allclose(statistics["mean"], 0.25 * pixels.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics["var"], 0.75 + 0.25 * pixels.var(0), rtol=1e-4)


def test_batch_statistics_are_only_read_when_frozen_and_outside_of_training():
    batch = batch_of(BATCH)
    state = make_state(NORMED, batch)
    for method, rng in ((NORMED, None), (FROZEN, None), (FROZEN, RNG)):
        embedded = method.embed(state.params, state, batch, rng=rng)
        jax.tree.map(np.testing.assert_array_equal, embedded.model_state, state.model_state)
        alone = method.embed(
            state.params, state, {name: x[:1] for name, x in batch.items()}, rng=rng
        )
        np.testing.assert_allclose(
            alone.features["image_embed"][0], embedded.features["image_embed"][0], atol=1e-5
        )


def test_parts_of_a_model_with_batch_statistics():
    with pytest.raises(UsageError, match=r"batch_stats.* are not those of the batch; freeze them"):
        evaluated(NORMED, mesh_of(8), 4)
    assert_equal(evaluated(FROZEN, mesh_of(8), 4)[0], evaluated(FROZEN, mesh_of(8), 1)[0])


def test_a_step_in_parts_is_the_step_of_the_whole():
    mesh, schedule = mesh_of(8, fsdp=2), optax.constant_schedule(1e-2)
    tx, batch = optax.sgd(schedule), batch_of(BATCH)
    del batch["row"]  # the step knows it
    placement = Placement(mesh=mesh)
    factory = StateFactory(method=FROZEN, tx=tx, placement=placement, batch=batch, seed=0)

    def train(micro_batches):
        step = functools.partial(
            train_step,
            method=FROZEN,
            tx=tx,
            schedule=schedule,
            seed=0,
            micro_batches=micro_batches,
        )
        compiled = compile_step(step, state=factory.abstract(), batch=batch, mesh=mesh)
        state = factory.create()
        for _ in range(3):
            state, metrics = compiled(state, sharding.to_devices(batch, mesh))
        return jax.device_get((state.params, metrics))

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
        train(MicroBatches(count=4, mesh=mesh)),
        train(None),
    )
