"""`doctor`: read a sample of a config's data as training would, and say what was found."""

import math
import os
import platform
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from nlip_jax import __version__, build
from nlip_jax.commands.evaluation_sets import report, sets_of
from nlip_jax.commands.json_file import check_json_file, write_json_file
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.table import COMMANDS
from nlip_jax.commands.workdir import find_workdir, make_workdir
from nlip_jax.config import parse_command_line
from nlip_jax.data.examine import Findings, examine
from nlip_jax.data.failures import FAILURES
from nlip_jax.data.labelled import LabelledSet
from nlip_jax.errors import UsageError
from nlip_jax.train.metrics import read_metrics

_SAMPLE, _RATE = 512, 1000.0
_SAMPLE_OF_A_SET = 8


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code: 1 where too much of the sample is bad."""
    flags = COMMANDS["doctor"].flags
    argv = ["--evaluation=1" if argument == "--evaluation" else argument for argument in argv]
    config, values = parse_command_line(argv, command="doctor", extra_flags=flags)
    workdir = find_workdir(values["workdir"], argv)
    check_numbers(config)
    if values["evaluation"]:
        return _check_evaluation(config, values, workdir)
    count = _number(values["sample"], default=_SAMPLE, flag="sample", least=1)
    json_file = check_json_file(values["json"])
    rate, of_rate = _rate(values["rate"], workdir)

    transform = build.make_transform(config)
    make_workdir(workdir)
    source = build.open_training_source(config, workdir)
    draw = build.make_draw(config, source=source)
    tokenizer = build.open_tokenizer(config, source=source, workdir=workdir)
    evaluators = build.make_evaluators(config, workdir)
    print(_machine())
    print(
        f"data: {config.data.source}, {len(draw):,} of {len(source):,} examples take part, "
        f"{source.num_images:,} images, fingerprint {source.fingerprint}"
    )
    for name, evaluator in evaluators.items():
        for part, one in sets_of(evaluator):
            images = one.source if isinstance(one, LabelledSet) else one
            print(f"evaluation: {'/'.join([name, *part])}, {images.num_images:,} images")
    found = examine(
        source,
        draw=draw,
        transform=transform,
        tokenizer=tokenizer,
        count=count,
        seed=config.seed,
    )
    print("\n".join(describe(found, config=config, rate=rate, of_rate=of_rate)))
    if json_file is not None:
        write_json_file(json_file, to_numbers(found, rate=rate))
    return int(found.bad_share > config.data.max_bad_fraction)


def _check_evaluation(config: ConfigDict, values: dict[str, str], workdir: Path) -> int:
    """Looks at the sets of evaluators alone; returns 1 where one of them is bad."""
    if values["evaluation"] != "1":
        raise UsageError(f"--evaluation={values['evaluation']}: takes no value")
    if values["rate"]:
        raise UsageError(f"--rate={values['rate']}: --evaluation measures no speed; leave one out")
    count = _number(values["sample"], default=_SAMPLE_OF_A_SET, flag="sample", least=1)
    json_file = check_json_file(values["json"])
    make_workdir(workdir)
    # Whether a model can be asked for captions is no matter of the sets.
    makers = build.evaluator_makers(config, workdir, can_caption=True)
    if not makers:
        raise UsageError(
            "config.evaluators has no sets: add some in the config file, such as those of "
            "configs/evaluation_sets.py"
        )
    bad, numbers = 0, {}
    for name, make in makers.items():
        found = report(
            name, make, sample=count, max_pixels=config.data.max_pixels, seed=config.seed
        )
        print("\n".join([*found.lines, *(f"bad: {problem}" for problem in found.problems)]))
        bad += bool(found.problems)
        numbers |= {f"doctor/{key}": value for key, value in found.numbers.items()}
        numbers[f"doctor/{name}/problems"] = float(len(found.problems))
    print(f"{len(makers) - bad} of {len(makers)} evaluation sets are good")
    if json_file is not None:
        write_json_file(json_file, numbers | {"doctor/bad_sets": float(bad)})
    return int(bad > 0)


def describe(found: Findings, *, config: ConfigDict, rate: float, of_rate: str) -> list[str]:
    """The findings in lines.

    Args:
      found: about a sample.
      config: of the run.
      rate: examples a second that are wanted.
      of_rate: where that number comes from.
    """
    lines = [f"sample: {found.sampled} random examples, {found.bad_share:.1%} bad"]
    for kind, number in found.failed.items():
        example_id, place, message = found.first_failed[kind]
        lines += [
            f"  {number} x {kind} ({FAILURES[kind]})",
            f"      example {example_id}, {place.key} in {place.shard}: {message}",
        ]
    if found.bad_share > config.data.max_bad_fraction:
        lines.append(
            f"  more than config.data.max_bad_fraction={config.data.max_bad_fraction:g}: training "
            "would stop"
        )
    if not len(found.heights):
        return lines
    sides = np.minimum(found.heights, found.widths)
    longer = np.maximum(found.heights, found.widths)
    small = float((sides < config.data.image_size).mean())
    lines += [
        f"images: width {_spread(found.widths)}, height {_spread(found.heights)} pixels, "
        f"{_spread(found.image_bytes)} bytes (least / middle / most)",
        f"  longer side up to {(longer / sides).max():.2f} times the shorter; "
        f"{small:.1%} are smaller than data.image_size={config.data.image_size}",
        f"captions: {_spread(found.caption_characters)} characters, "
        f"{_spread(found.tokens)} tokens; {found.cut_share:.1%} are cut at "
        f"tokenizer.context_length={found.context_length}",
        *(f"  {place.key} in {place.shard}: {text[:80]!r}" for place, text in found.examples),
        "one row costs, in milliseconds of one core: "
        + ", ".join(f"{stage} {1e3 * s:.2f}" for stage, s in found.cpu_seconds.items()),
        f"  {found.images_per_second_per_core:,.0f} images a second on one core; for {rate:,.0f} a "
        f"second ({of_rate}) {cores_needed(found, rate=rate)} cores, this host has "
        f"{os.cpu_count()}",
    ]
    return lines


def cores_needed(found: Findings, *, rate: float) -> int:
    """Cores that make so many rows a second."""
    return math.ceil(rate / found.images_per_second_per_core)


def to_numbers(found: Findings, *, rate: float) -> dict[str, float]:
    """The findings as flat numbers."""
    numbers = {
        "doctor/sampled": float(found.sampled),
        "doctor/bad_share": found.bad_share,
        **{f"doctor/failed/{kind}": float(number) for kind, number in found.failed.items()},
    }
    if not len(found.heights):
        return numbers
    return numbers | {
        "doctor/median_width": float(np.median(found.widths)),
        "doctor/median_height": float(np.median(found.heights)),
        "doctor/median_image_bytes": float(np.median(found.image_bytes)),
        "doctor/median_caption_characters": float(np.median(found.caption_characters)),
        "doctor/median_tokens": float(np.median(found.tokens)),
        "doctor/cut_share": found.cut_share,
        "time/images_per_second_per_core": found.images_per_second_per_core,
        "time/cores_needed": float(cores_needed(found, rate=rate)),
        **{f"time/{stage}_ms": 1e3 * seconds for stage, seconds in found.cpu_seconds.items()},
    }


def _machine() -> str:
    devices = jax.devices()
    return (
        f"nlip_jax {__version__}, Python {platform.python_version()}, jax {jax.__version__}: "
        f"{len(devices)} {devices[0].device_kind} device{'s' * (len(devices) > 1)}, "
        f"{os.cpu_count()} cores"
    )


def _spread(values: np.ndarray) -> str:
    return " / ".join(f"{value:,.0f}" for value in (values.min(), np.median(values), values.max()))


def _number(text: str, *, default: float, flag: str, least: float) -> Any:
    try:
        number = type(default)(text) if text else default
    except ValueError as error:
        raise UsageError(f"--{flag}={text}: must be a number") from error
    if not least <= number < math.inf:
        raise UsageError(f"--{flag}={text}: must be at least {least} and finite")
    return number


def _rate(text: str, workdir: Path) -> tuple[float, str]:
    """Examples a second that are wanted, and where the number comes from."""
    if text:
        return _number(text, default=_RATE, flag="rate", least=1e-9), "--rate"
    speeds = [
        line["time/examples_per_second"] / max(1 - line["time/data_wait_share"], 1e-3)
        for line in read_metrics(workdir / "metrics.jsonl")
        if "time/examples_per_second" in line
    ]
    if speeds:
        return float(np.median(speeds)), "what the run in this workdir could take"
    return _RATE, "say yours with --rate"
