"""The drawn data set: the same everywhere, true captions, known noise, pictures one can read."""

import hashlib
import pickle
import re
import subprocess
import sys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from nlip_jax.data.source import TRUTH
from nlip_jax.data.synthetic import SPLITS, ClassScenes, SyntheticScenes
from nlip_jax.data.synthetic.captions import _SYNONYMS, describe, thin
from nlip_jax.data.synthetic.draw import Draw
from nlip_jax.data.synthetic.noise import plant_independently
from nlip_jax.data.synthetic.render import _BACKDROP_PAINT, _PAINT, render
from nlip_jax.data.synthetic.scenes import (
    COLOURS,
    KINDS,
    RADII,
    SHAPES,
    Backdrop,
    Group,
    Scene,
    place,
    sample_scene,
)
from nlip_jax.errors import UsageError

NOISE = {"mismatched": 0.3, "incomplete": 0.2, "irrelevant": 0.1}


def scenes(n=200, **fields):
    return SyntheticScenes(num_examples=n, **{"seed": 7, **fields})


def lone(colour, shape, texture="plain", radius=RADII["large"]):
    group = Group(colour, shape, "large", texture, radius, 0.0, 1.0, ((0.5, 0.5),))
    return Scene(Backdrop("plain", ("black", "white"), 0.0, ""), (group,))


def kinds_named(caption):
    """Canonical colours and shapes among the words of a caption."""
    names = {word: name for name in COLOURS + SHAPES for word in (name, *_SYNONYMS[name])}
    return {
        name for word, name in names.items() if re.search(rf"\b{word}(es|s)?\b", caption.lower())
    }


def digest(source, ids):
    made = hashlib.sha256()
    for i in ids:
        made.update(source.picture(i).tobytes() + source.caption(i).encode())
    return made.hexdigest()


# The same data everywhere.


def test_random_access_equals_sequential_access_also_after_pickling():
    source = scenes(40, **NOISE)
    twin = pickle.loads(pickle.dumps(source))
    backwards = {i: (twin.picture(i), twin.caption(i)) for i in reversed(range(40))}
    for i in range(40):
        np.testing.assert_array_equal(source.picture(i), backwards[i][0])
        assert source.caption(i) == source.caption(i, epoch=3) == backwards[i][1]
    assert twin == source
    assert twin.fingerprint == source.fingerprint


def test_another_process_makes_the_same_data_without_jax():
    source = scenes(20, **NOISE)
    program = (
        "import sys, pickle, hashlib\n"
        f"source = pickle.loads({pickle.dumps(source)!r})\n"
        "made = hashlib.sha256()\n"
        "for i in range(20):\n"
        "    made.update(source.picture(i).tobytes() + source.caption(i).encode())\n"
        "print(made.hexdigest(), source.fingerprint, 'jax' in sys.modules, 'PIL' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert answer == [digest(source, range(20)), source.fingerprint, "False", "False"]


def test_words_are_pinned_to_the_data_version():
    # A change here makes other data from the same fields: raise _DATA_VERSION in sources.py too.
    source = scenes(100, **NOISE)
    text = "\n".join(source.caption(i) for i in range(100))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "37586ab3264c887b"


def test_an_example_is_the_same_in_a_larger_data_set():
    small, large = scenes(50, incomplete=0.3), scenes(5000, incomplete=0.3)
    assert digest(small, range(50)) == digest(large, range(50))
    np.testing.assert_array_equal(small.truth(), large.truth()[:50])


def test_seeds_and_splits_differ_in_pictures_words_and_fingerprint():
    sources = [scenes(30, split=split) for split in SPLITS] + [scenes(30, seed=8)]
    for first, second in combinations(sources, 2):
        assert first.fingerprint != second.fingerprint
        assert all(first.caption(i) != second.caption(i) for i in range(30))
        assert not any(np.array_equal(first.picture(i), second.picture(i)) for i in range(30))


def test_fingerprint_follows_every_field_and_ignores_how_a_number_is_written():
    changes = {"n": 201, "seed": 8, "image_size": 64, "split": "test", **NOISE}
    prints = [scenes(**{name: value}).fingerprint for name, value in changes.items()]
    assert len({scenes().fingerprint, *prints}) == len(changes) + 1
    assert all(int(text, 16) >= 0 for text in prints)
    assert scenes(mismatched=0).fingerprint == scenes(mismatched=0.0).fingerprint
    assert ClassScenes(2, seed=7).fingerprint != ClassScenes(3, seed=7).fingerprint


# Noise.


def test_rates_hold_to_within_sampling_and_kinds_exclude_one_another():
    n = 100_000
    truth = scenes(n, **NOISE).truth()
    assert truth.dtype == np.int8
    assert truth.shape == (n,)
    counts = dict(zip(TRUTH, np.bincount(truth, minlength=len(TRUTH)), strict=True))
    for name, rate in {"clean": 0.4, **NOISE}.items():
        assert abs(counts[name] - n * rate) < 5 * np.sqrt(n * rate * (1 - rate))
    neighbours = np.corrcoef(truth[:-1] == 1, truth[1:] == 1)[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(n)


@pytest.mark.parametrize("name", TRUTH[1:])
def test_a_rate_of_one_spoils_everything_and_of_zero_nothing(name):
    assert (scenes(1000, **{name: 1.0}).truth() == TRUTH.index(name)).all()
    assert (scenes(1000).truth() == 0).all()


def test_captions_follow_the_truth():
    source = scenes(400, **NOISE)
    clean = [source.clean_caption(i) for i in range(400)]
    for i, code in enumerate(source.truth()):
        caption = source.caption(i)
        match TRUTH[code]:
            case "clean":
                assert caption == clean[i]
            case "mismatched":
                assert caption != clean[i]
                assert caption in clean
            case "incomplete":
                scene = {name for g in source.scene(i).groups for name in (g.colour, g.shape)}
                assert kinds_named(caption) < scene
                assert kinds_named(caption)
            case "irrelevant":
                assert not kinds_named(caption)


def test_independent_kinds_meet_as_often_as_chance_says():
    n, rates = 100_000, {"mismatched": 0.4, "incomplete": 0.4, "irrelevant": 0.1}
    source = scenes(n, **rates, independent=True)
    wanted = {  # of several kinds, the worst
        "clean": 0.6 * 0.6 * 0.9,
        "incomplete": 0.6 * 0.4 * 0.9,
        "mismatched": 0.4 * 0.9,
        "irrelevant": 0.1,
    }
    counts = dict(zip(TRUTH, np.bincount(source.truth(), minlength=len(TRUTH)), strict=True))
    for name, rate in wanted.items():
        assert abs(counts[name] - n * rate) < 5 * np.sqrt(n * rate * (1 - rate)), name
    planted = plant_independently(np.arange(n), rates, "key")
    for first, second in combinations(planted, 2):
        assert abs(np.corrcoef(planted[first], planted[second])[0, 1]) < 5 / np.sqrt(n)


def test_an_independent_caption_may_be_that_of_another_scene_and_incomplete():
    rates = {"mismatched": 0.5, "incomplete": 0.5, "irrelevant": 0.2}
    source = scenes(400, **rates, independent=True)
    clean = [source.clean_caption(i) for i in range(400)]
    thinned = [scenes(400, incomplete=1.0).caption(i) for i in range(400)]
    seen = Counter()
    for i, code in enumerate(source.truth()):
        caption = source.caption(i)
        match TRUTH[code]:
            case "clean":
                assert caption == clean[i]
            case "incomplete":
                assert caption == thinned[i]
            case "irrelevant":
                assert not kinds_named(caption)
            case "mismatched":
                assert caption not in (clean[i], thinned[i])
                assert (caption in clean) != (caption in thinned)
                seen[caption in thinned] += 1
    assert min(seen[True], seen[False]) > 40


def test_independent_rates_may_add_up_to_more_than_one():
    everything = dict.fromkeys(TRUTH[1:], 1.0)
    assert (scenes(100, **everything, independent=True).truth() == 3).all()
    with pytest.raises(UsageError, match="independent=True"):
        scenes(100, **everything)
    with pytest.raises(UsageError, match="incomplete=2"):
        scenes(100, incomplete=2, independent=True)


def test_fingerprints_from_before_independent_noise_stand():
    noisy = scenes(400, **NOISE)
    assert noisy.fingerprint == "2a839efb103e32067f9c60ca04776d75"
    assert scenes(400, **NOISE, independent=True).fingerprint != noisy.fingerprint
    assert scenes(400).caption(3) == scenes(400, independent=True).caption(3)


def test_mismatched_captions_come_from_everywhere_but_home():
    moves = set()
    for seed in range(20):
        source = scenes(3, seed=seed, mismatched=1.0)
        clean = [source.clean_caption(i) for i in range(3)]
        moves |= {(i, clean.index(source.caption(i))) for i in range(3)}
    assert moves == {(i, j) for i in range(3) for j in range(3) if i != j}


def test_irrelevant_texts_are_varied():
    source = scenes(500, irrelevant=1.0)
    assert len({source.caption(i) for i in range(500)}) > 300


@pytest.mark.parametrize("source", [scenes(30, image_size=16), scenes(30, seed=1)])
def test_pixels_do_not_depend_on_the_noise(source):
    noisy = scenes(30, seed=source.seed, image_size=source.image_size, **NOISE)
    for i in range(30):
        np.testing.assert_array_equal(source.picture(i), noisy.picture(i))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mismatched": -0.1}, "mismatched=-0.1"),
        ({"irrelevant": 1.5}, "irrelevant=1.5"),
        ({"incomplete": float("nan")}, "incomplete=nan"),
        ({"mismatched": 0.6, "incomplete": 0.5}, "more than 1"),
        ({"split": "train2"}, "train, validation, test"),
        ({"n": 0}, "num_examples=0"),
        ({"image_size": 0}, "image_size=0"),
        ({"n": 1, "mismatched": 0.5}, "another scene"),
    ],
)
def test_bad_fields_are_usage_errors_that_name_the_value(fields, words):
    with pytest.raises(UsageError, match=words):
        scenes(**fields)


def test_rates_that_add_up_to_one_are_fine_despite_rounding():
    truth = scenes(1000, mismatched=0.1, incomplete=0.2, irrelevant=0.7).truth()
    assert (truth > 0).all()


@pytest.mark.parametrize("number", [-1, 200])
def test_numbers_outside_the_data_set_are_index_errors(number):
    for read in (scenes().picture, scenes().caption, scenes().image_id):
        with pytest.raises(IndexError):
            read(number)


# Words.


def test_captions_are_varied_and_of_natural_length():
    source = scenes(1000, split="validation")
    captions = [source.caption(i) for i in range(1000)]
    assert len(set(captions)) >= 990
    lengths = np.array([len(caption.split()) for caption in captions])
    assert np.mean((lengths >= 5) & (lengths <= 25)) > 0.93
    words = {word for caption in captions for word in re.findall(r"[a-z-]+", caption.lower())}
    assert 100 < len(words) < 300
    assert len({caption.split()[0] for caption in captions}) > 10


def test_clean_captions_name_every_object_mostly_by_its_plain_name():
    source = scenes(300)
    plain = said = 0
    for i in range(300):
        names = {name for g in source.scene(i).groups for name in (g.colour, g.shape)}
        caption = source.caption(i)
        assert names <= kinds_named(caption)
        plain += sum(name in caption.lower() for name in names)
        said += len(names)
    assert plain / said > 0.8


def test_descriptions_are_true_and_thin_ones_are_part_of_them():
    def facts(mention):
        return {(name, value) for name, value in mention._asdict().items() if value is not None}

    for i in range(300):
        scene, draw = sample_scene(Draw(f"scene {i}")), Draw(f"words {i}")
        full = describe(scene, draw)
        groups = {(g.colour, g.shape): g for g in scene.groups}
        assert {(m.colour, m.shape) for m in full.mentions} == set(groups)
        for mention in full.mentions:
            group = groups[mention.colour, mention.shape]
            assert mention.count == len(group.centres)
            assert (mention.size or "medium") == group.size
            assert (mention.texture or "plain") == group.texture
            assert mention.place in (None, place(group.centres[0]))
        if full.relation is not None:
            (x, y), (u, v) = (groups[m.colour, m.shape].centres[0] for m in full.mentions[:2])
            assert {"left": x < u, "right": x > u, "above": y < v, "below": y > v}[full.relation]
        assert full.backdrop in (None, scene.backdrop)
        poor = thin(full, draw)
        assert all(any(facts(p) <= facts(m) for m in full.mentions) for p in poor.mentions)
        assert sum(len(facts(m)) for m in poor.mentions) < sum(len(facts(m)) for m in full.mentions)
        assert all(m.colour or m.shape for m in poor.mentions)


def test_places_divide_the_image_in_nine():
    names = {place((x, y)) for x in (0.2, 0.5, 0.8) for y in (0.2, 0.5, 0.8)}
    assert len(names) == 9
    assert place((0.2, 0.5)) == "left"
    assert place((0.8, 0.2)) == "upper right"
    assert place((0.5, 0.8)) == "bottom"


# Pictures.


def test_scenes_have_one_to_four_objects_that_do_not_touch_and_show_at_32_pixels():
    source = scenes(300)
    seen = Counter()
    for i in range(300):
        groups = source.scene(i).groups
        circles = [(*centre, g.radius) for g in groups for centre in g.centres]
        seen[len(circles)] += 1
        assert len({(g.colour, g.shape) for g in groups}) == len(groups)
        for x, y, radius in circles:
            assert 2 * radius * 32 > 7
            assert radius < min(x, y, 1 - x, 1 - y)
        for (x, y, r), (u, v, q) in combinations(circles, 2):
            assert np.hypot(x - u, y - v) > r + q
    assert set(seen) == {1, 2, 3, 4}
    assert min(seen.values()) > 30


def test_edges_are_smooth_and_only_edges():
    image = render(lone("red", "circle"), 64)
    red, black = _PAINT["red"][0][0], _BACKDROP_PAINT["black"][0]
    y, x = (np.mgrid[:64, :64] + 0.5) / 64 - 0.5
    distance = np.abs(np.hypot(x, y) - 0.95 * RADII["large"]) * 64  # to the outline, in pixels
    between = (image[..., 0] > black + 5) & (image[..., 0] < red - 5)
    assert between[distance < 0.4].mean() > 0.9
    assert not between[distance > 0.6].any()
    area = (image[..., 0].astype(float) - black).sum() / (red - black)
    assert area == pytest.approx(np.pi * (0.95 * RADII["large"] * 64) ** 2, rel=0.01)


@pytest.mark.parametrize("size", [64, 224])
def test_a_scene_is_the_same_at_every_resolution(size):
    small, large = scenes(12), scenes(12, image_size=size)
    for i in range(12):
        image = large.picture(i)
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8
        pooled = image.reshape(32, size // 32, 32, size // 32, 3).mean(axis=(1, 3))
        assert np.abs(pooled - small.picture(i)).mean() < 4


def test_shapes_can_be_told_apart_at_32_pixels():
    masks = {}
    for shape in SHAPES:
        image = render(lone("red", shape, radius=RADII["medium"]), 32).astype(float)
        masks[shape] = (image[..., 0] - 16) / (225 - 16)
        assert masks[shape].sum() > 30
    for first, second in combinations(SHAPES, 2):
        a, b = masks[first], masks[second]
        assert np.minimum(a, b).sum() / np.maximum(a, b).sum() < 0.85, (first, second)


def test_paints_can_be_told_apart():
    def saturation(rgb):
        return max(rgb) - min(rgb)

    paints = {name: np.array(paint) for name, (paint, _) in _PAINT.items()}
    for first, second in combinations(paints.values(), 2):
        assert np.linalg.norm(first - second) > 80
    assert min(map(saturation, paints.values())) > 120
    assert max(map(saturation, _BACKDROP_PAINT.values())) < 60


@pytest.mark.parametrize("texture", ["striped", "dotted"])
def test_patterns_show_inside_the_outline_only(texture):
    plain = render(lone("red", "square"), 32).astype(int)
    inked = render(lone("red", "square", texture), 32).astype(int)
    changed = np.abs(plain - inked).sum(-1) > 100
    assert 0.15 < changed.sum() / (plain[..., 0] > 200).sum() < 0.6
    assert not changed[:, :9].any()


def test_every_backdrop_is_drawn():
    styles = Counter(scenes(100).scene(i).backdrop.style for i in range(100))
    assert set(styles) == {"plain", "gradient", "noisy", "tiled"}
    empty = {
        style: render(Scene(Backdrop(style, ("white", "black"), 0.3, "seed"), ()), 32)
        for style in styles
    }
    assert all(not np.array_equal(a, b) for a, b in combinations(empty.values(), 2))
    assert len(np.unique(empty["plain"])) == 1
    assert len(np.unique(empty["tiled"].reshape(-1, 3), axis=0)) == 2


# Classes.


def test_class_scenes_show_what_their_labels_say():
    source = ClassScenes(images_per_class=3, seed=5)
    assert len(source) == source.num_images == 3 * len(source.class_names)
    assert len(set(source.class_names)) == len(source.class_names) >= 48
    assert source.labels.dtype == np.int32
    assert (np.bincount(source.labels) == 3).all()
    paints = np.array([_PAINT[colour][0] for colour in COLOURS], float)
    for i in range(len(source)):
        colour, shape = source.class_names[source.labels[i]].split()
        group = source.scene(i).groups[0]
        assert (group.colour, group.shape, group.count) == (colour, shape, 1)
        pixels = source.picture(i).reshape(-1, 3).astype(float)
        pixels = pixels[np.ptp(pixels, axis=-1) > 110]  # the backdrops are muted
        nearest = np.linalg.norm(pixels[:, None] - paints, axis=-1).argmin(axis=-1)
        assert Counter(nearest.tolist()).most_common(1)[0][0] == COLOURS.index(colour)
        assert source.caption(i) == f"{colour} {shape}"
    assert len({source.picture(i).tobytes() for i in range(len(source))}) == len(source)


def test_class_scenes_are_balanced_from_the_start_and_differ_by_split():
    source = ClassScenes(images_per_class=2, seed=5)
    assert sorted(source.labels[: len(KINDS)]) == list(range(len(KINDS)))
    other = ClassScenes(images_per_class=2, seed=5, split="train")
    assert not any(np.array_equal(source.picture(i), other.picture(i)) for i in range(20))
    assert (source.truth() == 0).all()
    assert pickle.loads(pickle.dumps(source)) == source
    with pytest.raises(UsageError, match="images_per_class=0"):
        ClassScenes(images_per_class=0, seed=5)


def test_templates_take_a_class_name():
    templates = ClassScenes(1, seed=0).templates
    assert len(templates) >= 7
    assert len({template.format("red ring") for template in templates}) == len(templates)
    assert all("red ring" in template.format("red ring") for template in templates)
