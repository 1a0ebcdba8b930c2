"""What noise harmonization adds to a training step: NLIP against CLIP at equal shapes.

And what it costs to keep the losses that training sees, for estimates without a pass. Needs
neither Grain nor any data, so that it runs on accelerator hosts that lack them.
"""

import dataclasses
import functools
import tempfile
import time
from pathlib import Path

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
from nlip_jax.train.online_losses import METRIC, OnlineLosses
from nlip_jax.train.optimizer import make_optimizer
from nlip_jax.train.schedule import make_schedule
from nlip_jax.train.state import StateFactory
from nlip_jax.train.step import compile_step, train_step

BLOCKS, STEPS_PER_BLOCK = 5, 20
IMAGE_SIZE, CONTEXT, VOCABULARY = 32, 28, 1000


def run(batch_size: int = 256) -> dict[str, float]:
    """Times the methods in alternating blocks of steps; medians over the blocks.

    Args:
      batch_size: global; the other shapes are those of configs/quickstart.py.

    Returns:
      step/nlip_over_clip, step/online_over_nlip (the same, keeping its losses), step/nlip_seconds,
      step/online_seconds, step/clip_seconds, step/batch_size, and step/online_flush_seconds, which
      a checkpoint takes longer for the losses of a block.
    """
    mesh = sharding.make_mesh()
    tower = {"width": 64, "depth": 2, "heads": 2}
    model = DualEncoder(
        image=VisionTransformer(patch_size=8, image_size=IMAGE_SIZE, pool="mean", **tower),
        text=TextTransformer(vocab_size=VOCABULARY, context_length=CONTEXT, **tower),
        embed_dim=64,
    )
    shared = {"model": model, "similarity": DOT}
    nlip = Nlip(
        **shared,
        weight=0.5,
        form=NOISE_ADAPTIVE["softmax"]["smoothed_targets"],
        fit=lambda losses: None,  # between episodes; no part of the step
        posterior=lambda mixture, losses: losses,
    )
    online = dataclasses.replace(nlip, online_window=1)
    methods = {"clip": Clip(**shared), "nlip": nlip, "online": online}
    with tempfile.TemporaryDirectory() as folder:
        runners = {
            name: _Runner(method, mesh, batch_size, folder=Path(folder) / name)
            for name, method in methods.items()
        }
        return _compare(runners) | {"step/batch_size": float(batch_size)}


def _compare(runners: dict[str, "_Runner"]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    flushes = []
    for block in range(-1, BLOCKS):  # block -1 warms up
        order = list(runners) if block % 2 else list(runners)[::-1]
        for name in order:
            elapsed = runners[name].block()
            if block >= 0:
                seconds[name].append(elapsed / STEPS_PER_BLOCK)
        flushes.append(runners["online"].flush())
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "step/nlip_over_clip": medians["nlip"] / medians["clip"],
        "step/online_over_nlip": medians["online"] / medians["nlip"],
        **{f"step/{name}_seconds": median for name, median in medians.items()},
        "step/online_flush_seconds": float(np.median(flushes)),
    }


class _Runner:
    """A compiled step with its state and one batch, and what keeps its losses if it tells them."""

    def __init__(
        self, method: Method, mesh: jax.sharding.Mesh, batch_size: int, *, folder: Path
    ):
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
        self._ids = sharding.local_rows(batch_size, mesh)
        self._num_steps = 0
        self._records = OnlineLosses(
            folder, windows=[range(1, 1 << 40)], num_ids=batch_size, resume_step=0
        )

    def block(self) -> float:
        """Seconds for a block of steps."""
        jax.block_until_ready(self._state)
        begun = time.perf_counter()
        recent = []
        for _ in range(STEPS_PER_BLOCK):
            self._state, metrics = self._step(self._state, self._batch)
            recent.append(metrics)
        jax.block_until_ready((self._state, metrics))
        for told in recent:
            self._num_steps += 1
            if METRIC in told:
                self._records.add(self._num_steps, ids=self._ids, told=told)
        return time.perf_counter() - begun

    def flush(self) -> float:
        """Seconds to write what the last block kept, as before a checkpoint."""
        begun = time.perf_counter()
        self._records.flush(self._num_steps)
        return time.perf_counter() - begun
