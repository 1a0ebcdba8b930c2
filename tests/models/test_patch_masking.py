import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlip_jax.models.dropout import example_keys
from nlip_jax.models.masking import num_visible, random_visible


def test_every_set_of_patches_is_equally_likely():
    keys = example_keys(jax.random.key(0), jnp.arange(6000))
    drawn = np.asarray(random_visible(keys, num_patches=4, num_visible=2))
    assert drawn.dtype == np.int32
    pairs = list(itertools.combinations(range(4), 2))
    counts = [int((drawn == pair).all(axis=1).sum()) for pair in pairs]
    assert sum(counts) == len(drawn)  # ascending, without repetition
    np.testing.assert_allclose(counts, 1000, atol=150)  # five standard deviations


def test_an_example_has_its_patches_in_any_batch():
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    whole = random_visible(keys, num_patches=9, num_visible=5)
    np.testing.assert_array_equal(random_visible(keys[2:], num_patches=9, num_visible=5), whole[2:])


@pytest.mark.parametrize(
    ("patches", "ratio", "visible"),
    [(196, 0.5, 98), (196, 0.75, 49), (10, 0.9, 1), (9, 0.5, 4), (4, 0.99, 1), (16, 0.0, 16)],
)
def test_number_of_visible_patches(patches, ratio, visible):
    assert num_visible(patches, mask_ratio=ratio) == visible
