"""Planted mismatches and parts of a source."""

import pickle
from collections import Counter

import numpy as np
import pytest

from nlip_jax.data.source import Numbering, Place
from nlip_jax.data.sources.planted import FirstImages, PlantedMismatch
from nlip_jax.errors import UsageError


class Numbers:
    """Example i has image images[i] and the caption "i", and perhaps a known truth."""

    fingerprint = "numbers"

    def __init__(self, images, truth=None, holes=(), numberings=()):
        self.images = np.asarray(images)
        self.num_images = int(self.images[-1]) + 1
        self.known = truth
        self.holes = np.array(holes, np.int64).reshape(-1, 2)
        self.numberings = (*numberings, Numbering(len(self.images), "numbers"))

    def __len__(self):
        return len(self.images)

    def image_id(self, example_id):
        return int(self.images[example_id])

    def picture(self, image_id):
        return np.full((2, 2, 3), image_id, np.uint8)

    def place(self, image_id):
        return Place("numbers", str(image_id))

    def caption(self, example_id, epoch=0):
        return f"{example_id}" if epoch == 0 else f"{example_id} {epoch}"

    def truth(self):
        return self.known


FIVES = Numbers(np.repeat(np.arange(200), 5))


def donors(source):
    return np.array([int(source.caption(i)) for i in range(len(source))])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 0.999])
def test_permutes_a_share(rate):
    source = PlantedMismatch(FIVES, rate, seed=7)
    donor, truth = donors(source), source.truth()
    moved = donor != np.arange(1000)
    assert moved.sum() == round(rate * 1000)
    np.testing.assert_array_equal(truth, moved.astype(np.int8))
    assert truth.dtype == np.int8
    assert sorted(donor) == list(range(1000))
    assert (FIVES.images[donor[moved]] != FIVES.images[moved]).all()


def test_moves_single_captions():
    donor = donors(PlantedMismatch(FIVES, 0.999, seed=0)).reshape(200, 5) // 5
    assert np.mean([len(set(images)) for images in donor]) > 4.5


def test_everything_else_passes_through():
    source = PlantedMismatch(FIVES, 0.3)
    assert len(source) == 1000 and source.num_images == 200 and source.image_id(17) == 3
    np.testing.assert_array_equal(source.picture(3), FIVES.picture(3))
    assert source.caption(5, epoch=2) == f"{source.caption(5)} 2"
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(donors(copy), donors(source))


def test_inner_truth_is_kept_where_nothing_is_planted():
    inner = np.full(1000, 2, np.int8)
    source = PlantedMismatch(Numbers(FIVES.images, inner), 0.25)
    moved = donors(source) != np.arange(1000)
    np.testing.assert_array_equal(source.truth(), np.where(moved, 1, 2))
    assert (inner == 2).all()


def test_seed_and_rate_decide():
    made = [(0.3, 0), (0.3, 1), (0.31, 0)]
    sources = [PlantedMismatch(FIVES, rate, seed) for rate, seed in made]
    assert len({source.fingerprint for source in sources} | {FIVES.fingerprint}) == 4
    assert len({source.truth().tobytes() for source in sources}) == 3
    again = PlantedMismatch(FIVES, 0.3, 0)
    assert again.fingerprint == sources[0].fingerprint
    np.testing.assert_array_equal(donors(again), donors(sources[0]))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "sizes", [[1, 1], [5, 5], [6, 3, 3], [50, 20, 30], [10] * 10, [49] + [1] * 50]
)
def test_few_images(sizes, seed):
    numbers = Numbers(np.repeat(np.arange(len(sizes)), sizes))
    donor = donors(PlantedMismatch(numbers, 0.9999, seed))
    assert Counter(donor) == Counter(range(len(numbers)))
    assert (numbers.images[donor] != numbers.images).all()


@pytest.mark.parametrize("images", [[0, 0, 0, 0], [0, 0, 0, 1, 2], [0]])
def test_impossible(images):
    with pytest.raises(UsageError, match=r"cannot be exchanged: \d of them are of one image"):
        PlantedMismatch(Numbers(images), 0.9999)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 40, float("nan")])
def test_rate_is_checked(rate):
    with pytest.raises(UsageError, match=f"{rate}: must be at least 0 and below 1"):
        PlantedMismatch(FIVES, rate)


def test_a_million_examples():
    numbers = Numbers(np.arange(1_000_000) // 5)
    source = PlantedMismatch(numbers, 0.4)
    assert source.truth().sum() == 400_000


def test_first_images():
    numbers = Numbers([0, 0, 1, 2, 2, 2, 3], truth=np.arange(7, dtype=np.int8) % 4)
    source = FirstImages(numbers, 3)
    assert len(source) == 6 and source.num_images == 3
    assert [source.image_id(i) for i in range(6)] == [0, 0, 1, 2, 2, 2]
    assert source.caption(4) == "4" and source.picture(2)[0, 0, 0] == 2
    assert source.truth().tolist() == [0, 1, 2, 3, 0, 1]
    assert len(FirstImages(numbers, 4)) == 7
    assert FirstImages(Numbers([0, 1]), 1).truth() is None
    assert len({FirstImages(numbers, count).fingerprint for count in (1, 2, 3)}) == 3
    for count in (0, 5):
        with pytest.raises(UsageError, match=f"num_images={count}: must be at most 4"):
            FirstImages(numbers, count)


def test_mismatches_are_planted_where_examples_are():
    holes = [[100, 300], [990, 1000]]
    source = PlantedMismatch(Numbers(FIVES.images, holes=holes), 0.5, seed=1)
    live = np.delete(np.arange(1000), np.r_[100:300, 990:1000])
    donor = donors(source)
    moved = donor != np.arange(1000)
    assert moved.sum() == round(0.5 * len(live)) and not np.delete(moved, live).any()
    assert set(donor[live]) == set(live)
    assert source.holes.tolist() == holes
    assert source.place(3) == Place("numbers", "3")


def test_an_exchange_is_a_numbering_of_its_own():
    source = PlantedMismatch(Numbers([0, 1, 2], numberings=[Numbering(2, "before")]), 0.7)
    assert source.numberings == (Numbering(3, source.fingerprint),)


def test_first_images_that_are_there():
    # Images 0-3 and 5-6 are gone.
    images = [0, 0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 7, 8]
    numbers = Numbers(images, holes=[[0, 7], [9, 11]])
    one, two, three = (FirstImages(numbers, count) for count in (1, 2, 3))
    assert [len(source) for source in (one, two, three)] == [9, 12, 13]
    assert [source.num_images for source in (one, two, three)] == [5, 8, 9]
    assert one.holes.tolist() == [[0, 7]] and two.holes.tolist() == numbers.holes.tolist()
    with pytest.raises(UsageError, match="num_images=4: must be at most 3"):
        FirstImages(numbers, 4)


def test_first_images_of_what_grew():
    small = Numbers([0, 1, 1, 2], numberings=[Numbering(2, "two"), Numbering(3, "three")])
    grown = Numbers([0, 1, 1, 2, 3, 4], numberings=small.numberings)
    first, same = FirstImages(small, 2), FirstImages(grown, 2)
    assert first.numberings == same.numberings
    assert [n.length for n in first.numberings] == [2, 3]
    assert first.numberings[0] == Numbering(2, "two")
    assert first.numberings[1] != FirstImages(small, 3).numberings[1]
