import dataclasses
import logging

import numpy as np
import pytest

from nlip_jax.data.failures import ReadError
from nlip_jax.data.text.statistics import measure, sample_captions
from nlip_jax.data.text.word_piece import BertTokenizer, Vocabulary

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b")


@dataclasses.dataclass
class Captions:
    """Captions by number, some of them gone or broken."""

    count: int
    holes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.int64))
    broken: frozenset = frozenset()

    def __len__(self):
        return self.count

    def caption(self, example_id, epoch=0):
        if example_id in self.broken:
            raise ReadError("unreadable_caption", "not as it was indexed")
        return str(example_id)


@pytest.mark.parametrize(
    ("count", "want"),
    [(10, "0 1 2 3 4 5 6 7 8 9"), (99, "0 1 2 3 4 5 6 7 8 9"), (3, "0 3 6"), (1, "0")],
)
def test_samples_are_evenly_spaced(count, want):
    assert list(sample_captions(Captions(10), count)) == want.split()


def test_samples_skip_holes_and_what_cannot_be_read(caplog):
    source = Captions(10, holes=np.array([[0, 2], [5, 8]]), broken=frozenset({3, 9}))
    with caplog.at_level(logging.WARNING):
        assert list(sample_captions(source, 100)) == ["2", "4", "8"]
    (record,) = caplog.records
    assert record.getMessage().startswith("2 of 5 sampled captions cannot be read")


def test_counts():
    tokenizer = BertTokenizer(Vocabulary(PIECES, True, "vocab.txt"), context_length=4)
    found = measure(tokenizer, ["a", "ab", "ab a", "a ? a ?", ""])
    assert found.lengths.tolist() == [3, 4, 5, 6, 2]
    assert (found.num_cut, found.num_unknown) == (2, 2)
    assert found.unknown_share == 0.2
    assert measure(tokenizer, []).unknown_share == 0
