"""NLIP whole of a config: its stages, its parts, and what is refused."""

import pytest
import tiny

from configs import base
from nlip_jax import build
from nlip_jax.build.nlip import make_completion, schedule
from nlip_jax.build.texts import Texts
from nlip_jax.data.concepts.vocabulary import ConceptVocabulary
from nlip_jax.errors import UsageError
from nlip_jax.methods.nlip import Nlip
from nlip_jax.methods.nlip_whole import NlipWhole
from nlip_jax.models.four_part import FourPart


class Rows:
    """A tokenizer of ones."""

    special_ids = {"pad": 0, "unk": 1, "bos": 2, "eos": 3, "mask": 4}  # noqa: RUF012
    vocab_size, context_length, fingerprint = 100, 32, "rows"

    def pieces(self, text):
        return [5] * len(text.split())

    def encode_batch(self, texts):
        return build_rows(texts)


def build_rows(texts):
    import numpy as np

    return np.ones((len(texts), Rows.context_length), np.int32)


class Unmasked(Rows):
    special_ids = {"pad": 0, "bos": 2, "eos": 3}  # noqa: RUF012


def config(**fields):
    made = base.get_config()
    whole = {"nlip.model": "four_part", "model.text.causal": False, "batch_size": 256}
    made.update_from_flattened_dict(whole | fields)
    return made


def clock_of(made, num_examples=25_600):
    return build.make_clock(made, num_examples=num_examples)  # 100 steps an epoch


def method_of(tokenizer=None, **fields):
    made = config(**fields)
    mesh = tiny.mesh_of(1)
    model = build.make_model(made, vocab_size=100)
    tokenizer = tokenizer or Rows()
    words = ConceptVocabulary(("dog",), build_rows(["dog"])[:, : made.concepts.max_tokens], "w")
    concepts = words if made.concepts.top_k else None
    texts = Texts(tokenizer=tokenizer, concepts=concepts)
    return build.make_method(made, model=model, mesh=mesh, clock=clock_of(made), texts=texts)


def stages(**fields):
    made = config(**fields)
    return schedule(made, clock=clock_of(made), completion=make_completion(made))


# --- stages ---------------------------------------------------------------------------------------


def test_by_default_all_is_done_at_the_end_of_the_warm_up():
    assert stages() == {500: ("concepts", "estimate", "captions")}


def test_captions_may_come_later_and_again_with_new_concepts():
    found = stages(**{
        "nlip.completion.after": "3 epochs",
        "nlip.completion.every": "6 epochs",
        "nlip.reestimate_every": "10 epochs",
    })
    assert found == {
        500: ("concepts", "estimate"),
        800: ("concepts", "captions"),
        1400: ("concepts", "captions"),
        1500: ("estimate",),
    }


def test_completion_may_end_within_the_run():
    fields = {"nlip.completion.until": "12 epochs", "nlip.completion.every": "4 epochs"}
    method = method_of(**fields)
    steps = dict(zip(method.refresh_steps, method.works, strict=True))
    assert steps == {
        500: ("concepts", "estimate", "captions"),
        900: ("concepts", "captions"),
        1200: (),
    }
    used = [method.shows("synthetic_caption", episode) for episode in range(4)]
    assert used == [True, True, True, False] and method.shows("noise_prob", 3)
    given = {"nlip.model": "dual_encoder", "nlip.completion.captions": "runs/a"}
    made = config(**fields, **given)
    fields = {"clock": clock_of(made), "completion": make_completion(made), "end": 1200}
    assert schedule(made, **fields) == {500: ("estimate",), 1200: ()}


def test_an_encoder_that_stays_as_it_is_finds_concepts_once():
    found = stages(**{"nlip.completion.after": "1 epoch", "concepts.retriever": "runs/a"})
    assert found == {500: ("concepts", "estimate"), 600: ("captions",)}


def test_concepts_may_be_found_more_often_than_captions_are_made():
    found = stages(**{"concepts.every": "5 epochs", "nlip.completion.after": "12 epochs"})
    assert found == {
        500: ("concepts", "estimate"),
        1000: ("concepts",),
        1500: ("concepts",),
        1700: ("concepts", "captions"),
    }


def test_what_is_not_needed_is_not_done():
    assert stages(**{"concepts.top_k": 0}) == {500: ("estimate", "captions")}
    assert stages(**{"nlip.lm_weight": 0.0}) == {500: ("estimate",)}
    assert stages(**{"nlip.completion.text": "none"}) == {500: ("concepts", "estimate")}
    assert stages(**{"nlip.model": "dual_encoder"}) == {500: ("estimate",)}


def test_matches_are_judged_whenever_texts_or_the_estimate_are_new():
    found = stages(**{"nlip.completion.drop": "match", "nlip.completion.after": "1 epoch"})
    assert found == {500: ("concepts", "estimate", "match"), 600: ("concepts", "captions", "match")}


# --- parts ----------------------------------------------------------------------------------------


def test_two_towers_stay_what_they_were():
    method = method_of(**{"nlip.model": "dual_encoder", "model.text.causal": True})
    assert type(method) is Nlip and method.columns == ("noise_prob",)


def test_the_whole_has_four_parts_and_all_columns():
    method = method_of()
    assert isinstance(method, NlipWhole) and isinstance(method.model, FourPart)
    assert method.columns == ("noise_prob", "synthetic_tokens", "concept_tokens")
    assert method.joined("concept_tokens").shape == (30,)
    assert method.joined("synthetic_tokens").shape == (32,)


def test_without_captions_there_is_no_decoder_memory_and_no_column():
    method = method_of(**{"nlip.lm_weight": 0.0})
    assert method.captioner is None and method.retriever is None
    assert method.columns == ("noise_prob",) and not method.model.captions
    assert not build.can_caption(config(**{"nlip.lm_weight": 0.0}))


def test_candidates_belong_to_decodings_that_draw():
    method = method_of(**{"captions.candidates": 4})
    assert method.captioner.decoding.candidates == 4
    assert method.evaluation_captioner.decoding.candidates == 1  # beam


def test_only_captions_that_are_trained_on_have_to_be_sure():
    method = method_of(**{"captions.min_confidence": 0.3})
    assert method.captioner.min_confidence == 0.3
    assert method.evaluation_captioner.min_confidence == 0.0


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"nlip.model": "five_part"}, r"nlip\.model='five_part': choose one of dual_encoder"),
        ({"model.text.causal": True}, r"causal=True.*set model\.text\.causal=False"),
        ({"model.text.pool": "cls"}, r"pool='cls'.*pool='eos'"),
        ({"nlip.mask_ratio": 0.0}, "mask_ratio"),
        ({"nlip.text_mask_rate": (0.5, 0.3)}, r"text_mask_rate=\(0\.5, 0\.3\)"),
        ({"captions.max_length": 31}, r"at most 30"),
        ({"captions.min_length": 21}, r"min_length=21 and max_length=20"),
        ({"captions.decoding": "best"}, r"captions\.decoding='best': choose one of greedy"),
        ({"captions.evaluation": "best"}, r"captions\.evaluation='best'"),
        ({"captions.min_confidence": 1.0}, r"min_confidence=1\.0 is a probability in \[0, 1\)"),
        ({"nlip.completion.until": "50 epochs"}, r"until='50 epochs' is step 5000 of a run of"),
        (
            {"nlip.completion.until": "4 epochs"},
            r"until='4 epochs' is step 400, and texts are completed from step 500",
        ),
        (
            {"nlip.completion.until": "5 epochs", "nlip.completion.captions": "runs/a"},
            r"until='5 epochs' is step 500, and texts are completed from step 500",
        ),
        (
            {"nlip.completion.until": "4 epochs", "nlip.completion.text": "none"},
            r"until='4 epochs': no synthetic texts are shown that could end",
        ),
        (
            {
                "captions.min_confidence": 0.3,
                "captions.decoding": "beam",
                "captions.length_penalty": 0.5,
            },
            r"min_confidence=0\.3 with decoding=beam needs config\.captions\.length_penalty=1",
        ),
        (
            {"concepts.every": "1 epoch", "concepts.retriever": "runs/a"},
            r"concepts\.every='1 epoch': concepts\.retriever='runs/a' finds the same",
        ),
        ({"nlip.completion.text": "all"}, r"completion\.text='all': choose one of none"),
        ({"nlip.completion.drop": "all"}, r"completion\.drop='all': choose one of none"),
        ({"nlip.completion.after": "30 epochs"}, r"completion\.after='30 epochs'"),
        ({"nlip.lm_stride": 3}, r"lm_stride=3 does not divide the 256 rows"),
        ({"nlip.estimate": "guess"}, r"estimate='guess': choose one of pass, online"),
        (
            {"nlip.completion.text": "union", "nlip.lm_weight": 0.0},
            r"completion\.text='union' needs captions",
        ),
        (
            {"nlip.completion.text": "none", "nlip.completion.captions": "runs/a"},
            "would not be read",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refused_with_one_line(fields, message):
    with pytest.raises(UsageError, match=message):
        method_of(**fields)


def test_a_vocabulary_without_mask_hides_whole_texts_only():
    with pytest.raises(UsageError, match="has no \\[MASK\\]"):
        method_of(Unmasked())
    assert method_of(Unmasked(), **{"nlip.text_drop": 1.0}).text_noise.drop == 1.0
