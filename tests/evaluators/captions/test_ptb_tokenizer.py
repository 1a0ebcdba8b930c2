"""The tokenizer against the Java one of the COCO protocol, and without it on known answers."""

import json
import os
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from nlip_jax.evaluators.captions.ptb_tokenizer import tokenize

# What Java says, recorded from pycocoevalcap 1.2.
KNOWN = {
    "A man's dog can't sit; it won't, they'd say.": "a man 's dog ca n't sit it wo n't they 'd say",
    "You cannot. I'm gonna, 'tis all y'all's": "you can not i 'm gon na 't is all y' all 's",
    "rock 'n' roll, 5 o'clock in the '90s, O'Neil": "rock 'n' roll 5 o'clock in the '90s o'neil",
    'a "Life is good" t-shirt - red, and/or blue': "a life is good t-shirt red and/or blue",
    "(left) and [right] {both}": "-lrb- left -rrb- and -lsb- right -rsb- -lcb- both -rcb-",
    "U.S. flags at 10:30 a.m. in the U.S. He waves.": (
        "u.s. flags at 10:30 a.m. in the u.s. he waves"
    ),
    "Mr. J. Smith Jr. of St. Louis, etc.": "mr. j. smith jr. of st. louis etc.",
    "No. 5 and fig. 3, but no.": "no. 5 and fig. 3 but no",
    "$5.00 or £20, 50% off... 1,000 people!": "$ 5.00 or # 20 50 % off 1,000 people",
    "1 1/2 miles, ½ mile, 2nd and 4x4": "1\u00a01/2 miles 1/2 mile 2nd and 4x4",
    "AT&T and R&B, black&white &amp; so": "at&t and r&b black & white & so",
    "man\u2019s \u201cquoted\u201d \u2018word\u2019 \u2014 café": "man 's quoted word café",
    "www.a.com and foo.org/x, me@b.com @you #tag #1": (
        "www.a.com and foo.org / x me@b.com @you #tag # 1"
    ),
    "what?! really!! yes? \U0001f600 ok :)": "what ?! really !! yes ok :-rrb-",
    "l'eau, d'une, qu'il, c'est": "l'eau d'une qu'il c'est",
    "a  b\tc\nd": "a b c d",
    "": "",
    " . ": "",
}

# Contractions, abbreviations, quotes, dashes, money, numbers, brackets, addresses, other scripts.
NASTY = (Path(__file__).parent / "nasty_captions.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("caption", KNOWN)
def test_known(caption):
    assert tokenize(caption) == KNOWN[caption]


def flickr8k_and_coco(shared):
    folders = (
        *(shared / "data/flickr8k").glob("val/*.tar"),
        *shared.glob("data/coco_mini/*/*.tar"),
    )
    for path in sorted(folders):
        with tarfile.open(path) as shard:
            for member in shard:
                if member.name.endswith(".json"):
                    yield from json.load(shard.extractfile(member))["captions"]


def multi30k(shared, language):
    for path in sorted((shared / "data/multi30k_text").glob(f"*.{language}.txt")):
        yield from path.read_text(encoding="utf-8").splitlines()


def fuzzed(count: int) -> list[str]:
    """Random captions of words and signs that are hard to tell apart."""
    rng = random.Random(0)
    words = """
        a man dog's the U.S. he It's don't 5 10 1/2 3.5 $5 T-shirt well-known and/or AT&T Mr. No.
        etc. "Hi" 'yes' (red) [x] o'clock 'n' o' y'all cannot '90s 1980's 5'10" 10:30 a.m.
        foo.com @foo #bar : ; , . ! ? ... - -- & % / + = < > * _ ~ said: end. The café 50% ?! 's
    """
    return [" ".join(rng.choices(words.split(), k=rng.randint(1, 8))) for _ in range(count)]


@pytest.fixture(scope="module")
def java():
    """Captions -> what the protocol's own tokenizer makes of them; each call starts a JVM."""
    module = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("no java on the PATH")
    if not os.access(Path(module.__file__).parent, os.W_OK):
        pytest.skip("pycocoevalcap writes into its own folder, which cannot be written")
    # A neutral caption between any two: Java looks beyond the end of a line.
    between = "zz"

    def run(captions):
        asked = {i: [{"caption": c}, {"caption": between}] for i, c in enumerate(captions)}
        return [found[0] for found in module.PTBTokenizer().tokenize(asked).values()]

    return run


def different(captions, java):
    theirs = java(captions)
    return [(c, t, tokenize(c)) for c, t in zip(captions, theirs, strict=True) if tokenize(c) != t]


def test_real_captions_equal_java(shared, java):
    captions = [*flickr8k_and_coco(shared)]
    for language in ("en", "de", "fr", "cs"):
        captions += multi30k(shared, language)
    assert len(captions) > 5000 + 159 * 5 + 8000
    assert different(captions, java) == []


def test_nasty_captions_equal_java(java):
    assert len(NASTY) > 75
    assert different(NASTY, java) == []


def test_random_captions_equal_java(java):
    assert different(fuzzed(3000), java) == []
