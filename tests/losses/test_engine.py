"""What the engine finds out about rows, and the batches at the edge of what it may be given."""

import dataclasses
import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from cases import Case

from nlip_jax.losses import targets
from nlip_jax.losses.contrastive import contrast
from nlip_jax.losses.engine import IMPLEMENTATIONS, Engine
from nlip_jax.losses.normalisers import NORMALISERS
from nlip_jax.losses.sides import Affine, Problem, Side
from nlip_jax.losses.similarity import dot

PROBLEM = Case().problem


@functools.partial(jax.jit, static_argnames="duplicates")
def self_contrast(features, keys=(), *, duplicates="negatives"):
    side, engine = Side(features, keys=keys), Engine(duplicates=duplicates)
    return contrast(engine, PROBLEM, side, side, targets=targets.identity, scale=100.0)


# --- statistics -----------------------------------------------------------------------------------


@cases.compiled
def statistics_of(batch, *, case):
    images, texts = (
        Side(x, mask=mask, valid=batch["valid"], keys=batch["keys"])
        for x, mask in zip(batch["features"], batch["masks"], strict=True)
    )
    return case.engine.pairs(case.problem, images, texts, Affine(scale=3.0, bias=0.5))


@pytest.mark.parametrize("impl", ["dense", "ring"])
@pytest.mark.parametrize("duplicates", ["negatives", "ignored", "positives"])
def test_statistics_are_sums_over_the_columns_that_count(impl, duplicates):
    """Two directions that differ, five valid pairs, of which 0 and 3, and 1 and 5, are one."""
    case = Case(impl=impl, devices=2, similarity="token_max", duplicates=duplicates, tile=2)
    batch = cases.pair_batch("token_max", count=6, keys=True)
    with jax.enable_x64(True):
        found = statistics_of(*case.inputs(batch), case=case)
    alike = cases.REFERENCE["token_max"](*batch["features"], *batch["masks"])
    others = {0: [3], 3: [0], 1: [5], 5: [1], 2: []}
    for logits, statistics in zip(
        (3 * alike[0] + 0.5, 3 * alike[1].T + 0.5), jax.device_get(found), strict=True
    ):
        for i, same in others.items():
            left_out = same if duplicates == "ignored" else []
            row = logits[i, [j for j in others if j not in left_out]]
            own = [i, *same] if duplicates == "positives" else [i]
            expected = {
                "normaliser": np.log(np.exp(row).sum()),
                "positive": logits[i, own].mean(),
                "total": row.sum(),
                "columns": len(row),
                "positives": len(own),
                "mass": 1,
                "duplicates": len(same),
            }
            for name, value in expected.items():
                np.testing.assert_allclose(getattr(statistics, name)[i], value, rtol=1e-12)


def test_a_sigmoid_asks_about_every_positive():
    problem = dataclasses.replace(PROBLEM, normaliser=NORMALISERS["sigmoid"])
    key = (jnp.array([[1], [1], [2]], jnp.int32),)
    side = Side(jnp.eye(3), keys=key)
    affine = Affine(scale=1.0, bias=0.0)
    for duplicates, mass in (("negatives", 1), ("ignored", 1), ("positives", 2)):
        images, _ = Engine(duplicates=duplicates).pairs(problem, side, side, affine)
        np.testing.assert_array_equal(images.mass, [mass, mass, 1])
        np.testing.assert_array_equal(images.duplicates, [1, 1, 0])


def test_queries_have_no_duplicates():
    side = Side(jnp.eye(2), keys=(jnp.zeros((2, 1), jnp.int32),))
    with pytest.raises(ValueError, match="keys are for pairs"):
        Engine().queries(
            PROBLEM, side, side, Affine(scale=1.0, bias=0.0), own=jnp.arange(2)
        )


# --- batches at the edge --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("impl", "normaliser"), [*((impl, "softmax") for impl in IMPLEMENTATIONS), ("ring", "sigmoid")]
)
def test_one_pair_of_which_most_devices_see_nothing(impl, normaliser):
    case = Case(impl=impl, devices=8, normaliser=normaliser)
    batch = cases.pair_batch("dot", count=1)
    for form in case.forms:
        found, (features, scale, bias) = cases.pairs(case, form, batch)
        cases.assert_equal(found, cases.right_pairs(case, form, batch), dtype="float64")
        if normaliser == "softmax":
            for gradient in (*features, scale, bias):
                np.testing.assert_allclose(gradient, 0.0, atol=1e-15)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_a_batch_without_valid_pairs_costs_nothing(impl, normaliser):
    case = Case(impl=impl, devices=3, normaliser=normaliser)
    batch = cases.pair_batch("dot")
    batch = batch | {"valid": np.zeros_like(batch["valid"])}
    for form in case.forms:
        for found in jax.tree.leaves(cases.pairs(case, form, batch)):
            np.testing.assert_array_equal(found, 0.0)


@pytest.mark.parametrize("impl", ["tiled", "ring"])
def test_a_tile_may_be_larger_than_the_batch(impl):
    batch = cases.pair_batch("dot", keys=True)
    case = Case(impl=impl, devices=3, duplicates="ignored", tile=1000)
    found = cases.pairs(case, "smoothed", batch)
    cases.assert_equal(found[0], cases.right_pairs(case, "smoothed", batch), dtype="float64")
    cases.assert_equal(found[1], cases.pairs(case.plain, "smoothed", batch)[1], dtype="float64")


@functools.partial(jax.jit, static_argnums=0)
def of_features(engine, image, text, valid=(None, None)):
    def loss(image, text):
        images, texts = (Side(x, valid=v) for x, v in zip((image, text), valid, strict=True))
        return contrast(engine, PROBLEM, images, texts, targets=targets.identity, scale=9.0).loss

    return jax.value_and_grad(loss, argnums=(0, 1))(image, text)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("axes", [{"devices": 3}, {"devices": 8, "fsdp": 2, "tensor": 2}])
def test_all_axes_of_a_mesh_share_the_batch(impl, axes):
    """Three devices have equal shares of twelve pairs, eight have not; no pair is left out."""
    features = [cases.unit(np.random.default_rng(i), 12, 5) for i in range(2)]
    engine = Engine(impl=impl, mesh=tiny.mesh_of(**axes), tile=2)
    with jax.enable_x64(True):
        found, expected = (jax.device_get(of_features(e, *features)) for e in (engine, Engine()))
    cases.assert_equal(found, expected, dtype="float64")


@pytest.mark.parametrize("impl", ["dense", "tiled"])
def test_a_pair_is_valid_as_a_whole(impl):
    features = [cases.unit(np.random.default_rng(i), 12, 5) for i in range(2)]
    one, other = np.arange(12) % 5 > 0, np.arange(12) % 4 > 0
    both, engine = one & other, Engine(impl=impl, tile=5)
    with jax.enable_x64(True):
        loss, gradients = jax.device_get(of_features(engine, *features, (one, other)))
        expected, right = jax.device_get(of_features(Engine(), *(x[both] for x in features)))
        half, _ = jax.device_get(of_features(engine, *features, (one, None)))
        half_expected, _ = jax.device_get(of_features(Engine(), *(x[one] for x in features)))
    found = loss, half, [gradient[both] for gradient in gradients]
    cases.assert_equal(found, (expected, half_expected, list(right)), dtype="float64")
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[~both], 0.0)


def test_equal_pairs_share_the_probability():
    features = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    # Float32 resolves 8e-6 at logits of 100.
    result = self_contrast(features)
    np.testing.assert_allclose(result.pair_loss, [np.log(2), np.log(2), 0, 0], atol=8e-6)
    keys = (jnp.array([[7], [7], [8], [9]], jnp.int32),)
    ignored = self_contrast(features, keys, duplicates="ignored")
    np.testing.assert_allclose(ignored.pair_loss, 0.0, atol=8e-6)
    np.testing.assert_array_equal(ignored.images.duplicates, [1, 1, 0, 0])
    # Half of the probability each is what they should have: as good as it gets.
    positives = self_contrast(features, keys, duplicates="positives")
    np.testing.assert_allclose(positives.pair_loss, result.pair_loss, atol=8e-6)


# --- bfloat16 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_bfloat16_rounds_the_features_and_nothing_else(impl):
    image, text = (
        cases.unit(np.random.default_rng(i), 24, 16).astype(np.float32) for i in range(2)
    )
    rounded = [x.astype(jnp.bfloat16).astype(np.float32) for x in (image, text)]

    def loss(engine, image, text, scale):
        images, texts = Side(image), Side(text)
        return contrast(engine, PROBLEM, images, texts, targets=targets.identity, scale=scale).loss

    run = jax.jit(jax.value_and_grad(loss, argnums=(1, 2, 3)), static_argnums=0)
    engine = Engine(impl=impl, mesh=tiny.mesh_of(2), tile=5, dtype="bfloat16")
    found, (*of_features, of_scale) = run(engine, image, text, jnp.float32(14.0))
    expected, (*right, right_scale) = run(Engine(), *rounded, jnp.float32(14.0))
    assert found.dtype == np.float32 and of_features[0].dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(of_scale, right_scale, rtol=1e-5)
    for gradient, correct in zip(of_features, right, strict=True):
        error = np.linalg.norm(gradient - correct) / np.linalg.norm(correct)
        # Cotangents are rounded twice, so hardly: where a pair's positive all but cancels what its
        # normaliser says, one bfloat16 would leave nothing.
        assert error < 2**-14, error


def test_float32_features_are_not_rounded():
    features = jnp.full((1, 2), 1 + 2**-20, jnp.float32)
    found = dot(features, features)
    assert found.per_row.dtype == np.float32
    assert float(found.per_row[0, 0]) == 2 * (1 + 2**-19)


def test_problems_and_engines_are_compiled_once():
    assert hash(Case().engine) == hash(Case().engine)
    assert hash(PROBLEM) == hash(Problem(similarity=dot, normaliser=NORMALISERS["softmax"]))
