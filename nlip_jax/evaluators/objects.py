"""Whether captions name the objects of procedural scenes: precision and recall against the truth.

"objects" are shapes; "coloured_objects" are shapes with their colours, and count only where both
are right. A shape that a caption names twice in two colours is one shape and two coloured objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nlip_jax.data.synthetic.objects import NamedObject, object_words, objects_of
from nlip_jax.data.synthetic.scenes import Scene


@dataclass(frozen=True, eq=False)
class ObjectCounts:
    """What is counted of each caption, `[n]` int64 all of them.

    Attributes:
      right: objects of the scene that the caption names.
      named: objects that the caption names.
      shown: objects of the scene.
    """

    right: np.ndarray
    named: np.ndarray
    shown: np.ndarray

    @property
    def precision(self) -> float:
        """Of what captions name, the share that is there; NaN where they name nothing."""
        return _ratio(self.right, self.named)

    @property
    def recall(self) -> float:
        """Of what is there, the share that captions name."""
        return _ratio(self.right, self.shown)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 0 where captions name nothing."""
        return _ratio(2 * self.right, self.named + self.shown)


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")


def _shapes(objects: frozenset[NamedObject]) -> frozenset[str]:
    return frozenset(one.shape for one in objects)


def _coloured(objects: frozenset[NamedObject]) -> frozenset[NamedObject]:
    return frozenset(one for one in objects if one.colour is not None)


# Name of a metric -> what of the objects it looks at.
_VIEWS: dict[str, Callable[[frozenset[NamedObject]], frozenset]] = {
    "objects": _shapes,
    "coloured_objects": _coloured,
}


def count_objects(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, ObjectCounts]:
    """Counts the objects of captions and scenes, caption by caption.

    Args:
      captions: `n` of them.
      scenes: what the image of each shows.

    Returns:
      By "objects" and "coloured_objects".
    """
    pairs = [
        (object_words(caption), objects_of(scene))
        for caption, scene in zip(captions, scenes, strict=True)
    ]
    found = {}
    for name, view in _VIEWS.items():
        sides = [(view(named), view(shown)) for named, shown in pairs]
        counts = [(len(named & shown), len(named), len(shown)) for named, shown in sides]
        found[name] = ObjectCounts(*np.array(counts, np.int64).reshape(-1, 3).T)
    return found


def score_objects(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """Precision, recall and F1 of the objects that captions name, over all captions together.

    Args:
      captions: `n` of them.
      scenes: what the image of each shows, such as `SyntheticScenes.scene`.

    Returns:
      "objects/precision" and so on, shares in [0, 1]; `count_objects` has what they are made of.
    """
    return {
        f"{name}/{metric}": getattr(counts, metric)
        for name, counts in count_objects(captions, scenes).items()
        for metric in ("precision", "recall", "f1")
    }
