"""Images and captions with ids, and people's judgements of how alike two of them are.

The layout is that of Crisscrossed Captions (Parekh et al., EACL 2021): CSV files whose first two
columns name items, whose third is the mean rating, and whose header tells images from captions;
the ids are those of Karpathy's split of COCO.
"""

import csv
import io
import json
import posixpath
from dataclasses import dataclass

import numpy as np

from nlip_jax.data.formats.captions import clean
from nlip_jax.data.formats.reading import read_text_file, resolve
from nlip_jax.data.sources.image_files import ImageFiles
from nlip_jax.data.storage import Storage
from nlip_jax.errors import UsageError

KINDS = ("image", "caption")


@dataclass(frozen=True, eq=False)
class Items:
    """Images and captions that judgements are about.

    Attributes:
      source: them, in the order of the file.
      images: number of each image by its file name, without folders.
      captions: number of each caption by its id.
    """

    source: ImageFiles
    images: dict[str, int]
    captions: dict[str, int]

    def number(self, kind: str, name: str) -> int | None:
        """The number of an item as a judgement names it; None if it is not there.

        Args:
          kind: one of `KINDS`.
          name: a file name, or an id, such as COCO_val2014:sentid:732091, whose last part counts.
        """
        if kind == "image":
            return self.images.get(posixpath.basename(name))
        return self.captions.get(name.rpartition(":")[2])


@dataclass(frozen=True, eq=False)
class Judgements:
    """Ratings of pairs.

    Attributes:
      kinds: of the first and of the second item of all pairs, from `KINDS`.
      pairs: `[p, 2]` numbers of the items.
      ratings: `[p]` float64, higher for what is more alike.
    """

    kinds: tuple[str, str]
    pairs: np.ndarray
    ratings: np.ndarray


def read_items(path: str, *, root: str, splits: tuple[str, ...], storage: Storage) -> Items:
    """Reads images and captions with their ids.

    Args:
      path: Karpathy's JSON: `{"images": [{"filename", "filepath", "split", "sentences": [{"sentid",
        "raw"}]}]}`.
      root: folder of the images; empty: that of the file.
      splits: takes only images of these; empty takes all.
      storage: how files are reached.

    Raises:
      UsageError: it is no such file, has no images of these splits, or some are not there.
    """
    names, paths, captions, owners, ids = [], [], [], [], []
    try:
        for record in json.loads(read_text_file(path, storage))["images"]:
            if splits and record.get("split") not in splits:
                continue
            for sentence in record["sentences"]:
                captions.append("".join(clean([sentence["raw"]])))
                owners.append(len(names))
                ids.append(str(sentence["sentid"]))
            names.append(posixpath.basename(record["filename"]))
            file = posixpath.join(record.get("filepath", ""), record["filename"])
            paths.append(resolve(file, shard=path, root=root))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path}: judgements need Karpathy's JSON, with filename and sentences of sentid and "
            f"raw for each of its images ({type(error).__name__}: {error})"
        ) from error
    if not names or not captions:
        raise UsageError(f"{path} has no images with captions of splits={splits}")
    source = ImageFiles(paths, storage=storage, captions=captions, owners=owners, named_in=path)
    return Items(
        source,
        images={name: number for number, name in enumerate(names)},
        captions={one: number for number, one in enumerate(ids)},
    )


def read_judgements(path: str, items: Items, *, storage: Storage) -> Judgements:
    """Reads a CSV file of ratings.

    Args:
      path: of it; its header begins with the kinds of the two items and the rating, such as
        caption,image,agg_score or image1,image2,agg_score.
      items: that it is about.
      storage: how files are reached.

    Raises:
      UsageError: it is no such file, or rates items that are not there.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_text_file(path, storage)), strict=True))
    except csv.Error as error:
        raise UsageError(f"{path} is no CSV file: {error}") from error
    header = rows[0] if rows else []
    kinds = tuple(next((k for k in KINDS if column.startswith(k)), "") for column in header[:2])
    if len(header) < 3 or "" in kinds:
        raise UsageError(
            f"{path}: its header is {','.join(header)!r}, and must begin with two columns called "
            "image... or caption..., and a rating"
        )
    pairs, ratings, unknown = [], [], []
    for line, row in enumerate(rows[1:], 2):
        if not row:
            continue
        try:
            ratings.append(float(row[2]))
        except (IndexError, ValueError) as error:
            raise UsageError(f"{path}:{line}: the third column is no rating ({error})") from error
        if not np.isfinite(ratings[-1]):
            raise UsageError(f"{path}:{line}: the rating {row[2]} is not finite")
        pair = [items.number(kind, name) for kind, name in zip(kinds, row, strict=False)]
        unknown += [row[place] for place, number in enumerate(pair) if number is None]
        pairs.append(pair)
    if unknown:
        raise UsageError(
            f"{path} rates {len(unknown)} items that {items.source.named_in} does not have, such "
            f"as {unknown[0]!r}: name the split it was made for"
        )
    if not pairs:
        raise UsageError(f"{path} has no ratings")
    return Judgements(kinds, np.array(pairs, np.int64), np.array(ratings, np.float64))
