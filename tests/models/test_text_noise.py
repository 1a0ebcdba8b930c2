"""Text infilling: what becomes of rows, how often, and that it hangs on row and key alone."""

import functools
import itertools

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tiny import mesh_of

from nlip_jax.errors import UsageError
from nlip_jax.models.text_noise import infill

BOS, EOS, MASK, FIRST = 2, 3, 4, 10  # ids of pieces count up from the first
LENGTH = 30
KEYS = jax.random.split(jax.random.key(7), 2000)


@functools.partial(jax.jit, static_argnames=("rate", "mean_span", "drop"))
def run(tokens, keys, *, rate=(0.3, 0.5), mean_span=3.0, drop=0.0):
    return infill(tokens, keys, rate=rate, mean_span=mean_span, drop=drop, mask_id=MASK)


def rows_of(counts, length=LENGTH):
    rows = np.zeros((len(counts), length), np.int32)
    for row, count in zip(rows, counts, strict=True):
        row[: count + 2] = [BOS, *range(FIRST, FIRST + count), EOS]
    return rows


def hidden_lengths(row, count):
    """Pieces behind each mask of a noised row, which has to be one."""
    end = int((row != 0).sum())
    assert row[0] == BOS and row[end - 1] == EOS and not row[end:].any()
    inside = row[1 : end - 1].tolist()
    assert (MASK, MASK) not in itertools.pairwise(inside)
    lengths, expected = [], FIRST
    for place, token in enumerate(inside):
        if token == MASK:
            following = inside[place + 1] if place + 1 < len(inside) else FIRST + count
            lengths.append(following - expected)
            expected = following
        else:
            assert token == expected
            expected += 1
    assert expected == FIRST + count and all(length > 0 for length in lengths)
    return lengths


@pytest.mark.parametrize("rate", [(0.3, 0.5), (0.0, 1.0), (0.7, 0.7)])
def test_spans_give_way_to_one_mask_each(rate):
    counts = np.resize(np.arange(LENGTH - 1), 400)
    noised = np.asarray(run(rows_of(counts), KEYS[:400], rate=rate))
    low, high = rate
    for row, count in zip(noised, counts, strict=True):
        hidden = sum(hidden_lengths(row, count))
        assert int(low * count) <= hidden <= min(int(high * count + 1), count)


def test_shares_and_spans_in_the_mean():
    count = LENGTH - 2
    noised = np.asarray(run(rows_of([count] * len(KEYS)), KEYS))
    lengths = [hidden_lengths(row, count) for row in noised]
    shares = np.array([sum(of_row) for of_row in lengths]) / count
    np.testing.assert_allclose(shares.mean(), 0.4, atol=0.005)
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.75]), [0.35, 0.45], atol=0.02)
    # The last span of a row is cut; of eleven hidden pieces, it ends about the fourth span.
    assert 2.6 < np.mean([length for of_row in lengths for length in of_row]) < 3.0
    hidden = np.array([~np.isin(np.arange(FIRST, FIRST + count), row) for row in noised])
    of_place = hidden.mean(axis=0)
    np.testing.assert_allclose(of_place, of_place[::-1], atol=0.04)
    # A span at an edge can begin or end in one way only, so those pieces are hidden less often.
    assert (np.abs(of_place[1:-1] - 0.4) < 0.06).all() and 0.2 < of_place[0] < 0.3


def test_all_hidden_is_one_mask():
    noised = np.asarray(run(rows_of([28] * 50), KEYS[:50], rate=(1.0, 1.0)))
    assert (noised[:, :3] == [BOS, MASK, EOS]).all() and not noised[:, 3:].any()


def test_lengths_of_spans():
    """1 + Poisson(mean - 1)."""
    ones = np.asarray(run(rows_of([28] * 50), KEYS[:50], rate=(0.3, 0.3), mean_span=1.0))
    for row in ones:
        assert set(hidden_lengths(row, 28)) == {1}
    long = np.asarray(run(rows_of([28] * len(KEYS)), KEYS, rate=(0.5, 0.5), mean_span=2.0))
    lengths = [hidden_lengths(row, 28) for row in long]
    inner = np.array([length for of_row in lengths for length in of_row])
    # exp(-1) of the spans have one piece, and as many have two; cut ones blur it a little.
    np.testing.assert_allclose([(inner == n).mean() for n in (1, 2)], np.exp(-1.0), atol=0.05)


def test_short_captions_keep_the_rate_in_the_mean():
    noised = np.asarray(run(rows_of([1] * len(KEYS)), KEYS, rate=(0.4, 0.4)))
    assert {tuple(row[:3]) for row in noised} == {(BOS, FIRST, EOS), (BOS, MASK, EOS)}
    np.testing.assert_allclose((noised[:, 1] == MASK).mean(), 0.4, atol=0.03)


def test_some_rows_become_padding():
    noised = np.asarray(run(rows_of([9] * len(KEYS)), KEYS, rate=(0.0, 0.0), drop=0.3))
    dropped = ~noised.any(axis=1)
    np.testing.assert_allclose(dropped.mean(), 0.3, atol=0.03)
    np.testing.assert_array_equal(noised[~dropped], rows_of([9] * (~dropped).sum()))
    assert not np.asarray(run(rows_of([9] * 5), KEYS[:5], drop=1.0)).any()


def test_rows_without_pieces_stay():
    rows = rows_of([0, 0, 28])
    rows[0] = 0
    rows[1, 1] = 0  # [bos] alone
    noised = np.asarray(run(rows, KEYS[:3]))
    np.testing.assert_array_equal(noised[:2], rows[:2])


def test_hangs_on_row_and_key_alone():
    rows, keys = rows_of(np.arange(16) + 5), KEYS[:16]
    whole = np.asarray(run(rows, keys, drop=0.2))
    some = np.array([11, 3])
    np.testing.assert_array_equal(run(rows[some], keys[some], drop=0.2), whole[some])
    np.testing.assert_array_equal(
        run(np.pad(rows, [(0, 0), (0, 9)]), keys, drop=0.2), np.pad(whole, [(0, 0), (0, 9)])
    )
    assert (np.asarray(run(rows, KEYS[16:32], drop=0.2)) != whole).any()
    mesh = mesh_of(8)
    split = NamedSharding(mesh, P(mesh.axis_names))
    spread = run(*jax.device_put((rows, keys), split), drop=0.2)
    np.testing.assert_array_equal(spread, whole)
    assert spread.sharding.is_equivalent_to(split, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": (0.5, 0.3)}, "a rate of 0.5 to 0.3"),
        ({"rate": (0.5, 1.3)}, "a rate of 0.5 to 1.3"),
        ({"drop": 1.5}, "drop=1.5"),
        ({"mean_span": 0.5}, "mean_span=0.5"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UsageError, match=message):
        run(rows_of([3]), KEYS[:1], **options)
