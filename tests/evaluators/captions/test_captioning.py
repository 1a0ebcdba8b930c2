"""The evaluator, with captions of a file and of a model that is a table of captions."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from tiny import mesh_of

from configs import base, evaluators
from nlip_jax import build
from nlip_jax.build.evaluation import make_evaluators
from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.pipeline import Reading
from nlip_jax.data.source import Place
from nlip_jax.errors import RunError, UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.captions.evaluator import Captioning
from nlip_jax.evaluators.captions.examples import choose
from nlip_jax.methods.similarities import DOT
from nlip_jax.train.map_examples import Mapper

WORDS = ["", "a", "picture", "of", "red", "green", "blue", "dog", "cat", "sits", "runs"]
REFERENCES = [
    ["A red dog sits.", "a red dog, sitting"],
    ["A green cat runs."],
    ["a blue cat", "The blue cat sits", "cat"],
    [],
    ["A dog runs."],
    ["a cat sits"],
]
PRODUCED = ["a red dog sits", "a green cat", "a dog", "a dog", "a cat", "a cat sits"]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Image i is all of value i."""

    unreadable: tuple[int, ...] = ()
    broken_captions: bool = False
    fingerprint: str = "0"
    draws_captions: bool = False
    num_images: int = len(REFERENCES)

    @property
    def pairs(self):
        return [(i, text) for i, texts in enumerate(REFERENCES) for text in texts]

    def __len__(self):
        return len(self.pairs)

    def image_id(self, example_id):
        return self.pairs[example_id][0]

    def picture(self, image_id):
        if image_id in self.unreadable:
            raise ReadError("empty_image", "0 bytes")
        return np.full((4, 4, 3), image_id, np.uint8)

    def caption(self, example_id, epoch=0):
        if self.broken_captions:
            raise ReadError("unreadable_caption", "gone")
        return self.pairs[example_id][1]

    def place(self, image_id):
        return Place("shard", f"{image_id}.jpg")


class Spelled:
    def decode(self, ids):
        return " ".join(WORDS[i] for i in ids if i)


def towers(captions, *, devices: int = 8) -> Towers:
    """A model whose caption of image i is captions[i]."""
    rows = np.zeros((len(captions), 8), np.int32)
    for i, caption in enumerate(captions):
        ids = [WORDS.index(word) for word in caption.split()]
        rows[i, : len(ids)] = ids

    def caption(variables, image):
        return variables["rows"][image[:, 0, 0, 0].astype(jnp.int32)]

    mesh = mesh_of(devices)
    return Towers(
        variables={"rows": jnp.asarray(rows)},
        image_features=None,
        text_features=None,
        caption=caption,
        similarity=DOT,
        tokenizer=Spelled(),
        transform=ImageTransform(size=4, flip=True),
        collect=Mapper(mesh=mesh, reading=Reading(threads=0)).collect,
        batch_size=8,
        mesh=mesh,
    )


@pytest.mark.parametrize(("first", "headline"), [("bleu", "bleu4"), ("rouge_l", "rouge_l")])
def test_the_first_metric_stands_for_the_set(first, headline):
    evaluator = Captioning(source=Pictures(), produced=tuple(PRODUCED), metrics=(first, "cider"))
    assert evaluator.run(towers(PRODUCED)).headline == headline


def test_captions_of_a_file():
    outcome = Captioning(source=Pictures(), produced=tuple(PRODUCED)).run(towers(PRODUCED))
    assert list(outcome.metrics) == [
        *("cider", "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"),
        *("mean_length", "distinct_share", "vocabulary_size"),
    ]
    assert outcome.headline == "cider"
    # The image without references does not count: "a dog" was made of it as well.
    assert outcome.metrics["mean_length"] == pytest.approx((4 + 3 + 2 + 2 + 3) / 5)
    assert outcome.metrics["distinct_share"] == 1
    assert outcome.metrics["vocabulary_size"] == 6
    assert set(outcome.samples) == {"cider", "rouge_l"}  # BLEU is no mean over images
    for name, samples in outcome.samples.items():
        assert samples.values.shape == (5,)
        assert outcome.metrics[name] == pytest.approx(samples.values.mean())
    assert outcome.samples["rouge_l"].values[[0, 4]].tolist() == [1, 1]


def test_equals_cocos_own_evaluation():
    """Tokens and metrics as by the protocol's packages, of captions with capitals and stops."""
    pytest.importorskip("pycocoevalcap.cider.cider")
    from pycocoevalcap.cider.cider import Cider

    kept = [i for i, texts in enumerate(REFERENCES) if texts]
    tokens = [[t.lower().replace(".", "").replace(",", "") for t in texts] for texts in REFERENCES]
    expected = Cider().compute_score({i: tokens[i] for i in kept}, {i: [PRODUCED[i]] for i in kept})
    outcome = Captioning(source=Pictures(), produced=tuple(PRODUCED)).run(towers(PRODUCED))
    assert outcome.metrics["cider"] == pytest.approx(expected[0], abs=1e-9)


@pytest.mark.parametrize("devices", [1, 8])
def test_captions_of_the_model(devices):
    of_file = Captioning(source=Pictures(), produced=tuple(PRODUCED)).run(towers(PRODUCED))
    prompted = towers([f"a picture of {text}" for text in PRODUCED], devices=devices)
    of_model = Captioning(source=Pictures(), prompt="A picture of ").run(prompted)
    assert of_model.metrics == of_file.metrics


def test_an_image_that_cannot_be_read():
    outcome = Captioning(source=Pictures(unreadable=(1,))).run(towers(PRODUCED))
    assert outcome.samples["rouge_l"].values[1] == 0
    (queries,) = outcome.exhibits
    assert (
        sum(
            "empty_image" in one.query.text or "0 bytes" in one.query.text
            for one in queries.queries
        )
        == 1
    )


def test_examples():
    outcome = Captioning(source=Pictures(), produced=tuple(PRODUCED), examples=3).run(
        towers(PRODUCED)
    )
    (queries,) = outcome.exhibits
    worst, _, best = queries.queries
    scores = outcome.samples["cider"].values
    assert (worst.answers[0].score, best.answers[0].score) == (scores.min(), scores.max())
    assert best.note == f"cider {100 * scores.max():.1f}"
    image = int(best.query.image[0, 0, 0])
    assert best.answers[0].text == PRODUCED[image]
    assert [item.text for item in best.answers[1:]] == REFERENCES[image]
    assert all(item.is_right for item in best.answers[1:])
    assert (
        Captioning(source=Pictures(), produced=tuple(PRODUCED), examples=0)
        .run(towers(PRODUCED))
        .exhibits
        == ()
    )


def test_choice_of_examples():
    scores = np.array([5.0, 1, 3, 1, 4, 2, 0])
    assert choose(scores, count=3).tolist() == [6, 5, 0]
    assert choose(scores, count=99).tolist() == [6, 1, 3, 5, 2, 4, 0]
    assert choose(scores[:0], count=3).tolist() == []


def test_references_that_cannot_be_read():
    evaluator = Captioning(source=Pictures(broken_captions=True), produced=tuple(PRODUCED))
    with pytest.raises(RunError, match=r"caption of example 0, image '0.jpg', cannot be read"):
        evaluator.run(towers(PRODUCED))


# --- Of a config ----------------------------------------------------------------------------------


def coco(folder, predictions=None, **fields):
    """A config with one set in COCO's layout."""
    for number in range(3):
        Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(folder / f"{number:012}.jpg")
    document = {
        "images": [{"id": 10 + i, "file_name": f"{i:012}.jpg"} for i in range(3)],
        "annotations": [
            {"image_id": 10 + i, "caption": text}
            for i, texts in enumerate(REFERENCES[:3])
            for text in texts
        ],
    }
    (folder / "captions.json").write_text(json.dumps(document))
    block = base.folder_source()
    block.shards = str(folder / "captions.json")
    spec = evaluators.caption("folder", block)
    if predictions is not None:
        records = [{"image_id": i, "caption": text} for i, text in predictions.items()]
        (folder / "results.json").write_text(json.dumps(records))
        spec.predictions = str(folder / "results.json")
    with spec.ignore_type():
        spec.update(fields)
    config = base.get_config()
    config.evaluators = ConfigDict({"caption": {"coco": spec}})
    return config


def test_predictions_of_a_config(tmp_path):
    config = coco(tmp_path, dict(enumerate(PRODUCED[:3])))
    evaluator = build.make_evaluators(config, tmp_path)["caption/coco"]
    outcome = evaluator.run(towers(PRODUCED))
    assert outcome.samples["rouge_l"].values[0] == 1
    assert [tuple(texts) for texts in REFERENCES[:3]] == [
        tuple(evaluator.source.caption(i) for i in owned) for owned in ([0, 1], [2], [3, 4, 5])
    ]


def test_a_model_that_captions(tmp_path):
    evaluator = make_evaluators(coco(tmp_path, prompt="a"), tmp_path, can_caption=True)
    assert evaluator["caption/coco"].produced is None
    assert evaluator["caption/coco"].prompt == "a"


@pytest.mark.parametrize(
    ("predictions", "fields", "message"),
    [
        (None, {}, "this model makes no captions; name a file of them: --config.evaluators.capt"),
        ({}, {"metrics": ("cider", "rogue")}, "has 'rogue': choose of cider, bleu, rouge_l, meteo"),
        ({}, {"metrics": ()}, "name one or several, each once"),
        ({}, {"metrics": ("cider", "cider")}, "name one or several, each once"),
        ({}, {"image_ids": "row"}, "image_ids='row': choose one of file_name, place"),
        ({}, {"prompt": "a"}, "prompt='a': it is taken off the model's captions"),
        ({}, {}, "3 of 3 images have no caption, such as '000000000000.jpg'"),
        ({5: "a"}, {}, "image_id=5 names no image"),
    ],
)
def test_refuses(tmp_path, predictions, fields, message):
    with pytest.raises(UsageError, match=message) as found:
        build.make_evaluators(coco(tmp_path, predictions, **fields), tmp_path)
    assert "\n" not in str(found.value)


def test_java_is_looked_for_before_anything_else(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    config = coco(tmp_path, dict(enumerate(PRODUCED[:3])), metrics=("meteor",))
    with pytest.raises(UsageError, match="'meteor' runs in Java"):
        build.make_evaluators(config, tmp_path)
