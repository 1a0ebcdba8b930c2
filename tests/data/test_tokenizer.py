import dataclasses
import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from nlip_jax.data.tokenizer import Tokenizer, train_tokenizer
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
    path = tmp_path_factory.mktemp("tokenizer") / "new" / "tokenizer.model"
    info = train_tokenizer(CAPTIONS, path=path, vocab_size=120)
    assert (info.vocab_size, info.requested, info.num_captions) == (120, 120, len(CAPTIONS))
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing temporary
    return path


def train(tmp_path, captions, **settings):
    """Trains on a few captions; the tokenizer and what was said of it."""
    path = tmp_path / "other.model"
    info = train_tokenizer(captions, path=path, **{"vocab_size": 10_000} | settings)
    return Tokenizer(path, 32), info


def test_rows_and_round_trip(path):
    tokenizer = Tokenizer(path, 32)
    assert tokenizer.vocab_size == 120
    rows = tokenizer.encode_batch(CAPTIONS)
    assert (rows.shape, rows.dtype) == ((len(CAPTIONS), 32), np.int32)
    for row, caption in zip(rows, CAPTIONS, strict=True):
        np.testing.assert_array_equal(row, tokenizer.encode(caption))
        end = row.tolist().index(3)
        assert row[0] == 2
        assert (row[1:end] > 3).all()
        assert (row[end + 1 :] == 0).all()
        assert tokenizer.decode(row) == caption.lower()
    assert tokenizer.encode_batch([]).shape == (0, 32)


def test_truncation_keeps_the_end(path):
    long, short = Tokenizer(path, 32), Tokenizer(path, 6)
    row = short.encode(CAPTIONS[0])
    np.testing.assert_array_equal(row[:5], long.encode(CAPTIONS[0])[:5])
    assert row[5] == 3
    assert CAPTIONS[0].lower().startswith(short.decode(row))
    assert Tokenizer(path, 2).encode(CAPTIONS[0]).tolist() == [2, 3]
    endless = "dog " * 1_000_000
    np.testing.assert_array_equal(short.encode(endless), short.encode(endless[:200]))


def test_hostile_text(path):
    tokenizer = Tokenizer(path, 32)
    assert tokenizer.encode("").tolist() == [2, 3] + [0] * 30
    assert tokenizer.encode(" \t\n").tolist() == [2, 3] + [0] * 30
    for text in ("<s> </s> <pad> <unk>", "\ud800 dog", "nul \0 dog", "日本 🙂"):
        row = tokenizer.encode(text).tolist()
        end = row.index(3)
        assert not {0, 2, 3} & set(row[1:end])  # text makes no control ids
        assert 1 in row[1:end]
        assert isinstance(tokenizer.decode(row), str)


def test_text_that_is_not_ascii(tmp_path):
    captions = ["Ein Mädchen läuft", "日本語の字幕", "\uff26\uff35\uff2c\uff2c width ﬁne", "ÇA VA"]
    tokenizer, _ = train(tmp_path, captions, character_coverage=1.0)
    want = ["ein mädchen läuft", "日本語の字幕", "full width fine", "ça va"]
    assert [tokenizer.decode(row) for row in tokenizer.encode_batch(captions)] == want
    tokenizer, _ = train(tmp_path, CAPTIONS, byte_fallback=True)
    row = tokenizer.encode("日本 🙂")
    assert 1 not in row
    assert tokenizer.decode(row) == "日本 🙂"


def test_another_process_makes_the_same_bytes_without_jax(path, tmp_path):
    other = tmp_path / "elsewhere.model"
    program = (
        "import json, sys\n"
        "from nlip_jax.data.tokenizer import train_tokenizer\n"
        "assert 'jax' not in sys.modules\n"
        "train_tokenizer(json.load(sys.stdin), path=sys.argv[1], vocab_size=120)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(other)],
        input=json.dumps(CAPTIONS),
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "7"},
    )
    assert other.read_bytes() == path.read_bytes()
    assert Tokenizer(other, 8).fingerprint == Tokenizer(path, 16).fingerprint


def test_a_vocabulary_the_text_cannot_fill_shrinks_with_one_line(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer, info = train(tmp_path, CAPTIONS, vocab_size=50_000)
    assert tokenizer.vocab_size == info.vocab_size < info.requested == 50_000
    (record,) = caplog.records
    assert "50000" in record.getMessage()
    assert str(info.vocab_size) in record.getMessage()
    caplog.clear()
    _, exact = train(tmp_path, CAPTIONS, vocab_size=info.vocab_size)
    assert exact == dataclasses.replace(info, requested=info.vocab_size)
    assert not caplog.records


def test_samples_are_bounded_repeatable_and_from_everywhere(tmp_path):
    def captions():
        yield from (f"word{i % 10} number{i}" for i in range(1000))

    first = train(tmp_path, captions(), max_sentences=100)
    second = train(tmp_path, captions(), max_sentences=100)
    assert first[1] == second[1]
    assert first[1].num_captions == 100
    head = train(tmp_path, list(captions())[:100])
    assert head[1].fingerprint != first[1].fingerprint


def test_endless_captions_are_cut_not_dropped(tmp_path):
    tokenizer, _ = train(tmp_path, ["zebra " * 100_000])
    assert tokenizer.decode(tokenizer.encode("zebra")) == "zebra"


def test_pickled_copies_encode_the_same(path):
    tokenizer = Tokenizer(path, 16)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint
    assert (copy.context_length, copy.vocab_size) == (16, 120)
    np.testing.assert_array_equal(
        copy.encode_batch(CAPTIONS[:3]), tokenizer.encode_batch(CAPTIONS[:3])
    )


@pytest.mark.parametrize("captions", [[], ["", "  \n"]])
def test_no_text_is_a_usage_error(tmp_path, captions):
    with pytest.raises(UsageError, match="no text to train a tokenizer on"):
        train(tmp_path, captions)
    with pytest.raises(UsageError, match="max_sentences=0"):
        train(tmp_path, CAPTIONS, max_sentences=0)
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_too_small_for_the_characters_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"vocab_size=5: .*5 vs \d+"):
        train(tmp_path, CAPTIONS, vocab_size=5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"junk", bytes(100)])
def test_a_file_that_is_no_model_is_a_usage_error(tmp_path, content):
    file = tmp_path / "file.model"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"file\.model is no SentencePiece model"):
        Tokenizer(file, 16)


def test_missing_files_foreign_ids_and_short_rows_are_usage_errors(path, tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the tokenizer .*absent"):
        Tokenizer(tmp_path / "absent", 16)
    with pytest.raises(UsageError, match="context_length=1"):
        Tokenizer(path, 1)
    prefix = tmp_path / "foreign"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS), model_prefix=str(prefix), vocab_size=40, minloglevel=2
    )
    with pytest.raises(UsageError, match=r"pad, unk, bos, eos = \(-1, 0, 1, 2\)"):
        Tokenizer(f"{prefix}.model", 16)
