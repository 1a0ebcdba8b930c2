"""The page of a search: the query, and what was found in order."""

import re

import numpy as np
from test_report import HOSTILE, Elements

from nlip_jax.outcome import Item, Query
from nlip_jax.report import search_page
from nlip_jax.report.evaluation_records import SearchReport

IMAGE = np.full((12, 16, 3), 90, np.uint8)


def report(text: str = "at night", *, answers: int = 3, **changes) -> SearchReport:
    found = tuple(Item(text=text, image=IMAGE, score=0.5 - i / 10) for i in range(answers))
    query = Query(query=Item(text=text, image=IMAGE), answers=found, note="1 x image + 2 x text")
    fields = {
        "title": "Search",
        "query": query,
        "weights": {"image": 1.0, "text": 2.0},
        "names": [f"{text}{i}.jpg" for i in range(answers)],
        "provenance": {"run": "runs/a"},
    }
    return SearchReport(**fields | changes)


def test_it_shows_the_query_and_the_answers(tmp_path):
    search_page.write(tmp_path / "page.html", report())
    html = (tmp_path / "page.html").read_text()
    page = Elements(html)
    order = ["Query", "weight 1", "at night", "weight 2", "1 x image + 2 x text", "0.500"]
    order += ["at night0.jpg", "0.400", "at night1.jpg", "0.300", "at night2.jpg", "runs/a"]
    place = 0
    for words in order:
        place = page.text.index(words, place)
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(images) == 4 and all(image["src"].startswith("data:image/") for image in images)
    assert not re.search(r"https?:|<script|<link", html) and "default-src 'none'" in html


def test_no_text_becomes_markup():
    hostile = Elements(search_page.render(report(HOSTILE, title=HOSTILE)))
    plain = Elements(search_page.render(report()))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in plain.found]
    assert hostile.text.count(HOSTILE) == 2 + 1 + 3 + 3


def test_text_alone_without_names_or_answers():
    query = Query(query=Item(text="a cat"), answers=(Item(image=IMAGE, score=0.1),))
    page = Elements(search_page.render(report(query=query, weights={}, names=())))
    assert "weight 1" not in page.text and "a cat" in page.text
    assert [tag for tag, _ in page.found].count("img") == 1
    nothing = search_page.render(report(answers=0))
    assert "Nothing was found" in nothing
