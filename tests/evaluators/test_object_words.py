"""The objects that captions name, in the words of the scenes, and scores against the truth."""

import math

import numpy as np
import pytest

from nlip_jax.data.synthetic import SyntheticScenes
from nlip_jax.data.synthetic.captions import names_of, plural
from nlip_jax.data.synthetic.objects import NamedObject, object_words, objects_of
from nlip_jax.data.synthetic.scenes import COLOURS, KINDS, SHAPES
from nlip_jax.evaluators.objects import count_objects, score_objects


def named(*pairs):
    return frozenset(NamedObject(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("a small striped red circle", named(("red", "circle"))),
        ("A red dotted circle.", named(("red", "circle"))),
        ("a circle", named((None, "circle"))),
        ("a red thing and a circle", named((None, "circle"))),
        ("a red circle, square", named(("red", "circle"), (None, "square"))),
        ("red circle blue square", named(("red", "circle"), ("blue", "square"))),
        ("two grass green boxes with stripes", named(("green", "square"))),
        ("a triangular shape and heart shapes", named((None, "triangle"), (None, "heart"))),
        ("five-pointed stars, plus signs", named((None, "star"), (None, "cross"))),
        ("a hot pink hoop plus a royal blue donut", named(("pink", "ring"), ("blue", "ring"))),
        ("a white circle on a red background", named((None, "circle"))),
        ("circles circle CIRCLE", named((None, "circle"))),
        ("a circular red dog", named()),
        ("a red", named()),
        ("circlesque", named()),
        ("", named()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # sets have no order
)
def test_object_words(caption, objects):
    assert object_words(caption) == objects


def test_every_name_of_every_colour_and_shape():
    for colour, shape in KINDS:
        for word in names_of(colour):
            for noun in names_of(shape):
                assert object_words(f"a tiny {word} {noun} at the top") == {(colour, shape)}
                assert object_words(f"two {word} {plural(noun)}") == {(colour, shape)}
    assert len(COLOURS) * len(SHAPES) == len(KINDS)


def test_clean_captions_name_all_objects_and_no_other():
    source = SyntheticScenes(num_examples=400, seed=3)
    scenes = [source.scene(i) for i in range(400)]
    captions = [source.clean_caption(i) for i in range(400)]
    assert [object_words(caption) for caption in captions] == [*map(objects_of, scenes)]
    assert set(score_objects(captions, scenes).values()) == {1.0}


def test_incomplete_captions_name_fewer_and_mismatched_ones_others():
    found = {}
    for kind in ("incomplete", "mismatched", "irrelevant"):
        source = SyntheticScenes(num_examples=400, seed=3, **{kind: 1.0})
        captions = [source.caption(i) for i in range(400)]
        found[kind] = score_objects(captions, [source.scene(i) for i in range(400)])
    assert found["incomplete"]["objects/precision"] == 1
    # Half of the groups go unsaid, and of the others every second shape or more.
    assert 0.2 < found["incomplete"]["objects/recall"] < 0.5
    assert found["incomplete"]["coloured_objects/recall"] < found["incomplete"]["objects/recall"]
    assert found["mismatched"]["objects/precision"] < 0.4
    assert math.isnan(found["irrelevant"]["objects/precision"])
    assert found["irrelevant"]["objects/recall"] == found["irrelevant"]["objects/f1"] == 0


def test_scores_are_of_all_captions_together():
    source = SyntheticScenes(num_examples=50, seed=0)
    two = next(
        s
        for s in map(source.scene, range(50))
        if len(s.groups) == 2 and s.groups[0].shape != s.groups[1].shape
    )
    one = next(s for s in map(source.scene, range(50)) if len(s.groups) == 1)
    first, second = two.groups
    wrong = next(c for c in COLOURS if c != second.colour)
    other = next(s for s in SHAPES if s != one.groups[0].shape)
    captions = [
        f"a {first.colour} {first.shape} and a {wrong} {second.shape}",
        f"a {other} and a {other}",
    ]
    counts = count_objects(captions, [two, one])
    shapes, coloured = counts["objects"], counts["coloured_objects"]
    np.testing.assert_array_equal(shapes.right, [2, 0])
    np.testing.assert_array_equal(shapes.named, [2, 1])
    np.testing.assert_array_equal(shapes.shown, [2, 1])
    np.testing.assert_array_equal(coloured.right, [1, 0])
    np.testing.assert_array_equal(coloured.named, [2, 0])
    scores = score_objects(captions, [two, one])
    expected = {
        "objects/precision": 2 / 3,
        "objects/recall": 2 / 3,
        "objects/f1": 2 / 3,
        "coloured_objects/precision": 1 / 2,
        "coloured_objects/recall": 1 / 3,
        "coloured_objects/f1": 2 / 5,
    }
    assert scores == pytest.approx(expected)


def test_no_captions():
    assert all(map(math.isnan, score_objects([], []).values()))
    with pytest.raises(ValueError, match="shorter"):
        score_objects(["a circle"], [])
