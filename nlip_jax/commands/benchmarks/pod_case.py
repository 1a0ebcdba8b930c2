"""One loss or training step, compiled for a pod: `python -m nlip_jax...pod_case JSON`."""

import functools
import json
import sys
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from nlip_jax import sharding
from nlip_jax.commands.benchmarks.loss_case import LossCase
from nlip_jax.commands.benchmarks.model_ours import make_model
from nlip_jax.commands.benchmarks.model_setting import VITB16
from nlip_jax.losses.choice import LossShape, choose
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.similarities import DOT
from nlip_jax.placement import Placement
from nlip_jax.train.accumulation import MicroBatches
from nlip_jax.train.optimizer import make_optimizer
from nlip_jax.train.schedule import make_schedule
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step

TOPOLOGY = "v5e:16x16"
TILE = 2048


def pod_mesh() -> Mesh:
    """The chips of the topology, all along `data`."""
    chips = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY).devices
    shape = (len(chips), 1, 1)
    return Mesh(np.array(chips).reshape(shape), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def compile_loss(impl: str, *, batch: int, mesh: Mesh) -> Any:
    """InfoNCE of float32 features, d = 512, and its gradients."""
    return LossCase(impl=impl, batch=batch, tile=TILE, devices=mesh.size).compile(mesh)


def compile_whole_step(*, batch: int, micro_batches: int, mesh: Mesh) -> Any:
    """A step of ViT-B/16 in bfloat16 with AdamW, remat and GradCache; the loss as auto picks it."""
    choice = choose(
        impl="auto",
        tile=TILE,
        shape=LossShape(batch=batch, dim=VITB16.embed_dim),
        mesh=mesh,
        platform="tpu",
    )
    model = make_model("clip", VITB16, mesh=mesh, remat="full")
    method = Clip(model=model, similarity=DOT, choice=choice)
    size, length = VITB16.image_size, VITB16.context_length
    shapes = {
        "image": jax.ShapeDtypeStruct((batch, size, size, 3), np.uint8),
        "tokens": jax.ShapeDtypeStruct((batch, length), np.int32),
    }
    schedule = make_schedule(name="constant", peak=1e-4, warmup=0, total=1)
    tx = make_optimizer(name="adamw", schedule=schedule)
    factory = StateFactory(
        method=method, tx=tx, placement=Placement(mesh=mesh), batch=shapes, seed=0
    )
    step = functools.partial(
        train_step,
        method=method,
        tx=tx,
        schedule=schedule,
        seed=0,
        micro_batches=MicroBatches(count=micro_batches, mesh=mesh),
    )
    return compile_step(step, state=factory.abstract(), batch=shapes, mesh=mesh)


def main(text: str) -> None:
    """Compiles the case and prints its memory on each chip as JSON."""
    case, mesh = json.loads(text), pod_mesh()
    compile_case = compile_loss if "impl" in case else compile_whole_step
    try:
        planned = compile_case(**case, mesh=mesh).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        print(json.dumps({"too_large": str(error).splitlines()[0]}))
        return
    found = {
        "temp_mb": planned.temp_size_in_bytes / 1e6,
        "arguments_mb": planned.argument_size_in_bytes / 1e6,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
