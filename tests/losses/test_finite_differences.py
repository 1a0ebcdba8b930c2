"""The gradients of the plain implementation, against differences of the reference's losses."""

import functools

import cases
import numpy as np
import pytest
import reference
from cases import Case


def check(run, right, batch, *, places=range(4)):
    """Of features of both sides, scale and bias.

    Args:
        run: batch -> (_, (gradients of the features, of the scale, of the bias)).
        right: (batch, scale, bias) -> (loss, _).
        batch: inputs of both.
        places: of these four, which are looked at.
    """

    def loss(changed, place):
        inputs = [*batch["features"], cases.SCALE, cases.BIAS]
        inputs[place] = changed
        *features, scale, bias = inputs
        return right(batch | {"features": features}, scale=scale, bias=bias)[0]

    _, (features, *affine) = run(batch)
    found, starts = (*features, *affine), (*batch["features"], cases.SCALE, cases.BIAS)
    for place in places:
        expected = reference.gradient(functools.partial(loss, place=place), starts[place])
        np.testing.assert_allclose(found[place], np.nan_to_num(expected), atol=1e-8)


@pytest.mark.parametrize(
    ("similarity", "normaliser", "duplicates"),
    [
        ("dot", "softmax", "negatives"),
        ("dot", "softmax", "ignored"),
        ("dot", "sigmoid", "positives"),
        ("token_max", "softmax", "positives"),
        ("token_max", "sigmoid", "ignored"),
    ],
)
def test_pairs(similarity, normaliser, duplicates):
    case = Case(similarity=similarity, normaliser=normaliser, duplicates=duplicates)
    batch = cases.pair_batch(similarity, count=6, keys=duplicates != "negatives")
    for form in case.forms:
        run, right = (functools.partial(f, case, form) for f in (cases.pairs, cases.right_pairs))
        check(run, right, batch)


@pytest.mark.parametrize(
    ("similarity", "normaliser"), [("dot", "softmax"), ("dot", "sigmoid"), ("token_max", "softmax")]
)
def test_queries(similarity, normaliser):
    case = Case(similarity=similarity, normaliser=normaliser)
    batch = cases.query_batch("queue", similarity, count=4)
    for share in case.soft_shares:
        run, right = (
            functools.partial(f, case, share) for f in (cases.queries, cases.right_queries)
        )
        # By way of a soft target, candidates have no gradient.
        check(run, right, batch, places=(0, 2, 3) if share else range(4))
