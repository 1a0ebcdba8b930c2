import dataclasses
import math
import pickle

import numpy as np
import pytest

from nlip_jax.data.failures import ReadError
from nlip_jax.data.source import NO_HOLES, Numbering, Place
from nlip_jax.data.sources.mixture import Mixture
from nlip_jax.data.sources.planted import PlantedMismatch
from nlip_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Part:
    """A source of two captions an image whose pictures and captions name it."""

    name: str
    num_images: int
    draws_captions: bool = False
    holes: np.ndarray = dataclasses.field(default_factory=NO_HOLES.copy)
    grown_from: tuple[int, ...] = ()
    known: bool = False

    @property
    def fingerprint(self):
        return f"{self.name}{self.num_images}{self.draws_captions}{self.holes.tolist()}"

    @property
    def numberings(self):
        return tuple(
            Numbering(2 * n, f"{self.name}{n}") for n in (*self.grown_from, self.num_images)
        )

    def __len__(self):
        return 2 * self.num_images

    def image_id(self, example_id):
        return example_id // 2

    def picture(self, image_id):
        if image_id == 1:
            raise ReadError("missing_image", self.name)
        return f"{self.name} {image_id}".encode()

    def caption(self, example_id, epoch=0):
        return f"{self.name} {example_id} {epoch * self.draws_captions}"

    def place(self, image_id):
        return Place(self.name, str(image_id))

    def truth(self):
        return np.ones(len(self), np.int8) if self.known else None


def mix(*parts, weights=None):
    weights = weights or [1.0] * len(parts)
    return Mixture({part.name: (part, w) for part, w in zip(parts, weights, strict=True)})


def test_every_part_has_ids_of_its_own():
    mixture = pickle.loads(pickle.dumps(mix(Part("a", 3), Part("b", 0), Part("c", 2, True))))
    assert (len(mixture), mixture.num_images, mixture.draws_captions) == (10, 5, True)
    assert mixture.part_sizes == (6, 0, 4)
    assert [mixture.image_id(i) for i in range(10)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [mixture.caption(i, 7) for i in (0, 5, 6, 9)] == ["a 0 0", "a 5 0", "c 0 7", "c 3 7"]
    assert [mixture.picture(i) for i in (0, 2, 3)] == [b"a 0", b"a 2", b"c 0"]
    assert [mixture.place(i) for i in (1, 4)] == [Place("a", "1"), Place("c", "1")]
    with pytest.raises(ReadError, match="c"):
        mixture.picture(4)


@pytest.mark.parametrize("outside", [-1, 10])
def test_ids_outside(outside):
    mixture = mix(Part("a", 3), Part("b", 2))
    for read in (mixture.image_id, mixture.caption):
        with pytest.raises(IndexError):
            read(outside)
    with pytest.raises(IndexError):
        mixture.picture(outside)


def test_numpy_ids():
    mixture = mix(Part("a", 3), Part("b", 2))
    assert mixture.caption(np.int64(7)) == "b 1 0"
    assert type(mixture.image_id(np.int64(7))) is int


def test_weights_are_kept_in_order():
    mixture = mix(Part("z", 1), Part("a", 1), weights=(3, 0.5))
    assert (mixture.names, mixture.weights) == (("z", "a"), (3.0, 0.5))


@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan])
def test_wrong_weights(weight):
    with pytest.raises(UsageError, match=r"mixture part 'b': weight .* above 0"):
        mix(Part("a", 1), Part("b", 1), weights=(1, weight))


def test_no_parts():
    with pytest.raises(UsageError, match="needs one part or more"):
        Mixture({})


def test_holes_and_truth():
    holes = np.array([[1, 2], [4, 6]])
    mixture = mix(Part("a", 2), Part("b", 3, holes=holes), Part("c", 1), Part("d", 2, holes=holes))
    assert mixture.holes.tolist() == [[5, 6], [8, 10], [13, 14], [16, 18]]
    assert mixture.truth() is None
    none = mix(Part("a", 1))
    assert none.holes.shape == (0, 2)
    assert none.holes.dtype == np.int64
    known = mix(Part("a", 1), Part("b", 1, known=True), Part("c", 1))
    assert known.truth().tolist() == [0, 0, 1, 1, 0, 0]
    assert known.truth().dtype == np.int8


def test_fingerprint_covers_parts_order_and_weights():
    a, b = Part("a", 2), Part("b", 2)
    mixtures = [
        mix(a, b),
        mix(b, a),
        mix(a),
        mix(a, b, weights=(1, 2)),
        mix(a, Part("b", 3)),
        mix(a, Part("b", 2, holes=np.array([[0, 1]]))),
    ]
    assert len({mixture.fingerprint for mixture in mixtures}) == len(mixtures)
    assert mix(a, b).fingerprint == mix(Part("a", 2), Part("b", 2)).fingerprint


def test_numberings_survive_weights_holes_and_growth_of_the_last_part():
    a, b = Part("a", 2), Part("b", 2)
    (numbering,) = mix(a, b).numberings
    assert numbering.length == 8
    for fits in (
        mix(a, b, weights=(1, 9)),
        mix(a, Part("b", 2, holes=np.array([[0, 1]]))),
        mix(a, Part("b", 5, grown_from=(2, 3))),
    ):
        assert numbering in fits.numberings
        assert fits.numberings[-1].length == len(fits)
    for other in (mix(b, a), mix(Part("a", 5, grown_from=(2,)), b), mix(a, Part("c", 2))):
        assert numbering not in other.numberings


def test_in_and_around_other_sources():
    inner = mix(Part("a", 3), Part("b", 3))
    planted = PlantedMismatch(inner, 0.5)
    mixture = Mixture({"c": (Part("c", 1), 1), "planted": (planted, 2)})
    assert len(mixture) == 14
    assert mixture.truth().tolist() == [0, 0, *planted.truth()]
    assert sorted(mixture.caption(i) for i in range(2, 14)) == sorted(map(inner.caption, range(12)))
