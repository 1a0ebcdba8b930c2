"""One contrastive loss of given sizes, forward and backward, in a process of its own.

`python -m nlip_jax.commands.benchmarks.loss_case JSON` measures the case that the JSON describes:
what a process takes at most is known only of a fresh one.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nlip_jax.errors import RunError
from nlip_jax.losses import similarity, targets
from nlip_jax.losses.contrastive import contrast
from nlip_jax.losses.engine import Engine
from nlip_jax.losses.normalisers import NORMALISERS
from nlip_jax.losses.sides import Problem, Side


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossCase:
    """A loss and its sizes.

    Attributes:
      impl: of `losses/engine.py`.
      batch: pairs of the global batch.
      dim: of the features.
      tile: most rows and columns of a tile.
      image_tokens: of an image; 0 for pooled embeddings.
      text_tokens: of a text; 0 for pooled embeddings.
      normaliser: softmax | sigmoid.
      dtype: of the features.
      devices: that the batch is split over.
      calls: how often the loss is called and timed; 0: compiled only.
    """

    impl: str
    batch: int
    dim: int = 512
    tile: int = 1024
    image_tokens: int = 0
    text_tokens: int = 0
    normaliser: str = "softmax"
    dtype: str = "float32"
    devices: int = 1
    calls: int = 0

    @property
    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the images' and the texts' features."""
        tokens = (self.image_tokens, self.text_tokens)
        return tuple((self.batch, *filter(None, [count]), self.dim) for count in tokens)

    def value_and_grad(self, mesh: Mesh | None) -> Callable:
        """(images, texts, scale, bias) -> loss and gradients of all four."""
        problem = Problem(
            similarity=similarity.token_max if self.image_tokens else similarity.dot,
            normaliser=NORMALISERS[self.normaliser],
        )
        engine = Engine(impl=self.impl, mesh=mesh, tile=self.tile, dtype=self.dtype)

        def loss(images: Array, texts: Array, scale: Array, bias: Array) -> Array:
            sides = Side(images), Side(texts)
            return contrast(
                engine, problem, *sides, targets=targets.identity, scale=scale, bias=bias
            ).loss

        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))

    def compile(self, mesh: Mesh | None) -> Any:
        """Compiled for abstract features in the case's dtype, split over the mesh by row."""
        split = whole = None
        if mesh is not None:
            split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
            whole = NamedSharding(mesh, PartitionSpec())
        features = [
            jax.ShapeDtypeStruct(shape, self.dtype, sharding=split) for shape in self.shapes
        ]
        scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
        outputs = None if mesh is None else (whole, (split, split, whole, whole))
        run = jax.jit(self.value_and_grad(mesh), out_shardings=outputs)
        return run.lower(*features, scalar, scalar).compile()


def measure(case: LossCase) -> dict[str, Any]:
    """Measures a case on the CPU, in a fresh process.

    Args:
      case: what is measured.

    Returns:
      seconds of each call; resident_mb of the process at most, and before_mb that it held before
      the first call; temp_mb that the compiler plans for each device.

    Raises:
      RunError: the process failed.
    """
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(case.devices),
    }
    command = [sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(case))]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["killed"])[-1]
        raise RunError(f"{case}: exit code {ran.returncode}: {last}")
    return json.loads(ran.stdout.splitlines()[-1])


def _resident_mb(mark: str) -> float:
    """What this process holds (VmRSS) or has held at most (VmHWM); Linux alone tells both."""
    lines = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
    )
    return int(lines[mark].split()[0]) * 1024 / 1e6


def _unit_features(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """On the unit sphere, without copies that would count as the loss's memory."""
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    for i in range(len(values)):
        values[i] /= np.linalg.norm(values[i], axis=-1, keepdims=True)
    return jnp.asarray(values, dtype)


def main(text: str) -> None:
    """Measures the case and prints the numbers as JSON."""
    case = LossCase(**json.loads(text))
    mesh = None
    if case.devices > 1:
        mesh = jax.make_mesh(
            (case.devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
        )
    compiled = case.compile(mesh)
    planned = compiled.memory_analysis()
    seconds, before = [], 0.0
    if case.calls:
        features = [_unit_features(s, case.dtype, i) for i, s in enumerate(case.shapes)]
        scalars = jnp.float32(1 / 0.07), jnp.float32(0.0)
        before = _resident_mb("VmRSS")
        for _ in range(case.calls):
            begun = time.perf_counter()
            jax.block_until_ready(compiled(*features, *scalars))
            seconds.append(time.perf_counter() - begun)
    numbers = {
        "seconds": seconds,
        "resident_mb": _resident_mb("VmHWM"),
        "before_mb": before,
        "temp_mb": planned.temp_size_in_bytes / 1e6,
    }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main(sys.argv[1])
