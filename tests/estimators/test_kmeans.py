"""k-means: against the slow loop and scikit-learn, on any mesh, with centroids left empty."""

import numpy as np
import pytest
import reference
from sklearn.cluster import KMeans
from tiny import mesh_of

from nlip_jax.errors import UsageError
from nlip_jax.estimators import kmeans as module
from nlip_jax.estimators.kmeans import INITS, kmeans, sum_one_hot, sum_scattered


def rows(num: int = 203, *, dim: int = 5, groups: int = 6, offset: float = 0.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.normal(size=(groups, dim))
    return (centres[np.arange(num) % groups] + rng.normal(size=(num, dim)) + offset).astype(
        np.float32
    )


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_as_the_slow_loop(devices):
    x = rows()
    found = kmeans(x, num_clusters=9, mesh=mesh_of(devices), start=x[:9], num_iterations=4)
    labels, centroids, objective = reference.lloyd(x, x[:9], 4)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_allclose(found.centroids, centroids, atol=2e-6)
    assert found.objective == pytest.approx(objective, rel=1e-6)
    np.testing.assert_array_equal(found.counts, np.bincount(labels, minlength=9))
    assert found.iterations == 4


def test_as_scikit_learn_to_the_end():
    x = rows(501, groups=12)
    found = kmeans(x, num_clusters=15, mesh=mesh_of(8), start=x[:15])
    model = KMeans(15, init=x[:15], n_init=1, tol=0, algorithm="lloyd").fit(x.astype(np.float64))
    np.testing.assert_array_equal(found.labels, model.labels_)
    assert found.objective == pytest.approx(model.inertia_, rel=1e-6)
    assert found.converged and found.iterations == model.n_iter_


def test_blocks_of_centroids_and_chunks_of_rows_change_nothing(monkeypatch):
    x = rows()
    whole = kmeans(x, num_clusters=9, mesh=mesh_of(2), seed=3)
    module._lloyd.clear_cache()
    monkeypatch.setattr(module, "_MAX_CENTROIDS", 4)
    monkeypatch.setattr(module, "_MAX_SCORES", 44)
    parts = kmeans(x, num_clusters=9, mesh=mesh_of(2), seed=3)
    module._lloyd.clear_cache()
    np.testing.assert_array_equal(parts.labels, whole.labels)
    np.testing.assert_allclose(parts.centroids, whole.centroids, atol=2e-6)


@pytest.mark.parametrize("init", sorted(INITS))
def test_a_seed_says_all_on_any_mesh(init):
    x = rows(150)
    options = {"num_clusters": 7, "init": init, "num_restarts": 2}
    found = [kmeans(x, mesh=mesh_of(n), seed=5, **options) for n in (1, 3, 8)]
    for other in found[1:]:
        np.testing.assert_array_equal(other.labels, found[0].labels)
        np.testing.assert_allclose(other.centroids, found[0].centroids, atol=2e-6)
    another = kmeans(x, mesh=mesh_of(3), seed=6, **options)
    assert not np.array_equal(another.centroids, found[0].centroids)


def test_the_best_of_several_restarts_is_kept():
    x = rows(150, groups=10)
    options = {"num_clusters": 10, "mesh": mesh_of(1)}
    single = [kmeans(x, start=x[first], **options) for first in _draws(5)]
    best = kmeans(x, num_restarts=5, **options)
    assert best.objective == min(one.objective for one in single)
    assert best.objective < max(one.objective for one in single)


def _draws(count: int) -> list[np.ndarray]:
    return [np.random.default_rng((0, i)).choice(150, 10, replace=False) for i in range(count)]


def test_plus_plus_takes_different_rows_far_apart():
    """Six points far apart, each many times: drawn by distance, every one is drawn once."""
    points = 10 * np.eye(6, dtype=np.float32)
    x = np.repeat(points, 9, axis=0)
    found = kmeans(x, num_clusters=6, mesh=mesh_of(3), init="k-means++")
    assert found.objective == 0
    np.testing.assert_array_equal(found.counts, 9)


@pytest.mark.parametrize("devices", [1, 8])
def test_an_empty_centroid_goes_to_the_farthest_row(devices):
    x = np.float32([[0, 0], [1, 0], [0, 1], [9, 9], [20, 0]])
    # Nothing is nearest to the last two: they go to the farthest row, and to the next.
    start = np.float32([[0, 0], [100, 100], [-100, 100]])
    found = kmeans(x, num_clusters=3, mesh=mesh_of(devices), start=start)
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 2, 1])
    np.testing.assert_allclose(found.centroids[1:], [[20, 0], [9, 9]], atol=1e-5)
    assert found.converged


def test_fewer_different_rows_than_centroids_leaves_some_empty():
    x = np.repeat(rows(3), 10, axis=0)
    found = kmeans(x, num_clusters=5, mesh=mesh_of(2))
    assert found.converged and sorted(found.counts) == [0, 0, 10, 10, 10]
    assert found.objective == pytest.approx(0, abs=1e-10)


def test_a_large_common_offset_costs_no_digits():
    x = rows().astype(np.float64)
    far = kmeans(np.float32(np.round(x, 2) + 1024), num_clusters=9, mesh=mesh_of(2), seed=1)
    near = kmeans(np.float32(np.round(x, 2)), num_clusters=9, mesh=mesh_of(2), seed=1)
    np.testing.assert_array_equal(far.labels, near.labels)
    assert far.objective == pytest.approx(near.objective, rel=1e-3)  # the rows are rounded


def test_both_ways_to_add_up():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(70, 4)).astype(np.float32), rng.integers(0, 5000, 70)
    np.testing.assert_allclose(
        sum_one_hot(values, labels, k=5000), sum_scattered(values, labels, k=5000), atol=1e-6
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_clusters": 12}, r"num_clusters=12: must lie in \[1, 11\]"),
        ({"init": "farthest"}, "init='farthest': choose one of random, k-means"),
        ({"x": np.full((11, 5), np.nan, np.float32)}, "not finite"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        kmeans(**{"x": rows(11), "num_clusters": 2, "mesh": mesh_of(1)} | fields)
