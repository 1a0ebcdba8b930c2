"""`benchmark caption` and `benchmark masking` at toy sizes: what they find, not how fast."""

import numpy as np
import pytest

from nlip_jax.commands.benchmarks import caption, masking
from nlip_jax.commands.benchmarks.caption_setting import BOS, EOS, Setting
from nlip_jax.errors import RunError

TOY = Setting(
    batch_size=6,
    pieces=4,
    image_size=8,
    patch_size=4,
    width=8,
    depth=1,
    vocab_size=30,
    context_length=8,
    concept_length=4,
    calls=1,
)


def test_all_ways_find_the_same_captions():
    numbers = caption.run(TOY)
    assert all(value > 0 for value in numbers.values())
    assert numbers["caption/distinct"] > 1


def test_other_captions_are_an_error(monkeypatch):
    def rows(word, setting, *inputs):
        return np.array([[BOS, word, EOS]])

    ways = {"cached": lambda *inputs: rows(5, *inputs), "again": lambda *inputs: rows(6, *inputs)}
    monkeypatch.setattr(caption, "WAYS", ways)
    with pytest.raises(RunError, match="captions by again are others than by cached"):
        caption.run(TOY)


def test_every_share_of_patches_is_timed():
    toy = masking.Setting(
        ratios=(0.0, 0.5),
        batch_size=2,
        image_size=8,
        patch_size=4,
        width=8,
        depth=2,
        heads=2,
        vocab_size=20,
        context_length=5,
        calls=1,
    )
    numbers = masking.run(toy)
    assert numbers["masking/0.0/of_whole"] == 1
    assert numbers["masking/0.5/seconds"] > 0 and numbers["masking/0.5/of_whole"] > 0
