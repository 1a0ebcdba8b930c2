"""One self-contained HTML page that shows what a run did: `report.html`.

Everything is inside the file: styles, plots (SVG) and pictures (data URIs). It runs no script and
its content security policy lets it load nothing, whatever a caption says. Import this module only
where a report is written: it brings matplotlib.
"""

import os
import shlex
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from nlip_jax.files import write_atomically
from nlip_jax.report import plots
from nlip_jax.report.exhibits import clip_text
from nlip_jax.report.formats import HEADINGS, format_number, format_value, group_results
from nlip_jax.report.records import NoiseEstimate, RunReport
from nlip_jax.report.thumbnails import thumbnail

# Curves are sorted by the longest of these that their name begins with.
CURVES = ("train/loss", "train/", "noise/", "learning_rate", "", "time/")

ENVIRONMENT = Environment(
    loader=PackageLoader("nlip_jax.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters.update(
    number=format_number, value=format_value, thumbnail=thumbnail, clip=clip_text
)
ENVIRONMENT.globals.update(headings=HEADINGS)


class Round(NamedTuple):
    """One noise estimate and the drawings made of it."""

    estimate: NoiseEstimate
    plots: list[plots.Plot]


def _curves(report: RunReport) -> list[plots.Plot]:
    """A plot of every metric that was written at least twice; a rewritten step counts once."""
    points: dict[str, dict[float, float]] = {}
    for line in report.metrics:
        for key, value in line.items():
            if key != "step":
                points.setdefault(key, {})[line["step"]] = value
    keys = [key for key, series in points.items() if len(series) > 1]

    def rank(key: str) -> int:
        return CURVES.index(max((p for p in CURVES if key.startswith(p)), key=len))

    marks = [estimate.step for estimate in report.noise]
    return [
        plots.curve(key, points[key], marks=marks, name=f"curve{i}")
        for i, key in enumerate(sorted(keys, key=rank))
    ]


def _round(estimate: NoiseEstimate, name: str) -> Round:
    """The drawings of one estimate; calibration only where the truth is known."""
    drawn = [
        plots.losses(estimate, name=f"{name}-losses"),
        plots.noise_probs(estimate, name=f"{name}-probs"),
    ]
    if estimate.calibration:
        drawn.append(plots.calibration(estimate, name=f"{name}-calibration"))
    return Round(estimate, drawn)


def _flags(config: Mapping[str, Any], path: str = "--config") -> Iterator[str]:
    """The arguments that would set a nested config, `--config.optimizer.lr=0.001`, shell-quoted."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flags(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}={shlex.quote(str(value))}"


def render(report: RunReport) -> str:
    """The page as HTML: the same report gives the same text."""
    rounds = [_round(estimate, f"round{i}") for i, estimate in enumerate(report.noise)]
    return ENVIRONMENT.get_template("run.html").render(
        report=report,
        groups=group_results(report.results),
        curves=_curves(report),
        broken=not all(isfinite(value) for line in report.metrics for value in line.values()),
        rounds=rounds[::-1],
        flags=list(_flags(report.config)),
    )


def write(path: str | os.PathLike, report: RunReport) -> None:
    """Writes the page of a run atomically: a reader sees the old page or the whole new one.

    Args:
        path: where the page goes, usually `report.html` in the workdir; its folder exists.
        report: what the page shows.
    """
    write_atomically(path, render(report).encode())
