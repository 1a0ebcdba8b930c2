"""What results.json says of the texts that a run completed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nlip_jax.commands.session import Session
from nlip_jax.data.failures import ReadError
from nlip_jax.data.source import TRUTH, Source
from nlip_jax.evaluators.objects import score_objects
from nlip_jax.types import TrainState

_SCENES = 10_000  # of a kind that are scored, at most

# Rule of completion -> (noise_prob [n], threshold) -> chance of each pair to show the synthetic
# text instead of its own.
CHANCES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "none": lambda noise_prob, threshold: np.zeros_like(noise_prob),
    "noise_prob": lambda noise_prob, threshold: noise_prob,
    "threshold": lambda noise_prob, threshold: (noise_prob > threshold).astype(noise_prob.dtype),
    "union": lambda noise_prob, threshold: np.zeros_like(noise_prob),
}


def has_text(rows: np.ndarray) -> np.ndarray:
    """Rows with more than [bos] and [eos]: `[n, l]` to `[n]` bool."""
    return np.asarray(rows[:, 2]) != 0


def caption_rows(run: Session, episode: int) -> np.ndarray | None:
    """The synthetic captions that an episode trained on, `[n, l]`; None where there were none."""
    given = run.given_columns.get("synthetic_caption")
    version = run.method.version("synthetic_caption", episode)
    if given is not None or not version:
        return given
    return run.column("synthetic_caption", version).read()


def noise_probs(run: Session, episode: int) -> np.ndarray:
    """The noise probabilities that an episode trained with, `[n]` float32; NaN where unknown."""
    return run.column("noise_prob", run.method.version("noise_prob", episode)).read()


def last_completed(run: Session, state: TrainState) -> int:
    """The last episode so far that showed synthetic captions; 0: none did, or may.

    Args:
      run: whose episodes they are.
      state: at the end of the run.
    """
    if "synthetic_tokens" not in run.method.columns:
        return 0
    episodes = range(1, int(state.episode) + 1)
    return max((i for i in episodes if run.method.shows("synthetic_caption", i)), default=0)


def completion_results(run: Session, state: TrainState) -> dict[str, float]:
    """How many texts the last captions replaced, and what they say; empty without captions.

    Procedural scenes tell which objects there are: precision and recall of the objects that
    synthetic captions name, over all pairs and over those with a planted fault, and beside them
    those of the own texts.

    Args:
      run: with its columns.
      state: at the end of the run.
    """
    last = last_completed(run, state)
    if not last:
        return {}
    rows = caption_rows(run, last)
    if rows is None:
        return {}
    noise_prob = noise_probs(run, last)[: len(rows)]
    known = np.isfinite(noise_prob)
    made = known & has_text(rows)[: len(noise_prob)]
    completion = run.method.completion
    chance = CHANCES[completion.rule](np.nan_to_num(noise_prob), completion.threshold)
    found = {"captioned_share": float(made.sum() / max(known.sum(), 1))}
    if made.any():
        found["replaced_share"] = float(chance[made].mean(dtype=np.float64))
        found |= _object_scores(run, rows, np.flatnonzero(made))
    return {f"completion/{name}": value for name, value in found.items()}


def _object_scores(run: Session, rows: np.ndarray, ids: np.ndarray) -> dict[str, float]:
    scenes = _scenes_of(run.source)
    if scenes is None:
        return {}
    truth = run.source.truth()
    kinds = {"": ids}
    if truth is not None:
        kinds |= {f"{name}/": ids[truth[ids] == TRUTH.index(name)] for name in TRUTH[1:]}
    found = {}
    for kind, members in kinds.items():
        chosen = _spread(members)
        shown = [scenes.scene(run.source.image_id(i)) for i in chosen]
        texts = {
            f"own/{kind}": [_own(run, i) for i in chosen],
            kind: [run.tokenizer.decode(rows[i]) for i in chosen],
        }
        for name, captions in texts.items() if chosen else ():
            found |= {f"{name}{metric}": v for metric, v in _scores(captions, shown).items()}
    order = sorted(found, key=lambda name: name.startswith("own/"))
    return {name: found[name] for name in order if np.isfinite(found[name])}


def _scores(captions: Sequence[str], scenes: Sequence[Any]) -> dict[str, float]:
    """Precision and recall of shapes, and of shapes with their colours."""
    scores = score_objects(captions, scenes)
    return {
        f"{name}_{metric}": scores[f"{name}s/{metric}"]
        for name in ("object", "coloured_object")
        for metric in ("precision", "recall")
    }


def _scenes_of(source: Source) -> Any:
    """The procedural scenes inside of a source, None where there are none."""
    inner: Any = source
    while not hasattr(inner, "scene"):
        inner = getattr(inner, "source", None)
        if inner is None:
            return None
    return inner


def _spread(ids: np.ndarray) -> list[int]:
    """Some of the ids, from everywhere."""
    places = np.linspace(0, len(ids) - 1, min(len(ids), _SCENES)).astype(np.int64)
    return ids[places].tolist()


def _own(run: Session, example_id: int) -> str:
    try:
        return run.source.caption(example_id)
    except ReadError:
        return ""
