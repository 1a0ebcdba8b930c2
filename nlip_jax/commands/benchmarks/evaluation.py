"""How long evaluation takes once the embeddings exist, beside scikit-learn and pycocoevalcap.

Every time is of the first call: with compilation, and with the way to the devices. Embeddings are
drawn, as hard to tell apart as those of images are; their quality has no part in the times, but for
the iterations of the regression.
"""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from nlip_jax.commands.benchmarks.evaluation_setting import (
    Blank,
    Sizes,
    classes_like_images,
    labelled,
    near,
    towers_of,
)
from nlip_jax.errors import UsageError
from nlip_jax.estimators.kmeans import kmeans
from nlip_jax.evaluators.captions.bleu import bleu
from nlip_jax.evaluators.captions.cider import cider
from nlip_jax.evaluators.captions.rouge import rouge_l
from nlip_jax.evaluators.captions.scored import Captioned
from nlip_jax.evaluators.knn import Knn
from nlip_jax.evaluators.linear_probe import Fit, Lbfgs
from nlip_jax.evaluators.logistic import Problem, classify, make_problem
from nlip_jax.evaluators.probe_rows import ProbeRows
from nlip_jax.evaluators.retrieval import Retrieval
from nlip_jax.evaluators.zero_shot import ZeroShot
from nlip_jax.methods.similarities import DOT, TOKEN_MAX
from nlip_jax.sharding import make_mesh

_WORDS = 3000  # of the made-up captions' vocabulary
_CAPTION_LENGTH = 10


def run(sizes: Sizes | None = None) -> dict[str, float]:
    """Measures all, one after the other.

    Returns:
      Times in seconds and what goes with them, by name.

    Raises:
      UsageError: scikit-learn is missing.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "this benchmark compares with scikit-learn, which is missing: "
            "pip install nlip_jax[eval]"
        ) from error
    sizes, numbers = sizes or Sizes(), {}
    for measure in (zero_shot, retrieval, tokenwise, linear_probe, knn, clusters, captions):
        begun = time.perf_counter()
        numbers |= {f"evaluation/{name}": float(value) for name, value in measure(sizes).items()}
        print(f"{measure.__name__}: {time.perf_counter() - begun:.1f} s", file=sys.stderr)
    return numbers


def zero_shot(sizes: Sizes) -> dict[str, float]:
    """CLIP's ensemble, the averaging of all prompts included."""
    x, labels = _rows(sizes, sizes.images, seed=0)
    centres = np.stack([x[labels == c].mean(0) for c in range(sizes.classes)])
    prompts = near(centres, repeat=sizes.templates, noise=0.5, seed=0)
    towers = towers_of({"image_embed": x}, {"text_embed": prompts}, DOT)
    evaluator = ZeroShot(
        labelled=labelled(labels, classes=sizes.classes, templates=sizes.templates)
    )
    outcome, seconds = _timed(evaluator.run, towers)
    _, warm = _timed(evaluator.run, towers)
    return {
        "zero_shot/seconds": seconds,
        "zero_shot/warm_seconds": warm,
        "zero_shot/top1": outcome.metrics["top1"],
    }


def retrieval(sizes: Sizes) -> dict[str, float]:
    """Both ways."""
    x, _ = classes_like_images(
        sizes.queries, classes=sizes.queries, dim=sizes.dim, noise=sizes.noise, seed=1
    )
    texts = near(x, repeat=sizes.captions_per_image, noise=1.5, seed=1)
    source = Blank(sizes.queries, captions_per_image=sizes.captions_per_image)
    towers = towers_of({"image_embed": x}, {"text_embed": texts}, DOT)
    evaluator = Retrieval(source=source, examples=0)
    outcome, seconds = _timed(evaluator.run, towers)
    _, warm = _timed(evaluator.run, towers)
    return {
        "retrieval/seconds": seconds,
        "retrieval/warm_seconds": warm,
        "retrieval/mean_recall": outcome.metrics["mean_recall"],
    }


def tokenwise(sizes: Sizes) -> dict[str, float]:
    """FILIP's form both ways, at a size that fits, and what the full size would take."""
    rng = np.random.default_rng(3)

    def tokens(num: int, length: int) -> np.ndarray:
        x = rng.standard_normal((num, length, sizes.token_dim), np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    images = {"image_tokens": tokens(sizes.token_images, sizes.image_tokens)}
    texts = {
        "text_tokens": tokens(sizes.token_captions, sizes.text_tokens),
        "text_mask": np.ones((sizes.token_captions, sizes.text_tokens), bool),
    }
    towers = towers_of(images, texts, TOKEN_MAX)
    own = np.arange(sizes.token_images)[:, None]
    pairs = sizes.token_images * sizes.token_captions

    def both_ways() -> None:
        towers.search_texts(images, texts, right=own)
        owners = np.minimum(np.arange(sizes.token_captions), sizes.token_images - 1)
        towers.search_images(texts, images, right=owners[:, None])

    both_ways()  # compilation, which would hide the rate of so small a set
    _, seconds = _timed(both_ways)
    rate = 2 * pairs / seconds
    full = 2 * sizes.queries**2 * sizes.captions_per_image
    return {
        "tokenwise/warm_seconds": seconds,
        "tokenwise/pairs_per_second": rate,
        "tokenwise/retrieval_would_take_seconds": full / rate,
    }


def linear_probe(sizes: Sizes) -> dict[str, float]:
    """Logistic regression at one regularisation, to objectives that can be compared."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, labels = _rows(sizes, sizes.images, seed=0)
    test, right = _rows(sizes, sizes.test_images, seed=1)
    mesh = make_mesh()

    def ours(probe: Lbfgs) -> tuple[Problem, Fit]:
        problem = make_problem(x, labels, num_classes=sizes.classes, mesh=mesh)
        return problem, probe.fit(problem, sizes.regularisation)

    (_, fit), seconds = _timed(ours, Lbfgs())
    (_, loose), loose_seconds = _timed(ours, Lbfgs(tolerance=1e-3))
    rank = classify(test, right, fit.linear, mesh=mesh)
    numbers = {
        "linear_probe/seconds": seconds,
        "linear_probe/objective": fit.objective,
        "linear_probe/iterations": fit.iterations,
        "linear_probe/passes": fit.evaluations,
        "linear_probe/accuracy": np.mean(rank < 1),
        "linear_probe/loose/warm_seconds": loose_seconds,
        "linear_probe/loose/objective": loose.objective,
        "linear_probe/loose/iterations": loose.iterations,
    }
    # scikit-learn's own tolerance stops it at about the same place, at these sizes.
    model = LogisticRegression(
        C=1 / sizes.regularisation, max_iter=sizes.sklearn_iterations, tol=1e-9
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, their_seconds = _timed(model.fit, x, labels)
    theirs = _objective(model, x, labels, sizes.regularisation)
    return numbers | {
        "linear_probe/sklearn/seconds": their_seconds,
        "linear_probe/sklearn/objective": theirs,
        "linear_probe/sklearn/iterations": model.n_iter_[0],
        "linear_probe/sklearn/accuracy": model.score(test, right),
        "linear_probe/sklearn_excess": theirs / fit.objective - 1,
        "linear_probe/loose_excess": loose.objective / fit.objective - 1,
        "linear_probe/time_ratio": seconds / their_seconds,
        "linear_probe/loose_time_ratio": loose_seconds / their_seconds,
    }


def knn(sizes: Sizes) -> dict[str, float]:
    """Weighted votes of the nearest, by brute force on both sides."""
    from sklearn.neighbors import KNeighborsClassifier

    x, labels = _rows(sizes, sizes.images, seed=0)
    test, right = _rows(sizes, sizes.test_images, seed=1)

    def ours() -> float:
        sets = labelled(labels, classes=sizes.classes), labelled(right, classes=sizes.classes)
        evaluator = Knn(train=sets[0], test=sets[1], num_neighbours=sizes.neighbours)
        found = evaluator.of_rows(
            ProbeRows(x=x, labels=labels), ProbeRows(x=test, labels=right), mesh=make_mesh()
        )
        return found.metrics["top1"]

    def theirs() -> float:
        model = KNeighborsClassifier(
            sizes.neighbours,
            metric="cosine",
            algorithm="brute",
            weights=lambda distance: np.exp((1 - distance) / 0.07),
        )
        return model.fit(x, labels).score(test, right)

    top1, seconds = _timed(ours)
    their_top1, their_seconds = _timed(theirs)
    return {
        "knn/seconds": seconds,
        "knn/top1": top1,
        "knn/sklearn/seconds": their_seconds,
        "knn/sklearn/top1": their_top1,
        "knn/time_ratio": seconds / their_seconds,
    }


def clusters(sizes: Sizes) -> dict[str, float]:
    """So many iterations of Lloyd from the same centroids."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    x, _ = _rows(sizes, sizes.images, seed=0)
    start = x[: sizes.classes].copy()
    found, seconds = _timed(
        lambda: kmeans(
            x,
            num_clusters=sizes.classes,
            mesh=make_mesh(),
            start=start,
            num_iterations=sizes.kmeans_iterations,
        )
    )
    model = KMeans(
        sizes.classes,
        init=start,
        n_init=1,
        max_iter=sizes.kmeans_iterations,
        tol=0,
        algorithm="lloyd",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, their_seconds = _timed(model.fit, x)
    return {
        "kmeans/seconds": seconds,
        "kmeans/objective": found.objective,
        "kmeans/sklearn/seconds": their_seconds,
        "kmeans/sklearn/objective": model.inertia_,
        "kmeans/time_ratio": seconds / their_seconds,
    }


def captions(sizes: Sizes) -> dict[str, float]:
    """BLEU, ROUGE-L and CIDEr of made-up captions, tokenised already, beside pycocoevalcap's."""
    rng = np.random.default_rng(4)
    share = 1 / (1 + np.arange(_WORDS))

    def make(count: int) -> list[str]:
        words = rng.choice(_WORDS, (count, _CAPTION_LENGTH), p=share / share.sum())
        return [" ".join(f"w{word}" for word in row) for row in words]

    produced = make(sizes.queries)
    references = [make(sizes.captions_per_image) for _ in produced]

    def ours() -> dict[str, float]:
        captioned = Captioned(produced, references)
        return {
            name: value
            for score in (bleu, rouge_l, cider)
            for name, value in score(captioned).values.items()
        }

    found, seconds = _timed(ours)
    numbers = {"captions/seconds": seconds, "captions/cider": found["cider"]}
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError:
        return numbers

    def theirs() -> float:
        right = dict(enumerate(references))
        made = {i: [text] for i, text in enumerate(produced)}
        Bleu(4).compute_score(right, made, verbose=0)
        Rouge().compute_score(right, made)
        return float(Cider().compute_score(right, made)[0])

    score, their_seconds = _timed(theirs)
    return numbers | {
        "captions/pycocoevalcap/seconds": their_seconds,
        "captions/pycocoevalcap/cider": score,
        "captions/time_ratio": seconds / their_seconds,
    }


def _rows(sizes: Sizes, num: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return classes_like_images(
        num, classes=sizes.classes, dim=sizes.dim, noise=sizes.noise, seed=seed
    )


def _objective(model: Any, x: np.ndarray, labels: np.ndarray, regularisation: float) -> float:
    """Of a model of scikit-learn, in float64."""
    total = 0.0
    for start in range(0, len(x), 4096):
        logits = model.decision_function(x[start : start + 4096]).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        own = logits[np.arange(len(logits)), labels[start : start + 4096]]
        total += np.sum(np.log(np.exp(logits).sum(1)) - own)
    weights = model.coef_.astype(np.float64)
    return float((total + regularisation / 2 * np.sum(weights**2)) / len(x))


def _timed(function: Callable, *arguments: Any) -> tuple[Any, float]:
    begun = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - begun
