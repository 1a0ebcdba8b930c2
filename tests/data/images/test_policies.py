"""RandAugment and AutoAugment: which operations, how strong and how often."""

import collections

import numpy as np
import pytest
from tars import pixels

from nlip_jax.data.images import color, geometry, policies
from nlip_jax.data.images.policies import OPERATIONS, POLICIES, Operation

IMAGE = pixels(3, 48, 48)


class Recorded:
    """Stands for the operations of a policy and writes down what is asked of them."""

    def __init__(self):
        self.calls = []

    def of(self, operations):
        return {name: self._operation(name, op) for name, op in operations.items()}

    def _operation(self, name, operation):
        def apply(image, *amount):
            self.calls.append((name, *amount))
            return image

        return Operation(apply, operation.amounts, operation.either_way)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_operation_gives_an_image(name, share):
    result = OPERATIONS[name](IMAGE, share, np.random.default_rng(0))
    assert result.shape == IMAGE.shape and result.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "share", "expected"),
    [
        ("Brightness", 0.7, lambda image: color.brightness(image, 1.36)),
        ("Color", 0.0, lambda image: color.saturation(image, 0.1)),
        ("Contrast", 1.0, lambda image: color.contrast(image, 1.9)),
        ("Posterize", 1.0, lambda image: image & 0xF0),
        ("Posterize", 0.0, lambda image: image),
        ("Solarize", 1.0, lambda image: 255 - image),
        ("Solarize", 0.0, lambda image: image),
        ("Rotate", 0.0, lambda image: image),
        ("Identity", 1.0, lambda image: image),
        ("Invert", 0.0, lambda image: 255 - image),
    ],
)
def test_magnitudes(name, share, expected):
    result = OPERATIONS[name](IMAGE, share, np.random.default_rng(0))
    np.testing.assert_array_equal(result, expected(IMAGE))


def test_half_of_the_moves_go_either_way():
    left, right = (geometry.shear_x(IMAGE, slope) for slope in (0.21, -0.21))
    results = [OPERATIONS["ShearX"](IMAGE, 0.7, np.random.default_rng(i)) for i in range(100)]
    lefts = sum(np.array_equal(result, left) for result in results)
    assert 30 < lefts < 70
    assert lefts + sum(np.array_equal(result, right) for result in results) == 100


def drawn(name, **options):
    recorded = Recorded()
    policy = POLICIES[name].keywords
    operations = recorded.of(policy["operations"])
    for seed in range(1000):
        policies.rand_augment(
            IMAGE, np.random.default_rng(seed), **(policy | {"operations": operations} | options)
        )
    return recorded.calls


def test_randaugment_of_the_paper():
    calls = drawn("randaugment", num_ops=2, magnitude=9)
    counts = collections.Counter(call[0] for call in calls)
    assert len(calls) == 2000 and len(counts) == 14 and min(counts.values()) > 90
    assert {round(call[1], 3) for call in calls if call[0] == "Color"} == {1.72}
    assert {abs(call[1]) for call in calls if call[0] == "Rotate"} == {27}


def test_randaugment_of_albef():
    calls = drawn("randaugment_albef", num_ops=2, magnitude=7)
    counts = collections.Counter(call[0] for call in calls)
    assert 900 < len(calls) < 1100  # each is applied half of the time
    moves = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"}
    assert counts.keys() - moves == {
        "Identity",
        "AutoContrast",
        "Equalize",
        "Brightness",
        "Sharpness",
    }
    assert moves <= counts.keys()
    amounts = {(call[0], abs(call[1])) for call in calls if len(call) == 2}
    assert {name: round(256 * a, 6) for name, a in amounts if "Translate" in name} == {
        "TranslateX": 7,
        "TranslateY": 7,
    }
    assert dict(amounts)["Brightness"] == pytest.approx(1.36)
    assert dict(amounts)["Rotate"] == pytest.approx(21)


def test_autoaugment(monkeypatch):
    recorded = Recorded()
    monkeypatch.setattr(policies, "OPERATIONS", recorded.of(OPERATIONS))
    for seed in range(2500):
        POLICIES["autoaugment"](IMAGE, np.random.default_rng(seed), num_ops=9, magnitude=9)
    counts = collections.Counter(call[0] for call in recorded.calls)
    # Of 25 sub-policies, with their probabilities: Invert stands in three with 0.6, ...
    assert 140 < counts["Invert"] < 220
    assert 45 < counts["ShearX"] < 75
    assert 850 < counts["Equalize"] < 1150
    assert not {"TranslateX", "TranslateY", "ShearY", "Brightness", "Identity"} & counts.keys()
    amounts = collections.defaultdict(set)
    for name, *amount in recorded.calls:
        amounts[name] |= {round(abs(a), 3) for a in amount}
    assert amounts["Rotate"] == {30, 26.667, 10}
    assert amounts["Contrast"] == {1.7}
    assert amounts["Solarize"] == {113.778, 142.222, 170.667, 28.444, 56.889}


def test_policies_are_random_and_repeatable():
    for name in ("randaugment", "randaugment_albef", "autoaugment"):
        results = [
            POLICIES[name](IMAGE, np.random.default_rng(seed % 20), num_ops=2, magnitude=9)
            for seed in range(40)
        ]
        assert all(map(np.array_equal, results[:20], results[20:]))
        assert len({result.tobytes() for result in results}) > 5
    assert POLICIES["none"](IMAGE, np.random.default_rng(0), num_ops=2, magnitude=9) is IMAGE
