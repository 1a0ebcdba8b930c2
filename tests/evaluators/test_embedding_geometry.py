"""Geometry: NumPy twins, known spaces, meshes, images that cannot be read."""

import dataclasses
import itertools

import numpy as np
import pytest
from fakes import Numbered, normal, towers
from tiny import mesh_of

from nlip_jax.data.failures import ReadError
from nlip_jax.errors import RunError
from nlip_jax.evaluators import geometry
from nlip_jax.evaluators.geometry import Geometry, effective_rank, uniformity

OWNERS = tuple(i for i in range(13) for _ in range(1 + i % 3))
FIRST = [OWNERS.index(i) for i in range(13)]


def uniformity_by_hand(x):
    pairs = itertools.permutations(x, 2)
    return np.log(np.mean([np.exp(-2 * ((a - b) ** 2).sum()) for a, b in pairs]))


def effective_rank_by_hand(x):
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    shares = values / values.sum()
    return np.exp(-sum(p * np.log(p) for p in shares if p > 1e-12))


def by_hand(x, y):
    x, y = (one.astype(np.float64) for one in (x, y))
    x, y = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (x, y))
    a, b = x.mean(0), y.mean(0)
    return {
        "modality_gap": np.sqrt(((a - b) ** 2).sum()),
        "cosine_of_means": (a @ b) / np.sqrt((a @ a) * (b @ b)),
        "positive_cosine": np.mean([one @ other for one, other in zip(x, y, strict=True)]),
        "alignment": np.mean([((p - q) ** 2).sum() for p, q in zip(x, y, strict=True)]),
        "image/uniformity": uniformity_by_hand(x),
        "text/uniformity": uniformity_by_hand(y),
        "image/std": np.mean([x[:, d].std(ddof=1) for d in range(x.shape[1])]),
        "text/std": np.mean([y[:, d].std(ddof=1) for d in range(y.shape[1])]),
        "image/effective_rank": effective_rank_by_hand(x),
        "text/effective_rank": effective_rank_by_hand(y),
    }


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_is_what_is_computed_by_hand(devices):
    image, text = normal(13, 6), normal(len(OWNERS), 6, seed=1) + 0.3
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    source = Numbered(13, OWNERS)
    outcome = Geometry(source=source).run(towers(image, text, devices=devices))
    expected = by_hand(image, text[FIRST])  # the first caption of each image
    assert outcome.metrics == pytest.approx(expected, abs=2e-6)
    for name, samples in outcome.samples.items():
        assert samples.values.mean() == pytest.approx(outcome.metrics[name], abs=1e-12)


def test_known_spaces():
    one = np.tile(np.float32([1, 0, 0]), (5, 1))
    flat = Geometry(source=Numbered(5, tuple(range(5)))).run(towers(one, -one)).metrics
    assert flat["modality_gap"] == 2
    assert flat["cosine_of_means"] == flat["positive_cosine"] == -1
    assert flat["alignment"] == 4
    assert flat["image/uniformity"] == pytest.approx(0, abs=1e-6)
    assert flat["image/effective_rank"] == flat["image/std"] == 0
    axes = np.eye(8, dtype=np.float32)
    spread = np.concatenate([axes, -axes])
    found = Geometry(source=Numbered(16, tuple(range(16)))).run(towers(spread, spread)).metrics
    assert found["modality_gap"] == found["alignment"] == pytest.approx(0, abs=1e-7)
    assert found["text/effective_rank"] == pytest.approx(8)


@pytest.mark.parametrize("count", [2, 17, 64, 333])
def test_uniformity_in_blocks_on_any_mesh(count, monkeypatch):
    monkeypatch.setattr(geometry, "_ROWS", 8)
    monkeypatch.setattr(geometry, "_COLUMNS", 32)
    geometry._compile.cache_clear()
    x = normal(count, 5).astype(np.float64)
    found = [uniformity(x, mesh=mesh_of(devices)) for devices in (1, 2, 3, 8)]
    assert len(set(found)) == 1  # the same bits
    assert found[0] == pytest.approx(uniformity_by_hand(x), abs=1e-6)


def test_effective_rank_is_that_of_the_singular_values():
    x = np.random.default_rng(0).normal(size=(40, 12)) * np.arange(12)
    assert effective_rank(x) == pytest.approx(effective_rank_by_hand(x), rel=1e-9)
    assert effective_rank(x[:, 1:2] * np.ones(12)) == pytest.approx(1, abs=1e-4)


@dataclasses.dataclass(frozen=True)
class Damaged(Numbered):
    bad: tuple[int, ...] = ()
    bad_captions: tuple[int, ...] = ()

    def picture(self, image_id):
        if image_id in self.bad:
            raise ReadError("empty_image", "0 bytes")
        return super().picture(image_id)

    def caption(self, example_id, epoch=0):
        if example_id in self.bad_captions:
            raise ReadError("unreadable_caption", "another one")
        return super().caption(example_id)


def test_what_cannot_be_read_takes_no_part():
    image, text = normal(13, 6), normal(13, 6, seed=1)
    source = Damaged(13, tuple(range(13)), bad=(3, 12), bad_captions=(4,))
    kept = [i for i in range(13) if i not in (3, 4, 12)]
    found = Geometry(source=source).run(towers(image, text)).metrics
    assert found == pytest.approx(by_hand(image[kept], text[kept]), abs=2e-6)


def test_nothing_to_look_at():
    source = Damaged(3, (0, 1, 2), bad=(0,), bad_captions=(1,))
    with pytest.raises(RunError, match="1 of 3 pairs could be read, and geometry needs two"):
        Geometry(source=source).run(towers(normal(3, 4), normal(3, 4)))
