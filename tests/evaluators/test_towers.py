"""The trained model as evaluators see it: embeds once, compiles once, notices broken parameters."""

import numpy as np
import pytest
from fakes import Numbered, normal, towers

from nlip_jax.data.failures import ReadError
from nlip_jax.errors import RunError


def test_a_second_evaluation_compiles_nothing():
    table = normal(20, 8)
    traced = []

    class Model:
        def image_features(self, variables, image):
            traced.append("image")
            return {"image_embed": variables["image"][image[:, 0, 0, 0]]}

        def text_features(self, variables, tokens):
            traced.append("text")
            return {"text_embed": variables["text"][tokens[:, 0]]}

    model = Model()
    for _ in range(2):  # as two evaluations during training: the towers are made anew
        made = towers(
            table,
            table,
            image_features=model.image_features,
            text_features=model.text_features,
        )
        images = made.embed_images(Numbered(num_images=20))
        texts = made.embed_texts([f"number {i}" for i in range(20)])
        np.testing.assert_array_equal(images["image_embed"], table)
        found = made.search_texts(images, texts, right=np.arange(20)[:, None])
        assert not found.rank.any()
    assert sorted(traced) == ["image", "text"]


def test_images_are_not_augmented():
    made = towers(normal(3, 4), normal(3, 4))
    assert made.transform.is_random

    def pixels(variables, image):
        return {"image_embed": image.astype(np.float32).reshape(len(image), -1)}

    class Gradient(Numbered):
        def picture(self, image_id):
            return np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

    made = towers(normal(3, 4), normal(3, 4), image_features=pixels)
    for row in made.embed_images(Gradient(num_images=9))["image_embed"]:
        np.testing.assert_array_equal(row, np.arange(48))


class Counted(Numbered):
    """Counts how often its images are read."""

    reads = 0

    def picture(self, image_id):
        Counted.reads += 1
        return super().picture(image_id)


def test_images_of_several_evaluators_are_embedded_once():
    made, table = towers(normal(9, 4), normal(9, 4)), normal(9, 4)
    Counted.reads = 0
    for _ in range(3):
        np.testing.assert_array_equal(made.embed_images(Counted(9))["image_embed"], table)
    once = Counted.reads
    np.testing.assert_array_equal(made.pool_images(Counted(9)), 3 * table)
    assert once and Counted.reads == 2 * once
    made.embed_images(Counted(9, fingerprint="other images"))
    assert Counted.reads == 3 * once


def test_two_nameless_functions_are_two():
    table = normal(9, 4)
    made = towers(
        table,
        table,
        image_features=lambda tables, x: {"image_embed": tables["image"][x[:, 0, 0, 0]]},
        pooled_features=lambda tables, x: {"pooled": 2 * tables["image"][x[:, 0, 0, 0]]},
    )
    np.testing.assert_array_equal(made.embed_images(Numbered(9))["image_embed"], table)
    np.testing.assert_array_equal(made.pool_images(Numbered(9)), 2 * table)


@pytest.mark.parametrize("side", ["images", "captions", "texts"])
def test_broken_parameters_are_noticed(side):
    table = normal(9, 4)
    table[3] = np.nan
    made = towers(table, table)
    run = {
        "images": lambda: made.embed_images(Numbered(9)),
        "captions": lambda: made.embed_captions(Numbered(9, owners=tuple(range(9)))),
        "texts": lambda: made.embed_texts([f"number {i}" for i in range(9)]),
    }
    with pytest.raises(RunError, match=f"1 of 9 {side} have features that are not finite.*earlier"):
        run[side]()


def test_what_cannot_be_read_is_not_broken():
    class Damaged(Numbered):
        def picture(self, image_id):
            if image_id == 4:
                raise ReadError("damaged_image", "cut short")
            return super().picture(image_id)

    found = towers(normal(9, 4), normal(9, 4)).embed_images(Damaged(9))["image_embed"]
    np.testing.assert_array_equal(np.isnan(found).all(1), np.arange(9) == 4)
