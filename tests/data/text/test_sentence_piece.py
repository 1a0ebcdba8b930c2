import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from nlip_jax.data.text.sentence_piece import SentencePieceTokenizer, train_sentence_piece
from nlip_jax.errors import UsageError

CAPTIONS = [
    f"A {color} {thing} {place} {other}."
    for color in ("red", "dark blue", "Green")
    for thing in ("bicycle", "dog", "kitchen table")
    for place in ("beside", "on top of", "behind")
    for other in ("the river", "a wooden fence", "two children")
]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_sentence_piece(CAPTIONS, vocab_size=120))
    return path


def train(captions, **settings) -> SentencePieceTokenizer:
    model = train_sentence_piece(captions, **{"vocab_size": 10_000} | settings)
    return SentencePieceTokenizer(model, context_length=32)


def read(path, context_length=32) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(path, context_length=context_length)


def test_rows_and_round_trip(path):
    tokenizer = read(path)
    assert tokenizer.vocab_size == 120
    assert tokenizer.special_ids == {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4}
    rows = tokenizer.encode_batch(CAPTIONS)
    assert (rows.shape, rows.dtype) == ((len(CAPTIONS), 32), np.int32)
    for row, caption in zip(rows, CAPTIONS, strict=True):
        np.testing.assert_array_equal(row, tokenizer.encode(caption))
        end = row.tolist().index(3)
        assert row[0] == 2
        assert (row[1:end] > 4).all()
        assert (row[end + 1 :] == 0).all()
        assert tokenizer.decode(row) == caption.lower()
    assert tokenizer.encode_batch([]).shape == (0, 32)


def test_truncation_keeps_the_end(path):
    long, short = read(path), read(path, 6)
    row = short.encode(CAPTIONS[0])
    np.testing.assert_array_equal(row[:5], long.encode(CAPTIONS[0])[:5])
    assert row[5] == 3
    assert CAPTIONS[0].lower().startswith(short.decode(row))
    assert read(path, 2).encode(CAPTIONS[0]).tolist() == [2, 3]
    endless = "dog " * 1_000_000
    np.testing.assert_array_equal(short.encode(endless), short.encode(endless[:200]))


def test_hostile_text(path):
    tokenizer = read(path)
    assert tokenizer.encode("").tolist() == [2, 3] + [0] * 30
    assert tokenizer.encode(" \t\n").tolist() == [2, 3] + [0] * 30
    for text in ("<s> </s> <pad> <unk> <mask>", "\ud800 dog", "nul \0 dog", "日本 🙂"):
        row = tokenizer.encode(text).tolist()
        end = row.index(3)
        assert not {0, 2, 3, 4} & set(row[1:end])  # text makes no control ids
        assert 1 in row[1:end]
        assert isinstance(tokenizer.decode(row), str)


def test_text_that_is_not_ascii():
    captions = ["Ein Mädchen läuft", "日本語の字幕", "\uff26\uff35\uff2c\uff2c width ﬁne", "ÇA VA"]
    tokenizer = train(captions, character_coverage=1.0)
    want = ["ein mädchen läuft", "日本語の字幕", "full width fine", "ça va"]
    assert [tokenizer.decode(row) for row in tokenizer.encode_batch(captions)] == want
    tokenizer = train(CAPTIONS, byte_fallback=True)
    row = tokenizer.encode("日本 🙂")
    assert 1 not in row
    assert tokenizer.decode(row) == "日本 🙂"


def test_words_begin_at_white_space(path):
    tokenizer = read(path)
    row = tokenizer.encode("Green dog, beside zebras")
    words = tokenizer.words(row)
    assert {1, 2, 3} < set(row.tolist())  # the comma and z were never seen
    assert not words[row <= 4].any()
    spelled = [tokenizer.decode(row[words == word]) for word in range(1, words.max() + 1)]
    assert spelled == ["green", "dog", "beside", "ebras"]  # a word goes on behind what is unknown
    assert not tokenizer.words(tokenizer.encode("")).any()


def test_another_process_makes_the_same_bytes_without_jax(path, tmp_path):
    other = tmp_path / "elsewhere.model"
    program = (
        "import json, sys\n"
        "from nlip_jax.data.text.sentence_piece import train_sentence_piece\n"
        "assert 'jax' not in sys.modules\n"
        "model = train_sentence_piece(json.load(sys.stdin), vocab_size=120)\n"
        "open(sys.argv[1], 'wb').write(model)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(other)],
        input=json.dumps(CAPTIONS),
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env={"PYTHONHASHSEED": "7"},
    )
    assert other.read_bytes() == path.read_bytes()
    assert read(other, 8).fingerprint == read(path, 16).fingerprint


def test_a_vocabulary_the_text_cannot_fill_shrinks_with_one_line(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = train(CAPTIONS, vocab_size=50_000)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"vocab_size shrank from 50000 to {tokenizer.vocab_size}: {len(CAPTIONS)} captions "
        "support no more"
    )
    caplog.clear()
    exact = train(CAPTIONS, vocab_size=tokenizer.vocab_size)
    assert exact.fingerprint == tokenizer.fingerprint
    assert not caplog.records


def test_samples_are_repeatable_and_from_everywhere():
    def captions():
        yield from (f"word{i % 10} number{i}" for i in range(1000))

    first, second = (train(captions(), max_sentences=100) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert train(list(captions())[:100]).fingerprint != first.fingerprint


def test_endless_captions_are_cut_not_dropped():
    tokenizer = train(["zebra " * 100_000])
    assert tokenizer.decode(tokenizer.encode("zebra")) == "zebra"


def test_pickled_copies_encode_the_same(path):
    tokenizer = read(path, 16)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint
    assert (copy.context_length, copy.vocab_size) == (16, 120)
    np.testing.assert_array_equal(
        copy.encode_batch(CAPTIONS[:3]), tokenizer.encode_batch(CAPTIONS[:3])
    )


@pytest.mark.parametrize("captions", [[], ["", "  \n"]])
def test_no_text_is_a_usage_error(captions):
    with pytest.raises(UsageError, match="no text to train a tokenizer on"):
        train(captions)
    with pytest.raises(UsageError, match="max_sentences=0"):
        train(CAPTIONS, max_sentences=0)


def test_a_vocabulary_too_small_for_the_characters_is_a_usage_error():
    with pytest.raises(UsageError, match=r"vocab_size=5: .*5 vs \d+"):
        train(CAPTIONS, vocab_size=5)


@pytest.mark.parametrize("content", [b"", b"junk", bytes(100)])
def test_a_file_that_is_no_model_is_a_usage_error(tmp_path, content):
    file = tmp_path / "file.model"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"file\.model is no SentencePiece model"):
        read(file)


def test_missing_files_foreign_ids_and_short_rows_are_usage_errors(path, tmp_path):
    with pytest.raises(UsageError, match=r"absent does not exist.*nlip_jax tokenizer"):
        read(tmp_path / "absent")
    with pytest.raises(UsageError, match="context_length=1"):
        read(path, 1)
    assert read(path.parent).fingerprint == read(path).fingerprint  # a folder with one model
    prefix = tmp_path / "foreign"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS), model_prefix=str(prefix), vocab_size=40, minloglevel=2
    )
    with pytest.raises(UsageError, match=r"pad, unk, bos, eos = \(-1, 0, 1, 2\)"):
        read(f"{prefix}.model")
