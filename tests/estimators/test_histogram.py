import jax
import numpy as np
import pytest
import reference
from jax.sharding import AxisType, Mesh

from nlip_jax.estimators import histogram as module
from nlip_jax.estimators.histogram import histogram, percentiles


def mesh_of(devices):
    return Mesh(np.array(jax.devices()[:devices]), ("data",), axis_types=(AxisType.Auto,))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "MAX_CHUNK", 64)


def inside_bins(n, num_bins=50, low=-1.0, high=3.0):
    """Values away from the edges of bins, where rounding does not decide."""
    rng = np.random.default_rng(0)
    position = rng.integers(-10, num_bins + 10, n) + rng.uniform(0.1, 0.9, n)
    return (low + position * (high - low) / num_bins).astype(np.float32)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.usefixtures("small_chunks")
def test_counts_are_exact_on_every_mesh_with_an_uneven_last_chunk(devices):
    values = inside_bins(1001)
    values[[3, 500, 900]] = np.nan, np.inf, -np.inf
    counts = histogram(values, low=-1, high=3, num_bins=50, mesh=mesh_of(devices))
    np.testing.assert_array_equal(counts, reference.clipped_histogram(values, -1, 3, 50))
    assert counts.sum() == 998


def test_two_mesh_axes_count_like_one():
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    values = inside_bins(300)
    counts = histogram(values, low=-1, high=3, num_bins=50, mesh=mesh)
    np.testing.assert_array_equal(counts, reference.clipped_histogram(values, -1, 3, 50))


def test_the_bounds_belong_to_the_end_bins():
    counts = histogram(np.array([2.0, 2.0, 5.0]), low=2, high=5, num_bins=4)
    np.testing.assert_array_equal(counts, [2, 0, 0, 1])


def test_no_values_are_no_counts():
    counts = histogram(np.zeros(0, np.float32), low=0, high=1, num_bins=3)
    np.testing.assert_array_equal(counts, [0, 0, 0])


PERCENTS = (0.0, 0.1, 25.0, 50.0, 99.9, 100.0)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=777),
        np.random.default_rng(1).normal(size=500) * 1e-3 + np.eye(1, 500, 7)[0] * 1e30,
        np.array([5.0]),
        np.array([-0.0, 0.0, 1e-40, -1e-40, 3.4e38, -3.4e38]),
        np.repeat([1.0, 2.0, 3.0], 100),
    ],
    ids=["normal", "far outlier", "one", "extremes", "ties"],
)
def test_percentiles_are_those_of_sorted_values(values):
    values = values.astype(np.float32)
    found = percentiles(values, PERCENTS)
    expected = [reference.percentile(values, percent) for percent in PERCENTS]
    np.testing.assert_allclose(found.values, expected, rtol=1e-12)
    np.testing.assert_allclose(expected, np.percentile(values.astype(np.float64), PERCENTS))
    assert (found.num_finite, found.num_non_finite) == (len(values), 0)


@pytest.mark.usefixtures("small_chunks")
def test_percentiles_leave_out_what_is_not_finite():
    values = np.random.default_rng(0).normal(size=500).astype(np.float32)
    finite = values.copy()
    values = np.insert(values, [0, 100, 400, 500], [np.nan, np.inf, -np.inf, -np.nan])
    found = percentiles(values, PERCENTS, mesh=mesh_of(3))
    np.testing.assert_allclose(found.values, np.percentile(finite.astype(float), PERCENTS))
    assert (found.num_finite, found.num_non_finite) == (500, 4)


def test_percentiles_of_nothing_finite_are_nan():
    found = percentiles(np.full(5, np.nan), (0.0, 50.0))
    assert np.isnan(found.values).all()
    assert (found.num_finite, found.num_non_finite) == (0, 5)


@pytest.mark.usefixtures("small_chunks")
def test_all_sizes_of_input_compile_once_beyond_a_chunk():
    mesh = mesh_of(2)
    histogram(inside_bins(100), low=-1, high=3, num_bins=50, mesh=mesh)
    compiled = module._count_chunk._cache_size()
    for n in (65, 128, 129, 700):
        histogram(inside_bins(n), low=-2, high=5, num_bins=50, mesh=mesh)
    assert module._count_chunk._cache_size() == compiled
