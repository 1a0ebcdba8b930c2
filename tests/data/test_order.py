"""The order of examples: a permutation an epoch, the same however the rows are split."""

import numpy as np
import pytest

from nlip_jax.data.members import Bitmap, Keep, Ranges
from nlip_jax.data.order import Epochs, Mixed, Pass, Stream, WithReplacement, ids_at
from nlip_jax.errors import UsageError


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
    whole = Stream(draw=Epochs(Ranges(50)), batch_size=24, seed=3, rows=np.arange(24))
    shares = [
        Stream(draw=Epochs(Ranges(50)), batch_size=24, seed=3, rows=rows)
        for rows in np.array_split(np.arange(24), hosts)
    ]
    for batch in range(6):
        blocks = [share.block(batch) for share in shares]
        expected = whole.block(batch)
        for field in ("ids", "epochs", "valid"):
            together = np.concatenate([getattr(block, field) for block in blocks])
            np.testing.assert_array_equal(together, getattr(expected, field))


def test_a_stream_counts_epochs_by_example():
    stream = Stream(draw=Epochs(Ranges(10)), batch_size=4, seed=0, rows=np.arange(4))
    blocks = [stream.block(batch) for batch in range(5)]
    assert [block.epochs.tolist() for block in blocks[:3]] == [[0] * 4, [0] * 4, [0, 0, 1, 1]]
    ids = np.concatenate([block.ids for block in blocks])
    np.testing.assert_array_equal(np.sort(ids[:10]), np.arange(10))
    np.testing.assert_array_equal(np.sort(ids[10:]), np.arange(10))
    assert all(block.valid.all() for block in blocks)


@pytest.mark.parametrize("seed", [None, 0, 5])
@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (8, 4), (1, 4), (3, 8), (5, 5)])
def test_a_pass_gives_every_example_once(n, batch_size, seed):
    order = Pass(members=Ranges(n), batch_size=batch_size, rows=np.arange(batch_size), seed=seed)
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
        Pass(members=Ranges(10), batch_size=4, rows=np.array(rows), seed=2)
        for rows in ([0, 1], [2, 3])
    ]
    ids = [order.block(b).ids[order.block(b).valid] for order in orders for b in range(3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(ids)), np.arange(10))


# --- which examples take part ---------------------------------------------------------------------
HOLES = np.array([[0, 3], [10, 11], [11, 20], [45, 50]])


def members_by_hand(n=50, holes=HOLES):
    return np.flatnonzero(is_member(n, holes))


def is_member(n, holes=HOLES):
    mask = np.ones(n, bool)
    for start, stop in holes:
        mask[start:stop] = False
    return mask


def check_members(members, wanted, n):
    assert len(members) == len(wanted)
    np.testing.assert_array_equal(members.take(np.arange(len(wanted))), wanted)
    for example_id in range(n + 1):
        assert members.rank(example_id) == (wanted < example_id).sum()
    for start, stop in ((0, n), (5, 12), (n - 1, n), (7, 7)):
        np.testing.assert_array_equal(
            members.mask(start, stop), np.isin(np.arange(start, stop), wanted)
        )


def test_holes_are_skipped():
    check_members(Ranges(50, HOLES), members_by_hand(), 50)
    check_members(Ranges(50), np.arange(50), 50)


def test_holes_may_lie_in_one_another():
    members = Ranges(50, np.array([[5, 30], [7, 9], [10, 10], [29, 35]]))
    check_members(members, np.r_[0:5, 35:50], 50)


@pytest.mark.parametrize("n", [50, 512, 4096, 9000, 4096 * 1024 + 77])
def test_a_column_chooses_members(n):
    values = np.random.default_rng(0).random(n).astype(np.float32)
    values[5], values[30] = np.nan, 0.25
    kept = Bitmap.of(Ranges(n, HOLES), Keep(name="noise_prob", values=values, low=0.25, high=0.5))
    wanted = np.flatnonzero(is_member(n) & (values >= 0.25) & (values < 0.5))
    assert 30 in wanted and 5 not in wanted
    if n <= 9000:
        check_members(kept, wanted, n)
    else:
        some = np.arange(0, len(wanted), 9973)
        np.testing.assert_array_equal(kept.take(some), wanted[some])
        assert kept.rank(n) == len(wanted) and kept.rank(wanted[-1]) == len(wanted) - 1


def test_examples_that_a_column_does_not_know_are_kept():
    keep = Keep(name="noise_prob", values=np.ones(10), low=0.0, high=0.5)
    np.testing.assert_array_equal(Bitmap.of(Ranges(15), keep).take(np.arange(5)), np.arange(10, 15))


def test_nothing_left_is_an_error():
    with pytest.raises(UsageError, match=r"0.0 <= noise_prob < 0.5 keeps none of 10"):
        Bitmap.of(Ranges(10), Keep(name="noise_prob", values=np.ones(10), low=0.0, high=0.5))
    with pytest.raises(UsageError, match="none of 4 examples"):
        Ranges(4, np.array([[0, 4]]))


# --- draws ----------------------------------------------------------------------------------------
def test_an_epoch_has_every_member_once():
    ids, epochs = Epochs(Ranges(50, HOLES)).at(np.arange(64), seed=1)
    np.testing.assert_array_equal(np.sort(ids[:32]), members_by_hand())
    np.testing.assert_array_equal(epochs, np.arange(64) // 32)


def test_with_replacement_is_uniform_and_independent():
    ids, epochs = WithReplacement(Ranges(50, HOLES)).at(np.arange(32_000), seed=1)
    counts = np.bincount(ids, minlength=50)[members_by_hand()]
    assert counts.sum() == 32_000 and chi_squared(counts, np.ones(32)) < 80  # 31 dof: p 1e-5
    assert len(np.unique(ids[:32])) < 30  # some come twice
    assert len(np.unique(epochs)) == 32_000  # and are augmented anew each time
    whole = ids[[5, 700, 31_999]]
    some, _ = WithReplacement(Ranges(50, HOLES)).at(np.array([5, 700, 31_999]), seed=1)
    np.testing.assert_array_equal(some, whole)


def test_a_mixture_draws_by_weight_and_each_part_has_epochs():
    mixed = Mixed(Ranges(1000, np.array([[90, 110]])), bounds=(0, 100, 1000), weights=(1.0, 3.0))
    ids, epochs = mixed.at(np.arange(8 * 4096), seed=3)
    first = ids < 100
    assert first.sum() == 8 * 1024
    assert abs(first[:400].mean() - 0.25) < 0.1  # shuffled, not one block after another
    for part, size in ((ids[first], 90), (ids[~first], 890)):
        np.testing.assert_array_equal(np.sort(part[:size]), np.unique(part))
        assert len(np.unique(part)) == size
        assert len(np.unique(part[size : 2 * size])) == size
    np.testing.assert_array_equal(epochs[first], np.arange(8 * 1024) // 90)
    some = np.array([7, 4096, 30_000])
    np.testing.assert_array_equal(mixed.at(some, seed=3)[0], ids[some])


def test_a_mixture_refuses_parts_that_cannot_be_drawn():
    with pytest.raises(UsageError, match="part 1 of the mixture has no examples"):
        Mixed(Ranges(20, np.array([[10, 20]])), bounds=(0, 10, 20), weights=(1.0, 1.0))
    with pytest.raises(UsageError, match="below 1/4096"):
        Mixed(Ranges(20), bounds=(0, 10, 20), weights=(1.0, 1e9))


def test_replacements_are_members_and_depend_on_place_alone():
    whole = Stream(draw=Epochs(Ranges(50, HOLES)), batch_size=8, seed=0, rows=np.arange(8))
    part = Stream(draw=Epochs(Ranges(50, HOLES)), batch_size=8, seed=0, rows=np.array([3, 5]))
    drawn = [[whole.replacement(2, row, attempt) for attempt in range(1, 9)] for row in range(8)]
    assert set(np.ravel(drawn)) <= set(members_by_hand()) and len(np.unique(drawn)) > 20
    assert [part.replacement(2, 1, attempt) for attempt in range(1, 9)] == drawn[5]
