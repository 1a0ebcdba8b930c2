"""Fingerprints of evaluation sets: what is looked at counts, and not how it is asked about."""

import dataclasses
import types

import numpy as np

from nlip_jax.commands.evaluation.example_sets import fingerprint
from nlip_jax.data.labelled import LabelledSet


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    image: int
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    texts: tuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asks:
    source: object
    labelled: LabelledSet
    questions: tuple = ()
    shots: tuple = (1, 2)
    probe: object = None
    ensemble: str = "embeddings"
    top: int = 5
    fit: object = None


SOURCE = types.SimpleNamespace(fingerprint="abc", num_images=3)


def labelled(labels=(0, 1, 1), templates=("a {}",), names=("cat", "dog")) -> LabelledSet:
    return LabelledSet(
        source=SOURCE, labels=np.array(labels, np.int32), class_names=names, templates=templates
    )


def asks(**fields) -> Asks:
    return Asks(**({"source": SOURCE, "labelled": labelled()} | fields))


def test_settings_and_prompts_do_not_count():
    same = fingerprint(asks())
    assert fingerprint(asks(ensemble="none", top=1, shots=(4,), fit=print)) == same
    assert fingerprint(asks(probe=Question(image=3, text="settings of a probe"))) == same
    other = labelled(templates=("the {}",), names=("cats", "dogs"))
    assert fingerprint(asks(labelled=other)) == same


def test_examples_their_order_and_their_labels_do():
    others = (
        asks(labelled=labelled(labels=(1, 0, 1))),
        asks(source=types.SimpleNamespace(fingerprint="abd")),
        asks(questions=(Question(image=0, text="a"),)),
        asks(questions=(Question(image=0, text="b"),)),
        asks(questions=(Question(image=1, text="b"),)),
        asks(questions=({"a": np.arange(2)},)),
        asks(probe=types.SimpleNamespace(fingerprint="another source")),
        asks(probe=Pairs(texts=("a", "b"))),
        asks(probe=Pairs(texts=("b", "a"))),
    )
    found = [fingerprint(asks()), *map(fingerprint, others)]
    assert len(set(found)) == len(found)
    assert all(len(name) == 16 for name in found)


def test_one_that_knows_its_own():
    assert fingerprint(types.SimpleNamespace(fingerprint="own", x=1)) == "own"
    plain = [fingerprint(types.SimpleNamespace(pairs=np.array(x), top=1)) for x in ((1, 2), (2, 1))]
    assert plain[0] != plain[1]
