"""The plots of a report, as SVG to be inlined: no scripts, no fixed colours, the same bytes twice.

Colours are written as CSS variables, so that the page's light and dark themes reach into the
plots. matplotlib is imported here only, and through its object-oriented interface: no display,
no figure left behind in `pyplot`.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator, PercentFormatter

from nlip_jax.outcome import Curve
from nlip_jax.report.formats import format_number, format_value, is_score, is_share
from nlip_jax.report.records import NoiseEstimate

# What matplotlib paints with -> the CSS variable it becomes. The values here only have to differ.
INK, GRID, LINE, BAD = "#010101", "#020202", "#030303", "#040404"
CLEAN, NOISY, THIRD, FOURTH = "#050505", "#060606", "#070707", "#080808"
VARIABLES = {
    INK: "ink-soft",
    GRID: "rule",
    LINE: "line",
    BAD: "bad",
    CLEAN: "clean",
    NOISY: "noisy",
    THIRD: "third",
    FOURTH: "fourth",
}
KINDS = (CLEAN, NOISY, THIRD, FOURTH)  # of planted noise, in the order they are given

STYLE = {
    "svg.hashsalt": "nlip_jax",
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],  # measured with; the page sets its own
    "text.parse_math": False,  # names come from outside: a "$" in one is a dollar
    "path.simplify_threshold": 0.5,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "lines.linewidth": 1.6,
}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
NUMBER = FuncFormatter(lambda value, _: format_number(value))
HUNDREDFOLD = FuncFormatter(lambda value, _: format_number(100 * value))
POINTS = 160  # of a curve; more are summed up by their mean and their range


class Plot(NamedTuple):
    """One drawing and the words that go with it."""

    title: str
    note: str  # the one number to take away
    text: str  # read aloud in place of the drawing
    svg: str
    aspect: float  # width / height


def _inline(svg: str, name: str) -> str:
    """An SVG file as part of a page: short, coloured by variables, its ids made its own.

    Only what stands inside of tags changes; the texts between them are the user's.
    """

    def tidy(match: re.Match[str]) -> str:
        tag = re.sub(r' id="[A-Za-z]+[A-Za-z0-9]*_\d+"', "", match[0])  # no one refers to these
        tag = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag)
        tag = re.sub(r"\d+\.\d{3,}", lambda digits: f"{float(digits[0]):.2f}", tag)
        tag = re.sub(r"font-family: [^;]*; ", "", tag)
        for colour, variable in VARIABLES.items():
            tag = tag.replace(colour, f"var(--{variable})")
        return re.sub(r"\s+", " ", tag).rstrip()

    view_box = re.search(r'viewBox="[^"]*"', svg)[0]
    drawing = svg.partition("</defs>")[2]  # what comes before is a style for the whole page
    return f"<svg {view_box}>" + re.sub(r"<[^>]*>\s*", tidy, drawing.lstrip())


def _plot(
    paint: Callable[[Axes], None],
    *,
    name: str,
    size: tuple[float, float],
    title: str,
    note: str,
    text: str,
) -> Plot:
    """Draws on fresh axes; `name` keeps the ids of this drawing apart from the page's others."""
    buffer = io.StringIO()
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    return Plot(title, note, text, _inline(buffer.getvalue(), name), size[0] / size[1])


def _density(edges: np.ndarray, counts: np.ndarray, total: float) -> np.ndarray:
    """Histogram counts as a density, so that bins of any width compare with a fitted curve."""
    return np.asarray(counts) / np.diff(edges) / max(total, 1)


def losses(estimate: NoiseEstimate, *, name: str) -> Plot:
    """The histogram of per-pair losses, by planted kind where known, under the fitted mixture."""
    edges = np.asarray(estimate.loss_edges)
    total = np.sum(estimate.losses_counts)
    kinds = estimate.counts_by_truth or {"all pairs": estimate.losses_counts}
    colours = KINDS if estimate.counts_by_truth else (LINE,)
    x = np.linspace(edges[0], edges[-1], 240)

    def paint(axes: Axes) -> None:
        base = np.zeros(len(edges) - 1)
        for i, (kind, counts) in enumerate(kinds.items()):
            top = base + _density(edges, counts, total)
            colour = colours[i % len(colours)]
            axes.stairs(top, edges, baseline=base, fill=True, color=colour, alpha=0.55, label=kind)
            base = top
        for component, colour in zip(estimate.components, (CLEAN, NOISY), strict=True):
            axes.plot(x, component.density(x), color=colour, label=f"fitted: {component.name}")
        mixture = sum(component.density(x) for component in estimate.components)
        axes.plot(x, mixture, color=INK, linewidth=1, linestyle=(0, (3, 2)), label="fitted: sum")
        # A component narrower than a bin may be as tall as it likes: the histogram stays readable.
        top = min(max(base.max(), np.nanmax([0, *mixture])), 2 * base.max())
        axes.set(xlabel="loss of a pair (nats)", ylabel="density")
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.1 * top or 1))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.legend(loc="best")

    means = " and ".join(f"{component.mean:.3g}" for component in estimate.components)
    return _plot(
        paint,
        name=name,
        title="Losses of the pairs and the fitted mixture",
        note=f"{total:,.0f} pairs",
        text=f"Histogram of per-pair losses with two Gaussians, with means {means}.",
        size=(5.4, 2.3),
    )


def noise_probs(estimate: NoiseEstimate, *, name: str) -> Plot:
    """The histogram of noise probabilities; its counts are logarithmic, to show the middle too."""
    edges = np.asarray(estimate.noise_prob_edges)
    counts = np.asarray(estimate.noise_prob_counts)
    noisy = edges[:-1] >= 0.5
    share = format_value("share", counts[noisy].sum() / max(counts.sum(), 1))

    def paint(axes: Axes) -> None:
        for side, colour in ((~noisy, CLEAN), (noisy, NOISY)):
            axes.stairs(np.where(side, counts, 0), edges, fill=True, color=colour, alpha=0.75)
        axes.set(xlabel="noise probability", ylabel="pairs", xlim=(0, 1), yscale="symlog", ylim=0)
        axes.yaxis.set_major_formatter(NUMBER)

    return _plot(
        paint,
        name=name,
        title="Noise probability",
        note=f"{share} noisy",
        text=f"Histogram of the noise probabilities: {share} of the pairs are above 0.5.",
        size=(2.7, 2.3),
    )


def calibration(estimate: NoiseEstimate, *, name: str) -> Plot:
    """Observed against predicted share of noise, with the standard error of each bin."""
    bins = np.asarray(estimate.calibration, np.float64)
    predicted, observed, counts = bins[np.isfinite(bins).all(1) & (bins[:, 2] > 0)].T
    error = np.sqrt(observed * (1 - observed) / counts)
    area = 10 + 90 * np.sqrt(counts / max(counts.max(initial=0), 1))
    gap = np.sum(counts * np.abs(predicted - observed)) / max(counts.sum(), 1)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (3, 2)))
        axes.vlines(predicted, observed - error, observed + error, color=LINE, linewidth=1.2)
        axes.scatter(predicted, observed, area, color=LINE, alpha=0.8, linewidth=0)
        axes.set(xlabel="noise probability", ylabel="truly noisy")
        axes.set(xlim=(-0.06, 1.06), ylim=(-0.06, 1.06))
        axes.yaxis.set_major_formatter(PercentFormatter(1))

    return _plot(
        paint,
        name=name,
        title="Calibration",
        note=f"mean error {format_value('share', gap)}",
        text="Observed share of noisy pairs against their noise probability, in "
        f"{len(counts)} bins; the mean distance is {format_value('share', gap)}.",
        size=(2.7, 2.3),
    )


def _range(values: np.ndarray) -> tuple[float, float, float]:
    """Smallest, mean and largest of the finite values; NaN, a gap in the curve, without any."""
    values = values[np.isfinite(values)]
    return (values.min(), values.mean(), values.max()) if values.size else (np.nan,) * 3


def curve(
    key: str, points: Mapping[float, float], *, marks: Sequence[float] = (), name: str
) -> Plot:
    """One metric over the steps: mean and range of neighbours, red lines where it is not finite.

    Args:
        key: the metric's path; decides the format of its values.
        points: value by step.
        marks: steps to mark with a dashed line.
        name: prefix of the drawing's ids.
    """
    steps, values = (np.asarray(x, np.float64) for x in zip(*sorted(points.items()), strict=True))
    parts = min(len(steps), POINTS)
    x = np.array([part.mean() for part in np.array_split(steps, parts)])
    broken = np.array([not np.isfinite(part).all() for part in np.array_split(values, parts)])
    low, mean, high = np.array([_range(part) for part in np.array_split(values, parts)]).T

    def paint(axes: Axes) -> None:
        if parts < len(steps):
            axes.fill_between(x, low, high, color=LINE, alpha=0.2, linewidth=0)
        few = {"marker": "o", "markersize": 3.5} if parts <= 12 else {}
        axes.plot(x, mean, color=LINE, **few)
        for mark in marks:
            axes.axvline(mark, color=NOISY, linewidth=1, linestyle=(0, (3, 2)))
        for step in x[broken]:
            axes.axvline(step, color=BAD, linewidth=1)
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(NUMBER)
        axes.yaxis.set_major_formatter(_ticks(key))

    last = format_value(key, values[-1])
    bad = len(values) - np.isfinite(values).sum()
    return _plot(
        paint,
        name=name,
        title=f"{key} x 100" if is_score(key) else key,
        note=last,
        text=f"{key} over the steps {steps[0]:,.0f} to {steps[-1]:,.0f}, ending at {last}"
        + (f"; {bad} values are not finite" if bad else ""),
        size=(3.6, 1.75),
    )


def _ticks(key: str) -> Formatter:
    """How the values of a metric stand at an axis; as `format_value` writes them."""
    if is_share(key):
        return PercentFormatter(1)
    return HUNDREDFOLD if is_score(key) else NUMBER


def few_points(shown: Curve, *, name: str) -> Plot:
    """What an evaluator measured at a few points, each of them marked.

    Args:
        shown: the points; those without a finite value are gaps.
        name: prefix of the drawing's ids.
    """
    x, y = np.array(shown.points, np.float64).reshape(-1, 2).T
    is_best = y == np.nanmax(y, initial=-np.inf)

    def paint(axes: Axes) -> None:
        axes.plot(x, y, color=LINE, marker="o", markersize=3.5)
        if shown.log_x and x.min() > 0:
            axes.set_xscale("log")
            axes.minorticks_off()
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(NUMBER)
        axes.margins(x=0.04, y=0.12)
        axes.set(xlabel=shown.x_label, ylabel=shown.y_label)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(_ticks(shown.y_label))

    values = ", ".join(
        f"{format_value(shown.y_label, b)} at {format_number(a)}"
        for a, b in zip(x, y, strict=True)
    )
    best = format_value(shown.y_label, y[is_best][0]) if is_best.any() else "NaN"
    return _plot(
        paint,
        name=name,
        title=shown.title,
        note=f"best {best}",
        text=f"{shown.y_label} over {shown.x_label}: {values}",
        size=(3.6, 2.0),
    )
