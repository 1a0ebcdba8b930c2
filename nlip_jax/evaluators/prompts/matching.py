"""Which class name belongs to which folder or label of a data set."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nlip_jax.errors import UsageError
from nlip_jax.evaluators.prompts.entries import Prompts

_BETWEEN_WORDS = re.compile(r"[\W_]+")
_SHOWN = 4  # names of one kind in a message


@dataclass(frozen=True)
class OwnClass:
    """A class as the data set has it.

    Attributes:
      folder: folder, or name of the label.
      name: what a file of class names beside the data calls it; the folder where there is none.
      count: images of it.
    """

    folder: str
    name: str
    count: int


@dataclass(frozen=True)
class Matching:
    """Class names for a data set.

    Attributes:
      class_names: of the classes that are evaluated, in the order of the prompts.
      places: `[own classes]` int32, place of each in `class_names`; -1 for one without images
        that has no name.
    """

    class_names: tuple[str, ...]
    places: np.ndarray


def normalise(name: str) -> str:
    """Lower case, and nothing but letters and digits: "Apply_Eye-Makeup" is "applyeyemakeup"."""
    return _BETWEEN_WORDS.sub("", name.casefold())


def match_names(own: Sequence[OwnClass], prompts: Prompts) -> Matching:
    """Finds the class name that every folder means, by its letters and digits.

    Args:
      own: the classes of the data set.
      prompts: the class names.

    Raises:
      UsageError: a folder with images has no name, or several; a name has no folder, and is not
        optional.
    """
    keys = [
        {normalise(name), *map(normalise, prompts.folders[i : i + 1])}
        for i, name in enumerate(prompts.class_names)
    ]
    mine = [{normalise(one.folder), normalise(one.name)} for one in own]
    if len(own) == len(keys) and all(map(set.intersection, mine, keys)):
        found = [[i] for i in range(len(own))]  # even where two classes have the same name
    else:
        by_key = defaultdict(set)
        for i, names in enumerate(keys):
            for key in names:
                by_key[key].add(i)
        found = [sorted(set().union(*(by_key.get(key, ()) for key in names))) for names in mine]
    left_over = [
        one.folder for one, to in zip(own, found, strict=True) if one.count and not to
    ]
    for one, to in zip(own, found, strict=True):
        if len(to) > 1:
            names = " and ".join(repr(prompts.class_names[i]) for i in to[:2])
            raise UsageError(
                f"folder {one.folder!r} may be {names} of prompts={prompts.name!r}: rename it, or "
                "set match='order'"
            )
    places = np.array([to[0] if to else -1 for to in found], np.int32)
    taken, counts = np.unique(places[places >= 0], return_counts=True)
    for i in taken[counts > 1][:1]:
        both = [one.folder for one, place in zip(own, places, strict=True) if place == i]
        raise UsageError(
            f"folders {both[0]!r} and {both[1]!r} both mean {prompts.class_names[i]!r} of "
            f"prompts={prompts.name!r}: rename one, or merge them"
        )
    absent = sorted(set(range(len(keys))) - set(taken.tolist()))
    missing = [
        prompts.class_names[i] for i in absent if prompts.class_names[i] not in prompts.optional
    ]
    if left_over or missing:
        raise UsageError(_mismatch(left_over, missing, prompts))
    kept = [i for i in range(len(keys)) if i not in absent]
    place_of = np.full(len(keys) + 1, -1, np.int32)  # the last one is for -1
    place_of[kept] = np.arange(len(kept))
    return Matching(tuple(prompts.class_names[i] for i in kept), place_of[places])


def match_order(own: Sequence[OwnClass], prompts: Prompts) -> Matching:
    """Gives the first class the first name, and so on.

    Args:
      own: the classes of the data set, in the order of their labels or sorted by their folders.
      prompts: the class names; where there are too many, the optional ones are left out.

    Raises:
      UsageError: another number of them.
    """
    names = prompts.class_names
    if len(names) != len(own):
        names = tuple(name for name in names if name not in prompts.optional)
    if len(names) != len(own):
        raise UsageError(
            f"match='order' needs as many classes as class names: the set has {len(own)}, "
            f"prompts={prompts.name!r} has {len(prompts.class_names)}; remove what is no class, or "
            "set match='names'"
        )
    return Matching(names, np.arange(len(own), dtype=np.int32))


MATCHES: dict[str, Callable[[Sequence[OwnClass], Prompts], Matching]] = {
    "names": match_names,
    "order": match_order,
}


def _mismatch(left_over: list[str], missing: list[str], prompts: Prompts) -> str:
    parts = []
    if left_over:
        parts.append(f"{_count(left_over, 'folder')} without a class name ({_list(left_over)})")
    if missing:
        parts.append(f"{_count(missing, 'class name')} without a folder ({_list(missing)})")
    return (
        f"the folders are not the classes of prompts={prompts.name!r}: {' and '.join(parts)}; "
        "rename the folders, or write a JSON file with their names in \"folders\" beside "
        "\"classnames\" and set prompts to its path, or set match='order' if both are in the same "
        "order"
    )


def _count(names: list[str], what: str) -> str:
    return f"{len(names)} {what}{'s' * (len(names) > 1)}"


def _list(names: list[str]) -> str:
    more = f", {len(names) - _SHOWN} more" if names[_SHOWN:] else ""
    return ", ".join(names[:_SHOWN]) + more
