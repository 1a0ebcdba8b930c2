"""BART's byte-pair encoding against `tokenizers` put together as BART's files have it."""

import json
import pickle

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from configs import base
from nlip_jax import build
from nlip_jax.data.text.bart_bpe import BartTokenizer, read_vocabulary
from nlip_jax.data.text.byte_pairs import Vocabulary
from nlip_jax.errors import UsageError

CAPTIONS = [
    "a photo of the cat's dog and the other thing",
    "another photo, there and then, of a thing that isn't there",
    "Photographs of cats & dogs taken in 1999.",
    "das größte Mädchen läuft",
]
HOSTILE = [
    "",
    " \t\n ",
    " a  photo \n of 1234567 things ",
    "I'LL take that photo; it isn't DON\u2019T",
    "日本語の photo 文",
    "🙂👩\u200d👩\u200d👧 the 🙂!!! ...?!",
    "nul\0 dog \x1b[31mred\x7f",
    "the\u00a0thing\u2003there\u3000then\u0085on",
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]  # BART's first pieces; <mask> is its last


def published() -> Tokenizer:
    """A tokenizer of BART's arrangement with a vocabulary of its own, as Hugging Face's has it."""
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(CAPTIONS * 3, trainer)
    made.add_special_tokens(["<mask>"])  # behind all others, and outside of the model
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return made


@pytest.fixture(scope="module")
def theirs() -> Tokenizer:
    return published()


@pytest.fixture(scope="module")
def vocabulary(theirs, tmp_path_factory) -> Vocabulary:
    folder = tmp_path_factory.mktemp("bart")
    theirs.save(str(folder / "tokenizer.json"))
    return read_vocabulary(folder)


@pytest.fixture(scope="module")
def tokenizer(vocabulary) -> BartTokenizer:
    return BartTokenizer(vocabulary, context_length=64)


def test_ids_are_those_of_bart_plus_one(theirs, tokenizer):
    assert (tokenizer.id_offset, tokenizer.vocab_size) == (1, theirs.get_vocab_size() + 1)
    assert tokenizer.special_ids == {
        **{"pad": 0, "bos": 1, "unused": 2, "eos": 3, "unk": 4},
        "mask": theirs.get_vocab_size(),
    }
    for text in CAPTIONS + HOSTILE:
        ids = [i + 1 for i in theirs.encode(text).ids]
        row = tokenizer.encode(text)
        assert row.tolist() == ids + [0] * (64 - len(ids)), text
        assert tokenizer.pieces(text) == ids[1:-1]
        assert tokenizer.decode(row) == text
    assert len(tokenizer.pieces(" photo")) == 1  # merges are used


def test_random_text(theirs, tokenizer):
    rng = np.random.default_rng(0)
    letters = [*"aehnot 'stdp19é🙂\u2019ß&;<#\t\0א\u0301½!", "the", " photo", "Ã©", "<", ">", "/"]
    for length in rng.integers(1, 30, 200):
        text = "".join(letters[i] for i in rng.integers(0, len(letters), length))
        assert tokenizer.pieces(text) == [i + 1 for i in theirs.encode(text).ids[1:-1]], repr(text)


def test_special_pieces_in_a_caption_are_text(tokenizer):
    text = "</s> <mask><pad> <s>"
    pieces = tokenizer.pieces(text)
    assert not set(pieces) & set(tokenizer.special_ids.values())
    assert tokenizer.decode(pieces) == text
    assert isinstance(tokenizer.decode(tokenizer.encode("half \ud83d of a pair")), str)


def test_rows_are_cut_before_their_end(vocabulary, tokenizer):
    row = BartTokenizer(vocabulary, context_length=6).encode(CAPTIONS[0])
    np.testing.assert_array_equal(row[:5], tokenizer.encode(CAPTIONS[0])[:5])
    assert row[5] == tokenizer.special_ids["eos"]


def test_words_begin_with_their_blank(tokenizer):
    row = tokenizer.encode("the qqq isn't 19")
    words = tokenizer.words(row)
    spelled = [tokenizer.decode(row[words == word]) for word in range(1, words.max() + 1)]
    assert spelled == ["the", " qqq", " isn't", " 19"]
    assert words[0] == 0 and not words[row.tolist().index(tokenizer.special_ids["eos"]) :].any()


def test_both_kinds_of_files_and_pickled_copies_are_the_same(theirs, tokenizer, tmp_path):
    model = json.loads(theirs.to_str())["model"]
    pieces = model["vocab"] | {"<mask>": len(model["vocab"])}
    (tmp_path / "vocab.json").write_text(json.dumps(pieces))
    lines = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))
    second = BartTokenizer(read_vocabulary(tmp_path), context_length=64)
    assert second.fingerprint == tokenizer.fingerprint
    copy = pickle.loads(pickle.dumps(second))
    assert copy.fingerprint == tokenizer.fingerprint
    np.testing.assert_array_equal(copy.encode_batch(CAPTIONS), tokenizer.encode_batch(CAPTIONS))


def test_a_config_names_it(theirs, tokenizer, tmp_path):
    theirs.save(str(tmp_path / "tokenizer.json"))
    config = base.get_config()
    config.tokenizer.update({"name": "bart", "model": str(tmp_path), "context_length": 9})
    opened = build.reopen_tokenizer(config, workdir=tmp_path)
    assert (opened.fingerprint, opened.context_length) == (tokenizer.fingerprint, 9)


def test_vocabularies_of_something_else(vocabulary, tmp_path):
    with pytest.raises(UsageError, match=r"absent does not exist.*BART's checkpoints"):
        read_vocabulary(tmp_path / "absent")
    fewer = tuple(piece for piece in vocabulary.pieces if piece not in ("<mask>", "A"))
    with pytest.raises(UsageError, match=r"headless is no vocabulary of BART: it lacks <mask>, A"):
        BartTokenizer(Vocabulary(fewer, vocabulary.merges, "headless"), context_length=8)
    wrong = Vocabulary(vocabulary.pieces, (("qu", "ack"),), "wrong")
    with pytest.raises(UsageError, match=r"wrong is no vocabulary of BART: .*qu"):
        BartTokenizer(wrong, context_length=8)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "BPE", "vocab": 1}}')
    with pytest.raises(UsageError, match="ids of the vocabulary"):
        read_vocabulary(tmp_path)
