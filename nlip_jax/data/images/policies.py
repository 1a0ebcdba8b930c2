"""RandAugment and AutoAugment: random operations on uint8 `[h, w, 3]` RGB images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from nlip_jax.data.images import color, geometry

# (image, rng, num_ops=..., magnitude=...) -> image
Policy = Callable[..., np.ndarray]
MAX_MAGNITUDE = 10  # of RandAugment


@dataclasses.dataclass(frozen=True)
class Operation:
    """Something done to an image, more or less.

    Attributes:
      apply: (image, amount) -> image, or image -> image where there is no more or less.
      amounts: at the smallest and at the largest magnitude; empty where there is none.
      either_way: whether the amount is negated for every second image, at random.
    """

    apply: Callable[..., np.ndarray]
    amounts: tuple[()] | tuple[float, float] = ()
    either_way: bool = False

    def __call__(self, image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
        """Applies it with a magnitude of `share` in [0, 1] of the largest."""
        if not self.amounts:
            return self.apply(image)
        least, most = self.amounts
        amount = least + (most - least) * share
        return self.apply(image, -amount if self.either_way and rng.random() < 0.5 else amount)


_FACTORS = (0.1, 1.9)

# Ranges of AutoAugment (Cubuk et al. 2019, table 6), where images had 331 pixels a side. Solarize
# and Posterize go from weak to strong, as in torchvision.
OPERATIONS: dict[str, Operation] = {
    "Identity": Operation(lambda image: image),
    "ShearX": Operation(geometry.shear_x, (0, 0.3), either_way=True),
    "ShearY": Operation(geometry.shear_y, (0, 0.3), either_way=True),
    "TranslateX": Operation(geometry.translate_x, (0, 150 / 331), either_way=True),
    "TranslateY": Operation(geometry.translate_y, (0, 150 / 331), either_way=True),
    "Rotate": Operation(geometry.rotate, (0, 30), either_way=True),
    "AutoContrast": Operation(color.auto_contrast),
    "Invert": Operation(color.invert),
    "Equalize": Operation(color.equalize),
    "Solarize": Operation(color.solarize, (256, 0)),
    "Posterize": Operation(color.posterize, (8, 4)),
    "Contrast": Operation(color.contrast, _FACTORS),
    "Color": Operation(color.saturation, _FACTORS),
    "Brightness": Operation(color.brightness, _FACTORS),
    "Sharpness": Operation(color.sharpness, _FACTORS),
}

# RandAugment (Cubuk et al. 2020, section 3): 14 operations.
_RANDAUGMENT = {name: operation for name, operation in OPERATIONS.items() if name != "Invert"}

# ALBEF's and TCL's (Li et al. 2021, Yang et al. 2022, their code): no operations on colours but
# brightness, shifts of at most 10 pixels in images of 256, and half of what is drawn left out.
_ALBEF = {
    name: OPERATIONS[name]
    for name in ("Identity", "AutoContrast", "Equalize", "Brightness", "Sharpness")
} | {
    "ShearX": OPERATIONS["ShearX"],
    "ShearY": OPERATIONS["ShearY"],
    "TranslateX": Operation(geometry.translate_x, (0, 10 / 256), either_way=True),
    "TranslateY": Operation(geometry.translate_y, (0, 10 / 256), either_way=True),
    "Rotate": OPERATIONS["Rotate"],
}

# The 25 sub-policies for ImageNet (Cubuk et al. 2019, table 9), each two times (operation,
# probability, step of the magnitude); the step is 0 where the operation has no magnitude.
_AUTOAUGMENT = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)
_LAST_STEP = 9


def rand_augment(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    operations: Mapping[str, Operation],
    num_ops: int,
    magnitude: float,
    prob: float = 1.0,
) -> np.ndarray:
    """Applies operations drawn with replacement (Cubuk et al. 2020).

    Args:
      image: `[h, w, 3]` uint8.
      rng: the only source of randomness.
      operations: to draw from.
      num_ops: how many are drawn.
      magnitude: of all of them, in [0, `MAX_MAGNITUDE`].
      prob: of each one that was drawn to be applied.

    Returns:
      `[h, w, 3]` uint8.
    """
    choices = tuple(operations.values())
    for number in rng.integers(len(choices), size=num_ops).tolist():
        if prob == 1.0 or rng.random() < prob:
            image = choices[number](image, magnitude / MAX_MAGNITUDE, rng)
    return image


def auto_augment(
    image: np.ndarray, rng: np.random.Generator, *, num_ops: int = 2, magnitude: float = 0
) -> np.ndarray:
    """Applies one of the sub-policies found for ImageNet (Cubuk et al. 2019).

    Args:
      image: `[h, w, 3]` uint8.
      rng: the only source of randomness.
      num_ops: is ignored, as a sub-policy has two operations ...
      magnitude: ... and says how strong they are.

    Returns:
      `[h, w, 3]` uint8.
    """
    del num_ops, magnitude
    for name, prob, step in _AUTOAUGMENT[int(rng.integers(len(_AUTOAUGMENT)))]:
        if rng.random() < prob:
            image = OPERATIONS[name](image, step / _LAST_STEP, rng)
    return image


def no_policy(
    image: np.ndarray, rng: np.random.Generator, *, num_ops: int = 0, magnitude: float = 0
) -> np.ndarray:
    """Leaves the image as it is."""
    del rng, num_ops, magnitude
    return image


POLICIES: dict[str, Policy] = {
    "none": no_policy,
    "randaugment": functools.partial(rand_augment, operations=_RANDAUGMENT),
    "randaugment_albef": functools.partial(rand_augment, operations=_ALBEF, prob=0.5),
    "autoaugment": auto_augment,
}
