"""From pictures to squares: options, randomness, files and pixels alike."""

import concurrent.futures
import multiprocessing
import pickle

import numpy as np
import pytest
from tars import encode, pixels

from nlip_jax.data.images import color
from nlip_jax.data.images.transform import ImageTransform
from nlip_jax.data.worker_process import die_with_parent
from nlip_jax.errors import UsageError

IMAGE = pixels(3, 90, 120)
FILE = encode(IMAGE, quality=95)
EVERYTHING = {
    "crop_scale": (0.2, 1.0),
    "flip": True,
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "grayscale_prob": 0.2,
    "blur_prob": 0.5,
    "policy": "randaugment",
}


def make(**fields):
    return ImageTransform(**({"size": 32, "seed": 1} | fields))


def square(transform, picture=FILE, example_id=3, epoch=2, view=0):
    return transform(picture, example_id=example_id, epoch=epoch, view=view)


def share(transform, picture, changed):
    """Of 200 examples, how many are changed."""
    return np.mean([changed(square(transform, picture, example_id=i)) for i in range(200)])


# --- without randomness ---------------------------------------------------------------------------


def test_pictures_of_the_right_size_stay_as_they_are():
    image = pixels(0, 32, 32)
    np.testing.assert_array_equal(square(make(), image), image)
    np.testing.assert_array_equal(square(make(resize="squash"), encode(image, "PNG")), image)


def test_center_crop_and_squash():
    image = np.zeros((30, 90, 3), np.uint8)
    image[:, 30:60] = 200
    assert (square(make(size=10), image) == 200).all()
    squashed = square(make(size=30, resize="squash"), image)
    assert squashed[15, [5, 15, 25], 0].tolist() == [0, 200, 0]


def test_files_and_pixels_give_the_same():
    for fields in ({}, {"resize": "squash"}, EVERYTHING):
        for size in (20, 32, 64, 100):
            transform = make(size=size, **fields)
            np.testing.assert_array_equal(
                square(transform, IMAGE), square(transform, encode(IMAGE, "PNG"))
            )
    for size in (20, 32, 64, 100):  # from JPEG, nearly: it is reduced as it is decoded
        transform = make(size=size, crop_scale=(0.2, 1.0))
        difference = square(transform, IMAGE).astype(int) - square(transform, FILE)
        assert np.abs(difference).mean() < 1.5


def test_is_random():
    assert not make().is_random
    assert not make(color_jitter=(0.4, 0.4, 0.4, 0.1), color_jitter_prob=0.0).is_random
    assert not make(blur_sigma=(1.0, 2.0), crop_scale=[1.0, 1.0]).is_random
    for name, value in EVERYTHING.items():
        transform = make(**{name: value})
        assert transform.is_random and not transform.without_augmentation().is_random
    bare = make(resize="squash", max_pixels=999, **EVERYTHING).without_augmentation()
    assert (bare.size, bare.resize, bare.max_pixels) == (32, "squash", 999)


# --- randomness -----------------------------------------------------------------------------------


def test_comes_from_seed_epoch_example_and_view():
    transform = make(**EVERYTHING)
    first = square(transform)
    np.testing.assert_array_equal(first, square(pickle.loads(pickle.dumps(transform))))
    others = [
        square(make(**EVERYTHING | {"seed": 2})),
        square(transform, epoch=3),
        square(transform, example_id=4),
        square(transform, view=1),
    ]
    assert len({other.tobytes() for other in [first, *others]}) == 5


def test_crop_and_augment_are_the_halves_of_a_call():
    transform = make(**EVERYTHING)
    for example_id in range(20):
        where = {"example_id": example_id, "epoch": 0, "view": 1}
        cropped = transform.crop(FILE, **where)
        kept = cropped.copy()
        whole = transform(FILE, **where)
        np.testing.assert_array_equal(transform.augment(cropped, **where), whole)
        np.testing.assert_array_equal(cropped, kept)
        unchanged = make(crop_scale=EVERYTHING["crop_scale"])
        np.testing.assert_array_equal(unchanged(FILE, **where), cropped)


def squares(numbers):
    transform = make(**EVERYTHING)
    return [square(transform, example_id=number).tobytes() for number in numbers]


def test_the_same_in_threads_and_in_another_process():
    numbers = list(range(40))
    expected = squares(numbers)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert [one for (one,) in pool.map(squares, [[n] for n in numbers])] == expected
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=context, initializer=die_with_parent
    ) as pool:
        assert pool.submit(squares, numbers[::-1]).result() == expected[::-1]


def test_shares_of_what_is_done():
    image = pixels(0, 32, 32)
    mirrored = image[:, ::-1]
    assert 0.4 < share(make(flip=True), image, lambda s: np.array_equal(s, mirrored)) < 0.6
    grey = color.grayscale(image)
    assert 0.1 < share(make(grayscale_prob=0.2), image, lambda s: np.array_equal(s, grey)) < 0.3
    assert share(make(grayscale_prob=1.0), image, lambda s: np.array_equal(s, grey)) == 1

    def changed(other):
        return not np.array_equal(other, image)

    assert 0.7 < share(make(color_jitter=(0.4, 0.4, 0.4, 0.1)), image, changed) < 0.9
    blurred = {"blur_prob": 0.5, "blur_sigma": (1.0, 2.0)}
    assert 0.4 < share(make(**blurred), image, changed) < 0.6
    assert share(make(policy="randaugment", randaugment_ops=0), image, changed) == 0
    assert share(make(policy="randaugment", randaugment_ops=3), image, changed) > 0.9
    assert 0.3 < share(make(policy="randaugment_albef"), image, changed) < 0.8
    assert share(make(policy="autoaugment"), image, changed) > 0.6


def test_random_crops_show_their_share_of_the_area():
    y, x = np.mgrid[:200, :200].astype(np.uint8)
    image = np.stack([y, x, x], 2)
    areas = []
    for number in range(200):
        result = square(make(size=16, crop_scale=(0.25, 0.5)), image, example_id=number)
        spans = np.ptp(result.reshape(-1, 3).astype(int), 0)
        areas.append(spans[0] * spans[1] * (16 / 15) ** 2 / 200**2)
    assert 0.2 < min(areas) < 0.3 and 0.43 < max(areas) < 0.55


def test_crop_ratio():
    y, x = np.mgrid[:200, :200].astype(np.uint8)
    image = np.stack([y, x, x], 2)
    transform = make(size=16, crop_scale=(0.2, 0.3), crop_ratio=(2.0, 2.0))
    for number in range(20):
        spans = np.ptp(square(transform, image, example_id=number).reshape(-1, 3).astype(int), 0)
        assert 1.7 < spans[1] / spans[0] < 2.3


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, r"config.data.image_size=0: must be at least 1 pixel"),
        ({"resize": "crop"}, r"config.data.resize='crop': choose one of center_crop, squash"),
        ({"crop_scale": (0.0, 1.0)}, r"config.data.crop_scale=\(0.0, 1.0\): must be two shares"),
        ({"crop_scale": (0.5,)}, r"config.data.crop_scale"),
        ({"crop_scale": (0.9, 0.5)}, r"config.data.crop_scale"),
        ({"crop_ratio": (0.0, 1.0)}, r"config.data.crop_ratio=\(0.0, 1.0\): must be two ratios"),
        ({"color_jitter": (0.1, 0.1, 0.1)}, r"config.data.augment.color_jitter=.* four amounts"),
        ({"color_jitter": (0.1, 0.1, 0.1, 0.6)}, r"config.data.augment.color_jitter"),
        ({"color_jitter": (-0.1, 0.1, 0.1, 0.1)}, r"config.data.augment.color_jitter"),
        ({"color_jitter_prob": 1.5}, r"config.data.augment.color_jitter_prob=1.5: .* in \[0, 1\]"),
        ({"grayscale_prob": -0.1}, r"config.data.augment.grayscale_prob"),
        ({"blur_prob": 2}, r"config.data.augment.blur_prob"),
        ({"blur_sigma": (0.0, 2.0)}, r"config.data.augment.blur_sigma"),
        ({"policy": "mixup"}, r"config.data.augment.policy='mixup': choose one of none, randaug"),
        ({"randaugment_ops": -1}, r"config.data.augment.randaugment_ops"),
        ({"randaugment_magnitude": 11}, r"config.data.augment.randaugment_magnitude=11.*\[0, 10\]"),
        ({"max_pixels": 10**9}, r"config.data.max_pixels"),
    ],
)
def test_options_are_checked(fields, message):
    with pytest.raises(UsageError, match=message):
        make(**fields)
