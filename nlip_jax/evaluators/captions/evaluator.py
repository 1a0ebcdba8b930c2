"""Image captioning: captions of a model, or of a file, against those that people wrote."""

import dataclasses

import numpy as np

from nlip_jax.data.source import Source
from nlip_jax.errors import RunError
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.captions.examples import show_captions
from nlip_jax.evaluators.captions.metrics import METRICS
from nlip_jax.evaluators.captions.ptb_tokenizer import tokenize
from nlip_jax.evaluators.captions.references import read_references
from nlip_jax.evaluators.captions.scored import Captioned
from nlip_jax.outcome import Outcome, Samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioning:
    """One captioned set.

    Attributes:
      source: its images and the captions that people wrote, several for an image as a rule.
      produced: `[num_images]` captions to measure; None: the model makes them.
      metrics: keys of `METRICS`; the first is the headline, of BLEU that of up to four words.
      prompt: what the model's captions begin with, and what is no part of them.
      examples: images on the page of results.
    """

    source: Source
    produced: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ("cider", "bleu", "rouge_l")
    prompt: str = ""
    examples: int = 8

    def run(self, towers: Towers) -> Outcome:
        """The metrics, and what the produced captions are like by themselves.

        METEOR and BLEU are of the whole set and no means over images; they have no samples.
        """
        references = read_references(self.source)
        images = np.array([i for i, texts in enumerate(references) if texts])
        if not len(images):
            raise RunError("no image of this set has a caption to compare with")
        if self.produced is None:
            made = towers.caption_images(self.source)
            produced = [_without(made[i], self.prompt) for i in images]
        else:
            produced = [self.produced[i] for i in images]
        captioned = Captioned(
            [tokenize(text) for text in produced],
            [[tokenize(text) for text in references[i]] for i in images],
        )
        values, per_image, headline = {}, {}, ""
        for name in self.metrics:
            scores = METRICS[name].score(captioned)
            values |= scores.values
            per_image |= scores.per_image
            headline = headline or list(scores.values)[-1]
        exhibits = ()
        if per_image and self.examples:
            name = next(iter(per_image))
            shown = show_captions(
                self.source,
                images=images,
                produced=produced,
                references=[references[i] for i in images],
                scores=per_image[name],
                name=name,
                count=self.examples,
                max_pixels=towers.transform.max_pixels,
            )
            exhibits = (shown,)
        return Outcome(
            metrics=values | describe(captioned.produced),
            samples={name: Samples(values=scores) for name, scores in per_image.items()},
            headline=headline,
            exhibits=exhibits,
        )


def describe(captions: list[str]) -> dict[str, float]:
    """Mean length in tokens, share of different captions, and number of different tokens.

    Args:
      captions: tokenised.
    """
    tokens = [text.split() for text in captions]
    return {
        "mean_length": float(np.mean([len(one) for one in tokens])),
        "distinct_share": len(set(captions)) / len(captions),
        "vocabulary_size": float(len({token for one in tokens for token in one})),
    }


def _without(caption: str, prompt: str) -> str:
    """A caption without the prompt in front, whatever the case and the spaces."""
    words, own = caption.split(), prompt.split()
    begins = [word.lower() for word in words[: len(own)]] == [word.lower() for word in own]
    return " ".join(words[len(own) :] if begins else words)
