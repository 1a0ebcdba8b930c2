"""Pair choice: Winoground's and SugarCrepe's files, known answers, ties, chance."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
from fakes import normal
from fakes import towers as looked_up
from PIL import Image
from tiny import mesh_of

from nlip_jax.data.choices import Choice, read_choices
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.pair_choice import PairChoice, _finds_captions, _finds_images, chance
from nlip_jax.evaluators.pairs import score_pairs
from nlip_jax.evaluators.search import ImagesToTexts, TextsToImages
from nlip_jax.methods.similarities import DOT, TOKEN_MAX


def write_images(folder, count, *, extension="png"):
    """Image i is all of value i, as the fake model looks it up."""
    for number in range(count):
        pixels = np.full((4, 4, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{extension}", format="PNG")


def write(folder, records, name="records.json", *, lines=False):
    path = folder / name
    path.write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records))
    return str(path)


def choices_of(*paths, root="", extension=""):
    return read_choices(paths, root=root, extension=extension, storage=Storage())


def towers_of(scores, **options):
    """Image i and caption "number j" score `scores[i, j]`."""
    scores = np.asarray(scores, np.float32)
    return looked_up(scores, np.eye(scores.shape[1], dtype=np.float32), **options)


def run(choices, scores, **options):
    return PairChoice(choices=choices).run(towers_of(scores, **options))


def winoground(folder, tags=("Object", "Relation", "Object")):
    """Record r has images 2r, 2r + 1 and captions of these numbers."""
    write_images(folder, 2 * len(tags))
    records = [
        {
            "id": r,
            "image_0": f"{2 * r}",
            "image_1": f"{2 * r + 1}",
            "caption_0": f"number {2 * r}",
            "caption_1": f"number {2 * r + 1}",
            "tag": tag,
        }
        for r, tag in enumerate(tags)
    ]
    return choices_of(write(folder, records, "examples.jsonl", lines=True), extension="png")


WINOGROUND = np.zeros((6, 6))
WINOGROUND[0:2, 0:2] = [[2, 1], [1, 2]]  # text and image right
WINOGROUND[2:4, 2:4] = [[3, 2], [1, 1.5]]  # text right; caption 1 prefers image 0
WINOGROUND[4:6, 4:6] = [[1, 1], [0, 1]]  # a tie in the first row and in the second column


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_winoground(tmp_path, devices):
    outcome = run(winoground(tmp_path), WINOGROUND, devices=devices)
    assert outcome.metrics == {
        "text_score": pytest.approx(2 / 3),
        "image_score": pytest.approx(1 / 3),
        "group_score": pytest.approx(1 / 3),
        "Object/text_score": 0.5,
        "Relation/text_score": 1.0,
        "Object/image_score": 0.5,
        "Relation/image_score": 0.0,
        "Object/group_score": 0.5,
        "Relation/group_score": 0.0,
        "text_chance": 0.25,
        "image_chance": 0.25,
        "group_chance": pytest.approx(1 / 6),
    }
    assert next(iter(outcome.metrics)) == outcome.headline == "group_score"
    assert outcome.samples["text_score"].values.tolist() == [1, 1, 0]
    for name, samples in outcome.samples.items():
        assert samples.values.mean() == pytest.approx(outcome.metrics[name])


def test_only_the_pairs_asked_for_are_scored(tmp_path):
    everywhere_else = np.where(WINOGROUND == 0, 9.0, WINOGROUND)
    everywhere_else[5, 4] = 0
    again = run(winoground(tmp_path), everywhere_else).metrics
    assert again == run(winoground(tmp_path), WINOGROUND).metrics


def test_sugar_crepe_by_file(tmp_path):
    write_images(tmp_path, 3)
    scores = np.zeros((3, 6))
    scores[[0, 1, 2], [0, 2, 4]] = 1, 1, 1
    scores[2, 5] = 1  # a tie is wrong

    def record(i):
        return {
            "filename": f"{i}.png",
            "caption": f"number {2 * i}",
            "negative_caption": f"number {2 * i + 1}",
        }

    first = write(tmp_path, {"0": record(0), "1": record(1), "3": record(2)}, "add_att.json")
    second = write(tmp_path, {"0": record(2)}, "swap_obj.json")
    outcome = run(choices_of(first, second), scores)
    assert outcome.metrics == {
        "accuracy": pytest.approx((2 / 3 + 0) / 2),
        "add_att/accuracy": pytest.approx(2 / 3),
        "swap_obj/accuracy": 0.0,
        "chance": 0.5,
    }
    assert outcome.samples["accuracy"].values.mean() == pytest.approx(1 / 3)
    assert outcome.headline == "accuracy"


def test_any_number_of_images_and_captions(tmp_path):
    write_images(tmp_path, 4)
    captions = [f"number {i}" for i in range(4)]
    pick = write(tmp_path, [{"images": ["1.png"], "captions": captions, "right": 2}])
    scores = np.arange(16.0).reshape(4, 4)
    assert run(choices_of(pick), scores).metrics == {"accuracy": 0.0, "chance": 0.25}
    scores[1, 2] = 99
    assert run(choices_of(pick), scores).metrics["accuracy"] == 1
    images = ["0.png", "1.png", "2.png"]
    which = write(tmp_path, [{"images": images, "captions": captions[:1], "right": 1}])
    scores = np.zeros((4, 4))
    scores[1, 0] = 1
    outcome = run(choices_of(which), scores)
    assert outcome.metrics == {"accuracy": 1.0, "chance": pytest.approx(1 / 3)}
    order = [2, 0, 1]
    match = write(tmp_path, [{"images": images, "captions": captions, "right": order}])
    scores = np.zeros((4, 4))
    scores[range(3), order] = 1
    metrics = run(choices_of(match), scores).metrics
    assert metrics["text_score"] == metrics["image_score"] == metrics["group_score"] == 1
    assert metrics["text_chance"] == 1 / 4**3
    assert metrics["image_chance"] == pytest.approx(1 / 3**3)
    assert "group_chance" not in metrics  # of twelve pairs


def test_random_models_earn_what_chance_says():
    rng = np.random.default_rng(0)
    for shape, right in (((2, 2), ((0, 0), (1, 1))), ((2, 3), ((0, 2), (1, 0)))):
        record = Choice(tuple(range(shape[0])), tuple(range(shape[1])), right, "", "")
        draws = rng.normal(size=(4000, *shape))
        text = np.array([_finds_captions(one, record) for one in draws])
        image = np.array([_finds_images(one, record) for one in draws])
        found = {"text": text, "image": image, "group": text & image}
        for score, hits in found.items():
            assert chance(record, score) == pytest.approx(hits.mean(), abs=0.03)


def test_captions_and_images_choose_by_their_own_direction(tmp_path):
    """With token-wise similarity the text score is of images' view, the image score of texts'."""
    image, text = normal(6, 3, 8), normal(6, 4, 8, seed=1)

    def image_features(variables, pixels):
        return {"image_tokens": variables["image"][pixels[:, 0, 0, 0].astype(jnp.int32)]}

    def text_features(variables, tokens):
        pieces = variables["text"][tokens[:, 0]]
        return {"text_tokens": pieces, "text_mask": jnp.ones(pieces.shape[:2], bool)}

    made = looked_up(
        image,
        text,
        similarity=TOKEN_MAX,
        image_features=image_features,
        text_features=text_features,
    )
    outcome = PairChoice(choices=winoground(tmp_path)).run(made)
    cosines = np.einsum("ipd,jld->ijpl", image, text)
    of_images, of_texts = cosines.max(3).mean(2), cosines.max(2).mean(2)
    text_right, image_right = [], []
    for r in range(3):
        a, b = 2 * r, 2 * r + 1
        text_right.append(of_images[a, a] > of_images[a, b] and of_images[b, b] > of_images[b, a])
        image_right.append(of_texts[a, a] > of_texts[b, a] and of_texts[b, b] > of_texts[a, b])
    assert outcome.samples["text_score"].values.tolist() == text_right
    assert outcome.samples["image_score"].values.tolist() == image_right
    assert text_right != image_right


def test_an_unreadable_image_is_wrong_and_spoils_nothing_else(tmp_path):
    choices = winoground(tmp_path)
    (tmp_path / "2.png").write_bytes(b"no image")
    outcome = run(choices, WINOGROUND)
    assert outcome.samples["text_score"].values.tolist() == [1, 0, 0]
    assert outcome.samples["image_score"].values.tolist() == [1, 0, 0]


def test_what_is_shown(tmp_path):
    (shown,) = run(winoground(tmp_path), WINOGROUND).exhibits
    assert [query.note for query in shown.queries] == ["right", "wrong", "wrong"]
    first = shown.queries[0]
    assert first.query.image[0, 0, 0] == 0
    assert [(a.text, a.score, a.is_right) for a in first.answers] == [
        ("number 0", 2.0, True),
        ("number 1", 1.0, False),
    ]


# --- pairs on the devices -------------------------------------------------------------------------


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_scores_of_pairs_are_the_same_bits_on_any_mesh(devices, monkeypatch):
    monkeypatch.setattr("nlip_jax.evaluators.pairs._MAX_PAIRS", 16)
    image, text = normal(20, 48), normal(31, 48, seed=1)
    pairs = np.random.default_rng(2).integers(0, 20, (333, 2))
    sides = {"image_embed": image}, {"text_embed": text}
    for score, features, places in (
        (ImagesToTexts(DOT), sides, pairs),
        (TextsToImages(DOT), sides[::-1], pairs[:, ::-1]),
    ):
        found = score_pairs(*features, places, score=score, mesh=mesh_of(devices))
        exact = np.einsum("pd,pd->p", image[pairs[:, 0]].astype(float), text[pairs[:, 1]])
        np.testing.assert_allclose(found, exact, atol=1e-6)
        one = score_pairs(*features, places, score=score, mesh=mesh_of(1))
        assert found.tobytes() == one.tobytes()
        # The same pair twice is a tie, wherever it stands.
        tiled = np.tile(places[:7], (9, 1))
        twice = score_pairs(*features, tiled, score=score, mesh=mesh_of(devices))
        assert len(np.unique(twice.reshape(9, 7), axis=0)) == 1


def test_no_pairs():
    assert score_pairs({}, {}, np.zeros((0, 2), int), score=None, mesh=None).shape == (0,)


# --- files that are none --------------------------------------------------------------------------

GOOD = {"images": ["0.png"], "captions": ["a", "b"], "right": 1}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no records"),
        ([3], "record 0 is no mapping but int; known are image_0"),
        ([{"url": "x"}], "record 0 has url; known are"),
        ([GOOD, {**GOOD, "right": 2}], "record 1 has right=2: must be places from 0, each once"),
        ([{**GOOD, "right": -1}], "right=-1"),
        ([{**GOOD, "right": "1"}], "right='1' for 1 images, 2 captions"),
        ([{**GOOD, "images": "0.png"}], "has images that are no list of texts"),
        ([{**GOOD, "captions": ["a", 3]}], "has captions that are no list of texts"),
        ([{**GOOD, "captions": ["a", " "]}], "has a blank caption"),
        ([{**GOOD, "captions": ["a"], "right": 0}], "nothing to choose from"),
        ([{**GOOD, "images": ["0.png", "0.png"], "right": 0}], "right=0, and needs the caption of"),
        ([{**GOOD, "images": ["0.png", "0.png"], "right": [1, 1]}], r"right=\[1, 1\]: must be"),
        ([{"image_0": "0", "caption_0": "a", "caption_1": "b"}], "has 1 images and 2 captions"),
        ([{**GOOD, "images": ["1.png"]}], "1 of 1 images that .* names are not there, such as"),
    ],
)
def test_records_that_are_none(tmp_path, records, message):
    write_images(tmp_path, 1)
    with pytest.raises(UsageError, match=message):
        choices_of(write(tmp_path, records))


@pytest.mark.parametrize("text", ["{", '{"a": 1}\n{', "\ud800"])
def test_no_json(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match=r"bad\.json cannot be read"):
        choices_of(str(path))


def test_one_set_asks_one_thing(tmp_path):
    write_images(tmp_path, 2)
    both = {"images": ["0.png", "1.png"], "captions": ["a", "b"], "right": [0, 1]}
    with pytest.raises(UsageError, match="make a set of each"):
        PairChoice(choices=choices_of(write(tmp_path, [GOOD, both])))


def test_json_lines_of_one_record_and_images_elsewhere(tmp_path):
    (tmp_path / "images").mkdir()
    write_images(tmp_path / "images", 1)
    path = write(tmp_path, [GOOD], lines=True)
    (record,) = choices_of(path, root=str(tmp_path / "images")).records
    assert (record.images, record.captions, record.right) == ((0,), (0, 1), ((0, 1),))
    assert record.file == "records"


def test_every_caption_and_image_is_embedded_once(tmp_path):
    write_images(tmp_path, 2)
    pairs = itertools.product(["0.png", "1.png"], [["a", "b"], ["b", "a"]])
    records = [{"images": [image], "captions": some, "right": 0} for image, some in pairs]
    choices = choices_of(write(tmp_path, records))
    assert choices.source.num_images == 2
    assert choices.captions == ("a", "b")
