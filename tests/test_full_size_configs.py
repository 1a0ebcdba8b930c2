"""The configs at the paper's size: every number says where it comes from, and they build."""

import ast
import json
import math
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
import tiny

from configs import nlip_vitb16_yfcc26m, nlip_vitb32_yfcc26m
from nlip_jax import build
from nlip_jax.build.texts import Texts
from nlip_jax.commands.ranges import check_numbers
from nlip_jax.commands.session import batch_shapes
from nlip_jax.config import changed_fields, to_json
from nlip_jax.data.concepts.vocabulary import ConceptVocabulary

FILES = (nlip_vitb16_yfcc26m, nlip_vitb32_yfcc26m)
LABELS = ("published", "restated", "remembered", "default")
# What is no number: which method and which files.
UNLABELLED = ("c.method", "c.data.source", "c.data.array_record.shards", "c.evaluators")


def fields(path: Path):
    """(dotted name, what is written above and behind it) of each field that a config sets."""
    text = path.read_text()
    lines = text.splitlines()
    function = next(f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef))
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            name = ast.unparse(node.targets[0])
        elif isinstance(node, ast.Expr) and ast.unparse(node).endswith(")"):
            name = ast.unparse(node.value.func).removesuffix(".update")
        else:
            continue
        if not name.startswith("c."):
            continue
        first = node.lineno - 1
        while lines[first - 1].strip().startswith("# "):
            first -= 1
        yield name, "\n".join(lines[first : node.end_lineno])


def test_every_number_says_where_it_comes_from():
    found = dict(fields(Path(nlip_vitb16_yfcc26m.__file__)))
    assert len(found) > 40
    for name, text in found.items():
        if not name.startswith(UNLABELLED) and name != "c.model.decoder":  # with c.model.text
            assert any(label in text for label in LABELS), name
    for label in LABELS:
        assert f"\n  {label} " in nlip_vitb16_yfcc26m.__doc__


def test_the_numbers_are_those_of_the_papers():
    c = nlip_vitb16_yfcc26m.get_config()
    assert (c.total, c.batch_size, c.optimizer.name) == ("50 epochs", 6144, "lamb")
    assert c.optimizer.learning_rate == pytest.approx(3e-3 * math.sqrt(12))
    assert (c.model.image.patch_size, c.model.image.width, c.model.image.depth) == (16, 768, 12)
    assert c.batch_size % c.loss.token_group == 0
    small = nlip_vitb32_yfcc26m.get_config("data/yfcc")
    changes = changed_fields(*(json.loads(to_json(one)) for one in (c, small)))
    assert changes == {
        "model.image.patch_size": (16, 32),
        "data.array_record.shards": ("data/yfcc26m/*", "data/yfcc/*"),
    }


@pytest.mark.parametrize("file", FILES)
def test_what_they_hold_is_valid(file):
    c = file.get_config("data/yfcc26m,sets=data/sets")
    check_numbers(c)
    assert len(c.evaluators.zero_shot) == 12
    with pytest.raises(ValueError, match="FOLDER"):
        file.get_config("a,size=3")


class Words:
    """A tokenizer of one word."""

    special_ids: ClassVar = {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4}
    fingerprint = "0"

    def pieces(self, text):
        return [7]

    def encode_batch(self, texts):
        return np.full((len(texts), 77), 7, np.int32)


@pytest.mark.parametrize("file", FILES)
def test_they_build(file):
    c = file.get_config()
    mesh = tiny.mesh_of(8)
    clock = build.make_clock(c, num_examples=26_000_000)
    model = build.make_model(c, vocab_size=c.tokenizer.vocab_size, mesh=mesh)
    words = ConceptVocabulary(("circle",), np.full((1, 6), 7, np.int32), "0")
    texts = Texts(tokenizer=Words(), concepts=words)
    method = build.make_method(c, model=model, mesh=mesh, clock=clock, texts=texts)
    build.make_tx(c, schedule=build.make_learning_rate(c, clock=clock))
    rows = batch_shapes(c, method)
    params, _ = jax.eval_shape(method.init_model, jax.random.key(0), rows)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert 200e6 < count < 300e6
    assert len(method.refresh_steps) >= 1
