"""Image-text retrieval: find the captions of an image among all captions, and the other way.

An image may have several captions, and finding any of them counts (Karpathy and Fei-Fei, CVPR
2015). Sets in several languages share their images, which are embedded once.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from nlip_jax.data.source import Source, image_ids
from nlip_jax.data.sources.prompted import NO_PROMPT, Prompt, Prompted
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.recalls import CUTS, mean_metrics, mean_of, recalls, right_answers
from nlip_jax.evaluators.retrieval_examples import TOP, captions_of, pictures_of, show_queries
from nlip_jax.methods.base import Features
from nlip_jax.outcome import Outcome, Queries, Samples

WAYS = ("image_to_text", "text_to_image")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Captions:
    """Captions of images that another source has.

    Attributes:
      source: of the captions.
      owners: `[n]` image of each caption, as the images are numbered there.
    """

    source: Source
    owners: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """One captioned set.

    Attributes:
      source: its images, and captions where there are no `languages`.
      languages: captions of the same images by language.
      image_to_text: stands around the captions that images look for (FILIP, arXiv 2111.07783).
      text_to_image: stands around the captions that look for images.
      examples: queries of each way that are shown, of the first language.
    """

    source: Source
    languages: Mapping[str, Captions] = dataclasses.field(default_factory=dict)
    image_to_text: Prompt = NO_PROMPT
    text_to_image: Prompt = NO_PROMPT
    examples: int = 6

    def run(self, towers: Towers) -> Outcome:
        """Recall@1/5/10 and median rank both ways, and mean_recall, the mean of the six recalls.

        With languages these stand under the name of each, and their means over languages alone.
        """
        images = towers.embed_images(self.source)
        if not self.languages:
            owners = image_ids(self.source, np.arange(len(self.source)))
            return self._of(
                towers, images, Captions(source=self.source, owners=owners), examples=self.examples
            )
        found: dict[str, Outcome] = {}
        for language, captions in self.languages.items():
            examples = 0 if found else self.examples
            found[language] = self._of(towers, images, captions, examples=examples)
        first, *_ = parts = list(found.values())
        metrics, samples = mean_metrics([part.metrics for part in parts]), {}
        for name in first.samples:
            samples[name] = _mean_by_image([part.samples[name] for part in parts])
        for language, part in found.items():
            metrics |= {f"{language}/{name}": value for name, value in part.metrics.items()}
            samples |= {f"{language}/{name}": one for name, one in part.samples.items()}
        return Outcome(
            metrics=metrics, samples=samples, headline="mean_recall", exhibits=first.exhibits
        )

    def _of(
        self, towers: Towers, images: Features, captions: Captions, *, examples: int
    ) -> Outcome:
        """Of one language."""
        texts = towers.embed_captions(Prompted(captions.source, self.image_to_text))
        asking = texts
        if self.text_to_image != self.image_to_text:
            asking = towers.embed_captions(Prompted(captions.source, self.text_to_image))
        owners, numbers = captions.owners, np.arange(len(captions.owners))
        theirs = right_answers(owners, numbers, num_queries=self.source.num_images)
        to_text = towers.search_texts(images, texts, right=theirs).rank
        to_image = towers.search_images(asking, images, right=owners[:, None]).rank

        metrics, samples = recalls(WAYS[0], to_text)
        of_texts, their_samples = recalls(WAYS[1], to_image, groups=owners)
        metrics, samples = metrics | of_texts, samples | their_samples
        names = [f"{way}/recall@{cut}" for way in WAYS for cut in CUTS]
        metrics = {"mean_recall": float(np.mean([metrics[name] for name in names]))} | metrics
        samples["mean_recall"] = _mean_by_image([samples[name] for name in names])

        exhibits = ()
        if examples:
            exhibits = self._examples(
                towers,
                captions.source,
                images=images,
                texts=texts,
                asking=asking,
                theirs=theirs,
                owners=owners,
                ranks=(to_text, to_image),
                count=examples,
            )
        return Outcome(metrics=metrics, samples=samples, headline="mean_recall", exhibits=exhibits)

    def _examples(
        self,
        towers: Towers,
        captions: Source,
        *,
        images: Features,
        texts: Features,
        asking: Features,
        theirs: np.ndarray,
        owners: np.ndarray,
        ranks: tuple[np.ndarray, np.ndarray],
        count: int,
    ) -> tuple[Queries, ...]:
        """Some queries of both ways, and what they found."""
        picture = pictures_of(self.source, max_pixels=towers.transform.max_pixels)
        caption = captions_of(captions)
        return (
            show_queries(
                "Image to text",
                rank=ranks[0],
                right=theirs,
                features=images,
                search=lambda some: towers.search_texts(some, texts, top=TOP),
                query=picture,
                answer=caption,
                count=count,
            ),
            show_queries(
                "Text to image",
                rank=ranks[1],
                right=owners[:, None],
                features=asking,
                search=lambda some: towers.search_images(some, images, top=TOP),
                query=caption,
                answer=picture,
                count=count,
            ),
        )


def _mean_by_image(samples: list[Samples]) -> Samples:
    """What the mean of several recalls is the mean of, in groups of what belongs to one image."""
    images = [np.arange(len(s.values)) if s.groups is None else s.groups for s in samples]
    return mean_of(samples, images)
