"""How results read: their groups, their order, their digits. The page and the terminal share it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

GROUPS = (  # in the order of display
    "noise",
    "completion",
    "zero_shot",
    "retrieval",
    "linear_probe",
    "few_shot",
    "knn",
    "clustering",
    "geometry",
    "caption",
    "pair_choice",
    "judgement",
    "other",
    "time",
)
# Groups that say more in a heading than their name.
HEADINGS = {"caption": "caption (scores x 100, as papers print them)"}
_SHARES = (
    r"accuracy|precision|recall|f1|share|fraction|mfu|top\d+|per_class|goodput|purity|chance"
    r"|(text|image|group)_score"  # of pairs of pairs, as Winoground names them
)
SHARE = re.compile(rf"(^|_)({_SHARES})(?=$|[_@])")
# In [0, 1] or, for CIDEr, [0, 10]; papers print 100 times that, without a percent sign.
_SCORE = re.compile(r"(bleu_?\d?|rouge(_?l)?|meteor|cider(_?d)?|spice)(_low|_high)?")
# Kinds whose headline, and the mean of that over sets, is a share.
_SHARE_KINDS = {"zero_shot", "retrieval", "linear_probe", "few_shot", "knn", "pair_choice"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One named number, ready for display.

    Attributes:
        name: without its group.
        text: of the value.
        share: the value where it is a share in [0, 1], for a bar.
        finite: whether the value is a number.
        interval: its text, `[71.9, 77.0]`; empty where there is none.
        low: its lower end; None where there is none.
        high: its upper end; likewise.
    """

    name: str
    text: str
    share: float | None
    finite: bool
    interval: str = ""
    low: float | None = None
    high: float | None = None


def is_share(name: str) -> bool:
    """Whether a metric is a fraction that reads better in percent: `recall@1`, `top5`, `share`."""
    *groups, last = name.split("/")
    if last in ("headline", "headline_low", "headline_high"):
        return not _SHARE_KINDS.isdisjoint(groups)
    return SHARE.search(last) is not None


def is_score(name: str) -> bool:
    """Whether a metric is a score of captions, which is displayed times 100: `cider`, `bleu4`."""
    *groups, last = name.lower().split("/")
    if last in ("headline", "headline_low", "headline_high"):
        return "caption" in groups
    return _SCORE.fullmatch(last) is not None


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
    """The text of a metric, by its name.

    Args:
        name: path of the metric, such as `retrieval/image_to_text/recall@1`.
        value: a fraction in [0, 1] for shares, seconds for names that end in `seconds`.

    Returns:
        A share in percent, a score of captions times 100, seconds as a duration, or a number.
    """
    if is_share(name) and math.isfinite(value):
        return f"{100 * value:.1f} %"
    if is_score(name) and math.isfinite(value):
        return f"{100 * value:.1f}"
    if name.endswith("seconds"):
        return format_seconds(value)
    return format_number(value)


def format_interval(name: str, low: float, high: float) -> str:
    """An interval as it stands behind its value: `[71.9, 77.0]` for a share, in percent."""
    return f"[{_bare(name, low)}, {_bare(name, high)}]"


def format_difference(name: str, value: float) -> str:
    """A signed difference of two values of a metric: `+1.2 points` for shares, else a number."""
    text = _signed(name, value)
    return f"{text} points" if is_share(name) and math.isfinite(value) else text


def format_signed_interval(name: str, low: float, high: float) -> str:
    """The interval of a difference: `[+0.3, +2.1]`."""
    return f"[{_signed(name, low)}, {_signed(name, high)}]"


def _bare(name: str, value: float) -> str:
    """A value without its unit."""
    return format_value(name, value).removesuffix(" %")


def _signed(name: str, value: float) -> str:
    """A value with its sign and without its unit; what is displayed as zero has none."""
    text = _bare(name, value).lstrip("+-")
    if not math.isfinite(value):
        return f"{value:+}" if math.isinf(value) else text
    is_zero = not any(digit in text for digit in "123456789")
    return text if is_zero else f"{'-' if value < 0 else '+'}{text}"


def take_intervals(
    results: Mapping[str, float],
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Values by name, and the intervals of those that have a NAME_low and a NAME_high beside them.

    Args:
        results: metric by path.

    Returns:
        The values without the ends of intervals, and (low, high) by path.
    """
    intervals = {
        name: (results[f"{name}_low"], results[f"{name}_high"])
        for name in results
        if f"{name}_low" in results and f"{name}_high" in results
    }
    ends = {f"{name}{end}" for name in intervals for end in ("_low", "_high")}
    return {name: value for name, value in results.items() if name not in ends}, intervals


def group_results(results: Mapping[str, float]) -> dict[str, list[Result]]:
    """Results by the first component of their path, groups in the order of `GROUPS`.

    Inside a group the given order is kept: an evaluator knows best what to name first.
    """
    values, intervals = take_intervals(results)
    groups: dict[str, list[Result]] = {}
    for path, value in values.items():
        group, name = path.split("/", 1) if "/" in path else ("other", path)
        groups.setdefault(group, []).append(
            make_result(path, value, interval=intervals.get(path), name=name)
        )
    rank = {name: i for i, name in enumerate(GROUPS)}
    return dict(sorted(groups.items(), key=lambda item: rank.get(item[0], rank["other"])))


def make_result(
    path: str, value: float, *, interval: tuple[float, float] | None, name: str
) -> Result:
    """A number with its text.

    Args:
        path: of the metric; decides its format.
        value: of it.
        interval: (low, high) around it, or None.
        name: to display.
    """
    low, high = interval or (None, None)
    return Result(
        name=name,
        text=format_value(path, value),
        share=value if is_share(path) and math.isfinite(value) else None,
        finite=math.isfinite(value),
        interval=format_interval(path, *interval) if interval else "",
        low=low,
        high=high,
    )
