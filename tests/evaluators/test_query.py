"""Queries of images, texts and both: the arithmetic by hand, the answers by construction."""

import fakes
import jax.numpy as jnp
import numpy as np
import pytest

from nlip_jax.errors import UsageError
from nlip_jax.evaluators.query import check_weights, combine, find_images
from nlip_jax.methods.similarities import TOKEN_MAX

# Embeddings are (animal, place, night): texts name one of them, images show several.
IMAGES = np.array(
    [[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]], np.float32
)  # an animal, a place, a place at night, an animal at night, an animal at a place
TEXTS = np.eye(3, dtype=np.float32)
ANIMAL, PLACE, PLACE_AT_NIGHT, ANIMAL_AT_NIGHT, ANIMAL_AT_PLACE = range(5)
NIGHT = 2  # text


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.fixture(params=[1, 3, 8], ids="{} devices".format)
def towers(request):
    return fakes.towers(unit(IMAGES), TEXTS, devices=request.param)


def features(kind: str, *rows: int) -> dict[str, np.ndarray]:
    table = unit(IMAGES) if kind == "image" else TEXTS
    return {f"{kind}_embed": table[list(rows)]}


def search(towers, *, top: int = 5, **query):
    images = towers.embed_images(fakes.Numbered(len(IMAGES)))
    return find_images(towers, images, top=top, **query)


def test_a_text_alone_and_an_image_alone(towers):
    found = search(towers, text=features("text", NIGHT))
    assert found.best[0, :2].tolist() == [PLACE_AT_NIGHT, ANIMAL_AT_NIGHT]  # equal: by number
    np.testing.assert_allclose(found.scores[0, :3], [0.5**0.5, 0.5**0.5, 0], atol=1e-6)
    found = search(towers, image=features("image", ANIMAL, PLACE))
    assert found.best[:, 0].tolist() == [ANIMAL, PLACE]
    np.testing.assert_allclose(found.scores[:, 0], 1, atol=1e-6)


def test_an_image_and_a_text_add_up(towers):
    found = search(towers, image=features("image", ANIMAL), text=features("text", NIGHT))
    assert found.best[0, 0] == ANIMAL_AT_NIGHT
    assert found.scores[0, 0] == pytest.approx(1, abs=1e-6)
    assert search(
        towers,
        image=features("image", ANIMAL),
        text=features("text", NIGHT),
        image_weight=1.0,
        text_weight=0.0,
    ).best[0, 0] == ANIMAL


def test_a_negative_weight_takes_away(towers):
    found = search(
        towers,
        image=features("image", PLACE_AT_NIGHT),
        text=features("text", NIGHT),
        text_weight=-(0.5**0.5),
    )
    assert found.best[0, 0] == PLACE
    assert found.scores[0, 0] == pytest.approx(1, abs=1e-6)


def test_the_arithmetic_is_that_of_normalised_vectors():
    image, text = fakes.normal(4, 7, seed=0), fakes.normal(4, 7, seed=1)
    expected = unit(0.5 * image.astype(np.float64) - 2 * text.astype(np.float64))
    for scale in (1.0, 100.0):  # lengths do not count
        found = combine(image * scale, text, image_weight=0.5, text_weight=-2)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_images_without_features_are_not_found(towers):
    images = {"image_embed": unit(IMAGES)}
    images["image_embed"][[ANIMAL_AT_NIGHT, PLACE]] = np.nan
    query = {"image": features("image", ANIMAL), "text": features("text", NIGHT)}
    for part in (query, {"text": query["text"]}, {"image": query["image"]}):
        found = find_images(towers, images, top=5, **part)
        assert not {ANIMAL_AT_NIGHT, PLACE} & set(found.best[0].tolist())
        assert found.best[0, 3:].tolist() == [-1, -1] and np.isnan(found.scores[0, 3:]).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.0, 0.0), "one of them must not be 0"),
        ((float("nan"), 1.0), "must be finite"),
        ((1.0, float("inf")), "must be finite"),
    ],
)
def test_weights_that_make_no_query(weights, message):
    with pytest.raises(UsageError, match=message):
        check_weights(image_weight=weights[0], text_weight=weights[1])


def test_what_cancels_out_is_no_query(towers):
    with pytest.raises(UsageError, match="cancel out"):
        combine(TEXTS[:1], TEXTS[:1], image_weight=1, text_weight=-1)
    with pytest.raises(UsageError, match="nothing to search with"):
        search(towers)


def test_token_wise_models_take_one_part_only():
    tokens = np.stack([unit(IMAGES), unit(IMAGES[::-1])], 1)  # an image shows two things

    def of_images(variables, image):
        return {"image_tokens": jnp.asarray(tokens)[image[:, 0, 0, 0].astype(jnp.int32)]}

    def of_texts(variables, numbers):
        values = variables["text"][numbers[:, :1]]
        return {"text_tokens": values, "text_mask": jnp.ones(values.shape[:2], bool)}

    towers = fakes.towers(
        IMAGES, TEXTS, similarity=TOKEN_MAX, image_features=of_images, text_features=of_texts
    )
    images = towers.embed_images(fakes.Numbered(len(IMAGES)))
    text = towers.embed_texts(["number 2"])
    found = find_images(towers, images, text=text, top=5)
    expected = (tokens @ TEXTS[2]).max(1)  # the text's only token, and the best of the image's
    np.testing.assert_array_equal(found.best[0], np.argsort(-expected, kind="stable"))
    np.testing.assert_allclose(found.scores[0], np.sort(expected)[::-1], atol=1e-6)

    asked = {name: values[1:2] for name, values in images.items()}
    found = find_images(towers, images, image=asked, top=5)
    expected = np.einsum("pd,cqd->cpq", tokens[1], tokens).max(-1).mean(-1)
    np.testing.assert_allclose(found.scores[0], np.sort(expected)[::-1], atol=1e-6)
    with pytest.raises(UsageError, match="have no sum"):
        find_images(towers, images, image=asked, text=text, top=5)
