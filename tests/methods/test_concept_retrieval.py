"""The words most like an image, against brute force, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import LENGTH, SIZE, clip, mesh_of, rows

from nlip_jax.methods.retrieval import embed_words, retrieve, word_rows
from nlip_jax.methods.similarities import SIMILARITIES
from nlip_jax.sharding import by_row, replicated

IMAGES, WORDS = 16, 37


def unit(shape, seed):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def features(words=WORDS):
    mask = np.arange(5)[None] < np.random.default_rng(3).integers(1, 6, (words, 1))
    images = {"image_embed": unit((IMAGES, 8), 0), "image_tokens": unit((IMAGES, 4, 8), 1)}
    texts = {
        "text_embed": unit((words, 8), 2),
        "text_tokens": unit((words, 5, 8), 4),
        "text_mask": mask,
    }
    return images, texts


def scores_of(name, images, words):
    """Scores [images, words] in float64, by loops."""
    if name == "dot":
        return np.float64(images["image_embed"]) @ np.float64(words["text_embed"]).T
    found = np.zeros((len(images["image_tokens"]), len(words["text_tokens"])))
    for i, patches in enumerate(np.float64(images["image_tokens"])):
        for j, pieces in enumerate(np.float64(words["text_tokens"])):
            real = pieces[words["text_mask"][j]]
            found[i, j] = np.mean([max(patch @ piece for piece in real) for patch in patches])
    return found


def best_of(scores, k):
    """Numbers of the best words; of equals the lower one, -1 where there are no more."""
    found = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    missing = k - found.shape[1]
    return np.pad(found, [(0, 0), (0, max(0, missing))], constant_values=-1)


@pytest.mark.parametrize("name", ["dot", "token_max"])
@pytest.mark.parametrize("chunk", [1, 10, 37, 99, None])
def test_equals_brute_force(name, chunk):
    images, words = features()
    found = retrieve(images, words, similarity=SIMILARITIES[name], top_k=5, chunk=chunk)
    assert (found.shape, found.dtype) == ((IMAGES, 5), jnp.int32)
    np.testing.assert_array_equal(found, best_of(scores_of(name, images, words), 5))


@pytest.mark.parametrize("name", ["dot", "token_max"])
def test_fewer_words_than_wanted(name):
    images, words = features(words=3)
    found = retrieve(images, words, similarity=SIMILARITIES[name], top_k=5, chunk=2)
    np.testing.assert_array_equal(found, best_of(scores_of(name, images, words), 5))
    assert (np.asarray(found)[:, 3:] == -1).all()


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_equals_go_to_the_lower_number_and_no_number_is_never_found(chunk):
    images = {"image_embed": np.eye(2, dtype=np.float32)}
    words = {
        "text_embed": np.float32([[0, 1], [1, 0], [np.nan, 0], [1, 0], [0, 1], [1, 0], [-1, -1]])
    }
    found = retrieve(images, words, similarity=SIMILARITIES["dot"], top_k=7, chunk=chunk)
    np.testing.assert_array_equal(found, [[1, 3, 5, 0, 4, 6, -1], [0, 4, 1, 3, 5, 6, -1]])
    images["image_embed"][0] = np.nan
    found = retrieve(images, words, similarity=SIMILARITIES["dot"], top_k=7, chunk=chunk)
    assert (np.asarray(found)[0] == -1).all()
    assert (np.asarray(found)[1] >= 0).sum() == 6


@pytest.mark.parametrize("name", ["dot", "token_max"])
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("words_lie", [replicated, by_row])
def test_on_devices_inside_jit(name, devices, words_lie):
    mesh = mesh_of(devices)
    images, words = features(words=40)

    @jax.jit
    def find(images, words):
        return retrieve(images, words, similarity=SIMILARITIES[name], top_k=4, chunk=16)

    placed = jax.device_put(images, by_row(mesh)), jax.device_put(words, words_lie(mesh))
    found = find(*placed)
    assert found.sharding.is_equivalent_to(by_row(mesh), 2)
    np.testing.assert_array_equal(found, best_of(scores_of(name, images, words), 4))


class Letters:
    """Encodes a text by its letters."""

    context_length = LENGTH

    def encode_batch(self, texts):
        found = np.zeros((len(texts), LENGTH), np.int32)
        for row, text in zip(found, texts, strict=True):
            pieces = [ord(letter) % 28 + 4 for letter in text][: LENGTH - 2]
            row[: len(pieces) + 2] = [2, *pieces, 3]
        return found


def variables_of(method):
    image, tokens = np.zeros((1, SIZE, SIZE, 3), np.float32), np.ones((1, LENGTH), np.int32)
    return method.model.init(jax.random.key(0), image, tokens)


def test_word_rows_put_the_words_into_the_prompt():
    found = word_rows(["a", "b c"], prompt="{} {x}", tokenizer=Letters())
    np.testing.assert_array_equal(found, Letters().encode_batch(["a {x}", "b c {x}"]))


@pytest.mark.parametrize("devices", [1, 8])
def test_embedded_in_parts_as_all_at_once(devices):
    method, mesh = clip(), mesh_of(devices)
    variables = variables_of(method)
    variables = jax.device_put(variables, replicated(mesh))
    short = Letters().encode_batch(["a", "bc", "b"] * 4)
    found = embed_words(method.text_features, variables, short, batch=8, sharding=replicated(mesh))
    whole = method.text_features(variables, short)
    np.testing.assert_allclose(found["text_embed"], whole["text_embed"], rtol=1e-6)
    # Where no row has a token nothing is kept.
    assert found["text_tokens"].shape == (12, 4, 16)
    np.testing.assert_allclose(found["text_tokens"], whole["text_tokens"][:, :4], rtol=1e-6)
    np.testing.assert_array_equal(found["text_mask"], whole["text_mask"][:, :4])


def test_no_gradient_reaches_the_encoder():
    method = clip()
    batch = rows(range(4))
    variables = variables_of(method)

    def loss(variables):
        images = method.image_features(variables, batch["image"])
        words = method.text_features(variables, batch["tokens"])
        found = retrieve(images, words, similarity=method.similarity, top_k=2)
        return jnp.sum(jnp.arange(4.0)[found])

    gradient = jax.grad(loss)(variables)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradient))
