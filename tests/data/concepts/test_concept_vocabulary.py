"""Concepts by number, their tokens, and files of them."""

import numpy as np
import pytest

from nlip_jax.data.concepts import make_vocabulary, read_concepts, write_concepts
from nlip_jax.data.text.sentence_piece import SentencePieceTokenizer, train_sentence_piece
from nlip_jax.errors import UsageError


class Letters:
    def pieces(self, text):
        return [ord(letter) for letter in text]


def vocabulary(words=("cat", "polar bear", "ox"), max_tokens=4):
    return make_vocabulary(words, tokenizer=Letters(), max_tokens=max_tokens)


def test_rows_are_cut_and_filled_up():
    made = vocabulary()
    np.testing.assert_array_equal(made.rows, [[*b"cat", 0], [*b"pola"], [*b"ox", 0, 0]])
    assert (made.rows.dtype, len(made)) == (np.int32, 3)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int16])
def test_tokens_of_a_batch(dtype):
    made = vocabulary()
    found = made.tokens(np.array([[2, 0], [1, -1], [-1, -7]], dtype))
    expected = [[*b"ox", 0, 0, *b"cat", 0], [*b"pola", 0, 0, 0, 0], [0] * 8]
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape) == (np.int32, (3, 8))
    assert made.tokens(np.zeros((0, 5), dtype)).shape == (0, 20)
    with pytest.raises(IndexError):
        made.tokens(np.array([[4]], dtype))


def test_names():
    assert vocabulary().names([2, -1, 0]) == ["ox", "cat"]


def test_fingerprint_tells_words_and_tokens_apart():
    made = [
        vocabulary(),
        vocabulary(("polar bear", "cat", "ox")),
        vocabulary(max_tokens=5),
        vocabulary(("cat", "polar bears", "ox")),  # cut to the same tokens
    ]
    assert len({one.fingerprint for one in made}) == 4
    assert vocabulary().fingerprint == made[0].fingerprint


def test_real_pieces_say_the_words():
    model = train_sentence_piece(["a cat and a polar bear on the ice"] * 9, vocab_size=40)
    tokenizer = SentencePieceTokenizer(model, context_length=8)
    made = make_vocabulary(("cat", "polar bear"), tokenizer=tokenizer, max_tokens=9)
    assert [tokenizer.decode(row) for row in made.rows] == ["cat", "polar bear"]


# --- files ----------------------------------------------------------------------------------------


def test_written_and_read(tmp_path):
    words = ("cat", "polar bear", "crème brûlée")
    write_concepts(tmp_path / "c.txt", words)
    assert read_concepts(tmp_path / "c.txt") == words


def test_case_spaces_blank_lines_and_twins(tmp_path):
    path = tmp_path / "c.txt"
    path.write_bytes("\ufeffCat\r\n\n  polar   Bear \r\n\t\ncat\nPOLAR BEAR\nox".encode())
    assert read_concepts(path) == ("cat", "polar bear", "ox")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no concept: it must have one word or phrase a line"),
        (b"\n \n", "holds no concept"),
        (b"cat\ndog, hound\n", r"c\.txt:2: 'dog, hound' holds ',': give one word or phrase a line"),
        (b"cat\tdog\n", r"c\.txt:1: .* holds '\\t'"),
        (b'\n"cat"\n', r"c\.txt:2: "),
        (b"cat\n\xff\xfe\n", r"c\.txt:2: not UTF-8"),
        (b"x" * 101, r"c\.txt:1: .* at most 100 printable characters"),
        (b"a\x00b", r"c\.txt:1: .* no word or phrase"),
    ],
    ids=str,
)
def test_what_is_no_list_of_concepts(tmp_path, content, words):
    (tmp_path / "c.txt").write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_concepts(tmp_path / "c.txt")


def test_no_file(tmp_path):
    for place in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UsageError, match=r"cannot read the concepts .*a text file with one a"):
            read_concepts(place)
