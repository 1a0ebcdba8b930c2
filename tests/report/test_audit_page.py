"""The page of an audit: all of it, and what is left out where there is nothing to show."""

import dataclasses
import re

import numpy as np
from test_report import HOSTILE, Elements

from nlip_jax.report import audit_page
from nlip_jax.report.audit_records import (
    Artefact,
    AuditedPair,
    AuditReport,
    CaptionGroup,
    Decile,
    Stage,
    WorstShard,
)
from nlip_jax.report.records import NoiseEstimate

IMAGE = np.full((12, 16, 3), 90, np.uint8)


def report(text: str = "a red square", **changes) -> AuditReport:
    edges = np.linspace(0, 6, 7)
    noise = NoiseEstimate(
        step=0,
        losses_counts=np.array([1, 5, 2, 0, 3, 1]),
        loss_edges=edges,
        mean=np.array([0.3, 0.8]),
        variance=np.array([0.01, 0.01]),
        weight=np.array([0.7, 0.3]),
        low=0.0,
        high=6.0,
        noise_prob_counts=np.array([8, 4]),
        noise_prob_edges=np.array([0, 0.5, 1]),
    )
    pair = AuditedPair(
        example_id=17,
        image=IMAGE,
        caption=text,
        noise_prob=0.75,
        pair_loss=4.5,
        missing=(text, "circle"),
        proposed=text,
        truth="mismatched",
    )
    fields = {
        "title": "Audit",
        "description": "12 pairs",
        "notes": [text],
        "results": {"audit/noisy_share": 0.25},
        "stages": [Stage(name="look at pairs", done=text, finished=False, seconds=61.0)],
        "noise": noise,
        "deciles": [Decile(low=0.5, high=0.875, pairs=[pair])],
        "shards": [
            WorstShard(
                name=text,
                pairs=9,
                looked_at=8,
                share=0.5,
                low=0.2,
                high=0.8,
                mean=0.4,
                kept=False,
            )
        ],
        "num_shards": 3,
        "groups": [CaptionGroup(count=5, captions=[text, "another"], noise_prob=float("nan"))],
        "num_groups": 2,
        "missing": [(text, 4), ("box", 1)],
        "artefacts": [Artefact(name="pairs.parquet", purpose=text, usage=text)],
        "provenance": {"data": text},
    }
    return AuditReport(**fields | changes)


def test_it_shows_everything(tmp_path):
    audit_page.write(tmp_path / "audit.html", report())
    html = (tmp_path / "audit.html").read_text()
    page = Elements(html)
    place = 0
    for words in (
        *("Audit", "12 pairs", "Results", "25.0", "What was done", "(not finished)", "1 min 01 s"),
        *("Noise", "Fitted mixture", "from the least to the most noisy", "50.0", "87.5"),
        *("mismatched", "proposed", "missing", "circle", "75.0", "loss", "4.50", "#17"),
        *("Worst shards", "1 of 3", "50.0", "40.0", "no"),
        *("Nearly identical captions", "another", "5", "What texts leave out", "box"),
        *("Files", "pairs.parquet", "Provenance"),
    ):
        place = page.text.index(words, place)
    assert [tag for tag, _ in page.found].count("img") == 1
    assert not re.search(r"https?:|<script|<link", html) and "default-src 'none'" in html
    assert "nan&nbsp;" not in html


def test_no_text_becomes_markup():
    hostile = Elements(audit_page.render(report(HOSTILE, title=HOSTILE)))
    plain = Elements(audit_page.render(report()))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in plain.found]
    assert hostile.text.count(HOSTILE) == 2 + 11


def test_what_is_not_there_is_left_out():
    empty = {"notes", "results", "stages", "deciles", "shards", "groups", "missing", "artefacts"}
    bare = report(**{name: () for name in empty - {"results"}}, results={}, provenance={})
    page = Elements(audit_page.render(bare))
    headings = re.findall(r"<h2>(.*?)</h2>", audit_page.render(bare))
    assert headings == ["Noise"] and "img" not in [tag for tag, _ in page.found]
    pair = dataclasses.replace(
        report().deciles[0].pairs[0], image=None, missing=(), proposed="", truth=None
    )
    html = audit_page.render(report(deciles=[Decile(low=0, high=1, pairs=[pair])]))
    assert "<small>proposed" not in html and "<small>missing" not in html and "<img" not in html
