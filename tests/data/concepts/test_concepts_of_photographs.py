"""Concepts mined from real captions, against objects that people marked in photographs."""

import json
import tarfile

import pytest

from nlip_jax.data.concepts import RuleTagger, folded_words, mine


@pytest.fixture(scope="module")
def mined(shared, tmp_path_factory):
    captions = []
    with tarfile.open(shared / "data" / "flickr8k" / "train" / "00000.tar") as tar:
        for member in tar:
            if member.name.endswith(".json"):
                captions += json.load(tar.extractfile(member))["captions"]
    assert len(captions) == 5000
    folder = tmp_path_factory.mktemp("mined") / "parts"
    return mine(
        captions,
        tagger=RuleTagger(max_words=3),
        min_count=5,
        min_share=4e-6,
        max_size=20_000,
        folder=folder,
    )


@pytest.fixture(scope="module")
def objects(shared):
    """Visual Genome's objects, as people name them and in the singular."""
    lines = (shared / "data" / "vocab" / "visual_genome_objects.txt").read_text().splitlines()
    names = {name for line in lines for name in line.split(",")}
    return names | {" ".join(folded_words(name)) for name in names}


@pytest.mark.parametrize(("size", "share"), [(40, 0.95), (100, 0.9), (200, 0.8)])
def test_frequent_nouns_are_objects(mined, objects, size, share):
    nouns = [item.text for item in mined.concepts if " " not in item.text][:size]
    assert sum(noun in objects for noun in nouns) / size >= share


def test_the_most_frequent_are_what_the_captions_are_about(mined):
    first = [item.text for item in mined.concepts[:8]]
    assert {"dog", "man", "person", "boy", "girl", "woman", "water"} <= set(first)
    words = {item.text for item in mined.concepts}
    assert {"brown dog", "young girl", "soccer ball", "hat", "t-shirt"} <= words
    assert not {"a", "in", "be", "red", "run", "standing", "white", "front", "group"} & words


def test_phrases_end_in_nouns_that_are_there_too(mined):
    words = {item.text for item in mined.concepts}
    phrases = [item for item in mined.concepts if " " in item.text]
    alone = [item for item in phrases if item.text.split()[-1] not in words]
    assert len(alone) <= 0.05 * len(phrases)  # hot dog, ice cream
