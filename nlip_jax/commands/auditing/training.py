"""A small model of the audited data, trained as far as there is time."""

import contextlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax.checkpoint import saved_steps
from nlip_jax.commands import train_command
from nlip_jax.commands import workdir as workdirs
from nlip_jax.errors import Preempted, RunError
from nlip_jax.files import write_atomically
from nlip_jax.train import stop

# Noisy pairs are learned last: a model that has seen each pair some times tells them apart, one
# that has seen them often knows them all by heart.
EPOCHS = 8
LEAST_STEPS, MOST_STEPS = 500, 20_000
_BATCH = 128
_MARK = "TRAINED"  # in the folder of the model: the step that it was trained to

# What the small model is, whatever the config of the audited data says.
_SMALL = {
    "method": "nlip",
    "loss.similarity": "dot",
    "loss.token_keep": 1.0,
    "loss.duplicates": "ignored",
    "nlip.model": "four_part",
    "nlip.normaliser": "softmax",
    "nlip.form": "smoothed_targets",
    "nlip.estimate": "pass",
    "nlip.reestimate_every": "0 steps",
    "nlip.itc_weight": 1.0,
    "nlip.lm_weight": 1.0,
    "nlip.ir_weight": 0.0,
    "nlip.lm_noise_weight": 0.0,
    "nlip.mask_ratio": 0.0,
    "nlip.text_drop": 1.0,
    "nlip.completion.text": "none",
    "nlip.completion.drop": "none",
    "nlip.completion.captions": "",
    "nlip.completion.after": "0 steps",
    "nlip.completion.every": "0 steps",
    "concepts.top_k": 0,
    "captions.evaluation": "greedy",
    "captions.candidates": 1,
    "captions.no_repeat_ngram": 3,  # after so little training it would go round in circles
    "captions.prompt": "",
    "model.embed_dim": 64,
    "model.init_temperature": 0.0,
    "model.max_logit_scale": 0.0,
    "model.dtype": "float32",
    "model.remat": "none",
    "model.dropout": 0.0,
    "model.scan": False,
    "model.image.width": 64,
    "model.image.depth": 2,
    "model.image.heads": 2,
    "model.image.mlp_dim": 0,
    "model.image.pool": "mean",
    "model.image.position": "learned",
    "model.text.width": 64,
    "model.text.depth": 1,
    "model.text.heads": 2,
    "model.text.mlp_dim": 0,
    "model.text.pool": "eos",
    "model.text.causal": False,
    "model.decoder.depth": 1,
    "model.decoder.heads": 2,
    "model.decoder.mlp_dim": 0,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.98,
    "optimizer.eps": 1e-6,
    "optimizer.weight_decay": 0.1,
    "optimizer.clip_norm": 1.0,
    "schedule.name": "constant",
    "accumulation.micro_batches": 1,
    "ema.decay": 0.0,
    "spikes.action": "off",
    "checkpoint.every": "200 steps",
    "checkpoint.keep": 1,
    "log.every": "50 steps",
    "log.tensorboard": False,
    "evaluation.every": "0 steps",
    "report.enabled": False,
}
_MEASURED = 20  # steps after which it is known how long one takes
_RISE = 50  # steps until the learning rate is there
_PIXELS = 64  # of a side, at most
_PATCHES = 4  # of a side
_TOKENS, _VOCABULARY = 32, 2000  # of a text; of a vocabulary that is trained


def small_config(
    data: ConfigDict, *, num_examples: int, index: str, row_shards: int
) -> tuple[ConfigDict, int]:
    """The training of a small model.

    Args:
      data: the config whose data are audited.
      num_examples: that are audited.
      index: folder of the index of these, which there is; empty for data without one.
      row_shards: devices that share a batch.

    Returns:
      Its config, and the step to stop at.
    """
    config = data.copy_and_resolve_references()
    batch_size = -(-_BATCH // row_shards) * row_shards
    steps = round(EPOCHS * num_examples / batch_size)
    steps = min(max(steps, LEAST_STEPS), MOST_STEPS)
    length = min(data.tokenizer.context_length, _TOKENS)
    size = min(data.data.image_size, _PIXELS) // _PATCHES * _PATCHES
    with config.unlocked():
        for name, value in _SMALL.items():
            block, field = _find(config, name)
            block[field] = value
        config.batch_size = batch_size
        # It ends one step before the first estimate, which is the audit's own.
        config.nlip.warmup = f"{steps + 1} steps"
        config.total = f"{steps + 2} steps"
        config.schedule.warmup = f"{min(steps, _RISE)} steps"
        config.data.image_size = size
        config.model.image.patch_size = size // _PATCHES
        config.tokenizer.context_length = length
        config.tokenizer.vocab_size = min(data.tokenizer.vocab_size, _VOCABULARY)
        config.captions.max_length = min(data.captions.max_length, length - 2)
        config.captions.min_length = min(data.captions.min_length, config.captions.max_length)
        config.evaluators = ConfigDict({kind: {} for kind in data.evaluators})
        if index:
            config.data[config.data.source].index = index
    return config, steps


class _Clock:
    """Whether it is time to end a training, asked at each of its steps.

    Args:
      steps: to be done.
      batch_size: of each.
      ends: seconds that training takes for a pair, infinite while that is not known -> the moment
        when it has to end, by `time.monotonic`.
    """

    def __init__(self, *, steps: int, batch_size: int, ends: Callable[[float], float]) -> None:
        self._steps, self._batch_size, self._ends = steps, batch_size, ends
        self._first: tuple[int, float] | None = None  # step and moment

    def is_over(self, step: int | None) -> bool:
        """At a step; elsewhere, where no step is known, by the time alone."""
        now, seconds = time.monotonic(), math.inf
        if step is not None:
            first, begun = self._first = self._first or (step, now)
            if step - first >= _MEASURED:
                seconds = (now - begun) / ((step - first) * self._batch_size)
        return now >= self._ends(seconds) or (step is not None and step >= self._steps)


def train_small(
    config: ConfigDict, folder: Path, *, steps: int, ends: Callable[[float], float]
) -> int:
    """Trains until all steps are done or the time is over, which is where it ends for good.

    Args:
      config: of the training.
      folder: of the run.
      steps: to be done.
      ends: seconds that training takes for a pair, infinite while that is not known -> the moment
        when it has to end, by `time.monotonic`.

    Returns:
      The step that the model was trained to.

    Raises:
      Preempted: the audit was asked to stop.
      RunError: there was no time for a single step.
    """
    mark = folder / _MARK
    if mark.exists():
        return int(mark.read_text())
    changes = workdirs.check_config(folder, config, may_grow=False)
    with contextlib.redirect_stdout(sys.stderr), workdirs.lock(folder):
        try:
            clock = _Clock(steps=steps, batch_size=config.batch_size, ends=ends)
            with stop.limited(clock.is_over) as limit:
                train_command.run_in(folder, config, changes=changes, trace=None)
        except Preempted:
            if not limit.reached:
                raise
    steps = saved_steps(folder / "checkpoints")
    if not steps or not steps[-1]:
        raise RunError(
            "the time was over before a model could be trained: give the audit more --minutes, or "
            "name a model with --run"
        )
    write_atomically(mark, str(steps[-1]).encode())
    return steps[-1]


def _find(config: ConfigDict, name: str) -> tuple[ConfigDict, str]:
    *blocks, field = name.split(".")
    for block in blocks:
        config = config[block]
    return config, field
