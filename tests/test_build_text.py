"""Which tokenizer a config gets, and what becomes of a vocabulary in a workdir."""

import gzip
import json

import numpy as np
import pytest

from configs import base
from nlip_jax import build
from nlip_jax.data.source import NO_HOLES, Numbering
from nlip_jax.data.text.sentence_piece import SentencePieceTokenizer, train_sentence_piece
from nlip_jax.errors import UsageError

CAPTIONS = [f"a {color} dog and {n} cats" for color in ("red", "blue") for n in "0123456789"]


class Captions:
    """A source of captions that counts how many are asked for."""

    holes = NO_HOLES

    def __init__(self, captions=CAPTIONS, *, names=("first",)):
        self.captions, self.asked = captions, 0
        self.numberings = tuple(Numbering(length=len(captions), fingerprint=n) for n in names)

    def __len__(self):
        return len(self.captions)

    def caption(self, example_id, epoch=0):
        self.asked += 1
        return self.captions[example_id]


def open_tokenizer(workdir, *, source=None, **fields):
    config = base.get_config()
    config.tokenizer.update({"vocab_size": 60} | fields)
    return build.open_tokenizer(config, source=source or Captions(), workdir=workdir)


# --- one trained here -----------------------------------------------------------------------------


def test_trained_once_from_the_captions(tmp_path):
    source = Captions()
    first = open_tokenizer(tmp_path / "new", source=source)
    assert (first.vocab_size, first.context_length) == (60, 32)
    assert source.asked == len(CAPTIONS)
    second = open_tokenizer(tmp_path / "new", source=source)
    assert second.fingerprint == first.fingerprint
    assert source.asked == len(CAPTIONS)
    files = {path.name for path in (tmp_path / "new").iterdir()}
    assert files == {"tokenizer.model", "tokenizer.json"}


def test_trained_from_a_sample(tmp_path):
    source = Captions()
    open_tokenizer(tmp_path, source=source, max_sentences=7)
    assert source.asked == 7


@pytest.mark.parametrize("changes", [{"source": Captions(names=("other",))}, {"vocab_size": 50}])
def test_other_captions_or_settings_train_it_again_before_a_run_and_never_after(tmp_path, changes):
    first = open_tokenizer(tmp_path, vocab_size=60)
    second = open_tokenizer(tmp_path, **changes)
    assert (second.vocab_size < first.vocab_size) == ("vocab_size" in changes)
    (tmp_path / "data.json").touch()  # a run begins
    assert open_tokenizer(tmp_path, **changes).fingerprint == second.fingerprint
    with pytest.raises(UsageError, match=r"changed since the run.*another --workdir"):
        open_tokenizer(tmp_path)
    assert (tmp_path / "tokenizer.model").exists()


def test_appended_shards_keep_it(tmp_path):
    first = open_tokenizer(tmp_path)
    (tmp_path / "data.json").touch()
    longer = Captions([*CAPTIONS, "quite another thing"], names=("first", "second"))
    assert open_tokenizer(tmp_path, source=longer).fingerprint == first.fingerprint
    assert longer.asked == 0


def test_killed_before_the_model_was_there(tmp_path):
    first = open_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").unlink()  # the other file is written first
    assert open_tokenizer(tmp_path).fingerprint == first.fingerprint


@pytest.mark.parametrize("over_a_trained_one", [True, False])
def test_a_model_that_someone_put_there_is_neither_used_nor_replaced(tmp_path, over_a_trained_one):
    if over_a_trained_one:
        open_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(train_sentence_piece(["something else entirely"], vocab_size=40))
    given = SentencePieceTokenizer(path, context_length=2).fingerprint
    with pytest.raises(UsageError, match=r"not trained here: set config\.tokenizer\.model=.*model"):
        open_tokenizer(tmp_path)
    assert open_tokenizer(tmp_path, model=str(path)).fingerprint == given
    assert open_tokenizer(tmp_path, model=str(tmp_path)).fingerprint == given
    path.write_bytes(b"junk")
    with pytest.raises(UsageError, match="no SentencePiece model"):
        open_tokenizer(tmp_path)


# --- published ones -------------------------------------------------------------------------------


def write_clip(folder):
    file = folder / "bpe_simple_vocab_16e6.txt.gz"
    file.write_bytes(gzip.compress(b"#version\nd o\ndo g</w>\n"))
    return file


def write_bert(folder):
    file = folder / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "Cat"]))
    return file


@pytest.mark.parametrize(
    ("name", "write", "fields", "row"),
    [
        ("clip", write_clip, {}, [515, 514, 516, 0]),
        ("bert", write_bert, {"lower_case": False}, [2, 5, 3, 0]),
    ],
)
def test_published_vocabularies(tmp_path, name, write, fields, row):
    for model in (write(tmp_path), tmp_path):
        tokenizer = open_tokenizer(
            tmp_path / "w", name=name, model=str(model), context_length=4, **fields
        )
        np.testing.assert_array_equal(tokenizer.encode("dog"), row)
    assert not (tmp_path / "w").exists()  # nothing is written for them


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "wordpiece"}, "choose one of sentencepiece, clip, bert"),
        ({"name": "clip"}, r"config\.tokenizer\.model is empty.*open_clip_torch"),
        ({"name": "bert"}, r"config\.tokenizer\.model is empty.*vocab\.txt"),
        ({"name": "clip", "model": "/no/such"}, "/no/such does not exist.*open_clip_torch"),
        ({"name": "bert", "model": "/no/such"}, "/no/such does not exist.*vocab.txt"),
        ({"model": "/no/such"}, "/no/such does not exist.*nlip_jax tokenizer"),
    ],
)
def test_wrong_names_and_files(tmp_path, fields, words):
    with pytest.raises(UsageError, match=words):
        open_tokenizer(tmp_path, **fields)


def test_a_cased_vocabulary_says_so(tmp_path):
    write_bert(tmp_path)
    with pytest.raises(UsageError, match=r"'Cat': set config\.tokenizer\.lower_case=False"):
        open_tokenizer(tmp_path, name="bert", model=str(tmp_path))


def test_a_tokenizer_of_ones_own(tmp_path):
    own = open_tokenizer(tmp_path, name="test_build_text:own_tokenizer", context_length=5)
    assert own == ("mine", 5, tmp_path)


def own_tokenizer(spec, *, source, workdir):
    assert json.dumps(source.captions)
    return "mine", spec.context_length, workdir
