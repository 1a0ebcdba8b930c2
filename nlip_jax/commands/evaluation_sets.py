"""Looks at the sets of evaluators, one by one: what they hold, and what cannot be read."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from nlip_jax.data.formats.base import COUNTS
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.data.labelled import LabelledSet
from nlip_jax.data.source import Source
from nlip_jax.errors import RunError, UsageError
from nlip_jax.evaluators.base import Evaluator

_SHOWN = 3  # class names and templates
_WHOLE = ("images", "captions", "other")  # counts that are no loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What was found of one evaluator's sets.

    Attributes:
      lines: what they hold.
      problems: a line each; none where all is well.
      numbers: by name.
    """

    lines: tuple[str, ...]
    problems: tuple[str, ...]
    numbers: Mapping[str, float]


def report(
    name: str, make: Callable[[], Evaluator], *, sample: int, max_pixels: int, seed: int
) -> Report:
    """Opens the sets of an evaluator and reads a few images and captions of each.

    Args:
      name: of the evaluator, "KIND/SET".
      make: makes it.
      sample: images and captions to read of every set.
      max_pixels: larger images count as bad.
      seed: of the choice.
    """
    try:
        evaluator = make()
    except (UsageError, RunError, OSError) as error:
        return Report(lines=(), problems=(f"{name}: {error}",), numbers={})
    lines, problems, numbers = [], [], {}
    for part, found in sets_of(evaluator):
        where = "/".join([name, *part])
        source = found.source if isinstance(found, LabelledSet) else found
        words, values = _describe(found)
        lines.append(f"{where}: {words}")
        numbers |= {f"{where}/{key}": float(value) for key, value in values.items()}
        if isinstance(found, LabelledSet):
            problems += [f"{where}: {loss}" for loss in _losses(source)]
        bad = _read_some(source, sample=sample, max_pixels=max_pixels, seed=seed)
        problems += [f"{where}: {problem}" for problem in bad]
    return Report(lines=tuple(lines), problems=tuple(problems), numbers=numbers)


def sets_of(part: Any, *names: str) -> Iterator[tuple[tuple[str, ...], LabelledSet | Source]]:
    """Every set that a dataclass holds, however deep, with the names of the parts it is in."""
    if isinstance(part, LabelledSet) or _is_source(part):
        yield names, part
    elif isinstance(part, Mapping):
        for name, inner in part.items():
            yield from sets_of(inner, *names, str(name))
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        for field in dataclasses.fields(part):
            # What there is one of needs no name: evaluators have a `source`, or a `labelled`.
            own = () if field.name in _ONLY_ONE else (field.name,)
            yield from sets_of(getattr(part, field.name), *names, *own)


_ONLY_ONE = ("source", "labelled", "choices", "items", "languages")


def _is_source(part: Any) -> bool:
    return hasattr(part, "num_images") and hasattr(part, "picture")


def _describe(found: LabelledSet | Source) -> tuple[str, dict[str, int]]:
    """The set in words, and its numbers."""
    if not isinstance(found, LabelledSet):
        values = {"images": found.num_images, "captions": len(found)}
        return f"{found.num_images:,} images, {len(found):,} captions", values
    counts = np.bincount(found.labels, minlength=found.num_classes)
    values = {
        "images": found.source.num_images,
        "classes": found.num_classes,
        "templates": len(found.templates),
    }
    parts = [
        f"{found.source.num_images:,} images",
        f"{found.num_classes:,} classes ({_some(found.class_names)})",
        f"{counts.min():,} to {counts.max():,} images a class",
    ]
    if found.templates:
        parts.append(f"{len(found.templates)} templates ({_some(found.templates)})")
    return ", ".join(parts), values


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


def _losses(source: Source) -> list[str]:
    """What the index of a set left out."""
    counts = source.index.counts if hasattr(source, "index") else {}
    return [
        f"{count:,} left out: {COUNTS[name]}"
        for name, count in counts.items()
        if count and name not in _WHOLE
    ]


def _read_some(source: Source, *, sample: int, max_pixels: int, seed: int) -> Iterator[str]:
    """Why some of the images and captions cannot be read."""
    rng = np.random.default_rng(seed)
    for image in _choose(rng, source.num_images, sample):
        try:
            to_pixels(source.picture(image), max_pixels=max_pixels)
        except RunError as error:
            place = source.place(image)
            yield f"image {image}, {place.key} in {place.shard}: {error}"
    for example in _choose(rng, len(source), sample):
        try:
            source.caption(example)
        except RunError as error:
            yield f"caption {example}: {error}"


def _choose(rng: np.random.Generator, count: int, sample: int) -> list[int]:
    return sorted(rng.choice(count, min(count, sample), replace=False).tolist())
