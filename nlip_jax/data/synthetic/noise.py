"""Web noise: which examples are spoilt and how. Known, hence measurable."""

import hashlib
import math

import numpy as np

from nlip_jax.data.source import TRUTH
from nlip_jax.data.synthetic.draw import Draw
from nlip_jax.errors import UsageError

_DIGITS = "0123456789"


def check_rates(rates: dict[str, float], *, independent: bool = False) -> None:
    """Checks that the rates can be the parts of one whole.

    Args:
      rates: part of the examples of every kind of noise, by name.
      independent: whether one example may be of several kinds.

    Raises:
      UsageError: a rate is no number in [0, 1], or they add up to more than 1.
    """
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise UsageError(f"{name}={rate}: a noise rate is a number between 0 and 1")
    if math.fsum(rates.values()) > 1 + 1e-9 and not independent:
        listed = " + ".join(f"{name}={rate}" for name, rate in rates.items())
        raise UsageError(
            f"{listed} is more than 1: noise kinds exclude one another; lower a rate, or choose "
            "independent=True"
        )


def plant(example_ids: np.ndarray, rates: dict[str, float], key: str) -> np.ndarray:
    """Says for every example whether its caption is spoilt.

    Each example is decided by a hash of its own id, so counts follow the rates to within sampling
    (binomial), and an example keeps its kind whatever the size of the data set.

    Args:
      example_ids: `[n]` integers.
      rates: part of the examples of each kind; the other examples stay clean.
      key: names the stream of random numbers.

    Returns:
      `[n]` int8, index into `TRUTH`.
    """
    kinds = np.array([0, *(TRUTH.index(name) for name in rates)], np.int8)
    bounds = np.cumsum([0.0, *rates.values()])
    uniform = _uniform(example_ids, key)
    slot = np.searchsorted(bounds, uniform, side="right")  # the interval that holds the number
    return kinds[np.where(slot == len(bounds), 0, slot)]


def plant_independently(
    example_ids: np.ndarray, rates: dict[str, float], key: str
) -> dict[str, np.ndarray]:
    """Says for every example and kind of noise whether it is there; one does not tell of another.

    Args:
      example_ids: `[n]` integers.
      rates: part of the examples of each kind, by name.
      key: names the streams of random numbers, one for each kind.

    Returns:
      `[n]` bool of each kind.
    """
    return {
        name: _uniform(example_ids, f"{key} {name}") < rate for name, rate in rates.items()
    }


def donor(example_id: int, num_examples: int, draw: Draw) -> int:
    """Another example, all others being equally likely: the true home of a mismatched caption."""
    return (example_id + 1 + int(draw.random() * (num_examples - 1))) % num_examples


def irrelevant_text(draw: Draw) -> str:
    """Text of the web that says nothing of any picture."""
    parts = [draw.pick(_WEB_TEXTS)]
    if draw.chance(0.3):
        parts.append(draw.pick(_WEB_TEXTS))
    text = draw.pick((" ", " - ", " | ", ", ")).join(parts)
    return "".join(draw.pick(_DIGITS) if letter == "#" else letter for letter in text)


def _uniform(example_ids: np.ndarray, key: str) -> np.ndarray:
    """Numbers in [0, 1) from a hash of id and key, SplitMix64 (Steele et al., 2014)."""
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    z = np.asarray(example_ids).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(start)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


# A random digit stands for every #.
_WEB_TEXTS = (
    "IMG_####.JPG",
    "DSC0####.jpg",
    "P10#####.JPG",
    "image_##.png",
    "screenshot 20##-0#-1# at 1#.##.##",
    "photo-16########-thumb.jpg",
    "untitled-#.psd",
    "20##-0#-2# 1#:##:##",
    "posted on 1#/0#/20##",
    "last updated # days ago",
    "Canon EOS ##0D f/#.# 1/##0s ISO #00",
    "NIKON D##00, ##mm, f/#.#, 1/#00",
    "free shipping on all orders",
    "free shipping on orders over $##",
    "add to basket",
    "buy now for only $##.99",
    "sale: ##% off everything this week",
    "in stock, ships within # days",
    "SKU: ####-##",
    "item no. ######",
    "page # of ##",
    "next page",
    "showing 1#-## of ### results",
    "click to enlarge",
    "click here for more details",
    "read the full story",
    "subscribe to our newsletter",
    "share this on social media",
    "log in or register to post comments",
    "### comments",
    "copyright 20## all rights reserved",
    "terms and conditions apply",
    "this site uses cookies",
    "image not available",
    "loading, please wait",
    "related articles",
    "written by admin",
    "call us on 0800 ### ###",
    "#.# out of 5, based on ### reviews",
    "download the app today",
    "width=##0 height=##0",
    "www.example.com/gallery/####",
)
