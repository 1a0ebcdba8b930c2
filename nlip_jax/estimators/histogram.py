"""Histograms and percentiles of values that stay on the hosts, counted by the devices.

The values, [n] on each host and billions in all, travel to the devices in chunks of one shape;
every device counts its part of a chunk, a `psum` adds the parts up, and the hosts keep and exchange
the totals as int64. The hosts' shares may differ in size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nlip_jax.sharding import sum_over_processes

MAX_CHUNK = 1 << 22  # 16 MB of values hide the cost of a dispatch
AXIS = "values"

HALF_BITS = 16
HALF = 1 << HALF_BITS
# The keys of finite floats have these upper halves; below lie -inf and NaN, above inf and NaN.
FINITE = slice(0x0080, 0xFF80)


@dataclass(frozen=True)
class Percentiles:
    """Percentiles of the finite values of all hosts.

    Attributes:
        values: float64, one for each percentile asked for; NaN where no value is finite.
        num_finite: how many values took part.
        num_non_finite: how many were left out, being NaN or infinite.
    """

    values: np.ndarray
    num_finite: int
    num_non_finite: int


def histogram(
    values: np.ndarray, *, low: float, high: float, num_bins: int, mesh: Mesh | None = None
) -> np.ndarray:
    """Count finite values in equal bins; values beyond the bounds count in the end bins.

    Args:
        values: [n] floats, this host's share, taken as float32.
        low: lower edge of the first bin, in the values' unit.
        high: upper edge of the last bin, above `low`.
        num_bins: number of bins.
        mesh: whose devices count; all devices when left out.

    Returns:
        [num_bins] int64 counts over the values of all hosts.
    """
    return _count(values, np.array([low, high], np.float32), _linear_bin, num_bins, mesh)


def percentiles(
    values: np.ndarray, percents: tuple[float, ...], *, mesh: Mesh | None = None
) -> Percentiles:
    """Find percentiles exactly, as `numpy.percentile` defines them, in two passes.

    A float32 has a 32-bit key that sorts like the number. The first pass counts the upper halves of
    the keys: now it is known in which of them every percentile lies. The second pass counts the
    lower halves of the keys inside those. No outlier can spoil the resolution, however far away.

    Args:
        values: [n] floats, this host's share, taken as float32.
        percents: each in [0, 100].
        mesh: whose devices count; all devices when left out.
    """
    num_values = int(sum_over_processes(np.array([len(values)]))[0])
    upper = _count(values, np.zeros(0, np.uint32), _upper_half, HALF, mesh)
    upper[: FINITE.start] = upper[FINITE.stop :] = 0
    num_finite = int(upper.sum())
    if num_finite == 0:
        return Percentiles(np.full(len(percents), np.nan), 0, num_values)

    position = np.asarray(percents, np.float64) / 100 * (num_finite - 1)
    rank = np.concatenate([np.floor(position), np.ceil(position)]).astype(np.int64)
    cumulative = np.cumsum(upper)
    prefix = np.searchsorted(cumulative, rank, side="right")
    rank_inside = rank - (cumulative - upper)[prefix]

    lower = _count(values, prefix.astype(np.uint32), _lower_half, len(prefix) * HALF, mesh)
    _, first, which = np.unique(prefix, return_index=True, return_inverse=True)
    cumulative = np.cumsum(lower.reshape(-1, HALF)[first[which]], axis=1)
    suffix = np.sum(cumulative <= rank_inside[:, None], axis=1)
    below, above = _from_key(prefix << HALF_BITS | suffix).reshape(2, -1)
    return Percentiles(
        values=below + (position - np.floor(position)) * (above - below),
        num_finite=num_finite,
        num_non_finite=num_values - num_finite,
    )


def map_chunks(
    function: Callable[[Array], Array], values: np.ndarray, mesh: Mesh
) -> Iterator[np.ndarray]:
    """Yield `function(chunk)` for chunks of the values, computing one chunk ahead of the reader.

    Args:
        function: jitted; its argument is [c] float32, sharded over the mesh.
        values: [n] floats. The last chunk is filled up with NaN.
        mesh: a mesh of `local_mesh`.
    """
    # A power of two: small inputs cost little and all sizes together compile a few shapes.
    size = min(MAX_CHUNK, 1 << max(len(values) - 1, 0).bit_length())
    size = -(-size // mesh.size) * mesh.size
    sharding = NamedSharding(mesh, P(AXIS))
    ahead = None
    for start in range(0, len(values), size):
        chunk = np.asarray(values[start : start + size], np.float32)
        chunk = np.pad(chunk, (0, size - len(chunk)), constant_values=np.nan)
        result = function(jax.device_put(chunk, sharding))
        if ahead is not None:
            yield jax.device_get(ahead)
        ahead = result
    if ahead is not None:
        yield jax.device_get(ahead)


def local_mesh(mesh: Mesh | None) -> Mesh:
    """Return one axis over this process's devices of the mesh, or over all of them."""
    devices = jax.devices() if mesh is None else mesh.devices.flat
    local = [device for device in devices if device.process_index == jax.process_index()]
    return Mesh(np.array(local), (AXIS,), axis_types=(AxisType.Auto,))


def _count(
    values: np.ndarray, parameters: np.ndarray, bin_of: Callable, num_bins: int, mesh: Mesh | None
) -> np.ndarray:
    """Count `bin_of` over the values of all hosts; bin `num_bins` is not counted."""
    mesh = local_mesh(mesh)
    parameters = jax.device_put(parameters, NamedSharding(mesh, P()))
    count = partial(
        _count_chunk, parameters=parameters, bin_of=bin_of, num_bins=num_bins, mesh=mesh
    )
    total = np.zeros(num_bins, np.int64)
    for counts in map_chunks(count, values, mesh):
        total += counts
    return sum_over_processes(total)


@partial(jax.jit, static_argnames=("bin_of", "num_bins", "mesh"))
def _count_chunk(
    chunk: Array, parameters: Array, *, bin_of: Callable, num_bins: int, mesh: Mesh
) -> Array:
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(AXIS), P()), out_specs=P())
    def count(part: Array, parameters: Array) -> Array:
        bins = bin_of(part, parameters, num_bins)
        # Measured on CPU: 3 ns a value; 50 by sorting, 140 by one-hot matrix products.
        counts = jnp.bincount(bins, length=num_bins + 1)[:num_bins]
        return jax.lax.psum(counts, AXIS)

    return count(chunk, parameters)


def _linear_bin(values: Array, bounds: Array, num_bins: int) -> Array:
    low, high = bounds
    inside = jnp.clip((values - low) / (high - low), 0.0, 1.0)
    bins = jnp.minimum((inside * num_bins).astype(jnp.int32), num_bins - 1)
    return jnp.where(jnp.isfinite(values), bins, num_bins)


def _upper_half(values: Array, _: Array, num_bins: int) -> Array:
    del num_bins  # every key has an upper half
    return (_key(values) >> HALF_BITS).astype(jnp.int32)


def _lower_half(values: Array, prefixes: Array, num_bins: int) -> Array:
    """Return the lower half of the keys with one of the upper halves, the first that is equal."""
    key = _key(values)
    upper, lower = key >> HALF_BITS, (key & (HALF - 1)).astype(jnp.int32)
    bins = jnp.full(values.shape, num_bins, jnp.int32)
    for index in reversed(range(len(prefixes))):
        bins = jnp.where(upper == prefixes[index], index * HALF + lower, bins)
    return bins


def _key(values: Array) -> Array:
    """Return uint32 keys in the order of the float32 values (the map of radix sorts)."""
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _from_key(key: np.ndarray) -> np.ndarray:
    key = key.astype(np.uint32)
    bits = np.where(key >> 31 == 1, key & np.uint32(0x7FFFFFFF), ~key)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)
