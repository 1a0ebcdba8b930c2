import pickle

import numpy as np
import pytest

from nlip_jax.data.text.masking import MaskText, mask_tokens
from nlip_jax.data.text.sentence_piece import SentencePieceTokenizer, train_sentence_piece
from nlip_jax.data.text.word_piece import BertTokenizer, Vocabulary
from nlip_jax.errors import UsageError

WORDS = ["dog", "photo", "##graph", "##s", "the", "un", "##aff", "##able"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"w{i}" for i in range(987))]
MASK, FIRST = 4, 5  # the first id that is not special
CAPTION = "the dogs photographs unaffable photograph the dog"


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer(Vocabulary(tuple(PIECES), True, "vocab.txt"), context_length=24)


def masks(transform, text, count=2000):
    """A row, and its inputs and labels in many epochs, `[count, l]`."""
    row = transform.tokenizer.encode(text)
    many = [transform(row, example_id=7, epoch=epoch) for epoch in range(count)]
    return row, np.array([m.inputs for m in many]), np.array([m.labels for m in many])


def test_shares_of_berts_recipe(tokenizer):
    """Of 20 tokens 15 % are picked; 80 % of those are seen as [MASK], 10 % as another one."""
    row, inputs, labels = masks(MaskText(tokenizer=tokenizer), "the dog " * 10, 4000)
    picked = labels != 0
    assert inputs.dtype == labels.dtype == np.int32
    np.testing.assert_array_equal(labels, np.where(picked, row, 0))
    np.testing.assert_array_equal(inputs[~picked], np.broadcast_to(row, inputs.shape)[~picked])
    np.testing.assert_array_equal(picked.sum(1), 3)  # 15 % of 20
    np.testing.assert_allclose(picked[:, 1:21].mean(0), 0.15, atol=0.025)  # 4.4 sigma each
    seen, true = inputs[picked], labels[picked]
    assert abs((seen == MASK).mean() - 0.8) < 0.015  # 12,000 draws: 4 sigma
    assert abs((seen == true).mean() - 0.1) < 0.012
    other = seen[(seen != MASK) & (seen != true)]
    assert abs(len(other) / len(seen) - 0.1) < 0.012
    assert other.min() >= FIRST and len(set(other.tolist())) > 500  # from the whole vocabulary


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("rate", [0.15, 0.4, 1.0])
def test_the_rate_holds_on_average(tokenizer, whole_words, rate):
    transform = MaskText(tokenizer=tokenizer, rate=rate, whole_words=whole_words)
    row, _, labels = masks(transform, CAPTION)
    units = tokenizer.words(row).max() if whole_words else (row >= FIRST).sum()
    share = (labels != 0).mean(0)[row >= FIRST]
    assert units == (7 if whole_words else 13)
    np.testing.assert_allclose(share, rate, atol=0.04)  # of every token, wherever it stands


def test_special_ids_and_padding_are_never_picked(tokenizer):
    row, inputs, labels = masks(MaskText(tokenizer=tokenizer, rate=0.9), "the dog, photo")
    special = np.isin(row, [0, 1, 2, 3])
    assert special.sum() == 24 - 3  # the comma is unknown
    assert not labels[:, special].any()
    np.testing.assert_array_equal(inputs[:, special], np.tile(row[special], (len(inputs), 1)))


@pytest.mark.parametrize("whole_words", [False, True])
def test_at_least_one_token_if_there_is_any(tokenizer, whole_words):
    transform = MaskText(tokenizer=tokenizer, whole_words=whole_words)
    row, _, labels = masks(transform, "the dog", 200)
    assert ((labels != 0).sum(1) == 1).all()
    assert set(np.unique(labels)) == {0, *row[1:3]}  # sometimes the one, sometimes the other
    row, inputs, labels = masks(transform, "", 20)
    assert not labels.any() and (inputs == row).all()
    row, inputs, labels = masks(transform, "???", 20)  # nothing but unknown ones
    assert not labels.any() and (inputs == row).all()


def test_whole_words_all_or_nothing(tokenizer):
    row, _, labels = masks(MaskText(tokenizer=tokenizer, rate=0.3, whole_words=True), CAPTION)
    words = tokenizer.words(row)
    for word in range(1, words.max() + 1):
        inside = (labels != 0)[:, words == word]
        np.testing.assert_array_equal(inside.all(1), inside.any(1))
    counts = [len({*words[label != 0]}) for label in labels]
    assert set(counts) == {2, 3}  # 0.3 * 7 = 2.1 words, rounded at random
    _, _, labels = masks(MaskText(tokenizer=tokenizer, rate=0.3), CAPTION)
    inside = (labels != 0)[:, words == 4]
    assert (inside.all(1) != inside.any(1)).any()  # single tokens do tear words


def test_the_same_example_gets_the_same_mask_anywhere(tokenizer):
    transform = MaskText(tokenizer=tokenizer, rate=0.5, seed=3)
    row = tokenizer.encode(CAPTION)
    first = transform(row, example_id=5, epoch=1)
    again = pickle.loads(pickle.dumps(transform))(row, example_id=5, epoch=1)
    np.testing.assert_array_equal(first, again)
    others = [
        transform(row, example_id=6, epoch=1),
        transform(row, example_id=5, epoch=2),
        MaskText(tokenizer=tokenizer, rate=0.5, seed=4)(row, example_id=5, epoch=1),
    ]
    assert all((first.inputs != other.inputs).any() for other in others)


def test_masks_are_drawn_apart_from_images(tokenizer, monkeypatch):
    """An image's transform draws from (seed, epoch, id): were masks drawn from it, they would be
    tied to the crops."""
    seeds = []
    monkeypatch.setattr(
        np.random,
        "default_rng",
        lambda s, make=np.random.default_rng: (
            seeds.append(np.random.SeedSequence(s).generate_state(4).tolist()) or make(s)
        ),
    )
    MaskText(tokenizer=tokenizer, seed=1)(tokenizer.encode("dog"), example_id=2, epoch=3)
    assert seeds[0] not in [
        np.random.SeedSequence(s).generate_state(4).tolist()
        for s in [(1, 3, 2), *((1, 3, 2, view) for view in range(16))]
    ]


def test_rows_are_left_as_they_are(tokenizer):
    row = tokenizer.encode(CAPTION)
    before = row.copy()
    MaskText(tokenizer=tokenizer, rate=1.0)(row, example_id=0, epoch=0)
    np.testing.assert_array_equal(row, before)


def test_units_of_any_kind():
    """The pure function: units are whatever the caller numbered."""
    tokens, units = np.array([9, 8, 7, 6], np.int32), np.array([0, 1, 1, 2], np.int32)
    masked = mask_tokens(
        tokens,
        units,
        np.random.default_rng(0),
        rate=1.0,
        mask_id=1,
        other_ids=np.array([5], np.int32),
    )
    assert masked.labels.tolist() == [0, 8, 7, 6]
    assert masked.inputs[0] == 9 and set(masked.inputs[1:].tolist()) <= {1, 5, 8, 7, 6}


def test_trained_vocabularies_have_a_mask_and_others_are_refused(tokenizer):
    model = train_sentence_piece([CAPTION] * 3, vocab_size=60)
    trained = SentencePieceTokenizer(model, context_length=24)
    row, _, labels = masks(MaskText(tokenizer=trained, whole_words=True), CAPTION, 300)
    assert (labels != 0).any(1).all() and not labels[:, row <= 4].any()
    for rate in (0.0, 1.5):
        with pytest.raises(UsageError, match="mask rate"):
            MaskText(tokenizer=trained, rate=rate)
    trained.special_ids = {"pad": 0, "bos": 2, "eos": 3}  # as CLIP's
    with pytest.raises(UsageError, match=r"no \[MASK\].*name=bert"):
        MaskText(tokenizer=trained)
