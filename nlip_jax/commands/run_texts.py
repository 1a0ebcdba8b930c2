"""The texts of a run for its page: which were replaced by what, and how they changed over time."""

import contextlib
import dataclasses

import numpy as np

from nlip_jax.commands.completion_results import (
    CHANCES,
    caption_rows,
    has_text,
    last_completed,
    noise_probs,
)
from nlip_jax.commands.session import Session
from nlip_jax.data.failures import ReadError
from nlip_jax.data.images.decode import to_pixels
from nlip_jax.data.source import TRUTH
from nlip_jax.methods.completion import Completion
from nlip_jax.report.text_records import (
    CaptionVersion,
    CompletedText,
    NoiseDecile,
    SampleOverTime,
    TextsReport,
    Work,
)
from nlip_jax.types import TrainState

_SHOWN = 8  # examples of a group
_VERSIONS = 8  # of the captions that are shown
_DECILES = 10

_RULES = {
    "noise_prob": "A pair shows its synthetic text with the probability that its own is noise.",
    "threshold": "A pair shows its synthetic text where the probability that its own is noise "
    "exceeds {threshold:g}.",
    "union": "A pair shows both of its texts, one after the other.",
}
_DROPS = {
    "none": "",
    "noise_prob": " Own texts that are noise with a probability above {drop_above:g} take no part "
    "in the contrastive loss.",
    "match": " Texts that do not match their image, with a probability above {drop_above:g}, take "
    "no part in the contrastive loss.",
}


def texts_report(run: Session, state: TrainState) -> TextsReport | None:
    """All that is known of the texts of a finished run; None for one that completed none.

    Args:
      run: with its source and columns.
      state: at the end of the run.
    """
    last = last_completed(run, state)
    if not last:
        return None
    episodes = _episodes(run, last)
    chosen = _spread(np.array(episodes), _VERSIONS)
    versions = [_Version.open(run, episode) for episode in chosen]
    return TextsReport(
        rule=_rule(run.method.completion),
        works=[_work(run, episode) for episode in range(1, int(state.episode) + 1)],
        versions=[version.describe(run) for version in versions],
        num_versions=len(episodes),
        samples=_samples(run, versions),
    )


def _rule(completion: Completion) -> str:
    """Which texts are shown, in words."""
    text = _RULES[completion.rule] + _DROPS[completion.drop]
    return text.format(**dataclasses.asdict(completion))


def _episodes(run: Session, last: int) -> list[int]:
    """The first episode of each version of the captions; those from elsewhere have one."""
    if "synthetic_caption" in run.given_columns:
        return [1]
    every = range(1, last + 1)
    return [episode for episode in every if "synthetic_caption" in run.method.makes(episode)]


def _work(run: Session, episode: int) -> Work:
    step, ends = run.method.refresh_steps[episode - 1], run.method.completion_end
    return Work(
        step=step,
        works=(*run.method.works_of(episode), *(("completion ends",) if step == ends else ())),
        columns={name: episode for name in run.method.makes(episode)},
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Version:
    """The columns that an episode began with.

    Attributes:
      episode: its number.
      rows: `[n, l]` tokens.
      noise_prob: `[n]`, NaN where unknown.
      chance: `[n]`, of the synthetic text to be shown instead of the own.
      concepts: `[n, k]` numbers from 1; None where there are none.
    """

    episode: int
    rows: np.ndarray
    noise_prob: np.ndarray
    chance: np.ndarray
    concepts: np.ndarray | None

    @classmethod
    def open(cls, run: Session, episode: int) -> "_Version":
        rows, concepts = caption_rows(run, episode), None
        noise_prob = noise_probs(run, episode)[: len(rows)]
        if version := run.method.version("concepts", episode):
            concepts = run.column("concepts", version).read()
        completion = run.method.completion
        chance = CHANCES[completion.rule](np.nan_to_num(noise_prob), completion.threshold)
        made = has_text(rows)[: len(noise_prob)]
        return cls(
            episode=episode,
            rows=rows,
            noise_prob=noise_prob,
            chance=np.where(made, chance, 0),
            concepts=concepts,
        )

    @property
    def name(self) -> str:
        return f"{self.episode:04d}"

    def describe(self, run: Session) -> CaptionVersion:
        return CaptionVersion(
            name="from elsewhere" if "synthetic_caption" in run.given_columns else self.name,
            step=run.method.refresh_steps[self.episode - 1],
            deciles=self._deciles(),
            groups={title: self.examples(run, ids) for title, ids in self._groups(run).items()},
        )

    def _deciles(self) -> list[NoiseDecile]:
        known = np.isfinite(self.noise_prob)
        place = np.minimum(np.nan_to_num(self.noise_prob) * _DECILES, _DECILES - 1).astype(np.int8)
        made = has_text(self.rows)[: len(known)]
        return [
            NoiseDecile(
                low=d / _DECILES,
                high=(d + 1) / _DECILES,
                pairs=int(here.sum()),
                captioned=int((here & made).sum()),
                replaced=float(self.chance[here].sum(dtype=np.float64)),
            )
            for d in range(_DECILES)
            if (here := known & (place == d)).any()
        ]

    def _groups(self, run: Session) -> dict[str, np.ndarray]:
        """Pairs with a caption: the noisiest, those with a planted gap, and the cleanest."""
        version = run.method.version("noise_prob", self.episode)
        losses = np.asarray(run.column("pair_loss", version).read())[: len(self.rows)]
        ids = np.flatnonzero(np.isfinite(losses) & has_text(self.rows)[: len(losses)])
        order = ids[np.argsort(losses[ids], kind="stable")]
        found = {"Most noisy": order[::-1][:_SHOWN], "Least noisy": order[:_SHOWN]}
        truth = run.source.truth()
        if truth is not None:
            incomplete = ids[truth[ids] == TRUTH.index("incomplete")]
            found["Incomplete"] = np.array(_spread(incomplete, _SHOWN), np.int64)
        return {title: members for title, members in found.items() if len(members)}

    def examples(self, run: Session, ids: np.ndarray) -> list[CompletedText]:
        """Those that can still be read."""
        truth, found = run.source.truth(), []
        for i in ids.tolist():
            with contextlib.suppress(ReadError):
                picture = run.source.picture(run.source.image_id(i))
                found.append(
                    CompletedText(
                        example_id=i,
                        image=to_pixels(picture, max_pixels=run.config.data.max_pixels),
                        own=run.source.caption(i),
                        synthetic=run.tokenizer.decode(self.rows[i]),
                        noise_prob=float(self.noise_prob[i]),
                        chance=float(self.chance[i]),
                        concepts=self._concepts(run, i),
                        truth=None if truth is None else TRUTH[truth[i]],
                    )
                )
        return found

    def _concepts(self, run: Session, example_id: int) -> list[str]:
        if self.concepts is None:
            return []
        numbers = self.concepts[example_id].astype(np.int64) - 1
        return run.texts.concepts.names(numbers.tolist())


def _samples(run: Session, versions: list[_Version]) -> list[SampleOverTime]:
    """The same examples from all over the data, whatever their noise."""
    if not versions:
        return []
    newest = versions[-1]
    known = np.flatnonzero(np.isfinite(newest.noise_prob))
    pairs = newest.examples(run, np.array(_spread(known, _SHOWN), np.int64))
    return [
        SampleOverTime(
            pair=pair,
            captions=[
                (version.name, run.tokenizer.decode(version.rows[pair.example_id]))
                for version in versions
            ],
        )
        for pair in pairs
    ]


def _spread(values: np.ndarray, count: int) -> list[int]:
    """Some of the values, from everywhere, with both ends."""
    places = np.linspace(0, len(values) - 1, min(len(values), count)).astype(np.int64)
    return values[places].tolist()
