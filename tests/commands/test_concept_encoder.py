"""`config.concepts.retriever`: the model of another run, or of somebody else, finds concepts."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import FOUR_PART, make_run, open_tiny, write_files

from nlip_jax.commands import train_command
from nlip_jax.commands.evaluation.restored_run import open_model
from nlip_jax.config import from_json
from nlip_jax.errors import UsageError

WIDTH = 8
CLIP = ("--config.method=clip", "--config.tokenizer.vocab_size=280", "--config.seed=3")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, request):
    """A run of CLIP, whose vocabulary is another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(request.config.rootpath)
        return make_run(tmp_path_factory.mktemp("encoders") / "clip", *CLIP)


class Letters:
    """Encodes a text by its letters."""

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode().ljust(40)[:40], np.uint8).astype(np.int32)


@pytest.fixture
def seen(monkeypatch):
    """A module with a model that tells how often it is traced."""
    seen = []
    rng = np.random.default_rng(0)
    variables = {
        "image": rng.normal(size=(16 * 16 * 3, WIDTH)).astype(np.float32),
        "text": rng.normal(size=(256, WIDTH)).astype(np.float32),
    }

    def unit(x):
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def image_features(variables, image):
        seen.append("image")
        pixels = image.astype(jnp.float32).reshape(len(image), -1) / 255 - 0.5
        return {"image_embed": unit(pixels @ variables["image"])}

    def text_features(variables, tokens):
        return {"text_embed": unit(variables["text"][tokens].mean(1))}

    def make(config, mesh):
        return {
            "variables": variables,
            "image_features": image_features,
            "text_features": text_features,
            "similarity": "dot",
            "tokenizer": Letters(),
        }

    module = types.ModuleType("somebodys")
    module.make, module.broken = make, lambda config, mesh: {"variables": variables}
    monkeypatch.setitem(__import__("sys").modules, "somebodys", module)
    return seen


def concept_numbers(run, images: np.ndarray) -> np.ndarray:
    """What a pass finds for a batch, by the method itself."""
    given = run.method.retriever.prepare(run.method, {"params": {}})
    return np.asarray(jax.jit(run.method.concept_numbers)(given, {"image": images}))


def nearest(run, images, *, image_features, text_features, tokenizer) -> np.ndarray:
    """The same by brute force, from features of images and of prompted words."""
    texts = [run.config.concepts.prompt.format(word) for word in run.texts.concepts.words]
    rows = np.stack([tokenizer.encode(text) for text in texts])
    padded = np.concatenate([rows, np.repeat(rows[:1], -len(rows) % 8, axis=0)])  # for 8 devices
    words = np.asarray(text_features(padded))[: len(rows)]
    scores = np.asarray(image_features(images)) @ words.T
    return np.argsort(-scores, axis=1, kind="stable")[:, : run.config.concepts.top_k] + 1


def test_the_newest_checkpoint_of_a_run_finds_them(encoder, tmp_path, command):
    run = open_tiny(tmp_path, *FOUR_PART, f"--config.concepts.retriever={encoder.workdir}")
    texts = run.texts
    assert texts.encoder_tokenizer.fingerprint == encoder.tokenizer.fingerprint
    assert texts.encoder_tokenizer.fingerprint != texts.tokenizer.fingerprint
    meshes = {leaf.sharding.mesh for leaf in jax.tree.leaves(texts.encoder.variables)}
    assert meshes == {run.mesh}
    own = encoder.factory.create().params
    for a, b in zip(
        jax.tree.leaves(own), jax.tree.leaves(texts.encoder.variables["params"]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    given = {"params": own}
    of_images = jax.jit(encoder.method.image_features)
    of_texts = jax.jit(encoder.method.text_features)
    expected = nearest(
        *(run, images),
        image_features=lambda image: of_images(given, image)["image_embed"],
        text_features=lambda rows: of_texts(given, rows)["text_embed"],
        tokenizer=encoder.tokenizer,
    )
    np.testing.assert_array_equal(concept_numbers(run, images), expected)


def test_it_is_a_constant_of_the_pass_only(seen, tmp_path, command):
    """Nothing of it is in the state, in its gradient or in the training step."""
    run = open_tiny(tmp_path, *FOUR_PART, "--config.concepts.retriever=somebodys:make")
    variables = run.texts.encoder.variables
    abstract, traced = run.factory.abstract(), len(seen)
    shapes = {leaf.shape for leaf in jax.tree.leaves(abstract)}
    assert shapes.isdisjoint(leaf.shape for leaf in jax.tree.leaves(variables))
    jax.eval_shape(run.step, abstract, run.batch)
    assert len(seen) == traced
    images = np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3), np.uint8)

    def image_features(image):
        return (image.reshape(8, -1) / 255 - 0.5) @ np.asarray(variables["image"])

    expected = nearest(
        *(run, images),
        image_features=lambda image: unit(image_features(image)),
        text_features=lambda rows: unit(np.asarray(variables["text"])[rows].mean(1)),
        tokenizer=Letters(),
    )
    np.testing.assert_array_equal(concept_numbers(run, images), expected)
    assert len(seen) > traced

    @jax.grad
    def gradient(variables):
        encoder = dataclasses.replace(run.texts.encoder, variables=variables)
        retriever = dataclasses.replace(run.method.retriever, encoder=encoder)
        given = {"variables": variables, "words": encoder.text_features(variables, words)}
        numbers = retriever.find(run.method, given, jnp.asarray(images))
        return jnp.sum(run.method.tokens_of(numbers).astype(jnp.float32))

    words = jnp.asarray(run.method.retriever.word_rows)
    for leaf in jax.tree.leaves(jax.jit(gradient)(variables)):
        assert not np.any(leaf)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_columns_are_of_this_encoder(seen, tmp_path, command):
    run = open_tiny(tmp_path, *FOUR_PART, "--config.concepts.retriever=somebodys:make")
    state = types.SimpleNamespace(params={"w": jnp.zeros(3)})
    changed = jax.tree.map(lambda leaf: leaf + 1, run.texts.encoder.variables)
    encoder = dataclasses.replace(run.texts.encoder, variables=changed)
    texts = {
        "this": run.texts,
        "another": dataclasses.replace(run.texts, encoder=encoder),
        "own": dataclasses.replace(run.texts, encoder=None),
    }
    keys = {
        name: train_command.column_key(dataclasses.replace(run, texts=one), state)
        for name, one in texts.items()
    }
    assert len(set(keys.values())) == 3


@pytest.mark.parametrize(
    "case",
    [
        ("nowhere", "choose own, which is the model in training, the folder"),
        ("{empty}", "config.concepts.retriever={empty} is no folder of a run"),
        ("{encoder}", "image_size=24"),
        ("somebodys:absent", "--config.concepts.retriever=somebodys:absent cannot be imported"),
        ("somebodys:broken", "without image_features"),
    ],
    ids=["nowhere", "empty", "image_size", "absent", "broken"],
)
def test_wrong_retriever(encoder, seen, tmp_path, command, case):
    name, words = (text.format(empty=tmp_path, encoder=encoder.workdir) for text in case)
    size = ("--config.data.image_size=24",) if name == str(encoder.workdir) else ()
    flags = (*FOUR_PART, f"--config.concepts.retriever={name}", *size)
    with pytest.raises(UsageError) as raised:
        open_tiny(tmp_path / "run", *flags)
    assert words in str(raised.value)


def test_a_run_without_checkpoint(encoder, tmp_path, command):
    for name in ("config.json", "data.json", "tokenizer.model"):
        (tmp_path / name).write_bytes((encoder.workdir / name).read_bytes())
    with pytest.raises(UsageError, match="holds no checkpoint yet"):
        open_tiny(
            tmp_path / "run", *FOUR_PART, f"--config.concepts.retriever={tmp_path}"
        )


def test_concepts_of_a_run_must_stay(tmp_path, command):
    """The numbers of concepts and the places of their tokens are in its columns and its model."""
    run = open_tiny(tmp_path, *FOUR_PART)
    write_files(run)
    config = from_json((tmp_path / "config.json").read_text())
    open_model(config, tmp_path)
    words = (tmp_path / "concepts.txt").read_text().splitlines()
    (tmp_path / "concepts.txt").write_text("\n".join(words[::-1]))
    with pytest.raises(UsageError, match="not those that its model was trained with"):
        open_model(config, tmp_path)
    assert run.texts.concepts.words == tuple(words)
