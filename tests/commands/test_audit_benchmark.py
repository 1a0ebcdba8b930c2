"""`benchmark audit` at toy size: that it runs, and what its made-up rows are."""

import numpy as np

from nlip_jax.commands.benchmarks import audit
from nlip_jax.commands.benchmarks.audit_rows import Rows, word


def test_it_tells_seconds_and_memory_of_each_stage():
    numbers = audit.run(num_rows=2000)
    assert numbers["audit/rows"] == 2000 and 0.1 < numbers["audit/near_identical_share"] < 0.5
    stages = ("read_captions", "estimate", "nearly_identical_captions", "tables", "page")
    for stage in stages:
        assert numbers[f"audit/{stage}/cpu_seconds"] >= 0
        assert 50 < numbers[f"audit/{stage}/peak_mb"] < 20_000
    total = sum(numbers[f"audit/{stage}/seconds"] for stage in stages)
    assert 0 < numbers["audit/seconds"] < 3 * total + 10


def test_rows_are_the_same_each_time_and_some_are_alike():
    rows = Rows(5000)
    captions = [rows.caption(i) for i in range(5000)]
    assert captions == [Rows(5000).caption(i) for i in range(5000)]
    assert 8 < np.mean([len(caption.split()) for caption in captions]) < 13
    equal = 5000 - len(set(captions))
    assert 0.03 < equal / 5000 < 0.12
    names = rows.sample_names(np.arange(3))
    assert len({name.uid for name in names}) == 3 and all(len(name.uid) == 32 for name in names)
    assert len({word(i) for i in range(30_000)}) == 30_000 and word(5).isalpha()
