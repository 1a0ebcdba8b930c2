"""Class names and templates that are shipped, and how they meet the folders of data sets."""

import json
from pathlib import Path

import numpy as np
import pytest

from nlip_jax.errors import UsageError
from nlip_jax.evaluators import prompts
from nlip_jax.evaluators.prompts.entries import check_templates, read_prompts, shipped
from nlip_jax.evaluators.prompts.matching import (
    OwnClass,
    match_names,
    match_order,
    normalise,
)

FOLDER = Path(prompts.__file__).parent
# Classes, templates of CLIP, templates of FILIP (0 where the paper has none), metric. The first two
# as in the tables of the papers; ProtoCLIP drops 9 classes of Birdsnap.
PUBLISHED = {
    "aircraft": (100, 2, 60, "mean_per_class"),
    "birdsnap": (491, 1, 0, "top1"),
    "caltech101": (102, 34, 20, "mean_per_class"),
    "cars": (196, 8, 48, "top1"),
    "cifar10": (10, 18, 42, "top1"),
    "cifar100": (100, 18, 42, "top1"),
    "country211": (211, 5, 0, "top1"),
    "dtd": (47, 8, 30, "top1"),
    "eurosat": (10, 3, 40, "top1"),
    "flowers102": (102, 1, 18, "mean_per_class"),
    "food101": (101, 1, 42, "top1"),
    "gtsrb": (43, 3, 0, "top1"),
    "imagenet": (1000, 80, 30, "top1"),
    "pets": (37, 1, 30, "mean_per_class"),
    "stl10": (10, 2, 0, "top1"),
    "sun397": (397, 2, 48, "top1"),
    "ucf101": (101, 48, 0, "top1"),
}


def classes(*folders, count=1):
    return [OwnClass(folder=folder, name=folder, count=count) for folder in folders]


def some_prompts(tmp_path, **fields):
    path = tmp_path / "some.json"
    path.write_text(json.dumps({"classnames": ["sea lion", "cat"], **fields}))
    return read_prompts(str(path))


def test_all_are_shipped():
    assert shipped() == tuple(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    found = read_prompts(name)
    sizes = len(found.class_names), len(found.templates), len(found.filip_templates)
    assert (*sizes, found.metric) == PUBLISHED[name]
    for templates in (found.templates, found.filip_templates):
        assert len(set(templates)) == len(templates)
        assert all(template.count("{}") == 1 for template in templates)
    document = json.loads((FOLDER / f"{name}.json").read_text())
    assert document["source"] and document["licence"].startswith("MIT")
    assert "filip_templates" not in document or "arXiv:2111.07783" in document["filip_source"]
    assert (FOLDER / document["licence"].partition("see ")[2]).read_text().startswith("MIT")


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_folders_find_themselves(name):
    found = read_prompts(name)
    places = np.arange(len(found.class_names))
    kinds = [found.class_names, found.folders] if found.folders else [found.class_names]
    for names in kinds:
        assert match_names(classes(*names), found).places.tolist() == places.tolist()
        if name == "imagenet" and names is found.class_names:
            continue  # "missile" and "sunglasses" twice
        shuffled = np.random.default_rng(0).permutation(len(names))
        matching = match_names(classes(*(names[i].upper() for i in shuffled)), found)
        assert matching.places.tolist() == shuffled.tolist()
        assert matching.class_names == found.class_names


def test_the_files_they_were_made_from(shared):
    folder = shared / "data" / "prompts"
    names = json.loads((folder / "clip_benchmark_en_classnames.json").read_text())
    templates = folder / "clip_benchmark_en_zeroshot_classification_templates.json"
    templates = json.loads(templates.read_text())
    theirs = {"flowers102": "flowers", "aircraft": "fgvc_aircraft", "imagenet": "imagenet1k"}
    for mine in PUBLISHED:
        found, name = read_prompts(mine), theirs.get(mine, mine)
        if name in names:
            assert sorted(map(normalise, found.class_names)) == sorted(map(normalise, names[name]))
        if name in templates:
            assert list(found.templates) == [t.replace("{c}", "{}") for t in templates[name]]
    text = (folder / "openai_clip_prompts.md").read_text()
    for mine in PUBLISHED.keys() - {"imagenet"}:
        for name in read_prompts(mine).class_names:
            assert repr(name) in text or json.dumps(name) in text


def test_filip_fills_all_combinations():
    found = read_prompts("pets").filip_templates
    assert found[0] == "a photo of my {}, a type of pet."
    assert found[-1] == "a good photo of my {}, a type of dog or cat. It's beautiful."
    found = read_prompts("imagenet").filip_templates
    assert "itap of a {}. It's not common in daily life." in found


def test_separators_and_case_do_not_matter():
    assert normalise("Apply_Eye-Makeup") == normalise("ApplyEyeMakeup") == "applyeyemakeup"
    assert normalise("F/A-18") == normalise("f_a 18")


def test_a_file_of_ones_own(tmp_path):
    found = some_prompts(tmp_path, folders=["n1", "n2"], templates=["a {c}", "{}"])
    assert found.templates == ("a {}", "{}") and found.metric == "top1"
    matching = match_names(classes("N2", "sea_lion"), found)
    assert matching.places.tolist() == [1, 0]


def test_optional_classes_and_empty_folders(tmp_path):
    found = some_prompts(tmp_path, optional=["sea lion"])
    matching = match_names([*classes("cat"), *classes("unused", count=0)], found)
    assert matching.class_names == ("cat",)
    assert matching.places.tolist() == [0, -1]
    assert match_order(classes("x"), found).class_names == ("cat",)


def test_folders_that_do_not_match(tmp_path):
    found = some_prompts(tmp_path)
    with pytest.raises(
        UsageError,
        match=r"1 folder without a class name \(dog\) and 1 class name without a folder \(cat\); "
        "rename the folders, or write a JSON file",
    ):
        match_names(classes("dog", "sea-lion"), found)
    with pytest.raises(UsageError, match=r"6 folders without a class name \(0, 1, 2, 3, 2 more\)"):
        match_names(classes("cat", "sea lion", *map(str, range(6))), found)
    with pytest.raises(UsageError, match=r"'sea lion' and 'Sea_Lion' both mean 'sea lion'"):
        match_names(classes("sea lion", "Sea_Lion", "cat"), found)
    ambiguous = some_prompts(tmp_path, folders=["cat", "tiger"])
    with pytest.raises(UsageError, match=r"'cat' may be 'sea lion' and 'cat' of prompts"):
        match_names(classes("cat"), ambiguous)
    with pytest.raises(UsageError, match=r"needs as many classes .* the set has 3, .* has 2;"):
        match_order(classes("a", "b", "c"), found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", 'no "classnames"'),
        ('{"classnames": []}', 'no "classnames"'),
        ('{"classnames": ["a", 1]}', '"classnames" must be a list of texts'),
        ('{"classnames": ["a", " "]}', "none blank"),
        ('{"classnames": "a"}', '"classnames" must be a list'),
        ('{"classnames": ["a"], "folders": ["a", "b"]}', '2 "folders" and 1 "classnames"'),
        ('{"classnames": ["a"], "templates": ["a photo"]}', "'a photo' needs {} or {c}"),
        ('{"classnames": ["a"], "metric": "f1"}', "metric='f1': choose one of top1"),
        ("{", "is no JSON"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, words):
    path = tmp_path / "names.json"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        read_prompts(str(path))
    assert words in str(raised.value) and str(path) in str(raised.value)


def test_files_that_are_not_there():
    with pytest.raises(UsageError, match=r"'cifar': choose one of aircraft, .*, ucf101, or name"):
        read_prompts("cifar")
    with pytest.raises(UsageError, match=r"/no/names\.json' cannot be read \(No such file"):
        read_prompts("/no/names.json")


def test_templates():
    assert check_templates(["a {c}", "{} here"]) == ("a {}", "{} here")
    with pytest.raises(UsageError, match="'a photo' needs"):
        check_templates(["a {}", "a photo"])
