"""The data sets: scenes with captions to train and retrieve, and single objects to classify."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

from nlip_jax.data.source import NO_HOLES, TRUTH, Numbering, Place
from nlip_jax.data.synthetic import noise
from nlip_jax.data.synthetic.captions import describe, thin, word
from nlip_jax.data.synthetic.draw import Draw
from nlip_jax.data.synthetic.render import render
from nlip_jax.data.synthetic.scenes import KINDS, Scene, sample_scene, sample_single
from nlip_jax.errors import UsageError

SPLITS = ("train", "validation", "test")

# Prompts for `ClassScenes.class_names`: those of the field, then the wording of the captions.
TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a drawing of a {}.",
    "{}",
    "a {}",
    "there is a {}.",
    "we see a {}.",
    "this picture shows a {}.",
    "here is a {}",
    "a scene with a {}",
)

# Raise it whenever a change makes other pictures or other words from the same fields.
_DATA_VERSION = 1


@dataclass(frozen=True)
class SyntheticScenes:
    """Scenes of one to four objects with a caption each, some of them spoilt on purpose.

    Pictures depend on seed, split and image_size only; the noise rates change no pixel. An example
    is the same in a larger data set of the same seed, except that the caption of a mismatched one
    may come from any other example there is.

    Attributes:
      num_examples: number of examples, one image each.
      seed: other seeds give other scenes.
      image_size: side of the square images in pixels.
      split: one of `SPLITS`; each has scenes of its own.
      mismatched: part of the examples with the caption of another scene of this data set.
      incomplete: part with a caption that is true and leaves objects and attributes out.
      irrelevant: part with text that describes no picture.
      independent: False: an example is of one kind at most. True: kinds are drawn on their own, so
        a caption may be another scene's and incomplete; text that describes no picture comes in
        place of any other.

    Raises:
      UsageError: a field is out of its range.
    """

    num_examples: int
    seed: int
    image_size: int = 32
    split: str = "train"
    mismatched: float = 0.0
    incomplete: float = 0.0
    irrelevant: float = 0.0
    independent: bool = False

    def __post_init__(self) -> None:
        _check(self.split, num_examples=self.num_examples, image_size=self.image_size)
        noise.check_rates(self._rates, independent=self.independent)
        if self.mismatched > 0 and self.num_examples == 1:
            raise UsageError(
                f"mismatched={self.mismatched} needs another scene to take captions from: "
                "ask for 2 or more examples"
            )

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; another one for other images or captions."""
        rates = map(float, self._rates.values())
        # Only named where it is so: data sets from before this field keep their fingerprints.
        drawn = ("independent",) if self.independent else ()
        return _fingerprint(
            "scenes", self.num_examples, self.seed, self.image_size, self.split, *rates, *drawn
        )

    @property
    def numberings(self) -> tuple[Numbering, ...]:
        """The one that the fingerprint names."""
        return (Numbering(len(self), self.fingerprint),)

    @property
    def draws_captions(self) -> bool:
        """A scene keeps its caption."""
        return False

    @property
    def holes(self) -> np.ndarray:
        """None."""
        return NO_HOLES

    @property
    def num_images(self) -> int:
        """One image an example."""
        return self.num_examples

    def __len__(self) -> int:
        return self.num_examples

    def image_id(self, example_id: int) -> int:
        """The image of an example: the one of the same number."""
        return _in_range(example_id, self.num_examples)

    def picture(self, image_id: int) -> np.ndarray:
        """The picture, `[image_size, image_size, 3]` uint8 RGB."""
        return render(self.scene(image_id), self.image_size)

    def place(self, image_id: int) -> Place:
        """Its number; nothing lies anywhere."""
        return Place("synthetic", f"{self.split}/{image_id}")

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The caption that training sees, the same one in every epoch."""
        planted = self._planted(np.array([example_id]))
        if planted["irrelevant"][0]:
            return noise.irrelevant_text(self._draw("irrelevant", example_id))
        home = self._donor(example_id) if planted["mismatched"][0] else example_id
        if planted["incomplete"][0]:
            return self._incomplete_caption(home)
        return self.clean_caption(home)

    def truth(self) -> np.ndarray:
        """Index into `TRUTH` of every example, `[n]` int8; of several kinds, the worst."""
        planted = self._planted(np.arange(self.num_examples))
        truth = np.zeros(self.num_examples, np.int8)
        for name in ("incomplete", "mismatched", "irrelevant"):  # each hides those before it
            truth[planted[name]] = TRUTH.index(name)
        return truth

    def scene(self, example_id: int) -> Scene:
        """What the picture shows."""
        return sample_scene(self._draw("scene", _in_range(example_id, self.num_examples)))

    def clean_caption(self, example_id: int) -> str:
        """The caption that the example would have without noise."""
        draw = self._draw("caption", example_id)
        return word(describe(self.scene(example_id), draw), draw)

    def _planted(self, example_ids: np.ndarray) -> dict[str, np.ndarray]:
        """The kinds of noise in examples, `[n]` bool each."""
        key = self._key("noise")
        if self.independent:
            return noise.plant_independently(example_ids, self._rates, key)
        kinds = noise.plant(example_ids, self._rates, key)
        return {name: kinds == TRUTH.index(name) for name in self._rates}

    def _donor(self, example_id: int) -> int:
        """Whose caption a mismatched example has."""
        draw = self._draw("mismatched", example_id)
        return noise.donor(example_id, self.num_examples, draw)

    def _incomplete_caption(self, example_id: int) -> str:
        draw = self._draw("incomplete", example_id)
        return word(thin(describe(self.scene(example_id), draw), draw), draw)

    @property
    def _rates(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in TRUTH[1:]}

    def _key(self, stream: str) -> str:
        return f"{stream} {self.seed} {self.split}"

    def _draw(self, stream: str, example_id: int) -> Draw:
        return Draw(f"{self._key(stream)} {example_id}")


@dataclass(frozen=True)
class ClassScenes:
    """One object an image, with its class: for zero-shot classification and linear probes.

    Classes take turns, so any leading part of the data set is balanced to within one image.

    Attributes:
      images_per_class: images of each of the colour x shape classes.
      seed: other seeds give other scenes.
      image_size: side of the square images in pixels.
      split: one of `SPLITS`; each has scenes of its own.

    Raises:
      UsageError: a field is out of its range.
    """

    images_per_class: int
    seed: int
    image_size: int = 32
    split: str = "validation"

    def __post_init__(self) -> None:
        _check(self.split, images_per_class=self.images_per_class, image_size=self.image_size)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes such as "red circle"; `labels` index them."""
        return tuple(f"{colour} {shape}" for colour, shape in KINDS)

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompts with `{}` in place of the class name."""
        return TEMPLATES

    @property
    def labels(self) -> np.ndarray:
        """Class of every example, `[n]` int32."""
        return np.arange(len(self), dtype=np.int32) % len(KINDS)

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; another one for other images or captions."""
        return _fingerprint(
            "classes", self.images_per_class, self.seed, self.image_size, self.split
        )

    @property
    def numberings(self) -> tuple[Numbering, ...]:
        """The one that the fingerprint names."""
        return (Numbering(len(self), self.fingerprint),)

    @property
    def draws_captions(self) -> bool:
        """A scene keeps its caption."""
        return False

    @property
    def holes(self) -> np.ndarray:
        """None."""
        return NO_HOLES

    @property
    def num_images(self) -> int:
        """One image an example."""
        return len(self)

    def __len__(self) -> int:
        return self.images_per_class * len(KINDS)

    def image_id(self, example_id: int) -> int:
        """The image of an example: the one of the same number."""
        return _in_range(example_id, len(self))

    def picture(self, image_id: int) -> np.ndarray:
        """The picture, `[image_size, image_size, 3]` uint8 RGB."""
        return render(self.scene(image_id), self.image_size)

    def place(self, image_id: int) -> Place:
        """Its number; nothing lies anywhere."""
        return Place("class_scenes", f"{self.split}/{image_id}")

    def caption(self, example_id: int, epoch: int = 0) -> str:
        """The name of the class."""
        return self.class_names[_in_range(example_id, len(self)) % len(KINDS)]

    def truth(self) -> np.ndarray:
        """All clean, `[n]` int8."""
        return np.zeros(len(self), np.int8)

    def scene(self, example_id: int) -> Scene:
        """What the picture shows."""
        kind = KINDS[_in_range(example_id, len(self)) % len(KINDS)]
        return sample_single(Draw(f"class {self.seed} {self.split} {example_id}"), kind)


def _check(split: str, **sizes: int) -> None:
    if split not in SPLITS:
        raise UsageError(f"split={split!r} is none of {', '.join(SPLITS)}")
    for name, value in sizes.items():
        if value < 1:
            raise UsageError(f"{name}={value}: must be at least 1")


def _in_range(number: int, bound: int) -> int:
    if not 0 <= number < bound:
        raise IndexError(f"{number} is not in [0, {bound})")
    return number


def _fingerprint(*made_of: str | int | float) -> str:
    return hashlib.sha256(json.dumps([_DATA_VERSION, *made_of]).encode()).hexdigest()[:32]
