"""The section of a run's page on completed texts."""

import math

import numpy as np
from test_report import HOSTILE, Elements

from nlip_jax.report import caption_page, page
from nlip_jax.report.caption_records import Captioned, CaptionReport
from nlip_jax.report.records import RunReport
from nlip_jax.report.text_records import (
    CaptionVersion,
    CompletedText,
    NoiseDecile,
    SampleOverTime,
    TextsReport,
    Work,
)

IMAGE = np.full((12, 16, 3), 90, np.uint8)


def texts(text: str = "a cat") -> TextsReport:
    pair = CompletedText(
        example_id=5,
        image=IMAGE,
        own=text,
        synthetic=text,
        noise_prob=0.75,
        chance=0.5,
        concepts=[text, "sofa"],
        truth="incomplete",
    )
    nothing = CompletedText(
        example_id=6, image=IMAGE, own="b", synthetic="", noise_prob=math.nan, chance=0.0
    )
    decile = NoiseDecile(low=0.7, high=0.8, pairs=1200, captioned=1100, replaced=820.25)
    version = CaptionVersion(
        name="0002", step=4000, deciles=[decile], groups={"Most noisy": [pair, nothing]}
    )
    return TextsReport(
        rule="A pair shows both of its texts.",
        works=[Work(step=3000, works=("estimate", "captions"), columns={"noise_prob": 1})],
        versions=[version],
        num_versions=3,
        samples=[SampleOverTime(pair=pair, captions=[("0001", text), ("0002", "")])],
    )


def test_it_shows_what_was_done_and_what_replaced_what():
    found = Elements(page.render(RunReport(title="run", texts=texts())))
    order = ["Texts", "both of its texts", "3,000", "estimate, captions", "noise_prob/0001"]
    order += ["over time", "#5 incomplete", "a cat", "0001", "0002", "none"]
    order += ["1 of 3 versions", "Captions 0002, from step 4,000 on", "0.7 to 0.8", "1,200"]
    order += ["1,100", "820.2", "Most noisy", "75.0 %", "50.0 %", "a cat, sofa", "none", "NaN"]
    place = 0
    for words in order:
        place = found.text.index(words, place)
    assert [tag for tag, _ in found.found].count("img") == 3


def test_a_run_without_has_no_such_section():
    assert 'id="texts"' not in page.render(RunReport(title="run"))


def test_no_text_becomes_markup():
    def tags(text: str) -> list[str]:
        html = page.render(RunReport(title="run", texts=texts(text)))
        return [tag for tag, _ in Elements(html).found]

    assert tags(HOSTILE) == tags("a cat")


def test_the_page_of_captions():
    def report(text: str) -> CaptionReport:
        items = [
            Captioned(image=IMAGE, caption=text, concepts=[text, "sofa"], own=text, name=text),
            Captioned(image=None, caption="", name="broken.jpg"),
        ]
        return CaptionReport(title=text, description="2 pictures", items=items)

    plain, hostile = (Elements(caption_page.render(report(text))) for text in ("a cat", HOSTILE))
    for words in ("a cat", "own text: a cat", "concepts: a cat, sofa", "no caption", "broken.jpg"):
        assert words in plain.text
    assert [tag for tag, _ in plain.found] == [tag for tag, _ in hostile.found]
    assert "There is nothing to show" in caption_page.render(CaptionReport(title="none"))
