"""Losses of queries over a queue or prototypes, on every mesh; as `test_pairs.py`."""

import functools

import cases
import pytest


@functools.cache
def right_answer(case, kind, soft_share):
    batch = cases.query_batch(kind, case.similarity)
    gradients = cases.queries(case, soft_share, batch)[1]
    return cases.right_queries(case, soft_share, batch), gradients


def check(case, kind):
    for soft_share in case.soft_shares:
        found = cases.queries(case, soft_share, cases.query_batch(kind, case.similarity))
        cases.assert_equal(found, right_answer(case.plain, kind, soft_share), dtype=case.dtype)


ALL = cases.product(
    similarity=("dot", "token_max"),
    normaliser=("softmax", "sigmoid"),
    kind=("queue", "prototypes"),
    dtype=("float64", "float32"),
)


@pytest.mark.parametrize(("case", "kind"), ALL[::11], ids=cases.name_of)
def test_every_implementation_on_every_mesh(case, kind):
    check(case, kind)


@pytest.mark.slow
def test_all_combinations():
    cases.check_all(check, ALL)
