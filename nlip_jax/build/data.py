"""How the examples of a config are drawn, transformed and read."""

import dataclasses
import hashlib
import itertools
from pathlib import Path

from ml_collections import ConfigDict

from nlip_jax.columns import read_column
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.members import Bitmap, Keep, Members, Ranges
from nlip_jax.data.order import Draw, Epochs, Mixed, WithReplacement
from nlip_jax.data.pipeline import Reading
from nlip_jax.data.source import Source
from nlip_jax.data.sources.mixture import Mixture
from nlip_jax.data.text.tokenizer import Tokenizer
from nlip_jax.errors import UsageError


def make_draw(config: ConfigDict, *, source: Source) -> Draw:
    """Which examples of the data take part, and how they are drawn."""
    members: Members = Ranges(len(source), source.holes)
    low, high = _keep_range(config)
    if config.data.keep_column:
        column = Path(config.data.keep_column).expanduser()
        numberings = [dataclasses.asdict(numbering) for numbering in source.numberings]
        values = read_column(column, numberings=numberings)
        keep = Keep(name=str(column), values=values, low=low, high=high)
        members = Bitmap.of(members, keep)
    if config.data.source != "mixture":
        return (WithReplacement if config.data.replacement else Epochs)(members)
    if config.data.replacement:
        raise UsageError(
            "config.data.replacement=True and config.data.source='mixture': a mixture has epochs "
            "of its own; set replacement to False"
        )
    mixture = source
    while not isinstance(mixture, Mixture):  # what was planted lies around it
        mixture = mixture.source
    bounds = (0, *itertools.accumulate(mixture.part_sizes))
    return Mixed(members, bounds=bounds, weights=mixture.weights)


def _keep_range(config: ConfigDict) -> tuple[float, float]:
    keep_range = tuple(config.data.keep_range)
    if len(keep_range) != 2 or not keep_range[0] < keep_range[1]:
        raise UsageError(
            f"config.data.keep_range={keep_range}: must be two numbers, the lower one first"
        )
    return keep_range


def make_transform(config: ConfigDict) -> ImageTransform:
    """How images become squares."""
    data, augment = config.data, config.data.augment
    return ImageTransform(
        size=data.image_size,
        resize=data.resize,
        max_pixels=data.max_pixels,
        crop_scale=tuple(data.crop_scale),
        crop_ratio=tuple(data.crop_ratio),
        flip=data.flip,
        color_jitter=tuple(augment.color_jitter),
        color_jitter_prob=augment.color_jitter_prob,
        grayscale_prob=augment.grayscale_prob,
        blur_prob=augment.blur_prob,
        blur_sigma=tuple(augment.blur_sigma),
        policy=augment.policy,
        randaugment_ops=augment.randaugment_ops,
        randaugment_magnitude=augment.randaugment_magnitude,
        seed=config.seed,
    )


def make_reading(config: ConfigDict) -> Reading:
    """Threads and workers of the pipeline."""
    if config.data.cache not in ("none", "memory"):
        raise UsageError(f"config.data.cache={config.data.cache!r}: choose one of none, memory")
    if config.data.cache == "memory" and config.data.workers:
        raise UsageError(
            f"config.data.cache='memory' lies in the trainer, out of reach of "
            f"config.data.workers={config.data.workers}: set one of them to none / 0"
        )
    return Reading(
        workers=config.data.workers,
        threads=config.data.threads,
        prefetch=config.data.prefetch,
        in_memory=config.data.cache == "memory",
    )


def data_fingerprint(
    config: ConfigDict, *, source: Source, draw: Draw, tokenizer: Tokenizer
) -> str:
    """Changes whenever the rows of a batch would."""
    text = f"{source.fingerprint} {tokenizer.fingerprint} {tokenizer.context_length}"
    if config.data.keep_column:
        low, high = config.data.keep_range
        done = Path(config.data.keep_column).expanduser() / "DONE"
        text += f" {len(draw)} {low} {high} {done.read_text()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
