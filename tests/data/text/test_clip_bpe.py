"""CLIP's byte-pair encoding against a slow one written from the published algorithm."""

import collections
import gzip
import html
import itertools
import json
import pickle
import unicodedata

import ftfy
import numpy as np
import pytest

from nlip_jax.data.text.clip_bpe import ClipTokenizer, Vocabulary, read_vocabulary
from nlip_jax.errors import UsageError

CAPTIONS = [
    "a photo of the cat's dog and the other thing",
    "another photo, there and then, of a thing that isn't there",
    "photographs of cats & dogs taken in 1999",
    "das größte Mädchen läuft",
]
HOSTILE = [
    "",
    " \t\n ",
    "I'LL take that photo; it isn't DON\u2019T \u201cthere\u201d",
    "cats &amp;amp; dogs &lt;b&gt; &eacute;t&eacute; &copy &#39;s &#0; &#xD800;",
    "MÃ¤dchen grÃ¶ÃŸte",  # UTF-8 read as Latin-1, which ftfy mends
    "1999 ½ ²³ Ⅳ ①",
    "日本語の photo 文",
    "שלום the כלב, مرحبا",
    "🙂👩\u200d👩\u200d👧 the 🙂!!! ...?!",
    "nul\0 dog \x1b[31mred\x7f",
    "half \ud83d of a pair \udc00",
    "\ufb01 \uff26\uff35\uff2c\uff2c ① \u0130stanbul e\u0301",
    "<|endoftext|> <|startoftext|> </w> <end_of_text>",
    "the\u00a0thing\u2003there\u3000then\u0085on",
    "_under_ #tag @name a/b\\c",
]


# --- the published algorithm, slowly --------------------------------------------------------------


def letters_of_bytes():
    """Byte -> visible character, as GPT-2 and CLIP have it."""
    shown = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    rest = [b for b in range(256) if b not in shown]
    return {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(rest)}


LETTERS = letters_of_bytes()


def clean(text):
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def cut_into_words(text):
    """'s|'t|'re|'ve|'m|'ll|'d | letters | one number | what is neither, nor white space."""
    kind = [" " if c.isspace() else unicodedata.category(c)[0] for c in text]
    kind = [k if k in " LN" else "." for k in kind]
    words, i = [], 0
    while i < len(text):
        ends = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
        short = next((e for e in ends if text.startswith(e, i)), "")
        stop = i + max(len(short), 1)
        if not short and kind[i] in "L.":
            while stop < len(text) and kind[stop] == kind[i]:
                stop += 1
        if kind[i] != " ":
            words.append(text[i:stop])
        i = stop
    return words


def merge(symbols, pair):
    merged, i = [], 0
    while i < len(symbols):
        together = tuple(symbols[i : i + 2]) == pair
        merged.append("".join(pair) if together else symbols[i])
        i += 2 if together else 1
    return merged


def spell(word):
    symbols = [LETTERS[b] for b in word.encode()]
    return [*symbols[:-1], symbols[-1] + "</w>"]


def encode_word(word, merges):
    symbols = spell(word)
    while True:
        here = [pair for pair in itertools.pairwise(symbols) if pair in merges]
        if not here:
            return symbols
        symbols = merge(symbols, min(here, key=merges.index))


def learn(captions, count):
    """The merges of Sennrich et al. 2016: the most frequent pair, again and again."""
    words = [spell(word) for caption in captions for word in cut_into_words(clean(caption))]
    merges = []
    for _ in range(count):
        pairs = collections.Counter(p for w in words for p in itertools.pairwise(w))
        merges.append(max(sorted(pairs), key=pairs.__getitem__))
        words = [merge(word, merges[-1]) for word in words]
    return merges


MERGES = learn(CAPTIONS, 50)
# CLIP's own order: visible bytes, the others, both again at the ends of words, merges, two more.
BYTES = sorted(LETTERS.values())
PIECES = [*BYTES, *(b + "</w>" for b in BYTES), *map("".join, MERGES)]
PIECES += ["<|startoftext|>", "<|endoftext|>"]


def slow_encode(text):
    """CLIP's own ids, without those of the start and the end."""
    words = cut_into_words(clean(text))
    return [PIECES.index(piece) for word in words for piece in encode_word(word, MERGES)]


# --- files ----------------------------------------------------------------------------------------


def write_open_clip(folder):
    lines = ['"bpe_simple_vocab_16e6.txt#version: 0.2', *map(" ".join, MERGES), ""]
    file = folder / "bpe_simple_vocab_16e6.txt.gz"
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return file


def write_pair(folder):
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, MERGES), ""]))
    return folder / "vocab.json"


def write_tokenizer_json(folder, merges=MERGES):
    vocabulary = {piece: i for i, piece in enumerate(PIECES)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": model}))
    return folder / "tokenizer.json"


WRITERS = {
    "open_clip": write_open_clip,
    "pair": write_pair,
    "pairs of a list": write_tokenizer_json,
    "pairs in a text": lambda folder: write_tokenizer_json(folder, [" ".join(m) for m in MERGES]),
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Vocabulary:
    return read_vocabulary(write_open_clip(tmp_path_factory.mktemp("clip")))


def make(vocabulary, context_length=77) -> ClipTokenizer:
    return ClipTokenizer(vocabulary, context_length=context_length)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("whole_folder", [True, False])
def test_every_format_gives_the_same_vocabulary(tmp_path, vocabulary, name, whole_folder):
    (tmp_path / "config.json").write_text("{}")
    file = WRITERS[name](tmp_path)
    found = read_vocabulary(tmp_path if whole_folder else file)
    assert found.pieces == tuple(PIECES) and found.merges == tuple(MERGES)
    assert make(found).fingerprint == make(vocabulary).fingerprint


def test_another_vocabulary_has_another_fingerprint(vocabulary):
    fewer = Vocabulary(vocabulary.pieces, vocabulary.merges[:-1], "fewer")
    assert make(fewer).fingerprint != make(vocabulary).fingerprint


# --- rows -----------------------------------------------------------------------------------------


def test_ids_are_those_of_clip_plus_one(vocabulary):
    tokenizer = make(vocabulary)
    assert (tokenizer.id_offset, tokenizer.vocab_size) == (1, len(PIECES) + 1)
    bos, eos = tokenizer.special_ids["bos"], tokenizer.special_ids["eos"]
    assert (bos, eos) == (len(PIECES) - 1, len(PIECES))
    for text in CAPTIONS + HOSTILE:
        row = tokenizer.encode(text).tolist()
        pieces = [i + 1 for i in slow_encode(text)]
        assert row == ([bos, *pieces, eos] + [0] * 77)[:77] or len(pieces) > 75, text
        assert tokenizer.pieces(text) == pieces


def test_random_text(vocabulary):
    tokenizer = make(vocabulary)
    rng = np.random.default_rng(0)
    letters = [*"aehnot 'stdp19é🙂\u2019ß&;<#\t\0\ud800ーא\u0301½!", "the", "&amp;", "Ã©"]
    for length in rng.integers(1, 30, 400):
        text = "".join(letters[i] for i in rng.integers(0, len(letters), length))
        assert tokenizer.pieces(text) == [i + 1 for i in slow_encode(text)], repr(text)


def test_merges_that_were_learned_are_used(vocabulary):
    tokenizer = make(vocabulary)
    assert len(tokenizer.pieces("photo")) < len("photo")
    assert len(tokenizer.pieces("qqqqq")) == 5


def test_truncation_keeps_the_end(vocabulary):
    long, short = make(vocabulary), make(vocabulary, 6)
    row = short.encode(CAPTIONS[0])
    np.testing.assert_array_equal(row[:5], long.encode(CAPTIONS[0])[:5])
    assert row[5] == short.special_ids["eos"]
    assert make(vocabulary, 2).encode("photo").tolist() == [
        short.special_ids["bos"],
        short.special_ids["eos"],
    ]
    endless = long.encode("photo of dogs & cats " * 5_000)
    assert endless[-1] == long.special_ids["eos"] and (endless > 0).all()
    with pytest.raises(UsageError, match="context_length=1"):
        make(vocabulary, 1)


def test_round_trip(vocabulary):
    tokenizer = make(vocabulary)
    rows = tokenizer.encode_batch(CAPTIONS)
    assert (rows.shape, rows.dtype) == ((len(CAPTIONS), 77), np.int32)
    assert tokenizer.decode(rows[3]) == "das größte mädchen läuft"
    assert tokenizer.decode(rows[2]) == "photographs of cats & dogs taken in 1 9 9 9"
    assert tokenizer.decode(tokenizer.encode("")) == ""
    cut = make(vocabulary, 4).encode("\U0001f642")  # four bytes, of which two fit
    assert isinstance(tokenizer.decode(cut), str)


def test_words_end_where_their_last_piece_does(vocabulary):
    tokenizer = make(vocabulary)
    row = tokenizer.encode("the qqq isn't 19")
    words = tokenizer.words(row)
    spelled = [tokenizer.decode(row[words == word]) for word in range(1, words.max() + 1)]
    assert spelled == ["the", "qqq", "isn", "'t", "1", "9"]
    assert words[0] == 0 and not words[row.tolist().index(tokenizer.special_ids["eos"]) :].any()


def test_pickled_copies_encode_the_same(vocabulary):
    tokenizer = make(vocabulary, 16)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint and copy.context_length == 16
    np.testing.assert_array_equal(copy.encode_batch(CAPTIONS), tokenizer.encode_batch(CAPTIONS))


# --- wrong files ----------------------------------------------------------------------------------


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"absent does not exist.*open_clip_torch"):
        read_vocabulary(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"has no \*\.txt\.gz or tokenizer\.json or vocab\.json"):
        read_vocabulary(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(UsageError, match=r"cannot read the vocabulary .*merges\.txt"):
        read_vocabulary(tmp_path)
    for name in ("a.txt.gz", "b.txt.gz"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"a\.txt\.gz and b\.txt\.gz: name one"):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt.gz", b"plain text", "no gzip"),
        ("x.txt.gz", gzip.compress(b"a b\n" * 99)[:-9], "no gzip"),
        ("x.txt.gz", gzip.compress(b"#\na b c\n"), "not of two pieces"),
        ("x.txt.gz", gzip.compress(b"#\nqu ack\n"), "no vocabulary of CLIP: .*qu"),
        ("tokenizer.json", b"{", "no JSON"),
        ("tokenizer.json", b"[1]", "no JSON object"),
        ("tokenizer.json", b"\xff", "not UTF-8"),
        ("tokenizer.json", b'{"model": {"type": "WordPiece"}}', "'WordPiece'"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": 1}}}', "not 0 to"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": 0}}}', "lacks !"),
        ("notes.md", b"", r"is no \*\.txt\.gz"),
    ],
)
def test_files_of_something_else(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        make(read_vocabulary(tmp_path / name))


def test_a_vocabulary_without_an_end(vocabulary):
    pieces = tuple(p for p in vocabulary.pieces if p != "<|endoftext|>")
    with pytest.raises(UsageError, match=r"lacks <\|endoftext\|> and <end_of_text>"):
        make(Vocabulary(pieces, vocabulary.merges, "headless"))
