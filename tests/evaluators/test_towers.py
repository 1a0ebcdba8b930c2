"""The trained model as evaluators see it: scores block by block, compiled once."""

import dataclasses

import numpy as np
import pytest
from fakes import Numbered, normal, towers

from nlip_jax.evaluators import base
from nlip_jax.losses.similarity import dot, token_max
from nlip_jax.methods.similarities import DOT, TOKEN_MAX


@pytest.mark.parametrize(("images", "texts"), [(1, 1), (5, 12), (6, 6), (13, 2)])
def test_blocks_make_the_whole(images, texts, monkeypatch):
    monkeypatch.setattr(base, "_MAX_BLOCK", 6)
    image, text = normal(images, 8), normal(texts, 8, seed=1)
    found = towers(image, text).score({"image_embed": image}, {"text_embed": text})
    for scores in (found.per_row, found.per_column):
        np.testing.assert_allclose(scores, image @ text.T, rtol=1e-5, atol=1e-6)
        assert scores.dtype == np.float32


def test_scores_of_tokens_differ_by_direction(monkeypatch):
    monkeypatch.setattr(base, "_MAX_SIMILARITIES", 4 * 4 * 3 * 5)  # blocks of four
    image, text = normal(7, 3, 8), normal(9, 5, 8, seed=1)
    mask = np.arange(5)[None] < np.arange(9)[:, None] % 5 + 1
    found = towers(image, text, similarity=TOKEN_MAX).score(
        {"image_tokens": image, "image_embed": image[:, 0]},
        {"text_tokens": text, "text_mask": mask, "text_embed": text[:, 0]},
    )
    whole = token_max(image, text, column_mask=mask)
    np.testing.assert_allclose(found.per_row, whole.per_row, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.per_column, whole.per_column, rtol=1e-5, atol=1e-6)
    assert np.abs(found.per_row - found.per_column).max() > 0.1


def test_blocks_of_tokens_stay_small():
    def tokens(count):
        return {"embed": np.empty((2000, 8)), "tokens": np.empty((2000, count, 8))}

    pooled = {"embed": np.empty((2000, 8))}
    assert base._block_size(pooled, pooled) == 512
    assert base._block_size(tokens(197), tokens(77)) ** 2 * 197 * 77 <= 2**26
    assert base._block_size(tokens(10**5), tokens(10**5)) == 1


def test_a_second_evaluation_compiles_nothing():
    table = normal(20, 8)
    traced = []

    class Model:
        def image_features(self, params, image):
            traced.append("image")
            return {"image_embed": params["image"][image[:, 0, 0, 0]]}

        def text_features(self, params, tokens):
            traced.append("text")
            return {"text_embed": params["text"][tokens[:, 0]]}

        def compare(self, *sides):
            traced.append("similarity")
            return dot(*sides)

    model = Model()
    for _ in range(2):  # as two evaluations during training: the towers are made anew
        made = towers(
            table,
            table,
            similarity=dataclasses.replace(DOT, compare=model.compare),
            image_features=model.image_features,
            text_features=model.text_features,
        )
        images = made.embed_images(Numbered(num_images=20))
        texts = made.embed_texts([f"number {i}" for i in range(20)])
        np.testing.assert_array_equal(images["image_embed"], table)
        assert (made.score(images, texts).per_row.argmax(1) == np.arange(20)).all()
    assert sorted(traced) == ["image", "similarity", "text"]


def test_images_are_not_augmented():
    made = towers(normal(3, 4), normal(3, 4))
    assert made.transform.is_random

    def pixels(params, image):
        return {"image_embed": image.astype(np.float32).reshape(len(image), -1)}

    class Gradient(Numbered):
        def picture(self, image_id):
            return np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

    made = towers(normal(3, 4), normal(3, 4), image_features=pixels)
    for row in made.embed_images(Gradient(num_images=9))["image_embed"]:
        np.testing.assert_array_equal(row, np.arange(48))
