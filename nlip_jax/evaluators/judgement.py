"""Whether a model finds alike what people find alike: Crisscrossed Captions.

Rank correlation of ratings with cosine similarities of images and captions, within and across the
two (STS, SIS, SITS), and retrieval of all four kinds with what people rated alike as right answers,
too (Parekh et al., EACL 2021, arXiv 2004.15020).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jax.sharding import Mesh

from nlip_jax.data.judged import Items, Judgements
from nlip_jax.data.sources.image_files import ImageFiles
from nlip_jax.errors import RunError
from nlip_jax.evaluators.base import Towers
from nlip_jax.evaluators.correlation import bootstrap_spearman
from nlip_jax.evaluators.pairs import score_pairs
from nlip_jax.evaluators.recalls import recalls, right_answers
from nlip_jax.evaluators.search import cosine, search
from nlip_jax.methods.base import Features
from nlip_jax.outcome import Outcome, Samples

# Ratings from here on make a right answer, by the kinds of the two items (section 3 of the paper).
POSITIVE = {
    frozenset({"caption"}): 3.0,
    frozenset({"image", "caption"}): 3.0,
    frozenset({"image"}): 2.5,
}
# Ways to retrieve: name -> kinds of the query and of the answers.
WAYS = {
    "image_to_text": ("image", "caption"),
    "text_to_image": ("caption", "image"),
    "text_to_text": ("caption", "caption"),
    "image_to_image": ("image", "image"),
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """One set of items with judgements.

    Attributes:
      items: images and captions.
      judgements: by name, such as sts, sis and sits.
      rounds: of the bootstrap.
      seed: of it.
      retrieval: whether to retrieve, too.
    """

    items: Items
    judgements: Mapping[str, Judgements]
    rounds: int = 1000
    seed: int = 0
    retrieval: bool = True

    @property
    def source(self) -> ImageFiles:
        """The images and captions."""
        return self.items.source

    def run(self, towers: Towers) -> Outcome:
        """Correlations and recalls.

        Returns:
          mean_spearman; NAME/spearman and NAME/spearman_std, mean and standard deviation over the
          rounds; and of each way in `WAYS` with right answers recall@1/5/10 and median rank. Pairs
          with an item that cannot be read are left out of the correlations.

        Raises:
          RunError: of some judgements fewer than two pairs could be read.
        """
        embeds = {
            "image": {"x": towers.embed_images(self.source)["image_embed"]},
            "caption": {"x": towers.embed_captions(self.source)["text_embed"]},
        }
        metrics = self._correlations(embeds, towers.mesh)
        samples: dict[str, Samples] = {}
        for way in WAYS if self.retrieval else ():
            of_way, its_samples = self._retrieve(way, embeds, towers.mesh)
            metrics, samples = metrics | of_way, samples | its_samples
        return Outcome(metrics=metrics, samples=samples, headline="mean_spearman")

    def _correlations(self, embeds: Mapping[str, Features], mesh: Mesh) -> dict[str, float]:
        """Mean and standard deviation of the bootstrap for all judgements, and their mean."""
        metrics = {}
        for name, judged in self.judgements.items():
            one, other = (embeds[kind] for kind in judged.kinds)
            scores = score_pairs(one, other, judged.pairs, score=cosine, mesh=mesh)
            there = ~np.isnan(scores)
            if there.sum() < 2:
                raise RunError(
                    f"{there.sum()} of the {len(there)} pairs of {name} could be read, and a "
                    "correlation needs two: look at the images"
                )
            found = bootstrap_spearman(
                judged.ratings[there],
                scores[there],
                judged.pairs[there, 0],
                rounds=self.rounds,
                seed=self.seed,
            )
            # A model to which all is alike agrees with nobody.
            found = np.nan_to_num(found)
            metrics[f"{name}/spearman"] = float(found.mean())
            metrics[f"{name}/spearman_std"] = float(found.std())
        mean = np.mean([metrics[f"{name}/spearman"] for name in self.judgements])
        return {"mean_spearman": float(mean)} | metrics

    def _retrieve(
        self, way: str, embeds: Mapping[str, Features], mesh: Mesh
    ) -> tuple[dict[str, float], dict[str, Samples]]:
        """Recalls of one way, none where no query has a right answer; no query finds itself."""
        asking, answering = WAYS[way]
        queries, answers = self.right(asking, answering)
        if not len(queries):
            return {}, {}
        rows, place = np.unique(queries, return_inverse=True)
        rank = search(
            {"x": embeds[asking]["x"][rows]},
            embeds[answering],
            score=cosine,
            mesh=mesh,
            right=right_answers(place.reshape(-1), answers, num_queries=len(rows)),
            excluded=rows if asking == answering else None,
        ).rank
        groups = self.source.owners[rows] if asking == "caption" else rows
        return recalls(way, rank, groups=groups)

    def right(self, asking: str, answering: str) -> tuple[np.ndarray, np.ndarray]:
        """All pairs of a query and a right answer.

        The pairs of the set itself are right, captions of one image for each other included, and
        so is what people rated at least as `POSITIVE` says; nothing is right for itself.

        Args:
          asking: kind of the queries.
          answering: kind of the answers.

        Returns:
          Queries and answers, `[p]` each, every pair once.
        """
        kinds = frozenset({asking, answering})
        pairs = [_own_pairs(self.source.owners, asking, answering)]
        for judged in self.judgements.values():
            if frozenset(judged.kinds) != kinds:
                continue
            alike = judged.pairs[judged.ratings >= POSITIVE[kinds]]
            if asking == answering:  # alike in both directions
                pairs += [alike, alike[:, ::-1]]
            else:
                pairs.append(alike if judged.kinds[0] == asking else alike[:, ::-1])
        found = np.unique(np.concatenate(pairs), axis=0)
        if asking == answering:
            found = found[found[:, 0] != found[:, 1]]
        return found[:, 0], found[:, 1]


def _own_pairs(owners: np.ndarray, asking: str, answering: str) -> np.ndarray:
    """What the set itself says, `[p, 2]`: a caption describes its image."""
    captions = np.arange(len(owners))
    if asking == answering == "image":
        return np.zeros((0, 2), np.int64)
    if asking != answering:
        pairs = np.stack([owners, captions], axis=1)
        return pairs if asking == "image" else pairs[:, ::-1]
    of_image = right_answers(owners, captions, num_queries=int(owners.max()) + 1)[owners]
    pairs = np.stack([np.broadcast_to(captions[:, None], of_image.shape), of_image], axis=-1)
    return pairs.reshape(-1, 2)[of_image.reshape(-1) >= 0].astype(np.int64)
