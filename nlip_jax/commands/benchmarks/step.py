"""What noise harmonization adds to a training step: NLIP against CLIP at equal shapes.

Needs neither Grain nor any data, so that it runs on accelerator hosts that lack them.
"""

import functools
import time

import jax
import numpy as np

from nlip_jax import sharding
from nlip_jax.losses.targets import NOISE_ADAPTIVE
from nlip_jax.methods.base import Method
from nlip_jax.methods.clip import Clip
from nlip_jax.methods.nlip import Nlip
from nlip_jax.methods.similarities import DOT
from nlip_jax.models.dual_encoder import DualEncoder
from nlip_jax.models.text_transformer import TextTransformer
from nlip_jax.models.vit import VisionTransformer
from nlip_jax.placement import Placement
from nlip_jax.train.optimizer import make_optimizer
from nlip_jax.train.schedule import make_schedule
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step

BLOCKS, STEPS_PER_BLOCK = 5, 20
IMAGE_SIZE, CONTEXT, VOCABULARY = 32, 28, 1000


def run(batch_size: int = 256) -> dict[str, float]:
    """Times both methods in alternating blocks of steps; medians over the blocks.

    Args:
      batch_size: global; the other shapes are those of configs/quickstart.py.

    Returns:
      step/nlip_over_clip, step/nlip_seconds, step/clip_seconds, step/batch_size.
    """
    mesh = sharding.make_mesh()
    tower = {"width": 64, "depth": 2, "heads": 2}
    model = DualEncoder(
        image=VisionTransformer(patch_size=8, image_size=IMAGE_SIZE, pool="mean", **tower),
        text=TextTransformer(vocab_size=VOCABULARY, context_length=CONTEXT, **tower),
        embed_dim=64,
    )
    shared = {"model": model, "similarity": DOT}
    methods = {
        "clip": Clip(**shared),
        "nlip": Nlip(
            **shared,
            weight=0.5,
            form=NOISE_ADAPTIVE["softmax"]["smoothed_targets"],
            fit=lambda losses: None,  # between episodes; no part of the step
            posterior=lambda mixture, losses: losses,
        ),
    }
    runners = {name: _Runner(method, mesh, batch_size) for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for block in range(-1, BLOCKS):  # block -1 warms up
        order = list(runners) if block % 2 else list(runners)[::-1]
        for name in order:
            elapsed = runners[name].block()
            if block >= 0:
                seconds[name].append(elapsed / STEPS_PER_BLOCK)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "step/nlip_over_clip": medians["nlip"] / medians["clip"],
        "step/nlip_seconds": medians["nlip"],
        "step/clip_seconds": medians["clip"],
        "step/batch_size": float(batch_size),
    }


class _Runner:
    """A compiled step with its state and one batch."""

    def __init__(self, method: Method, mesh: jax.sharding.Mesh, batch_size: int):
        rng = np.random.default_rng(0)
        host = {
            "image": rng.integers(0, 256, (batch_size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8),
            "tokens": rng.integers(4, VOCABULARY, (batch_size, CONTEXT), np.int32),
        }
        host |= {name: rng.random(batch_size, np.float32) for name in method.columns}
        schedule = make_schedule(name="constant", peak=1e-4, warmup=0, total=1)
        tx = make_optimizer(name="adamw", schedule=schedule, clip_norm=1.0)
        factory = StateFactory(
            method=method, tx=tx, placement=Placement(mesh=mesh), batch=host, seed=0
        )
        step = functools.partial(train_step, method=method, tx=tx, schedule=schedule, seed=0)
        self._step = compile_step(step, state=factory.abstract(), batch=host, mesh=mesh)
        self._state = factory.create()
        self._batch = sharding.to_devices(host, mesh)

    def block(self) -> float:
        """Seconds for a block of steps."""
        jax.block_until_ready(self._state)
        begun = time.perf_counter()
        for _ in range(STEPS_PER_BLOCK):
            self._state, metrics = self._step(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - begun
