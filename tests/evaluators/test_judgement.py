"""Judgements: Spearman against SciPy, the bootstrap, Crisscrossed Captions' files and positives."""

import json

import numpy as np
import pytest
from fakes import towers as looked_up
from PIL import Image
from scipy import stats

from nlip_jax.data.judged import read_items, read_judgements
from nlip_jax.data.storage import Storage
from nlip_jax.errors import RunError, UsageError
from nlip_jax.evaluators.correlation import average_ranks, bootstrap_spearman, spearman
from nlip_jax.evaluators.judgement import Judgement

IMAGES, EACH = 7, 3  # images, captions of each
RNG = np.random.default_rng(0)


# --- rank correlation -----------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_spearman_is_scipys(levels):
    """Few levels: many ties."""
    x = RNG.integers(0, levels, 300) / 7
    y = x + RNG.normal(size=300).round(1)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    np.testing.assert_array_equal(average_ranks(y), stats.rankdata(y))


def test_no_correlation_with_a_constant():
    assert np.isnan(spearman(np.ones(5), np.arange(5)))


def test_the_bootstrap_draws_half_of_the_queries_and_one_pair_of_each():
    queries = RNG.integers(0, 21, 200) * 3
    x, y = RNG.integers(0, 6, 200).astype(float), RNG.normal(size=200)
    found = bootstrap_spearman(x, y, queries, rounds=50, seed=1)
    rng, expected = np.random.default_rng(1), []
    names = np.unique(queries)
    for _ in range(50):
        drawn = names[rng.permutation(len(names))[: len(names) // 2]]
        of_each = [np.flatnonzero(queries == name) for name in drawn]
        places = rng.random(len(drawn))
        sample = [rows[int(p * len(rows))] for rows, p in zip(of_each, places, strict=True)]
        expected.append(stats.spearmanr(x[sample], y[sample]).statistic)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    again = bootstrap_spearman(x, y, queries, rounds=50, seed=1)
    np.testing.assert_array_equal(found, again)


def test_perfect_agreement_has_no_spread():
    x = RNG.permutation(60).astype(float)
    found = bootstrap_spearman(x, np.exp(x / 60), np.arange(60) // 3, rounds=20, seed=0)
    np.testing.assert_allclose(found, 1)


# --- files ----------------------------------------------------------------------------------------


def write_items(folder, images=IMAGES):
    """Karpathy's JSON: caption 100 + i; caption i and image i say their numbers."""
    records = []
    for image in range(images):
        name = f"COCO_val2014_{image:012d}.jpg"
        (folder / "val2014").mkdir(exist_ok=True)
        pixels = np.full((4, 4, 3), image, np.uint8)
        Image.fromarray(pixels).save(folder / "val2014" / name, format="PNG")
        sentences = [
            {"raw": f"number {i}", "sentid": 100 + i}
            for i in range(EACH * image, EACH * (image + 1))
        ]
        records.append(
            {
                "filename": name,
                "filepath": "val2014",
                "split": "test",
                "sentids": [s["sentid"] for s in sentences],
                "sentences": sentences,
            }
        )
    records.append({"filename": "train.jpg", "split": "train", "sentences": []})
    path = folder / "dataset.json"
    path.write_text(json.dumps({"images": records, "dataset": "coco"}))
    return str(path)


def image_name(i):
    return f"COCO_val2014_{i:012d}.jpg"


def caption_name(i):
    return f"COCO_val2014:sentid:{100 + i}"


NAMES = {"image": image_name, "caption": caption_name}
HEADERS = {
    "sits": "caption,image,agg_score,sampling_method",
    "sts": "caption1,caption2,agg_score,sampling_method",
    "sis": "image1,image2,agg_score,sampling_method",
}
KINDS = {
    "sits": ("caption", "image"),
    "sts": ("caption", "caption"),
    "sis": ("image", "image"),
}


def write_ratings(folder, name, rows):
    one, other = (NAMES[kind] for kind in KINDS[name])
    lines = [f"{one(a)},{other(b)},{rating},any" for a, b, rating in rows]
    path = folder / f"{name}.csv"
    path.write_text("\n".join([HEADERS[name], *lines, ""]))
    return str(path)


def items_in(folder):
    return read_items(write_items(folder), root="", splits=("test",), storage=Storage())


def test_crisscrossed_captions_files(tmp_path):
    items = items_in(tmp_path)
    assert items.source.num_images == IMAGES
    assert len(items.source) == IMAGES * EACH
    assert items.source.captions[4] == "number 4"
    assert items.source.owners.tolist() == [i for i in range(IMAGES) for _ in range(EACH)]
    path = write_ratings(tmp_path, "sits", [(4, 2, 2.2), (0, 0, 5.0)])
    judged = read_judgements(path, items, storage=Storage())
    assert judged.kinds == ("caption", "image")
    assert judged.pairs.tolist() == [[4, 2], [0, 0]]
    assert judged.ratings.tolist() == [2.2, 5.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("caption,image,agg_score\nCOCO:sentid:1,x.jpg,2", "rates 2 items that .*'COCO:sentid:1'"),
        (f"caption,image,s\n{caption_name(0)},{image_name(0)},high", "csv:2: the third column"),
        (f"caption,image,s\n{caption_name(0)},{image_name(0)},nan", "csv:2: the rating nan"),
        (f"caption,image,s\n{caption_name(0)}", "csv:2: the third column is no rating"),
        ("a,b,c\n1,2,3", "its header is 'a,b,c', and must begin with two columns called image"),
        ("caption,image,score\n", "has no ratings"),
        ("", "its header is ''"),
    ],
)
def test_ratings_that_are_none(tmp_path, text, message):
    items = items_in(tmp_path)
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_judgements(str(path), items, storage=Storage())


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("[]", "judgements need Karpathy's JSON"),
        ('{"images": [{"filename": "a.jpg", "split": "test"}]}', "KeyError: 'sentences'"),
        ('{"images": []}', "has no images with captions of splits=\\('test',\\)"),
        ("{", "judgements need Karpathy's JSON"),
        (
            '{"images": [{"filename": "a.jpg", "split": "test",'
            ' "sentences": [{"raw": "x", "sentid": 1}]}]}',
            "1 of 1 images that .* names are not there, such as .*a.jpg",
        ),
    ],
)
def test_captions_that_are_none(tmp_path, document, message):
    path = tmp_path / "dataset.json"
    path.write_text(document)
    with pytest.raises(UsageError, match=message):
        read_items(str(path), root="", splits=("test",), storage=Storage())
    with pytest.raises(UsageError, match=r"nowhere.json cannot be read"):
        read_items(f"{tmp_path}/nowhere.json", root="", splits=(), storage=Storage())


# --- the evaluator --------------------------------------------------------------------------------


def everything(folder, rows, **fields):
    items = items_in(folder)
    judged = {
        name: read_judgements(write_ratings(folder, name, some), items, storage=Storage())
        for name, some in rows.items()
    }
    return Judgement(items=items, judgements=judged, **({"rounds": 30} | fields))


def all_pairs(count, other, rating):
    return [(a, b, rating(a, b)) for a in range(count) for b in range(other)]


def embeddings(seed=0):
    rng = np.random.default_rng(seed)
    image, text = rng.normal(size=(IMAGES, 5)), rng.normal(size=(IMAGES * EACH, 5))
    text += np.repeat(image, EACH, axis=0)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text)]
    return [x.astype(np.float32) for x in unit]


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_a_model_that_thinks_as_people_do(tmp_path, devices):
    image, text = embeddings()
    image64, text64 = image.astype(float), text.astype(float)
    rows = {
        "sits": all_pairs(21, 7, lambda a, b: 2 + 2 * text64[a] @ image64[b]),
        "sts": all_pairs(21, 21, lambda a, b: 2 + 2 * text64[a] @ text64[b]),
        "sis": all_pairs(7, 7, lambda a, b: -(image64[a] @ image64[b])),
    }
    rows = {name: [one for one in some if one[0] != one[1]] for name, some in rows.items()}
    metrics = everything(tmp_path, rows).run(looked_up(image, text, devices=devices)).metrics
    assert metrics["sits/spearman"] == pytest.approx(1)
    assert metrics["sts/spearman"] == pytest.approx(1)
    assert metrics["sis/spearman"] == pytest.approx(-1)  # people say the opposite
    assert metrics["sts/spearman_std"] == pytest.approx(0, abs=1e-9)
    assert metrics["mean_spearman"] == pytest.approx(1 / 3)


def test_a_model_to_which_all_is_alike_agrees_with_nobody(tmp_path):
    evaluator = everything(tmp_path, {"sis": all_pairs(7, 7, lambda a, b: a - b)})
    flat = np.full((21, 5), 0.5, np.float32)
    metrics = evaluator.run(looked_up(flat[:7], flat)).metrics
    assert metrics["sis/spearman"] == metrics["sis/spearman_std"] == 0


def rank_by_hand(scores, right, itself):
    best = max(scores[j] for j in right)
    wrong = [j for j in range(len(scores)) if j not in right and j != itself]
    return sum(scores[j] >= best for j in wrong)


def test_retrieval_with_what_is_rated_alike(tmp_path):
    """Thresholds, both directions of a pair, nothing for itself, queries without an answer."""
    rows = {
        "sits": [(0, 3, 3.0), (1, 3, 2.9)],
        "sts": [(0, 20, 3.5), (5, 6, 2.9), (7, 7, 5.0)],
        "sis": [(0, 1, 2.5), (2, 3, 2.4), (4, 4, 5.0)],
    }
    evaluator = everything(tmp_path, rows)
    image, text = embeddings(1)
    of_image = [{3 * i, 3 * i + 1, 3 * i + 2} for i in range(IMAGES)]
    of_image[3].add(0)
    of_caption = [{i // 3} for i in range(21)]
    of_caption[0].add(3)
    captions = [set(range(i // 3 * 3, i // 3 * 3 + 3)) - {i} for i in range(21)]
    captions[0].add(20)
    captions[20].add(0)
    expected = {
        "image_to_text": (image @ text.T, dict(enumerate(of_image)), False),
        "text_to_image": (text @ image.T, dict(enumerate(of_caption)), False),
        "text_to_text": (text @ text.T, dict(enumerate(captions)), True),
        "image_to_image": (image @ image.T, {0: {1}, 1: {0}}, True),
    }
    outcome = evaluator.run(looked_up(image, text))
    for way, (scores, right, excludes) in expected.items():
        ranks = np.array(
            [rank_by_hand(scores[q], some, q if excludes else -1) for q, some in right.items()]
        )
        for k in (1, 5, 10):
            assert outcome.metrics[f"{way}/recall@{k}"] == pytest.approx(np.mean(ranks < k)), way
            assert len(outcome.samples[f"{way}/recall@{k}"].values) == len(right)
        assert outcome.metrics[f"{way}/median_rank"] == np.median(ranks) + 1
    alone = everything(tmp_path, rows, retrieval=False).run(looked_up(image, text))
    assert not any("recall" in name for name in alone.metrics)


def test_an_image_that_cannot_be_read_spoils_nothing_else(tmp_path):
    image, text = embeddings(2)
    rows = {"sits": all_pairs(21, 7, lambda a, b: float(text[a].astype(float) @ image[b]))}
    evaluator = everything(tmp_path, rows)
    (tmp_path / "val2014" / image_name(3)).write_bytes(b"no image")
    outcome = evaluator.run(looked_up(image, text))
    assert outcome.metrics["sits/spearman"] == pytest.approx(1)
    ranks = outcome.samples["image_to_text/recall@10"].values
    assert ranks[3] == 0
    whole = everything(tmp_path, rows).run(looked_up(image, text))
    others = np.arange(7) != 3
    np.testing.assert_array_equal(
        ranks[others], whole.samples["image_to_text/recall@10"].values[others]
    )


def test_ratings_of_nothing_that_can_be_read(tmp_path):
    evaluator = everything(tmp_path, {"sis": [(3, 4, 1.0), (3, 5, 2.0), (0, 1, 3.0)]})
    (tmp_path / "val2014" / image_name(3)).write_bytes(b"no image")
    with pytest.raises(RunError, match="1 of the 3 pairs of sis could be read"):
        evaluator.run(looked_up(*embeddings()))
