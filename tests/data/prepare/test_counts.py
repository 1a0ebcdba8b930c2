from collections import Counter

import numpy as np
import pytest

from nlip_jax.data.prepare import counts


@pytest.fixture(params=[7, 1 << 20], ids=["many slices", "one slice"])
def files(tmp_path, monkeypatch, request):
    """Three files of random numbers, one of them empty, and what they hold."""
    monkeypatch.setattr(counts, "_SLICE", request.param)
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 2**64, 60, np.uint64, endpoint=False)
    pool[:2] = 0, 2**64 - 1
    paths, held = [], Counter()
    for number, size in enumerate((400, 0, 300)):
        drawn = pool[np.minimum(rng.geometric(0.05, size), 60) - 1]
        paths.append(tmp_path / f"{number}.npy")
        counts.write_counts(paths[-1], drawn)
        held.update(drawn.tolist())
    return paths, held


def test_merge_adds_up(files):
    paths, held = files
    merged = list(counts.merge(paths))
    assert Counter({int(n): int(c) for part in merged for n, c in zip(*part, strict=True)}) == held
    numbers = np.concatenate([part[0] for part in merged])
    assert (np.diff(numbers.astype(object)) > 0).all()


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_thresholds(files, limit):
    paths, held = files
    more = sorted(n for n, count in held.items() if count > limit)
    least = sorted(n for n, count in held.items() if count >= limit)
    assert counts.more_often_than(paths, limit).tolist() == more
    assert counts.at_least(paths, limit).tolist() == least


@pytest.mark.parametrize("limit", [1, 2, 10, 33, 59, 60, 1000])
def test_most_frequent(files, limit):
    paths, held = files
    ranked = sorted(held, key=lambda number: (-held[number], number))
    found = counts.most_frequent(paths, limit)
    assert found.dtype == np.uint64 and found.tolist() == sorted(ranked[:limit])


def test_nothing_was_counted(tmp_path):
    counts.write_counts(tmp_path / "a.npy", np.zeros(0, np.uint64))
    assert len(counts.most_frequent([tmp_path / "a.npy"], 5)) == 0
    assert len(counts.at_least([tmp_path / "a.npy"], 1)) == 0
