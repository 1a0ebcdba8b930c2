"""Captioned sets of a config: languages, prompts, judgements, pair choice, and what is wrong."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import base, evaluators
from nlip_jax import build
from nlip_jax.build.sources import indexed_sets
from nlip_jax.data.sources.prompted import Prompt
from nlip_jax.errors import UsageError


def made(folder, similarity="dot", **sets):
    """The evaluators of a config; sets are named KIND__SET."""
    config = base.get_config()
    config.evaluators = ConfigDict()
    for name, spec in sets.items():
        kind, _, set_name = name.partition("__")
        config.evaluators[kind] = ConfigDict({set_name: spec})
    return build.make_evaluators(config, folder, similarity=similarity)


def write_images(folder, count):
    for number in range(count):
        pixels = np.full((4, 4, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def lines(folder, **texts):
    write_images(folder, 3)
    (folder / "images.txt").write_text("0.png\n1.png\n2.png\n")
    for language, text in texts.items():
        (folder / f"test.{language}").write_text(text)
    block = base.lines_source()
    block.shards = f"{folder}/test.{{language}}"
    block.images = f"{folder}/images.txt"
    spec = evaluators.retrieval("lines", block)
    spec.languages = tuple(texts)
    return spec


def folder_of(folder, document, **fields):
    (folder / "captions.json").write_text(json.dumps(document))
    block = base.folder_source()
    block.update({"shards": f"{folder}/captions.json", **fields})
    return block


def test_languages_line_by_line(tmp_path):
    spec = lines(tmp_path, en="number 0\nnumber 1\nnumber 2\n", de="Nummer 0\nNummer 1\nNummer 2")
    evaluator = made(tmp_path, retrieval__multi30k=spec)["retrieval/multi30k"]
    assert list(evaluator.languages) == ["en", "de"]
    german = evaluator.languages["de"]
    assert german.source.caption(1) == "Nummer 1"
    assert german.owners.tolist() == [0, 1, 2]
    assert evaluator.source.num_images == 3
    assert (evaluator.image_to_text, evaluator.examples) == (Prompt(), 6)


def test_languages_have_indices_of_their_own(tmp_path):
    config = base.get_config()
    config.evaluators = ConfigDict()
    config.evaluators.retrieval = ConfigDict({"m": lines(tmp_path, en="a\nb\nc", de="d\ne\nf")})
    found = indexed_sets(config, tmp_path)
    names = {"retrieval-m-en": "test.en", "retrieval-m-de": "test.de"}
    assert {p.name: s.shards[0].rpartition("/")[2] for p, s in found.items()} == names
    build.make_evaluators(config, tmp_path)
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == sorted(names)


def test_languages_of_records(tmp_path):
    write_images(tmp_path, 2)
    # The records of one language may stand in another order in the file of another.
    for language, order in (("en", [0, 1]), ("de", [1, 0])):
        records = [{"file": f"{i}.png", "caption": [f"{language} {i}"] * 2} for i in order]
        (tmp_path / f"{language}.json").write_text(json.dumps(records))
    block = base.folder_source()
    block.shards = f"{tmp_path}/{{language}}.json"
    spec = evaluators.retrieval("folder", block)
    spec.languages = ("en", "de")
    evaluator = made(tmp_path, retrieval__xm=spec)["retrieval/xm"]
    german = evaluator.languages["de"]
    assert [german.source.caption(i) for i in range(4)] == ["de 1", "de 1", "de 0", "de 0"]
    assert german.owners.tolist() == [1, 1, 0, 0]


def test_crossmodal_3600(tmp_path):
    for key in "abc":
        (tmp_path / f"{key}.jpg").write_bytes(b"")
    records = [
        {"image/key": key, "fr": {"caption": [f"{key} fr"]}, "quz": {"caption": [f"{key} quz"] * 2}}
        for key in "abc"
    ]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, records)))
    block = base.folder_source()
    block.update({"shards": f"{tmp_path}/captions.jsonl", "language": "{language}"})
    spec = evaluators.retrieval("folder", block)
    spec.languages = ("fr", "quz")
    evaluator = made(tmp_path, retrieval__xm3600=spec)["retrieval/xm3600"]
    assert evaluator.languages["fr"].owners.tolist() == [0, 1, 2]
    assert evaluator.languages["quz"].owners.tolist() == [0, 0, 1, 1, 2, 2]


def test_multi30k(shared, tmp_path):
    """The texts in four languages as they are given out; the pictures are not there."""
    (tmp_path / "images.txt").write_text("".join(f"{i}.jpg\n" for i in range(1000)))
    block = base.lines_source()
    block.shards = str(shared / "data" / "multi30k_text" / "test_2016_flickr.{language}.txt")
    block.images = f"{tmp_path}/images.txt"
    spec = evaluators.retrieval("lines", block)
    spec.languages = ("en", "de", "fr", "cs")
    evaluator = made(tmp_path, retrieval__multi30k=spec)["retrieval/multi30k"]
    for language, captions in evaluator.languages.items():
        assert captions.owners.tolist() == list(range(1000)), language
    assert evaluator.languages["fr"].source.caption(0).startswith("Un homme avec un chapeau")


def spoil(spec, **fields):
    spec.update(fields)
    return spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: spoil(s, languages=("en", "")), r"\('en', ''\): list names, as \('en', 'de'\)"),
        (lambda s: spoil(s, languages=("en", "en")), r"\('en', 'en'\): name each once"),
        (lambda s: spoil(s, languages=("en", "fr")), r"no shard matches '.*test\.fr'"),
        (
            lambda s: spoil(s, lines={"shards": s.lines.shards.replace("{language}", "en")}),
            r"write \{language\} where config\.evaluators\.retrieval\.m\.lines differs",
        ),
    ],
)
def test_languages_that_are_none(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        made(tmp_path, retrieval__m=change(lines(tmp_path, en="a\nb\nc", de="d\ne\nf")))


@pytest.mark.parametrize(
    ("german", "message"),
    [
        ("d\ne", r"test\.de has 2 lines, and .*images\.txt names 3 images"),
        (
            "d\n\nf",
            r"m\.languages: de has captions of 2 images, en of 3, and 1 are in one of them alone, "
            r"such as '1\.png': all languages need the same images",
        ),
    ],
)
def test_languages_of_other_images(tmp_path, german, message):
    with pytest.raises(UsageError, match=message):
        made(tmp_path, retrieval__m=lines(tmp_path, en="a\nb\nc", de=german))


def test_captions_of_unknown_images(tmp_path):
    document = {
        "images": [{"id": 1, "file_name": "0.png"}],
        "annotations": [{"image_id": i, "caption": "x"} for i in (1, 2, 3)],
    }
    spec = evaluators.retrieval("folder", folder_of(tmp_path, document))
    with pytest.raises(UsageError, match=r"retrieval\.coco: 2 captions name an image that is not"):
        made(tmp_path, retrieval__coco=spec)


def test_images_without_captions_are_told(tmp_path, caplog):
    spec = evaluators.geometry("folder", folder_of(tmp_path, {"0.png": "a", "1.png": [], "2": "b"}))
    evaluator = made(tmp_path, geometry__set=spec)["geometry/set"]
    assert evaluator.source.num_images == 2
    assert "1 images have no caption that can be read and take no part" in caplog.text


def test_prompts_of_each_way(tmp_path):
    spec = evaluators.retrieval("folder", folder_of(tmp_path, {"0.png": "a"}))
    spec.image_to_text.update({"prefix": "a good photo of", "suffix": "It is ugly."})
    evaluator = made(tmp_path, retrieval__set=spec)["retrieval/set"]
    assert evaluator.image_to_text("a dog.") == "a good photo of a dog. It is ugly."
    assert evaluator.text_to_image == Prompt()


def test_pair_choice(tmp_path):
    write_images(tmp_path, 2)
    record = {"images": ["0", "1"], "captions": ["a", "b"], "right": [0, 1]}
    (tmp_path / "a.json").write_text(json.dumps([record]))
    spec = evaluators.pair_choice(f"{tmp_path}/*.json")
    spec.extension = ".png"
    evaluator = made(tmp_path, pair_choice__set=spec)["pair_choice/set"]
    assert len(evaluator.choices.records) == 1
    assert evaluator.source.num_images == 2
    with pytest.raises(UsageError, match=r"config\.evaluators\.pair_choice\.set\.files is empty"):
        made(tmp_path, pair_choice__set=evaluators.pair_choice())


def test_judgement(tmp_path):
    write_images(tmp_path, 2)
    images = [
        {"filename": f"{i}.png", "split": "test", "sentences": [{"raw": "x", "sentid": i}]}
        for i in range(2)
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    (tmp_path / "sis.csv").write_text("image1,image2,agg_score\n0.png,1.png,2.5\n")
    spec = evaluators.judgement(f"{tmp_path}/dataset.json", sis=f"{tmp_path}/sis.csv")
    evaluator = made(tmp_path, judgement__cxc=spec)["judgement/cxc"]
    assert evaluator.judgements["sis"].ratings.tolist() == [2.5]
    assert (evaluator.rounds, evaluator.retrieval) == (1000, True)
    without = {"captions": evaluators.judgement(sis="x"), "ratings": evaluators.judgement("x")}
    for missing, other in without.items():
        with pytest.raises(UsageError, match=rf"judgement\.cxc\.{missing} is empty"):
            made(tmp_path, judgement__cxc=other)


@pytest.mark.parametrize("kind", ["judgement", "geometry"])
def test_pooled_embeddings_that_nobody_trained(tmp_path, kind):
    spec = {
        "judgement": evaluators.judgement("x", sis="y"),
        "geometry": evaluators.geometry("synthetic", base.synthetic_source()),
    }[kind]
    with pytest.raises(UsageError, match=r"compares pooled embeddings, .*'token_max' trains none"):
        made(tmp_path, similarity="token_max", **{f"{kind}__set": spec})


def test_geometry_of_one_image(tmp_path):
    spec = evaluators.geometry("folder", folder_of(tmp_path, {"0.png": ["a", "b"]}))
    with pytest.raises(UsageError, match=r"geometry\.set: has one image, geometry needs two"):
        made(tmp_path, geometry__set=spec)


@pytest.mark.parametrize("kind", ["retrieval", "geometry", "caption"])
def test_one_caption_of_several_is_not_the_set(tmp_path, kind):
    write_images(tmp_path, 2)
    records = [{"file": f"{i}.png", "captions": ["a", "b"]} for i in range(2)]
    block = folder_of(tmp_path, records, captions="sample")
    fields = {"predictions": "x.json"} if kind == "caption" else {}
    with pytest.raises(UsageError, match=rf"evaluators\.{kind}\.x: .*set captions='expand'"):
        made(tmp_path, **{f"{kind}__x": getattr(evaluators, kind)("folder", block, **fields)})


def test_a_set_that_is_not_there_is_named(tmp_path):
    block = base.tar_source()
    block.shards = str(tmp_path / "none" / "*.tar")
    with pytest.raises(UsageError, match=r"config\.evaluators\.retrieval\.x: .*none"):
        made(tmp_path, retrieval__x=evaluators.retrieval("tar", block))


def test_a_name_with_a_slash_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"retrieval\.a/b: .*KIND/SET/METRIC"):
        made(tmp_path, **{"retrieval__a/b": evaluators.retrieval("tar", base.tar_source())})
