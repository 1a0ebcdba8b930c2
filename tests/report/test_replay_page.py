"""The page of a repeated step: self-contained, whatever its captions say."""

import numpy as np
from test_report import HOSTILE, Elements

from nlip_jax.report import replay_page
from nlip_jax.report.records import ReplayedPair, ReplayReport


def pair(**changes) -> ReplayedPair:
    image = np.full((16, 12, 3), 200, np.uint8)
    fields = {"caption": "a red square", "pair_loss": 6.25, "shard": "train/7.tar", "key": "000003"}
    return ReplayedPair(**{"example_id": 7, "image": image, **fields, **changes})


def report(**changes) -> ReplayReport:
    fields = {
        "title": "Step 12",
        "description": "loss 9.5, bit for bit what spikes.jsonl says",
        "results": {"replay/loss": 9.5, "replay/grad_norm/image": 2.0},
        "pairs": [pair(), pair(example_id=8, pair_loss=float("nan"))],
        "provenance": {"run": "runs/a"},
    }
    return ReplayReport(**fields | changes)


def test_it_shows_pairs_and_numbers(tmp_path):
    replay_page.write(tmp_path / "page.html", report())
    page = Elements((tmp_path / "page.html").read_text())
    for text in ("Step 12", "bit for bit", "grad_norm", "a red square", "000003 in train/7.tar"):
        assert text in page.text
    for text in ("6.25", "NaN", "#7", "#8", "runs/a"):
        assert text in page.text
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(images) == 2 and all(image["src"].startswith("data:image/") for image in images)


def test_no_text_becomes_markup():
    texts = {"caption": HOSTILE, "shard": HOSTILE, "key": HOSTILE}
    hostile = Elements(replay_page.render(report(pairs=[pair(**texts)], title=HOSTILE)))
    plain = Elements(replay_page.render(report(pairs=[pair()])))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in plain.found]
    assert hostile.text.count(HOSTILE) == 4 + 1  # the title stands twice


def test_a_page_without_pairs():
    page = Elements(replay_page.render(report(pairs=[])))
    assert "img" not in [tag for tag, _ in page.found] and "grad_norm" in page.text
