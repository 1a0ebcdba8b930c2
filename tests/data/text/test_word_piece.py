"""BERT's WordPiece against a slow one written from the published algorithm."""

import json
import pickle
import unicodedata

import numpy as np
import pytest

from nlip_jax.data.text.word_piece import BertTokenizer, Vocabulary, read_vocabulary
from nlip_jax.errors import UsageError

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ["dog", "photo", "##graph", "the", "un", "##aff", "##able", "madchen", "nao", "日"]
MARKS = list(".,'!?&;#<>[]@_/")
PIECES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *MARKS, *WORDS, *LETTERS]
PIECES += [f"##{letter}" for letter in LETTERS]
CASED = [*PIECES, "Dog", "M", "ä", "##ä"]

CAPTIONS = ["A photograph of the dogs.", "unaffable, isn't it?", "Das MÄDCHEN läuft", "não é"]
HOSTILE = [
    "",
    " \t\n ",
    "[CLS] [MASK] [SEP] [PAD] [unused0] ##s",
    "日本語の dog",
    "שלום the כלב, مرحبا",
    "🙂 dog🙂 👩\u200d👩\u200d👧!!!",
    "nul\0 dog \x1b red\x7f \ufffd",
    "half \ud83d of a pair \udc00",
    "a" * 100 + " " + "a" * 101,
    "the\u00a0thing\u2003there\u3000on",
    "e\u0301 \u00e9 \u0130 \u1e9e \u00df",
    "_under_ #tag @name a/b \u201cquoted\u201d \u2014 ok",
]


# --- the published algorithm, slowly --------------------------------------------------------------


def is_chinese(c):
    blocks = [(0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0xF900, 0xFAFF)]
    return any(low <= ord(c) <= high for low, high in blocks)


def is_mark(c):
    ascii_mark = c.isascii() and c.isprintable() and not c.isalnum() and c != " "
    return ascii_mark or unicodedata.category(c).startswith("P")


def cut_into_words(text, lower_case):
    kept = ""
    for c in text:
        if c in "\t\n\r" or unicodedata.category(c) == "Zs":
            kept += " "
        elif c not in "\0\ufffd" and unicodedata.category(c) not in ("Cc", "Cf"):
            kept += f" {c} " if is_chinese(c) else c
    if lower_case:
        bare = unicodedata.normalize("NFD", kept.lower())
        kept = "".join(c for c in bare if unicodedata.category(c) != "Mn")
    return "".join(f" {c} " if is_mark(c) else c for c in kept).split()


def encode_word(word, pieces):
    found, start = [], 0
    while start < len(word):
        ends = range(len(word), start, -1)
        tried = (("##" if start else "") + word[start:end] for end in ends)
        piece = next((piece for piece in tried if piece in pieces), None)
        if piece is None or len(word) > 100:
            return ["[UNK]"]
        found.append(piece)
        start += len(piece.removeprefix("##")) if start else len(piece)
    return found


def slow_encode(text, pieces, lower_case=True):
    text = text.encode("utf-8", "replace").decode()
    words = cut_into_words(text, lower_case)
    return [pieces.index(piece) for word in words for piece in encode_word(word, pieces)]


# --- files ----------------------------------------------------------------------------------------


def write_lines(folder, pieces=PIECES, end="\n"):
    file = folder / "vocab.txt"
    file.write_bytes("".join(piece + end for piece in pieces).encode())
    return file


def write_tokenizer_json(folder, pieces=PIECES, **normalizer):
    content = {
        "model": {"type": "WordPiece", "vocab": {piece: i for i, piece in enumerate(pieces)}},
        "normalizer": {"type": "BertNormalizer", "strip_accents": None, **normalizer},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder / "tokenizer.json"


def make(pieces=PIECES, *, lower_case=True, context_length=64) -> BertTokenizer:
    vocabulary = Vocabulary(tuple(pieces), lower_case, "vocab.txt")
    return BertTokenizer(vocabulary, context_length=context_length)


@pytest.mark.parametrize("whole_folder", [True, False])
@pytest.mark.parametrize(
    "write",
    [
        write_lines,
        lambda folder: write_lines(folder, end="\r\n"),
        lambda folder: write_lines(folder).rename(folder / "bert-base-uncased-vocab.txt"),
        write_tokenizer_json,
        lambda folder: write_tokenizer_json(folder, lowercase=True),
    ],
)
def test_every_format_gives_the_same_vocabulary(tmp_path, write, whole_folder):
    (tmp_path / "README.txt").write_text("no vocabulary")
    file = write(tmp_path)
    found = read_vocabulary(tmp_path if whole_folder else file, lower_case=True)
    assert found.pieces == tuple(PIECES)
    tokenizer = BertTokenizer(found, context_length=8)
    assert tokenizer.fingerprint == make().fingerprint


def test_folding_is_part_of_the_fingerprint():
    assert make(lower_case=False).fingerprint != make().fingerprint
    assert make(CASED, lower_case=False).fingerprint != make(lower_case=False).fingerprint


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pieces", "lower_case"), [(PIECES, True), (CASED, False)])
def test_ids_are_those_of_bert(pieces, lower_case):
    tokenizer = make(pieces, lower_case=lower_case, context_length=300)
    assert tokenizer.special_ids == {"pad": 0, "unk": 2, "bos": 3, "eos": 4, "mask": 5}
    assert (tokenizer.vocab_size, tokenizer.id_offset) == (len(pieces), 0)
    for text in CAPTIONS + HOSTILE:
        want = slow_encode(text, pieces, lower_case)
        assert tokenizer.pieces(text) == want, text
        row = tokenizer.encode(text)
        assert row.tolist() == [3, *want, 4] + [0] * (298 - len(want)) and row.dtype == np.int32
        assert not {0, 3, 4, 5} & set(want)  # text makes no control ids


def test_random_text():
    tokenizer = make()
    rng = np.random.default_rng(0)
    letters = [*"dogst aeun.,'[]#🙂éÄ日語\t\0\ud800א\u0301\u200d!", "photo", "graph", "affable"]
    for length in rng.integers(1, 30, 400):
        text = "".join(letters[i] for i in rng.integers(0, len(letters), length))
        assert tokenizer.pieces(text) == slow_encode(text, PIECES), repr(text)


def test_truncation_keeps_the_end():
    long, short = make(), make(context_length=6)
    row = short.encode(CAPTIONS[0])
    np.testing.assert_array_equal(row[:5], long.encode(CAPTIONS[0])[:5])
    assert row[5] == 4
    assert make(context_length=2).encode("dog").tolist() == [3, 4]
    endless = long.encode("dog, " * 20_000)
    assert endless[-1] == 4 and (endless > 0).all()
    with pytest.raises(UsageError, match="context_length=1"):
        make(context_length=1)


def test_round_trip_and_words():
    tokenizer = make()
    row = tokenizer.encode("The photographs: unaffable DOGS.")
    assert tokenizer.decode(row) == "the photographs [UNK] unaffable dogs ."
    words = tokenizer.words(row)
    spelled = [tokenizer.decode(row[words == word]) for word in range(1, words.max() + 1)]
    assert spelled == ["the", "photographs", "unaffable", "dogs", "."]
    assert not words[np.isin(row, [0, 2, 3, 4])].any()


def test_pickled_copies_encode_the_same():
    tokenizer = make(CASED, lower_case=False, context_length=16)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint and copy.context_length == 16
    np.testing.assert_array_equal(copy.encode_batch(CAPTIONS), tokenizer.encode_batch(CAPTIONS))


# --- wrong files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (PIECES[1:], r"lacks \[PAD\]"),
        ([p for p in PIECES if p not in ("[CLS]", "[MASK]")], r"lacks \[CLS\], \[MASK\]"),
        ([PIECES[1], PIECES[0], *PIECES[2:]], r"\[PAD\] = 1 and must have it first"),
        (CASED, r"is cased, it has 'Dog': set config\.tokenizer\.lower_case=False"),
    ],
)
def test_vocabularies_that_do_not_fit(pieces, words):
    with pytest.raises(UsageError, match=words):
        make(pieces)


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match=r"has no \*vocab\.txt or tokenizer\.json: BERT's"):
        read_vocabulary(tmp_path, lower_case=True)
    with pytest.raises(UsageError, match="stands twice"):
        read_vocabulary(write_lines(tmp_path, [*PIECES, "dog"]), lower_case=True)
    for field, value in (("lowercase", False), ("strip_accents", False), ("clean_text", False)):
        file = write_tokenizer_json(tmp_path, **{field: value})
        with pytest.raises(UsageError, match=f"{field}=False.*lower_case=True"):
            read_vocabulary(file, lower_case=True)
    assert read_vocabulary(write_tokenizer_json(tmp_path, lowercase=False), lower_case=False)
