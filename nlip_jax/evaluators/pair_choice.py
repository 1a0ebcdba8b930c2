"""Which caption belongs to which image: compositionality, as Winoground and SugarCrepe ask for it.

The text score asks each image for its caption, the image score each caption for its image, and the
group score for both (Thrush et al., CVPR 2022, arXiv 2204.03162); with one image a record there is
the accuracy alone (Hsieh et al., NeurIPS 2023, arXiv 2306.14610). Only a score above all wrong ones
is right: equal ones earn nothing, nor does what cannot be read.
"""

import dataclasses
import functools
import itertools
import math

import numpy as np

from nlip_jax.data.choices import Choice, Choices
from nlip_jax.data.sources.image_files import ImageFiles
from nlip_jax.errors import UsageError
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.pairs import score_pairs
from nlip_jax.evaluators.recalls import mean_of
from nlip_jax.evaluators.retrieval_examples import choose, pictures_of
from nlip_jax.evaluators.search import ImagesToTexts, TextsToImages
from nlip_jax.outcome import Item, Outcome, Queries, Query, Samples

_MOST_CELLS = 9  # scores of a record whose orders are all gone through for the chance level


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PairChoice:
    """The records of some files.

    Attributes:
      choices: them; all ask for a caption, or all for an image, or all for both.
      examples: records that are shown.

    Raises:
      UsageError: some records ask for other things than the others.
    """

    choices: Choices
    examples: int = 6

    def __post_init__(self):
        kinds = {_asks(record) for record in self.choices.records}
        if len(kinds) > 1:
            raise UsageError(
                "pair_choice: some records have one image or one caption, and some have several "
                "of both: make a set of each"
            )

    @property
    def source(self) -> ImageFiles:
        """The images."""
        return self.choices.source

    def run(self, towers: Towers) -> Outcome:
        """Shares of records, overall, by file and by tag, and what chance would earn.

        Returns:
          text_score, image_score, group_score and text_chance, ...; or accuracy and chance. With
          several files these are unweighted means over files, and FILE/... is each; TAG/... is of
          the records of a tag in all files.
        """
        records = self.choices.records
        images = towers.embed_images(self.source)
        texts = towers.embed_texts(list(self.choices.captions))
        pairs = np.array(
            [pair for one in records for pair in itertools.product(one.images, one.captions)]
        )
        scores = functools.partial(score_pairs, mesh=towers.mesh)
        by_image = scores(images, texts, pairs, score=ImagesToTexts(towers.similarity))
        by_text = scores(texts, images, pairs[:, ::-1], score=TextsToImages(towers.similarity))
        starts = np.cumsum([0, *(len(one.images) * len(one.captions) for one in records)])
        right = {name: np.zeros(len(records)) for name in _SCORES}
        for number, record in enumerate(records):
            part, shape = slice(*starts[number : number + 2]), _shape(record)
            right["text"][number] = _finds_captions(by_image[part].reshape(shape), record)
            right["image"][number] = _finds_images(by_text[part].reshape(shape), record)
        right["group"] = right["text"] * right["image"]
        chances = {name: np.array([chance(one, name) for one in records]) for name in _SCORES}
        asked = _asks(records[0])
        shown = {name: right[name] for name in asked}
        metrics, samples = _summary(shown, {name: chances[name] for name in asked}, records)
        return Outcome(
            metrics=metrics,
            samples=samples,
            headline=_name(asked[0], asked),
            exhibits=(self._examples(towers, right["group"], by_image, starts),)
            if self.examples
            else (),
        )

    def _examples(
        self, towers: Towers, right: np.ndarray, scores: np.ndarray, starts: np.ndarray
    ) -> Queries:
        """Images and how their captions scored; or a caption and its images."""
        picture = pictures_of(self.source, max_pixels=towers.transform.max_pixels)
        texts, shown = self.choices.captions, []
        for number in choose(1 - right.astype(np.int64), count=self.examples).tolist():
            record = self.choices.records[number]
            table = scores[starts[number] : starts[number + 1]].reshape(_shape(record))
            image, caption = record.right[0]
            if len(record.captions) > 1:
                query = picture(record.images[image])
                answers = [Item(text=texts[one]) for one in record.captions]
                shown.append(_shown(query, answers, table[image], caption, right[number]))
            else:
                query = Item(text=texts[record.captions[0]])
                answers = [picture(one) for one in record.images]
                shown.append(_shown(query, answers, table[:, 0], image, right[number]))
        return Queries(title="Choices", queries=tuple(shown))


_SCORES = ("group", "text", "image")


def _asks(record: Choice) -> tuple[str, ...]:
    """Which of `_SCORES` a record has, the most telling first."""
    if len(record.images) == 1 or len(record.captions) == 1:
        return ("group",)
    return _SCORES


def _name(score: str, asked: tuple[str, ...]) -> str:
    return f"{score}_score" if len(asked) > 1 else "accuracy"


def _shape(record: Choice) -> tuple[int, int]:
    return len(record.images), len(record.captions)


def _finds_captions(scores: np.ndarray, record: Choice) -> bool:
    """Whether the caption of every image scores above all others; `[images, captions]`."""
    return all(
        scores[i, j] > other for i, j in record.right for other in np.delete(scores[i], j).tolist()
    )


def _finds_images(scores: np.ndarray, record: Choice) -> bool:
    """Whether the image of every caption scores above all others; `[images, captions]`."""
    return all(
        scores[i, j] > other
        for i, j in record.right
        for other in np.delete(scores[:, j], i).tolist()
    )


def chance(record: Choice, score: str) -> float:
    """How often random scores, no two alike, earn a record.

    Args:
      record: some images and captions.
      score: "text", "image" or "group".

    Returns:
      A share; NaN for the group score of a record with several of both and over 9 pairs.
    """
    return _chance(*_shape(record), record.right, score)


@functools.cache
def _chance(n: int, m: int, right: tuple[tuple[int, int], ...], score: str) -> float:
    text, image = m ** -len(right), n ** -len(right)
    if score == "text":
        return text
    if score == "image":
        return image
    if n == 1 or m == 1:
        return text * image
    if n * m > _MOST_CELLS:
        return math.nan
    record = Choice(tuple(range(n)), tuple(range(m)), right, "", "")
    orders = (np.reshape(order, (n, m)) for order in itertools.permutations(range(n * m)))
    hits = sum(_finds_captions(order, record) and _finds_images(order, record) for order in orders)
    return hits / math.factorial(n * m)


def _summary(
    right: dict[str, np.ndarray], chances: dict[str, np.ndarray], records: tuple[Choice, ...]
) -> tuple[dict[str, float], dict[str, Samples]]:
    """The means over files of the means over their records, those of each file, and of each tag."""
    files, tags = (np.array([getattr(one, name) for one in records]) for name in ("file", "tag"))
    names, asked = list(dict.fromkeys(files.tolist())), tuple(right)
    numbers = np.arange(len(records))
    metrics: dict[str, float] = {}
    samples: dict[str, Samples] = {}
    for score, values in right.items():
        name = _name(score, asked)
        of_files = [Samples(values=values[files == file]) for file in names]
        if len(names) == 1:
            samples[name] = of_files[0]
        else:
            samples[name] = mean_of(of_files, [numbers[files == file] for file in names])
            samples |= {f"{file}/{name}": one for file, one in zip(names, of_files, strict=True)}
        for tag in sorted(set(tags.tolist()) - {""}):
            samples[f"{tag}/{name}"] = Samples(values=values[tags == tag])
    metrics = {name: float(one.values.mean()) for name, one in samples.items()}
    for score, values in chances.items():
        level = np.mean([values[files == file].mean() for file in names])
        if not np.isnan(level):
            metrics[f"{score}_chance" if len(asked) > 1 else "chance"] = float(level)
    return metrics, samples


def _shown(
    query: Item, answers: list[Item], scores: np.ndarray, right: int, is_right: float
) -> Query:
    order = np.argsort(-scores, kind="stable").tolist()
    return Query(
        query=query,
        answers=tuple(
            dataclasses.replace(answers[i], score=float(scores[i]), is_right=i == right)
            for i in order
        ),
        note="right" if is_right else "wrong",
    )
