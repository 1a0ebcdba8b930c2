"""Our side of the model benchmark, one part a process: accelerators' memory is not given back.

`python -m nlip_jax.commands.benchmarks.model_ours clip [BATCH]` prints the numbers of a method as
JSON (of BATCH examples on each device, else of the largest batch that fits), `... large_loss` those
of a loss alone. Needs neither Grain nor any data, so that it runs on accelerator hosts that lack
them.
"""

import functools
import gc
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nlip_jax import sharding
from nlip_jax.commands.benchmarks.model_setting import TOY, VITB16, Setting
from nlip_jax.errors import RunError
from nlip_jax.losses import targets
from nlip_jax.losses.choice import LossShape, choose, loss_flops
from nlip_jax.losses.contrastive import contrast
from nlip_jax.losses.normalisers import SIGMOID, SOFTMAX
from nlip_jax.losses.sides import Problem, Side
from nlip_jax.losses.similarity import dot
from nlip_jax.methods.base import Method
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.nlip import Nlip
from nlip_jax.methods.similarities import DOT
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.flops import dual_encoder_flops
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.placement import Placement
from nlip_jax.train.optimizer import make_optimizer
from nlip_jax.train.schedule import make_schedule
from nlip_jax.train.speed import Yardstick, peak_tflops, training_flops
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step

# Their median counts. XLA's CPU client, with several devices, locks up beyond 32 calls in a row.
BLOCKS, CALLS_PER_BLOCK = 5, 10
# Fields of the model that differ from CLIP's.
MODEL_FIELDS = {
    "siglip": {"init_temperature": 0.1, "max_logit_scale": math.inf, "logit_bias_init": -10.0}
}
METHODS = {
    "clip": Clip,
    "siglip": functools.partial(Clip, normaliser=SIGMOID, has_bias=True),
    "nlip": functools.partial(
        Nlip,
        weight=0.5,
        form=targets.NOISE_ADAPTIVE["softmax"]["smoothed_targets"],
        fit=lambda losses: None,  # between episodes; no part of the step
        posterior=lambda mixture, losses: losses,
    ),
}


def main(argv: list[str]) -> None:
    """Prints the numbers of one part."""
    part, *batch = argv
    setting = TOY if jax.default_backend() == "cpu" else VITB16
    if part == "large_loss":
        found = {"numbers": measure_loss(setting)}
    else:
        found = measure_step(part, setting, batch=int(batch[0]) if batch else None)
    print(json.dumps({"setting": setting.name, **found}))


def measure_step(name: str, setting: Setting, *, batch: int | None = None) -> dict[str, Any]:
    """Times training steps of a method.

    Args:
      name: a key of `METHODS`.
      setting: sizes.
      batch: examples on each device, a little less where they do not fit; None: the most that fit.

    Returns:
      device_batch; numbers: devices, batch_size (global), step_seconds, examples_per_second,
      loss_share and, where the peak of the device is known, mfu.
    """
    mesh = sharding.make_mesh()
    seconds: dict[int, dict[str, float]] = {}

    def fits(size: int) -> bool:
        try:
            seconds[size] = _time_step(name, setting, mesh=mesh, batch=size * mesh.size)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            found = "does not fit"
        else:
            found = f"{size / seconds[size]['step']:,.0f} examples/s"
        print(f"{name}: {size:,} examples on each device: {found}", file=sys.stderr)
        gc.collect()  # what the failed attempt had
        return size in seconds

    if batch is None:
        size = largest(fits, first=setting.first_batch, last=setting.last_batch)
    else:
        size = nearest(fits, batch)
    step, loss = seconds[size]["step"], seconds[size]["loss"]
    total = size * mesh.size
    forward = dual_encoder_flops(make_model(name, setting, mesh=mesh))
    forward["loss"] = loss_flops(LossShape(batch=total, dim=setting.embed_dim))
    peak = Yardstick(
        flops=training_flops(forward),
        tflops=peak_tflops(jax.devices()[0].device_kind),
        devices=mesh.size,
    ).peak_rate
    numbers = {
        "devices": mesh.size,
        "batch_size": total,
        "step_seconds": step,
        "examples_per_second": total / step,
        **({"mfu": total / step / peak} if peak else {}),
        "loss_share": loss / step,
    }
    return {"device_batch": size, "numbers": numbers}


def largest(fits: Callable[[int], bool], *, first: int, last: int) -> int:
    """The largest number that fits, to an eighth: doubling, then bisecting.

    Args:
      fits: tries one.
      first: tried first.
      last: none beyond is tried.

    Raises:
      RunError: not even the first one fits.
    """
    if not fits(first):
        raise RunError(f"not even {first} examples on each device fit into its memory")
    low, high = first, 2 * first
    while high <= last and fits(high):
        low, high = high, 2 * high
    if high > last:
        return low
    while high - low > max(low // 8, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def nearest(fits: Callable[[int], bool], wanted: int) -> int:
    """The number that is wanted, or the next lower one that fits, in steps of an eighth.

    Raises:
      RunError: not even half of it fits.
    """
    for size in range(wanted, wanted // 2, -max(wanted // 8, 1)):
        if fits(size):
            return size
    raise RunError(f"not even half of {wanted} examples on each device fit into its memory")


def measure_loss(setting: Setting) -> dict[str, float]:
    """Times InfoNCE alone, forward and backward, in tiles, on float32 features.

    Returns:
      seconds, temp_mb (on each device) and tflops (a second on each device; what is computed again
      in the backward pass is not counted).
    """
    mesh = sharding.make_mesh()
    shape = LossShape(batch=setting.large_loss, dim=setting.embed_dim)
    choice = choose(
        impl="tiled", tile=0, shape=shape, mesh=mesh, platform=jax.default_backend()
    )
    problem = Problem(similarity=dot, normaliser=SOFTMAX)

    def loss(images: jax.Array, texts: jax.Array) -> jax.Array:
        sides = Side(images), Side(texts)
        return contrast(
            choice.engine, problem, *sides, targets=targets.identity, scale=100.0
        ).loss

    features = _features(shape.batch, shape.dim, mesh=mesh)
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*features).compile()
    seconds = _time(lambda: compiled(*features), blocks=1, calls=1)
    memory = compiled.memory_analysis()
    flops = 3 * shape.batch * loss_flops(shape)
    return {
        "seconds": seconds,
        **({"temp_mb": memory.temp_size_in_bytes / 1e6} if memory else {}),
        "tflops": flops / seconds / 1e12 / mesh.size,
    }


def _time_step(name: str, setting: Setting, *, mesh: Any, batch: int) -> dict[str, float]:
    """Seconds of a step, and of its loss alone."""
    method = _method(name, setting, mesh=mesh, batch=batch)
    host = _host_batch(setting, batch, columns=method.columns)
    schedule = make_schedule(name="constant", peak=1e-4, warmup=0, total=1)
    tx = make_optimizer(name="adamw", schedule=schedule)
    factory = StateFactory(
        method=method, tx=tx, placement=Placement(mesh=mesh), batch=host, seed=0
    )
    step = functools.partial(train_step, method=method, tx=tx, schedule=schedule, seed=0)
    compiled = compile_step(step, state=factory.abstract(), batch=host, mesh=mesh)
    state, data = factory.create(), sharding.to_devices(host, mesh)

    def take_step() -> Any:
        nonlocal state
        state, metrics = compiled(state, data)
        return metrics

    seconds = {"step": _time(take_step, blocks=BLOCKS, calls=CALLS_PER_BLOCK)}

    def loss(features: dict[str, jax.Array]) -> jax.Array:
        return method.pair_loss(state.params, features, state, data).loss

    names = ("image_embed", "text_embed")
    made = _features(batch, setting.embed_dim, mesh=mesh)
    features = dict(zip(names, made, strict=True))
    gradient = jax.jit(jax.value_and_grad(loss)).lower(features).compile()
    seconds["loss"] = _time(lambda: gradient(features), blocks=BLOCKS, calls=CALLS_PER_BLOCK)
    return seconds


def _time(work: Callable[[], Any], *, blocks: int, calls: int) -> float:
    """Seconds of a call, when calls follow one another: the median over blocks of them."""
    jax.block_until_ready(work())  # the first one has more to do
    found = []
    for _ in range(blocks):
        begun = time.perf_counter()
        for _ in range(calls):
            result = work()
        jax.block_until_ready(result)
        found.append((time.perf_counter() - begun) / calls)
    return statistics.median(found)


def make_model(
    name: str, setting: Setting, *, mesh: Any, remat: str = "none"
) -> DualEncoder:
    """The towers of a setting, in bfloat16, with the start of a method's logits."""
    shared = {
        "dtype": "bfloat16",
        "scan": True,
        "remat": remat,
        "constrain": sharding.KeepByRow(mesh),
    }
    return DualEncoder(
        image=VisionTransformer(
            patch_size=setting.patch_size,
            image_size=setting.image_size,
            width=setting.image_width,
            depth=setting.image_depth,
            heads=setting.image_heads,
            **shared,
        ),
        text=TextTransformer(
            vocab_size=setting.vocab_size,
            context_length=setting.context_length,
            width=setting.text_width,
            depth=setting.text_depth,
            heads=setting.text_heads,
            **shared,
        ),
        embed_dim=setting.embed_dim,
        **MODEL_FIELDS.get(name, {}),
    )


def _method(name: str, setting: Setting, *, mesh: Any, batch: int) -> Method:
    choice = choose(
        impl="auto",
        tile=0,
        shape=LossShape(batch=batch, dim=setting.embed_dim),
        mesh=mesh,
        platform=jax.default_backend(),
    )
    return METHODS[name](model=make_model(name, setting, mesh=mesh), similarity=DOT, choice=choice)


def _host_batch(setting: Setting, batch: int, *, columns: tuple[str, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    size, length = setting.image_size, setting.context_length
    return {
        "image": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        "tokens": rng.integers(1, setting.vocab_size, (batch, length), np.int32),
        **{name: rng.random(batch, np.float32) for name in columns},
    }


def _features(batch: int, dim: int, *, mesh: Any) -> tuple[jax.Array, jax.Array]:
    """Random directions for both sides."""

    def make() -> tuple[jax.Array, ...]:
        x = jax.random.normal(jax.random.key(0), (2, batch, dim))
        return tuple(x / jnp.linalg.norm(x, axis=-1, keepdims=True))

    return jax.jit(make, out_shardings=sharding.by_row(mesh))()


if __name__ == "__main__":
    main(sys.argv[1:])
