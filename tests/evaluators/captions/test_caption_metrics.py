"""BLEU, ROUGE-L and CIDEr-D against plain loops and against pycocoevalcap."""

import json
import random
import tarfile

import numpy as np
import plain_metrics
import pytest

from nlip_jax.evaluators.captions.bleu import bleu
from nlip_jax.evaluators.captions.cider import cider
from nlip_jax.evaluators.captions.ptb_tokenizer import tokenize
from nlip_jax.evaluators.captions.rouge import rouge_l
from nlip_jax.evaluators.captions.scored import Captioned


def drawn(seed: int, *, images: int = 30, vocabulary: int = 12) -> Captioned:
    """Random captions of few words, so that many n-grams occur; 1 to 5 references an image."""
    rng = random.Random(seed)

    def text(shortest: int) -> str:
        return " ".join(f"w{rng.randrange(vocabulary)}" for _ in range(rng.randint(shortest, 9)))

    references = [[text(1) for _ in range(rng.randint(1, 5))] for _ in range(images)]
    return Captioned([text(0) for _ in range(images)], references)


SMALL = {
    "one image": Captioned(["a b c d e"], [["a b c d", "c d e"]]),
    "the same": Captioned(["a b c", "d e f"], [["a b c"], ["d e f"]]),
    "nothing in common": Captioned(["a b", "c d"], [["e f g", "h"], ["i"]]),
    "empty captions": Captioned(["", "a", ""], [["a b", ""], [""], ["c d e f g"]]),
    "all empty": Captioned(["", ""], [["a b"], ["c"]]),
    "repeated words": Captioned(["a a a a a a", "b a"], [["a a", "a b a"], ["b"]]),
    "ties of length": Captioned(["a b c", "x y"], [["a b", "a b c d"], ["x y z", "x"]]),
    "no-break space": Captioned(["1\u00a01/2 a", "b"], [["1\u00a01/2 a b"], ["b c"]]),
}
CORPORA = SMALL | {f"drawn {seed}": drawn(seed) for seed in range(4)}


@pytest.mark.parametrize("name", CORPORA)
def test_equals_plain_loops(name):
    captioned = CORPORA[name]
    texts = captioned.produced, captioned.references
    values = bleu(captioned).values
    assert list(values) == ["bleu1", "bleu2", "bleu3", "bleu4"]
    np.testing.assert_allclose(list(values.values()), plain_metrics.bleu(*texts), atol=1e-12)
    for metric in (cider, rouge_l):
        found, expected = metric(captioned), getattr(plain_metrics, metric.__name__)(*texts)
        np.testing.assert_allclose(found.per_image[metric.__name__], expected, atol=1e-12)
        assert found.values[metric.__name__] == pytest.approx(np.mean(expected), abs=1e-12)


def theirs(captioned: Captioned) -> dict[str, np.ndarray | float]:
    """What pycocoevalcap says."""
    pytest.importorskip("pycocoevalcap.bleu.bleu")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    references = dict(enumerate(map(list, captioned.references)))
    produced = {i: [text] for i, text in enumerate(captioned.produced)}
    found = {"bleu": Bleu(4).compute_score(references, produced, verbose=0)[0]}
    for name, metric in (("cider", Cider()), ("rouge_l", Rouge())):
        found[name], found[f"{name}/images"] = metric.compute_score(references, produced)
    return found


def compare(captioned: Captioned) -> None:
    expected = theirs(captioned)
    values = bleu(captioned).values.values()
    np.testing.assert_allclose(list(values), expected["bleu"], atol=1e-9)
    for metric in (cider, rouge_l):
        name, found = metric.__name__, metric(captioned)
        assert found.values[name] == pytest.approx(expected[name], abs=1e-9)
        np.testing.assert_allclose(found.per_image[name], expected[f"{name}/images"], atol=1e-9)


@pytest.mark.parametrize("name", CORPORA)
def test_equals_pycocoevalcap(name):
    compare(CORPORA[name])


def test_real_captions_equal_pycocoevalcap(shared):
    """The first caption of each photograph against the others; of every third, another's."""
    captions = []
    with tarfile.open(shared / "data/flickr8k/val/00000.tar") as shard:
        for member in shard:
            if member.name.endswith(".json"):
                captions.append(json.load(shard.extractfile(member))["captions"])
    captions = [[tokenize(text) for text in texts] for texts in captions[:300]]
    produced = [captions[i if i % 3 else i - 1][0] for i in range(len(captions))]
    captioned = Captioned(produced, [texts[1:] for texts in captions])
    compare(captioned)
    assert 0.3 < cider(captioned).values["cider"] < 2
