"""The order of examples: a permutation an epoch, the same however the rows are split."""

import numpy as np
import pytest

from nlip_jax.data.order import Pass, Stream, ids_at


def epoch(number: int, *, n: int, seed: int = 0) -> np.ndarray:
    return ids_at(np.arange(n) + number * n, num_examples=n, seed=seed)


@pytest.mark.parametrize(
    "n", [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 64, 65, 100, 255, 257, 1000, 4095, 4097, 20_000]
)
def test_every_epoch_is_a_permutation(n):
    for number in (0, 1, 5):
        ids = epoch(number, n=n)
        assert ids.dtype == np.int64
        np.testing.assert_array_equal(np.sort(ids), np.arange(n))


def test_epochs_and_seeds_have_their_own_orders():
    orders = [epoch(0, n=1000), epoch(1, n=1000), epoch(0, n=1000, seed=1), np.arange(1000)]
    for i, first in enumerate(orders):
        for second in orders[:i]:
            assert (first == second).sum() < 20  # chance: one


def test_a_position_does_not_depend_on_what_is_asked_beside_it():
    whole = ids_at(np.arange(3000), num_examples=1000, seed=7)
    for some in ([2999], [5, 2500, 1000], np.arange(999, 1002)):
        np.testing.assert_array_equal(ids_at(some, num_examples=1000, seed=7), whole[some])


@pytest.mark.parametrize("n", [100, 1000, 1024])
def test_every_place_holds_every_id_equally_often(n):
    """Chi-squared over 10 x 10 cells of (place, id), and over the steps between neighbours."""
    epochs = np.stack([epoch(number, n=n) for number in range(100_000 // n)])
    tenth = np.arange(n) * 10 // n
    size = np.bincount(tenth)
    cells = np.bincount((10 * tenth[None] + tenth[epochs]).ravel(), minlength=100)
    assert chi_squared(cells, np.outer(size, size).ravel()) < 150  # 81 degrees of freedom: p 1e-5
    steps = np.bincount(tenth[(epochs[:, 1:] - epochs[:, :-1]) % n].ravel(), minlength=10)
    assert chi_squared(steps, size - (np.arange(10) == 0)) < 40  # 9 degrees of freedom: p 1e-5


def chi_squared(counts: np.ndarray, shares: np.ndarray) -> float:
    expected = shares * counts.sum() / shares.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def test_billions_of_ids_cost_nothing_to_begin():
    n = 1_800_000_000
    positions = np.concatenate([np.arange(4096), np.arange(4096) + 3 * n - 4096])
    ids = ids_at(positions, num_examples=n, seed=0)
    assert ids.min() >= 0 and ids.max() < n
    assert len(np.unique(ids[:4096])) == len(np.unique(ids[4096:])) == 4096
    assert abs(ids.mean() / n - 0.5) < 0.03


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 12])
def test_hosts_together_read_what_one_host_reads(hosts):
    whole = Stream(num_examples=50, batch_size=24, seed=3, rows=np.arange(24))
    shares = [
        Stream(num_examples=50, batch_size=24, seed=3, rows=rows)
        for rows in np.array_split(np.arange(24), hosts)
    ]
    for batch in range(6):
        blocks = [share.block(batch) for share in shares]
        expected = whole.block(batch)
        for field in ("ids", "epochs", "valid"):
            together = np.concatenate([getattr(block, field) for block in blocks])
            np.testing.assert_array_equal(together, getattr(expected, field))


def test_a_stream_counts_epochs_by_example():
    stream = Stream(num_examples=10, batch_size=4, seed=0, rows=np.arange(4))
    blocks = [stream.block(batch) for batch in range(5)]
    assert [block.epochs.tolist() for block in blocks[:3]] == [[0] * 4, [0] * 4, [0, 0, 1, 1]]
    ids = np.concatenate([block.ids for block in blocks])
    np.testing.assert_array_equal(np.sort(ids[:10]), np.arange(10))
    np.testing.assert_array_equal(np.sort(ids[10:]), np.arange(10))
    assert all(block.valid.all() for block in blocks)


@pytest.mark.parametrize("seed", [None, 0, 5])
@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (8, 4), (1, 4), (3, 8), (5, 5)])
def test_a_pass_gives_every_example_once(n, batch_size, seed):
    order = Pass(num_examples=n, batch_size=batch_size, rows=np.arange(batch_size), seed=seed)
    blocks = [order.block(batch) for batch in range(order.num_batches)]
    ids = np.concatenate([block.ids for block in blocks])
    valid = np.concatenate([block.valid for block in blocks])
    assert len(ids) == order.num_batches * batch_size and valid[:n].all() and not valid[n:].any()
    assert ids.min() >= 0 and ids.max() < n  # real rows fill up the last batch
    np.testing.assert_array_equal(np.sort(ids[valid]), np.arange(n))
    if seed is None:
        np.testing.assert_array_equal(ids[valid], np.arange(n))


def test_a_pass_may_be_split_into_hosts():
    orders = [
        Pass(num_examples=10, batch_size=4, rows=np.array(rows), seed=2)
        for rows in ([0, 1], [2, 3])
    ]
    ids = [order.block(b).ids[order.block(b).valid] for order in orders for b in range(3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(ids)), np.arange(10))
