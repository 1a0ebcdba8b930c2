"""The contrastive loss tile by tile, against the whole matrix: time and memory on this machine.

Every number is of a fresh process. Its resident peak holds Python and JAX as well (0.3 GB); what a
loss takes is the peak beyond what the process held before the first call, features included.
"""

import dataclasses
import sys
from pathlib import Path

from nlip_jax.commands.benchmarks.loss_case import LossCase, measure
from nlip_jax.errors import UsageError

ROUNDS = 2
RING_DEVICES = (1, 2, 4, 8)


def run(
    *,
    batch: int = 16_384,
    large_batch: int = 65_536,
    dim: int = 512,
    token_batch: int = 512,
    tokens: tuple[int, int] = (64, 32),
    ring_batch: int = 1024,
) -> dict[str, float]:
    """Measure the loss and its gradients.

    Args:
        batch: pairs of which dense and tiled are compared.
        large_batch: pairs of which tiled alone is called, once.
        dim: of the features.
        token_batch: pairs with token-wise similarity (d = 256).
        tokens: of an image and of a text there.
        ring_batch: pairs of each device, for the ring's memory; it is compiled only.

    Returns:
        Metrics by name; ratios are tiled / dense, megabytes are 1e6 bytes.

    Raises:
        UsageError: this is not Linux.
    """
    if not Path("/proc/self/status").exists():
        raise UsageError("this benchmark reads what a process holds from /proc: it needs Linux")
    numbers = {}
    dense = LossCase(impl="dense", batch=batch, dim=dim, calls=2)
    numbers |= _compare(dense, dataclasses.replace(dense, impl="tiled", calls=3))

    _say(f"tiled, {large_batch:,} pairs, once")
    large = measure(LossCase(impl="tiled", batch=large_batch, dim=dim, calls=1))
    numbers |= {
        f"loss/{large_batch}/tiled_peak_mb": large["resident_mb"],
        f"loss/{large_batch}/tiled_seconds": large["seconds"][0],
    }

    image_tokens, text_tokens = tokens
    dense = LossCase(
        impl="dense",
        batch=token_batch,
        dim=256,
        image_tokens=image_tokens,
        text_tokens=text_tokens,
        calls=2,
    )
    tiled = dataclasses.replace(dense, impl="tiled", tile=64)
    found = _compare(dense, tiled)
    numbers |= {
        name.replace(f"loss/{token_batch}/tiled_", "loss/tokenwise_"): value
        for name, value in found.items()
    }

    for devices in RING_DEVICES:
        _say(f"ring on {devices} pretend devices, compiled")
        case = LossCase(impl="ring", batch=ring_batch * devices, dim=dim, devices=devices)
        numbers[f"loss/ring/{devices}_devices_temp_mb"] = measure(case)["temp_mb"]
    return numbers


def _compare(dense: LossCase, tiled: LossCase) -> dict[str, float]:
    """Time and memory of both in turns; the best time, the largest memory."""
    found: dict[str, list[dict]] = {"dense": [], "tiled": []}
    for _ in range(ROUNDS):
        for name, case in (("dense", dense), ("tiled", tiled)):
            _say(f"{name}, {case.batch:,} pairs")
            found[name].append(measure(case))
    seconds = {n: min(min(one["seconds"]) for one in found[n]) for n in found}
    resident = {n: max(one["resident_mb"] for one in found[n]) for n in found}
    taken = {n: max(one["resident_mb"] - one["before_mb"] for one in found[n]) for n in found}
    begin = f"loss/{dense.batch}/tiled"
    return {
        f"{begin}_time_ratio": seconds["tiled"] / seconds["dense"],
        f"{begin}_memory_ratio": taken["tiled"] / taken["dense"],
        f"{begin}_process_memory_ratio": resident["tiled"] / resident["dense"],
        f"{begin}_seconds": seconds["tiled"],
        f"{begin}_dense_seconds": seconds["dense"],
        f"{begin}_peak_mb": resident["tiled"],
        f"{begin}_dense_peak_mb": resident["dense"],
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
