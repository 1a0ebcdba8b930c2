import base64
import io
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from nlip_jax.report import page, plots
from nlip_jax.report.formats import format_value, group_results
from nlip_jax.report.records import CalibrationBin, NoiseEstimate, Pair, RunReport
from nlip_jax.report.table import format_results
from nlip_jax.report.thumbnails import LARGEST, thumbnail

HOSTILE = """<script>alert(1)</script>"><img src=x onerror=alert(2)>'--><!--{{ 7 * 7 }}$x$"""
RESULTS = {
    "time/total_seconds": 1523.2,
    "retrieval/image_to_text/recall@1": 0.523,
    "noise/auc": 0.99684,
    "zero_shot/top1": 0.4312,
    "noise/precision": math.nan,
}


class Elements(HTMLParser):
    """All elements of a page as (tag, attributes), and its visible text."""

    def __init__(self, html: str):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def values(self, *names):
        return [value for _, attrs in self.found for key, value in attrs.items() if key in names]


def pair(**changes) -> Pair:
    image = np.full((16, 16, 3), 200, np.uint8)
    fields = {"caption": "a red square", "noise_prob": 0.98, "pair_loss": 6.25, "truth": "clean"}
    return Pair(**{"example_id": 7, "image": image, **fields, **changes})


def estimate(**changes) -> NoiseEstimate:
    fields = {
        "step": 500,
        "losses_counts": np.array([10, 50, 10, 5, 20, 5]),
        "loss_edges": np.linspace(0, 6, 7),
        "mean": np.array([0.25, 0.75]),
        "variance": np.array([0.01, 0.04]),
        "weight": np.array([0.7, 0.3]),
        "low": 0.0,
        "high": 6.0,
        "noise_prob_counts": np.array([60, 10, 0, 30]),
        "noise_prob_edges": np.linspace(0, 1, 5),
        "counts_by_truth": {
            "clean": np.array([10, 50, 10, 0, 0, 0]),
            "mismatched": np.array([0, 0, 0, 5, 20, 5]),
        },
        "calibration": [CalibrationBin(0.1, 0.05, 60), CalibrationBin(math.nan, math.nan, 0)],
        "most_noisy": [pair()],
        "least_noisy": [pair(example_id=8, noise_prob=0.001)],
    }
    return NoiseEstimate(**{**fields, **changes})


def report(**changes) -> RunReport:
    metrics = [
        {"step": s, "train/loss": 5.0 / (s + 1), "learning_rate": 1e-3, "time/seconds": 0.1}
        for s in range(20)
    ]
    fields = {
        "title": "NLIP",
        "description": "one line",
        "results": RESULTS,
        "config": {"seed": 0, "method": {"name": "nlip", "betas": (0.9, 0.98)}, "path": "a b"},
        "metrics": metrics,
        "noise": [estimate(), estimate(step=900)],
        "provenance": {"data": "3fa9c1", "seed": "0"},
    }
    return RunReport(**{**fields, **changes})


def test_the_page_shows_every_part_in_order():
    html = page.render(report())
    elements = Elements(html)
    sections = [attrs["id"] for tag, attrs in elements.found if tag == "section"]
    assert sections == ["results", "training", "noise", "config", "provenance"]
    order = ["one line", "auc", "top1", "recall@1", "total_seconds", "train/loss", "learning_rate"]
    order += ["time/seconds", "step 900", "Most noisy", "Least noisy", "step 500"]
    order += ["--config.seed=0", "3fa9c1"]
    positions = [elements.text.index(words) for words in order]
    assert positions == sorted(positions)
    assert html.count("<svg") == 3 + 2 * 3  # curves; losses, probabilities, calibration per round
    opened = ["open" in attrs for tag, attrs in elements.found if tag == "details"]
    assert opened == [True, False, False]  # the latest round; the earlier one; the config


def test_the_page_stands_alone_and_is_accessible():
    html = page.render(report())
    elements = Elements(html)
    links = elements.values("src", "href", "xlink:href", "action", "data", "srcset")
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link", html)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html
    ids = elements.values("id")
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"""(?:url\(|href=")#([^)"]*)""", html)) <= set(ids)
    assert ("html", {"lang": "en"}) in elements.found
    assert all(attrs.get("alt") for tag, attrs in elements.found if tag == "img")
    assert all(attrs.get("scope") for tag, attrs in elements.found if tag == "th")
    images = [attrs for _, attrs in elements.found if attrs.get("role") == "img"]
    assert len(images) == html.count("<svg") and all(attrs["aria-label"] for attrs in images)


def test_same_data_same_bytes():
    assert page.render(report()) == page.render(report())


def test_hostile_text_is_inert():
    harmless = report()
    kinds = {HOSTILE: np.array([10, 50, 10, 5, 20, 5])}
    bad = report(
        title=HOSTILE,
        description=HOSTILE,
        results={f"noise/{HOSTILE}": 1.5, **RESULTS},
        config={HOSTILE: HOSTILE},
        metrics=[{"step": s, HOSTILE: 1.0} for s in range(3)],
        noise=[estimate(counts_by_truth=kinds, most_noisy=[pair(caption=HOSTILE, truth=HOSTILE)])],
        provenance={HOSTILE: HOSTILE},
    )
    elements = Elements(page.render(bad))
    assert {tag for tag, _ in elements.found} <= {
        tag for tag, _ in Elements(page.render(harmless)).found
    }
    assert not any(key.startswith("on") for _, attrs in elements.found for key in attrs)
    assert all(src.startswith("data:image/") for src in elements.values("src"))
    assert elements.text.count(HOSTILE) >= 9  # shown word for word, in the plots too


def test_a_run_without_noise_metrics_or_config():
    elements = Elements(page.render(RunReport(title="clip", results={"zero_shot/top1": 0.5})))
    assert [attrs["id"] for tag, attrs in elements.found if tag == "section"] == ["results"]
    elements = Elements(page.render(RunReport(title="untrained", metrics=[{"step": 0, "a": 1.0}])))
    assert "section" not in [tag for tag, _ in elements.found]


def test_unknown_truth_and_no_calibration():
    unknown = estimate(counts_by_truth=None, calibration=None, most_noisy=[pair(truth=None)])
    html = page.render(report(noise=[replace(unknown, least_noisy=())]))
    assert html.count("<svg") == 3 + 2
    assert 'class="badge' not in html and "judged" not in html and "all pairs" in html


def test_values_that_are_not_finite_are_seen():
    metrics = [{"step": s, "train/loss": v} for s, v in enumerate((1.0, math.nan, math.inf, 2.0))]
    broken = estimate(mean=np.full(2, np.nan), losses_counts=np.zeros(6), counts_by_truth=None)
    html = page.render(report(metrics=metrics, noise=[broken]))
    assert '<td class="bad">NaN</td>' in html
    assert "2 values are not finite" in html and html.count("stroke: var(--bad)") == 2
    assert "a value was not finite" in html
    assert "a value was not finite" not in page.render(report())
    nothing = plots.curve("x", {0: math.nan, 1: math.nan}, name="x")
    assert nothing.note == "NaN" and "var(--bad)" in nothing.svg


def test_wrong_judgements_are_marked():
    assert pair(noise_prob=0.9, truth="clean").wrong
    assert pair(noise_prob=0.1, truth="mismatched").wrong
    assert not pair(noise_prob=0.9, truth="irrelevant").wrong
    assert not pair(noise_prob=0.9, truth=None).wrong
    html = page.render(report(noise=[estimate()]))
    assert html.count('<li class="wrong">') == 1
    assert "clean: suspected" in html and "0 of 1 judged rightly" in html


def test_components_are_in_nats_and_fit_the_histogram():
    clean, noisy = estimate(low=1.0, high=5.0).components
    assert (clean.mean, noisy.mean) == (2.0, 4.0)
    np.testing.assert_allclose((clean.deviation, noisy.deviation), (0.4, 0.8))
    x = np.linspace(-5, 12, 5001)
    area = np.trapezoid(clean.density(x) + noisy.density(x), x)
    edges = np.array([0.0, 1.0, 3.0, 3.5])
    heights = plots._density(edges, np.array([2, 5, 3]), 10)
    np.testing.assert_allclose([area, np.sum(heights * np.diff(edges))], 1.0, atol=1e-6)


def test_long_curves_stay_small_and_keep_their_spikes():
    steps = range(20_000)
    points = {s: 1.0 + 0.1 * math.sin(s) for s in steps}
    long = plots.curve("train/loss", points, marks=[100], name="a")
    assert len(long.svg) < 25_000
    spiked = plots.curve("train/loss", {**points, 777: 100.0}, name="a")
    ticks = [float(text) for text in re.findall(r">([\d.]+)</text>", spiked.svg)]
    assert max(ticks) >= 50
    assert "var(--noisy)" in long.svg and "var(--noisy)" not in spiked.svg
    assert ">0.0003<" in plots.curve("lr", {0: 0.0, 9: 4e-4}, name="a").svg  # ticks are not rounded


def test_a_rewritten_step_counts_once():
    lines = [{"step": s, "train/loss": v} for s, v in ((0, 9.0), (10, 8.0), (10, 3.0), (5, 4.0))]
    (plot,) = page._curves(report(metrics=lines))
    assert plot.note == "3" and "0 to 10" in plot.text


@pytest.mark.parametrize("side, kind, size", [(32, "PNG", 32), (300, "JPEG", LARGEST)])
def test_thumbnails(side, kind, size):
    image = np.random.default_rng(0).integers(0, 256, (side, side // 2, 3), np.uint8)
    picture = thumbnail(image)
    decoded = Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2])))
    assert decoded.format == kind and decoded.size == (size // 2, size)
    assert picture.uri.startswith(f"data:image/{kind.lower()};base64,")
    assert picture.pixelated == (kind == "PNG")
    if kind == "PNG":
        np.testing.assert_array_equal(np.asarray(decoded), image)


def test_config_is_written_as_arguments():
    assert list(page._flags(report().config)) == [
        "--config.seed=0",
        "--config.method.name=nlip",
        "--config.method.betas='(0.9, 0.98)'",
        "--config.path='a b'",
    ]


def test_write_is_atomic(tmp_path):
    path = tmp_path / "report.html"
    page.write(path, report())
    first = path.read_text(encoding="utf-8")
    assert first == page.render(report())
    with pytest.raises(TypeError):
        page.write(path, report(config={"a": 1}, results={"noise/auc": "high"}))
    assert path.read_text(encoding="utf-8") == first
    page.write(path, report(title="second"))
    assert "<title>second</title>" in path.read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("retrieval/text_to_image/recall@10", 0.9021, "90.2 %"),
        ("zero_shot/top5", 1.0, "100.0 %"),
        ("noise/noisy_share", 0.391, "39.1 %"),
        ("train/image_to_text_accuracy", 0.5, "50.0 %"),
        ("noise/precision", math.nan, "NaN"),
        ("retrieval/median_rank", 2.0, "2"),
        ("noise/auc", 0.99684, "0.9968"),
        ("learning_rate", 3e-5, "3e-05"),
        ("examples_per_second", 123456.7, "123,457"),
        ("time/compile_seconds", 12.4321, "12.43 s"),
        ("time/total_seconds", 245.0, "4 min 05 s"),
        ("time/total_seconds", 3599.7, "1 h 00 min"),
        ("train/loss", -math.inf, "-inf"),
    ],
)
def test_formats(name, value, text):
    assert format_value(name, value) == text


def test_table():
    assert format_results(RESULTS).splitlines() == [
        "noise",
        "  auc                          0.9968",
        "  precision                       NaN",
        "zero_shot",
        "  top1                         43.1 %",
        "retrieval",
        "  image_to_text/recall@1       52.3 %",
        "time",
        "  total_seconds           25 min 23 s",
    ]
    assert format_results({}) == ""
    html = page.render(report())
    assert all(row.text in html for rows in group_results(RESULTS).values() for row in rows)


def test_groups_keep_their_order():
    groups = group_results(
        {"time/a": 1.0, "mine/a": 1.0, "loss": 2.0, "noise/b": 1.0, "noise/a": 1}
    )
    assert list(groups) == ["noise", "mine", "other", "time"]
    assert [row.name for row in groups["noise"]] == ["b", "a"]


def test_imports_stay_light():
    code = (
        "import sys, nlip_jax.report.table; assert not {'matplotlib', 'jinja2'} & set(sys.modules);"
        "import nlip_jax.report.page; assert not {'jax', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
