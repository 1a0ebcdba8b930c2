"""What a run is made of, in a few lines at its start: bytes by device, work by example."""

import math
import sys
from collections.abc import Iterator
from typing import Any

import jax

from nlip_jax.build.objective import loss_shape
from nlip_jax.commands.session import Session
from nlip_jax.losses.choice import loss_flops
from nlip_jax.models.flops import forward_flops
from nlip_jax.train.speed import Yardstick, peak_tflops, training_flops
from nlip_jax.types import PyTree, TrainState

# Field of the state -> what the header calls it.
PARTS = {
    "params": "parameters",
    "opt_state": "optimizer",
    "ema_params": "moving average",
    "model_state": "statistics",
    "method_state": "memory of the method",
}


def make_yardstick(run: Session) -> Yardstick:
    """What the speed of this run is measured by."""
    model = run.method.model
    forward = forward_flops(model)
    if forward is not None:
        forward["loss"] = loss_flops(loss_shape(run.config, model=model))
    return Yardstick(
        flops=forward and training_flops(forward),
        tflops=run.config.log.peak_tflops or peak_tflops(jax.devices()[0].device_kind),
        devices=run.mesh.size,
    )


def show(run: Session, *, state: TrainState, compiled: Any) -> None:
    """Prints the header, on the first process.

    Args:
      run: made ready.
      state: abstract, with shardings.
      compiled: the step, for this state.
    """
    if jax.process_index() != 0:
        return
    choice = run.method.choice
    lines = [
        memory_line(state, compiled, loss_bytes=choice and choice.bytes),
        *([f"loss: {choice.reason}"] if choice else []),
        *speed_lines(make_yardstick(run), model=run.method.model),
    ]
    print(*lines, sep="\n", file=sys.stderr)


def memory_line(state: TrainState, compiled: Any, *, loss_bytes: int | None = None) -> str:
    """Bytes on each device, by what they hold.

    Args:
      state: abstract or real, with shardings.
      compiled: the step, for this state.
      loss_bytes: what the loss needs while it is computed; None where nobody counted.
    """
    sizes = {name: bytes_per_device(getattr(state, field)) for field, name in PARTS.items()}
    parts = [f"{name} {with_unit(size, 'B')}" for name, size in sizes.items() if size]
    stats = compiled.memory_analysis()
    if stats is None:
        parts.append("activations and gradients unknown (this backend does not tell)")
    else:
        parts.append(f"activations and gradients {with_unit(stats.temp_size_in_bytes, 'B')}")
    if loss_bytes is not None:
        parts.append(f"the loss, among these, about {with_unit(loss_bytes, 'B')}")
    return f"on each device: {', '.join(parts)}"


def speed_lines(yardstick: Yardstick, *, model: Any) -> Iterator[str]:
    """FLOPs of an example, and what MFU is a share of, or why there is none."""
    flops, tflops = yardstick.flops, yardstick.tflops
    if flops is None:
        yield f"no MFU: nothing is known of the FLOPs of {type(model).__name__} and its towers"
        return
    parts = ", ".join(f"{name} {with_unit(count, 'FLOP')}" for name, count in flops.items())
    yield f"each example: {with_unit(sum(flops.values()), 'FLOP')} in training ({parts})"
    kind = jax.devices()[0].device_kind
    if tflops is None:
        yield (
            f"no MFU: the peak of a device of the kind {kind!r} is not known; set "
            "config.log.peak_tflops to its TFLOP/s in bfloat16"
        )
    else:
        yield f"MFU is a share of {tflops:g} TFLOP/s on each {kind}"


def bytes_per_device(tree: PyTree) -> int:
    """What the arrays of a tree take on one device, which has a part of those that are split."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def with_unit(count: float, unit: str) -> str:
    """Such as 12.3 MB for 12,300,000 B."""
    for prefix in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    return f"{count:.3g} T{unit}"
