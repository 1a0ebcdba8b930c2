"""How results read: their groups, their order, their digits. The page and the terminal share it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

GROUPS = ("noise", "zero_shot", "retrieval", "caption", "other", "time")  # in the order of display
_SHARES = r"accuracy|precision|recall|f1|share|fraction|mfu|top\d+|per_class|goodput"
SHARE = re.compile(rf"(^|_)({_SHARES})(?=$|[_@])")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One named number, ready for display."""

    name: str  # without its group
    text: str
    share: float | None  # in [0, 1] where the number is a share, for a bar
    finite: bool


def is_share(name: str) -> bool:
    """Whether a metric is a fraction that reads better in percent: `recall@1`, `top5`, `share`."""
    return SHARE.search(name.rsplit("/", 1)[-1]) is not None


def format_number(value: float) -> str:
    """Four significant digits, thousands separated, `NaN` and `inf` spelt out."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{value:+}"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def format_seconds(seconds: float) -> str:
    """A duration in the two units that matter: `0.21 s`, `4 min 05 s`, `1 h 02 min`."""
    if not math.isfinite(seconds) or seconds < 60:
        return f"{format_number(round(seconds, 3))} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def format_value(name: str, value: float) -> str:
    """The text of a metric, by its name: a share in percent, seconds as a duration, or a number.

    Args:
        name: path of the metric, such as `retrieval/image_to_text/recall@1`.
        value: a fraction in [0, 1] for shares, seconds for names that end in `seconds`.
    """
    if is_share(name) and math.isfinite(value):
        return f"{100 * value:.1f} %"
    if name.endswith("seconds"):
        return format_seconds(value)
    return format_number(value)


def group_results(results: Mapping[str, float]) -> dict[str, list[Result]]:
    """Results by the first component of their path, groups in the order of `GROUPS`.

    Inside a group the given order is kept: an evaluator knows best what to name first.
    """
    groups: dict[str, list[Result]] = {}
    for path, value in results.items():
        group, name = path.split("/", 1) if "/" in path else ("other", path)
        share = value if is_share(path) and math.isfinite(value) else None
        result = Result(
            name=name, text=format_value(path, value), share=share, finite=math.isfinite(value)
        )
        groups.setdefault(group, []).append(result)
    rank = {name: i for i, name in enumerate(GROUPS)}
    return dict(sorted(groups.items(), key=lambda item: rank.get(item[0], rank["other"])))
