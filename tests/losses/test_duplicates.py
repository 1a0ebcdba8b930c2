"""Keys of captions and images: equal for equals, and for nothing else."""

import itertools

import jax
import numpy as np

from nlip_jax.losses.duplicates import caption_keys, image_keys


def keys_of(tokens):
    return np.asarray(jax.jit(caption_keys)(np.asarray(tokens, np.int32)))


def test_keys_are_equal_where_captions_are():
    """Few words and many rows, so that many are equal and most others nearly so."""
    tokens = np.random.default_rng(0).integers(0, 3, (20_000, 9))
    found = keys_of(tokens)
    assert found.shape == (20_000, 2) and found.dtype == np.int32
    distinct = len(np.unique(tokens, axis=0))
    assert 10_000 < distinct < 20_000
    assert len(np.unique(found, axis=0)) == distinct
    assert len(np.unique(np.concatenate([tokens, found], axis=1), axis=0)) == distinct
    # Each of the two hashes by itself is 32 bits: hardly any collisions.
    for key in found.T:
        assert distinct - len(np.unique(key)) < 5


def test_order_and_padding_count():
    orders = list(itertools.permutations(range(1, 7)))
    padded = [[*[5, 9, 11][:n], *[0] * (6 - n)] for n in range(4)]
    shifted = [[0] * n + [5] + [0] * (5 - n) for n in range(1, 6)]
    rows = [*orders, *padded, *shifted]
    assert len(np.unique(keys_of(rows), axis=0)) == len(rows)


def test_large_ids_and_long_captions():
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 2**31 - 1, (1, 77)).repeat(78, axis=0)
    tokens[np.arange(77), np.arange(77)] ^= 1  # one id differs, by one bit
    assert len(np.unique(keys_of(tokens), axis=0)) == 78


def test_keys_of_images_are_their_numbers():
    np.testing.assert_array_equal(image_keys(np.array([4, 4, 7])), [[4], [4], [7]])
