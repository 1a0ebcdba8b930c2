"""`evaluate --model`: whatever has the fields of a model is evaluated."""

import json
import re
import types

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import mesh_of

from nlip_jax.commands.evaluation.imported_model import place
from nlip_jax.train.metrics import read_metrics

CONFIG = (
    "--config=configs/quickstart.py",
    "--config.data.image_size=16",
    "--config.evaluation.bootstrap=20",
    "--config.evaluators.retrieval.scenes.synthetic.num_examples=30",
    "--config.evaluators.zero_shot.scenes.class_scenes.images_per_class=1",
)
WIDTH = 8


class Letters:
    """Encodes a text by its letters."""

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode().ljust(80)[:80], np.uint8).astype(np.int32)


def image_features(variables, image):
    pixels = image.astype(jnp.float32).reshape(len(image), -1) / 255 - 0.5
    return {"image_embed": unit(pixels @ variables["image"])}


def text_features(variables, tokens):
    return {"text_embed": unit(variables["text"][tokens].mean(1))}


def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def make(config, mesh):
    assert mesh.size == 8
    rng = np.random.default_rng(0)
    size = config.data.image_size**2 * 3
    return {
        "variables": {
            "image": rng.normal(size=(size, WIDTH)).astype(np.float32),
            "text": jnp.asarray(rng.normal(size=(256, WIDTH)), jnp.float32),
        },
        "image_features": image_features,
        "text_features": text_features,
        "similarity": "dot",
        "tokenizer": Letters(),
    }


def make_object(config, mesh):
    return types.SimpleNamespace(**make(config, mesh), pooled_features=None)


def make_other(config, mesh):
    model = make(config, mesh)
    return model | {"variables": {**model["variables"], "text": model["variables"]["text"] + 1}}


def make_broken(config, mesh):
    model = make(config, mesh)
    return model | {"variables": {**model["variables"], "image": np.full((768, WIDTH), np.nan)}}


def lacks_tokenizer(config, mesh):
    return {k: v for k, v in make(config, mesh).items() if k != "tokenizer"}


def odd_similarity(config, mesh):
    return make(config, mesh) | {"similarity": "cosine"}


def odd_features(config, mesh):
    return make(config, mesh) | {"text_features": 3}


def odd_tokenizer(config, mesh):
    return make(config, mesh) | {"tokenizer": str}


def with_(**fields):
    """A model with other fields."""
    return lambda config, mesh: make(config, mesh) | fields


class OfAnyLength:
    def encode(self, text: str) -> np.ndarray:
        return np.arange(len(text), dtype=np.int32)


def fail(*args):
    raise ValueError("no such layer\nin here")


holds_text = with_(variables={"image": "weights"})
of_any_length = with_(tokenizer=OfAnyLength())
cannot_encode = with_(tokenizer=types.SimpleNamespace(encode=fail))
fails = with_(image_features=fail)
no_mapping = with_(image_features=lambda v, image: image_features(v, image)["image_embed"])
other_names = with_(image_features=lambda v, image: {"embed": jnp.ones((len(image), WIDTH))})
one_row = with_(image_features=lambda v, image: {"image_embed": jnp.ones((1, WIDTH))})
too_wide = with_(image_features=lambda v, image: {"image_embed": jnp.ones((len(image), 9))})
no_tokens = with_(similarity="token_max")
not_pooled = with_(pooled_features=image_features)
no_decoder = with_(caption=lambda v, image: jnp.ones((len(image), 5), jnp.int32))


class Speller(Letters):
    def decode(self, row: np.ndarray) -> str:
        return bytes(row.astype(np.uint8)).decode()


speaks = with_(
    caption=lambda v, image: jnp.tile(jnp.array([97, 32, 98]), (len(image), 1)),
    tokenizer=Speller(),
)


def raises(config, mesh):
    raise OSError("no weights here\nnor there")


def test_a_model_is_evaluated(command, tmp_path):
    """A mapping or an object; once."""
    found = {}
    for name in ("make", "make_object"):
        model, output = f"--model=test_evaluate_model:{name}", f"--output={tmp_path / name}"
        code, out, err = command("evaluate", *CONFIG, model, output)
        assert code == 0, err
        found[name] = json.loads((tmp_path / name / "results.json").read_text())
        assert [line["step"] for line in read_metrics(tmp_path / name / "metrics.jsonl")] == [0]
        assert "retrieval" in out and (tmp_path / name / "evaluation.html").exists()
        assert (tmp_path / name / "outcomes.npz").exists()
    kept = {n: v for n, v in found["make"].items() if not n.startswith("time/")}
    assert kept == {n: found["make_object"][n] for n in kept} and kept["step"] == 0
    low, high = (kept[f"retrieval/scenes/text_to_image/recall@10_{end}"] for end in ("low", "high"))
    assert 0 <= low < high <= 1

    code, _, err = command("evaluate", *CONFIG, model, output)
    assert code == 0 and "step 0" not in err  # nothing is left to do
    model = "--model=test_evaluate_model:make_other"
    code, _, err = command("evaluate", *CONFIG, model, output)
    assert code == 2 and "holds the evaluation of another model" in err
    code, _, err = command(
        "evaluate", "--compare", str(tmp_path / "make"), str(tmp_path / "make_object")
    )
    assert code == 0, err


def test_broken_variables_are_one_line(command, tmp_path):
    code, _, err = command(
        "evaluate", *CONFIG, "--model=test_evaluate_model:make_broken", f"--output={tmp_path / 'o'}"
    )
    assert code == 1 and "features that are not finite" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_evaluate_model:none", "cannot be imported as package.module:function"),
        ("no_such_module:make", "cannot be imported"),
        ("test_evaluate_model", "cannot be imported"),
        ("test_evaluate_model:WIDTH", "is int, not a function"),
        ("test_evaluate_model:raises", "OSError: no weights here$"),
        ("test_evaluate_model:lacks_tokenizer", r"without tokenizer \(object with encode"),
        ("test_evaluate_model:odd_similarity", "similarity='cosine': choose one of dot, token_max"),
        ("test_evaluate_model:odd_features", "text_features is 3, not a function"),
        ("test_evaluate_model:odd_tokenizer", "tokenizer must be an object with encode"),
        ("test_evaluate_model:unit", "TypeError: unit"),
        ("test_evaluate_model:holds_text", "must be a pytree of arrays, and 'weights' is in it"),
        ("test_evaluate_model:of_any_length", "of one length for all texts"),
        ("test_evaluate_model:cannot_encode", "tokenizer.encode: ValueError: no such layer$"),
        ("test_evaluate_model:fails", "image_features: ValueError: no such layer$"),
        ("test_evaluate_model:no_mapping", "must return a mapping with 'image_embed'"),
        ("test_evaluate_model:other_names", "must return 'image_embed', and returned 'embed'"),
        ("test_evaluate_model:one_row", r"image_embed of \d+ rows has the shape \[1, 8\]"),
        ("test_evaluate_model:too_wide", "the same d, but image_embed 9 and text_embed 8"),
        ("test_evaluate_model:no_tokens", "must return 'image_tokens', and returned 'image_embed'"),
        ("test_evaluate_model:not_pooled", "pooled_features must return 'pooled'"),
        ("test_evaluate_model:no_decoder", r"its tokenizer no decode\(tokens \[l\]\)"),
    ],
)
def test_what_is_no_model(command, tmp_path, name, words):
    code, _, err = command("evaluate", *CONFIG, f"--model={name}", f"--output={tmp_path / 'o'}")
    assert code == 2 and len(err.splitlines()) == 1, err
    assert re.search(words, err.strip()), err


def test_a_module_that_cannot_be_imported(command, tmp_path, monkeypatch):
    (tmp_path / "a_module_of_theirs.py").write_text("raise RuntimeError('no weights\\nat all')")
    monkeypatch.syspath_prepend(tmp_path)
    model = "--model=a_module_of_theirs:make"
    code, _, err = command("evaluate", *CONFIG, model, f"--output={tmp_path / 'o'}")
    assert code == 2 and err.strip().endswith("package.module:function: no weights")


def test_a_model_that_makes_captions(command, tmp_path):
    (tmp_path / "config.py").write_text(
        "from configs import base, evaluators\n"
        "def get_config():\n"
        "    c, scenes = base.get_config(), base.synthetic_source()\n"
        "    scenes.num_examples = 10\n"
        "    c.evaluators.caption.scenes = evaluators.caption('synthetic', scenes)\n"
        "    return c\n"
    )
    config = f"--config={tmp_path / 'config.py'}"
    model, output = "--model=test_evaluate_model:speaks", f"--output={tmp_path / 'o'}"
    code, _, err = command("evaluate", config, model, output)
    assert code == 0, err
    assert json.loads((tmp_path / "o" / "results.json").read_text())["caption/scenes/cider"] >= 0
    code, _, err = command("evaluate", config, "--model=test_evaluate_model:make", output)
    assert code == 2 and "this model makes no captions" in err


@pytest.mark.parametrize("left_out", ["--config=", "--output="])
def test_what_a_model_needs_besides(command, tmp_path, left_out):
    given = (CONFIG[0], f"--output={tmp_path}", "--model=test_evaluate_model:make")
    code, _, err = command("evaluate", *(a for a in given if not a.startswith(left_out)))
    assert code == 2 and "--model needs --config=FILE with evaluators, and --output" in err


def test_arrays_stay_where_they_are_on_the_mesh():
    mesh = mesh_of(8)
    placed = place({"a": np.ones(3), "b": jnp.ones(3)}, mesh)
    assert {len(a.sharding.device_set) for a in placed.values()} == {8}
    assert place(placed, mesh)["b"] is placed["b"]
