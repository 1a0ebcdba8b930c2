"""Which concepts a config gets, and what becomes of those in a workdir."""

import json

import numpy as np
import pytest

from configs import base
from nlip_jax.build.concepts import open_concepts, reopen_concepts
from nlip_jax.data.failures import ReadError
from nlip_jax.data.source import NO_HOLES, Numbering
from nlip_jax.errors import UsageError

CAPTIONS = [
    *["a brown dog and two cats"] * 6,
    *["three boxes on the grass"] * 5,
    *["a red horse"] * 4,
    "IMG_0032.JPG",
]


class Captions:
    """A source of captions that counts how many are asked for."""

    holes = NO_HOLES

    def __init__(self, captions=CAPTIONS, *, names=("first",), broken=()):
        self.captions, self.asked, self.broken = captions, 0, broken
        self.numberings = tuple(Numbering(length=len(captions), fingerprint=n) for n in names)

    def __len__(self):
        return len(self.captions)

    def caption(self, example_id, epoch=0):
        self.asked += 1
        if example_id in self.broken:
            raise ReadError("unreadable_caption", "for the test")
        return self.captions[example_id]


class Letters:
    """A tokenizer whose pieces are letters."""

    def pieces(self, text):
        return [ord(letter) for letter in text]


def config_of(**fields):
    config = base.get_config()
    config.concepts.update(fields)
    return config


def open_(workdir, *, source=None, **fields):
    return open_concepts(
        config_of(**fields), source=source or Captions(), tokenizer=Letters(), workdir=workdir
    )


# --- mined here -----------------------------------------------------------------------------------


def test_mined_once_from_the_captions(tmp_path):
    source = Captions()
    first = open_(tmp_path / "new", source=source)
    assert first.words == ("brown dog", "cat", "dog", "box", "grass")
    np.testing.assert_array_equal(first.rows[1], [*b"cat", 0, 0, 0])
    assert first.rows.shape == (5, 6)
    assert source.asked == len(CAPTIONS)
    second = open_(tmp_path / "new", source=source)
    assert (second.words, second.fingerprint) == (first.words, first.fingerprint)
    assert source.asked == len(CAPTIONS)
    made = json.loads((tmp_path / "new" / "concepts.json").read_text())
    assert (made["counts"], made["num_captions"]) == ([6, 6, 6, 5, 5], len(CAPTIONS))
    files = {path.name for path in (tmp_path / "new").iterdir()}
    assert files == {"concepts.txt", "concepts.json"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_words": 1}, ("cat", "dog", "box", "grass")),
        ({"min_count": 6}, ("brown dog", "cat", "dog")),
        ({"min_share": 0.36}, ("brown dog", "cat", "dog")),
        ({"max_size": 2}, ("brown dog", "cat")),
        ({"min_count": 4, "max_words": 1}, ("cat", "dog", "box", "grass", "horse")),
        ({"max_captions": 2, "min_count": 1, "max_words": 1}, ("box", "cat", "dog", "grass")),
    ],
    ids=str,
)
def test_fields(tmp_path, fields, words):
    assert open_(tmp_path, **fields).words == words


def test_captions_that_cannot_be_read_are_left_out(tmp_path):
    source = Captions(broken=range(7))
    found = open_(tmp_path, source=source, min_count=4).words
    assert found == ("box", "grass", "horse", "red horse")


def test_no_concepts(tmp_path):
    assert open_(tmp_path / "w", top_k=0) is None
    assert reopen_concepts(config_of(top_k=0), tokenizer=Letters(), workdir=tmp_path) is None
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "changes", [{"source": Captions(names=("other",))}, {"max_words": 2}], ids=["source", "field"]
)
def test_other_captions_or_settings_mine_again_before_a_run_and_never_after(tmp_path, changes):
    open_(tmp_path)
    asked = Captions()
    changed = {"source": asked} | changes
    second = open_(tmp_path, **changed)
    (tmp_path / "data.json").touch()  # a run begins
    assert open_(tmp_path, **changes).fingerprint == second.fingerprint
    with pytest.raises(UsageError, match=r"changed since the run.*another --workdir"):
        open_(tmp_path)
    assert (tmp_path / "concepts.txt").exists()


def test_tokens_may_change_without_mining_again(tmp_path):
    open_(tmp_path)
    source = Captions()
    assert open_(tmp_path, source=source, max_tokens=2, prompt="one {}").rows.shape == (5, 2)
    assert source.asked == 0


def test_appended_shards_keep_them(tmp_path):
    first = open_(tmp_path)
    (tmp_path / "data.json").touch()
    longer = Captions([*CAPTIONS, *["a tall tree"] * 9], names=("first", "second"))
    assert open_(tmp_path, source=longer).fingerprint == first.fingerprint
    assert longer.asked == 0


def test_killed_before_the_words_were_there(tmp_path):
    first = open_(tmp_path)
    (tmp_path / "concepts.txt").unlink()  # the other file is written first
    assert open_(tmp_path).fingerprint == first.fingerprint


def test_killed_while_counting(tmp_path):
    (tmp_path / "concepts.parts").mkdir()
    (tmp_path / "concepts.parts" / "000000.tsv").write_text("ghost\t1000\n")
    assert "ghost" not in open_(tmp_path).words
    assert not (tmp_path / "concepts.parts").exists()


@pytest.mark.parametrize("over_mined_ones", [True, False])
def test_words_that_someone_put_there_are_neither_used_nor_replaced(tmp_path, over_mined_ones):
    if over_mined_ones:
        open_(tmp_path)
    path = tmp_path / "concepts.txt"
    path.write_text("unicorn\n")
    with pytest.raises(UsageError, match=r"not mined here: set config\.concepts\.vocabulary=.*txt"):
        open_(tmp_path)
    assert open_(tmp_path, vocabulary=str(path)).words == ("unicorn",)
    assert path.read_text() == "unicorn\n"


def test_reopened_without_the_captions(tmp_path):
    first = open_(tmp_path)
    again = reopen_concepts(config_of(), tokenizer=Letters(), workdir=tmp_path)
    assert again.fingerprint == first.fingerprint
    (tmp_path / "concepts.txt").unlink()
    with pytest.raises(UsageError, match=r"concepts\.txt, this run's own concepts, is gone"):
        reopen_concepts(config_of(), tokenizer=Letters(), workdir=tmp_path)


# --- a file ---------------------------------------------------------------------------------------


def test_a_file(tmp_path):
    path, source = tmp_path / "mine.txt", Captions()
    path.write_text("Dog\npolar  bear\n")
    workdir = tmp_path / "w"
    assert open_(workdir, source=source, vocabulary=str(path)).words == ("dog", "polar bear")
    config = config_of(vocabulary=str(path))
    again = reopen_concepts(config, tokenizer=Letters(), workdir=workdir)
    assert again.words == ("dog", "polar bear")
    assert (source.asked, workdir.exists()) == (0, False)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vocabulary": "/no/such"}, r"cannot read the concepts /no/such.*config\.concepts\.vocab"),
        ({"tagger": "nltk"}, r"config\.concepts\.tagger='nltk': choose rules or spacy:MODEL"),
        ({"tagger": "rules:en"}, "must be 'rules' alone"),
        ({"tagger": "spacy"}, "names no model: write 'spacy:MODEL'"),
        ({"prompt": "a photo"}, r"config\.concepts\.prompt='a photo': it must have \{\} once"),
        ({"prompt": "{} {}"}, r"must have \{\} once"),
        ({"min_count": 50}, r"named by 50 of the 16 captions: lower.*top_k=0"),
    ],
    ids=str,
)
def test_wrong_fields(tmp_path, fields, words):
    with pytest.raises(UsageError, match=words):
        open_(tmp_path, **fields)
