"""The page of an evaluation: every set, every exhibit, self-contained whatever names say."""

import math
import re

import numpy as np
import pytest
from test_report import HOSTILE, Elements

from nlip_jax.outcome import (
    Confusion,
    Confusions,
    Curve,
    Item,
    Outcome,
    PerClass,
    Queries,
    Query,
    Samples,
)
from nlip_jax.report import evaluation_page
from nlip_jax.report.evaluation_records import EvaluationReport
from nlip_jax.report.exhibits import rank_classes
from nlip_jax.report.formats import (
    format_difference,
    format_signed_interval,
    format_value,
    group_results,
    is_share,
    take_intervals,
)
from nlip_jax.report.table import format_results

IMAGE = np.full((12, 16, 3), 90, np.uint8)


def per_class(classes: int = 3) -> PerClass:
    return PerClass(
        names=tuple(f"class {i}" for i in range(classes)),
        counts=np.full(classes, 10),
        accuracy=np.arange(classes) / classes,
    )


def exhibits(text: str = "a red square") -> tuple:
    answers = (
        Item(text=text, score=0.5, is_right=True),
        Item(image=IMAGE, score=0.25, is_right=False),
    )
    return (
        Curve(title=text, x_label="C", y_label="top1", points=((0.1, 0.5), (10.0, 0.75))),
        per_class(),
        Confusions(pairs=(Confusion(true=text, predicted="dog", count=7, share=0.7),)),
        Queries(
            title=text, queries=(Query(query=Item(image=IMAGE), answers=answers, note="rank 1"),)
        ),
    )


def outcome(**changes) -> Outcome:
    samples = {"top1": Samples(values=np.ones(1200))}
    fields = {
        "metrics": {"top1": 0.745, "top5": 0.9},
        "samples": samples,
        "headline": "top1",
        "exhibits": exhibits(),
    }
    return Outcome(**fields | changes)


def report(**changes) -> EvaluationReport:
    fields = {
        "title": "Evaluation of a",
        "description": "at step 12",
        "results": {
            "zero_shot/cifar10/top1": 0.745,
            "zero_shot/cifar10/top5": 0.9,
            "zero_shot/average/headline": 0.745,
            "caption/coco/cider": 1.183,
            "step": 12,
        },
        "intervals": {"zero_shot/cifar10/top1": (0.719, 0.77)},
        "outcomes": {
            "caption/coco": Outcome(metrics={"cider": 1.183}),
            "zero_shot/cifar10": outcome(),
        },
        "provenance": {"run": "runs/a"},
    }
    return EvaluationReport(**fields | changes)


def test_it_shows_every_part_in_order():
    page = Elements(evaluation_page.render(report()))
    sections = [attributes["id"] for tag, attributes in page.found if tag == "section"]
    assert sections == ["overview", "sets", "results", "provenance"]
    order = ["at step 12", "Overview", "zero_shot", "average", "cifar10", "74.5 %", "[71.9, 77.0]"]
    order += ["1,200", "caption (scores x 100", "coco", "118.3"]
    order += ["Sets", "zero_shot/cifar10", "top1", "top5", "Most frequent confusions"]
    order += ["Accuracy by class", "class 0", "class 2", "rank 1", "0.500", "right", "0.250"]
    order += ["caption/coco", "step", "runs/a"]
    place = 0
    for words in order:
        place = page.text.index(words, place)
    assert page.text.count("class 1") == 1  # few classes are shown once
    links = [attributes["href"][1:] for tag, attributes in page.found if tag == "a"]
    assert links and set(links) <= set(page.values("id"))


def test_it_stands_alone_and_is_accessible():
    html = evaluation_page.render(report())
    page = Elements(html)
    links = page.values("src", "href", "xlink:href", "action", "data", "srcset")
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link", html)
    assert "default-src 'none'" in html
    assert len(page.values("id")) == len(set(page.values("id")))
    assert all(attributes.get("alt") for tag, attributes in page.found if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in page.found if tag == "th")
    assert html == evaluation_page.render(report())


def test_no_text_becomes_markup():
    def with_texts(text: str) -> Elements:
        classes = PerClass(names=(text,), counts=np.array([3]), accuracy=np.array([0.5]))
        found = outcome(exhibits=(*exhibits(text), classes))
        odd = report(
            title=text, outcomes={f"{text[:5]}/x": found}, results={}, provenance={text: text}
        )
        return Elements(evaluation_page.render(odd))

    hostile, plain = with_texts(HOSTILE), with_texts("a red square")
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in plain.found]
    assert not any(key.startswith("on") for _, attributes in hostile.found for key in attributes)
    assert hostile.text.count(HOSTILE) >= 7


def test_empty_exhibits_leave_no_headings():
    nothing = (
        Curve(title="Curve of nothing", x_label="x", y_label="top1", points=()),
        PerClass(names=("a",), counts=np.array([0]), accuracy=np.array([math.nan])),
        Confusions(pairs=()),
        Queries(title="Queries of nothing", queries=()),
    )
    sets = {"knn/a": Outcome(metrics={}), "knn/b": outcome(exhibits=nothing)}
    page = Elements(evaluation_page.render(report(outcomes=sets, results={})))
    for words in ("of nothing", "Most frequent", "Worst classes", "Accuracy by", "images here"):
        assert words not in page.text
    assert not {"img", "svg", "h3"} & {tag for tag, _ in page.found}
    empty = Elements(evaluation_page.render(EvaluationReport(title="nothing")))
    assert "section" not in [tag for tag, _ in empty.found]


def test_a_thousand_classes_stay_readable_and_small():
    found = outcome(exhibits=(per_class(1000),))
    html = evaluation_page.render(report(outcomes={"zero_shot/imagenet": found}))
    assert "All 1,000 classes" in html and "Worst classes" in html and "Best classes" in html
    assert len(html) < 250_000
    assert html.count("class 500<") + html.count("class 500 <") == 1  # in the middle: once
    assert html.count("class 0<") + html.count("class 0 <") == 2  # among the worst, and in the list


def test_many_queries_with_large_pictures_stay_small():
    image = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)  # hard to compress
    answers = tuple(Item(image=image, score=0.1) for _ in range(5))
    queries = tuple(Query(query=Item(text="q"), answers=answers) for _ in range(40))
    found = outcome(exhibits=(Queries(title="Images found", queries=queries),))
    html = evaluation_page.render(report(outcomes={"retrieval/coco": found}))
    assert "16 of 40" in html and len(html) < 2_000_000


def test_classes_are_ranked():
    ranked = rank_classes(
        PerClass(
            names=("none", "b", "a", "large"),
            counts=np.array([0, 5, 5, 9]),
            accuracy=np.array([math.nan, 0.5, 0.5, 0.5]),
        )
    )
    assert [row.name for row in ranked.worst] == ["large", "a", "b"]
    assert ranked.num_empty == 1 and not ranked.best and not ranked.all


def test_values_that_are_not_finite_are_seen():
    found = outcome(
        metrics={"top1": math.nan},
        exhibits=(
            Curve(
                title="t", x_label="x", y_label="loss", points=((0, math.nan), (1, 2)), log_x=True
            ),
        ),
    )
    html = evaluation_page.render(report(outcomes={"knn/a": found}, results={}))
    assert html.count('class="bad">NaN') == 2 and "best 2" in html


def test_intervals_stand_beside_their_value_in_the_terminal():
    results = {
        "zero_shot/cifar10/top1": 0.745,
        "zero_shot/cifar10/top1_low": 0.7188,
        "zero_shot/cifar10/top1_high": 0.77,
        "zero_shot/cifar10/top5": 0.9,
        "caption/coco/cider": 1.183,
        "noise/lonely_low": 2.0,
    }
    assert format_results(results).splitlines() == [
        "noise",
        "  lonely_low         2",
        "zero_shot",
        "  cifar10/top1  74.5 % [71.9, 77.0]",
        "  cifar10/top5  90.0 %",
        "caption (scores x 100, as papers print them)",
        "  coco/cider     118.3",
    ]
    values, intervals = take_intervals(results)
    assert len(values) == 4 and intervals == {"zero_shot/cifar10/top1": (0.7188, 0.77)}


def test_groups_are_in_a_sensible_order():
    kinds = ("judgement", "caption", "few_shot", "retrieval", "zero_shot", "noise", "geometry")
    groups = group_results({f"{kind}/a": 1.0 for kind in kinds})
    assert list(groups) == [
        *("noise", "zero_shot", "retrieval", "few_shot", "geometry", "caption", "judgement")
    ]


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("zero_shot/average/headline", 0.5, "50.0 %"),
        ("eval/retrieval/average/headline", 0.5, "50.0 %"),
        ("caption/average/headline", 0.5, "50.0"),
        ("judgement/average/headline", 0.5, "0.5"),
        ("retrieval/coco/mean_recall", 0.66, "66.0 %"),
        ("caption/coco/bleu4", 0.365, "36.5"),
        ("caption/coco/cider", math.nan, "NaN"),
        ("caption/coco/length_ratio", 0.97, "0.97"),
        ("clustering/cifar10/ari", 0.42, "0.42"),
        ("pair_choice/winoground/group_score", 0.08, "8.0 %"),
        ("pair_choice/winoground/group_chance", 0.0417, "4.2 %"),
        ("knn/cifar10/majority_top1", 0.8, "80.0 %"),
        ("judgement/cxc/mean_spearman", 0.71, "0.71"),
    ],
)
def test_formats_of_metrics(name, value, text):
    assert format_value(name, value) == text


def test_differences_have_a_sign_and_a_unit():
    assert format_difference("knn/a/top1", 0.012) == "+1.2 points"
    assert format_difference("knn/a/top1", -0.0001) == "0.0 points"
    assert format_difference("judgement/a/spearman", -0.25) == "-0.25"
    assert format_difference("caption/a/cider", 0.031) == "+3.1"
    assert format_difference("caption/a/cider", math.nan) == "NaN"
    assert format_signed_interval("knn/a/top1", -0.003, 0.021) == "[-0.3, +2.1]"
    assert is_share("knn/a/top1")
