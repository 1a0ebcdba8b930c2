"""FILIP's token reduction against a slow choice, on any mesh."""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from nlip_jax.losses.sides import Side
from nlip_jax.losses.token_selection import keep_best_tokens

GROUP, SHARE = 4, 0.5


@functools.cache
def two_sides(count=16):
    rng = np.random.default_rng(0)
    features = [cases.unit(rng, count, length, 6).astype(np.float32) for length in (5, 4)]
    masks = [rng.random(x.shape[:2]) < 0.6 for x in features]
    masks[0][1] = masks[1][2] = False
    masks[0][8:12] = False  # a group whose texts find no token at all
    return [Side(jnp.asarray(x), mask=jnp.asarray(m)) for x, m in zip(features, masks, strict=True)]


@functools.partial(jax.jit, static_argnames=("share", "group"))
def reduced(images, texts, *, share=SHARE, group=GROUP):
    return keep_best_tokens(images, texts, share=share, group=group)


def slow(images, texts, share, group):
    """Features and masks, group by group."""
    sides = [(np.float64(side.features), np.asarray(side.mask)) for side in (images, texts)]
    results = []
    for own, other in (sides, sides[::-1]):
        (tokens, mask), kept = own, []
        for start in range(0, len(tokens), group):
            here = slice(start, start + group)
            rest = (values[here] for values in other)
            kept.append(reference.best_tokens(tokens[here], mask[here], *rest, share))
        place = np.concatenate(kept)
        results.append([
            np.take_along_axis(tokens, place[..., None], 1), np.take_along_axis(mask, place, 1)
        ])
    return results


@pytest.mark.parametrize(
    ("share", "group"), [(SHARE, GROUP), (0.25, 16), (0.01, 2), (0.7, 1000)]
)
def test_the_best_tokens_are_kept_in_their_order(share, group):
    found = reduced(*two_sides(), share=share, group=group)
    for side, (features, mask) in zip(found, slow(*two_sides(), share, group), strict=True):
        np.testing.assert_array_equal(side.mask, mask)
        np.testing.assert_array_equal(
            side.features, np.float32(features)  # padding, too, is what was there
        )


def test_every_mesh_keeps_the_same():
    expected = jax.device_get(reduced(*two_sides()))
    for devices in (3, 8):
        case = cases.Case(devices=devices, dtype="float32")
        found = jax.device_get(reduced(*case.inputs(*two_sides())))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_all_tokens_are_the_sides_themselves():
    sides = two_sides()
    assert keep_best_tokens(*sides, share=1.0, group=GROUP) == tuple(sides)


def test_without_masks_every_token_is_real():
    sides = [side.replace(mask=None) for side in two_sides()]
    every = [side.replace(mask=jnp.ones_like(side.mask)) for side in two_sides()]
    jax.tree.map(np.testing.assert_array_equal, reduced(*sides), reduced(*every))


def test_padding_is_never_kept_before_a_token():
    """Also not before tokens that match nothing, or point away from everything."""
    direction = jnp.array([1.0, 0.0])
    images = Side(
        jnp.stack([jnp.stack([direction, -direction, -direction])]),
        mask=jnp.array([[False, True, True]]),
    )
    texts = Side(direction[None, None], mask=jnp.array([[True]]))
    for text_mask in (True, False):
        kept, _ = reduced(images, texts.replace(mask=jnp.array([[text_mask]])), share=0.5)
        np.testing.assert_array_equal(kept.mask, [[True, True]])
    few, _ = reduced(images.replace(mask=jnp.array([[False, False, True]])), texts)
    np.testing.assert_array_equal(few.mask.sum(), 1)


def test_what_is_no_pair_finds_no_match_for_others():
    """Pairs that only fill up a batch: whatever they hold, others keep the same tokens."""
    images, texts = two_sides()
    valid = jnp.arange(16) % 4 != 3

    def kept(filler):
        def fill(side):
            features = jnp.where(valid[:, None, None], side.features, filler)
            return side.replace(features=features, valid=valid)

        return [side.features[valid] for side in reduced(fill(images), fill(texts))]

    without = kept(0.0)
    for filler in (1.0, jnp.nan):
        jax.tree.map(np.testing.assert_array_equal, kept(filler), without)


def test_gradients_flow_into_kept_tokens_only():
    sides = two_sides()

    def total(image, text):
        images, texts = sides[0].replace(features=image), sides[1].replace(features=text)
        return sum(jnp.sum(jnp.sin(side.features)) for side in keep_best_tokens(
            images, texts, share=SHARE, group=GROUP
        ))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(*(side.features for side in sides))
    for gradient, side, kept in zip(gradients, sides, reduced(*sides), strict=True):
        moved = np.any(np.asarray(gradient) != 0, axis=2)
        np.testing.assert_array_equal(moved.sum(1), kept.features.shape[1])
        np.testing.assert_allclose(
            np.asarray(gradient)[moved], np.cos(side.features)[moved], rtol=1e-6
        )
        np.testing.assert_array_equal(
            np.asarray(side.features)[moved], np.concatenate(kept.features)
        )
