"""The page of two models: sorted by what decides, drawn to scale, in words as well as colours."""

import math
import re

import pytest
from test_report import HOSTILE, Elements

from nlip_jax.outcome import Compared
from nlip_jax.report import comparison_page
from nlip_jax.report.comparison_page import format_p, sort_metrics
from nlip_jax.report.evaluation_records import ComparisonReport


def metric(name: str = "zero_shot/a/top1", difference: float = 0.0, **changes) -> Compared:
    fields = {"name": name, "a": 0.5, "b": 0.5 + difference}
    return Compared(**fields | changes)


def judged(name: str, difference: float, verdict: str, **changes) -> Compared:
    ends = {"low": difference - 0.01, "high": difference + 0.01, "p": 0.02}
    return metric(name, difference, verdict=verdict, **ends | changes)


METRICS = (
    metric("retrieval/a/median_rank", 3.0),
    judged("zero_shot/a/top1", 0.004, "no difference shown"),
    judged("zero_shot/b/top1", 0.05, "better"),
    judged("knn/a/top1", -0.03, "worse"),
    judged("knn/b/top1", -0.08, "worse", p=1e-5),
)


def report(**changes) -> ComparisonReport:
    fields = {
        "title": "a beside b",
        "description": "2 metrics are worse",
        "name_a": "runs/a",
        "name_b": "runs/b",
        "metrics": METRICS,
        "tolerance": 0.01,
        "provenance": {"draws": "10,000"},
    }
    return ComparisonReport(**fields | changes)


def test_what_decides_comes_first(tmp_path):
    comparison_page.write(tmp_path / "page.html", report())
    page = Elements((tmp_path / "page.html").read_text())
    order = ["2 metrics", "2 worse", "1 better", "1 no difference shown", "1 not judged"]
    order += ["runs/a", "runs/b", "1 point", "knn/b/top1", "-8.0 points", "[-9.0, -7.0]", "< 0.001"]
    order += ["knn/a/top1", "0.020", "worse", "zero_shot/b/top1", "+5.0 points", "better"]
    order += ["zero_shot/a/top1", "[-0.6, +1.4]", "no difference shown"]
    order += ["median_rank", "+3", "not judged", "10,000"]
    place = 0
    for words in order:
        place = page.text.index(words, place)


def test_sorting_is_by_verdict_then_size():
    names = [m.name for m in sort_metrics(METRICS)]
    assert names == [METRICS[i].name for i in (4, 3, 2, 1, 0)]
    odd = [metric("b", math.nan), metric("a", math.nan), metric("c", 1.0)]
    assert [m.name for m in sort_metrics(odd)] == ["c", "a", "b"]


def test_intervals_are_drawn_to_one_scale():
    html = comparison_page.render(report())
    dots = [float(at) for at in re.findall(r"--at: ([\d.]+)", html)]
    reach = 0.09 * 1.05
    expected = [(d / reach + 1) / 2 for d in (-0.08, -0.03, 0.05, 0.004)]
    assert dots[:4] == pytest.approx(expected, abs=1e-3)
    assert 0.5 < dots[4] < 1  # a rank has a scale of its own
    whiskers = re.findall(r"--low: ([\d.]+); --high: ([\d.]+)", html)
    assert len(whiskers) == 4 and all(float(low) < float(high) for low, high in whiskers)


def test_no_text_becomes_markup():
    texts = {"title": HOSTILE, "description": HOSTILE, "name_a": HOSTILE, "name_b": HOSTILE}
    hostile = Elements(comparison_page.render(report(**texts, metrics=[metric(HOSTILE)])))
    plain = Elements(comparison_page.render(report(metrics=[metric("x" + "/a" * 5)])))
    odd = {"wbr"}  # where a name may break
    assert {tag for tag, _ in hostile.found} - odd == {tag for tag, _ in plain.found} - odd
    assert hostile.text.count(HOSTILE) >= 5


def test_without_metrics_or_numbers():
    page = Elements(comparison_page.render(report(metrics=[])))
    assert [a["id"] for tag, a in page.found if tag == "section"] == ["provenance"]
    html = comparison_page.render(report(metrics=[metric(difference=math.nan)], tolerance=0.0))
    assert "NaN" in html and '<i class="dot"' not in html and "grey bands" not in html
    still = comparison_page.render(report(metrics=[metric(difference=0.0)]))
    assert "--at: 0.5" in still and "0.0 points" in still


def test_p_values_do_not_pretend():
    assert [format_p(p) for p in (0.0, 0.0321, 1.0)] == ["< 0.001", "0.032", "1.000"]
