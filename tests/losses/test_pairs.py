"""Losses of pairs: every implementation, normaliser, target and similarity on every mesh.

Values are the reference's. Gradients are those of the plain implementation in float64, of which
`test_finite_differences.py` says that they are right.
"""

import functools

import cases
import numpy as np
import pytest


@functools.cache
def right_answer(case, form):
    """Values of the reference, gradients of the plain implementation."""
    batch = cases.pair_batch(case.similarity, keys=case.duplicates != "negatives")
    return cases.right_pairs(case, form, batch), cases.pairs(case, form, batch)[1]


def check(case):
    filler = 3 if case.devices == 8 else 0  # then the batch is split from the start
    batch = cases.pair_batch(
        case.similarity, filler=filler, keys=case.duplicates != "negatives"
    )
    for form in case.forms:
        (loss, losses), (features, *affine) = cases.pairs(case, form, batch)
        for of_filler in (losses, *features):
            np.testing.assert_array_equal(of_filler[cases.PAIRS :], 0.0)
        found = (loss, losses[: cases.PAIRS]), ([x[: cases.PAIRS] for x in features], *affine)
        cases.assert_equal(found, right_answer(case.plain, form), dtype=case.dtype)


ALL = cases.product(
    similarity=("dot", "token_max"),
    dtype=("float64", "float32"),
    normaliser=("softmax", "sigmoid"),
    duplicates=("negatives", "ignored", "positives"),
)
# Of embeddings on three devices all; of the others some, with each implementation on each mesh.
QUICK = [
    case
    for number, (case,) in enumerate(ALL)
    if number % 19 == 0 or (case.devices, case.similarity, case.dtype) == (3, "dot", "float64")
]


@pytest.mark.parametrize("case", QUICK, ids=cases.name_of)
def test_every_implementation_on_every_mesh(case):
    check(case)


@pytest.mark.slow
def test_all_combinations():
    cases.check_all(check, ALL)
