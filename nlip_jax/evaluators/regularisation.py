"""CLIP's way to the regularisation of a linear probe: a search over powers of ten."""

from collections.abc import Callable

# CLIP (arXiv 2103.00020, appendix A.3): seven values from 1e-6 to 1e6, then the interval around the
# peak is halved until there are eight steps a decade.
_WIDEST = 6
_COARSE = 2.0
_FINE = 1 / 8


def search_exponent(score: Callable[[float], float]) -> tuple[float, dict[float, float]]:
    """Finds the exponent with the highest score, the larger one of two as high.

    Args:
      score: exponent of ten -> score. Called once for an exponent, the largest first.

    Returns:
      The exponent, and all scores by exponent, ascending.
    """
    scores = {}

    def look(exponent: float) -> None:
        if abs(exponent) <= _WIDEST and exponent not in scores:
            scores[exponent] = score(exponent)

    for i in range(int(2 * _WIDEST / _COARSE) + 1):
        look(_WIDEST - i * _COARSE)
    step = _COARSE
    while step > _FINE:
        step /= 2
        peak = _peak(scores)
        look(peak + step)
        look(peak - step)
    return _peak(scores), dict(sorted(scores.items()))


def _peak(scores: dict[float, float]) -> float:
    return max(scores, key=lambda exponent: (scores[exponent], exponent))
