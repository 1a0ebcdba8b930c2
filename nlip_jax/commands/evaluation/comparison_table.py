"""The table of `evaluate --compare` in the terminal."""

from nlip_jax.evaluators.comparison import Comparison
from nlip_jax.outcome import Compared
from nlip_jax.report.formats import format_difference, format_signed_interval, format_value

_HEAD = ("metric", "A", "B", "B - A", "95 % interval", "p of worse", "")


def format_comparison(found: Comparison, *, tolerance: float) -> str:
    """Aligned plain text: a line for each metric, and one that sums them up.

    Args:
      found: what is shown.
      tolerance: that it was judged with.
    """
    rows = [_HEAD, *(_row(metric) for metric in found.metrics)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    judged = [metric for metric in found.metrics if metric.verdict != "not judged"]
    counts = {v: sum(metric.verdict == v for metric in judged) for v in ("worse", "better")}
    lines.append(
        f"{len(judged)} metrics judged (tolerance {tolerance:g}, p after Holm's "
        f"correction): {counts['worse']} worse, {counts['better']} better"
    )
    return "\n".join(lines)


def _row(metric: Compared) -> tuple[str, ...]:
    judged = metric.p is not None
    return (
        metric.name,
        format_value(metric.name, metric.a),
        format_value(metric.name, metric.b),
        format_difference(metric.name, metric.difference),
        format_signed_interval(metric.name, metric.low, metric.high) if judged else "",
        f"{metric.p:.2g}" if judged else "",
        metric.verdict,
    )
