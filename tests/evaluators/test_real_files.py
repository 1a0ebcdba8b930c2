"""Photographs and captions as people have them, through the config, against brute force."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from every_mesh import Words
from fakes import towers

from configs import base, evaluators
from nlip_jax import build
from nlip_jax.data.images.transform import ImageTransform

WORDS = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)


def of_pixels(variables, image):
    """Sixteen mean colours, of length 1."""
    blocks = image.astype(jnp.float32).reshape(len(image), 4, 4, 4, 4, 3).mean((2, 4))
    flat = blocks.reshape(len(image), 48) - 128
    return {"image_embed": flat / jnp.linalg.norm(flat, axis=1, keepdims=True)}


def of_words(variables, tokens):
    """The sum of random vectors, of length 1."""
    total = jnp.sum(jnp.asarray(WORDS)[tokens] * (tokens > 0)[..., None], axis=1)
    return {"text_embed": total / jnp.linalg.norm(total, axis=1, keepdims=True)}


def measure(folder, kind, spec):
    """The evaluator of a spec, a model, and the outcome."""
    config = base.get_config()
    config.evaluators[kind].x = spec
    evaluator = build.make_evaluators(config, folder)[f"{kind}/x"]
    none = np.zeros((1, 1), np.float32)
    made = dataclasses.replace(
        towers(none, none, image_features=of_pixels, text_features=of_words),
        tokenizer=Words(),
        transform=ImageTransform(size=16),
    )
    return evaluator, made, evaluator.run(made)


def test_retrieval_of_coco_and_flickr8k(shared, tmp_path):
    for name, images in (("coco_mini", 79), ("flickr8k", 60)):
        block = base.tar_source()
        block.shards = str(shared / "data" / name / "val" / "*.tar")
        block.caption_key, block.num_images = "json:captions", images
        spec = evaluators.retrieval("tar", block)
        evaluator, made, outcome = measure(tmp_path / name, "retrieval", spec)
        image = made.embed_images(evaluator.source)["image_embed"]
        text = made.embed_captions(evaluator.source)["text_embed"]
        assert (len(image), len(text)) == (images, 5 * images)
        scores, owners = image @ text.T, np.arange(len(text)) // 5
        is_right = owners[None] == np.arange(images)[:, None]
        best = np.where(is_right, scores, -9).max(1, keepdims=True)
        # Captions of the same first words tie; a hair of rounding stands for the tie.
        rank = ((scores > best - 1e-6) & ~is_right).sum(1)
        for cut in (1, 5, 10):
            assert outcome.metrics[f"image_to_text/recall@{cut}"] == np.mean(rank < cut)
        shown = outcome.exhibits[0].queries[0]
        assert shown.query.image.ndim == 3 and len(shown.answers) == 5


def test_zero_shot_of_caltech101(shared, tmp_path):
    path = shared / "data" / "caltech101_test" / "caltech101_test.zip"
    spec = evaluators.zero_shot("zip", evaluators.zip_set(path=str(path)), prompts="caltech101")
    evaluator, _, outcome = measure(tmp_path, "zero_shot", spec)
    labelled = evaluator.labelled
    assert (len(labelled.labels), labelled.num_classes, len(labelled.templates)) == (505, 101, 34)
    assert outcome.headline == "mean_per_class"  # as CLIP's paper reports it
    classes, _ = outcome.exhibits
    assert (classes.counts == 5).all()
    assert outcome.metrics["mean_per_class"] == pytest.approx(np.mean(classes.accuracy))
